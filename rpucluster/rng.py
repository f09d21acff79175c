"""The only source of random numbers: Philox4x32-10 counters, keyed by what a number belongs to.

Nothing here has state.  A *stream* is named by ``(seed, purpose, layer, replica, tile row, tile column)`` and
has a 64-bit key: the first two words of the Philox block with key ``(seed low, seed high)`` and counter
``(purpose << 24 | layer, plane << 24 | replica, tile row, tile column)``; where a weight has one device, that is
plane 0.  Inside a stream the 128-bit counter is
``(block, sample low, sample high, round)``; a block gives four 32-bit words.  Number ``i`` of a stream at
``(sample, round)``, uniform or normal, is always lane ``i & 3`` of block ``i >> 2``.  So every number can be
recomputed alone, by any processor, in any order, and a partition or a restart changes none of them.

Normals are Box-Muller pairs: words 0 and 1 of a block give lanes 0 (cosine) and 1 (sine), words 2 and 3 give
lanes 2 and 3.  Logarithm, sine and cosine are float32 polynomials evaluated with + - * and sqrt alone, one
rounding per operation; every processor that keeps to IEEE 754 and fuses nothing gets the same bits.

Philox is that of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInt32 = NDArray[np.uint32]
Float32 = NDArray[np.float32]
Key = tuple[int, int]
"""The two words of a stream's key."""
Keys = tuple[ArrayLike, ArrayLike]
"""The same, or arrays of them that broadcast with what they are used for."""


class Purpose(IntEnum):
    """What a stream is for; a number once given never changes and is never used again."""

    INIT = 1
    """Initial weights; not keyed by replica or tile."""
    DEVICE = 2
    """Tolerances of a cell: the block of its index in its tile, and at rounds 1 and 2 more blocks of the same index."""
    X_PULSES = 3
    """Pulse trains on the columns; all replicas fire the same."""
    D_PULSES = 4
    """Pulse trains on the rows; all replicas fire the same."""
    UPDATE_NOISE = 5
    """Cycle-to-cycle step noise."""
    READ_FORWARD = 6
    READ_BACKWARD = 7
    EVALUATE = 8
    """Reads of an evaluation, so that evaluating does not change training."""
    SHUFFLE = 9
    """Order of the samples; the sample word of the counter is the epoch."""
    REPLAY_NOISE = 10
    """Noise of a cell in a sample, number 32 * cell + m: step noise of pulse m where pulses are fired one by one, with
    m = 31 of those on one line alone.  Where they always are one by one, pulse 0 has UPDATE_NOISE, and m = 0 is write
    noise."""
    TRANSFER = 11
    """Noise of the reads that transfer columns between planes; all replicas share it, as other reads."""
    PROGRAM = 12
    """Write noise of cells that are set or programmed; number = cell, and the sample counts settings of the plane."""
    TRANSFER_PULSES = 20
    """Pulse trains of the rows when a column is transferred without a buffer."""
    CHOPPER = 21
    """Changes of the signs of columns; the same for all tiles of a column of tiles."""
    RELAXATION = 22
    """What the time of an update operation, named by its first sample, does to cells; number = cell, diffusion in round
    0 and the write noise that follows in round 1."""
    BOOTSTRAP = 64
    """Resampling of finished results; no part of any experiment."""


MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
"""Philox4x32 round multipliers."""
KEY_STEPS: Final = (0x9E3779B9, 0xBB67AE85)
"""Added to the two key words after each round."""
ROUNDS: Final = 10

# Polynomials fitted at Chebyshev nodes; each is within 1.5 units in the last place where it is used.
# log(1 + f) = f - f^2 / 2 + f^3 (LOG[0] + LOG[1] f + ...) for sqrt(1/2) <= 1 + f < sqrt(2)
LOG: Final = (
    0.3333333134651184, -0.25000306963920593, 0.20001044869422913, -0.166412815451622,
    0.14214496314525604, -0.12998183071613312, 0.12622319161891937, -0.0790274366736412,
)  # fmt: skip
# sin a = a + a^3 (SIN[0] + SIN[1] a^2 + ...), cos a = 1 - a^2 / 2 + a^4 (COS[0] + ...) for |a| <= pi / 4
SIN: Final = (-0.166666641831398, 0.008332747966051102, -0.00019587890710681677)
COS: Final = (0.0416666641831398, -0.001388830249197781, 2.454794230288826e-05)
LN2_HIGH: Final = 2839 / 4096
"""The first twelve bits of ln 2: times an exponent of five bits it is exact in float32."""
LN2_LOW: Final = float(np.float32(np.log(2.0) - LN2_HIGH))
EIGHTH_TURN: Final = float(np.float32(np.pi / 2**25))
"""Angle of one unit of the 24-bit position inside a quarter turn."""
SQRT_HALF_BITS: Final = 0x3F3504F3

