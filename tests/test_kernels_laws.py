"""Updates of every device model and option: the compiled ones are the specification, and obey closed forms."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpucluster.algorithms import OneSided, TikiTakaV2, VectorCell
from rpucluster.errors import NumericalError
from rpucluster.kernels import FlushRule, Kernels
from rpucluster.tile import TileGrid, UpdateSettings
from tests.devices_of import LAWS, OPTIONS, devices
from tests.grids import SHAPES, assert_same_bits, grids_of, ideal, make_grid, signals
from tests.test_kernels_transfer import Planes, transfer_rule, update_rule


def assert_same_state(grids: list[TileGrid]) -> None:
    """Every array that a restart needs is the same."""
    states = [grid.state() for grid in grids]
    for name in states[0]:
        for state in states[1:]:
            np.testing.assert_array_equal(state[name].view(np.uint8), states[0][name].view(np.uint8), name)


def updated(
    kernels: list[Kernels], shape: tuple[int, int, int, int], device: Any, seed: int, first_sample: int, **more: Any
) -> list[TileGrid]:
    """Grids of all kernels, with stored and recomputed tolerances, after two updates."""
    rows, cols, tile_rows, tile_cols = shape
    samples, rate, raise_only = more.get("samples", 2), more.get("rate", 0.3), more.get("raise_only", False)
    grids = [
        grid
        for tolerances in ("stored", "recomputed")
        for grid in grids_of(
            kernels, rows, cols, tile=(tile_rows, tile_cols), device=device, seed=seed, tolerances=tolerances,
            update=UpdateSettings(bit_length=more.get("bit_length", 31), update_management=True),
        )
    ]  # fmt: skip
    x, d = signals(seed, 2 * samples, cols), signals(seed + 1, 2 * samples, rows)
    counts = []
    for grid in grids:
        grid.initialise(0.6)
        assert grid._update_rule is not None
        grid._update_rule = grid._update_rule._replace(raise_only=raise_only)
        for k in (0, samples):
            more_counts = grid.update(x[k : k + samples], d[k : k + samples], rate, first_sample=first_sample + k)
        counts.append((more_counts.slots, more_counts.coincidences))
    assert len(set(counts)) == 1
    return grids


COMBINED = [
    *((law, "all") for law in LAWS), *(("soft", option) for option in OPTIONS), ("constant", "none"),
    ("constant-signed", "none"), ("constant-signed", "half-select"),
]  # fmt: skip


@pytest.mark.parametrize(("law", "option"), COMBINED)
def test_every_model_and_option_agrees_bit_for_bit(all_kernels: list[Kernels], law: str, option: str) -> None:
    device = dataclasses.replace(LAWS[law], **OPTIONS[option])
    seed = int(np.random.default_rng().integers(1 << 20))
    grids = updated(all_kernels, (9, 70, 5, 37), device, seed, 2**32 - 3)
    assert_same_state(grids)
    # and something happened
    still = make_grid(9, 70, tile=(5, 37), device=device, seed=seed)
    still.initialise(0.6)
    assert (grids[0].weights() != still.weights()).mean() > 0.3


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    device=devices(),
    samples=st.integers(1, 3),
    first_sample=st.sampled_from([0, 2**32 - 2, 2**40 + 5]),
    rate=st.sampled_from([0.0, 1e-3, 0.3]),
    bit_length=st.integers(1, 31),
    raise_only=st.booleans(),
)
def test_updates_agree_bit_for_bit(all_kernels: list[Kernels], shape: tuple[int, int, int, int], **more: Any) -> None:
    assert_same_state(updated(all_kernels, shape, more.pop("device"), 7, more.pop("first_sample"), **more))


def test_rows_longer_than_a_piece_of_the_list_agree_bit_for_bit(all_kernels: list[Kernels]) -> None:
    device = dataclasses.replace(LAWS["soft"], write_noise=1.0)
    assert_same_state(updated(all_kernels, (3, 3700, 2, 3200), device, 5, 7))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    device=devices().filter(lambda device: device.half_select == 0),
    columns=st.integers(1, 5),
    slots=st.integers(1, 31),
    buffered=st.booleans(),
)
def test_transfers_and_flushes_agree_bit_for_bit(
    all_kernels: list[Kernels], shape: tuple[int, int, int, int], device: Any, columns: int, slots: int, buffered: bool
) -> None:
    found = []
    for kernels in all_kernels:
        for tolerances in ("stored", "recomputed"):
            planes = Planes(shape, device, 3, tolerances)
            hidden = planes.slow.copy() if device.write_noise else None
            rule = transfer_rule(device, slots=slots, columns=columns, buffered=buffered)
            of_tiles = (planes.lanes, planes.tiling, planes.keys)
            pulses = [
                kernels.transfer(
                    planes.fast, planes.slow, *of_tiles, planes.column_keys, planes.gains, planes.state, k,
                    k * columns, rule, hidden,
                )
                for k in range(3)
            ]  # fmt: skip
            flush = FlushRule(update_rule(device, slots), device.dw_min)
            pulses.append(kernels.flush(planes.slow, *of_tiles, planes.held, 9, flush, hidden))
            arrays = [planes.slow, planes.held, planes.state.buffer]
            found.append((pulses, arrays if hidden is None else [*arrays, hidden]))
    for pulses, arrays in found[1:]:
        assert pulses == found[0][0]
        for mine, first in zip(arrays, found[0][1], strict=True):
            assert_same_bits([mine, first])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_signals_that_are_not_finite_are_refused(all_kernels: list[Kernels], bad: float) -> None:
    device = dataclasses.replace(LAWS["soft"], **OPTIONS["all"])
    for grid in grids_of(all_kernels, 4, 5, device=device, tile=(4, 3)):
        grid.initialise(0.1)
        before = grid.state()
        for line in ("x", "d"):
            x, d = np.ones((2, 5), np.float32), np.ones((2, 4), np.float32)
            (x if line == "x" else d)[1, 3] = bad
            with pytest.raises(NumericalError, match="layer 3: an input or error signal is not finite"):
                grid.update(x, d, 0.01, first_sample=0)
        for name, array in grid.state().items():
            np.testing.assert_array_equal(array, before[name])


# --- what an array of such devices keeps ---

WHOLE = dataclasses.replace(LAWS["reference-slopes"], **OPTIONS["all"])


def test_no_value_depends_on_the_partition() -> None:
    x, d, first = signals(1, 6, 50), signals(2, 6, 20), 5
    whole = make_grid(20, 50, tile=(8, 20), device=WHOLE)
    parts = [make_grid(20, 50, tile=(8, 20), device=WHOLE, col_tiles=range_) for range_ in ((0, 2), (2, 3))]
    for grid in (whole, *parts):
        grid.initialise(0.5)
        cols = slice(*grid.col_range)
        for k in (0, 3):
            grid.update(np.ascontiguousarray(x[k : k + 3, cols]), d[k : k + 3], 0.05, first_sample=first + k)
        grid.program(grid.weights() / 2)
    for name in ("weights", "hidden"):
        together = np.concatenate([part.state()[name] for part in parts], axis=1)
        np.testing.assert_array_equal(together, whole.state()[name])


@pytest.mark.parametrize("algorithm", [None, VectorCell(devices=2), OneSided(refresh_every=2), TikiTakaV2()])
def test_a_restart_changes_nothing(algorithm: Any) -> None:
    device = dataclasses.replace(WHOLE, half_select=0.0)
    grids = [make_grid(20, 50, tile=(8, 20), device=device, algorithm=algorithm) for _ in range(2)]
    x, d = signals(1, 12, 50), signals(2, 12, 20)
    for k in (0, 3):
        if k == 0:
            grids[0].initialise(0.5)
        grids[0].update(x[k : k + 3], d[k : k + 3], 0.05, first_sample=k)
    grids[1].load_state(grids[0].state())
    for grid in grids:
        for k in (6, 9):
            grid.update(x[k : k + 3], d[k : k + 3], 0.05, first_sample=k)
        grid.set_weights(grid.weights())
    assert_same_state(grids)
    assert grids[0].nbytes == grids[1].nbytes > 0


# --- closed forms ---


def test_pulses_on_one_line_alone_move_by_their_share() -> None:
    """Certain pulses: 10 on a line of x and none on a row of error 0, which counts as positive, so the weight falls."""
    k, step, bits = 0.25, 2.0**-10, 10
    grid = make_grid(3, 3, device=ideal(half_select=k, dw_min=step), update=UpdateSettings(bit_length=bits))
    x, d = np.array([[1.0, 0.0, -1.0]], np.float32), np.array([[0.0, 1.0, -1.0]], np.float32)
    count = grid.update(x, d, step * bits, first_sample=0)
    lone, both = k * bits * step, bits * step
    expected = [[-lone, 0.0, lone], [-both, -lone, both], [both, lone, -both]]
    np.testing.assert_array_equal(grid.weights(), np.array(expected, np.float32))
    assert count.coincidences == 4 * bits


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_mean_and_variance_of_half_selected_updates(noise: float) -> None:
    """n + k h for the two counts of each slot, a = p (1 - q) + q (1 - p): mean BL (pq + k a), variance
    BL (pq + k^2 a - (pq + k a)^2), and of noise s^2 BL (pq + k^2 a)."""
    k, step, bits, copies = 0.3, 0.001, 10, 40_000
    device = ideal(half_select=k, dw_min=step, dw_min_std=noise)
    grid = make_grid(copies, 1, tile=(1, 1), device=device, update=UpdateSettings(bit_length=bits))
    p, q = 0.6, 0.3
    grid.update(np.full((1, 1), p, np.float32), np.full((1, copies), -q, np.float32), step * bits, first_sample=0)
    moved = grid.weights().astype(np.float64) / step
    both, alone = p * q, p * (1 - q) + q * (1 - p)
    mean, square = both + k * alone, both + k**2 * alone
    variance = bits * (square - mean**2 + noise**2 * square)
    assert abs(moved.mean() - bits * mean) < 5 * np.sqrt(variance / copies)
    assert moved.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / copies))


def test_weights_decay_to_their_rest() -> None:
    grid = make_grid(4, 5, device=ideal(lifetime=8.0, reset_level=0.125))
    grid.set_weights(np.full((4, 5), 0.5, np.float32))
    for k in range(20):
        grid.update(np.zeros((2, 5), np.float32), np.zeros((2, 4), np.float32), 0.1, first_sample=2 * k)
    np.testing.assert_allclose(grid.weights(), 0.125 + 0.375 * (7 / 8) ** 20, rtol=1e-5)


def test_weights_diffuse_as_a_random_walk() -> None:
    grid = make_grid(100, 100, tile=(30, 41), device=ideal(diffusion=0.01))
    for k in range(25):
        grid.update(np.zeros((1, 100), np.float32), np.zeros((1, 100), np.float32), 0.1, first_sample=k)
    w = grid.weights().astype(np.float64)
    assert abs(w.mean()) < 5 * 0.05 / 100
    assert w.std() == pytest.approx(0.05, rel=5 / np.sqrt(2 * w.size))


def test_written_weights_scatter_about_what_pulses_move() -> None:
    """Setting, pulses and time give each cell fresh noise; a cell that nothing writes keeps its own."""
    quiet, noisy = ideal(dw_min=0.001), ideal(dw_min=0.001, write_noise=5.0)
    grids = [make_grid(60, 80, tile=(25, 31), device=device) for device in (quiet, noisy)]
    x, d = signals(1, 1, 80), signals(2, 1, 60)
    errors = []
    for step in range(3):
        for grid in grids:
            if step == 1:
                grid.update(x, d, 0.02, first_sample=0)
            else:
                grid.set_weights(np.full((60, 80), 0.1, np.float32))
        np.testing.assert_allclose(grids[1].state()["hidden"], grids[0].weights(), rtol=0, atol=1e-6)
        errors.append(grids[1].weights() - grids[0].weights())
        assert errors[-1].std() == pytest.approx(0.005, rel=5 / np.sqrt(2 * 60 * 80))
    assert (errors[0] == errors[1]).mean() > 0.4  # cells without a coincidence
    assert abs(np.corrcoef(errors[0].ravel(), errors[2].ravel())[0, 1]) < 5 / np.sqrt(60 * 80)


def test_nothing_moves_stuck_cells() -> None:
    device = dataclasses.replace(LAWS["soft"], stuck=0.2, stuck_range=0.5)
    grid = make_grid(100, 100, tile=(30, 41), device=device)
    found = []
    for value in (-9.0, 9.0):
        grid.set_weights(np.full((100, 100), value, np.float32))
        for k in range(5):
            grid.update(signals(k, 1, 100, zeros=0.0), signals(k + 9, 1, 100, zeros=0.0), 1.0, first_sample=k)
        found.append(grid.weights())
    stuck = found[0] == found[1]
    assert abs(stuck.mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 1e4)
    # uniform in +-0.5 but for bounds
    assert np.abs(found[0][stuck]).max() <= 0.5
    assert abs(found[0][stuck].mean()) < 0.05


def test_programming_follows_the_law() -> None:
    """Within half a step of the step that the law gives there, where the target can be reached."""
    device = dataclasses.replace(LAWS["power-equal"], dw_min=0.01)
    grid = make_grid(30, 40, tile=(13, 17), device=device)
    wanted = np.random.default_rng().uniform(-0.1, 0.1, (30, 40)).astype(np.float32)
    assert grid.program(wanted) > 0
    missed = np.abs(grid.weights() - wanted)
    assert (missed < 0.01).mean() > 0.97  # a step is at most dw_min times its spread; few bounds are within 0.1
    assert grid.program(grid.weights()) == 0
