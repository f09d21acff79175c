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
from rpucluster.kernels.cpu_trains import INFINITY_BITS, SIGN, SLOTS, peak_bits, row_hits, tile_trains

_0 = np.int64(0)  # a literal 0 would be a type of its own, and each such type compiles a function again


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
    for b in range(len(x)):
        if peak_bits(x[b]) >= INFINITY_BITS or peak_bits(d[b]) >= INFINITY_BITS:
            return 0, 0, 0.0, False
    shard = Shard(weights, hidden, lanes.view(np.int64), table, keys, ints, floats)
    most_cols = table[:, COLS].max()
    chunk = new_chunk(most_cols, ints[GENERAL] != 0)
    pulses = cpu_batch.new_pulses(most_cols if ints[PER_BATCH] != 0 else 0, len(x))
    slots = coincidences = _0
    expected = 0.0
    for t in range(len(table)):
        trains, more_slots, more_expected = tile_trains(table, keys, t, ints, floats, x, d, lr, first_sample)
        slots += more_slots
        expected += more_expected
        if ints[PER_BATCH] != 0:
            coincidences += cpu_batch.update_rows(shard, chunk, pulses, trains, t, _0, table[t, ROWS], first_sample)
        elif floats[HALF_SELECT] > 0:
            coincidences += update_whole_rows(shard, chunk, trains, t, first_sample)
        else:
            coincidences += update_rows(shard, chunk, trains, t, _0, table[t, ROWS], first_sample)
    flush(shard, chunk)
    return slots, coincidences, expected, True


@borrowing
def update_rows(shard: Any, chunk: Any, trains: Any, t: int, top: int, bottom: int, first_sample: int) -> int:
    """Fire some rows of a tile; returns the coincidences.  Hits may be left in the chunk."""
    samples, raise_only = len(trains.x_count), shard.ints[RAISE_ONLY] != 0
    coincidences = _0
    for i in range(top, bottom):
        for b in range(samples):
            d_word = trains.d_words[i, b]
            slots = d_word & SLOTS
            if slots == 0:
                continue
            count, n = row_hits(trains, b, slots, ~d_word & SIGN, raise_only, chunk.tags, chunk.fill[HITS])
            coincidences += n
            add_group(shard, chunk, count, n != count, t, i, first_sample + b)
    return int(coincidences)


@borrowing
def exact_update(weights: Any, table: Any, x: Any, d: Any, lr: Any) -> bool:
    """``w -= (lr * d) * x`` in sample order; returns whether all inputs were finite."""
    for b in range(len(x)):
        if peak_bits(x[b]) >= INFINITY_BITS or peak_bits(d[b]) >= INFINITY_BITS:
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
