"""The weight update on the CPU, compiled by Numba.

For each tile: pulse trains of all samples first, then rows outside and samples inside, which keeps a row in cache and
changes nothing, since rows do not interact.  Most rows fire in one slot or none, and such a row hits just the columns
that fire in that slot, which are listed once for all rows.
"""

from typing import Any

import numpy as np

from rpucluster.kernels import cpu_batch
from rpucluster.kernels.base import COL0, COLS, GENERAL, HALF_SELECT, OFFSET, PER_BATCH, RAISE_ONLY, ROW0, ROWS
from rpucluster.kernels.cpu_chunk import HITS, Shard, new_chunk
from rpucluster.kernels.cpu_general import update_whole_rows
from rpucluster.kernels.cpu_hits import add_group, flush
from rpucluster.kernels.cpu_random import borrowing, compiled
from rpucluster.kernels.cpu_simd import list_places, take
from rpucluster.kernels.cpu_trains import (
    FIRED,
    INFINITY_BITS,
    SIGN,
    SLOTS,
    column_trains,
    peak_bits,
    row_hits,
    row_trains,
    totals,
)

_0, _1 = np.int64(0), np.int64(1)  # a literal 0 would be a type of its own, and each such type compiles a function again


@compiled
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
    known = np.zeros((len(table), 3, len(x)), np.int64)
    turns = np.zeros(3, np.int64)
    turns[2] = table[:, ROWS].sum()
    coincidences = update_part(
        weights, hidden, lanes, table, keys, ints, floats, x, d, lr, first_sample, turns, known
    )
    slots, expected = totals(known)
    return slots, coincidences, expected, True


@borrowing
def finite(x: Any, d: Any) -> bool:
    """Whether all signals are finite."""
    found = np.int32(0)
    for b in range(len(x)):
        found = max(found, peak_bits(x[b]), peak_bits(d[b]))
    return bool(found < INFINITY_BITS)


@compiled
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
) -> int:
    """Update the rows whose turn it is until none are left; returns the coincidences.

    ``turns`` int64: the next turn, which threads share, then where each starts and the last ends among all tiles'
    rows, numbered through from tile to tile.  No row depends on which others are updated with it.  ``known``, int64
    (tiles, 3, B) of zeros, gets what `totals` takes.
    """
    shard = Shard(weights, hidden, lanes.view(np.int64), table, keys, ints, floats)
    most_cols = table[:, COLS].max()
    chunk = new_chunk(most_cols, ints[GENERAL] != 0)
    coincidences, made, turn = _0, -_1, take(turns)
    while turn < len(turns) - 2:
        start, stop, first = turns[turn + 1], turns[turn + 2], _0
        for t in range(len(table)):
            top, bottom = max(start - first, _0), min(stop - first, table[t, ROWS])
            first += table[t, ROWS]
            if top >= bottom:
                continue
            if made != t:
                trains = column_trains(table, keys, t, ints, floats, x, d, lr, first_sample, known[t])
                made = t
            row_trains(table, keys, t, top, bottom, ints, floats, d, first_sample, trains, known[t])
            if ints[PER_BATCH] != 0:
                pulses = cpu_batch.new_pulses(most_cols, len(x))
                coincidences += cpu_batch.update_rows(shard, chunk, pulses, trains, t, top, bottom, first_sample)
            elif floats[HALF_SELECT] > 0:
                coincidences += update_whole_rows(shard, chunk, trains, t, top, bottom, first_sample)
            else:
                coincidences += update_rows(shard, chunk, trains, t, top, bottom, first_sample)
        turn = take(turns)
    flush(shard, chunk)
    return int(coincidences)


@borrowing
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


@borrowing
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
