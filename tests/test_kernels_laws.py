"""Updates of every device model and option: the compiled ones are the specification bit for bit."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpucluster.kernels import Kernels
from rpucluster.tile import TileGrid, UpdateSettings
from tests.devices_of import LAWS, OPTIONS, devices
from tests.grids import SHAPES, assert_same_bits, grids_of, make_grid, signals


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


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("law", LAWS)
def test_every_model_and_option_agrees_bit_for_bit(all_kernels: list[Kernels], law: str, option: str) -> None:
    device = dataclasses.replace(LAWS[law], **OPTIONS[option])
    seed = int(np.random.default_rng().integers(1 << 20))
    grids = updated(all_kernels, (9, 70, 5, 37), device, seed, 2**32 - 3)
    assert_same_state(grids)
    # and something happened
    still = make_grid(9, 70, tile=(5, 37), device=device, seed=seed)
    still.initialise(0.6)
    assert (grids[0].weights() != still.weights()).mean() > 0.3
