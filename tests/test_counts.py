"""The program that is timed is the program that was performed: its counts equal what the accelerators did."""

import itertools
from collections import Counter

import numpy as np
import pytest

from rpucluster.accelerator import Counts, Steps
from rpucluster.calls import givers, takers
from rpucluster.data import load_data
from rpucluster.devices import ConstantStep
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.plan import Plan
from rpucluster.pool import LocalPool
from rpucluster.program import Collective, Program, Read, Send, Update
from rpucluster.tile import Converters, Management, TileGrid, UpdateSettings
from tests.specs import make_cluster, make_job

STEPS = 3
PLANS = [
    {"tensor": t, "pipeline": p, "data": d, "tensor_split": split, "schedule": schedule}
    for (t, p, d), split, schedule in itertools.product(
        [(1, 1, 1), (2, 1, 1), (3, 1, 1), (1, 2, 1), (2, 2, 1), (1, 1, 2), (2, 2, 2), (3, 3, 1)],
        ["auto", "output", "input"],
        ["gpipe", "1f1b", "async"],
    )
    if p > 1 or schedule != "1f1b"
]
PLANS += [
    {"tensor": t, "pipeline": p, "data": d, "schedule": "interleaved", "virtual_stages": v}
    for t, p, d, v in [(1, 1, 1, 3), (2, 2, 1, 2), (1, 2, 2, 2)]
]
PLANS += [
    {"tensor": t, "pipeline": p, "data": d, "schedule": schedule, "data_sync": "gradient"}
    for t, p, d, schedule in [(1, 1, 1, "gpipe"), (2, 2, 2, "1f1b"), (3, 1, 2, "async"), (1, 3, 2, "async")]
]
FOUR_LAYERS = [64, 24, 20, 18, 10]


def performed(job: Job, name: str = "train", batch: int | None = None) -> tuple[Program, Plan, dict[int, Counts]]:
    """Perform a few steps of a program and say what each accelerator counted."""
    cluster = make_cluster(9)
    plan = partition(job, cluster)
    program = lower(plan, job, name, batch)  # type: ignore[arg-type]
    data = load_data(job.data)
    pool = LocalPool(job, cluster, plan)
    try:
        pool.load(name, program)
        pool.set_data("digits", data.train_x, data.train_y)
        indices = np.arange(STEPS * program.samples).reshape(STEPS, -1) % 64
        steps = Steps(first_sample=0, learning_rate=0.05, indices=indices)
        pool.perform(name, "digits", steps)
        return program, plan, pool.counts()
    finally:
        pool.close()


def without_management(**parallel: object) -> Job:
    """Bound management repeats passes and dynamic bit length drops slots as the data will have it: both off."""
    return make_job(
        model={"sizes": FOUR_LAYERS} if parallel["schedule"] == "interleaved" else {},
        parallel=parallel,
        forward={"noise_management": "abs_max", "bound_management": "none"},
        update={"bit_length": 9, "dynamic_bit_length": False},
    )


@pytest.mark.parametrize("parallel", PLANS, ids=lambda plan: "-".join(map(str, plan.values())))
def test_the_pool_does_what_the_program_says(parallel: dict[str, object]) -> None:
    program, _, counts = performed(without_management(**parallel))
    passes = {op.id: STEPS * op.vectors * op.tiles for op in program if isinstance(op, Read)}
    cycles = {op.id: STEPS * op.cycles for op in program if isinstance(op, Update)}
    done: Counter[int] = Counter()
    given: Counter[tuple[int, int]] = Counter()
    taken: Counter[tuple[int, int, int]] = Counter()
    for number, count in counts.items():
        for (_, op), n in count.performed.items():
            assert program.ops[op].accelerators == (number,)
            done[op] += n
        for (_, op), n in count.emitted.items():
            given[op, number] += n
        for (_, op, giver), n in count.absorbed.items():
            taken[op, giver, number] += n
    assert done == Counter(passes | cycles)
    slots = sum(op.slots for op in program if isinstance(op, Update))
    assert sum(c.pulses.slots for c in counts.values()) == STEPS * slots
    assert sum(c.pulses.cycles for c in counts.values()) == sum(cycles.values())
    assert sum(c.reads.passes for c in counts.values()) == sum(passes.values())
    assert sum(c.reads.repeats for c in counts.values()) == 0
    assert given == {
        (op.id, giver): STEPS * _elements(op, giver)
        for op in program
        if isinstance(op, Collective | Send)
        for giver in givers(op)
    }
    assert taken == {
        (op.id, giver, taker): STEPS * _elements(op, giver)
        for op in program
        if isinstance(op, Collective | Send)
        for giver in givers(op)
        for taker in takers(op)
        if taker != giver
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"kind": "tiki_taka", "transfer_every": 4, "transfer_columns": 2, "transfer_bit_length": 5}},
        {"algorithm": {"kind": "tiki_taka_v2", "transfer_every": 2}},
        {"algorithm": {"kind": "agad", "auto_scale": True, "fast_learning_rate": 0.5}},
        {"algorithm": {"kind": "mixed_precision", "flush_every": 4, "flush_bit_length": 3}},
        {"parallel": {"data_sync": "gradient", "data": 2}},
        {"device": {"devices_per_weight": 2}},
        {"device": {"one_sided": True, "refresh_every": 3}},
    ],
    ids=["ttv1", "ttv2", "agad", "mixed", "rows", "vector", "pairs"],
)
def test_single_lines_of_algorithms_are_those_that_the_program_says(changes: dict[str, object]) -> None:
    """Over the steps in which averages come out whole."""
    plan: dict[str, object] = {"tensor": 2, "pipeline": 2, **changes.get("parallel", {})}  # type: ignore[dict-item]
    job = make_job(**{"update": {"bit_length": 9}, **changes, "parallel": plan})
    program, _, counts = performed(job)
    updates = [op for op in program if isinstance(op, Update)]
    lines = [op.alone for op in updates if op.alone is not None]
    assert sum(c.pulses.slots for c in counts.values()) == STEPS * sum(op.slots for op in updates)
    assert sum(c.pulses.cycles for c in counts.values()) == STEPS * sum(op.cycles for op in updates)
    assert sum(c.pulses.line_passes for c in counts.values()) == pytest.approx(STEPS * sum(op.passes for op in lines))
    slots = sum(op.writes * op.slots for op in lines)
    assert sum(c.pulses.line_slots for c in counts.values()) == pytest.approx(STEPS * slots)


