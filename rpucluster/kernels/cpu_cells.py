"""Lanes and tolerances of cells on the CPU, compiled by Numba: the operations of `devices.draw_lanes` and ``cells``."""

from typing import Any

import numpy as np
from llvmlite import ir

from rpucluster.devices import LANE_UNIT
from rpucluster.kernels.base import DEVICE_KEY, OFFSET
from rpucluster.kernels.cpu_random import (
    borrowing,
    compiled,
    eight_blocks,
    eight_normals,
    inlined,
    intrinsic,
    normal_pair,
    philox,
    round_even,
    types,
)
from rpucluster.kernels.cpu_wide import EVEN, ODD, SIGN_BIT, WORDS, Arrays, Lanes
from rpucluster.kernels.update_rule import CONSTANTS

_U0, _U16 = np.uint64(0), np.uint64(16)
_ONE = np.float32(1)
_0 = np.int64(0)
_UNIT = np.float32(LANE_UNIT)
_PER_UNIT = np.float32(1 / LANE_UNIT)


@inlined
def lane_block(cell: Any, block: Any, key0: Any, key1: Any) -> Any:
    """Lanes 4 block to 4 block + 3 of a cell of a tile, as int16; all arguments are uint64."""
    w0, w1, w2, w3 = philox(cell, _U0, _U0, block, key0, key1)
    z0, z1 = normal_pair(w0, w1)
    z2, z3 = normal_pair(w2, w3)
    l0, l1 = np.int16(round_even(z0 * _PER_UNIT)), np.int16(round_even(z1 * _PER_UNIT))
    uniform = block == np.uint64(1)
    l2 = np.int16(w2 >> _U16) if uniform else np.int16(round_even(z2 * _PER_UNIT))
    l3 = np.int16(w3 >> _U16) if uniform else np.int16(round_even(z3 * _PER_UNIT))
    return l0, l1, l2, l3


@inlined
def lane_word(cell: Any, key0: Any, key1: Any, block: Any) -> Any:
    """Four lanes of a cell in an int64, the first lowest: block 0 or 2 of them."""
    w0, w1, w2, w3 = philox(np.uint64(cell), _U0, _U0, block, key0, key1)
    z0, z1 = normal_pair(w0, w1)
    z2, z3 = normal_pair(w2, w3)
    low = np.int64(np.int32(round_even(z0 * _PER_UNIT))) & 0xFFFF
    low |= (np.int64(np.int32(round_even(z1 * _PER_UNIT))) & 0xFFFF) << 16
    low |= (np.int64(np.int32(round_even(z2 * _PER_UNIT))) & 0xFFFF) << 32
    return low | np.int64(np.int32(round_even(z3 * _PER_UNIT))) << 48


@inlined
def upper_lane_word(cell: Any, key0: Any, key1: Any) -> Any:
    """Lanes 4 to 7 of a cell in an int64: two normals, and the upper halves of two words."""
    w0, w1, w2, w3 = philox(np.uint64(cell), _U0, _U0, np.uint64(1), key0, key1)
    z0, z1 = normal_pair(w0, w1)
    low = np.int64(np.int32(round_even(z0 * _PER_UNIT))) & 0xFFFF
    low |= (np.int64(np.int32(round_even(z1 * _PER_UNIT))) & 0xFFFF) << 16
    return low | np.int64(w2 >> _U16) << 32 | np.int64(w3 >> _U16) << 48


