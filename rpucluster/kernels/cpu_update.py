"""The weight update on the CPU, compiled by Numba.

For each tile: pulse trains of all samples first, as words per line and, for the columns, as bit planes (64
columns of one slot in a word).  Then rows outside and samples inside, which keeps a row in cache and changes
nothing, since rows do not interact.  The planes of the slots in which a row fires, or-ed together, give its hits
without a look at the other cells; their noise is made in SIMD blocks and scattered.
"""

from typing import Any

import numpy as np

from rpucluster.kernels.base import BATCH_ROUND, COL0, COLS, D_KEY, NOISE_KEY, OFFSET, REPLAY_KEY, ROW0, ROWS, X_KEY
from rpucluster.kernels.cpu_random import (
    bits_float,
    compiled,
    fill_normals,
    lowest_bit,
    normal_pair,
    philox,
    popcount,
)
from rpucluster.kernels.cpu_trains import INFINITY_BITS, SLOTS, gains, make_trains, peak_bits, replay, row_hits

_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_ZERO = np.float32(0)
_U0, _U1 = np.uint64(0), np.uint64(1)
_CHUNK = 1024  # hits whose noise is made together: enough for SIMD, few enough for the first-level cache


@compiled
def _apply_hits(
    w: Any, step_up: Any, step_down: Any, lower: Any, upper: Any, cells: Any, counts: Any, z: Any,
    groups: int, group_start: Any, group_block: Any, group_sample: Any,
    spread: Any, std: Any, ahead: Any, behind: Any, k0: Any, k1: Any,
) -> None:
    """Change the weights of listed hits, in order; a group is the hits of one row and sample."""
    for g in range(groups):
        shift = 4 * group_block[g] - group_start[g]
        for h in range(group_start[g], group_start[g + 1]):
            cell = cells[h]
            n = int(counts[h] & SLOTS)
            lowers = counts[h] > SLOTS
            old, low, high = w[cell], lower[cell], upper[cell]
            step = step_down[cell] if lowers else step_up[cell]
            pulses = np.float32(n)
            amount = step * (pulses + spread[n] * z[shift + h])
            new = old - amount if lowers else old + amount
            new = min(max(new, low), high)
            if n > 1:
                whole = pulses * step
                up, down = whole * ahead, whole * behind
                if lowers:
                    up, down = down, up
                if old + up > high or old - down < low:
                    new = replay(old, n, lowers, step, low, high, std, k0, k1, group_sample[g], cell)
            w[cell] = new


@compiled
def _listed_normals(out: Any, index: Any, low: Any, high: Any, row: Any, blocks: int, k0: Any, k1: Any) -> None:
    """As `fill_normals`, each block with its own counter."""
    key0, key1 = np.uint64(k0), np.uint64(k1)
    for i in range(blocks):
        w0, w1, w2, w3 = philox(index[i], low[i], high[i], row[i], key0, key1)
        z0, z1 = normal_pair(w0, w1)
        z2, z3 = normal_pair(w2, w3)
        out[4 * i] = z0
        out[4 * i + 1] = z1
        out[4 * i + 2] = z2
        out[4 * i + 3] = z3


