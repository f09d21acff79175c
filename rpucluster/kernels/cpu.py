"""The fast CPU kernels: Numba-compiled functions behind the `Kernels` interface."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.errors import NumericalError
from rpucluster.kernels import cpu_cells, cpu_read, cpu_update
from rpucluster.kernels.base import (
    COLS,
    FIXED_BITS,
    FIXED_LIMIT,
    OFFSET,
    ROWS,
    ReadRule,
    ReadTotals,
    Tiling,
    UpdateRule,
    UpdateTotals,
    input_message,
    lines_of,
    overflow_message,
    pack_read,
    pack_update,
)
from rpucluster.rng import Float32

_NO_PRODUCTS = np.empty((0, 0), np.float32)
PROBLEMS = {cpu_read.OUT_OF_RANGE: overflow_message(), cpu_read.NOT_FINITE: input_message()}


class NumbaKernels:
    """Single-threaded compiled kernels, which release the interpreter lock.

    The first call of each in a process loads it from disk, or compiles it.
    """

    name = "numba"

    def large_read(self, tiling: Tiling, samples: int) -> bool:
        """Whether BLAS may make products of such a read."""
        return _some_large(tiling, samples)

    def large_update(self, tiling: Tiling, samples: int) -> bool:
        """No update is too large for one call."""
        return False

    def draw_lanes(self, out: Any, tiling: Tiling, keys: Any, lanes: int, first: int) -> None:
        """Lanes of the shard's cells from number ``first`` on."""
        cpu_cells.draw_lanes(out, tiling.table, keys, lanes, first)

    def pulsed_update(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, x: Any, d: Any,
        lr: float, first_sample: int, rule: UpdateRule,
    ) -> UpdateTotals:  # fmt: skip
        """Fire the pulse trains of a batch."""
        slots, coincidences, expected, finite = cpu_update.pulsed_update(
            weights, lanes, tiling.table, keys, *pack_update(rule), _mutable(x), _mutable(d), np.float32(lr),
            first_sample,
        )  # fmt: skip
        if not finite:
            raise NumericalError(input_message())
        return UpdateTotals(slots, coincidences, expected, tiling.tiles * len(x))

    def exact_update(self, weights: Any, tiling: Tiling, x: Any, d: Any, lr: float) -> UpdateTotals:
        """``w -= (lr * d) x``, one sample after the other."""
        if not cpu_update.exact_update(weights, tiling.table, _mutable(x), _mutable(d), np.float32(lr)):
            raise NumericalError(input_message())
        return UpdateTotals(0, 0, 0.0, tiling.tiles * len(x))

    def read(
        self, weights: Any, tiling: Tiling, keys: Any, lines: Any, first_sample: int, rule: ReadRule, backward: bool
    ) -> ReadTotals:
        """Analog products, summed over tiles in fixed point."""
        lines = _mutable(lines)
        sums = np.zeros((len(lines), tiling.cols if backward else tiling.rows), np.int64)
        fixed = (lines, sums, first_sample, backward, *_read_arguments(rule))
        repeats = 0
        table = tiling.table
        if _some_large(tiling, len(lines)):
            large = table[:, ROWS] * table[:, COLS] >= cpu_read.BLAS_CELLS
            for t in np.flatnonzero(large):
                first, count = table[t, lines_of(backward)[1]], table[t, lines_of(backward)[0]]
                v = _convert_batch(lines[:, first : first + count], rule)
                products = v @ _matrix(weights, table[t], backward)  # (B, lines out)
                more, end = cpu_read.read(weights, table[t : t + 1], keys[t : t + 1], *fixed, True, products)
                _check(end)
                repeats += more
            table, keys = table[~large], keys[~large]
        more, end = cpu_read.read(weights, table, keys, *fixed, False, _NO_PRODUCTS)
        _check(end)
        return ReadTotals(sums, tiling.tiles * len(lines), repeats + more)

    def exact_read(self, weights: Any, tiling: Tiling, lines: Any, backward: bool) -> ReadTotals:
        """Products without converters or noise, summed over tiles in fixed point."""
        lines = _mutable(lines)
        sums = np.zeros((len(lines), tiling.cols if backward else tiling.rows), np.int64)
        table = tiling.table
        if _some_large(tiling, len(lines)):
            large = table[:, ROWS] * table[:, COLS] >= cpu_read.BLAS_CELLS
            count_in, start_in, _, start_out = lines_of(backward)
            for tile in table[large]:
                v = np.ascontiguousarray(lines[:, tile[start_in] : tile[start_in] + tile[count_in]])
                if not bool(np.isfinite(v).all()):
                    raise NumericalError(input_message())
                y = v @ _matrix(weights, tile, backward)  # (B, lines out)
                if not bool((np.abs(y) < FIXED_LIMIT).all()):
                    raise NumericalError(overflow_message())
                into = sums[:, tile[start_out] : tile[start_out] + y.shape[1]]
                into += np.rint(y.astype(np.float64) * 2.0**FIXED_BITS).astype(np.int64)
                if bool((np.abs(into) >= int(FIXED_LIMIT) << FIXED_BITS).any()):
                    raise NumericalError(overflow_message())
            table = table[~large]
        _check(cpu_read.exact_read(weights, table, lines, sums, backward))
        return ReadTotals(sums, tiling.tiles * len(lines), 0)


@cache
def _read_arguments(rule: ReadRule) -> tuple[Any, ...]:
    """The rule as the kernel takes it."""
    (abs_max, rounds), numbers = pack_read(rule)
    return (bool(abs_max), *numbers, int(rounds))


def from_fixed(sums: NDArray[np.int64]) -> Float32:
    """Fixed-point sums int64 as float32 of the same shape.  Raises `NumericalError` beyond 2^22."""
    flat = _mutable(np.ascontiguousarray(sums)).reshape(-1)
    values = np.empty(flat.size, np.float32)
    if not cpu_read.from_fixed(flat, values):
        raise NumericalError(overflow_message())
    return values.reshape(sums.shape)


def _some_large(tiling: Tiling, samples: int) -> bool:
    """Whether BLAS may have to make products; which tiles' is decided by shape and batch size alone."""
    return samples >= cpu_read.BLAS_BATCH and tiling.tile_rows * tiling.tile_cols >= cpu_read.BLAS_CELLS


def _matrix(weights: Any, tile: Any, backward: bool) -> Float32:
    """What a batch (B, lines in) of one tile is multiplied with, as a view: (lines in, lines out)."""
    rows, cols = int(tile[ROWS]), int(tile[COLS])
    w: Float32 = weights[tile[OFFSET] : tile[OFFSET] + rows * cols].reshape(rows, cols)
    return w if backward else w.T


def _convert_batch(values: Any, rule: ReadRule) -> Float32:
    """The DAC for a batch (B, lines in): the operations of ``cpu_read.convert_inputs``, which round alike."""
    with np.errstate(invalid="ignore"):  # what is not finite is found, and told, by the read itself
        peak = np.abs(values).max(1, keepdims=True)  # (B, 1)
        scale = np.where((peak > 0) & rule.abs_max, peak, np.float32(1))
        v: Float32 = values / scale
        if rule.input_levels:
            v = np.rint(v / np.float32(rule.input_step)) * np.float32(rule.input_step)
        return np.clip(v, np.float32(-1), np.float32(1))


def _mutable(array: Any) -> Any:
    """The array in the one form that the kernels are compiled for; what Ray delivers is read-only."""
    return array if array.flags.writeable else array.copy()


def _check(end: int) -> None:
    if end != cpu_read.FINE:
        raise NumericalError(PROBLEMS[end])
