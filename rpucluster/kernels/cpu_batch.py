"""Updates with one draw of noise per cell and batch on the CPU, compiled by Numba."""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.base import COLS, OFFSET
from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_apply import apply_counts
from rpucluster.kernels.cpu_chunk import CHUNK, COUNT_OF, FIRST, GROUPS, HITS, IN_TILE, PIECE, SHARD, TILE
from rpucluster.kernels.cpu_hits import cell_of, draw_listed, list_group, replay
from rpucluster.kernels.cpu_random import borrowing, compiled, listed_normals, lowest_bit, popcount, types
from rpucluster.kernels.cpu_simd import keep
from rpucluster.kernels.cpu_tile_trains import TRAINS, row_hits
from rpucluster.kernels.cpu_trains import COLUMN, COUNT, COUNT_AT, SIGN, SLOTS
from rpucluster.kernels.update_rule import RAISE_ONLY, STD

_0 = np.int64(0)
_U0, _U1 = np.uint64(0), np.uint64(1)
_ZERO = np.float32(0)
_ALL = np.int64(-1)


class Pulses(NamedTuple):
    """Pulses of cells in a batch: those up in the lower half of an int64, those down in the upper."""

    counts: Any  # int64 (cols + 8,): of each column of a row
    found: Any  # int64: of the hits of a chunk
    columns: Any  # int64 (cols + 8,): the columns that have any
    every: Any  # int64 (cols + 8,): 0, 1, 2, ...
    fired: Any  # int64 (B,): the samples in which the row fires


_I = types.int64
PULSES = types.NamedUniTuple(types.int64[::1], 5, Pulses)
"""Its type, as compiled functions take it."""


@compiled
def new_pulses(most_cols: int, samples: int) -> Any:
    """Room for a row and a chunk."""
    room = most_cols + 8
    return Pulses(
        np.zeros(room, np.int64), np.empty(PIECE + most_cols + 64, np.int64),
        np.empty(room, np.int64), np.arange(room), np.empty(samples, np.int64),
    )  # fmt: skip


@apart(borrowing, _I, SHARD, CHUNK, PULSES, TRAINS, _I, _I, _I, _I)
def update_rows(
    shard: Any, chunk: Any, pulses: Any, trains: Any, t: int, top: int, bottom: int, first_sample: int
) -> int:
    """Fire some rows of a tile; returns the coincidences.  The chunk is empty before and after."""
    cols, samples, tags = shard.table[t, COLS], len(trains.x_count), chunk.tags
    raise_only = shard.ints[RAISE_ONLY] != 0
    coincidences = _0
    for i in range(top, bottom):
        fired = _0
        for b in range(samples):
            if trains.d_words[i, b] & SLOTS != 0:
                pulses.fired[fired] = b
                fired += 1
        count, before, at = _0, coincidences, chunk.fill[HITS]
        for number in range(fired):
            b = pulses.fired[number]
            d_word = trains.d_words[i, b]
            count, total = row_hits(trains, b, d_word & SLOTS, ~d_word & SIGN, raise_only, tags, at)
            coincidences += total
            if fired == 1:
                for k in range(at, at + count):
                    tag = tags[np.uint64(k)]
                    n = np.int64(tag >> COUNT_AT & COUNT)
                    pulses.found[np.uint64(k)] = n << 32 if tag >= SIGN else n
            else:
                for k in range(at, at + count):
                    tag = tags[np.uint64(k)]
                    n = np.int64(tag >> COUNT_AT & COUNT)
                    pulses.counts[np.uint64(tag & COLUMN)] += n << 32 if tag >= SIGN else n
        if fired > 1 and coincidences > before:
            count = _take(pulses, cols, tags, at)
        if count > 0:
            list_group(shard, chunk, count, True, t, i, first_sample)
            if chunk.fill[HITS] >= PIECE:
                _flush(shard, chunk, pulses.found, trains, first_sample)
    _flush(shard, chunk, pulses.found, trains, first_sample)
    return int(coincidences)


@borrowing
def _take(pulses: Any, cols: int, tags: Any, at: int) -> int:
    """Move the pulses of the columns that have any from ``counts`` to ``found`` and ``tags``, from ``at`` on."""
    count, start = _0, np.uint64(at)
    for j in range(0, cols, 8):
        keep(pulses.columns, np.uint64(count), pulses.every, pulses.counts, np.uint64(j), _ALL)
        count += keep(pulses.found, start + np.uint64(count), pulses.counts, pulses.counts, np.uint64(j), _ALL)
    for j in range(cols):
        pulses.counts[j] = 0
    for k in range(count):
        tags[start + np.uint64(k)] = np.uint32(pulses.columns[k])
    return int(count)


@borrowing
def _flush(shard: Any, chunk: Any, found: Any, trains: Any, first_sample: int) -> None:
    """Change the listed cells by all their pulses, with one draw each; near a bound, pulse by pulse."""
    weights, tags, lanes, z, floats = shard.weights, chunk.tags, chunk.lanes, chunk.floats, shard.floats
    size, groups = chunk.fill[HITS], chunk.fill[GROUPS]
    chunk.fill[:] = 0
    draw_listed(shard, chunk, size, groups)
    group = _0
    for start in range(0, size, PIECE):
        stop = min(start + PIECE, size)
        if floats[STD] > _ZERO:
            listed_normals(z, chunk.blocks, chunk.samples, chunk.keys, start >> 2, stop - start + 3 >> 2)
        while group < groups:
            end = chunk.groups[group, FIRST] + chunk.groups[group, COUNT_OF]
            first = max(chunk.groups[group, FIRST], start)
            if first >= stop:
                break
            base = np.uint64(shard.table[chunk.groups[group, TILE], OFFSET] + chunk.groups[group, IN_TILE])
            last = min(end, stop)
            for k in range(first, last, 16):
                h, at = np.uint64(k), np.uint64(k - start)
                left = apply_counts(weights, base, tags, lanes, h, z, at, last - k, floats, found)
                if left != 0:
                    _replay(shard, chunk, trains, group, k, left, first_sample)
            if end > stop:
                break
            group += 1


@borrowing
def _replay(shard: Any, chunk: Any, trains: Any, group: int, first: int, left: Any, first_sample: int) -> None:
    """Apply to those of the cells from ``first`` on whose bits are set the pulses of all samples, one by one."""
    t, in_tile = chunk.groups[group, TILE], chunk.groups[group, IN_TILE]
    row, raise_only, waiting = in_tile // shard.table[t, COLS], shard.ints[RAISE_ONLY] != 0, np.uint64(left)
    while waiting != _U0:
        h = np.uint64(first) + lowest_bit(waiting)
        waiting &= waiting - _U1
        column = np.uint64(chunk.tags[h] & COLUMN)
        up, down, low, high = cell_of(chunk.lanes[h], shard.floats)
        cell = in_tile + np.int64(column)
        at = np.uint64(shard.table[t, OFFSET] + cell)
        new = shard.weights[at]
        for b in range(len(trains.x_count)):
            x_word, d_word = trains.x_all[b, column], trains.d_words[row, b]
            n, lowers = np.int64(popcount(d_word & x_word & SLOTS)), (d_word ^ x_word) <= SLOTS
            if n > 0 and not (lowers and raise_only):
                step, std, sample = down if lowers else up, shard.floats[STD], first_sample + b
                new = replay(new, n, lowers, step, low, high, std, shard.keys[t], sample, cell)
        shard.weights[at] = new
