"""Hits, cells that have coincidences, from the list to the weight, on the CPU, compiled by Numba.

Hits are listed in a chunk, in *groups*: hits of one row in one sample.  When there are enough, they are worked off in
pieces that stay in the first-level cache: the noise and the wanted changes of a piece in SIMD loops, then the weights,
one hit after the other.

Indices are unsigned where they are computed, since one that might be negative costs a test at every access, and what
runs once per group is compiled into its caller, since passing a dozen arrays costs as much as a short group.
"""

from typing import Any

import numpy as np

from rpucluster.kernels.base import COLS, DEVICE_KEY, NOISE_KEY, OFFSET, REPLAY_KEY
from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_apply import apply_crowded, apply_single
from rpucluster.kernels.cpu_cells import constant_cell, make_lanes
from rpucluster.kernels.cpu_chunk import (
    CHUNK,
    COUNT_OF,
    CROWDED,
    FIRST,
    GROUPS,
    HITS,
    IN_TILE,
    PIECE,
    SAMPLE,
    SHARD,
    TILE,
)
from rpucluster.kernels.cpu_general import fire_listed
from rpucluster.kernels.cpu_random import borrowing, inlined, listed_normals, lowest_bit, normal_pair, philox, types
from rpucluster.kernels.cpu_simd import fill, prefetch
from rpucluster.kernels.cpu_trains import COLUMN, COUNT, COUNT_AT, SIGN
from rpucluster.kernels.update_rule import GENERAL, STD

_32, _MASK = np.uint64(32), np.uint64(0xFFFFFFFF)
_U0, _U1 = np.uint64(0), np.uint64(1)
_ZERO, _ONE = np.float32(0), np.float32(1)
_0 = np.int64(0)


@inlined
def gather(shard: Any, chunk: Any, at: int, count: int, base: Any, in_tile: Any) -> None:
    """Fetch the lanes of hits of a row; ask for their weights."""
    start = np.uint64(at)
    if shard.ints[GENERAL] != 0:
        for k in range(count):
            prefetch(shard.weights, base + np.uint64(chunk.tags[start + np.uint64(k)] & COLUMN))
    elif len(shard.lanes) > 0:
        for k in range(count):
            h = start + np.uint64(k)
            place = base + np.uint64(chunk.tags[h] & COLUMN)
            chunk.lanes[h] = shard.lanes[place]
            prefetch(shard.weights, place)
    else:
        for k in range(count):
            h = start + np.uint64(k)
            chunk.lanes[h] = in_tile + np.int64(chunk.tags[h] & COLUMN)
            prefetch(shard.weights, base + np.uint64(chunk.tags[h] & COLUMN))


@inlined
def list_group(shard: Any, chunk: Any, count: int, crowded: bool, t: int, row: int, sample: int) -> None:
    """Make a group of ``count`` hits of a row, in column order, which the caller has put at the end of the chunk.

    ``crowded`` tells that some have several pulses.
    """
    at, g, in_tile = chunk.fill[HITS], chunk.fill[GROUPS], row * shard.table[t, COLS]
    chunk.groups[g, FIRST], chunk.groups[g, COUNT_OF], chunk.groups[g, IN_TILE] = at, count, in_tile
    chunk.groups[g, TILE], chunk.groups[g, SAMPLE], chunk.groups[g, CROWDED] = t, sample, crowded
    gather(shard, chunk, at, count, np.uint64(shard.table[t, OFFSET] + in_tile), in_tile)
    key = np.uint64(shard.keys[t, NOISE_KEY, 0]) | np.uint64(shard.keys[t, NOISE_KEY, 1]) << _32
    high, first, blocks = np.uint64(row) << _32, np.uint64(at >> 2), count + 3 >> 2
    for q in range(0, blocks, 8):
        here = first + np.uint64(q)
        fill(chunk.blocks, here, np.uint64(q) | high, _U1)
        fill(chunk.samples, here, np.uint64(sample), _U0)
        fill(chunk.keys, here, key, _U0)
    chunk.fill[HITS] = at + 4 * blocks
    chunk.fill[GROUPS] = g + int(count > 0)


@inlined
def add_group(shard: Any, chunk: Any, count: int, crowded: bool, t: int, row: int, sample: int) -> None:
    """As `list_group`; flushes the chunk when it holds a `PIECE`."""
    list_group(shard, chunk, count, crowded, t, row, sample)
    if chunk.fill[HITS] >= PIECE:
        flush(shard, chunk)