NORMAL_BOUND: Final = 5.78
"""No normal is larger: the smallest uniform is 2^-24 and sqrt(-2 ln 2^-24) = 5.768."""


def philox(counter: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike], key: Keys) -> UInt32:
    """Philox4x32-10 blocks of counters and keys, each four or two arrays of words that broadcast together.

    Returns uint32 of shape (4, *broadcast shape).
    """
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    words = np.broadcast_arrays(*(np.asarray(w).astype(np.uint64) & mask for w in (*counter, *key)))
    c0, c1, c2, c3, k0, k1 = words
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    for r in range(ROUNDS):
        low_high0 = c0 * m0
        low_high1 = c2 * m1
        r0 = (k0 + np.uint64(r * KEY_STEPS[0])) & mask
        r1 = (k1 + np.uint64(r * KEY_STEPS[1])) & mask
        c0, c1, c2, c3 = (
            (low_high1 >> shift) ^ c1 ^ r0,
            low_high1 & mask,
            (low_high0 >> shift) ^ c3 ^ r1,
            low_high0 & mask,
        )
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def stream_keys(
    seed: int, purpose: Purpose, layer: int, replica: int, tile_row: ArrayLike, tile_col: ArrayLike, plane: int = 0
) -> UInt32:
    """Keys of the streams of several tiles: uint32 (*broadcast shape of tile_row and tile_col, 2).

    Raises ValueError if the seed does not fit 64 bits, the layer or replica 24, the plane 8 or an index 32 bits.
    """
    rows, cols = np.asarray(tile_row, dtype=np.int64), np.asarray(tile_col, dtype=np.int64)
    largest = max(int(rows.max(initial=0)), int(cols.max(initial=0)))
    smallest = min(seed, layer, replica, plane, int(rows.min(initial=0)), int(cols.min(initial=0)))
    if smallest < 0 or seed >> 64 or max(layer, replica) >> 24 or plane >> 8 or largest >> 32:
        raise ValueError(
            f"no random stream for seed {seed}, layer {layer}, replica {replica}, plane {plane}: write a seed below "
            "2^64, a layer and replica below 2^24, a plane below 256 and tile indices below 2^32, none negative"
        )
    words = philox((purpose << 24 | layer, plane << 24 | replica, rows, cols), (seed & 0xFFFFFFFF, seed >> 32))
    return np.ascontiguousarray(np.moveaxis(words[:2], 0, -1))


def stream_key(
    seed: int, purpose: Purpose, layer: int = 0, replica: int = 0, tile_row: int = 0, tile_col: int = 0
) -> Key:
    """Key of one stream, as two 32-bit numbers.  Raises ValueError as `stream_keys` does."""
    key = stream_keys(seed, purpose, layer, replica, tile_row, tile_col)
    return int(key[0]), int(key[1])


def uniform_u32(key: Key, count: int, sample: int = 0, round: int = 0, first: int = 0) -> UInt32:
    """Uniform 32-bit words ``first`` to ``first + count`` of a stream at (sample, round); shape (count,)."""
    blocks, skipped = _blocks(first, count)
    words = philox((blocks, sample & 0xFFFFFFFF, sample >> 32, round), key)  # (4, blocks)
    return words.T.reshape(-1)[skipped : skipped + count]


def normals(key: Key, count: int, sample: int = 0, round: int = 0, first: int = 0) -> Float32:
    """Normals ``first`` to ``first + count`` of a stream at (sample, round); float32 (count,)."""
    blocks, skipped = _blocks(first, count)
    lanes = block_normals(philox((blocks, sample & 0xFFFFFFFF, sample >> 32, round), key))  # (4, blocks)
    return lanes.T.reshape(-1)[skipped : skipped + count]


