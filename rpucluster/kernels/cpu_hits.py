"""Hits, cells that have coincidences, from the list to the weight, on the CPU, compiled by Numba.

Hits are collected in a chunk, small enough for the first-level cache, in *groups*: hits of one row in one sample.
When the chunk is full, the noise and the wanted changes of all of them are made in SIMD loops, and then one loop
changes the weights, one hit after the other.

Indices are unsigned where they are computed, since one that might be negative costs a test at every access, and what
runs once per group is compiled into its caller, since passing a dozen arrays costs as much as a short group.
"""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.base import AHEAD, BEHIND, COLS, DEVICE_KEY, NOISE_KEY, OFFSET, STD
from rpucluster.kernels.cpu_cells import constant_cell, lane_word
from rpucluster.kernels.cpu_random import compiled, inlined, listed_normals, prefetch
from rpucluster.kernels.cpu_trains import COLUMN, COUNT, COUNT_AT, SIGN, replay

CAPACITY = 1024
"""Hits of a chunk; a group starts at a multiple of four, as each block of noise gives four normals."""
_32 = np.uint64(32)
_ZERO = np.float32(0)
Z, AMOUNT, LOW, HIGH, STEP, OTHER = (np.uint64(part * CAPACITY) for part in range(6))
"""Parts of a chunk's floats: normals, changes, bounds, step sizes."""
_FIRST, _COUNT, _IN_TILE, _TILE, _SAMPLE, _CROWDED = range(6)
_HITS, _GROUPS = range(2)


class Shard(NamedTuple):
    """What an update changes and what it needs of each cell and tile."""

    weights: Any
    lanes: Any  # int64: four lanes in a word; empty where lanes are made anew
    table: Any
    keys: Any
    ints: Any  # of the packed rule
    floats: Any


class Chunk(NamedTuple):
    """Hits that are collected and not yet applied."""

    tags: Any  # uint32 (CAPACITY,): column, number and in bit 31 whether the weight falls
    lanes: Any  # int64 (CAPACITY,): four lanes of each; before they are made, the cell's place in its tile
    floats: Any  # float32 (6 * CAPACITY,)
    groups: Any  # int64 (CAPACITY / 4, 6)
    blocks: Any  # uint64 (3, CAPACITY / 4): of noise, as `listed_normals` takes them
    fill: Any  # int64 (2,): hits and groups


