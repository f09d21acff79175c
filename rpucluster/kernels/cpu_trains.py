"""Pulse trains, their coincidences and single pulses on the CPU, compiled by Numba."""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.base import (
    BIT_LENGTH,
    COL0,
    COLS,
    D_KEY,
    DW_MIN,
    DYNAMIC,
    MANAGEMENT,
    REPLAY_KEY,
    ROW0,
    ROWS,
    X_KEY,
)
from rpucluster.kernels.cpu_random import (
    bits_float,
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
COLUMN, COUNT_AT, COUNT, SIGN = np.uint32((1 << 20) - 1), np.uint32(20), np.uint32(31), np.uint32(1 << 31)
"""Parts of a hit, a uint32: its column, its number of coincidences, which starts at bit COUNT_AT, and a sign."""
INFINITY_BITS = np.int32(0x7F800000)

_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_ONE_PULSE = np.uint32(1 << 20)
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
    """Pulse trains of the lines that can fire, compacted into the rows of ``scratch``, uint64 (4, lines + 8).

    Row 0 gets their indices, row 1 the limits below which a word fires, row 2 the trains.  Returns how many lines
    there are and the sum of their limits.
    """
    lines, limits, words, all_limits = scratch[0], scratch[1], scratch[2], scratch[3]
    total = _U0
    for j in range(len(values)):
        p = min(abs(values[j]) * gain, _ONE) if values[j] != _ZERO else _ZERO
        all_limits[j] = np.uint64(np.ceil(np.float64(p) * 4294967296.0))
        total += all_limits[j]
    count = 0
    for j in range(len(values)):
        lines[count] = np.uint64(j)
        limits[count] = all_limits[j]
        count += int(all_limits[j] != _U0)
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


class Trains(NamedTuple):
    """The trains of a batch on one tile."""

    x_words: Any  # uint32 (B, cols): the trains of the columns that fire at all
    x_lines: Any  # uint32 (B, cols): their columns, as hits without a number; bit 31 is the sign of x
    x_count: Any  # int64 (B,): how many these are
    d_words: Any  # uint32 (rows, B)
    singles: Any  # uint32: for each sample and slot the hits of a row that fires in this slot alone
    starts: Any  # int64 (B, 32): first of these; the next slot's is the end


@compiled
def fire_columns(trains: Any, scratch: Any, count: int, b: int, bits: int, used: Any) -> Any:
    """Put the trains of the columns of sample b, as `make_trains` left them, into ``trains``.

    ``used`` tells how much of ``singles`` is taken; returns the trains, perhaps with a longer list, and the new
    number.
    """
    lines, words = trains.x_lines[b], trains.x_words[b]
    active = np.int64(0)
    pulses = np.int64(0)
    for a in range(count):
        word = np.uint32(scratch[2, a])
        words[active] = word
        lines[active] = np.uint32(scratch[0, a]) | (word & ~SLOTS)
        pulses += np.int64(popcount(word & SLOTS))
        active += np.int64((word & SLOTS) != 0)
    trains.x_count[b] = active
    singles = trains.singles
    if used + pulses + 1 > len(singles):  # 1: the compaction writes before it knows
        longer = np.empty(2 * (used + pulses + 1), np.uint32)
        longer[:used] = singles[:used]
        singles = longer
    for slot in range(bits):
        trains.starts[b, slot] = used
        for a in range(active):
            singles[used] = lines[a] | _ONE_PULSE
            used += np.int64(words[a] >> np.uint32(slot) & np.uint32(1))
    trains.starts[b, bits] = used
    return Trains(trains.x_words, trains.x_lines, trains.x_count, trains.d_words, singles, trains.starts), used


@inlined
def row_hits(trains: Any, b: int, slots: Any, falls: Any, raise_only: bool, found: Any) -> Any:
    """List the hits of sample b in a row that fires in these slots, in column order; how many, and coincidences.

    ``falls`` turns signs of x into those of falls; with ``raise_only`` hits that lower a weight are left out.
    """
    hits, total = np.int64(0), np.int64(0)
    if slots & (slots - np.uint32(1)) == 0:
        slot = np.int64(lowest_bit(np.uint64(slots)))
        start = np.uint64(trains.starts[b, slot])
        hits = total = trains.starts[b, slot + 1] - trains.starts[b, slot]
        for k in range(hits):
            found[np.uint64(k)] = trains.singles[start + np.uint64(k)]
    else:
        for k in range(trains.x_count[b]):
            n = popcount(trains.x_words[b, np.uint64(k)] & slots)
            found[np.uint64(hits)] = trains.x_lines[b, np.uint64(k)] | n << COUNT_AT
            hits += np.int64(n != 0)
            total += np.int64(n)
    if raise_only:
        listed = hits
        hits, total = np.int64(0), np.int64(0)
        for k in range(listed):
            hit = found[np.uint64(k)]
            found[np.uint64(hits)] = hit
            if hit ^ falls < SIGN:
                hits += 1
                total += np.int64(hit >> COUNT_AT & COUNT)
    return hits, total


@compiled
def train_of(trains: Any, b: int, column: Any) -> Any:
    """The train of a column in sample b: 0 if it does not fire at all."""
    lines = trains.x_lines[b, : trains.x_count[b]]
    low, high = 0, len(lines)
    while low < high:
        middle = (low + high) // 2
        if (lines[middle] & SLOTS) < column:
            low = middle + 1
        else:
            high = middle
    found = low < len(lines) and (lines[low] & SLOTS) == column
    return trains.x_words[b, low] if found else np.uint32(0)


@compiled
def tile_trains(
    table: Any, keys: Any, t: int, ints: Any, floats: Any, x: Any, d: Any, lr: Any, first_sample: int
) -> Any:
    """Trains of a batch on one tile; also slots used and expected coincidences, over the samples."""
    rows, cols, row0, col0 = table[t, ROWS], table[t, COLS], table[t, ROW0], table[t, COL0]
    samples = len(x)
    trains = Trains(
        np.empty((samples, cols), np.uint32),
        np.empty((samples, cols), np.uint32),
        np.zeros(samples, np.int64),
        np.zeros((rows, samples), np.uint32),
        np.empty(cols * (samples + 1), np.uint32),
        np.zeros((samples, 32), np.int64),
    )
    scratch = np.empty((4, max(rows, cols) + 8), np.uint64)
    slots = used = 0
    expected = 0.0
    management, dynamic = ints[MANAGEMENT] != 0, ints[DYNAMIC] != 0
    for b in range(samples):
        xs, ds = x[b, col0 : col0 + cols], d[b, row0 : row0 + rows]
        x_peak, d_peak = bits_float(peak_bits(xs)), bits_float(peak_bits(ds))
        bits, gain_x, gain_d = gains(x_peak, d_peak, lr, floats[DW_MIN], ints[BIT_LENGTH], management, dynamic)
        slots += bits
        if gain_x > _ZERO:
            sample = first_sample + b
            count, x_total = make_trains(xs, gain_x, bits, keys[t, X_KEY, 0], keys[t, X_KEY, 1], sample, scratch)
            trains, used = fire_columns(trains, scratch, count, b, bits, used)
            count, d_total = make_trains(ds, gain_d, bits, keys[t, D_KEY, 0], keys[t, D_KEY, 1], sample, scratch)
            for a in range(count):
                trains.d_words[np.int64(scratch[0, a]), b] = np.uint32(scratch[2, a])
            expected += bits * (np.float64(x_total) * 2.0**-32) * (np.float64(d_total) * 2.0**-32)
    return trains, slots, expected


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
