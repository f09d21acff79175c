"""Pulse trains, their coincidences and single pulses on the CPU, compiled by Numba."""

from typing import Any

import numpy as np

from rpucluster.kernels.base import REPLAY_KEY
from rpucluster.kernels.cpu_random import (
    compiled,
    float_bits,
    inlined,
    lowest_bit,
    normal_pair,
    philox,
    popcount,
)

SLOTS = np.uint32(0x7FFFFFFF)
"""The slots of a train's word; the bit above is the sign."""
INFINITY_BITS = np.int32(0x7F800000)

_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_ZERO, _ONE = np.float32(0), np.float32(1)
_U0, _U1 = np.uint64(0), np.uint64(1)


@compiled
def peak_bits(values: Any) -> Any:
    """Bits of the largest magnitude of a float32 (n,); as integers they compare like the numbers do.

    At or above those of infinity if anything is not finite.
    """
    peak = np.int32(0)
    for j in range(len(values)):
        peak = max(peak, float_bits(values[j]) & _MAGNITUDE)
    return peak


@inlined
def gains(x_peak: Any, d_peak: Any, lr: Any, dw_min: Any, bit_length: int, management: bool, dynamic: bool) -> Any:
    """Slots to use and the gains of x and d: as `reference.gains`, operation by operation."""
    wanted = ((lr * x_peak) * d_peak) / dw_min
    quiet = x_peak == _ZERO or d_peak == _ZERO or lr == _ZERO
    bits = bit_length
    if dynamic and wanted < np.float32(bit_length):
        bits = 0 if quiet else max(1, int(np.ceil(wanted)))
    gain_x = _ZERO
    gain_d = _ZERO
    if not quiet:
        gain_x = np.float32(np.sqrt(lr / (dw_min * np.float32(bits))))
        gain_d = gain_x
        if management:
            peak = d_peak
            if wanted > np.float32(bit_length):
                peak = d_peak * (np.float32(bit_length) / wanted)
            gain_d = gain_d * np.float32(np.sqrt(x_peak / peak))
            gain_x = gain_x * np.float32(np.sqrt(peak / x_peak))
    return bits, gain_x, gain_d


@compiled
def make_trains(values: Any, gain: Any, bits: int, k0: Any, k1: Any, sample: int, scratch: Any) -> Any:
    """Pulse trains of the lines that can fire, compacted into the rows of ``scratch``, uint64 (3, lines + 9).

    Row 0 gets their indices, row 1 the limits below which a word fires, row 2 the trains.  Returns how many lines
    there are and the sum of their limits.
    """
    lines, limits, words = scratch[0], scratch[1], scratch[2]
    count = 0
    total = _U0
    for j in range(len(values)):
        p = min(abs(values[j]) * gain, _ONE) if values[j] != _ZERO else _ZERO
        exact = np.float64(p) * 4294967296.0
        whole = np.int64(exact)
        limit = np.uint64(whole + np.int64(exact > np.float64(whole)))
        lines[count] = np.uint64(j)
        limits[count] = limit
        total += limit
        count += int(p > _ZERO)
    padded = count + 7 & ~7  # whole SIMD registers; what the surplus lanes hold is nobody's
    words[:padded] = _U0
    low, high = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
    key0, key1 = np.uint64(k0), np.uint64(k1)
    for block in range((bits + 3) // 4):
        shift = np.uint64(4 * block)
        for a in range(padded):
            w0, w1, w2, w3 = philox(lines[a] * np.uint64(8) + np.uint64(block), low, high, _U0, key0, key1)
            limit = limits[a]
            fired = np.uint64(w0 < limit) | np.uint64(w1 < limit) << _U1
            fired |= np.uint64(w2 < limit) << np.uint64(2) | np.uint64(w3 < limit) << np.uint64(3)
            words[a] |= fired << shift
    used = (_U1 << np.uint64(bits)) - _U1
    for a in range(count):
        words[a] = words[a] & used | np.uint64(values[np.int64(lines[a])] < _ZERO) << np.uint64(31)
    return count, total


@compiled
def row_hits(planes: Any, x_words: Any, d_word: Any, row_start: int, cells: Any, counts: Any, start: int) -> Any:
    """Append the cells of one row that have a coincidence in one sample, in column order.

    ``planes`` is flat uint64 (groups of 64 columns, slots).  ``cells`` gets row_start + column, ``counts`` the
    coincidences with bit 31 set where they lower the weight.  Returns the new length of the lists and the sum of
    the coincidences.
    """
    hits = start
    total = 0
    slots = d_word & SLOTS
    groups = (len(x_words) + 63) >> 6
    length = len(planes) // groups
    for group in range(groups):
        columns = _U0
        rest = np.uint64(slots)
        while rest != _U0:
            columns |= planes[np.uint64(group * length) + lowest_bit(rest)]
            rest &= rest - _U1
        first = np.uint64(64 * group)
        while columns != _U0:
            j = first + lowest_bit(columns)
            columns &= columns - _U1
            n = popcount(np.uint32(slots & x_words[j]))
            lowers = np.uint32(~(d_word ^ x_words[j]) & np.uint32(0x80000000))
            cells[np.uint64(hits)] = np.uint64(row_start) + j
            counts[np.uint64(hits)] = n | lowers
            hits += 1
            total += int(n)
    return hits, total


@compiled
def replay(
    w: Any, n: int, lowers: bool, step: Any, low: Any, high: Any, std: Any, keys: Any, sample: int, cell: int
) -> Any:
    """The weight after n pulses one by one, each with its own noise and clipped to the bounds."""
    s0, s1 = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
    k0, k1 = np.uint64(keys[REPLAY_KEY, 0]), np.uint64(keys[REPLAY_KEY, 1])
    z0 = z1 = z2 = z3 = _ZERO
    for pulse in range(n):
        lane = pulse & 3
        if lane == 0 and std > _ZERO:
            block = np.uint64(cell) * np.uint64(8) + np.uint64(pulse >> 2)
            w0, w1, w2, w3 = philox(block, s0, s1, _U0, k0, k1)
            z0, z1 = normal_pair(w0, w1)
            z2, z3 = normal_pair(w2, w3)
        z = z0 if lane == 0 else (z1 if lane == 1 else (z2 if lane == 2 else z3))
        amount = step * (_ONE + std * z)
        w = w - amount if lowers else w + amount
        w = min(max(w, low), high)
    return w
