"""Updates: the compiled ones are the specification bit for bit, and they obey the law of stochastic pulses.

The CUDA sources run here on the CPU, compiled by g++, behind the same Python code that launches them on a GPU.
"""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpucluster.algorithms import VectorCell
from rpucluster.devices import ConstantStep, FloatingPoint
from rpucluster.kernels import (
    Kernels,
    UpdateRule,
    cuda_launch,
)
from rpucluster.kernels.reference_update import gains
from rpucluster.tile import UpdateSettings
from rpucluster.tile_counts import PulseCount
from tests.cuda_on_cpu import HAVE_COMPILER
from tests.grids import REFERENCE_FILE, SHAPES, assert_same_bits, grids_of, ideal, make_grid, rms, signals

# --- one specification, three implementations ---


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    samples=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    first_sample=st.sampled_from([0, 2**32 - 2, 2**40 + 5]),
    learning_rate=st.sampled_from([0.0, 1e-4, 0.01, 0.3]),
    bit_length=st.integers(1, 31),
    noise_per=st.sampled_from(["sample", "batch"]),
    managed=st.booleans(),
    dynamic=st.booleans(),
    step=st.sampled_from([0.001, 0.02, 0.3]),
    noise=st.sampled_from([0.0, 0.3, 1.0]),
    d_scale=st.sampled_from([1e-3, 0.1, 2.0]),
    raise_only=st.booleans(),
    pulses=st.sampled_from(["stochastic", "deterministic", "none"]),
)
def test_pulsed_updates_agree_bit_for_bit(
    all_kernels: list[Kernels],
    shape: tuple[int, int, int, int],
    samples: int,
    seed: int,
    first_sample: int,
    learning_rate: float,
    bit_length: int,
    noise_per: Any,
    managed: bool,
    dynamic: bool,
    step: float,
    noise: float,
    d_scale: float,
    raise_only: bool,
    pulses: Any,
) -> None:
    rows, cols, tile_rows, tile_cols = shape
    update = UpdateSettings(
        bit_length=bit_length, noise_per=noise_per, update_management=managed, dynamic_bit_length=dynamic, pulses=pulses
    )
    # weights of 0.6 between bounds of 0.6 with spread: many start at their bound, so pulses are replayed
    device = ConstantStep(dw_min=step, dw_min_std=noise)
    grids = [
        grid
        for tolerances in ("stored", "recomputed")
        for grid in grids_of(
            all_kernels, rows, cols, tile=(tile_rows, tile_cols), device=device, update=update, seed=seed,
            tolerances=tolerances,
        )
    ]  # fmt: skip
    x, d = signals(seed, samples, cols), signals(seed + 1, samples, rows, d_scale)
    counts: list[PulseCount] = []
    for grid in grids:
        grid.initialise(0.6)
        assert grid._update_rule is not None
        grid._update_rule = grid._update_rule._replace(raise_only=raise_only)
        counts.append(grid.update(x, d, learning_rate, first_sample=first_sample))
    assert_same_bits([grid.weights() for grid in grids])
    for count in counts[1:]:
        assert (count.slots, count.coincidences, count.cycles) == (
            counts[0].slots,
            counts[0].coincidences,
            counts[0].cycles,
        )
        assert count.expected_coincidences == pytest.approx(counts[0].expected_coincidences, rel=1e-12)


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
def test_dense_updates_agree_bit_for_bit(all_kernels: list[Kernels], noise_per: Any) -> None:
    # the compiled kernel's list holds 1024 hits: rows that fill it several times over, and rows that fill part of it
    update = UpdateSettings(bit_length=31, noise_per=noise_per)
    grids = [
        grid
        for tolerances in ("stored", "recomputed")
        for grid in grids_of(
            all_kernels, 6, 3700, tile=(4, 3200), device=ConstantStep(), update=update, tolerances=tolerances
        )
    ]
    x, d = signals(1, 2, 3700, zeros=0.0), signals(2, 2, 6, zeros=0.0)
    for grid in grids:
        grid.initialise(0.5)
        count = grid.update(x, d, 0.03, first_sample=5)
        assert count.coincidences > 6 * 3700
    assert_same_bits([grid.weights() for grid in grids])