@compiled
def new_chunk() -> Any:
    """An empty chunk."""
    return Chunk(
        np.zeros(CAPACITY, np.uint32),
        np.zeros(CAPACITY, np.int64),
        np.zeros(6 * CAPACITY, np.float32),
        np.zeros((CAPACITY // 4, 6), np.int64),
        np.zeros((3, CAPACITY // 4), np.uint64),
        np.zeros(2, np.int64),
    )


@inlined
def gather(shard: Any, chunk: Any, hits: Any, done: int, at: int, n: int, falls: Any, base: Any, in_tile: Any) -> None:
    """Copy n hits of a row, from number ``done`` on, into a chunk, with their lanes; ask for their weights."""
    source, target = np.uint64(done), np.uint64(at)
    if len(shard.lanes) > 0:
        for k in range(n):
            hit = hits[source + np.uint64(k)]
            place = base + np.uint64(hit & COLUMN)
            chunk.tags[target + np.uint64(k)] = hit ^ falls
            chunk.lanes[target + np.uint64(k)] = shard.lanes[place]
            prefetch(shard.weights, place)
    else:
        for k in range(n):
            hit = hits[source + np.uint64(k)]
            chunk.tags[target + np.uint64(k)] = hit ^ falls
            chunk.lanes[target + np.uint64(k)] = in_tile + np.int64(hit & COLUMN)
            prefetch(shard.weights, base + np.uint64(hit & COLUMN))


@inlined
def add_group(
    shard: Any, chunk: Any, hits: Any, count: int, falls: Any, crowded: bool, t: int, row: int, sample: int
) -> None:
    """Add the first ``count`` of ``hits``, of one row, in column order, and flush the chunk whenever it is full.

    Bit 31 of ``falls`` turns that of the hits into whether the weight falls; ``crowded`` tells that some have several
    pulses.
    """
    in_tile = row * shard.table[t, COLS]
    base = np.uint64(shard.table[t, OFFSET] + in_tile)
    key = np.uint64(shard.keys[t, NOISE_KEY, 0]) | np.uint64(shard.keys[t, NOISE_KEY, 1]) << _32
    high = np.uint64(row) << _32
    done = 0
    while done < count:
        at, g = chunk.fill[_HITS], chunk.fill[_GROUPS]
        n = min(count - done, CAPACITY - at)
        chunk.groups[g, _FIRST], chunk.groups[g, _COUNT], chunk.groups[g, _IN_TILE] = at, n, in_tile
        chunk.groups[g, _TILE], chunk.groups[g, _SAMPLE], chunk.groups[g, _CROWDED] = t, sample, crowded
        gather(shard, chunk, hits, done, at, n, falls, base, in_tile)
        first, blocks, begin = np.uint64(at >> 2), n + 3 >> 2, np.uint64(done >> 2)
        for q in range(blocks):
            chunk.blocks[0, first + np.uint64(q)] = begin + np.uint64(q) | high
            chunk.blocks[1, first + np.uint64(q)] = np.uint64(sample)
            chunk.blocks[2, first + np.uint64(q)] = key
        chunk.fill[_HITS] = at + 4 * blocks
        chunk.fill[_GROUPS] = g + 1
        done += n
        if at + 4 * blocks == CAPACITY:
            flush(shard, chunk)


@compiled
def flush(shard: Any, chunk: Any) -> None:
    """Apply the hits of a chunk in their order and empty it."""
    size, groups = chunk.fill[_HITS], chunk.fill[_GROUPS]
    chunk.fill[:] = 0
    if size == 0:
        return
    f, floats = chunk.floats, shard.floats
    if floats[STD] > _ZERO:
        listed_normals(f, chunk.blocks, (size >> 2) + 7 & ~7)  # whole SIMD registers
    if len(shard.lanes) == 0:
        for g in range(groups):
            key = shard.keys[chunk.groups[g, _TILE], DEVICE_KEY]
            make_lanes(chunk.lanes, chunk.groups[g, _FIRST], chunk.groups[g, _COUNT], key[0], key[1])
    _wanted(chunk, size + 15 & ~15, floats)
    weights, tags = shard.weights, chunk.tags
    ahead, behind = floats[AHEAD], floats[BEHIND]
    for g in range(groups):
        t, in_tile = chunk.groups[g, _TILE], chunk.groups[g, _IN_TILE]
        base, first = np.uint64(shard.table[t, OFFSET] + in_tile), np.uint64(chunk.groups[g, _FIRST])
        if chunk.groups[g, _CROWDED] == 0:
            for k in range(chunk.groups[g, _COUNT]):
                h = first + np.uint64(k)
                at = base + np.uint64(tags[h] & COLUMN)
                weights[at] = min(max(weights[at] + f[AMOUNT + h], f[LOW + h]), f[HIGH + h])
            continue
        for k in range(chunk.groups[g, _COUNT]):
            h = first + np.uint64(k)
            tag = tags[h]
            at, n, lowers = base + np.uint64(tag & COLUMN), tag >> COUNT_AT & COUNT, tag >= SIGN
            old, low, high, step = weights[at], f[LOW + h], f[HIGH + h], f[STEP + h]
            new = min(max(old + f[AMOUNT + h], low), high)
            whole = np.float32(np.int32(n)) * step
            highest = old + whole * (behind if lowers else ahead)
            lowest = old - whole * (ahead if lowers else behind)
            if (n > 1) & ((highest > high) | (lowest < low)):
                sample, cell = chunk.groups[g, _SAMPLE], in_tile + np.int64(tag & COLUMN)
                new = replay(old, np.int64(n), lowers, step, low, high, floats[STD], shard.keys[t], sample, cell)
            weights[at] = new


@compiled
def make_lanes(lanes: Any, first: int, count: int, k0: Any, k1: Any) -> None:
    """Turn places in a tile into the lanes of the cells there."""
    key0, key1, start = np.uint64(k0), np.uint64(k1), np.uint64(first)
    for k in range(count):
        lanes[start + np.uint64(k)] = lane_word(lanes[start + np.uint64(k)], key0, key1)


@inlined
def cell_of(word: Any, floats: Any) -> Any:
    """Steps and bounds from a word of four lanes, the first lowest."""
    return constant_cell(np.int16(word), np.int16(word >> 16), np.int16(word >> 32), np.int16(word >> 48), floats)


@compiled
def _wanted(chunk: Any, size: int, floats: Any) -> None:
    """Changes and bounds of hits, n pulses being one draw: step (n + std sqrt(n) z)."""
    tags, lanes, f, std = chunk.tags, chunk.lanes, chunk.floats, floats[STD]
    for k in range(size):
        h = np.uint64(k)
        up, down, low, high = cell_of(lanes[h], floats)
        lowers = tags[h] >= SIGN
        pulses = np.float32(np.int32(tags[h] >> COUNT_AT & COUNT))
        step = down if lowers else up
        amount = step * (pulses + (std * np.sqrt(pulses)) * f[Z + h])
        f[AMOUNT + h] = -amount if lowers else amount
        f[LOW + h] = low
        f[HIGH + h] = high
        f[STEP + h] = step
