"""Updates of devices that are not plain on the CPU, compiled by Numba: the operations of `reference_law`.

Hits are listed as those of plain devices are.  Of a piece of them, lanes, tolerances and normals are made in SIMD
loops; then pulses are fired one after the other.  Where pulses on one line alone matter, all cells of a row are hits,
and their tolerances are made once for all samples.
"""

from typing import Any

import numpy as np

from rpucluster.devices import Law
from rpucluster.kernels.base import COLS, DEVICE_KEY, NOISE_KEY, OFFSET, RELAXATION_KEY, REPLAY_KEY, ROWS
from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_cells import lane_word, upper_lane_word
from rpucluster.kernels.cpu_chunk import (
    CHUNK,
    COUNT_OF,
    CROWDED,
    FIRST,
    IN_TILE,
    PIECE,
    SAMPLE,
    SHARD,
    TILE,
    Shard,
    new_chunk,
)
from rpucluster.kernels.cpu_laws import (
    DOWN,
    HIGH,
    LINEAR,
    LOW,
    SOFT,
    UP,
    amount,
    fired,
    linear,
    make_cells,
    moved,
    normal_lane,
)
from rpucluster.kernels.cpu_random import (
    borrowing,
    compiled,
    fill_normals,
    inlined,
    listed_normals,
    normal_pair,
    philox,
    popcount,
    types,
)
from rpucluster.kernels.cpu_tile_trains import TRAINS, row_hits
from rpucluster.kernels.cpu_trains import COLUMN, COUNT, COUNT_AT, SIGN, SLOTS
from rpucluster.kernels.update_rule import (
    ADDITIVE,
    CONSTANTS,
    DIFFUSION,
    DIFFUSION_DTOD,
    HALF_SELECT,
    LANES,
    LAW,
    LIFETIME,
    LIFETIME_DTOD,
    RAISE_ONLY,
    REST,
    REST_DTOD,
    STD,
    WRITE_NOISE,
)

_0 = np.int64(0)
_I, _I8, _F4 = types.int64, types.int64[::1], types.float32[::1]
_ZERO, _ONE = np.float32(0), np.float32(1)
_U0, _MASK, _32, _8 = np.uint64(0), np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(8)
_ALONE_BLOCK, _WRITE_BLOCK = np.uint64(7), np.uint64(0)
_CONSTANT = int(Law.CONSTANT)


@inlined
def _key(keys: Any, number: int) -> Any:
    return np.uint64(keys[number, 0]) | np.uint64(keys[number, 1]) << _32


@borrowing
def _gather_hits(shard: Any, g: Any, to: int, count: int, t: int, first: int, tags: Any, at: int) -> None:
    """Lanes of the cells of a row that starts at cell ``first`` of a tile, in the columns of tags[at] and on, into the
    words ``to`` and on."""
    words, start, tag = g.words, np.uint64(to), np.uint64(at)
    if len(shard.lanes) == 0:
        for k in range(count):
            h = np.uint64(k)
            g.places[start + h] = np.uint64(first) + np.uint64(tags[tag + h] & COLUMN)
        _make_words(shard, g, to, count, t)
        return
    base, blocks = np.uint64(shard.table[t, OFFSET] + first), np.uint64(shard.ints[LANES] >> 2)
    for k in range(count):
        h = np.uint64(k)
        words[0, start + h] = shard.lanes[(base + np.uint64(tags[tag + h] & COLUMN)) * blocks]
    if blocks > 1:
        for k in range(count):
            h = np.uint64(k)
            words[1, start + h] = shard.lanes[(base + np.uint64(tags[tag + h] & COLUMN)) * blocks + np.uint64(1)]
    if blocks > 2:
        for k in range(count):
            h = np.uint64(k)
            words[2, start + h] = shard.lanes[(base + np.uint64(tags[tag + h] & COLUMN)) * blocks + np.uint64(2)]


