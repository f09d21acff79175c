"""Tile grids for tests: ideal where a test does not say otherwise."""

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rpucluster.devices import ConstantStep, Device, device_from
from rpucluster.kernels import Kernels
from rpucluster.tile import Converters, Management, TileGrid, UpdateSettings

PERFECT = Converters(input_bits=0, output_bits=0, output_bound=float("inf"), read_noise=0.0)
REFERENCE_FILE = Path(__file__).parents[2] / "shared" / "reference" / "pulse_statistics.npz"
"""Statistics of IBM's aihwkit, which do not come with this repository."""

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 9), st.integers(1, 70))
"""Rows and columns of a layer and of a tile, most of them ragged."""


def ideal(**parameters: float) -> ConstantStep:
    """A constant step of 0.001 between +-1 without any spread or noise, but for what is given."""
    device = device_from("ideal", {"w_max": 1.0, "w_min": -1.0, **parameters})
    assert isinstance(device, ConstantStep)
    return device


def make_grid(
    rows: int,
    cols: int,
    *,
    tile: tuple[int, int] | None = None,
    row_tiles: tuple[int, int] | None = None,
    col_tiles: tuple[int, int] | None = None,
    device: Device | None = None,
    read: Converters = PERFECT,
    management: Management | None = None,
    update: UpdateSettings | None = None,
    kernels: Any = "auto",
    **others: Any,
) -> TileGrid:
    """A grid of all tiles of a layer unless ``row_tiles`` or ``col_tiles`` say otherwise."""
    tile_rows, tile_cols = tile or (rows, cols)
    arguments: dict[str, Any] = {
        "layer": 3,
        "replica": 0,
        "seed": 11,
        "rows": rows,
        "cols": cols,
        "tile_rows": tile_rows,
        "tile_cols": tile_cols,
        "row_tiles": row_tiles or (0, -(-rows // tile_rows)),
        "col_tiles": col_tiles or (0, -(-cols // tile_cols)),
        "device": device or ideal(),
        "forward": read,
        "backward": read,
        "forward_management": management or Management(),
        "backward_management": management or Management(),
        "update": update or UpdateSettings(),
        "kernels": kernels,
    }
    return TileGrid(**(arguments | others))


def signals(seed: int, samples: int, lines: int, scale: float = 1.0, zeros: float = 0.3) -> Any:
    """Random float32 (samples, lines) with some exact zeros."""
    generator = np.random.default_rng(seed)
    values = scale * generator.standard_normal((samples, lines))
    values[generator.random(values.shape) < zeros] = 0
    return values.astype(np.float32)


def rms(values: Any) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def grids_of(kernels: list[Kernels], rows: int, cols: int, **arguments: Any) -> list[TileGrid]:
    """The same grid once for each set of kernels."""
    grids = []
    for one in kernels:
        grid = make_grid(rows, cols, kernels="reference", **arguments)
        grid._kernels = one
        grids.append(grid)
    return grids


def assert_same_bits(arrays: list[Any]) -> None:
    """Equal as bits, so that zeros of different sign differ."""
    for array in arrays[1:]:
        np.testing.assert_array_equal(array.view(np.uint32), arrays[0].view(np.uint32))