@compiled
def _rows_per_sample(
    w: Any, step_up: Any, step_down: Any, lower: Any, upper: Any, rows: int, cols: int,
    planes: Any, x_words: Any, d_words: Any, keys: Any, first_sample: int,
    spread: Any, std: Any, ahead: Any, behind: Any,
) -> int:
    """Apply the trains of a batch to one tile, sample after sample; returns the coincidences."""
    samples = len(d_words)
    room = _CHUNK + cols
    cells, counts = np.empty(room, np.int64), np.empty(room, np.uint32)
    group_start, group_block = np.zeros(room + 1, np.int64), np.empty(room, np.int64)
    group_sample = np.empty(room, np.int64)
    most = room + 8  # a group of h hits has at most h blocks
    index, low, high = np.zeros(most, np.uint64), np.zeros(most, np.uint64), np.zeros(most, np.uint64)
    row = np.zeros(most, np.uint64)
    z = np.zeros(4 * most, np.float32)
    hits = groups = blocks = coincidences = 0
    k = keys
    for i in range(rows):
        for b in range(samples):
            d_word = d_words[b, i]
            if d_word & SLOTS == 0:
                continue
            start = hits
            hits, n = row_hits(planes[b], x_words[b], d_word, i * cols, cells, counts, start)
            if hits == start:
                continue
            coincidences += n
            sample = first_sample + b
            group_block[groups], group_sample[groups] = blocks, sample
            for q in range((hits - start + 3) >> 2):
                index[blocks], row[blocks] = np.uint64(q), np.uint64(i)
                low[blocks], high[blocks] = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
                blocks += 1
            groups += 1
            group_start[groups] = hits
            if hits >= _CHUNK:
                if std > _ZERO:
                    _listed_normals(z, index, low, high, row, (blocks + 7) & ~7, k[NOISE_KEY, 0], k[NOISE_KEY, 1])
                _apply_hits(
                    w, step_up, step_down, lower, upper, cells, counts, z, groups, group_start, group_block,
                    group_sample, spread, std, ahead, behind, k[REPLAY_KEY, 0], k[REPLAY_KEY, 1],
                )
                hits = groups = blocks = 0
    if hits > 0:
        if std > _ZERO:
            _listed_normals(z, index, low, high, row, (blocks + 7) & ~7, k[NOISE_KEY, 0], k[NOISE_KEY, 1])
        _apply_hits(
            w, step_up, step_down, lower, upper, cells, counts, z, groups, group_start, group_block,
            group_sample, spread, std, ahead, behind, k[REPLAY_KEY, 0], k[REPLAY_KEY, 1],
        )
    return coincidences


@compiled
def _rows_per_batch(
    w: Any, step_up: Any, step_down: Any, lower: Any, upper: Any, rows: int, cols: int,
    planes: Any, x_words: Any, d_words: Any, keys: Any, first_sample: int, std: Any, ahead: Any, behind: Any,
) -> int:
    """Apply the trains of a batch to one tile, one draw of noise per cell; returns the coincidences."""
    samples = len(d_words)
    cells, counts = np.empty(cols, np.int64), np.empty(cols, np.uint32)
    ups, downs = np.zeros(cols, np.int32), np.zeros(cols, np.int32)
    crowded = np.zeros(cols, np.uint8)
    z = np.zeros(cols + 40, np.float32)
    coincidences = 0
    for i in range(rows):
        found = 0
        for b in range(samples):
            d_word = d_words[b, i]
            if d_word & SLOTS == 0:
                continue
            hits, n = row_hits(planes[b], x_words[b], d_word, 0, cells, counts, 0)
            found += n
            for h in range(hits):
                j, n_hit = cells[h], np.int32(counts[h] & SLOTS)
                if counts[h] > SLOTS:
                    downs[j] += n_hit
                else:
                    ups[j] += n_hit
        if found == 0:
            continue
        coincidences += found
        start = i * cols
        skip = start & 3
        if std > _ZERO:
            blocks = ((skip + cols + 3) >> 2) + 7 & ~7
            fill_normals(
                z, start >> 2, blocks, keys[NOISE_KEY, 0], keys[NOISE_KEY, 1], first_sample, BATCH_ROUND
            )
        near = _batch_row(
            w[start : start + cols], step_up[start : start + cols], step_down[start : start + cols],
            lower[start : start + cols], upper[start : start + cols], ups, downs, crowded, z[skip : skip + cols],
            std, ahead, behind,
        )
        if near > 0:
            for j in range(cols):
                cell = start + j
                if crowded[j]:
                    for b in range(samples):
                        n = int(popcount(np.uint32(d_words[b, i] & x_words[b, j] & SLOTS)))
                        lowers = (d_words[b, i] ^ x_words[b, j]) <= SLOTS
                        w[cell] = replay(
                            w[cell], n, lowers, step_down[cell] if lowers else step_up[cell], lower[cell], upper[cell],
                            std, keys[REPLAY_KEY, 0], keys[REPLAY_KEY, 1], first_sample + b, cell,
                        )
        ups[:] = 0
        downs[:] = 0
    return coincidences


