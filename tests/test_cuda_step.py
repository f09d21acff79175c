"""Steps recorded as launches of CUDA kernels, run here on the CPU: replayed, they are what each operation does alone.

The CUDA kernels' reads add products in another order than the CPU's.  Without an ADC a read differs by a rounding,
which changes no pulse but for a random number within 1e-7 of a probability: so whole trainings agree bit for bit.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rpucluster import kernels, tile
from rpucluster.accelerator import Steps
from rpucluster.arrays import array_module
from rpucluster.data import load_data
from rpucluster.errors import NumericalError
from rpucluster.holdings import Holdings
from rpucluster.job import Job
from rpucluster.kernels import step
from rpucluster.kernels.cuda import CudaKernels
from rpucluster.kernels.cuda_launch import Functions
from rpucluster.kernels.cuda_step import CudaStep, Run
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.pool import LocalPool
from tests.specs import make_cluster, make_job
from tests.test_accelerator import PLANS, STEPS, accelerators, failing, same, trained

NO_ADC = {"output_bits": 0}
"""Outputs as they are."""
EVERYTHING: dict[str, Any] = {
    "input_bits": 5, "input_rounding": "stochastic", "output_bits": 9, "output_rounding": "stochastic",
    "output_bound": 1.0, "read_noise": 0.05, "input_noise": 0.02, "weight_read_noise": 0.01, "wire_resistance": 0.5,
}  # fmt: skip
"""All that a read can have, and so low a bound that many outputs saturate."""


class Recorder:
    """Puts recorded steps in the place of the CPU's, and counts how often a list was captured and replayed."""

    def __init__(self, functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
        self.captured = self.replayed = 0
        recorder = CudaStep(np, functions, self._capture)
        monkeypatch.setattr(kernels, "step_performer", lambda xp: recorder.prepare)

    def _capture(self, run: Run) -> Run:
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            run()

        return replay


def alone(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on every operation is performed by itself, by the same CUDA kernels."""
    monkeypatch.setattr(Holdings, "compiles", lambda self, row: False)
    monkeypatch.setattr(tile.kernel_sets, "for_module", lambda xp, name="auto", threads=1: CudaKernels(np, functions))


@pytest.fixture(autouse=True)
def larger_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread of each block is run one after the other, so there should not be many blocks."""
    with_converters(monkeypatch)


def with_converters(monkeypatch: pytest.MonkeyPatch, **converters: Any) -> None:
    """Let the accelerators of `trained` have tiles of 16 x 16 with these converters in both directions."""
    accelerator = {"tile": 16} | ({"forward": converters, "backward": converters} if converters else {})
    monkeypatch.setattr("tests.test_accelerator.make_cluster", lambda number: make_cluster(number, **accelerator))


def recorded_and_alone(job: Job, functions: Functions, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Train both ways, and compare."""
    with monkeypatch.context() as patch:
        recorder = Recorder(functions, patch)
        recorded = trained(job)
    with monkeypatch.context() as patch:
        alone(functions, patch)
        same(recorded, trained(job))
    return recorder


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
@pytest.mark.parametrize("bias", ["column", "digital", "none"])
@pytest.mark.parametrize("device", ["rpu-baseline", "floating-point"])
def test_a_recorded_step_is_that_of_the_cpu(
    device: str, bias: str, noise_per: str, cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(device={"preset": device}, model={"bias": bias}, update={"noise_per": noise_per})
    with_converters(monkeypatch, **NO_ADC)
    on_cpu = trained(job)
    with monkeypatch.context() as patch:
        recorder = Recorder(cuda_functions, patch)
        recorded = trained(job)
    # the first step is launched as a list, the others are the captured one; an evaluation is one step
    assert (recorder.captured, recorder.replayed) == (1, STEPS - 1)
    biases = slice(None) if device == "floating-point" else slice(1, None, 2)  # of all arrays, in turn with weights
    for number, another in zip(on_cpu[0][biases], recorded[0][biases], strict=True):  # made of numbers, not of pulses
        np.testing.assert_allclose(
            np.frombuffer(number, np.float32), np.frombuffer(another, np.float32), rtol=0, atol=1e-6
        )
    on_cpu[0][biases] = recorded[0][biases]
    same(on_cpu, recorded, loss=1e-5)


@pytest.mark.parametrize(
    ("noise_management", "bound_management", "tolerances"),
    [
        ("none", "iterative", "stored"),
        ("abs_max", "none", "recomputed"),
        ("average_abs_max", "iterative", "recomputed"),
        ("constant", "worst_case", "stored"),
    ],
)
def test_recorded_reads_have_all_converters(
    noise_management: str,
    bound_management: str,
    tolerances: str,
    cuda_functions: Functions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    management = {"noise_management": noise_management, "bound_management": bound_management}
    job = make_job(forward=management, backward=management, run={"tolerances": tolerances})
    with_converters(monkeypatch, **EVERYTHING)
    recorded_and_alone(job, cuda_functions, monkeypatch)


@pytest.mark.parametrize("device", ["reram-sb", "reram-es"])
@pytest.mark.parametrize("lifetime", [0.0, 50.0])
def test_recorded_updates_perform_every_device(
    device: str, lifetime: float, cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that depend on the weight, and what time does to cells."""
    job = make_job(device={"preset": device, "lifetime": lifetime, "diffusion": lifetime / 1e5})
    with_converters(monkeypatch, **NO_ADC)
    on_cpu = trained(job)
    Recorder(cuda_functions, monkeypatch)
    same(on_cpu, trained(job), loss=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_recorded_activations(activation: str, cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(model={"activation": activation})
    with_converters(monkeypatch, **NO_ADC)
    on_cpu = trained(job)
    Recorder(cuda_functions, monkeypatch)
    same(on_cpu, trained(job), loss=1e-5)


@pytest.mark.parametrize("parallel", [PLANS[1], PLANS[-1]], ids=lambda plan: "-".join(map(str, plan.values())))
def test_recordings_serve_every_plan(
    parallel: dict[str, Any], cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between payloads there are lists of their own."""
    job = make_job(parallel=parallel, model={"bias": "digital"})
    recorder = recorded_and_alone(job, cuda_functions, monkeypatch)
    assert recorder.replayed > 0


def test_one_microbatch_or_four_are_the_same_recorded(
    cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a vector's read gives does not depend on those that it is read with; blocks of 2, 8 and 32 add alike."""
    Recorder(cuda_functions, monkeypatch)
    found = [trained(make_job(train={"minibatch": 16, "microbatch": size}))[0] for size in (1, 4, 16)]
    assert found[0] == found[1] == found[2]


def test_large_tiles_repeat_reads_in_rounds_of_many_blocks(
    cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one block does it in one launch."""
    job = make_job()
    with_converters(monkeypatch, **EVERYTHING)
    Recorder(cuda_functions, monkeypatch)
    small = trained(job)
    assert any(counts.reads.repeats > 0 for counts in small[1].values())
    monkeypatch.setattr("rpucluster.kernels.cuda_read._SMALL", 0)
    same(small, trained(job))


def test_rows_that_cannot_be_recorded_stand_between_recordings(
    cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As updates of a training algorithm with planes of its own do."""
    monkeypatch.setattr(
        tile.kernel_sets, "for_module", lambda xp, name="auto", threads=1: CudaKernels(np, cuda_functions)
    )
    recorder = Recorder(cuda_functions, monkeypatch)
    whole = trained(make_job())
    assert recorder.captured == 1
    monkeypatch.setattr(Holdings, "compiles", lambda self, row: row[step.CODE] != step.UPDATE)
    same(whole, trained(make_job()))
    assert recorder.captured == 2  # what comes before all updates


def test_chunks_of_a_minibatch_above_32_are_one_update(
    cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(train={"minibatch": 40, "microbatch": 40})
    with_converters(monkeypatch, **NO_ADC)
    on_cpu = trained(job)
    Recorder(cuda_functions, monkeypatch)
    same(on_cpu, trained(job), loss=1e-5)


# --- what goes wrong ---


@pytest.mark.parametrize("device", ["rpu-baseline", "floating-point"])
@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_signal_that_is_not_finite_is_told_by_its_layer(
    spoilt: float, device: str, cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recorder(cuda_functions, monkeypatch)
    with pytest.raises(NumericalError, match=r"^layer 0: an input or error signal is not finite"):
        failing(make_job(device={"preset": device}), spoilt=spoilt)


def test_a_sum_out_of_range_is_told_by_its_layer(cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(device={"preset": "floating-point"}, model={"activation": "relu"})
    with pytest.raises(NumericalError) as on_cpu:
        failing(job, learning_rate=1e9)
    Recorder(cuda_functions, monkeypatch)
    with pytest.raises(NumericalError) as recorded:
        failing(job, learning_rate=1e9)
    assert str(recorded.value) == str(on_cpu.value)


def weights_after(job: Job, steps: int, spoilt: int) -> list[bytes]:
    """Weights after some steps of 8 samples, sample `spoilt` of which is not a number."""
    cluster = make_cluster(1)
    plan = partition(job, cluster)
    data = load_data(job.data)
    x = data.train_x.copy()
    x[spoilt, 7] = np.nan
    pool = LocalPool(job, cluster, plan)
    try:
        pool.load("train", lower(plan, job))
        pool.set_data("digits", x, data.train_y)
        one = accelerators(pool)[0]
        indices = np.arange(8 * steps).reshape(steps, 8)
        feed = one.feed("digits", Steps(first_sample=0, learning_rate=0.05, indices=indices))
        with contextlib.suppress(NumericalError):
            one.perform("train", 0, feed, 0, steps)
        return [one.weights(layer, (0, 1 << 20))[2].tobytes() for layer in range(3)]  # type: ignore[index]
    finally:
        pool.close()


def test_nothing_changes_after_a_problem(cuda_functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host looks at the status once for many steps; the steps behind the one that failed leave all as it was."""
    Recorder(cuda_functions, monkeypatch)
    two = weights_after(make_job(), 2, spoilt=60)
    assert weights_after(make_job(), 6, spoilt=17) == two  # the third step fails
    assert weights_after(make_job(), 3, spoilt=60) != two


# --- on a GPU ---


@pytest.fixture
def gpu() -> Any:
    xp = array_module("auto")
    if xp is np:
        pytest.skip("no CuPy or no GPU")
    return xp


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
def test_a_graph_replayed_is_its_launches(gpu: Any, noise_per: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(run={"arrays": "cupy"}, update={"noise_per": noise_per})
    replayed = trained(job)
    launched: Callable[[Any], Any] = lambda cupy: lambda run: run  # noqa: E731
    monkeypatch.setattr("rpucluster.kernels.cuda.graphs", launched)
    same(replayed, trained(job))


def test_a_gpu_trains_as_the_cpu_does(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_converters(monkeypatch, **NO_ADC)
    same(trained(make_job(run={"arrays": "numpy"})), trained(make_job(run={"arrays": "cupy"})), loss=1e-5)
