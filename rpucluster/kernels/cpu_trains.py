"""Pulse trains, their coincidences and single pulses on the CPU, compiled by Numba."""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.base import COL0, COLS, D_KEY, REPLAY_KEY, ROW0, ROWS, X_KEY
from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_fire import fire_eight, list_sixteen
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
    types,
)
from rpucluster.kernels.cpu_simd import add_shared, copy_flipped, keep
from rpucluster.kernels.update_rule import (
    BIT_LENGTH,
    DETERMINISTIC,
    DW_MIN,
    DYNAMIC,
    HALF_SELECT,
    MANAGEMENT,
    PER_BATCH,
)

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
_OF_COLUMNS, _OF_ROWS = np.bool_(False), np.bool_(True)  # literals would be types of their own
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


class Lines(NamedTuple):
    """The lines of a vector that can fire, one after the other; room for 32 more than there are."""

    lines: Any  # uint32: their numbers
    chances: Any  # float32: the probability that a slot fires, with the sign of the line
    words: Any  # uint32: their trains
    sums: Any  # uint64 (8,): what adds up to the sum of the limits below which a word fires


@compiled
def new_lines(most: int) -> Any:
    """Room for so many lines."""
    room = most + 32
    parts = np.empty((3, room), np.uint32)  # one array, since each costs as much as twenty hits
    return Lines(parts[0], parts[1].view(np.float32), parts[2], np.empty(8, np.uint64))