@compiled
def _batch_row(
    w: Any, step_up: Any, step_down: Any, lower: Any, upper: Any, ups: Any, downs: Any, crowded: Any, z: Any,
    std: Any, ahead: Any, behind: Any,
) -> int:
    """Apply the counts of a batch to one row, except to cells that must be replayed: marked, and how many."""
    near = 0
    for j in range(len(w)):
        up, down = np.float32(ups[j]) * step_up[j], np.float32(downs[j]) * step_down[j]
        old, low, high = w[j], lower[j], upper[j]
        near_bound = (old + (up * ahead + down * behind) > high) | (old - (down * ahead + up * behind) < low)
        near_bound &= ups[j] + downs[j] > 1
        noise = std * np.float32(np.sqrt(up * step_up[j] + down * step_down[j]))
        new = old + ((up - down) + noise * z[j])
        new = min(max(new, low), high)
        w[j] = old if near_bound | (ups[j] + downs[j] == 0) else new
        crowded[j] = near_bound
        near += int(near_bound)
    return near


@compiled
def pulsed_update(
    weights: Any, step_up: Any, step_down: Any, lower: Any, upper: Any, table: Any, keys: Any, x: Any, d: Any,
    lr: Any, first_sample: int, bit_length: int, per_batch: bool, management: bool, dynamic: bool,
    dw_min: Any, std: Any, ahead: Any, behind: Any,
) -> Any:
    """Update all tiles; returns slots, coincidences, expected coincidences and whether all inputs were finite."""
    samples = len(x)
    slots = coincidences = 0
    expected = 0.0
    spread = np.empty(32, np.float32)
    for n in range(32):
        spread[n] = std * np.float32(np.sqrt(np.float32(n)))
    for t in range(len(table)):
        for b in range(samples):
            xs = x[b, table[t, COL0] : table[t, COL0] + table[t, COLS]]
            ds = d[b, table[t, ROW0] : table[t, ROW0] + table[t, ROWS]]
            if peak_bits(xs) >= INFINITY_BITS or peak_bits(ds) >= INFINITY_BITS:
                return 0, 0, 0.0, False
    for t in range(len(table)):
        rows, cols, start = table[t, ROWS], table[t, COLS], table[t, OFFSET]
        stop = start + rows * cols
        longest = max(rows, cols)
        lines, limits = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint64)
        words = np.empty(longest + 1, np.uint64)
        planes = np.zeros((samples, (cols + 63) // 64, bit_length), np.uint64)
        x_words = np.zeros((samples, cols), np.uint32)
        d_words = np.zeros((samples, rows), np.uint32)
        for b in range(samples):
            xs = x[b, table[t, COL0] : table[t, COL0] + cols]
            ds = d[b, table[t, ROW0] : table[t, ROW0] + rows]
            x_peak, d_peak = bits_float(peak_bits(xs)), bits_float(peak_bits(ds))
            bits, gain_x, gain_d = gains(x_peak, d_peak, lr, dw_min, bit_length, management, dynamic)
            slots += bits
            if gain_x == _ZERO:
                continue
            sample = first_sample + b
            count, x_total = make_trains(
                xs, gain_x, bits, keys[t, X_KEY, 0], keys[t, X_KEY, 1], sample, lines, limits, words
            )
            for a in range(count):
                j = np.int64(lines[a])
                x_words[b, j] = np.uint32(words[a])
                rest = words[a] & np.uint64(SLOTS)
                while rest != _U0:
                    planes[b, j >> 6, lowest_bit(rest)] |= _U1 << np.uint64(j & 63)
                    rest &= rest - _U1
            count, d_total = make_trains(
                ds, gain_d, bits, keys[t, D_KEY, 0], keys[t, D_KEY, 1], sample, lines, limits, words
            )
            for a in range(count):
                d_words[b, np.int64(lines[a])] = np.uint32(words[a])
            expected += bits * (np.float64(x_total) * 2.0**-32) * (np.float64(d_total) * 2.0**-32)
        cells = (weights[start:stop], step_up[start:stop], step_down[start:stop], lower[start:stop], upper[start:stop])
        if per_batch:
            coincidences += _rows_per_batch(
                cells[0], cells[1], cells[2], cells[3], cells[4], rows, cols, planes, x_words, d_words, keys[t],
                first_sample, std, ahead, behind,
            )
        else:
            coincidences += _rows_per_sample(
                cells[0], cells[1], cells[2], cells[3], cells[4], rows, cols, planes, x_words, d_words, keys[t],
                first_sample, spread, std, ahead, behind,
            )
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
