"""The weight update on the CPU, compiled by Numba.

For each tile: pulse trains of all samples first, as words per line and, for the columns, as bit planes (64
columns of one slot in a word).  Then rows outside and samples inside, which keeps a row in cache and changes
nothing, since rows do not interact.  The planes of the slots in which a row fires, or-ed together, give its hits
without a look at the other cells; their noise is made in SIMD blocks and scattered.
"""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.base import (
    AHEAD,
    BATCH_ROUND,
    BEHIND,
    BIT_LENGTH,
    COL0,
    COLS,
    CONSTANTS,
    D_KEY,
    DEVICE_KEY,
    DW_MIN,
    DYNAMIC,
    MANAGEMENT,
    NOISE_KEY,
    OFFSET,
    PER_BATCH,
    RAISE_ONLY,
    ROW0,
    ROWS,
    SPREAD,
    STD,
    X_KEY,
)  # fmt: skip
from rpucluster.kernels.cpu_cells import cell_at
from rpucluster.kernels.cpu_random import bits_float, compiled, fill_normals, listed_normals, lowest_bit, popcount
from rpucluster.kernels.cpu_trains import INFINITY_BITS, SLOTS, gains, make_trains, peak_bits, replay, row_hits

_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_ZERO = np.float32(0)
_U0, _U1 = np.uint64(0), np.uint64(1)
_0 = np.int64(0)  # a literal 0 would be a type of its own, and each such type compiles a function again
_LAST_ROUND = np.int64(BATCH_ROUND)
_CHUNK = 1024  # hits whose noise is made together: enough for SIMD, few enough for the first-level cache


class Shard(NamedTuple):
    """What an update changes and what it needs of each cell and tile."""

    w: Any
    lanes: Any
    floats: Any  # of the packed rule
    table: Any
    keys: Any
    raise_only: bool


class _Trains(NamedTuple):
    """The trains of a batch on one tile, in flat buffers that are long enough for every tile."""

    planes: Any  # uint64 (B, groups of 64 columns, slots)
    x_words: Any  # uint32 (B, cols)
    d_words: Any  # uint32 (B, rows)


class Noise(NamedTuple):
    """Step noise of a device: `UpdateRule`'s numbers as float32."""

    std: Any
    spread: Any  # float32 (32,): std * sqrt(n)
    ahead: Any
    behind: Any


class Hits(NamedTuple):
    """Cells with coincidences, in the order in which they are applied; a group is one tile, row and sample."""

    cells: Any  # uint64: place in the weights
    counts: Any  # uint32, bit 31 set where the weight falls
    groups: Any  # int64 (4, groups + 1): first hit, first block of normals, tile, sample
    blocks: Any  # uint64 (6, blocks): the four counter words and two key words of each block of normals
    z: Any  # float32: the normals


@compiled
def new_hits(room: int) -> Any:
    """An empty list for so many hits."""
    return Hits(
        np.empty(room, np.uint64),
        np.empty(room, np.uint32),
        np.zeros((4, room + 1), np.int64),
        np.zeros((6, room + 8), np.uint64),  # a group of h hits has at most h blocks
        np.zeros(4 * (room + 8), np.float32),
    )