@borrowing
def _gather_cells(shard: Any, g: Any, count: int, t: int, first: int) -> None:
    """Lanes of so many cells of a tile from ``first`` on."""
    if len(shard.lanes) == 0:
        for k in range(count):
            h = np.uint64(k)
            g.places[h] = np.uint64(first) + h
        _make_words(shard, g, _0, count, t)
        return
    base, blocks = np.uint64(shard.table[t, OFFSET] + first), np.uint64(shard.ints[LANES] >> 2)
    for block in range(blocks):
        for k in range(count):
            h = np.uint64(k)
            g.words[block, h] = shard.lanes[(base + h) * blocks + block]


@borrowing
def _make_words(shard: Any, g: Any, to: int, count: int, t: int) -> None:
    """Lanes of the cells in g.places[to] and on, anew."""
    key0, key1 = np.uint64(shard.keys[t, DEVICE_KEY, 0]), np.uint64(shard.keys[t, DEVICE_KEY, 1])
    blocks, start = shard.ints[LANES] >> 2, np.uint64(to)
    for k in range(count):
        h = start + np.uint64(k)
        g.words[0, h] = lane_word(g.places[h], key0, key1, _U0)
    if blocks > 1:
        for k in range(count):
            h = start + np.uint64(k)
            g.words[1, h] = upper_lane_word(g.places[h], key0, key1)
    if blocks > 2:
        for k in range(count):
            h = start + np.uint64(k)
            g.words[2, h] = lane_word(g.places[h], key0, key1, np.uint64(2))


@borrowing
def _list_draws(
    g: Any, done: int, count: int, key: Any, sample: int, first: int, tags: Any, at: int, each: bool
) -> Any:
    """List the first block in REPLAY_NOISE of hits with several pulses, or of ``each``; returns how many are listed.

    ``done`` are so far; cells as `_gather_hits` takes them.
    """
    tag, end = np.uint64(at), np.uint64(done)
    for k in range(count):
        hit = tags[tag + np.uint64(k)]
        g.places[end] = (np.uint64(first) + np.uint64(hit & COLUMN)) * _8
        end += np.uint64(each | ((hit >> COUNT_AT & COUNT) > 1))
    for k in range(done, np.int64(end)):
        g.samples[k] = np.uint64(sample)
        g.keys[k] = key
    return np.int64(end)  # as the counts of callers


@borrowing
def _draw_cells(g: Any, count: int, key: Any, sample: int, first: int, block: Any) -> None:
    """Draw a block of the 8 that cells in a row have in REPLAY_NOISE."""
    for k in range(count):
        h = np.uint64(k)
        g.places[h] = (np.uint64(first) + h) * _8 + block
        g.samples[h] = np.uint64(sample)
        g.keys[h] = key
    listed_normals(g.drawn, g.places, g.samples, g.keys, _0, count + 7 & ~7)


@borrowing
def _more_pulses(
    w: Any, n: int, lowers: bool, f: Any, h: Any, law: int, floats: Any, keys: Any, sample: int, cell: int
) -> Any:
    """The weight after the fifth and all further of n pulses."""
    s0, s1 = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
    k0, k1 = np.uint64(keys[REPLAY_KEY, 0]), np.uint64(keys[REPLAY_KEY, 1])
    z0 = z1 = z2 = z3 = _ZERO
    for pulse in range(4, n):
        lane = pulse & 3
        if lane == 0 and floats[STD] > _ZERO:
            w0, w1, w2, w3 = philox(np.uint64(cell) * _8 + np.uint64(pulse >> 2), s0, s1, _U0, k0, k1)
            z0, z1 = normal_pair(w0, w1)
            z2, z3 = normal_pair(w2, w3)
        z = z0 if lane == 0 else (z1 if lane == 1 else (z2 if lane == 2 else z3))
        w = fired(w, lowers, z, f, h, law, floats)
    return w


