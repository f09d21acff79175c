"""A program performed as a tape: compiled or row by row, in one go or step by step, it is the same experiment."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rpucluster import accelerator, kernels
from rpucluster.accelerator import Accelerator, Counts, Score, Steps
from rpucluster.data import load_data
from rpucluster.errors import NumericalError
from rpucluster.holdings import Holdings
from rpucluster.job import Job
from rpucluster.kernels import step
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.pool import LocalPool
from tests.specs import make_cluster, make_job

PLANS: list[dict[str, Any]] = [
    {"tensor": t, "pipeline": p, "data": d, "tensor_split": split, "schedule": schedule}
    for (t, p, d), split, schedule in itertools.product(
        [(1, 1, 1), (2, 1, 1), (3, 1, 1), (2, 2, 1), (1, 3, 1), (1, 1, 2), (2, 2, 2)],
        ["output", "input"],
        ["gpipe", "1f1b"],
    )
    if (p > 1 or schedule == "gpipe") and (t > 1 or split == "output")
]
PLANS += [
    {"tensor": t, "pipeline": p, "data": d, "tensor_split": "input", "schedule": "async"}
    for t, p, d in [(1, 1, 1), (1, 1, 2), (2, 2, 2)]
]
PLANS += [
    {"tensor": t, "pipeline": p, "data": d, "tensor_split": "input", "schedule": "1f1b", "data_sync": "gradient"}
    for t, p, d in [(1, 1, 1), (2, 2, 2)]
]
STEPS = 3


def accelerators(pool: LocalPool) -> list[Accelerator]:
    return list(pool._host._accelerators.values())


def trained(
    job: Job, before: Callable[[LocalPool, int], None] | None = None, batch: int = 20
) -> tuple[list[bytes], dict[int, Counts], Score, Score]:
    """Weights, counts and scores after a few steps and an evaluation; `before` is called before each step."""
    cluster = make_cluster(9)
    plan = partition(job, cluster)
    train, evaluate = lower(plan, job), lower(plan, job, "evaluate", batch)
    data = load_data(job.data)
    pool = LocalPool(job, cluster, plan)
    try:
        pool.load("train", train)
        pool.load("evaluate", evaluate)
        pool.set_data("digits", data.train_x, data.train_y)
        indices = np.arange(STEPS * train.samples).reshape(STEPS, -1) % 64
        steps = Steps(first_sample=5, learning_rate=0.05, indices=indices)
        if before is None:
            pool.perform("train", "digits", steps)
        else:
            for i in range(STEPS):
                before(pool, i)
                pool.perform("train", "digits", steps.part(i, i + 1))
        score = pool.take_score()
        pool.perform(
            "evaluate", "digits", Steps(first_sample=0, learning_rate=0.0, indices=np.arange(20).reshape(1, -1))
        )
        weights = []
        for a, layer in itertools.product(accelerators(pool), range(3)):
            found = a.weights(layer, (0, 1 << 20))
            if found is not None:
                weights += [found[2].tobytes(), b"" if found[3] is None else found[3].tobytes()]
        return weights, pool.counts(), score, pool.take_score()
    finally:
        pool.close()


def same(first: Any, second: Any, loss: float = 1e-12) -> None:
    """Weights bit for bit, counts exactly; the loss, which nothing is trained with, to rounding."""
    assert first[0] == second[0]
    for number, counts in first[1].items():
        other = second[1][number]
        assert counts.performed == other.performed
        assert counts.reads == other.reads
        assert counts.pulses.expected_coincidences == pytest.approx(other.pulses.expected_coincidences)
        assert (counts.pulses.slots, counts.pulses.coincidences) == (other.pulses.slots, other.pulses.coincidences)
        assert (counts.emitted, counts.absorbed) == (other.emitted, other.absorbed)
    for one, another in zip(first[2:], second[2:], strict=True):
        assert (one.hits, one.samples) == (another.hits, another.samples)
        assert one.loss == pytest.approx(another.loss, rel=loss)


@pytest.mark.parametrize("device", ["rpu-baseline", "floating-point"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("bias", ["column", "digital", "none"])
def test_compiled_rows_do_what_array_operations_do(
    device: str, activation: str, bias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(device={"preset": device}, model={"activation": activation, "bias": bias})
    compiled = trained(job)
    monkeypatch.setattr(Holdings, "compiles", lambda self, row: False)
    same(compiled, trained(job))


@pytest.mark.parametrize("parallel", PLANS, ids=lambda plan: "-".join(map(str, plan.values())))
def test_array_operations_serve_every_plan(parallel: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(parallel=parallel, model={"bias": "digital"}, update={"noise_per": "batch"})
    compiled = trained(job)
    monkeypatch.setattr(Holdings, "compiles", lambda self, row: False)
    same(compiled, trained(job))


@pytest.mark.parametrize("code", [step.READ, step.UPDATE])
def test_a_tape_can_leave_single_rows_to_array_operations(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As large tiles and grids of another kind ask for."""
    compiled = trained(make_job())
    monkeypatch.setattr(Holdings, "compiles", lambda self, row: row[step.CODE] != code)
    same(compiled, trained(make_job()))


