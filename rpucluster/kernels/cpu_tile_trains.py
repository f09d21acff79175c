"""Pulse trains of a batch on a tile, and the cells of a row where they meet, on the CPU, compiled by Numba."""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.base import COL0, COLS, D_KEY, ROW0, ROWS, X_KEY
from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_random import (
    bits_float,
    borrowing,
    compiled,
    float_bits,
    inlined,
    lowest_bit,
    popcount,
    types,
)
from rpucluster.kernels.cpu_simd import add_shared, copy_flipped, keep
from rpucluster.kernels.cpu_trains import (
    COLUMN,
    COUNT_AT,
    SIGN,
    SLOTS,
    gains,
    make_trains,
    new_lines,
    peak_bits,
    signs,
    spread_trains,
)
from rpucluster.kernels.update_rule import (
    BIT_LENGTH,
    DETERMINISTIC,
    DW_MIN,
    DYNAMIC,
    HALF_SELECT,
    MANAGEMENT,
    PER_BATCH,
)

_ONE_PULSE, _COUNTS = np.uint32(1 << 20), np.uint32(31 << 20)
_0 = np.int64(0)
_OF_COLUMNS, _OF_ROWS = np.bool_(False), np.bool_(True)  # literals would be types of their own
_ZERO = np.float32(0)

FIRED = 1024
"""Trains of rows that are looked through together for those that fire."""


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
                signs(xs, gain_x, bits if evenly else _0, trains.x_all[b])
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
                signs(ds[top:], gain, bits if evenly else _0, trains.d_words[top:bottom, b])
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