@borrowing
def _fire(
    shard: Any, store: Any, g: Any, tags: Any, at: int, count: int, t: int, in_tile: int, sample: int, to: int,
    drawn: int, dense: bool, noise: Any,
) -> Any:  # fmt: skip
    """Coincidences of the hits tags[at] and on, of which ``drawn`` draws were used before; returns how many are now.

    Their cells and the normals of their first pulses start at ``to``, or, if ``dense``, cells are those of the row.
    """
    floats, law, f = shard.floats, shard.ints[LAW], g.cells
    std, soft, additive = floats[STD], floats[SOFT] != _ZERO, floats[ADDITIVE] != _ZERO
    noisy, linear_law, write = std > _ZERO, law == LINEAR, noise > _ZERO
    base, from_tag, from_cell = np.uint64(shard.table[t, OFFSET] + in_tile), np.uint64(at), np.uint64(to)
    draw = np.uint64(4 * drawn)
    for k in range(count):
        tag = tags[from_tag + np.uint64(k)]
        column, here = np.uint64(tag & COLUMN), from_cell + np.uint64(k)
        place, lowers, n = base + column, tag >= SIGN, np.int64(tag >> COUNT_AT & COUNT)
        h = column if dense else here
        w, z = store[place], g.z[here] if noisy else _ZERO
        if linear_law:
            step = f[DOWN, h] if lowers else f[UP, h]
            size, spread = linear(w, lowers, step, f, h, soft, additive)
            w = moved(w, lowers, size + spread * (std * z), f[LOW, h], f[HIGH, h])
        else:
            w = fired(w, lowers, z, f, h, law, floats)
        for pulse in range(1, n if n < 4 else 4):
            w = fired(w, lowers, g.drawn[draw + np.uint64(pulse)] if noisy else _ZERO, f, h, law, floats)
        if n > 4:
            w = _more_pulses(w, n, lowers, f, h, law, floats, shard.keys[t], sample, in_tile + np.int64(column))
        store[place] = w
        if write:
            shard.weights[place] = w + noise * g.drawn[draw]
        draw += np.uint64(4) if write | (n > 1) else _U0
    return np.int64(draw >> np.uint64(2))


@apart(borrowing, types.void, SHARD, CHUNK, _I, _I)
def fire_listed(shard: Any, chunk: Any, size: int, groups: int) -> None:
    """Apply the hits of a chunk in their order."""
    g, noise = chunk.general, shard.floats[WRITE_NOISE]
    noisy, write = shard.floats[STD] > _ZERO, noise > _ZERO
    store = shard.hidden if write else shard.weights
    first_group = _0
    for start in range(0, size, PIECE):
        stop, drawn, group = min(start + PIECE, size), _0, first_group
        while group < groups and chunk.groups[group, FIRST] < stop:
            first, count, t, in_tile, sample = _part(chunk.groups, group, start, stop)
            _gather_hits(shard, g, first - start, count, t, in_tile, chunk.tags, first)
            if write or (noisy and chunk.groups[group, CROWDED] != 0):
                key = _key(shard.keys[t], REPLAY_KEY)
                drawn = _list_draws(g, drawn, count, key, sample, in_tile, chunk.tags, first, write)
            group += 1
        make_cells(g, stop - start, shard.ints[LAW], shard.floats)
        if noisy:
            listed_normals(g.z, chunk.blocks, chunk.samples, chunk.keys, start >> 2, (stop - start >> 2) + 7 & ~7)
        if drawn > 0:
            listed_normals(g.drawn, g.places, g.samples, g.keys, _0, drawn + 7 & ~7)
        drawn, group = _0, first_group
        while group < groups and chunk.groups[group, FIRST] < stop:
            first, count, t, in_tile, sample = _part(chunk.groups, group, start, stop)
            drawn = _fire(
                shard, store, g, chunk.tags, first, count, t, in_tile, sample, first - start, drawn, False, noise
            )
            group += 1
        first_group = max(group - 1, first_group)  # its hits may go on in the next piece