@borrowing
def draw_listed(shard: Any, chunk: Any, size: int, groups: int) -> None:
    """Make the lanes of the listed cells, where they are not stored."""
    if len(shard.lanes) > 0:
        return
    g = _0
    while g < groups:  # all groups of a tile in one go, with what lies between them
        t, first = chunk.groups[g, TILE], chunk.groups[g, FIRST]
        while g < groups and chunk.groups[g, TILE] == t:
            g += 1
        key = shard.keys[t, DEVICE_KEY]
        make_lanes(chunk.lanes, first, (chunk.groups[g, FIRST] if g < groups else size) - first, key[0], key[1])


@apart(borrowing, types.void, SHARD, CHUNK)
def flush(shard: Any, chunk: Any) -> None:
    """Apply the hits of a chunk in their order and empty it."""
    size, groups = chunk.fill[HITS], chunk.fill[GROUPS]
    chunk.fill[:] = 0
    if shard.ints[GENERAL] != 0:
        fire_listed(shard, chunk, size, groups)
        return
    draw_listed(shard, chunk, size, groups)
    group = _0
    for start in range(0, size, PIECE):
        stop = min(start + PIECE, size)
        if shard.floats[STD] > _ZERO:
            listed_normals(chunk.floats, chunk.blocks, chunk.samples, chunk.keys, start >> 2, stop - start + 3 >> 2)
        group = _apply(shard, chunk, start, stop, group, groups)


@borrowing
def _apply(shard: Any, chunk: Any, start: int, stop: int, group: Any, groups: int) -> Any:
    """Change the weights by a piece of the hits; returns the group that the next piece starts in."""
    weights, tags, lanes, z, floats = shard.weights, chunk.tags, chunk.lanes, chunk.floats, shard.floats
    while group < groups:
        in_tile, first = chunk.groups[group, IN_TILE], chunk.groups[group, FIRST]
        base = np.uint64(shard.table[chunk.groups[group, TILE], OFFSET] + in_tile)
        end = first + chunk.groups[group, COUNT_OF]
        first = max(first, start)
        if first >= stop:
            break
        last = min(end, stop)
        crowded = chunk.groups[group, CROWDED] != 0
        for k in range(first, last, 16):
            h, at = np.uint64(k), np.uint64(k - start)
            if crowded:
                left = apply_crowded(weights, base, tags, lanes, h, z, at, last - k, floats)
                if left != 0:
                    _replay(shard, chunk, group, k, left)
            else:
                apply_single(weights, base, tags, lanes, h, z, at, last - k, floats)
        if end > stop:
            break
        group += 1
    return group


@borrowing
def _replay(shard: Any, chunk: Any, group: int, first: int, left: Any) -> None:
    """Apply those of the hits from ``first`` on whose bits are set, pulse by pulse."""
    t, in_tile, sample = chunk.groups[group, TILE], chunk.groups[group, IN_TILE], chunk.groups[group, SAMPLE]
    waiting = np.uint64(left)
    while waiting != _U0:
        h = np.uint64(first) + lowest_bit(waiting)
        waiting &= waiting - _U1
        tag = chunk.tags[h]
        n, lowers, cell = np.int64(tag >> COUNT_AT & COUNT), tag >= SIGN, in_tile + np.int64(tag & COLUMN)
        up, down, low, high = cell_of(chunk.lanes[h], shard.floats)
        at = np.uint64(shard.table[t, OFFSET] + cell)
        step, std = down if lowers else up, shard.floats[STD]
        shard.weights[at] = replay(shard.weights[at], n, lowers, step, low, high, std, shard.keys[t], sample, cell)


@inlined
def cell_of(word: Any, floats: Any) -> Any:
    """Steps and bounds from a word of four lanes, the first lowest."""
    return constant_cell(np.int16(word), np.int16(word >> 16), np.int16(word >> 32), np.int16(word >> 48), floats)


@borrowing
def replay(
    w: Any, n: int, lowers: bool, step: Any, low: Any, high: Any, std: Any, keys: Any, sample: int, cell: int
) -> Any:
    """The weight after n pulses one by one, each with its own noise and clipped to the bounds."""
    s0, s1 = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
    k0, k1 = np.uint64(keys[REPLAY_KEY, 0]), np.uint64(keys[REPLAY_KEY, 1])
    z0 = z1 = z2 = z3 = _ZERO
    for pulse in range(n):
        lane = pulse & 3
        if lane == 0 and std > _ZERO:
            block = np.uint64(cell) * np.uint64(8) + np.uint64(pulse >> 2)
            w0, w1, w2, w3 = philox(block, s0, s1, _U0, k0, k1)
            z0, z1 = normal_pair(w0, w1)
            z2, z3 = normal_pair(w2, w3)
        z = z0 if lane == 0 else (z1 if lane == 1 else (z2 if lane == 2 else z3))
        amount = step * (_ONE + std * z)
        w = w - amount if lowers else w + amount
        w = min(max(w, low), high)
    return w
