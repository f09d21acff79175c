"""Updates with one draw of noise per cell and batch on the CPU, compiled by Numba."""

from typing import Any

import numpy as np

from rpucluster.kernels.base import AHEAD, BEHIND, COLS, DEVICE_KEY, NOISE_KEY, OFFSET, RAISE_ONLY, STD
from rpucluster.kernels.cpu_hits import AMOUNT, CAPACITY, HIGH, LOW, OTHER, STEP, Z, cell_of, gather, make_lanes
from rpucluster.kernels.cpu_random import compiled, fill_normals, popcount
from rpucluster.kernels.cpu_trains import COLUMN, COUNT, COUNT_AT, SIGN, SLOTS, replay, row_hits, train_of

_0 = np.int64(0)
_ZERO = np.float32(0)
_NONE = np.uint32(0)


@compiled
def update_rows(shard: Any, chunk: Any, trains: Any, t: int, top: int, bottom: int, first_sample: int) -> int:
    """Fire some rows of a tile; returns the coincidences."""
    cols, samples = shard.table[t, COLS], len(trains.x_count)
    raise_only = shard.ints[RAISE_ONLY] != 0
    found = np.empty(cols + 1, np.uint32)  # 1 more: a compaction writes before it knows
    pulses = np.empty(cols + 1, np.int64)
    counts = np.zeros(cols, np.int64)  # pulses up in the lower half, down in the upper
    coincidences = _0
    for i in range(top, bottom):
        before = coincidences
        for b in range(samples):
            d_word = trains.d_words[i, b]
            if d_word & SLOTS == 0:
                continue
            falls = ~d_word & SIGN
            count, n = row_hits(trains, b, d_word & SLOTS, falls, raise_only, found)
            coincidences += n
            for k in range(count):
                n = np.int64(found[k] >> COUNT_AT & COUNT)
                counts[np.uint64(found[k] & COLUMN)] += n << 32 if (found[k] ^ falls) >= SIGN else n
        if coincidences > before:
            count = _0
            for j in range(cols):
                found[count] = np.uint32(j)
                pulses[count] = counts[j]
                count += np.int64(counts[j] != 0)
                counts[j] = 0
            _apply(shard, chunk, trains, found, pulses, count, t, i, first_sample)
    return int(coincidences)


@compiled
def _apply(
    shard: Any, chunk: Any, trains: Any, hits: Any, pulses: Any, count: int, t: int, row: int, first_sample: int
) -> None:
    """Change the cells of a row by all their pulses, with one draw; near a bound, pulse by pulse."""
    keys, f, floats, weights = shard.keys[t], chunk.floats, shard.floats, shard.weights
    in_tile = row * shard.table[t, COLS]
    base = np.uint64(shard.table[t, OFFSET] + in_tile)
    std, ahead, behind = floats[STD], floats[AHEAD], floats[BEHIND]
    for done in range(0, count, CAPACITY):
        n = min(count - done, CAPACITY)
        gather(shard, chunk, hits, done, _0, n, _NONE, base, in_tile)
        if len(shard.lanes) == 0:
            make_lanes(chunk.lanes, _0, n, keys[DEVICE_KEY, 0], keys[DEVICE_KEY, 1])
        if std > _ZERO:
            blocks = (n + 3 >> 2) + 7 & ~7  # whole SIMD registers
            fill_normals(f, done >> 2, blocks, keys[NOISE_KEY, 0], keys[NOISE_KEY, 1], first_sample, row)
        _wanted(chunk, pulses[done : done + n], floats)
        for k in range(n):
            h = np.uint64(k)
            at, both = base + np.uint64(chunk.tags[h] & COLUMN), pulses[np.uint64(done) + h]
            old, low, high, up, down = weights[at], f[LOW + h], f[HIGH + h], f[STEP + h], f[OTHER + h]
            new = min(max(old + f[AMOUNT + h], low), high)
            highest, lowest = old + (up * ahead + down * behind), old - (down * ahead + up * behind)
            if (both != 1) & (both != 1 << 32) & ((highest > high) | (lowest < low)):
                column, word = chunk.tags[h], chunk.lanes[h]
                new = _replay_batch(old, trains, row, column, word, shard, t, in_tile + np.int64(column), first_sample)
            weights[at] = new


@compiled
def _wanted(chunk: Any, pulses: Any, floats: Any) -> None:
    """Changes and bounds of cells, and what up and down pulses want apart."""
    lanes, f, std = chunk.lanes, chunk.floats, floats[STD]
    for k in range(len(pulses)):
        h = np.uint64(k)
        step_up, step_down, low, high = cell_of(lanes[h], floats)
        up = np.float32(np.int32(pulses[h])) * step_up
        down = np.float32(np.int32(pulses[h] >> 32)) * step_down
        noise = std * np.sqrt(up * step_up + down * step_down)
        f[AMOUNT + h] = (up - down) + noise * f[Z + h]
        f[LOW + h] = low
        f[HIGH + h] = high
        f[STEP + h] = up
        f[OTHER + h] = down


@compiled
def _replay_batch(
    w: Any, trains: Any, row: int, column: Any, word: Any, shard: Any, t: int, cell: int, first_sample: int
) -> Any:
    """The weight of a cell after the pulses of all samples, one by one."""
    step_up, step_down, low, high = cell_of(word, shard.floats)
    for b in range(len(trains.x_count)):
        x_word, d_word = train_of(trains, b, column), trains.d_words[row, b]
        n = np.int64(popcount(d_word & x_word & SLOTS))
        lowers = (d_word ^ x_word) <= SLOTS
        if n > 0 and not (lowers and shard.ints[RAISE_ONLY] != 0):
            step = step_down if lowers else step_up
            w = replay(w, n, lowers, step, low, high, shard.floats[STD], shard.keys[t], first_sample + b, cell)
    return w