@inlined
def _part(groups: Any, group: Any, start: int, stop: int) -> Any:
    """What of a group lies in a piece: first hit, hits, tile, first cell of the row, sample."""
    first = max(groups[group, FIRST], start)
    end = min(groups[group, FIRST] + groups[group, COUNT_OF], stop)
    return first, end - first, groups[group, TILE], groups[group, IN_TILE], groups[group, SAMPLE]


@apart(borrowing, _I, SHARD, CHUNK, TRAINS, _I, _I, _I, _I)
def update_whole_rows(shard: Any, chunk: Any, trains: Any, t: int, top: int, bottom: int, first_sample: int) -> int:
    """Fire some rows of a tile whose pulses on one line alone matter; returns the coincidences."""
    g, tags, floats, law, cols = chunk.general, chunk.tags, shard.floats, shard.ints[LAW], shard.table[t, COLS]
    noise, noisy, raise_only = floats[WRITE_NOISE], floats[STD] > _ZERO, shard.ints[RAISE_ONLY] != 0
    store = shard.hidden if noise > _ZERO else shard.weights
    key = _key(shard.keys[t], REPLAY_KEY)
    alike = law == _CONSTANT and (
        floats[CONSTANTS + 1] + floats[CONSTANTS + 2] + floats[CONSTANTS + 6] + floats[CONSTANTS + 8]
        + floats[CONSTANTS + 9] == _ZERO
    )  # fmt: skip
    coincidences = _0
    for i in range(top, bottom):
        in_tile = i * cols
        base = shard.table[t, OFFSET] + in_tile
        if i == top or not alike:
            _gather_cells(shard, g, cols, t, in_tile)
            make_cells(g, cols, law, floats)
        for b in range(len(trains.x_count)):
            d_word, sample = trains.d_words[i, b], first_sample + b
            if d_word & SLOTS != 0:
                count, n = row_hits(trains, b, d_word & SLOTS, ~d_word & SIGN, raise_only, tags, _0)
                coincidences += n
                if noisy and count > 0:
                    blocks = (count + 3 >> 2) + 7 & ~7
                    fill_normals(g.z, _0, blocks, shard.keys[t, NOISE_KEY, 0], shard.keys[t, NOISE_KEY, 1], sample, i)
                    if n > count:
                        drawn = _list_draws(g, _0, count, key, sample, in_tile, tags, _0, False)
                        listed_normals(g.drawn, g.places, g.samples, g.keys, _0, drawn + 7 & ~7)
                _fire(shard, store, g, tags, _0, count, t, in_tile, sample, _0, _0, True, _ZERO)
            elif trains.x_count[b] == 0:
                continue
            if noisy:
                _draw_cells(g, cols, key, sample, in_tile, _ALONE_BLOCK)
            xs = trains.x_all[b]
            if law == _CONSTANT and not noisy:
                _alone_constant(store, base, g.cells, xs, d_word, cols, floats[HALF_SELECT], raise_only)
            else:
                _alone(store, base, g, xs, d_word, cols, floats, law, noisy, raise_only)
            if noise > _ZERO:
                _draw_cells(g, cols, key, sample, in_tile, _WRITE_BLOCK)
                for j in range(cols):
                    falls = (xs[j] ^ d_word) <= SLOTS
                    if (xs[j] | d_word) & SLOTS != 0 and not (raise_only and falls):
                        shard.weights[base + j] = store[base + j] + noise * g.drawn[4 * j]
    return int(coincidences)