@compiled
def apply_hits(shard: Any, hits: Any, groups: int, blocks: int, noise: Any) -> None:
    """Change the weights of listed hits, in order."""
    w, z, spread = shard.w, hits.z, noise.spread
    if noise.std > _ZERO:
        listed_normals(z, hits.blocks, blocks + 7 & ~7)  # whole SIMD registers
    for g in range(groups):
        first, stop = hits.groups[0, g], hits.groups[0, g + 1]
        shift = 4 * hits.groups[1, g] - first
        t, sample = hits.groups[2, g], hits.groups[3, g]
        offset = shard.table[t, OFFSET]
        key0, key1 = np.uint64(shard.keys[t, DEVICE_KEY, 0]), np.uint64(shard.keys[t, DEVICE_KEY, 1])
        for h in range(first, stop):
            # unsigned: an index that might be negative costs a test for each array
            at, count = hits.cells[np.uint64(h)], hits.counts[np.uint64(h)]
            n = count & SLOTS
            lowers = count > SLOTS
            old, in_tile = w[at], np.int64(at) - offset
            up, down, low, high = cell_at(shard.lanes, at, in_tile, key0, key1, shard.floats)
            # both are made and one is selected: a branch on the sign would be mispredicted half of the time
            step = down if lowers else up
            pulses = np.float32(np.int32(n))
            amount = step * (pulses + spread[n] * z[np.uint64(shift + h)])
            new = old + (-amount if lowers else amount)
            new = min(max(new, low), high)
            whole = pulses * step
            highest = old + whole * (noise.behind if lowers else noise.ahead)
            lowest = old - whole * (noise.ahead if lowers else noise.behind)
            if (n > 1) & ((highest > high) | (lowest < low)):
                new = replay(old, np.int64(n), lowers, step, low, high, noise.std, shard.keys[t], sample, in_tile)
            w[at] = new


@compiled
def _only_raised(hits: Any, start: Any, listed: Any) -> Any:
    """Drop the hits from ``start`` on that lower a weight; returns the new length of the list and its coincidences."""
    kept = start
    total = _0
    for h in range(start, listed):
        if hits.counts[h] <= SLOTS:
            hits.cells[kept], hits.counts[kept] = hits.cells[h], hits.counts[h]
            total += np.int64(hits.counts[h])
            kept += 1
    return kept, total


@compiled
def _list_hits(
    hits: Any, listed: Any, groups: Any, blocks: Any, shard: Any, t: int, trains: Any, first_sample: int, noise: Any
) -> Any:
    """List the hits of a tile, rows outside and samples inside, and apply the list whenever it is full.

    Returns hits, groups and blocks that are listed and not yet applied, and the coincidences of the tile.
    """
    rows, cols = shard.table[t, ROWS], shard.table[t, COLS]
    samples = len(trains.d_words) // rows
    width = len(trains.planes) // samples
    key0, key1 = np.uint64(shard.keys[t, NOISE_KEY, 0]), np.uint64(shard.keys[t, NOISE_KEY, 1])
    coincidences = _0
    for i in range(rows):
        for b in range(samples):
            d_word = trains.d_words[b * rows + i]
            if d_word & SLOTS == 0:
                continue
            start = listed
            listed, n = row_hits(
                trains.planes[b * width : (b + 1) * width],
                trains.x_words[b * cols : (b + 1) * cols],
                d_word,
                shard.table[t, OFFSET] + i * cols,
                hits.cells,
                hits.counts,
                start,
            )
            if shard.raise_only:
                listed, n = _only_raised(hits, start, listed)
            if listed == start:
                continue
            coincidences += n
            sample = first_sample + b
            hits.groups[1, groups], hits.groups[2, groups], hits.groups[3, groups] = blocks, t, sample
            for q in range((listed - start + 3) >> 2):
                block = hits.blocks
                block[0, blocks], block[3, blocks] = np.uint64(q), np.uint64(i)
                block[1, blocks], block[2, blocks] = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
                block[4, blocks], block[5, blocks] = key0, key1
                blocks += 1
            groups += 1
            hits.groups[0, groups] = listed
            if listed >= _CHUNK:
                apply_hits(shard, hits, groups, blocks, noise)
                listed = groups = blocks = _0
    return listed, groups, blocks, coincidences


