"""What the three kernel sets have in common: their arguments, results and fixed-point sums.

The cells of a shard are flat and tile-major: tile t is ``[offset, offset + rows * cols)`` of one float32 buffer,
in C order (rows, cols).  The tile table has a row ``(offset, rows, cols, row0, col0)`` of int64 for each tile,
``row0`` and ``col0`` being its place within the shard.  So one call serves all tiles of a shard.
"""

import math
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from rpucluster.devices import Device
from rpucluster.errors import NumericalError
from rpucluster.kernels.read_rule import ReadRule, ReadTotals
from rpucluster.kernels.transfer import FlushRule, TransferRule, TransferState
from rpucluster.kernels.update_rule import UpdateRule

OFFSET, ROWS, COLS, ROW0, COL0 = range(5)
"""Columns of the tile table."""
X_KEY, D_KEY, NOISE_KEY, REPLAY_KEY, DEVICE_KEY, RELAXATION_KEY, PROGRAM_KEY, UPDATE_KEYS = range(8)
"""Index into the keys of an update, uint32 (tiles, UPDATE_KEYS, 2), and how many there are."""

FIXED_BITS: Final = 40
"""Sums over tiles are int64 in units of 2^-40."""
FIXED_LIMIT: Final = 2.0**22
"""A tile's output or a sum over tiles of this size or more is an error: the next sum could leave int64."""


class Tiling(NamedTuple):
    """The tiles of a shard."""

    table: Any
    """The tile table, int64 (tiles, 5), on the device of the weights; the last tile is the lower right one."""
    tiles: int
    rows: int
    """Rows of the shard."""
    cols: int
    tile_rows: int
    """Rows of its largest tile."""
    tile_cols: int


class UpdateTotals(NamedTuple):
    """What an update counted, summed over tiles and samples."""

    slots: int
    coincidences: int
    expected: float
    """Sum of bit length * p * q over cells and samples."""
    cycles: int
    """Tile-samples."""


class Kernels(Protocol):
    """One set of kernels.  Weights, lanes, lines and results are arrays of one device; shapes as above.

    ``lanes`` holds the lanes of each cell one after the other, flat int16, or nothing: then kernels make the lanes
    of the cells that they change anew from the tile's DEVICE key.  ``hidden``, float32 like the weights that are
    written, is what pulses move on a device with write noise, and empty or None on others.

    All raise `NumericalError` where an input is not
    finite, or a sum leaves the fixed-point range.
    """

    name: str

    def large_read(self, tiling: Tiling, samples: int) -> bool:
        """Whether a read of so many vectors is more than one call of compiled code; shapes alone decide."""
        ...

    def large_update(self, tiling: Tiling, samples: int) -> bool:
        """Whether an update by so many samples is more than one call of compiled code."""
        ...

    def draw_lanes(self, out: Any, tiling: Tiling, keys: Any, lanes: int, first: int) -> None:
        """Fill flat int16 ``out`` with the lanes of the shard's cells from number ``first`` on."""
        ...

    def put_uniform(
        self,
        weights: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        device: Device,
        origin: tuple[int, int],
        key: Any,
        scale: float,
    ) -> bool:
        """Set weights to ``scale`` times `rng.init_uniform` of ``key``, clipped to what cells can hold; False, and
        nothing done, where these kernels have no way of their own for the device.

        ``origin`` is the first row and column of the shard in its layer.
        """
        ...  # fmt: skip

    def pulsed_update(
        self,
        weights: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        x: Any,
        d: Any,
        lr: float,
        first_sample: int,
        rule: UpdateRule,
        hidden: Any = None,
    ) -> UpdateTotals:
        """Fire the pulse trains of a batch: x float32 (B, cols), d float32 (B, rows); weights change in place."""
        ...  # fmt: skip

    def relax(
        self,
        weights: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        first_sample: int,
        rule: UpdateRule,
        hidden: Any = None,
    ) -> None:
        """What the time of an update operation, of which this is the first sample, does to all cells."""
        ...  # fmt: skip

    def exact_update(self, weights: Any, tiling: Tiling, x: Any, d: Any, lr: float) -> UpdateTotals:
        """``w -= (lr * d) x`` for one sample after the other, in float32."""
        ...

    def transfer(
        self,
        fast: Any,
        slow: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        column_keys: Any,
        gains: Any,
        state: TransferState,
        sample: int,
        start: int,
        rule: TransferRule,
        hidden: Any = None,
    ) -> int:
        """Columns of each tile, from ``start`` on and around, from the plane ``fast`` to ``slow``; returns the pulses.

        ``lanes`` and ``keys`` belong to the plane that is written, ``gains`` is float32 (tiles,), ``sample`` numbers
        the random numbers.
        """
        ...  # fmt: skip

    def flush(
        self,
        weights: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        held: Any,
        sample: int,
        rule: FlushRule,
        hidden: Any = None,
    ) -> int:
        """Whole pulses out of the digital matrix ``held``, float32 like the weights; returns how many."""
        ...

    def read(
        self,
        weights: Any,
        tiling: Tiling,
        keys: Any,
        averages: Any,
        lines: Any,
        first_sample: int,
        rule: ReadRule,
        backward: bool,
        learn: bool,
    ) -> ReadTotals:
        """Analog product: lines float32 (B, cols), or (B, rows) backward; keys uint32 (tiles, 2).

        ``averages`` float32 (tiles,) are the running averages of `Scaling.AVERAGE` in this direction, 0 where there
        is none yet; they go on with each sample if ``learn``.
        """
        ...  # fmt: skip

    def exact_read(self, weights: Any, tiling: Tiling, lines: Any, backward: bool) -> ReadTotals:
        """Product without converters, bounds or noise; the sums over tiles are still fixed point."""
        ...


def from_fixed(sums: Any) -> Any:
    """Fixed-point sums int64 as float32 of the same shape.  Raises `NumericalError` beyond 2^22."""
    values = sums * 2.0**-FIXED_BITS
    if not bool((abs(values) < FIXED_LIMIT).all()):
        raise NumericalError(overflow_message())
    return values.astype(np.float32)


def overflow_message() -> str:
    """What to say of a sum that fixed point cannot hold."""
    return (
        f"an output is not finite or has reached 2^{round(math.log2(FIXED_LIMIT))}; "
        "lower the learning rate or the weights, or set a finite output_bound"
    )


def input_message() -> str:
    """What to say of an input that is not a number."""
    return "an input or error signal is not finite; lower the learning rate"


def lines_of(backward: bool) -> tuple[int, int, int, int]:
    """Columns of the tile table of (input count, input start, output count, output start)."""
    return (ROWS, ROW0, COLS, COL0) if backward else (COLS, COL0, ROWS, ROW0)
