"""What updates on the CPU work on: the arrays of a shard, and the chunk in which hits are listed."""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.cpu_random import compiled, types

PIECE = 1024
"""Hits that are worked off together; a group starts at a multiple of four, as a block of noise gives four normals."""
FIRST, COUNT_OF, IN_TILE, TILE, SAMPLE, CROWDED = range(6)
"""Columns of a chunk's groups: first hit, hits, first cell of the row in its tile, tile, sample, whether some hits have
several pulses."""
HITS, GROUPS = range(2)


class Shard(NamedTuple):
    """What an update changes and what it needs of each cell and tile."""

    weights: Any
    hidden: Any  # what pulses move on a device with write noise; else empty
    lanes: Any  # int64: four lanes in a word; empty where lanes are made anew
    table: Any
    keys: Any
    ints: Any  # of the packed rule
    floats: Any


class General(NamedTuple):
    """Room for the hits of a piece, or the cells of a row, on devices that are not plain; empty for others."""

    words: Any  # int64 (3, room): lanes 0 to 3, 4 to 7 and 8 to 11 of each, as far as there are any
    cells: Any  # float32 (6, room): up, down, lower, upper, e0, e1
    z: Any  # float32 (room,): normals of the first pulses
    drawn: Any  # float32 (4 * room,): a block of normals of each, listed by the next three
    places: Any  # uint64 (room,), as `cpu_random.listed_normals` takes them
    samples: Any
    keys: Any


class Chunk(NamedTuple):
    """Hits that are listed and not yet applied; room for a `PIECE` and a row."""

    tags: Any  # uint32 (room,): column, number and in bit 31 whether the weight falls
    lanes: Any  # int64 (room,): four lanes of each; before they are made, the cell's place in its tile
    blocks: Any  # uint64 (room / 4 + 8,): of noise, as `listed_normals` takes them
    samples: Any
    keys: Any
    groups: Any  # int64 (room / 4, 6)
    floats: Any  # float32 (PIECE + 32,): their normals, or zeros
    fill: Any  # int64 (2,): hits and groups
    general: Any


_I8, _U8, _F4, _U4 = types.int64[::1], types.uint64[::1], types.float32[::1], types.uint32[::1]
SHARD = types.NamedTuple([_F4, _F4, _I8, types.int64[:, ::1], types.uint32[:, :, ::1], _I8, _F4], Shard)
_GENERAL = types.NamedTuple([types.int64[:, ::1], types.float32[:, ::1], _F4, _F4, _U8, _U8, _U8], General)
CHUNK = types.NamedTuple([_U4, _I8, _U8, _U8, _U8, types.int64[:, ::1], _F4, _I8, _GENERAL], Chunk)
"""Their types, as compiled functions take them."""


@compiled
def new_chunk(most_cols: int, general: bool) -> Any:
    """An empty chunk for tiles of at most so many columns."""
    room = PIECE + most_cols + 47 & ~31
    blocks = room // 4 + 8
    words = np.empty(room // 2 + room + 3 * blocks, np.int64)  # one array, since each costs as much as twenty hits
    noise = words[room // 2 + room :].view(np.uint64)
    extra = room if general else 0
    normals = np.zeros(5 * extra, np.float32)
    draws = np.zeros(3 * extra, np.uint64)
    return Chunk(
        words[: room // 2].view(np.uint32),
        words[room // 2 : room // 2 + room],
        noise[:blocks],
        noise[blocks : 2 * blocks],
        noise[2 * blocks :],
        np.empty((room // 4, 6), np.int64),
        np.zeros(PIECE + 32, np.float32),
        np.zeros(2, np.int64),
        General(
            np.zeros((3, extra), np.int64),
            np.zeros((6, extra), np.float32),
            normals[:extra],
            normals[extra:],
            draws[:extra],
            draws[extra : 2 * extra],
            draws[2 * extra :],
        ),
    )
