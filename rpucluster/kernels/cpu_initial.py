"""Initial weights on the CPU, compiled by Numba: `rng.init_uniform`, scaled and clipped, without arrays in between."""

from typing import Any

import numpy as np

from rpucluster.kernels.base import COL0, COLS, DEVICE_KEY, OFFSET, ROW0, ROWS
from rpucluster.kernels.cpu_cells import constant_cell, make_lanes
from rpucluster.kernels.cpu_random import compiled, philox

_0 = np.int64(0)
_ONE, _UNIT = np.float32(1), np.float32(2.0**-23)
_U0, _8, _32 = np.uint64(0), np.uint64(8), np.uint64(32)
_MASK = np.uint64(0xFFFFFFFF)


@compiled
def _fill_uniform(out: Any, blocks: int, first_block: int, row: int, k0: Any, k1: Any) -> None:
    """Uniform numbers in [-1, 1) of some blocks of a layer's row."""
    low, high, first = np.uint64(row) & _MASK, np.uint64(row) >> _32, np.uint64(first_block)
    key0, key1 = np.uint64(k0), np.uint64(k1)
    for i in range(blocks):
        w0, w1, w2, w3 = philox(first + np.uint64(i), low, high, _U0, key0, key1)
        out[4 * i] = np.float32(np.int32(w0 >> _8)) * _UNIT - _ONE
        out[4 * i + 1] = np.float32(np.int32(w1 >> _8)) * _UNIT - _ONE
        out[4 * i + 2] = np.float32(np.int32(w2 >> _8)) * _UNIT - _ONE
        out[4 * i + 3] = np.float32(np.int32(w3 >> _8)) * _UNIT - _ONE


@compiled
def put_uniform(
    weights: Any, lanes: Any, table: Any, keys: Any, clipped: bool, floats: Any, k0: Any, k1: Any, first_row: int,
    first_col: int, scale: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Initial weights of some of all tiles' rows, numbered through from tile to tile.

    ``first_row`` and ``first_col`` are the shard's place in the layer, ``k0`` and ``k1`` the key of the layer's
    initial weights, ``floats`` those of an update; ``clipped`` to the bounds of the cells.
    """
    stored, most = lanes.view(np.int64), table[:, COLS].max()
    uniform, words = np.empty(most + 16, np.float32), np.empty(most + 8, np.int64)
    passed = _0
    for t in range(len(table)):
        rows, cols, offset = table[t, ROWS], table[t, COLS], table[t, OFFSET]
        col = first_col + table[t, COL0]
        blocks, skipped = (col + cols + 3 >> 2) - (col >> 2), col & 3
        for i in range(max(start - passed, _0), min(stop - passed, rows)):
            _fill_uniform(uniform, blocks, col >> 2, first_row + table[t, ROW0] + i, k0, k1)
            w = weights[offset + i * cols : offset + (i + 1) * cols]
            if not clipped:
                for j in range(cols):
                    w[j] = scale * uniform[skipped + j]
                continue
            if len(stored) > 0:
                words[:cols] = stored[offset + i * cols : offset + (i + 1) * cols]
            else:
                for j in range(cols):
                    words[j] = i * cols + j
                make_lanes(words, _0, cols, keys[t, DEVICE_KEY, 0], keys[t, DEVICE_KEY, 1])
            for j in range(cols):
                word = words[j]
                cell = constant_cell(
                    np.int16(word), np.int16(word >> 16), np.int16(word >> 32), np.int16(word >> 48), floats
                )
                w[j] = min(max(scale * uniform[skipped + j], cell[2]), cell[3])
        passed += rows
