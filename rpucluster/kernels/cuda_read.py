"""Reads on a GPU as lists of launches of read.cu."""

from typing import Any, Final, NamedTuple

import numpy as np

from rpucluster.kernels.base import Tiling
from rpucluster.kernels.cuda_launch import REPEATS, THREADS, WIDE, Launch, Place, Take, parts
from rpucluster.kernels.read_rule import ROUNDS, SCALING, WIRE, ReadRule, Scaling, pack_read

PRODUCT_LINES: Final = 64
"""Output lines of a block of a product."""
PRODUCT_SLICE: Final = 256
"""Inputs that a block of a product adds up; other blocks have the rest."""
_PRODUCT_THREADS: Final = 128
_TOGETHER = (2, 8, 32)
"""Samples of a block of a product, by kernel."""
_SMALL: Final = 1 << 18
"""Cells of a tile for which one block performs all further rounds of bound management; a larger one is spread, round by
round."""


class Numbers(NamedTuple):
    """A packed read rule, on the host and on the device."""

    host_ints: Any
    host_floats: Any
    ints: Any
    floats: Any


def numbers_of(xp: Any, packed: tuple[Any, Any]) -> Numbers:
    """A packed rule, copied to the device."""
    return Numbers(*packed, *(xp.asarray(array) for array in packed))


def exact_numbers(xp: Any) -> Numbers:
    """Those of a read without converters, bounds and noise."""
    return numbers_of(xp, pack_read(ReadRule()))


def read(
    take: Take, place: Place, weights: Any, tiling: Tiling, keys: Any, averages: Any, lines: Any, sums: Any,
    rule: Numbers, *, exact: bool, backward: bool, learn: bool,
) -> list[Launch]:  # fmt: skip
    """A read of ``lines`` float32 (B, lines in) into ``sums`` int64 (B, lines out), which it overwrites.

    Scratch memory comes from ``take``.  An exact read is one with the numbers of `exact_numbers` whose inputs are not
    converted; it needs neither keys nor averages.
    """
    (width, padded_in), (out, padded_out) = _lines(tiling, backward)
    samples, rounds = len(lines), int(rule.host_ints[ROUNDS])
    each, back, count = tiling.tiles * samples, np.int32(backward), np.int32(samples)
    n, f, first = rule.ints, rule.floats, place.sample
    clock, status, mark = place.shared.clock, place.shared.status, place.mark
    wired = bool(rule.host_floats[WIRE] > 0)
    scale, saturated = take((rounds + 1, each), "f4"), take((rounds + 1, each), "i4")
    v, noise = take((0 if exact else each, padded_in), "f4"), take(each, "f4")
    slices = -(-padded_in // PRODUCT_SLICE)
    sliced, lost = take((slices, each, padded_out), "f4"), take((each if wired else 0, padded_out), "f4")
    y = take((each if rounds else 0, padded_out), "f4")
    waits = rule.host_ints[SCALING] == Scaling.AVERAGE
    line = tiling.table, keys, lines, count, np.int32(width), np.int32(padded_in), back
    found = [
        Launch("read_scales", (each,), (WIDE,), (
            *line, np.int32(not exact and not waits), n, f, clock, first, np.int32(rounds), scale, saturated, v, noise,
            status, mark,
        )),
    ]  # fmt: skip
    if waits:
        found += [
            Launch("read_averages", (parts(tiling.tiles, 32),), (32,), (
                np.int32(tiling.tiles), count, np.int32(learn), f, averages, scale, status,
            )),
            Launch("read_convert", (each,), (WIDE,), (*line, n, f, clock, first, scale, v, noise, status)),
        ]  # fmt: skip
    together = next((size for size in _TOGETHER if samples <= size), _TOGETHER[-1])
    groups = -(-padded_out // PRODUCT_LINES)
    blocks = tiling.tiles * slices * groups * -(-samples // together)
    apart = (0, width) if exact else (samples * padded_in, padded_in)  # from one tile, and vector, to the next
    vectors = lines if exact else v, np.int64(apart[0]), np.int64(apart[1])
    found.append(
        Launch(f"read_product_{together}", (blocks,), (_PRODUCT_THREADS,), (
            weights, tiling.table, *vectors, np.int32(exact), count, np.int32(slices), np.int32(groups),
            np.int32(padded_out), back, sliced, status,
        ))
    )  # fmt: skip
    of_block = 32 * (WIDE // 32) if backward else WIDE // 32  # lines of a block of read_drop and read_again
    wide_out = np.int32(padded_out)
    if wired:
        found.append(
            Launch("read_drop", (each, parts(padded_out, of_block)), (32, WIDE // 32), (
                weights, tiling.table, v, count, np.int32(padded_in), wide_out, back, f, scale, lost, status,
            ))
        )  # fmt: skip
    products = tiling.table, keys, sliced, lost, noise
    if rounds:
        found.append(
            Launch("read_finish", (each, parts(padded_out, THREADS)), (THREADS,), (
                *products, count, wide_out, back, n, f, clock, first, scale, saturated, y, status,
            ))
        )  # fmt: skip
        small = tiling.tile_rows * tiling.tile_cols <= _SMALL
        for start, last in [(1, rounds)] if small else [(round_, round_) for round_ in range(1, rounds + 1)]:
            found.append(
                Launch("read_again", (each, 1 if small else parts(padded_out, of_block)), (32, WIDE // 32), (
                    weights, *line[:5], wide_out, back, n, f, clock, first, np.int32(start), np.int32(last), scale,
                    saturated, y, status,
                ))
            )  # fmt: skip
    tile_out = tiling.tile_cols if backward else tiling.tile_rows
    found.append(
        Launch("read_sums", (samples, parts(out, THREADS)), (THREADS,), (
            *products, y, count, np.int32(tiling.tiles), np.int32(-(-tiling.cols // tiling.tile_cols)),
            np.int32(tile_out), np.int32(out), wide_out, back, n, f, clock, first, np.int32(rounds), scale, saturated,
            place.shared.counts[REPEATS:], sums, status, mark,
        ))
    )  # fmt: skip
    return found


def _lines(tiling: Tiling, backward: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """(lines of the shard, of its largest tile) of the inputs and of the outputs."""
    rows, cols = (tiling.rows, tiling.tile_rows), (tiling.cols, tiling.tile_cols)
    return (rows, cols) if backward else (cols, rows)