@pytest.mark.skipif(not HAVE_COMPILER, reason="no g++")
def test_a_gpu_thread_takes_several_cells_where_a_grid_is_too_small(
    all_kernels: list[Kernels], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 20 x 30 cells are five blocks of threads; 2 must do
    monkeypatch.setattr(cuda_launch, "_MOST_BLOCKS", 2)
    grids = grids_of([all_kernels[0], all_kernels[2]], 20, 30, device=FloatingPoint())
    for grid in grids:
        grid.initialise(0.5)
        grid.update(signals(1, 3, 30), signals(2, 3, 20), 0.1, first_sample=0)
    assert_same_bits([grid.weights() for grid in grids])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, samples=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_exact_updates_agree_bit_for_bit(
    all_kernels: list[Kernels], shape: tuple[int, int, int, int], samples: int, seed: int
) -> None:
    rows, cols, tile_rows, tile_cols = shape
    grids = grids_of(all_kernels, rows, cols, tile=(tile_rows, tile_cols), device=FloatingPoint())
    x, d = signals(seed, samples, cols), signals(seed + 1, samples, rows)
    for grid in grids:
        grid.initialise(0.5)
        grid.update(x, d, 0.01, first_sample=0)
    assert_same_bits([grid.weights() for grid in grids])


# --- gains and lengths of the trains ---


def gains_of(x_peak: float, d_peak: float, lr: float, **changes: Any) -> tuple[int, float, float]:
    """Slots and gains of x and d."""
    bits, gain_x, gain_d = gains(np.float32(x_peak), np.float32(d_peak), lr, rule(**changes))
    return bits, float(gain_x), float(gain_d)


def rule(**changes: Any) -> UpdateRule:
    arguments: dict[str, Any] = {
        "bit_length": 31,
        "noise_per_batch": False,
        "update_management": True,
        "dynamic_bit_length": True,
        "device": ideal(),
    }
    return UpdateRule(**(arguments | changes))


def test_gains_are_those_measured_on_aihwkit() -> None:
    # scenarios bl31_um_ublm and bl31_um: x up to 1, d up to 0.9, lr 0.01
    assert gains_of(1, 0.9, 0.01) == pytest.approx((9, 1.0, 1.1111), abs=1e-4)
    assert gains_of(1, 0.9, 0.01, dynamic_bit_length=False) == pytest.approx((31, 0.539, 0.599), abs=5e-4)


def test_gains_multiply_to_the_learning_rate() -> None:
    # BL dw_min gain_x gain_d = lr, so that the mean change is lr x d, however the gain is shared
    for managed in (False, True):
        for dynamic in (False, True):
            bits, gain_x, gain_d = gains_of(0.7, 0.02, 0.01, update_management=managed, dynamic_bit_length=dynamic)
            assert bits * 0.001 * gain_x * gain_d == pytest.approx(0.01, rel=1e-6)
            # dynamic: ceil(0.01 * 0.7 * 0.02 / 0.001) = 1
            assert bits == (1 if dynamic else 31)
            if managed:  # equal peak probabilities
                assert 0.7 * gain_x == pytest.approx(0.02 * gain_d, rel=1e-6)


def test_a_change_too_large_for_the_train_clips_d_and_not_x() -> None:
    bits, gain_x, gain_d = gains_of(2, 5, 1.0)
    # wanted 10 / 0.001 = 10000 slots; x keeps probability 1 at its peak, d is multiplied by far more than 1 / 5
    assert bits == 31
    assert gain_x * 2 == pytest.approx(1.0)
    assert gain_d * 5 == pytest.approx(10000 / 31)


def test_without_signal_there_are_no_pulses() -> None:
    for x, d, rate in ((0, 1, 0.1), (1, 0, 0.1), (1, 1, 0.0)):
        assert gains_of(x, d, rate) == (0, 0, 0)
        assert gains_of(x, d, rate, dynamic_bit_length=False) == (31, 0, 0)


# --- the law of an update ---

TILE = (8, 6)
COPIES = 60  # tiles in each direction: independent repetitions of one update
REPEATS = COPIES * COPIES


def changes(
    x: Any, d: Any, device: ConstantStep, update: UpdateSettings, lr: float = 0.01, calls: int = 2
) -> tuple[Any, PulseCount]:
    """Weight changes of one update call from zero weights: (repetitions, 8, 6)."""
    rows, cols = COPIES * TILE[0], COPIES * TILE[1]
    grid = make_grid(rows, cols, tile=TILE, device=device, update=update)
    xs, ds = np.tile(np.atleast_2d(x), (1, COPIES)), np.tile(np.atleast_2d(d), (1, COPIES))
    found, total = [], PulseCount()
    for call in range(calls):
        grid.set_weights(np.zeros((rows, cols), np.float32))
        total += grid.update(xs, ds, lr, first_sample=call * len(xs))
        blocks = grid.weights().reshape(COPIES, TILE[0], COPIES, TILE[1]).swapaxes(1, 2)  # (COPIES, COPIES, 8, 6)
        found.append(blocks.reshape(REPEATS, *TILE))
    return np.concatenate(found).astype(np.float64), total


X = np.array([1.0, -0.8, 0.5, 0.25, -0.1, 0.0], np.float32)
D = np.array([0.9, -0.6, 0.4, -0.3, 0.2, 0.1, -0.05, 0.0], np.float32)


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("bits", [1, 10, 31])
def test_mean_variance_and_covariance_are_the_closed_form(noise_per: Any, noise: float, bits: int) -> None:
    lr, step = 0.004, 0.001
    update = UpdateSettings(bit_length=bits, noise_per=noise_per)
    dw, counts = changes(X, D, ideal(dw_min_std=noise), update, lr)
    n = len(dw)
    gain = np.sqrt(lr / (step * bits))
    p, q = np.minimum(gain * np.abs(X), 1.0), np.minimum(gain * np.abs(D), 1.0)
    mean = -bits * step * np.outer(q * np.sign(D), p * np.sign(X))
    pq = np.outer(q, p)
    variance = bits * step**2 * (pq * (1 - pq) + noise**2 * pq)
    live = variance > 1e-15
    z = (dw.mean(0) - mean)[live] / np.sqrt(variance[live] / n)
    assert 0.6 < rms(z) < 1.4
    assert np.abs(z).max() < 4.5
    kurtosis = ((dw - dw.mean(0)) ** 4).mean(0)[live]
    z = (dw.var(0)[live] - variance[live]) / np.sqrt((kurtosis - variance[live] ** 2) / n)
    assert 0.6 < rms(z) < 1.5
    # cells of one row share its train: Cov = BL step^2 p_j p_k q (1 - q), with the signs of the changes
    row, j, k = 4, 2, 3
    covariance = bits * step**2 * q[row] * (1 - q[row]) * p[j] * p[k] * np.sign(X[j] * X[k])
    products = (dw[:, row, j] - mean[row, j]) * (dw[:, row, k] - mean[row, k])
    assert abs(products.mean() - covariance) < 4.5 * products.std() / np.sqrt(n)
    # cells that share nothing are independent
    products = (dw[:, 5, 3] - mean[5, 3]) * (dw[:, 6, 4] - mean[6, 4])
    assert abs(products.mean()) < 4.5 * products.std() / np.sqrt(n)
    # counts: every tile is one cycle of BL slots; the sum of hits has mean sum BL p q
    assert (counts.slots, counts.cycles) == (n * bits, n)
    assert counts.expected_coincidences == pytest.approx(n * bits * pq.sum(), rel=1e-6)
    assert counts.coincidences == pytest.approx(counts.expected_coincidences, rel=0.02)


@pytest.fixture(scope="module")
def measured() -> Any:
    if not REFERENCE_FILE.exists():
        pytest.skip(f"needs {REFERENCE_FILE.name}, aihwkit's statistics, which this repository does not contain")
    with np.load(REFERENCE_FILE) as file:
        return {name: file[name] for name in file.files}


def scenario(measured: Any, name: str) -> tuple[Any, ConstantStep, UpdateSettings, float]:
    """Inputs, device, settings and learning rate of an update scenario."""
    meta = json.loads(str(measured["meta_json"]))["update"][name]
    told = {key: value for key, value in meta["device"].items() if key != "kind"}
    dynamic = meta["update"]["update_bl_management"] == "True"
    managed = meta["update"]["update_management"] == "True"
    update = UpdateSettings(
        bit_length=int(meta["update"]["desired_bl"]), update_management=managed, dynamic_bit_length=dynamic
    )
    signal = np.array(meta["x"], np.float32), np.array(meta["d"], np.float32)
    return signal, ConstantStep(**told), update, meta["lr"]


PULSED = [
    "ideal_bl10",
    "dw_min_std",
    "dw_min_dtod",
    "up_down",
    "bounds",
    "prob_clip",
    "bl31_um_ublm",
    "bl31_um",
    "batch4_bounds_std",
]


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
@pytest.mark.parametrize("name", PULSED)
def test_updates_have_the_moments_measured_on_aihwkit(measured: Any, name: str, noise_per: Any) -> None:
    (x, d), device, update, lr = scenario(measured, name)
    update = UpdateSettings(
        bit_length=update.bit_length,
        noise_per=noise_per,
        update_management=update.update_management,
        dynamic_bit_length=update.dynamic_bit_length,
    )
    dw, counts = changes(x, d, device, update, lr)
    n, theirs = len(dw), {key: measured[f"update/{name}/{key}"] for key in ("mean", "var", "se_mean", "se_var")}
    fixed = theirs["var"] < 1e-14  # probability 0 or 1: no spread, so compared as numbers
    np.testing.assert_allclose(dw.mean(0)[fixed], theirs["mean"][fixed], rtol=0, atol=2e-8)
    np.testing.assert_allclose(dw.var(0)[fixed], 0, rtol=0, atol=1e-13)
    live = ~fixed
    fourth = ((dw - dw.mean(0)) ** 4).mean(0)
    se_mean = np.hypot(np.sqrt(dw.var(0) / n), theirs["se_mean"])[live]
    se_var = np.hypot(np.sqrt((fourth - dw.var(0) ** 2) / n), theirs["se_var"])[live]
    assert 0.5 < rms((dw.mean(0) - theirs["mean"])[live] / se_mean) < 1.5
    assert 0.5 < rms((dw.var(0) - theirs["var"])[live] / se_var) < 1.6
    if name == "bl31_um_ublm":
        assert counts.slots == 9 * counts.cycles


def test_pulse_response_is_that_of_aihwkit(measured: Any) -> None:
    # certain pulses, one slot each, of 0.01 between +-0.6: 400 up, then 400 down
    device = ideal(dw_min=0.01, w_max=0.6, w_min=-0.6)
    grid = make_grid(1, 1, device=device, update=UpdateSettings(bit_length=1))
    one = np.ones((1, 1), np.float32)
    response = []
    for pulse in range(800):
        grid.update(one, -one if pulse < 400 else one, 0.01, first_sample=pulse)
        response.append(grid.weights()[0, 0])
    np.testing.assert_allclose(response, measured["pulse_response/ConstantStep"], rtol=0, atol=2e-6)


def test_alternating_pulses_drift_the_way_of_the_stronger_step() -> None:
    one = np.ones((1, 1), np.float32)
    for up_down, drift in ((0.1, 0.0001), (-0.1, -0.0001), (0.0, 0.0)):
        grid = make_grid(1, 1, device=ideal(up_down=up_down), update=UpdateSettings(bit_length=1))
        for pulse in range(400):
            grid.update(one, one if pulse % 2 else -one, 0.001, first_sample=pulse)
        # a pair of certain pulses leaves dw_min times the asymmetry
        assert grid.weights()[0, 0] == pytest.approx(200 * drift, abs=1e-6)


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
def test_bounds_hold_and_are_reached(noise_per: Any) -> None:
    device = ConstantStep(dw_min=0.01)
    update = UpdateSettings(bit_length=31, noise_per=noise_per)
    grid = make_grid(20, 30, tile=(8, 11), device=device, update=update)
    grid.set_weights(np.full((20, 30), 99.0, np.float32))
    upper = grid.weights()
    grid.set_weights(np.full((20, 30), -99.0, np.float32))
    lower = grid.weights()
    # clipping to a bound shows it: they spread by 30 percent about 0.6
    assert upper.mean() == pytest.approx(0.6, abs=0.03)
    grid.initialise(0.3)
    x = np.ones((4, 30), np.float32)
    for call in range(60):
        d = np.full((4, 20), -1.0 if call < 30 else 1.0, np.float32)
        grid.update(x, d, 0.3, first_sample=4 * call)
        assert (grid.weights() <= upper).all()
        assert (grid.weights() >= lower).all()
        if call == 29:
            # near the top; the last pulse's noise may have taken a step back from the bound
            assert (upper - grid.weights()).max() < 0.1
    assert (grid.weights() - lower).max() < 0.1


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
def test_a_device_that_is_only_raised_takes_the_raising_half_of_the_pulses(noise_per: Any) -> None:
    """Ideal steps far from bounds: what one device rises and another would fall add up to the whole update."""
    x, d = signals(1, 6, 40), signals(2, 6, 30)
    moved = {}
    for name, sign in (("whole", 1), ("raised", 1), ("lowered", -1)):
        grid = make_grid(30, 40, tile=(13, 17), device=ideal(), update=UpdateSettings(noise_per=noise_per))
        assert grid._update_rule is not None
        grid._update_rule = grid._update_rule._replace(raise_only=name != "whole")
        count = grid.update(x, sign * d, 0.05, first_sample=3)
        moved[name] = (grid.weights(), count.coincidences)
    assert moved["raised"][0].min() == moved["lowered"][0].min() == 0
    np.testing.assert_allclose(moved["raised"][0] - moved["lowered"][0], moved["whole"][0], rtol=0, atol=1e-6)
    assert moved["raised"][1] + moved["lowered"][1] == moved["whole"][1] > 0


def test_replicas_fire_the_same_trains_on_different_silicon() -> None:
    x, d = signals(1, 3, 20), signals(2, 3, 10)
    counts, weights = [], []
    for replica in (0, 1):
        grid = make_grid(10, 20, replica=replica, device=ConstantStep(), tile=(6, 8))
        grid.initialise(0.05)
        counts.append(grid.update(x, d, 0.05, first_sample=0))
        weights.append(grid.weights())
    assert counts[0] == counts[1]
    assert not np.array_equal(weights[0], weights[1])


def test_every_tile_fires_its_own_trains() -> None:
    # the same x and d on each tile of an ideal device: equal trains would give equal changes
    grid = make_grid(16, 12, tile=(8, 6), update=UpdateSettings(bit_length=10))
    grid.update(np.tile(X, (1, 2)), np.tile(D, (1, 2)), 0.01, first_sample=0)
    w = grid.weights()
    tiles = [w[:8, :6], w[:8, 6:], w[8:, :6], w[8:, 6:]]
    assert not any(np.array_equal(tiles[0], tile) for tile in tiles[1:])


@pytest.mark.parametrize("bits", [1, 7, 31])
def test_deterministic_trains_meet_as_often_as_they_should(bits: int) -> None:
    """Each line fires round(p L) times, and a cell has round(k_x k_d / L) coincidences, halves either way."""
    step = 2.0**-12
    generator = np.random.default_rng()
    p, q = generator.uniform(-1, 1, 40).astype(np.float32), generator.uniform(-1, 1, 30).astype(np.float32)
    p[0] = q[0] = 1
    update = UpdateSettings(bit_length=bits, pulses="deterministic")
    grid = make_grid(30, 40, tile=(13, 17), device=ideal(dw_min=step), update=update)
    count = grid.update(p[None], q[None], step * bits, first_sample=0)
    exact = np.outer(np.rint(np.abs(q) * bits), np.rint(np.abs(p) * bits)) / bits
    found = -grid.weights() * np.outer(np.sign(q), np.sign(p)) / step
    assert np.abs(found - exact).max() <= 0.5
    np.testing.assert_array_equal(found, np.rint(found))
    assert count.coincidences == found.sum()


def test_updates_without_pulses_are_exact_and_clipped_at_the_end() -> None:
    device = ConstantStep()
    update = UpdateSettings(pulses="none")
    grid, exact = (make_grid(20, 30, tile=(8, 11), device=dev, update=update) for dev in (device, FloatingPoint()))
    x, d = signals(1, 5, 30), signals(2, 5, 20)
    count = grid.update(x, d, 0.1, first_sample=0)
    exact.update(x, d, 0.1, first_sample=0)
    bounded = make_grid(20, 30, tile=(8, 11), device=device)
    bounded.set_weights(exact.weights())
    np.testing.assert_array_equal(grid.weights(), bounded.weights())
    assert (grid.weights() != exact.weights()).any()
    assert (count.slots, count.coincidences) == (0, 0)
    with pytest.raises(ValueError, match=r'pulses = "none" with VectorCell; write "stochastic"'):
        make_grid(2, 2, device=device, update=update, algorithm=VectorCell())