def test_long_runs_are_performed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an interrupt does not wait for all of them."""
    whole = trained(make_job())
    lengths: list[int] = []
    prepare = kernels.step_performer(np)

    def counting(*arguments: Any) -> Callable[..., tuple[int, int]]:
        perform = prepare(*arguments)

        def counted(feed: step.Feed, first: int, last: int) -> tuple[int, int]:
            lengths.append(last - first)
            return perform(feed, first, last)

        return counted

    monkeypatch.setattr(kernels, "step_performer", lambda xp: counting)
    assert trained(make_job())[0] == whole[0]
    assert lengths == [STEPS, 1]
    lengths.clear()
    monkeypatch.setattr(accelerator, "_CELL_VECTORS", 2 * 8 * (24 * 65 + 20 * 25 + 10 * 21))
    assert trained(make_job())[0] == whole[0]
    assert lengths == [2, 1, 1]


@pytest.mark.parametrize("bias", ["column", "digital"])
@pytest.mark.parametrize("parallel", PLANS, ids=lambda plan: "-".join(map(str, plan.values())))
def test_a_step_reads_nothing_that_it_did_not_write(parallel: dict[str, Any], bias: str) -> None:
    """All values of the step before are spoiled, so that whatever reads them fails or trains other weights."""

    def spoil(pool: LocalPool, number: int) -> None:
        for one in accelerators(pool):
            script = one._scripts["train"]
            script.interpreter.floats[:] = np.nan
            script.interpreter.fixed[:] = np.iinfo(np.int64).min
            for window in script.tape.bias_lines():
                window.of(script.interpreter.floats)[:] = 1

    job = make_job(parallel=parallel, model={"bias": bias})
    same(trained(job), trained(job, before=spoil))


@pytest.mark.parametrize("parallel", PLANS, ids=lambda plan: "-".join(map(str, plan.values())))
def test_values_have_places_of_their_own(parallel: dict[str, Any]) -> None:
    """Laid side by side, the values fill both arenas without a gap or an overlap."""
    job, cluster = make_job(parallel=parallel), make_cluster(9)
    plan = partition(job, cluster)
    program = lower(plan, job)
    for number in program.accelerators:
        one = Accelerator(number, job, cluster.accelerator, plan)
        one.load("train", program, ())
        tape = one._scripts["train"].tape
        for fixed, size in [(True, tape.fixed), (False, tape.floats)]:
            used = np.zeros(size, int)
            for (name, _), buffer in tape.buffers.items():
                if (name in ("out", "partial")) == fixed:
                    used[buffer.start : buffer.start + buffer.vectors * buffer.stride] += 1
            assert (used == 1).all()


# --- what goes wrong ---


def failing(job: Job, learning_rate: float = 0.05, spoilt: float | None = None) -> None:
    cluster = make_cluster(4)
    plan = partition(job, cluster)
    data = load_data(job.data)
    x = data.train_x.copy()
    if spoilt is not None:
        x[3, 5] = spoilt
    pool = LocalPool(job, cluster, plan)
    try:
        pool.load("train", lower(plan, job))
        pool.set_data("digits", x, data.train_y)
        steps = Steps(first_sample=0, learning_rate=learning_rate, indices=np.arange(64).reshape(8, 8))
        pool.perform("train", "digits", steps)
    finally:
        pool.close()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_a_signal_that_is_not_finite_is_told_by_its_layer(
    spoilt: float, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(Holdings, "compiles", lambda self, row: False)
    with pytest.raises(NumericalError, match=r"layer 0: an input or error signal is not finite"):
        failing(make_job(), spoilt=spoilt)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_sum_out_of_range_is_told_by_its_layer(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(Holdings, "compiles", lambda self, row: False)
    job = make_job(device={"preset": "floating-point"}, model={"activation": "relu"})
    with pytest.raises(NumericalError, match=r"layer \d: an output is not finite or has reached 2\^22"):
        failing(job, learning_rate=1e9)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_a_learning_rate_must_be_a_number(rate: float) -> None:
    with pytest.raises(ValueError, match="learning rate"):
        failing(make_job(), learning_rate=rate)


def test_compiled_code_meets_no_row_or_label_beyond_its_arrays() -> None:
    job, cluster = make_job(), make_cluster(4)
    plan = partition(job, cluster)
    program = lower(plan, job)
    pool = LocalPool(job, cluster, plan)
    try:
        pool.load("train", program)
        x, y = np.zeros((9, 64), np.float32), np.zeros(9, np.int64)
        for label in (-1, 10):
            with pytest.raises(ValueError, match=f"{label}"):
                pool.set_data("bad", x, y + label)
        pool.set_data("nine", x, y)
        for rows in (np.arange(2, 10), np.arange(-1, 7)):
            with pytest.raises(IndexError, match="of a data set of 9"):
                pool.perform("train", "nine", Steps(first_sample=0, learning_rate=0.1, indices=rows.reshape(1, 8)))
        with pytest.raises(ValueError, match="7 samples a step for a program of 8"):
            pool.perform("train", "nine", Steps(first_sample=0, learning_rate=0.1, indices=np.arange(7).reshape(1, 7)))
    finally:
        pool.close()