@intrinsic
def _lane_words(typingctx: Any, lanes: Any, at: Any, count: Any, k0: Any, k1: Any) -> Any:
    """`make_lanes` of eight places, or the first ``count`` of them."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = Arrays(context, builder, signature, args)
        none = Lanes(builder, ir.Constant(WORDS, [0] * 8))
        key = [arrays.splat(arg, 8) for arg in args[3:]]
        x, y = eight_normals(eight_blocks(builder, [arrays.load(0, args[1], WORDS), none, none, none], key))
        pairs = ((x * (1 / LANE_UNIT)).rounded() & 0xFFFF) | ((y * (1 / LANE_UNIT)).rounded() << 16)
        words = pairs.picked(pairs, [lane for i in range(8) for lane in (i, 8 + i)]).as_words()
        arrays.store_first(words, 0, args[1], args[2])
        return context.get_dummy_value()

    return types.void(lanes, types.uint64, types.int64, types.uint64, types.uint64), emit


@borrowing
def make_lanes(lanes: Any, first: int, count: int, k0: Any, k1: Any) -> None:
    """Turn places in a tile, int64, into words of the first four lanes of the cells there, the first lowest."""
    key0, key1, start = np.uint64(k0), np.uint64(k1), np.uint64(first)
    for k in range(0, count, 8):
        _lane_words(lanes, start + np.uint64(k), count - k, key0, key1)


@compiled
def draw_lanes(out: Any, table: Any, keys: Any, lanes: int, first: int) -> None:
    """Fill ``out`` with the lanes of the shard's cells from number ``first`` on."""
    count = len(out) // lanes
    done = 0
    t = np.searchsorted(table[:, OFFSET], first, side="right") - 1
    while done < count:
        start = first + done - table[t, OFFSET]
        end = table[t + 1, OFFSET] if t + 1 < len(table) else first + count
        n = min(end, first + count) - first - done
        key0, key1 = np.uint64(keys[t, DEVICE_KEY, 0]), np.uint64(keys[t, DEVICE_KEY, 1])
        if lanes == 4:
            words = out[4 * done : 4 * (done + n)].view(np.int64)
            for c in range(n):
                words[c] = start + c
            make_lanes(words, _0, n, key0, key1)
        for block in range(lanes // 4 if lanes > 4 else 0):
            for c in range(n):
                l0, l1, l2, l3 = lane_block(np.uint64(start + c), np.uint64(block), key0, key1)
                at = (done + c) * lanes + 4 * block
                out[at] = l0
                out[at + 1] = l1
                out[at + 2] = l2
                out[at + 3] = l3
        done += n
        t += 1


@inlined
def constant_cell(l0: Any, l1: Any, l2: Any, l3: Any, floats: Any) -> Any:
    """Up step, down step, lower and upper bound of a constant-step cell from its lanes: as `ConstantStep.cells`."""
    z0, z1 = np.float32(l0) * _UNIT, np.float32(l1) * _UNIT
    z2, z3 = np.float32(l2) * _UNIT, np.float32(l3) * _UNIT
    dw_min, dw_min_dtod, up_down_dtod = floats[CONSTANTS], floats[CONSTANTS + 1], floats[CONSTANTS + 2]
    bias_up, bias_down = floats[CONSTANTS + 3], floats[CONSTANTS + 4]
    w_max, w_max_dtod = floats[CONSTANTS + 5], floats[CONSTANTS + 6]
    w_min, w_min_dtod = floats[CONSTANTS + 7], floats[CONSTANTS + 8]
    gain, r = _ONE + dw_min_dtod * z0, up_down_dtod * z1
    up = abs((gain + bias_up) + r) * dw_min
    down = abs((gain + bias_down) - r) * dw_min
    low = -abs(w_min * (_ONE + w_min_dtod * z3))
    high = abs(w_max * (_ONE + w_max_dtod * z2))
    return up, down, low, high


def sixteen_cells(arrays: Arrays, lanes: int, at: Any, floats: int) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """Steps and bounds of sixteen cells from their lanes: `cpu_cells.constant_cell`, operation by operation."""
    words = [arrays.load(lanes, at, WORDS, 8 * half).as_ints() for half in (0, 1)]
    first, second = words[0].picked(words[1], EVEN), words[0].picked(words[1], ODD)
    z0, z1, z2, z3 = (
        part.to_floats() * LANE_UNIT for part in ((first << 16) >> 16, first >> 16, (second << 16) >> 16, second >> 16)
    )
    dw_min, dw_min_dtod, up_down_dtod, bias_up, bias_down, w_max, w_max_dtod, w_min, w_min_dtod = (
        arrays.number(floats, CONSTANTS + number) for number in range(9)
    )
    gain, r = dw_min_dtod * z0 + 1.0, up_down_dtod * z1
    up = (gain + bias_up + r).size() * dw_min
    down = (gain + bias_down - r).size() * dw_min
    low = (w_min * (w_min_dtod * z3 + 1.0)).size().as_ints() ^ SIGN_BIT
    return up, down, low.as_floats(), (w_max * (w_max_dtod * z2 + 1.0)).size()
