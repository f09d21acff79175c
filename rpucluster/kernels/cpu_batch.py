"""Updates with one draw of noise per cell and batch on the CPU, compiled by Numba."""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.base import AHEAD, BEHIND, COLS, DEVICE_KEY, NOISE_KEY, OFFSET, RAISE_ONLY, STD
from rpucluster.kernels.cpu_chunk import PIECE
from rpucluster.kernels.cpu_hits import AMOUNT, HIGH, LOW, OTHER, STEP, Z, cell_of, gather, make_lanes
from rpucluster.kernels.cpu_random import borrowing, compiled, fill_normals, popcount
from rpucluster.kernels.cpu_simd import keep
from rpucluster.kernels.cpu_trains import COLUMN, COUNT, COUNT_AT, SIGN, SLOTS, replay, row_hits

_0 = np.int64(0)
_ZERO = np.float32(0)
_ALL = np.int64(-1)


class Pulses(NamedTuple):
    """Pulses of the cells of a row in a batch: those up in the lower half of an int64, those down in the upper."""

    counts: Any  # int64 (cols + 8,): of each column
    found: Any  # int64 (cols + 8,): of the columns that have any
    columns: Any  # int64 (cols + 8,): these columns
    every: Any  # int64 (cols + 8,): 0, 1, 2, ...
    fired: Any  # int64 (B,): the samples in which the row fires


@compiled
def new_pulses(most_cols: int, samples: int) -> Any:
    """Room for a row."""
    room = most_cols + 8
    return Pulses(
        np.zeros(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64), np.arange(room),
        np.empty(samples, np.int64),
    )  # fmt: skip


@borrowing
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
        count, before = _0, coincidences
        for number in range(fired):
            b = pulses.fired[number]
            d_word = trains.d_words[i, b]
            count, total = row_hits(trains, b, d_word & SLOTS, ~d_word & SIGN, raise_only, tags, _0)
            coincidences += total
            if fired == 1:
                for k in range(count):
                    n = np.int64(tags[k] >> COUNT_AT & COUNT)
                    pulses.found[k] = n << 32 if tags[k] >= SIGN else n
                    tags[k] &= COLUMN
            else:
                for k in range(count):
                    tag = tags[np.uint64(k)]
                    n = np.int64(tag >> COUNT_AT & COUNT)
                    pulses.counts[np.uint64(tag & COLUMN)] += n << 32 if tag >= SIGN else n
        if fired > 1 and coincidences > before:
            count = _take(pulses, cols, tags)
        if count > 0:
            _apply(shard, chunk, pulses, trains, count, fired, t, i, first_sample)
    return int(coincidences)


@borrowing
def _take(pulses: Any, cols: int, tags: Any) -> int:
    """Move the pulses of the columns that have any from ``counts`` to ``found`` and ``tags``; returns how many."""
    count = _0
    for j in range(0, cols, 8):
        keep(pulses.columns, np.uint64(count), pulses.every, pulses.counts, np.uint64(j), _ALL)
        count += keep(pulses.found, np.uint64(count), pulses.counts, pulses.counts, np.uint64(j), _ALL)
    for j in range(cols):
        pulses.counts[j] = 0
    for k in range(count):
        tags[k] = np.uint32(pulses.columns[k])
    return int(count)


@borrowing
def _apply(
    shard: Any, chunk: Any, pulses: Any, trains: Any, count: int, fired: int, t: int, row: int, first_sample: int
) -> None:
    """Change the cells of a row by all their pulses, with one draw; near a bound, pulse by pulse."""
    keys, f, floats, weights = shard.keys[t], chunk.floats, shard.floats, shard.weights
    in_tile, raise_only = row * shard.table[t, COLS], shard.ints[RAISE_ONLY] != 0
    base = np.uint64(shard.table[t, OFFSET] + in_tile)
    std, ahead, behind = floats[STD], floats[AHEAD], floats[BEHIND]
    gather(shard, chunk, _0, count, base, in_tile)
    if len(shard.lanes) == 0:
        make_lanes(chunk.lanes, _0, count, keys[DEVICE_KEY, 0], keys[DEVICE_KEY, 1])
    for start in range(0, count, PIECE):
        size = min(count - start, PIECE)
        if std > _ZERO:
            blocks = (size + 3 >> 2) + 7 & ~7  # whole SIMD registers
            fill_normals(f, start >> 2, blocks, keys[NOISE_KEY, 0], keys[NOISE_KEY, 1], first_sample, row)
        _wanted(chunk, pulses.found, start, size, floats)
        for k in range(size):
            h, hit = np.uint64(k), np.uint64(start + k)
            at, both = base + np.uint64(chunk.tags[hit]), pulses.found[hit]
            old, low, high, up, down = weights[at], f[LOW + h], f[HIGH + h], f[STEP + h], f[OTHER + h]
            new = min(max(old + f[AMOUNT + h], low), high)
            highest, lowest = old + (up * ahead + down * behind), old - (down * ahead + up * behind)
            if (both != 1) & (both != 1 << 32) & ((highest > high) | (lowest < low)):
                step_up, step_down, low, high = cell_of(chunk.lanes[hit], floats)
                new, column = old, np.uint64(chunk.tags[hit])
                for number in range(fired):
                    b = pulses.fired[number]
                    x_word, d_word = trains.x_all[b, column], trains.d_words[row, b]
                    n, lowers = np.int64(popcount(d_word & x_word & SLOTS)), (d_word ^ x_word) <= SLOTS
                    if n > 0 and not (lowers and raise_only):
                        step, sample = step_down if lowers else step_up, first_sample + b
                        new = replay(new, n, lowers, step, low, high, std, keys, sample, in_tile + np.int64(column))
            weights[at] = new


@borrowing
def _wanted(chunk: Any, found: Any, start: int, size: int, floats: Any) -> None:
    """Changes and bounds of cells, and what up and down pulses want apart."""
    lanes, f, std, first = chunk.lanes, chunk.floats, floats[STD], np.uint64(start)
    for k in range(size):
        h = np.uint64(k)
        step_up, step_down, low, high = cell_of(lanes[first + h], floats)
        up = np.float32(np.int32(found[first + h])) * step_up
        down = np.float32(np.int32(found[first + h] >> 32)) * step_down
        noise = std * np.sqrt(up * step_up + down * step_down)
        f[AMOUNT + h] = (up - down) + noise * f[Z + h]
        f[LOW + h] = low
        f[HIGH + h] = high
        f[STEP + h] = up
        f[OTHER + h] = down
