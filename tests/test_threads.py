"""Threads share what is large and change no bit: rows of an update, samples or outputs of a read do not depend on each
other."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpucluster.coordinator import run
from rpucluster.devices import device_from
from rpucluster.errors import NumericalError
from rpucluster.kernels import cpu_helpers, cpu_threads
from rpucluster.tile import Converters, Management, TileGrid, UpdateSettings
from tests.grids import make_grid, signals
from tests.specs import make_cluster, make_job

ROWS, COLS, SAMPLES = 530, 260, 64
"""Enough to be shared; no number of threads divides rows or columns evenly."""
SMALL, LARGE = (200, 150), (ROWS, COLS)
"""Ragged tiles, whose reads are shared by samples, and one tile whose outputs and trains are shared."""
ROUNDING: dict[str, Any] = {"input_bits": 7, "output_bits": 9, "output_bound": 1.0, "read_noise": 0.1}


def of_threads(threads: int, tile: tuple[int, int] = SMALL, read: Any = None, **settings: Any) -> TileGrid:
    management = {"noise_management": "average_abs_max", "bound_management": "iterative"}
    grid = make_grid(
        ROWS, COLS, tile=tile, device=device_from("gokmen-vlasov"), threads=threads,
        read=Converters(**ROUNDING, **(read or {})),
        management=Management(**(management | settings.pop("management", {}))), **settings,
    )  # fmt: skip
    grid.initialise(0.3)
    return grid


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("tile", [SMALL, LARGE])
@pytest.mark.parametrize("noise_per", ["sample", "batch"])
@pytest.mark.parametrize("tolerances", ["stored", "recomputed"])
def test_results_do_not_depend_on_threads(threads: int, tile: tuple[int, int], noise_per: Any, tolerances: Any) -> None:
    seed = np.random.default_rng().integers(1 << 30)
    x, d = signals(int(seed), SAMPLES, COLS), signals(int(seed) + 1, SAMPLES, ROWS, scale=0.05)
    found = []
    for number in (1, threads):
        grid = of_threads(number, tile, tolerances=tolerances, update=UpdateSettings(noise_per=noise_per))
        assert grid.large_update(SAMPLES) == grid.large_read(SAMPLES) == (number > 1)
        pulses = grid.update(x, d, 0.02, first_sample=5)
        assert pulses.coincidences > 0
        reads = (grid.read_forward(x, first_sample=7), grid.read_backward(d, first_sample=9))
        found.append((pulses, grid.state(), reads))
    (pulses, state, reads), (same_pulses, same_state, same_reads) = found
    assert pulses == same_pulses, seed
    assert reads[0][1].repeats > 0, "bound management has to have had something to do"
    for name, array in state.items():
        np.testing.assert_array_equal(array, same_state[name], err_msg=f"{name}, seed {seed}")
    for (sums, count), (same_sums, same_count) in zip(reads, same_reads, strict=True):
        np.testing.assert_array_equal(sums, same_sums, err_msg=f"seed {seed}")
        assert count == same_count


@pytest.mark.parametrize("bounds", ["none", "iterative", "worst_case"])
@pytest.mark.parametrize(
    "read", [{"input_rounding": "stochastic", "output_rounding": "stochastic", "input_noise": 0.01},
             {"weight_read_noise": 0.02, "wire_resistance": 1e-6}],
)  # fmt: skip
def test_outputs_of_a_large_tile_do_not_depend_on_threads(bounds: Any, read: Any) -> None:
    """Random numbers go by output, and samples repeat as a whole, whoever makes the output that saturates."""
    seed = int(np.random.default_rng().integers(1 << 30))
    x, d = signals(seed, SAMPLES, COLS), signals(seed + 1, SAMPLES, ROWS)
    found = []
    for threads in (1, 3):
        grid = of_threads(threads, LARGE, read, management={"bound_management": bounds})
        found.append((grid.read_forward(x, first_sample=7), grid.read_backward(d, first_sample=9)))
    for (sums, count), (same_sums, same_count) in zip(*found, strict=True):
        np.testing.assert_array_equal(sums, same_sums, err_msg=f"seed {seed}")
        assert count == same_count
        assert (count.repeats > 0) == (bounds != "none")


def test_a_sum_out_of_range_is_reported_by_any_thread() -> None:
    """2^22 is the limit of a sum, and the scale of a sample is its largest input."""
    x = signals(1, SAMPLES, COLS)
    x[-1] *= 1e9
    with pytest.raises(NumericalError, match="layer 3"):
        of_threads(2, LARGE, management={"noise_management": "abs_max"}).read_forward(x, first_sample=0)


def test_nobody_waits_for_a_thread_that_does_not_begin() -> None:
    """As after a fork, which leaves all threads but one behind."""
    calls = cpu_threads.Threads(5)
    keep_busy, ready = threading.Event(), threading.Barrier(5)
    blocked = [cpu_helpers.Helper(lambda: (ready.wait(), keep_busy.wait())) for _ in range(4)]
    for helper in blocked:
        cpu_helpers.waiting(5).put(helper)
    ready.wait()
    try:
        assert calls.in_parts(lambda start, stop: stop - start, 10, 1) == [2] * 5
    finally:
        keep_busy.set()


def test_an_error_in_a_helper_reaches_the_caller() -> None:
    both = threading.Barrier(2)

    def part() -> None:
        both.wait()
        if threading.current_thread() is not threading.main_thread():
            raise NumericalError("in a helper")

    with pytest.raises(NumericalError, match="in a helper"):
        cpu_threads.Threads(2).on_all(part)


def test_an_error_of_any_thread_is_reported() -> None:
    grid = of_threads(2)
    x, d = signals(1, SAMPLES, COLS), signals(2, SAMPLES, ROWS)
    x[-1, -1] = np.nan
    before = grid.weights()
    with pytest.raises(NumericalError, match="layer 3: an input or error signal is not finite"):
        grid.update(x, d, 0.02, first_sample=0)
    np.testing.assert_array_equal(grid.weights(), before)
    with pytest.raises(NumericalError, match="layer 3: an input or error signal is not finite"):
        grid.read_forward(x, first_sample=0)


@pytest.mark.parametrize("samples", [1, 15])
def test_small_work_stays_on_one_thread(samples: int) -> None:
    grid = make_grid(300, 300, threads=4)
    assert not grid.large_update(samples)
    assert not grid.large_read(samples)


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_job_on_threads_is_the_same_experiment(
    executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
    else:  # share even what is too small to be worth it; actors import the limits themselves
        monkeypatch.setattr(cpu_threads, "UPDATE_CELLS", 1)
        monkeypatch.setattr(cpu_threads, "READ_CELLS", 1)
        monkeypatch.setattr(cpu_threads, "READ_SAMPLES", 2)
        monkeypatch.setattr(cpu_threads, "TRAIN_SAMPLES", 2)
    found = []
    for threads in (1, 3):
        job = make_job(run={"threads": threads}, parallel={"tensor": 2})
        done = run(job, make_cluster(2), executor=executor, out=tmp_path / f"run{threads}")
        found.append({key: done.summary[key] for key in ("weights_sha256", "train_loss", "test_loss")})
    assert found[0] == found[1]