@compiled
def _update_batch(
    shard: Any, t: int, trains: Any, first_sample: int, noise: Any, hits: Any, counts: Any, cells: Any
) -> int:
    """Apply the trains of a batch to one tile, one draw of noise per cell; returns the coincidences.

    Works on some rows at a time; ``counts`` is int32 (3, cells of those): ups, downs, cells to be replayed;
    ``cells`` is float32 (4, cells of those): up steps, down steps, lower and upper bounds.
    """
    rows, cols = shard.table[t, ROWS], shard.table[t, COLS]
    x_words, d_words, keys = trains.x_words, trains.d_words, shard.keys[t]
    samples = len(d_words) // rows
    width = len(trains.planes) // samples
    together = max(_CHUNK // cols, 1)
    coincidences = 0
    for top in range(0, rows, together):
        bottom = min(top + together, rows)
        found = 0
        for i in range(top, bottom):
            for b in range(samples):
                d_word = d_words[b * rows + i]
                if d_word & SLOTS == 0:
                    continue
                planes = trains.planes[b * width : (b + 1) * width]
                xs = x_words[b * cols : (b + 1) * cols]
                listed, n = row_hits(planes, xs, d_word, (i - top) * cols, hits.cells, hits.counts, _0)
                if shard.raise_only:
                    listed, n = _only_raised(hits, _0, listed)
                found += n
                for h in range(listed):
                    counts[int(hits.counts[h] > SLOTS), hits.cells[h]] += np.int32(hits.counts[h] & SLOTS)
        if found == 0:
            continue
        coincidences += found
        size, in_tile = (bottom - top) * cols, top * cols
        skip = in_tile & 3
        if noise.std > _ZERO:
            blocks = ((skip + size + 3) >> 2) + 7 & ~7
            fill_normals(
                hits.z, in_tile >> 2, blocks, keys[NOISE_KEY, 0], keys[NOISE_KEY, 1], first_sample, _LAST_ROUND
            )
        first = shard.table[t, OFFSET] + in_tile
        key0, key1 = np.uint64(keys[DEVICE_KEY, 0]), np.uint64(keys[DEVICE_KEY, 1])
        for k in range(size):
            cells[0, k], cells[1, k], cells[2, k], cells[3, k] = cell_at(
                shard.lanes, first + k, in_tile + k, key0, key1, shard.floats
            )
        w, ups, downs, crowded = shard.w[first : first + size], counts[0, :size], counts[1, :size], counts[2, :size]
        if _apply_counts(w, cells, ups, downs, crowded, hits.z[skip : skip + size], noise) > 0:
            for c in np.flatnonzero(crowded):
                i, j, here = top + c // cols, c % cols, w[c]
                for b in range(samples):
                    x_word, d_word = x_words[b * cols + j], d_words[b * rows + i]
                    n = np.int64(popcount(np.uint32(d_word & x_word & SLOTS)))
                    lowers = (d_word ^ x_word) <= SLOTS
                    if lowers and shard.raise_only:
                        continue
                    step = cells[1, c] if lowers else cells[0, c]
                    sample = first_sample + b
                    here = replay(here, n, lowers, step, cells[2, c], cells[3, c], noise.std, keys, sample, in_tile + c)
                w[c] = here
        counts[:, :size] = 0
    return coincidences


@compiled
def _apply_counts(w: Any, cells: Any, ups: Any, downs: Any, crowded: Any, z: Any, noise: Any) -> int:
    """Apply the counts of a batch, except to cells that must be replayed: marked, and how many."""
    near = 0
    step_up, step_down, lower, upper = cells[0], cells[1], cells[2], cells[3]
    std, ahead, behind = noise.std, noise.ahead, noise.behind
    for j in range(len(w)):
        up, down = np.float32(ups[j]) * step_up[j], np.float32(downs[j]) * step_down[j]
        old, low, high = w[j], lower[j], upper[j]
        close = (old + (up * ahead + down * behind) > high) | (old - (down * ahead + up * behind) < low)
        close &= ups[j] + downs[j] > 1
        deviation = std * np.float32(np.sqrt(up * step_up[j] + down * step_down[j]))
        new = old + ((up - down) + deviation * z[j])
        new = min(max(new, low), high)
        w[j] = old if close | (ups[j] + downs[j] == 0) else new
        crowded[j] = close
        near += int(close)
    return near


@compiled
def _fire(
    xs: Any,
    ds: Any,
    keys: Any,
    sample: int,
    bits: int,
    gain_x: Any,
    gain_d: Any,
    planes: Any,
    x_words: Any,
    d_words: Any,
    scratch: Any,
) -> float:
    """Trains of one sample on one tile, into its part of the buffers; returns the expected coincidences."""
    count, x_total = make_trains(xs, gain_x, bits, keys[X_KEY, 0], keys[X_KEY, 1], sample, scratch)
    groups = (len(xs) + 63) >> 6
    slots = len(planes) // groups
    for a in range(count):
        j, word = np.int64(scratch[0, a]), scratch[2, a]
        x_words[j] = np.uint32(word)
        rest = word & np.uint64(SLOTS)
        first, column = np.uint64((j >> 6) * slots), _U1 << np.uint64(j & 63)
        while rest != _U0:
            planes[first + lowest_bit(rest)] |= column
            rest &= rest - _U1
    count, d_total = make_trains(ds, gain_d, bits, keys[D_KEY, 0], keys[D_KEY, 1], sample, scratch)
    for a in range(count):
        d_words[np.int64(scratch[0, a])] = np.uint32(scratch[2, a])
    return bits * (np.float64(x_total) * 2.0**-32) * (np.float64(d_total) * 2.0**-32)


@compiled
def pulsed_update(
    weights: Any,
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
    bit_length, per_batch = int(ints[BIT_LENGTH]), ints[PER_BATCH] != 0
    management, dynamic = ints[MANAGEMENT] != 0, ints[DYNAMIC] != 0
    dw_min = floats[DW_MIN]
    samples = len(x)
    for b in range(samples):
        if peak_bits(x[b]) >= INFINITY_BITS or peak_bits(d[b]) >= INFINITY_BITS:
            return 0, 0, 0.0, False
    noise = Noise(floats[STD], floats[SPREAD:CONSTANTS], floats[AHEAD], floats[BEHIND])
    shard = Shard(weights, lanes, floats, table, keys, ints[RAISE_ONLY] != 0)
    most_rows, most_cols = table[:, ROWS].max(), table[:, COLS].max()
    room = _CHUNK + most_cols  # a list ends when it is full, so after at most one more row
    hits = new_hits(room)
    counts = np.zeros((3, room if per_batch else 1), np.int32)
    cells = np.empty((4, room if per_batch else 1), np.float32)
    scratch = np.zeros((3, max(most_rows, most_cols) + 9), np.uint64)
    planes = np.empty(samples * ((most_cols + 63) >> 6) * bit_length, np.uint64)
    x_words, d_words = np.empty(samples * most_cols, np.uint32), np.empty(samples * most_rows, np.uint32)
    slots = coincidences = listed = groups = blocks = _0
    expected = 0.0
    for t in range(len(table)):
        rows, cols, row0, col0 = table[t, ROWS], table[t, COLS], table[t, ROW0], table[t, COL0]
        width = ((cols + 63) >> 6) * bit_length
        trains = _Trains(planes[: samples * width], x_words[: samples * cols], d_words[: samples * rows])
        trains.planes[:] = _U0
        trains.x_words[:] = 0
        trains.d_words[:] = 0
        for b in range(samples):
            xs, ds = x[b, col0 : col0 + cols], d[b, row0 : row0 + rows]
            x_peak, d_peak = bits_float(peak_bits(xs)), bits_float(peak_bits(ds))
            bits, gain_x, gain_d = gains(x_peak, d_peak, lr, dw_min, bit_length, management, dynamic)
            slots += bits
            if gain_x > _ZERO:
                expected += _fire(
                    xs,
                    ds,
                    keys[t],
                    first_sample + b,
                    bits,
                    gain_x,
                    gain_d,
                    trains.planes[b * width : (b + 1) * width],
                    trains.x_words[b * cols : (b + 1) * cols],
                    trains.d_words[b * rows : (b + 1) * rows],
                    scratch,
                )
        if per_batch:
            coincidences += _update_batch(shard, t, trains, first_sample, noise, hits, counts, cells)
        else:
            listed, groups, blocks, n = _list_hits(hits, listed, groups, blocks, shard, t, trains, first_sample, noise)
            coincidences += n
    apply_hits(shard, hits, groups, blocks, noise)
    return slots, coincidences, expected, True


@compiled
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
