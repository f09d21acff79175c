"""Pulse trains, their coincidences and single pulses on the CPU, compiled by Numba."""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.base import (
    BIT_LENGTH,
    COL0,
    COLS,
    D_KEY,
    DETERMINISTIC,
    DW_MIN,
    DYNAMIC,
    HALF_SELECT,
    MANAGEMENT,
    PER_BATCH,
    REPLAY_KEY,
    ROW0,
    ROWS,
    X_KEY,
)
from rpucluster.kernels.cpu_random import (
    bits_float,
    borrowing,
    compiled,
    float_bits,
    inlined,
    lowest_bit,
    normal_pair,
    philox,
    popcount,
)
from rpucluster.kernels.cpu_simd import copy_flipped, keep

SLOTS = np.uint32(0x7FFFFFFF)
"""The slots of a train's word; the bit above is the sign."""
COLUMN, COUNT_AT, COUNT, SIGN = np.uint32((1 << 20) - 1), np.uint32(20), np.uint32(31), np.uint32(1 << 31)
"""Parts of a hit, a uint32: its column, its number of coincidences, which starts at bit COUNT_AT, and a sign."""
INFINITY_BITS = np.int32(0x7F800000)

_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_ONE_PULSE, _COUNTS = np.uint32(1 << 20), np.uint32(31 << 20)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_0 = np.int64(0)
_ZERO, _ONE = np.float32(0), np.float32(1)
_U0, _U1 = np.uint64(0), np.uint64(1)


@borrowing
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