def block_normals(words: UInt32) -> Float32:
    """Four normals from the four words of each block: uint32 (4, ...) to float32 (4, ...)."""
    cos0, sin0 = _box_muller(words[0], words[1])
    cos1, sin1 = _box_muller(words[2], words[3])
    return np.stack([cos0, sin0, cos1, sin1])


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Order in which an epoch visits ``n`` samples; int64 (n,).

    The order of 64-bit words, a tie broken by index, so that it is uniform for every purpose of n < 2^32.
    """
    words = uniform_u32(stream_key(seed, Purpose.SHUFFLE), 2 * n, sample=epoch).astype(np.uint64)
    return np.argsort(words[0::2] << np.uint64(32) | words[1::2], kind="stable").astype(np.int64)


def init_uniform(
    seed: int,
    layer: int,
    rows: int,
    cols: int,
    *,
    row_start: int = 0,
    row_stop: int | None = None,
    col_start: int = 0,
    col_stop: int | None = None,
) -> Float32:
    """Uniform numbers in [-1, 1) for the initial weights of a layer, or of a part of it; float32.

    The number of a weight belongs to its row and column in the layer, so tiling and replica do not matter:
    lane ``col & 3`` of block ``col >> 2`` at sample ``row``.  Shape (row_stop - row_start, col_stop - col_start).
    """
    row = np.arange(row_start, rows if row_stop is None else row_stop, dtype=np.uint64)
    stop = cols if col_stop is None else col_stop
    blocks, skipped = _blocks(col_start, stop - col_start)
    words = philox((blocks[None, :], row[:, None], 0, 0), stream_key(seed, Purpose.INIT, layer))
    words = np.moveaxis(words, 0, -1).reshape(len(row), -1)[:, skipped : skipped + stop - col_start]
    # 24 bits scaled by 2^-23 and shifted by 1: every step is exact
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def _blocks(first: int, count: int) -> tuple[NDArray[np.uint64], int]:
    """The blocks that hold numbers first .. first + count, and how many numbers of the first one to skip."""
    return np.arange(first >> 2, (first + count + 3) >> 2, dtype=np.uint64), first & 3


def _polynomial(x: Float32, coefficients: tuple[float, ...]) -> Float32:
    total = np.full_like(x, np.float32(coefficients[-1]))
    for coefficient in coefficients[-2::-1]:
        total = total * x + np.float32(coefficient)
    return total


def _box_muller(radius_word: UInt32, angle_word: UInt32) -> tuple[Float32, Float32]:
    """Two independent normals from two uniform words; float32, one IEEE rounding per written operation."""
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    # u = (k + 1/2) 2^-23 with k of 23 bits: never 0 or 1, and symmetric
    scaled = (radius_word >> np.uint32(9)).astype(np.float32) + half
    bits = scaled.view(np.int32)
    exponent = (bits - np.int32(SQRT_HALF_BITS)) >> np.int32(23)
    f = (bits - (exponent << np.int32(23))).view(np.float32) - one
    e = (exponent - np.int32(23)).astype(np.float32)
    f2 = f * f
    tail = (f2 * f) * _polynomial(f, LOG) - half * f2 + e * np.float32(LN2_LOW)
    log = e * np.float32(LN2_HIGH) + (f + tail)
    radius = np.sqrt(log * -two)
    # the two top bits choose the quarter turn, the rest is a signed position inside it
    position = (angle_word << np.uint32(2)).view(np.int32) >> np.int32(8)
    a = (position.astype(np.float32) + half) * np.float32(EIGHTH_TURN)
    t = a * a
    sine = a + (a * t) * _polynomial(t, SIN)
    cosine = (one - half * t) + (t * t) * _polynomial(t, COS)
    quarter = angle_word >> np.uint32(30)
    odd = (quarter & np.uint32(1)) == 1
    x = np.where(odd, sine, cosine)
    y = np.where(odd, cosine, sine)
    x = np.where((quarter == 1) | (quarter == 2), -x, x)
    y = np.where(quarter >= 2, -y, y)
    return radius * x, radius * y
