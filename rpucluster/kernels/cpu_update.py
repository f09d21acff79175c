"""The weight update on the CPU, compiled by Numba.

For each tile: pulse trains of all samples first, then rows outside and samples inside, which keeps a row in cache and
changes nothing, since rows do not interact.  Most rows fire in one slot or none, and such a row hits just the columns
that fire in that slot, which are listed once for all rows.
"""

from typing import Any

import numpy as np

from rpucluster.kernels import cpu_batch
from rpucluster.kernels.base import COL0, COLS, OFFSET, ROW0, ROWS
from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_chunk import CHUNK, HITS, SHARD, Shard, new_chunk
from rpucluster.kernels.cpu_general import fire_listed, relax, update_whole_rows
from rpucluster.kernels.cpu_hits import add_group, flush
from rpucluster.kernels.cpu_random import borrowing, compiled, inlined, types
from rpucluster.kernels.cpu_simd import list_places
from rpucluster.kernels.cpu_tile_trains import (
    FIRED,
    KNOWN,
    TRAINS,
    column_trains,
    row_hits,
    row_trains,
    tile_trains,
    totals,
    with_own,
)
from rpucluster.kernels.cpu_trains import INFINITY_BITS, SIGN, SLOTS, new_lines, peak_bits
from rpucluster.kernels.cpu_turns import finish, take
from rpucluster.kernels.update_rule import DIFFUSION, GENERAL, HALF_SELECT, LIFETIME, PER_BATCH, RAISE_ONLY

_0 = np.int64(0)  # a literal 0 would be a type of its own, and each such type compiles a function again
_NONE = np.int64(-1)


_I, _F, _FLAG, _I8, _F4 = types.int64, types.float32, types.boolean, types.int64[::1], types.float32[::1]
_SIGNALS = types.float32[:, ::1]
_SHARD = _F4, _F4, types.int16[::1], types.int64[:, ::1], types.uint32[:, :, ::1], _I8, _F4
_BATCH = *_SHARD, _SIGNALS, _SIGNALS, _F, _I


@borrowing
def finite(x: Any, d: Any) -> bool:
    """Whether all signals are finite."""
    found = np.int32(0)
    for b in range(len(x)):
        found = max(found, peak_bits(x[b]), peak_bits(d[b]))
    return bool(found < INFINITY_BITS)


@apart(borrowing, _I, SHARD, CHUNK, TRAINS, _I, _I, _I, _I, needs=(flush,))
def update_rows(shard: Any, chunk: Any, trains: Any, t: int, top: int, bottom: int, first_sample: int) -> int:
    """Fire some rows of a tile; returns the coincidences.  Hits may be left in the chunk."""
    samples, raise_only, d_words = len(trains.x_count), shard.ints[RAISE_ONLY] != 0, trains.d_words
    coincidences, last = _0, bottom * samples
    for begin in range(top * samples, last, FIRED):
        count, end = _0, min(begin + FIRED, last)
        for place in range(begin, end, 16):
            count += list_places(trains.fired, np.uint64(count), d_words, np.uint64(place), SLOTS)
        for k in range(count):
            found = np.int64(trains.fired[np.uint64(k)])
            if found >= end:
                break
            i = found // samples
            b = found - i * samples
            d_word = d_words[i, b]
            hits, n = row_hits(trains, b, d_word & SLOTS, ~d_word & SIGN, raise_only, chunk.tags, chunk.fill[HITS])
            coincidences += n
            add_group(shard, chunk, hits, n != hits, t, i, first_sample + b)
    return int(coincidences)


@inlined
def _fire(shard: Any, chunk: Any, trains: Any, t: int, top: int, bottom: int, first_sample: int) -> Any:
    """Fire some rows of a tile; returns the coincidences.  Hits may be left in the chunk."""
    if shard.ints[PER_BATCH] != 0:
        pulses = cpu_batch.new_pulses(shard.table[t, COLS], len(trains.x_count))
        return cpu_batch.update_rows(shard, chunk, pulses, trains, t, top, bottom, first_sample)
    if shard.floats[HALF_SELECT] > 0:
        return update_whole_rows(shard, chunk, trains, t, top, bottom, first_sample)
    return update_rows(shard, chunk, trains, t, top, bottom, first_sample)


@apart(compiled, types.Tuple([_I, _I, types.float64, _FLAG]), *_BATCH, needs=(flush, tile_trains, update_rows))
def pulsed_update(
    weights: Any,
    hidden: Any,
    lanes: Any,
    table: Any,
    keys: Any,
    ints: Any,
    floats: Any,
    x: Any,
    d: Any,
    lr: Any,
    first_sample: int,
) -> Any:
    """Update all tiles; returns slots, coincidences, expected coincidences and whether all inputs were finite."""
    if not finite(x, d):
        return 0, 0, 0.0, False
    shard = Shard(weights, hidden, lanes.view(np.int64), table, keys, ints, floats)
    chunk = new_chunk(table[:, COLS].max(), ints[GENERAL] != 0)
    known = np.zeros((len(table), KNOWN, len(x)), np.int64)
    coincidences = _0
    for t in range(len(table)):
        trains = tile_trains(table, keys, t, ints, floats, x, d, lr, first_sample, known[t])
        coincidences += _fire(shard, chunk, trains, t, _0, table[t, ROWS], first_sample)
    flush(shard, chunk)
    slots, expected = totals(known)
    return slots, coincidences, expected, True