@borrowing
def make_trains(values: Any, gain: Any, bits: int, k0: Any, k1: Any, sample: int, scratch: Any, spread: int) -> Any:
    """Pulse trains of the lines that can fire, compacted into the rows of ``scratch``, uint64 (5, lines + 16).

    Row 0 gets their indices, row 1 the limits below which a word fires, row 2 the trains.  Returns how many lines
    there are and the sum of their limits.  ``spread`` as in `reference_update.pulse_trains`.
    """
    lines, limits, words, all_lines, all_limits = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    total = _U0
    for j in range(len(values)):
        p = min(abs(values[j]) * gain, _ONE) if values[j] != _ZERO else _ZERO
        if spread != 0:
            p = np.rint(p * np.float32(bits)) / np.float32(bits)
        all_limits[j] = np.uint64(np.ceil(np.float64(p) * 4294967296.0))
        all_lines[j] = np.uint64(j)
        total += all_limits[j]
    all_limits[len(values) : len(values) + 8] = _U0
    count = _0
    for j in range(0, len(values), 8):
        keep(lines, np.uint64(count), all_lines, all_limits, np.uint64(j), _ALL)
        count += keep(limits, np.uint64(count), all_limits, all_limits, np.uint64(j), _ALL)
    padded = count + 7 & ~7  # whole SIMD registers; what the surplus lanes hold is nobody's
    words[:padded] = _U0
    low, high = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
    key0, key1 = np.uint64(k0), np.uint64(k1)
    if spread != 0:
        _spread(values, gain, bits, lines, words, count, spread)
    for block in range(0 if spread != 0 else (bits + 3) // 4):
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


@borrowing
def _spread(values: Any, gain: Any, bits: int, lines: Any, words: Any, count: int, spread: int) -> None:
    """Trains that are not drawn: a line fires in its first k slots if ``spread`` is 1, else in k spread evenly."""
    for a in range(count):
        p = min(abs(values[np.int64(lines[a])]) * gain, _ONE)
        p = np.rint(p * np.float32(bits)) / np.float32(bits)
        k, before, word = np.int64(np.rint(p * np.float32(bits))), _0, _U0
        for slot in range(bits):
            now = (2 * (slot + 1) * k + bits) // (2 * bits)
            fires = slot < k if spread == 1 else now > before
            word |= np.uint64(fires) << np.uint64(slot)
            before = now
        words[a] = word


class Trains(NamedTuple):
    """The trains of a batch on one tile; 16 numbers of padding end each row of ``x_words`` and ``x_lines``."""

    x_words: Any  # uint32 (B, cols + 16): the trains of the columns that fire at all, then zeros
    x_lines: Any  # uint32 (B, cols + 16): their columns, as hits of one coincidence; bit 31 is the sign of x
    x_count: Any  # int64 (B,): how many these are
    x_all: Any  # uint32 (B, cols): the trains of all columns, with one draw per batch or half-selected pulses
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
    pulses = np.int64(0)
    for a in range(count):
        word = np.uint32(scratch[2, a])
        words[a] = word
        lines[a] = np.uint32(scratch[0, a]) | _ONE_PULSE | (word & SIGN)
        pulses += np.int64(popcount(word & SLOTS))
    if len(trains.x_all) > 0:  # also the signs of trains without pulses
        for a in range(count):
            trains.x_all[b, np.uint64(lines[a] & COLUMN)] = words[a]
    words[count : count + 16] = 0
    active = _0
    for a in range(0, count, 16):
        keep(lines, np.uint64(active), lines, words, np.uint64(a), SLOTS)
        active += keep(words, np.uint64(active), words, words, np.uint64(a), SLOTS)
    words[active : active + 16] = 0
    trains.x_count[b] = active
    singles = trains.singles
    if used + pulses + 32 > len(singles):
        longer = np.empty(2 * (used + pulses) + 32, np.uint32)
        longer[:used] = singles[:used]
        singles = longer
    for slot in range(bits):
        trains.starts[b, slot] = used
        for a in range(0, active, 16):
            used += keep(singles, np.uint64(used), lines, words, np.uint64(a), np.uint32(1 << slot))
    trains.starts[b, bits] = used
    now = Trains(trains.x_words, trains.x_lines, trains.x_count, trains.x_all, trains.d_words, singles, trains.starts)
    return now, used


@inlined
def row_hits(trains: Any, b: int, slots: Any, falls: Any, raise_only: bool, tags: Any, at: int) -> Any:
    """List the hits of sample b in a row that fires in these slots, in column order; how many, and coincidences.

    They start at ``tags[at]``; bit 31 of ``falls`` turns the sign of x into whether the weight falls.  With
    ``raise_only`` hits that lower a weight are left out.  Writes up to 16 numbers more than there are columns.
    """
    hits, start = _0, np.uint64(at)
    if slots & (slots - np.uint32(1)) == 0 and not raise_only:
        slot = np.int64(lowest_bit(np.uint64(slots)))
        first = np.uint64(trains.starts[b, slot])
        hits = total = trains.starts[b, slot + 1] - trains.starts[b, slot]
        for k in range(0, hits, 16):
            copy_flipped(tags, start + np.uint64(k), trains.singles, first + np.uint64(k), falls)
    else:
        total = np.int64(0)
        active = trains.x_count[b]
        for k in range(active + 15 & ~15):
            n = popcount(trains.x_words[b, np.uint64(k)] & slots)
            tag = trains.x_lines[b, np.uint64(k)] & ~_COUNTS ^ falls
            n = np.uint32(0) if raise_only and tag >= SIGN else n
            tags[start + np.uint64(k)] = tag | n << COUNT_AT
            total += np.int64(n)
        for k in range(0, active, 16):  # in place: what is written has been read
            hits += keep(tags, start + np.uint64(hits), tags, tags, start + np.uint64(k), _COUNTS)
    return hits, total


@compiled
def tile_trains(
    table: Any, keys: Any, t: int, ints: Any, floats: Any, x: Any, d: Any, lr: Any, first_sample: int
) -> Any:
    """Trains of a batch on one tile; also slots used and expected coincidences, over the samples."""
    rows, cols, row0, col0 = table[t, ROWS], table[t, COLS], table[t, ROW0], table[t, COL0]
    samples = len(x)
    trains = Trains(
        np.empty((samples, cols + 16), np.uint32),
        np.empty((samples, cols + 16), np.uint32),
        np.zeros(samples, np.int64),
        np.zeros((samples if ints[PER_BATCH] != 0 or floats[HALF_SELECT] > _ZERO else 0, cols), np.uint32),
        np.zeros((rows, samples), np.uint32),
        np.empty(cols * (samples + 1) + 32, np.uint32),
        np.zeros((samples, 32), np.int64),
    )
    scratch = np.empty((5, max(rows, cols) + 16), np.uint64)
    slots = used = 0
    expected = 0.0
    management, dynamic, evenly = ints[MANAGEMENT] != 0, ints[DYNAMIC] != 0, ints[DETERMINISTIC] != 0
    for b in range(samples):
        xs, ds = x[b, col0 : col0 + cols], d[b, row0 : row0 + rows]
        x_peak, d_peak = bits_float(peak_bits(xs)), bits_float(peak_bits(ds))
        bits, gain_x, gain_d = gains(x_peak, d_peak, lr, floats[DW_MIN], ints[BIT_LENGTH], management, dynamic)
        slots += bits
        if gain_x > _ZERO:
            sample = first_sample + b
            k0, k1 = keys[t, X_KEY, 0], keys[t, X_KEY, 1]
            count, x_total = make_trains(xs, gain_x, bits, k0, k1, sample, scratch, 1 if evenly else 0)
            trains, used = fire_columns(trains, scratch, count, b, bits, used)
            k0, k1 = keys[t, D_KEY, 0], keys[t, D_KEY, 1]
            count, d_total = make_trains(ds, gain_d, bits, k0, k1, sample, scratch, 2 if evenly else 0)
            for a in range(count):
                trains.d_words[np.int64(scratch[0, a]), b] = np.uint32(scratch[2, a])
            expected += bits * (np.float64(x_total) * 2.0**-32) * (np.float64(d_total) * 2.0**-32)
    return trains, slots, expected


@borrowing
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