@borrowing
def make_trains(
    values: Any, first: int, stop: int, gain: Any, bits: int, k0: Any, k1: Any, sample: int, found: Any
) -> Any:
    """Pulse trains of those of the lines from ``first`` to ``stop`` that fire at all, into ``found``, `Lines`.

    Returns how many there are and the sum of the limits of all of them.
    """
    lines, words = found.lines, found.words
    count = _0
    for j in range(first, stop, 16):
        count += list_sixteen(values, np.uint64(j), stop - j, gain, lines, found.chances, np.uint64(count))
    found.chances[count : count + 8] = _ZERO  # what the surplus lanes of a register hold cannot fire
    found.sums[:] = _U0
    low, high = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
    key0, key1 = np.uint64(k0), np.uint64(k1)
    for a in range(0, count, 8):
        for block in range((bits + 3) // 4):
            fire_eight(words, lines, found.chances, np.uint64(a), np.uint64(block), low, high, key0, key1, found.sums)
    used = (np.uint32(1) << np.uint32(bits)) - np.uint32(1)
    for a in range(count):
        words[a] &= used | SIGN
    words[count : count + 16] = 0
    active = _0
    for a in range(0, count, 16):  # in place: what is written has been read
        keep(lines, np.uint64(active), lines, words, np.uint64(a), SLOTS)
        active += keep(words, np.uint64(active), words, words, np.uint64(a), SLOTS)
    return active, found.sums.sum()


FIRED = 1024
"""Trains of rows that are looked through together for those that fire."""


@borrowing
def spread_trains(values: Any, gain: Any, bits: int, evenly: bool, found: Any) -> Any:
    """As `make_trains`, but not drawn: a line fires in its first k slots, or in k that are spread ``evenly``."""
    count, total, whole = _0, _U0, np.float32(bits)
    for j in range(len(values)):
        p = min(abs(values[j]) * gain, _ONE) if values[j] != _ZERO else _ZERO
        p = np.rint(p * whole) / whole
        total += np.uint64(np.ceil(np.float64(p) * 4294967296.0))
        k, before, word = np.int64(np.rint(p * whole)), _0, np.uint32(0)
        for slot in range(bits):
            now = (2 * (slot + 1) * k + bits) // (2 * bits)
            fires = now > before if evenly else slot < k
            word |= np.uint32(fires) << np.uint32(slot)
            before = now
        if k > 0:
            found.lines[count] = np.uint32(j)
            found.words[count] = word | SIGN if values[j] < _ZERO else word
            count += 1
    return count, total


class Trains(NamedTuple):
    """The trains of a batch on one tile; 16 numbers of padding end each row of ``x_words`` and ``x_lines``."""

    x_words: Any  # uint32 (B, cols + 16): the trains of the columns that fire at all, then zeros
    x_lines: Any  # uint32 (B, cols + 16): their columns, as hits of one coincidence; bit 31 is the sign of x
    x_count: Any  # int64 (B,): how many these are
    x_all: Any  # uint32 (B, cols): the trains of all columns, with one draw per batch or half-selected pulses
    d_words: Any  # uint32 (rows, B): without slots where a row does not fire; room for 16 more behind them
    singles: Any  # uint32: for each sample and slot the hits of a row that fires in this slot alone
    starts: Any  # int64 (B, 32): first of these; the next slot's is the end
    fired: Any  # uint32 (FIRED + 16,): scratch for places in d_words


_U4, _I8 = types.uint32[::1], types.int64[::1]
TRAINS = types.NamedTuple(
    [
        types.uint32[:, ::1], types.uint32[:, ::1], _I8, types.uint32[:, ::1], types.uint32[:, ::1], _U4,
        types.int64[:, ::1], _U4,
    ],
    Trains,
)  # fmt: skip
"""Its type, as compiled functions take it."""
_SIGNALS = types.float32[:, ::1]
_ARGUMENTS = (
    types.int64[:, ::1], types.uint32[:, :, ::1], types.int64, _I8, types.float32[::1], _SIGNALS, _SIGNALS,
    types.float32, types.int64, types.int64[:, ::1],
)  # fmt: skip
BITS, D_GAIN, X_LIMITS, D_LIMITS = range(4)
"""What is known of each sample on a tile, int64: its slots, the bits of the gain of d, or 0 where nothing fires,
and the sums of the limits of all columns and of all rows."""
KNOWN = 4


@compiled
def fire_columns(trains: Any, found: Any, active: int, b: int, bits: int, used: Any) -> Any:
    """Put the trains of the columns of sample b, as `make_trains` left them, into ``trains``.

    ``used`` tells how much of ``singles`` is taken; returns the trains, perhaps with a longer list, and the new
    number.
    """
    lines, words = trains.x_lines[b], trains.x_words[b]
    pulses = np.int64(0)
    for a in range(active):
        word = found.words[a]
        words[a] = word
        lines[a] = found.lines[a] | _ONE_PULSE | (word & SIGN)
        pulses += np.int64(popcount(word & SLOTS))
    words[active : active + 16] = 0
    trains.x_count[b] = active
    if len(trains.x_all) > 0:
        for a in range(active):
            trains.x_all[b, np.uint64(lines[a] & COLUMN)] = words[a]
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
    now = Trains(
        trains.x_words, trains.x_lines, trains.x_count, trains.x_all, trains.d_words, singles, trains.starts,
        trains.fired,
    )  # fmt: skip
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


@borrowing
def _signs(values: Any, gain: Any, even: int, words: Any) -> None:
    """The words of trains without pulses: signs, which half-selected pulses of the other line take over.

    Of trains that are spread over ``even`` slots, unless that is 0, those with less than half a pulse have none.
    """
    for j in range(len(values)):
        p = min(abs(values[j]) * gain, _ONE)
        fires = np.rint(p * np.float32(even)) > _ZERO if even > 0 else p > _ZERO
        words[j] = SIGN if values[j] < _ZERO and fires else np.uint32(0)


@inlined
def _room(table: Any, t: int, ints: Any, floats: Any, samples: int) -> Any:
    rows, cols = table[t, ROWS], table[t, COLS]
    all_columns = samples if floats[HALF_SELECT] > _ZERO or ints[PER_BATCH] != 0 else 0
    of_columns, of_rows = np.empty((2, samples, cols + 16), np.uint32), np.zeros(rows * samples + 16, np.uint32)
    return Trains(
        of_columns[0],
        of_columns[1],
        np.zeros(samples, np.int64),
        np.zeros((all_columns, cols), np.uint32),
        of_rows[: rows * samples].reshape(rows, samples),
        np.empty(cols * (samples + 1) + 32, np.uint32),
        np.empty((samples, 32), np.int64),
        np.empty(FIRED + 16, np.uint32),
    )


@compiled
def new_trains(table: Any, t: int, ints: Any, floats: Any, samples: int) -> Any:
    """Room for the trains of a batch on a tile, of which none fires yet."""
    return _room(table, t, ints, floats, samples)


@compiled
def with_own(trains: Any, singles: Any) -> Any:
    """Trains for one of several threads: with scratch and singles of its own."""
    return Trains(
        trains.x_words, trains.x_lines, trains.x_count, trains.x_all, trains.d_words, singles, trains.starts,
        np.empty(FIRED + 16, np.uint32),
    )  # fmt: skip


@inlined
def _fire_columns(
    table: Any, keys: Any, t: int, ints: Any, floats: Any, x: Any, d: Any, lr: Any, first_sample: int, trains: Any,
    begin: int, end: int, known: Any, found: Any,
) -> Any:  # fmt: skip
    rows, cols, row0, col0 = table[t, ROWS], table[t, COLS], table[t, ROW0], table[t, COL0]
    halves, used = floats[HALF_SELECT] > _ZERO, _0
    management, dynamic, evenly = ints[MANAGEMENT] != 0, ints[DYNAMIC] != 0, ints[DETERMINISTIC] != 0
    for b in range(begin, end):
        xs, ds = x[b, col0 : col0 + cols], d[b, row0 : row0 + rows]
        x_peak, d_peak = bits_float(peak_bits(xs)), bits_float(peak_bits(ds))
        bits, gain_x, gain_d = gains(x_peak, d_peak, lr, floats[DW_MIN], ints[BIT_LENGTH], management, dynamic)
        known[BITS, b] = bits
        if gain_x > _ZERO:
            known[D_GAIN, b] = np.int64(float_bits(gain_d))
            if halves:
                _signs(xs, gain_x, bits if evenly else _0, trains.x_all[b])
            k0, k1 = keys[t, X_KEY, 0], keys[t, X_KEY, 1]
            if evenly:
                count, limits = spread_trains(xs, gain_x, bits, _OF_COLUMNS, found)
            else:
                count, limits = make_trains(xs, _0, cols, gain_x, bits, k0, k1, first_sample + b, found)
            known[X_LIMITS, b] = np.int64(limits)
            trains, used = fire_columns(trains, found, count, b, bits, used)
    return trains, used


@compiled
def column_trains(
    table: Any, keys: Any, t: int, ints: Any, floats: Any, x: Any, d: Any, lr: Any, first_sample: int, known: Any
) -> Any:
    """Trains of a batch on the columns of a tile; its rows, which follow in `row_trains`, do not fire yet.

    Puts slots and limits of the columns into ``known``, int64 (4, B).
    """
    room, found = _room(table, t, ints, floats, len(x)), new_lines(table[t, COLS])
    trains, _ = _fire_columns(table, keys, t, ints, floats, x, d, lr, first_sample, room, _0, len(x), known, found)
    return trains


@compiled
def columns_apart(
    table: Any, keys: Any, t: int, ints: Any, floats: Any, x: Any, d: Any, lr: Any, first_sample: int, trains: Any,
    begin: int, end: int, known: Any,
) -> Any:  # fmt: skip
    """As `column_trains`, for some samples, into ``trains`` that threads share; returns the singles of these."""
    cols = table[t, COLS]
    own = with_own(trains, np.empty(cols * (end - begin + 1) + 32, np.uint32))
    own, used = _fire_columns(
        table, keys, t, ints, floats, x, d, lr, first_sample, own, begin, end, known, new_lines(cols)
    )
    return own.singles[:used]


@inlined
def _fire_rows(
    table: Any, keys: Any, t: int, top: int, bottom: int, ints: Any, floats: Any, d: Any, first_sample: int,
    trains: Any, known: Any, found: Any,
) -> None:  # fmt: skip
    row0, evenly = table[t, ROW0], ints[DETERMINISTIC] != 0
    k0, k1 = keys[t, D_KEY, 0], keys[t, D_KEY, 1]
    for b in range(len(d)):
        gain, bits = bits_float(np.int32(known[D_GAIN, b])), known[BITS, b]
        if gain != _ZERO:
            ds = d[b, row0 : row0 + bottom]
            if floats[HALF_SELECT] > _ZERO:
                _signs(ds[top:], gain, bits if evenly else _0, trains.d_words[top:bottom, b])
            if evenly:
                count, limits = spread_trains(ds[top:], gain, bits, _OF_ROWS, found)
                for a in range(count):
                    found.lines[a] += np.uint32(top)
            else:
                count, limits = make_trains(ds, top, bottom, gain, bits, k0, k1, first_sample + b, found)
            for a in range(count):
                trains.d_words[np.uint64(found.lines[a]), b] = found.words[a]
            add_shared(known, np.uint64(D_LIMITS * len(d) + b), np.int64(limits))


@borrowing
def row_trains(
    table: Any, keys: Any, t: int, top: int, bottom: int, ints: Any, floats: Any, d: Any, first_sample: int,
    trains: Any, known: Any, found: Any,
) -> None:  # fmt: skip
    """Make the trains of some rows of a tile, whose limits are added to ``known``, which threads may share.

    ``found`` is scratch, `Lines` for as many.
    """
    _fire_rows(table, keys, t, top, bottom, ints, floats, d, first_sample, trains, known, found)


@apart(compiled, TRAINS, *_ARGUMENTS)
def tile_trains(
    table: Any, keys: Any, t: int, ints: Any, floats: Any, x: Any, d: Any, lr: Any, first_sample: int, known: Any
) -> Any:
    """As `column_trains` and `row_trains` for all rows; in one piece, since what is passed on is counted."""
    rows = table[t, ROWS]
    room, found = _room(table, t, ints, floats, len(x)), new_lines(max(rows, table[t, COLS]))
    trains, _ = _fire_columns(table, keys, t, ints, floats, x, d, lr, first_sample, room, _0, len(x), known, found)
    _fire_rows(table, keys, t, _0, rows, ints, floats, d, first_sample, trains, known, found)
    return trains


@borrowing
def totals(known: Any) -> Any:
    """Slots and expected coincidences of all tiles and samples from ``known``, int64 (tiles, 4, B)."""
    slots, expected = _0, 0.0
    for t in range(len(known)):
        of_tile = 0.0
        for b in range(known.shape[2]):
            bits = known[t, BITS, b]
            slots += bits
            x_sum, d_sum = np.float64(known[t, X_LIMITS, b]), np.float64(known[t, D_LIMITS, b])
            of_tile += bits * (x_sum * 2.0**-32) * (d_sum * 2.0**-32)
        expected += of_tile
    return slots, expected


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
