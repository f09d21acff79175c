"""Hits, cells that have coincidences, from the list to the weight, on the CPU, compiled by Numba.

Hits are listed in a chunk, in *groups*: hits of one row in one sample.  When there are enough, they are worked off in
pieces that stay in the first-level cache: the noise and the wanted changes of a piece in SIMD loops, then the weights,
one hit after the other.

Indices are unsigned where they are computed, since one that might be negative costs a test at every access, and what
runs once per group is compiled into its caller, since passing a dozen arrays costs as much as a short group.
"""

from typing import Any

import numpy as np

from rpucluster.kernels.base import AHEAD, BEHIND, COLS, DEVICE_KEY, GENERAL, NOISE_KEY, OFFSET, STD
from rpucluster.kernels.cpu_cells import constant_cell, lane_word
from rpucluster.kernels.cpu_chunk import (
    COUNT_OF,
    CROWDED,
    FIRST,
    GROUPS,
    HITS,
    IN_TILE,
    PIECE,
    SAMPLE,
    TILE,
)
from rpucluster.kernels.cpu_general import fire_listed
from rpucluster.kernels.cpu_random import borrowing, inlined, listed_normals
from rpucluster.kernels.cpu_simd import fill, prefetch
from rpucluster.kernels.cpu_trains import COLUMN, COUNT, COUNT_AT, SIGN, replay

_32 = np.uint64(32)
_U0, _U1 = np.uint64(0), np.uint64(1)
_ZERO = np.float32(0)
_0 = np.int64(0)
Z, AMOUNT, LOW, HIGH, STEP, OTHER = (np.uint64(part * (PIECE + 16)) for part in range(6))
"""Parts of a chunk's floats: normals, changes, bounds, step sizes; not at equal places of a page, as caches like."""


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
def add_group(shard: Any, chunk: Any, count: int, crowded: bool, t: int, row: int, sample: int) -> None:
    """Make a group of ``count`` hits of a row, in column order, which the caller has put at the end of the chunk.

    ``crowded`` tells that some have several pulses.  The chunk is flushed when it holds a `PIECE`.
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
    if at + 4 * blocks >= PIECE:
        flush(shard, chunk)


@borrowing
def flush(shard: Any, chunk: Any) -> None:
    """Apply the hits of a chunk in their order and empty it."""
    size, groups = chunk.fill[HITS], chunk.fill[GROUPS]
    chunk.fill[:] = 0
    if shard.ints[GENERAL] != 0:
        fire_listed(shard, chunk, size, groups)
        return
    if len(shard.lanes) == 0:
        for g in range(groups):
            key = shard.keys[chunk.groups[g, TILE], DEVICE_KEY]
            make_lanes(chunk.lanes, chunk.groups[g, FIRST], chunk.groups[g, COUNT_OF], key[0], key[1])
    group = _0
    for start in range(0, size, PIECE):
        stop = min(start + PIECE, size)
        if shard.floats[STD] > _ZERO:
            blocks = (stop - start >> 2) + 7 & ~7  # whole SIMD registers
            listed_normals(chunk.floats, chunk.blocks, chunk.samples, chunk.keys, start >> 2, blocks)
        _wanted(chunk, start, stop - start + 15 & ~15, shard.floats)
        group = _apply(shard, chunk, start, stop, group, groups)


@borrowing
def _apply(shard: Any, chunk: Any, start: int, stop: int, group: Any, groups: int) -> Any:
    """Change the weights by a piece of the hits; returns the group that the next piece starts in."""
    weights, tags, f, floats = shard.weights, chunk.tags, chunk.floats, shard.floats
    ahead, behind = floats[AHEAD], floats[BEHIND]
    while group < groups:
        t, in_tile, first = chunk.groups[group, TILE], chunk.groups[group, IN_TILE], chunk.groups[group, FIRST]
        base, end = np.uint64(shard.table[t, OFFSET] + in_tile), first + chunk.groups[group, COUNT_OF]
        first = max(first, start)
        if first >= stop:
            break
        from_tag, from_float, count = np.uint64(first), np.uint64(first - start), min(end, stop) - first
        if chunk.groups[group, CROWDED] == 0:
            for k in range(count):
                h = from_float + np.uint64(k)
                at = base + np.uint64(tags[from_tag + np.uint64(k)] & COLUMN)
                weights[at] = min(max(weights[at] + f[AMOUNT + h], f[LOW + h]), f[HIGH + h])
        else:
            for k in range(count):
                h = from_float + np.uint64(k)
                tag = tags[from_tag + np.uint64(k)]
                at, n, lowers = base + np.uint64(tag & COLUMN), tag >> COUNT_AT & COUNT, tag >= SIGN
                old, low, high, step = weights[at], f[LOW + h], f[HIGH + h], f[STEP + h]
                new = min(max(old + f[AMOUNT + h], low), high)
                whole = np.float32(np.int32(n)) * step
                highest = old + whole * (behind if lowers else ahead)
                lowest = old - whole * (ahead if lowers else behind)
                if (n > 1) & ((highest > high) | (lowest < low)):
                    sample, cell = chunk.groups[group, SAMPLE], in_tile + np.int64(tag & COLUMN)
                    new = replay(old, np.int64(n), lowers, step, low, high, floats[STD], shard.keys[t], sample, cell)
                weights[at] = new
        if end > stop:
            break
        group += 1
    return group


@borrowing
def make_lanes(lanes: Any, first: int, count: int, k0: Any, k1: Any) -> None:
    """Turn places in a tile into the lanes of the cells there."""
    key0, key1, start = np.uint64(k0), np.uint64(k1), np.uint64(first)
    for k in range(count):
        lanes[start + np.uint64(k)] = lane_word(lanes[start + np.uint64(k)], key0, key1)


@inlined
def cell_of(word: Any, floats: Any) -> Any:
    """Steps and bounds from a word of four lanes, the first lowest."""
    return constant_cell(np.int16(word), np.int16(word >> 16), np.int16(word >> 32), np.int16(word >> 48), floats)


@borrowing
def _wanted(chunk: Any, start: int, size: int, floats: Any) -> None:
    """Changes and bounds of hits, n pulses being one draw: step (n + std sqrt(n) z)."""
    tags, lanes, f, std, first = chunk.tags, chunk.lanes, chunk.floats, floats[STD], np.uint64(start)
    for k in range(size):
        h = np.uint64(k)
        up, down, low, high = cell_of(lanes[first + h], floats)
        tag = tags[first + h]
        lowers = tag >= SIGN
        pulses = np.float32(np.int32(tag >> COUNT_AT & COUNT))
        step = down if lowers else up
        amount = step * (pulses + (std * np.sqrt(pulses)) * f[Z + h])
        f[AMOUNT + h] = -amount if lowers else amount
        f[LOW + h] = low
        f[HIGH + h] = high
        f[STEP + h] = step