@apart(compiled, _FLAG, *_BATCH, _I8, types.int64[:, :, ::1], needs=(flush, update_rows))
def update_part(
    weights: Any,
    hidden: Any,
    lanes: Any,
    table: Any,
    keys: Any,
    ints: Any,
    floats: Any,
    x: Any,
    d: Any,
    lr: Any,
    first_sample: int,
    turns: Any,
    known: Any,
) -> bool:
    """As `pulsed_update` for one of several threads: the rows whose turn it is, until none are left.

    Returns whether all inputs were finite; else nothing is updated.  ``turns`` are of all tiles' rows, numbered through
    from tile to tile; what they find are coincidences.  No row depends on which others are updated with it.  ``known``,
    int64 (tiles, 4, B) of zeros, gets what `totals` takes.
    """
    if not finite(x, d):
        return False
    shard = Shard(weights, hidden, lanes.view(np.int64), table, keys, ints, floats)
    chunk, found = new_chunk(table[:, COLS].max(), ints[GENERAL] != 0), new_lines(table[:, ROWS].max())
    coincidences: Any = _0
    lines: Any = _0
    made: Any = _NONE
    start, stop = take(turns)
    while start < stop:
        first = _0
        for t in range(len(table)):
            top, bottom = max(start - first, _0), min(stop - first, table[t, ROWS])
            first += table[t, ROWS]
            if top >= bottom:
                continue
            if made != t:
                trains = column_trains(table, keys, t, ints, floats, x, d, lr, first_sample, known[t])
                made = t
            row_trains(table, keys, t, top, bottom, ints, floats, d, first_sample, trains, known[t], found)
            coincidences += _fire(shard, chunk, trains, t, top, bottom, first_sample)
        lines += stop - start
        start, stop = take(turns)
    flush(shard, chunk)
    finish(turns, lines, coincidences)
    return True


@apart(compiled, types.void, *_SHARD, _SIGNALS, _I, _I, TRAINS, _I8, types.int64[:, ::1], needs=(flush, update_rows))
def update_tile(
    weights: Any,
    hidden: Any,
    lanes: Any,
    table: Any,
    keys: Any,
    ints: Any,
    floats: Any,
    d: Any,
    first_sample: int,
    t: int,
    trains: Any,
    turns: Any,
    known: Any,
) -> None:
    """As `update_part`, for a tile whose columns have their trains, all numbers finite; ``turns`` are of its rows."""
    start, stop = take(turns)
    if start >= stop:
        return
    shard = Shard(weights, hidden, lanes.view(np.int64), table, keys, ints, floats)
    chunk, found = new_chunk(table[t, COLS], ints[GENERAL] != 0), new_lines(table[t, ROWS])
    own = with_own(trains, trains.singles)
    coincidences: Any = _0
    lines: Any = _0
    while start < stop:
        row_trains(table, keys, t, start, stop, ints, floats, d, first_sample, own, known, found)
        coincidences += _fire(shard, chunk, own, t, start, stop, first_sample)
        lines += stop - start
        start, stop = take(turns)
    flush(shard, chunk)
    finish(turns, lines, coincidences)


def load(ints: Any, floats: Any) -> None:
    """Load what updates, transfers and flushes by packed rules, one or a stack of them, reach by address."""
    flush.load()
    for kernel, needed in (
        (fire_listed, ints[..., GENERAL] != 0),
        (update_whole_rows, floats[..., HALF_SELECT] > 0),
        (relax, (floats[..., LIFETIME] > 0) | (floats[..., DIFFUSION] > 0)),
        (cpu_batch.update_rows, ints[..., PER_BATCH] != 0),
    ):
        if needed.any():
            kernel.load()


@apart(borrowing, _FLAG, _F4, types.int64[:, ::1], _SIGNALS, _SIGNALS, _F)
def exact_update(weights: Any, table: Any, x: Any, d: Any, lr: Any) -> bool:
    """``w -= (lr * d) * x`` in sample order; returns whether all inputs were finite."""
    if not finite(x, d):
        return False
    for t in range(len(table)):
        cols = table[t, COLS]
        for i in range(table[t, ROWS]):
            start = table[t, OFFSET] + i * cols
            w = weights[start : start + cols]
            for b in range(len(x)):
                scaled = lr * d[b, table[t, ROW0] + i]
                xs = x[b, table[t, COL0] : table[t, COL0] + cols]
                for j in range(cols):
                    w[j] -= scaled * xs[j]
    return True