def _elements(op: Collective | Send, giver: int) -> int:
    return op.elements if isinstance(op, Send) else op.elements[op.members.index(giver)]


def test_averaging_moves_what_the_program_says() -> None:
    job = make_job(model={"bias": "digital"}, parallel={"data": 2, "tensor": 2, "data_sync": "average"})
    program, _, counts = performed(job, "average")
    for op in program:
        if isinstance(op, Collective):
            for member in op.members:
                assert counts[member].emitted["average", op.id] == STEPS * _elements(op, member)


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
def test_coincidences_agree_with_their_expectation(noise_per: str) -> None:
    """Within four standard deviations of the sum of BL p q, tile by tile and sample by sample.

    In one slot of one tile R rows and C columns fire, independently, so there are R C coincidences with the variance
    E[R^2] E[C^2] - (E[R] E[C])^2; slots, samples and tiles are independent of each other.
    """
    bit_length, rate, tile = 9, 0.004, 8
    rng = np.random.default_rng()
    x, d = rng.uniform(-1, 1, (40, 20)).astype("f4"), rng.normal(0, 0.5, (40, 13)).astype("f4")
    grid = TileGrid(
        layer=0,
        replica=0,
        rows=13,
        cols=20,
        tile_rows=tile,
        tile_cols=tile,
        row_tiles=(0, 2),
        col_tiles=(0, 3),
        device=ConstantStep(),
        forward=Converters(),
        backward=Converters(),
        forward_management=Management(),
        backward_management=Management(),
        update=UpdateSettings(bit_length=bit_length, noise_per=noise_per),  # type: ignore[arg-type]
        seed=int(rng.integers(2**31)),
    )
    count = grid.update(x, d, rate, first_sample=0)
    gain = np.sqrt(rate / (bit_length * ConstantStep().dw_min))
    p, q = np.minimum(gain * np.abs(x), 1), np.minimum(gain * np.abs(d), 1)
    mean = variance = 0.0
    for rows, cols in itertools.product(range(0, 13, tile), range(0, 20, tile)):
        columns, lines = p[:, cols : cols + tile], q[:, rows : rows + tile]
        means = columns.sum(1), lines.sum(1)
        squares = [m**2 + (f * (1 - f)).sum(1) for m, f in zip(means, (columns, lines), strict=True)]
        mean += bit_length * float((means[0] * means[1]).sum())
        variance += bit_length * float((squares[0] * squares[1] - (means[0] * means[1]) ** 2).sum())
    assert count.expected_coincidences == pytest.approx(mean, rel=1e-5)
    assert abs(count.coincidences - mean) < 4 * np.sqrt(variance)
    assert count.slots == bit_length * 40 * 6


def test_dynamic_bit_length_uses_fewer_slots_and_is_reported_as_measured() -> None:
    program, _, counts = performed(make_job(update={"dynamic_bit_length": True, "bit_length": 31}))
    most = STEPS * sum(op.slots for op in program if isinstance(op, Update))
    assert 0 < sum(c.pulses.slots for c in counts.values()) < most


def test_repeats_of_bound_management_are_reported_as_measured() -> None:
    """With a bound far below the outputs every vector is repeated; the passes of the program are not changed."""
    job = make_job(forward={"noise_management": "abs_max", "bound_management": "iterative"})
    cluster = make_cluster(4, forward={"output_bound": 0.05, "read_noise": 0.0})
    plan = partition(job, cluster)
    program = lower(plan, job)
    data = load_data(job.data)
    pool = LocalPool(job, cluster, plan)
    try:
        pool.load("train", program)
        pool.set_data("digits", data.train_x, data.train_y)
        pool.perform("train", "digits", Steps(first_sample=0, learning_rate=0.01, indices=np.arange(8).reshape(1, 8)))
        counts = pool.counts()[0]
    finally:
        pool.close()
    assert counts.reads.passes == sum(op.vectors * op.tiles for op in program if isinstance(op, Read))
    assert counts.reads.repeats > 0
