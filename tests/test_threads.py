"""Threads share what is large and change no bit: rows of an update, samples of a read do not depend on each other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpucluster.coordinator import run
from rpucluster.devices import device_from
from rpucluster.errors import NumericalError
from rpucluster.kernels import cpu_threads
from rpucluster.tile import Converters, Management, TileGrid, UpdateSettings
from tests.grids import make_grid, signals
from tests.specs import make_cluster, make_job

ROWS, COLS, SAMPLES = 530, 260, 64
"""Enough to be shared, in ragged tiles whose rows no number of threads divides evenly."""


def of_threads(threads: int, **settings: Any) -> TileGrid:
    grid = make_grid(
        ROWS, COLS, tile=(200, 150), device=device_from("gokmen-vlasov"), threads=threads,
        read=Converters(input_bits=7, output_bits=9, output_bound=1.0, read_noise=0.1),
        management=Management(noise_management="average_abs_max", bound_management="iterative"), **settings,
    )  # fmt: skip
    grid.initialise(0.3)
    return grid


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("noise_per", ["sample", "batch"])
@pytest.mark.parametrize("tolerances", ["stored", "recomputed"])
def test_results_do_not_depend_on_threads(threads: int, noise_per: Any, tolerances: Any) -> None:
    seed = np.random.default_rng().integers(1 << 30)
    x, d = signals(int(seed), SAMPLES, COLS), signals(int(seed) + 1, SAMPLES, ROWS, scale=0.05)
    found = []
    for number in (1, threads):
        grid = of_threads(number, tolerances=tolerances, update=UpdateSettings(noise_per=noise_per))
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
    found = []
    for threads in (1, 3):
        job = make_job(run={"threads": threads}, parallel={"tensor": 2})
        done = run(job, make_cluster(2), executor=executor, out=tmp_path / f"run{threads}")
        found.append({key: done.summary[key] for key in ("weights_sha256", "train_loss", "test_loss")})
    assert found[0] == found[1]
