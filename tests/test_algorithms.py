"""Training algorithms on a grid of tiles: recursions worked out by hand, conservation, symmetries, restarts."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rpucluster.algorithms import (
    Agad,
    Algorithm,
    ChoppedTikiTakaV2,
    MixedPrecision,
    OneSided,
    Sgd,
    TikiTaka,
    TikiTakaV2,
    VectorCell,
    algorithm_from,
)
from rpucluster.devices import ConstantStep
from rpucluster.tile import TileGrid, UpdateSettings
from tests.grids import PERFECT, ideal, make_grid, signals

STEP = 2.0**-8
ROWS, COLS = 7, 11
TILE = (4, 5)
BLOCKS = [(r, c) for r in (0, 4) for c in (0, 5, 10)]
"""Where tiles start."""

EVERY: dict[str, Algorithm] = {
    "tiki_taka": TikiTaka(gamma=0.25, transfer_every=3, transfer_rate=0.3),
    "tiki_taka_v2": TikiTakaV2(transfer_every=2, transfer_columns=3),
    "chopped": ChoppedTikiTakaV2(chop_every=2, transfer_rate=3.0),
    "agad": Agad(chop_every=2, auto_scale=True, fast_learning_rate=0.5),
    "mixed_precision": MixedPrecision(flush_every=3),
    "vector_all": VectorCell(devices=3),
    "vector_fixed": VectorCell(devices=2, choice="fixed"),
    "one_sided": OneSided(refresh_every=0),
    "vector_cyclic": VectorCell(devices=3, choice="cyclic"),
    "refreshed": OneSided(refresh_every=2, refresh_upper=0.1, refresh_lower=0.0),
}
SAMPLE_BY_SAMPLE = [name for name in EVERY if name not in ("vector_cyclic", "refreshed")]


def trained(algorithm: Algorithm, device: Any = None, **arguments: Any) -> TileGrid:
    """A grid with all spreads and noises."""
    grid = make_grid(20, 33, tile=(8, 9), device=device or ConstantStep(dw_min=0.01), algorithm=algorithm, **arguments)
    grid.initialise(0.3)
    return grid


def learner(grid: TileGrid) -> Any:
    return grid._learner


# --- recursions by hand ---


def by_hand(settings: Any, signs_x: Any, signs_d: Any, start: Any) -> tuple[Any, Any, Any]:
    """Planes A and C and the buffer of a device that moves by exactly one step per sample, in exact numbers.

    Written for one tile after the other from the formulas of the settings' docstrings.
    """
    fast, slow, buffer = np.zeros((ROWS, COLS)), start.astype(np.float64), np.zeros((ROWS, COLS))
    threshold = settings.threshold * STEP
    chopped, dynamic = getattr(settings, "chop_every", 0), isinstance(settings, Agad)
    memory = min(1.0, settings.tail_weight / settings.chop_every) if dynamic else 0
    for row, col in BLOCKS:
        cells = np.s_[row : min(row + TILE[0], ROWS), col : min(col + TILE[1], COLS)]
        a, c, h = fast[cells], slow[cells], buffer[cells]
        width = a.shape[1]
        sign, reads = np.ones(width), np.zeros(width, int)
        mean, reference = np.zeros_like(a), np.zeros_like(a)
        pointer = 0
        for n, (x, d) in enumerate(zip(signs_x, signs_d, strict=True)):
            a -= STEP * d[cells[0], None] * (x[cells[1]] * sign)
            if (n + 1) % settings.transfer_every:
                continue
            for j in [(pointer + k) % width for k in range(min(settings.transfer_columns, width))]:
                y = a[:, j].copy()
                h[:, j] += settings.transfer_rate * sign[j] * (y - (reference[:, j] if dynamic else 0))
                reads[j] += 1
                mean[:, j] = y if reads[j] == 1 else mean[:, j] + memory * (y - mean[:, j])
                pulses = np.clip(np.trunc(h[:, j] / threshold), -settings.transfer_bit_length, None)
                pulses = np.minimum(pulses, settings.transfer_bit_length)
                left = settings.momentum * h[:, j]
                if not settings.forget_buffer:
                    left = h[:, j] - (1 - settings.momentum) * pulses * threshold
                h[:, j] = np.where(pulses != 0, left, h[:, j])
                c[:, j] += STEP * pulses
                if chopped and reads[j] == chopped:
                    sign[j], reads[j] = -sign[j], 0
                    reference[:, j] = mean[:, j]
            pointer += settings.transfer_columns
    return fast, slow, buffer


@pytest.mark.parametrize("kernels", ["reference", "numba"])
@pytest.mark.parametrize(
    "settings",
    [
        TikiTakaV2(),
        TikiTakaV2(momentum=0.0, forget_buffer=False, transfer_rate=0.5, transfer_bit_length=3),
        TikiTakaV2(momentum=0.25, forget_buffer=False, transfer_every=3, transfer_columns=2),
        TikiTakaV2(momentum=0.25, transfer_columns=4, threshold=2.0),
        ChoppedTikiTakaV2(chop_every=2, chop_random=False),
        ChoppedTikiTakaV2(chop_every=3, chop_random=False, transfer_rate=0.5, forget_buffer=False),
        Agad(chop_every=2),
        Agad(chop_every=8, tail_weight=2.0, transfer_every=2, transfer_columns=3, forget_buffer=False),
    ],
)
def test_without_noise_planes_and_buffer_are_the_recursion_by_hand(settings: Any, kernels: Any) -> None:
    """Every line fires once in the only slot, so that each sample moves each cell of A by a step."""
    generator = np.random.default_rng(5)
    x, d = generator.choice([-1.0, 1.0], (60, COLS)), generator.choice([-1.0, 1.0], (60, ROWS))
    d[:, :3] = 1  # some cells see a gradient that does not change
    x[:, ::2] = 1
    grid = make_grid(
        ROWS, COLS, tile=TILE, device=ideal(dw_min=STEP, w_max=64.0, w_min=-64.0), kernels=kernels,
        algorithm=settings, update=UpdateSettings(bit_length=1),
    )  # fmt: skip
    start = (generator.integers(-9, 9, (ROWS, COLS)) * STEP).astype(np.float32)
    grid.set_weights(start)
    for first in (0, 1, 20):
        stop = {0: 1, 1: 20, 20: 60}[first]
        grid.update(x[first:stop], d[first:stop], STEP, first_sample=first)
    fast, slow, buffer = by_hand(settings, x, d, start)
    state = grid.state()
    np.testing.assert_array_equal(state["plane1"], fast)
    # in float32 momentum and means round; a rounding that turned a pulse would show as a step
    np.testing.assert_allclose(state["plane0"], slow, rtol=0, atol=STEP / 4)
    np.testing.assert_allclose(state["buffer"], buffer, rtol=0, atol=STEP / 4)
    np.testing.assert_array_equal(grid.weights(), state["plane0"])
    assert np.abs(slow - start).max() > 5 * STEP


def test_nothing_is_lost_between_the_planes() -> None:
    """Without forgetting, what left A by the rate is on C or still in the buffer."""
    settings = TikiTakaV2(forget_buffer=False, momentum=0.0, transfer_bit_length=1, transfer_columns=40)
    device = ideal(dw_min=0.001, w_max=50.0, w_min=-50.0)
    grid = make_grid(6, 40, device=device, algorithm=settings)
    brought = np.zeros((6, 40))
    for n in range(200):
        grid.update(signals(n, 1, 40), signals(n + 1000, 1, 6, 0.1), 0.02, first_sample=n)
        brought += grid.state()["plane1"]
    state = grid.state()
    np.testing.assert_allclose(state["plane0"] + state["buffer"], brought, rtol=0, atol=2e-5)
    assert np.abs(brought).max() > 0.05


@pytest.mark.parametrize("flush_every", [1, 4])
def test_mixed_precision_on_ideal_devices_is_gradient_descent_rounded_to_steps(flush_every: int) -> None:
    device = ideal(dw_min=STEP, w_max=50.0, w_min=-50.0)
    grid = make_grid(ROWS, COLS, tile=TILE, device=device, algorithm=MixedPrecision(flush_every=flush_every))
    start = np.round(np.random.default_rng(1).normal(0, 0.3, (ROWS, COLS)) / STEP) * STEP
    grid.set_weights(start)
    exact = start.copy()
    for n in range(40):
        x, d = signals(n, 4, COLS), signals(n + 100, 4, ROWS, 0.2)
        grid.update(x, d, 0.05, first_sample=4 * n)
        exact -= 0.05 * np.einsum("bi,bj->ij", d.astype(np.float64), x)
        assert np.abs(grid.weights() - exact).max() < STEP * 1.001
        np.testing.assert_allclose(grid.weights() + grid.state()["accumulated"], exact, rtol=0, atol=1e-5)
    assert np.abs(exact - start).max() > 10 * STEP


@pytest.mark.parametrize("settings", [ChoppedTikiTakaV2(chop_every=3, chop_random=False), Agad(chop_every=3)])
def test_the_first_sign_of_a_column_does_not_matter(settings: Any) -> None:
    """On symmetric devices without noise all of A turns, and nothing else."""
    x, d = np.sign(signals(1, 60, COLS, zeros=0)), np.sign(signals(2, 60, ROWS, zeros=0))
    x[:, :6] = 1
    states = []
    for sign in (1, -1):
        grid = make_grid(
            ROWS, COLS, tile=TILE, device=ideal(dw_min=STEP, w_max=64.0, w_min=-64.0), algorithm=settings,
            update=UpdateSettings(bit_length=1),
        )  # fmt: skip
        learner(grid)._state.choppers[:] = sign
        grid.update(x, d, STEP, first_sample=0)
        states.append(grid.state())
    for name in ("plane0", "buffer"):
        np.testing.assert_array_equal(states[0][name], states[1][name])
    np.testing.assert_array_equal(states[0]["plane1"], -states[1]["plane1"])
    assert np.abs(states[0]["plane0"]).max() > 3 * STEP


def test_automatic_scales_see_no_units() -> None:
    """Errors 2^-7 times as large fire the same pulses on A, and move the buffer 2^-7 times as much."""
    settings = TikiTakaV2(auto_scale=True, fast_learning_rate=0.4, threshold=1e6)
    states = []
    for scale in (1.0, 2.0**-7):
        grid = trained(settings)
        for n in range(5):
            grid.update(signals(n, 3, 33), scale * signals(n + 50, 3, 20), 0.1, first_sample=3 * n)
        states.append(grid.state())
    np.testing.assert_array_equal(states[0]["plane1"], states[1]["plane1"])
    np.testing.assert_array_equal(states[0]["buffer"] * 2.0**-7, states[1]["buffer"])
    assert states[0]["buffer"].any()


def test_automatic_scales_keep_the_share_of_slots_that_meet() -> None:
    """With all x and d of one size, as large as their running means, p q = fast_learning_rate in each slot."""
    grid = make_grid(
        30, 40, device=ideal(w_max=50.0, w_min=-50.0), update=UpdateSettings(bit_length=10),
        algorithm=Agad(auto_scale=True, fast_learning_rate=0.3),
    )  # fmt: skip
    x, d = np.full((100, 40), 0.01, np.float32), np.full((100, 30), -3e-4, np.float32)
    count = grid.update(x, d, 0.1, first_sample=0)
    slots = 100 * 10 * 30 * 40
    assert count.expected_coincidences == pytest.approx(0.3 * slots, rel=1e-4)
    # in a slot R rows and C columns fire; the variance of R C per slot, as in test_counts
    p, rows, cols = np.sqrt(0.3), 30, 40
    means, squares = (rows * p, cols * p), [(n * p) ** 2 + n * p * (1 - p) for n in (rows, cols)]
    variance = squares[0] * squares[1] - (means[0] * means[1]) ** 2
    assert abs(count.coincidences - 0.3 * slots) < 5 * np.sqrt(100 * 10 * variance)


def test_the_fast_plane_has_the_device_that_it_is_given() -> None:
    grid = trained(TikiTakaV2(), device=ideal(dw_min=0.001), fast_device=ideal(dw_min=0.125, w_max=8.0, w_min=-8.0))
    grid.update(signals(1, 20, 33), signals(2, 20, 20), 0.1, first_sample=0)
    state = grid.state()
    np.testing.assert_array_equal(state["plane1"] * 8, np.round(state["plane1"] * 8))
    assert np.abs(state["plane1"]).max() > 0.125
    moved = (state["plane0"] - make_initial(0.3)) / 0.001
    np.testing.assert_allclose(moved, np.round(moved), atol=1e-3)
    assert np.abs(moved).max() > 0.5


def make_initial(scale: float) -> Any:
    grid = make_grid(20, 33, tile=(8, 9))
    grid.initialise(scale)
    return grid.weights()


# --- what the network reads ---


def test_reads_see_a_share_of_the_fast_plane() -> None:
    grid = trained(TikiTaka(gamma=0.25), device=ideal())
    wanted = signals(7, 20, 33, 0.2)
    grid.set_weights(wanted)
    np.testing.assert_allclose(grid.weights(), wanted, atol=1e-7)
    grid.update(signals(1, 20, 33), signals(2, 20, 20), 0.1, first_sample=0)
    state = grid.state()
    assert state["plane1"].any()
    np.testing.assert_allclose(grid.weights(), 0.25 * state["plane1"] + state["plane0"], atol=1e-7)
    x = signals(3, 2, 33).clip(-1, 1)
    np.testing.assert_allclose(grid.forward(x, first_sample=0), x @ grid.weights().T, atol=1e-5)
    # setting and programming reach the sum, whatever the fast plane holds
    grid.set_weights(wanted)
    np.testing.assert_allclose(grid.weights(), wanted, atol=1e-7)
    grid.update(signals(4, 5, 33), signals(5, 5, 20), 0.1, first_sample=20)
    assert grid.program(wanted) > 0
    assert np.abs(grid.weights() - wanted).max() < 0.00051


# --- several devices per weight ---


def test_plane_0_is_the_device_that_a_single_one_would_be() -> None:
    """So that a job with more devices per weight keeps those that it had; the others are silicon of their own."""
    single, cells = trained(Sgd()), trained(VectorCell(devices=3))
    np.testing.assert_array_equal(learner(cells).planes[0].lanes, single._lanes)
    x, d = signals(1, 4, 33), signals(2, 4, 20)
    single.update(x, d, 0.1, first_sample=0)
    cells.update(x, d, 0.1, first_sample=0)
    state = cells.state()
    np.testing.assert_array_equal(state["plane0"], single.weights())
    np.testing.assert_allclose(cells.weights(), (state["plane0"] + state["plane1"] + state["plane2"]) / 3, atol=1e-7)
    lanes = [learner(cells).planes[i].lanes.astype(float) for i in range(3)]
    n = len(lanes[0])
    for i in (1, 2):
        assert abs(np.corrcoef(lanes[0], lanes[i])[0, 1]) < 5 / np.sqrt(n)


@pytest.mark.parametrize("choice", ["all", "fixed", "cyclic"])
def test_a_cell_of_several_devices_learns_at_the_rate(choice: Any) -> None:
    """Mean change -lr x d whatever the choice; with all devices the step noise is that of their mean."""
    device = ideal(dw_min=0.001, dw_min_std=0.5, w_max=50.0, w_min=-50.0)
    update = UpdateSettings(bit_length=31)
    grid = make_grid(100, 100, device=device, algorithm=VectorCell(devices=4, choice=choice), update=update)
    x, d = np.full((1, 100), 0.5, np.float32), np.full((1, 100), -0.5, np.float32)
    steps = 40
    for n in range(steps):
        grid.update(x, d, 0.02, first_sample=n)
    moved = grid.weights().astype(np.float64) / steps
    share = 1 if choice == "all" else 1 / 4
    p = 0.5 * np.sqrt(0.02 / share / (31 * 0.001))
    # a slot has R C coincidences of R rows and C columns that fire; noise of steps is a hundredth of that spread
    square = (100 * p) ** 2 + 100 * p * (1 - p)
    deviation = share * 0.001 * np.sqrt((square**2 - (100 * p) ** 4) * 31 / steps) / 1e4
    assert abs(moved.mean() - 0.02 * 0.25) < 6 * deviation
    planes = [grid.state()[f"plane{i}"] for i in range(4)]
    if choice == "fixed":
        assert not any(plane.any() for plane in planes[1:])
    else:
        np.testing.assert_allclose([plane.mean() for plane in planes], moved.mean() * steps, rtol=0.05)


def test_noise_of_devices_of_a_cell_averages_out() -> None:
    device = ideal(dw_min=0.001, dw_min_std=1.0, w_max=50.0, w_min=-50.0)
    deviations = []
    for algorithm in (Sgd(), VectorCell(devices=4)):
        grid = make_grid(100, 100, device=device, algorithm=algorithm, update=UpdateSettings(bit_length=1))
        grid.update(np.ones((1, 100)), np.ones((1, 100)), 0.001, first_sample=0)
        deviations.append(grid.weights().std())
    assert deviations[0] == pytest.approx(0.001, rel=5 / np.sqrt(2e4))
    assert deviations[1] == pytest.approx(0.0005, rel=5 / np.sqrt(2e4))


def test_a_pair_of_one_sided_devices_is_their_difference_and_learns_at_the_rate() -> None:
    device = ideal(dw_min=0.001, w_max=50.0, w_min=-50.0)
    grid = trained(OneSided(refresh_every=0), device=device)
    single = trained(Sgd(), device=device)
    start = grid.weights()
    np.testing.assert_array_equal(start, single.weights())
    for n in range(10):
        x, d = signals(n, 4, 33), signals(n + 20, 4, 20)
        counts = grid.update(x, d, 0.05, first_sample=4 * n), single.update(x, d, 0.05, first_sample=4 * n)
        assert counts[0].coincidences == counts[1].coincidences
        assert counts[0].slots == counts[1].slots
        assert counts[0].expected_coincidences == counts[1].expected_coincidences
    # the same pulses, each onto the device of its direction
    np.testing.assert_allclose(grid.weights(), single.weights(), atol=1e-5)
    state = grid.state()
    assert (state["plane0"] >= np.maximum(start, 0)).all()
    assert (state["plane1"] >= np.maximum(-start, 0)).all()
    assert ((state["plane0"] > 0) & (state["plane1"] > 0)).mean() > 0.5


def test_refreshed_pairs_keep_their_weight_and_get_room() -> None:
    device = ideal(dw_min=0.01, w_max=1.0, w_min=0.0)
    grid = make_grid(9, 8, tile=(4, 5), device=device, algorithm=OneSided(refresh_every=2))
    settings: Any = learner(grid)._settings
    generator = np.random.default_rng(2)
    plus, minus = generator.uniform(0, 1, (2, 9, 8)).astype(np.float32)
    state = grid.state() | {"plane0": plus, "plane1": minus}
    grid.load_state(state)
    np.testing.assert_array_equal(grid.weights(), plus - minus)
    still = np.zeros((1, 8), np.float32), np.zeros((1, 9), np.float32)
    assert grid.update(*still, 0.1, first_sample=0).line_passes == 0
    count = grid.update(*still, 0.1, first_sample=1)
    due = (np.maximum(plus, minus) > settings.refresh_upper) & (np.minimum(plus, minus) > settings.refresh_lower)
    after = grid.state()
    np.testing.assert_array_equal(after["plane0"][~due], plus[~due])
    assert np.abs(grid.weights() - (plus - minus)).max() < 0.00501
    assert (np.minimum(after["plane0"], after["plane1"])[due] == 0).all()
    assert 0 < due.sum() < due.size
    assert count.line_pulses == pytest.approx(np.abs(plus - minus)[due].sum() / 0.01, abs=int(due.sum()))
    rows = 2 * 9  # two tiles side by side
    assert (count.line_passes, count.line_slots) == (2 * rows, 31 * rows)


# --- samples, restarts and partitions ---


@pytest.mark.parametrize("name", SAMPLE_BY_SAMPLE)
def test_a_batch_is_its_samples_one_by_one(name: str) -> None:
    x, d = signals(1, 12, 33), signals(2, 12, 20)
    whole, single = trained(EVERY[name]), trained(EVERY[name])
    counts = whole.update(x, d, 0.1, first_sample=50)
    parted = [single.update(x[b : b + 1], d[b : b + 1], 0.1, first_sample=50 + b) for b in range(12)]
    np.testing.assert_array_equal(whole.weights(), single.weights())
    for field in ("coincidences", "cycles", "line_passes", "line_slots", "line_pulses"):
        assert sum(getattr(part, field) for part in parted) == getattr(counts, field)


@pytest.mark.parametrize("name", EVERY)
def test_a_restart_continues_the_same_experiment(name: str) -> None:
    def step(grid: TileGrid, n: int) -> None:
        grid.update(signals(n, 5, 33), signals(n + 50, 5, 20), 0.1, first_sample=5 * n)

    through = trained(EVERY[name])
    for n in range(6):
        step(through, n)
        if n == 2:
            saved = through.state()
            copied = {key: array.copy() for key, array in saved.items()}
    for key, array in saved.items():
        np.testing.assert_array_equal(array, copied[key])  # a state is a copy
    again = make_grid(20, 33, tile=(8, 9), device=ConstantStep(dw_min=0.01), algorithm=EVERY[name])
    again.load_state(saved)
    for n in range(3, 6):
        step(again, n)
    for key, array in through.state().items():
        np.testing.assert_array_equal(again.state()[key], array)
    np.testing.assert_array_equal(again.weights(), through.weights())


@pytest.mark.parametrize("name", EVERY)
def test_states_that_do_not_fit_are_refused(name: str) -> None:
    grid = trained(EVERY[name])
    state = grid.state()
    with pytest.raises(ValueError, match=r"state has \[.*\], this algorithm keeps \[.*plane0.*\]"):
        grid.load_state({key: array for key, array in state.items() if key != "plane0"})
    with pytest.raises(ValueError, match=r"state plane0 has shape \(2, 2\) for a shard of \(20, 33\)"):
        grid.load_state(state | {"plane0": np.zeros((2, 2), np.float32)})


@pytest.mark.parametrize("name", EVERY)
def test_shards_behave_as_the_whole(name: str) -> None:
    """Weights, buffers and what belongs to columns: a shard has its part of each."""
    whole = trained(EVERY[name])
    parts = [
        [trained(EVERY[name], row_tiles=rows, col_tiles=cols) for cols in ((0, 1), (1, 4))] for rows in ((0, 2), (2, 3))
    ]
    for n in range(6):
        x, d = signals(n, 4, 33), signals(n + 50, 4, 20)
        whole.update(x, d, 0.1, first_sample=4 * n)
        for part in (part for row in parts for part in row):
            part.update(x[:, slice(*part.col_range)], d[:, slice(*part.row_range)], 0.1, first_sample=4 * n)
    np.testing.assert_array_equal(np.block([[part.weights() for part in row] for row in parts]), whole.weights())
    state, states = whole.state(), [[part.state() for part in row] for row in parts]
    for key, array in state.items():
        if array.shape == (20, 33):
            np.testing.assert_array_equal(np.block([[part[key] for part in row] for row in states]), array)
        elif key in ("choppers", "ages", "x_peaks"):
            for row in states:
                np.testing.assert_array_equal(np.concatenate([part[key] for part in row]), array)
        elif key == "d_peaks":
            for column in (0, 1):
                np.testing.assert_array_equal(np.concatenate([row[column][key] for row in states]), array)
        else:
            assert key == "counters"


@pytest.mark.parametrize("name", EVERY)
def test_memory_is_what_the_algorithm_says(name: str) -> None:
    grid = trained(EVERY[name])
    planes, numbers = EVERY[name].memory
    lines = sum(array.nbytes for array in learner(grid).line_arrays().values())
    assert grid.nbytes - lines == 20 * 33 * (12 * planes + 4 * numbers)


# --- settings ---


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("adam", {}, 'kind = "adam" is no algorithm; did you mean agad?'),
        ("agad", {"chop_evry": 3}, 'kind = "agad" has no setting chop_evry; did you mean chop_every?'),
        ("sgd", {"momentum": 0.1}, 'kind = "sgd" has no setting momentum; it has none'),
        ("tiki_taka_v2", {"transfer_every": 0}, "transfer_every = 0: write a whole number, 1 or more"),
        ("tiki_taka_v2", {"transfer_bit_length": 32}, "transfer_bit_length = 32: write a whole number, 1 to 31"),
        ("tiki_taka_v2", {"momentum": 1.0}, "momentum = 1.0: write a number of at least 0 and below 1, such as 0.1"),
        ("tiki_taka_v2", {"threshold": 0}, "threshold = 0: write a number above 0, such as 1.0"),
        ("tiki_taka_v2", {"forget_buffer": 1}, "forget_buffer = 1: write true or false"),
        ("agad", {"auto_scale": True}, "auto_scale needs fast_learning_rate; write the share of slots that meet"),
        ("agad", {"output_bits": 1}, "output_bits = 1: write 0 for no quantisation, or 2 to 16"),
        ("agad", {"read_noise": -0.1}, "read_noise = -0.1: write a number of at least 0"),
        ("mixed_precision", {"flush_every": 2.5}, "flush_every = 2.5: write a whole number, 1 or more"),
    ],
)
def test_settings_that_do_not_fit_say_what_to_write(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        algorithm_from(kind, settings)


def test_cells_that_do_not_fit_say_what_to_write() -> None:
    with pytest.raises(ValueError, match="devices_per_weight = 1: write a whole number, 2 to 255"):
        VectorCell(devices=1)
    with pytest.raises(ValueError, match="refresh_every = -1: write a whole number, 0 or more"):
        OneSided(refresh_every=-1)
    with pytest.raises(ValueError, match=r"refresh_upper = 1\.5: write a number of at least 0 and below 1"):
        OneSided(refresh_upper=1.5)
    with pytest.raises(ValueError, match='noise_per = "batch" with tiki_taka_v2, which works sample by sample'):
        make_grid(4, 4, algorithm=TikiTakaV2(), update=UpdateSettings(noise_per="batch"))


def test_transfers_are_read_with_the_converters_of_the_forward_direction_or_their_own() -> None:
    read = replace(PERFECT, output_bits=9, output_bound=12.0, read_noise=0.06, weight_read_noise=0.08)
    rule = learner(trained(TikiTakaV2(), read=read))._rule.read
    assert (rule.output_levels, rule.output_bound) == (255, 12.0)
    assert rule.read_noise == pytest.approx(0.1)
    rule = learner(trained(TikiTakaV2(output_bits=7, output_bound=1.0, read_noise=0.01), read=read))._rule.read
    assert (rule.output_levels, rule.output_bound, rule.read_noise) == (63, 1.0, 0.01)