@borrowing
def _alone_constant(
    store: Any, base: int, f: Any, xs: Any, d_word: Any, cols: int, share: Any, raise_only: bool
) -> None:
    """Pulses on one line alone of constant steps without step noise."""
    start = np.uint64(base)
    for column in range(cols):
        j = np.uint64(column)
        both = xs[j] ^ d_word
        n, lowers = popcount(both & SLOTS), both <= SLOTS
        step = f[DOWN, j] if lowers else f[UP, j]
        w = store[start + j]
        new = moved(w, lowers, (step * np.float32(np.int32(n))) * share, f[LOW, j], f[HIGH, j])
        store[start + j] = w if (n == 0) | (lowers & raise_only) else new


@borrowing
def _alone(
    store: Any, base: int, g: Any, xs: Any, d_word: Any, cols: int, floats: Any, law: int, noisy: bool, raise_only: bool
) -> None:
    """Pulses on one line alone, whatever the device."""
    f, std, share, start = g.cells, floats[STD], floats[HALF_SELECT], np.uint64(base)
    for column in range(cols):
        j = np.uint64(column)
        both = xs[j] ^ d_word
        n, lowers = popcount(both & SLOTS), both <= SLOTS
        if (n > 0) & ~(lowers & raise_only):
            many = np.float32(np.int32(n))
            draw = (std * np.sqrt(many)) * (g.drawn[np.uint64(4) * j + np.uint64(3)] if noisy else _ZERO)
            w = store[start + j]
            by = amount(w, lowers, many, draw, f, j, law, floats) * share
            store[start + j] = moved(w, lowers, by, f[LOW, j], f[HIGH, j])


@apart(compiled, types.void, _F4, _F4, types.int16[::1], types.int64[:, ::1], types.uint32[:, :, ::1], _I8, _F4, _I)
def relax(
    weights: Any, hidden: Any, lanes: Any, table: Any, keys: Any, ints: Any, floats: Any, first_sample: int
) -> None:
    """What the time of an update operation does to all cells."""
    shard = Shard(weights, hidden, lanes.view(np.int64), table, keys, ints, floats)
    g, noise = new_chunk(_0, True).general, floats[WRITE_NOISE]
    store = hidden if noise > _ZERO else weights
    for t in range(len(table)):
        k0, k1, cells = keys[t, RELAXATION_KEY, 0], keys[t, RELAXATION_KEY, 1], table[t, ROWS] * table[t, COLS]
        for first in range(0, cells, PIECE):
            count = min(PIECE, cells - first)
            start = table[t, OFFSET] + first
            _gather_cells(shard, g, count, t, first)
            make_cells(g, count, ints[LAW], floats)
            blocks = (count + 3 >> 2) + 7 & ~7
            if floats[DIFFUSION] > _ZERO:
                fill_normals(g.z, first >> 2, blocks, k0, k1, first_sample, _0)
            _relaxed(store[start : start + count], g, floats)
            if noise > _ZERO:
                fill_normals(g.z, first >> 2, blocks, k0, k1, first_sample, 1)
                for k in range(count):
                    weights[start + k] = store[start + k] + noise * g.z[k]


@borrowing
def _relaxed(w: Any, g: Any, floats: Any) -> None:
    """Decay, diffusion and the clip of some cells."""
    lifetime, spread, rest, rest_dtod = floats[LIFETIME], floats[LIFETIME_DTOD], floats[REST], floats[REST_DTOD]
    diffusion, more = floats[DIFFUSION], floats[DIFFUSION_DTOD]
    for number in range(len(w)):
        k = np.uint64(number)
        word, value = g.words[2, k], w[k]
        if lifetime > _ZERO:
            keep = _ONE - _ONE / max(lifetime * (_ONE + spread * normal_lane(word, 0)), _ONE)
            level = rest + rest_dtod * normal_lane(word, 2)
            value = (value - level) * keep + level
        if diffusion > _ZERO:
            value = value + abs(diffusion * (_ONE + more * normal_lane(word, 1))) * g.z[k]
        value = g.cells[LOW, k] if value < g.cells[LOW, k] else value
        w[k] = g.cells[HIGH, k] if value > g.cells[HIGH, k] else value
