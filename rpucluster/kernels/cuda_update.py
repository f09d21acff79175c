"""Updates on a GPU as lists of launches of update.cu."""

from typing import Any

import numpy as np

from rpucluster.kernels.base import Tiling
from rpucluster.kernels.cuda_launch import COINCIDENCES, EXPECTED, SLOTS, THREADS, WIDE, Launch, Place, Take, parts
from rpucluster.kernels.update_rule import (
    BIT_LENGTH,
    DETERMINISTIC,
    DW_MIN,
    DYNAMIC,
    GENERAL,
    MANAGEMENT,
    PER_BATCH,
    RAISE_ONLY,
)


def pulsed_update(
    take: Take, place: Place, weights: Any, hidden: Any, lanes: Any, tiling: Tiling, keys: Any, x: Any, d: Any,
    ints: Any, floats: Any, on_device: Any,
) -> list[Launch]:  # fmt: skip
    """An update by pulses of x float32 (B, cols) and d float32 (B, rows); ``hidden`` are the weights where a device has
    no others.

    ``ints`` and ``floats`` are the packed rule on the host, ``on_device`` its floats there; scratch memory comes from
    ``take``.
    """
    each, samples = tiling.tiles * len(x), np.int32(len(x))
    slots, gains, totals = take(each, "i4"), take((2, each), "f4"), take((2, each), "u8")
    x_words, d_words = take((each, tiling.tile_cols), "u4"), take((each, tiling.tile_rows), "u4")
    first, clock, status = place.sample, place.shared.clock, place.shared.status
    lines = np.int32(tiling.cols), np.int32(tiling.rows)
    tile = np.int32(tiling.tile_cols), np.int32(tiling.tile_rows)
    wide = parts(tiling.tile_cols + tiling.tile_rows, THREADS)
    name = "update_per_batch" if ints[PER_BATCH] else "update_per_sample"
    planes: tuple[Any, ...] = (weights,)
    rows, block = parts(tiling.tile_rows, 1), (WIDE, 1)  # a block for each row
    if ints[GENERAL]:
        name, planes = "laws_per_sample", (weights, hidden)
        rows, block = parts(32 * tiling.tile_rows, THREADS), (32, THREADS // 32)  # a warp
    return [
        gains_of(place, tiling, x, d, ints, floats, slots, gains, totals),
        Launch("update_trains", (each, wide), (THREADS,), (
            tiling.table, keys, x, d, samples, *lines, *tile, slots, gains[0], gains[1], clock, first, x_words, d_words,
            totals, status, np.int32(ints[DETERMINISTIC]),
        )),
        Launch("update_count", (1,), (32,), (
            np.int32(each), slots, totals, place.shared.counts[SLOTS:], place.shared.sums[EXPECTED:], status,
        )),
        Launch(name, (tiling.tiles, rows), block, (
            *planes, lanes, np.int32(len(lanes) > 0), tiling.table, keys, on_device, x_words, d_words, samples, tile[1],
            tile[0], clock, first, np.int32(ints[RAISE_ONLY]), place.shared.counts[COINCIDENCES:], status,
        )),
    ]  # fmt: skip


def relax(place: Place, weights: Any, hidden: Any, lanes: Any, tiling: Tiling, keys: Any, on_device: Any) -> Launch:
    """What the time of an update, named by its first sample, does to all cells."""
    grid = (tiling.tiles, parts(tiling.tile_rows * tiling.tile_cols, THREADS))
    return Launch("laws_relax", grid, (THREADS,), (
        weights, hidden, lanes, np.int32(len(lanes) > 0), tiling.table, keys, on_device, place.shared.clock,
        place.sample, place.shared.status,
    ))  # fmt: skip


def exact_update(take: Take, place: Place, weights: Any, tiling: Tiling, x: Any, d: Any) -> list[Launch]:
    """``w -= (rate * d) x`` for one sample after the other; nothing changes where an input is not finite."""
    each = tiling.tiles * len(x)
    slots, gains, totals = take(each, "i4"), take((2, each), "f4"), take((2, each), "u8")
    ints, floats = np.ones(8, np.int64), np.ones(8, np.float32)  # the gains are not used
    return [
        gains_of(place, tiling, x, d, ints, floats, slots, gains, totals),
        Launch("update_exact", (tiling.tiles, parts(tiling.tile_rows * tiling.tile_cols, THREADS)), (THREADS,), (
            weights, tiling.table, x, d, np.int32(len(x)), np.int32(tiling.cols), np.int32(tiling.rows),
            place.shared.rate, place.shared.status,
        )),
    ]  # fmt: skip


def gains_of(
    place: Place, tiling: Tiling, x: Any, d: Any, ints: Any, floats: Any, slots: Any, gains: Any, totals: Any
) -> Launch:
    """Slots and gains of each tile and sample; finds inputs that are not finite."""
    return Launch("update_gains", (tiling.tiles * len(x),), (WIDE,), (
        tiling.table, x, d, np.int32(len(x)), np.int32(tiling.cols), np.int32(tiling.rows), place.shared.rate,
        np.float32(floats[DW_MIN]), np.int32(ints[BIT_LENGTH]), np.int32(ints[MANAGEMENT]), np.int32(ints[DYNAMIC]),
        slots, gains[0], gains[1], totals, place.shared.status, place.mark,
    ))  # fmt: skip
