"""Products of a tile with a batch of vectors on the CPU, in an order of additions that the tile's shape alone decides.

Forward, a row is cut into blocks of 1024 columns; within a block, column j is added to lane j mod 8, then the lanes
are added, then the blocks.  Backward, rows are added one after the other.  Each step is a fused multiply-add.  So
every sample gets the same bits in a batch of any size, on any thread, whichever of the loops below computes it.

The loops keep twelve sums in registers, four lines or four vectors of lines by three samples, so that seven loads
serve twelve multiply-adds; blocks are as large as the first- and second-level caches hold.
"""

from typing import Any

import numpy as np

from rpucluster.kernels.cpu_random import compiled, inlined
from rpucluster.kernels.cpu_vector import (
    load,
    load_first,
    multiply_add,
    pointer,
    put_totals,
    spread,
    store,
    zeros,
)

COLUMNS_TOGETHER = 1024
"""Columns of a forward block: changing it changes the order of additions."""
_ROWS_TOGETHER = 64
_PANEL = 32
"""Columns of a backward panel: four vectors."""
_PANEL_BATCH = 3
"""From so many samples on, the backward product takes panels."""
_PACKED_BATCH, _UNPACKED_COLS = 9, 896
"""From so many samples and so many columns on, it copies blocks of the tile so that panels lie together: lines of a
cache that are a power of two apart displace each other.  Measured."""
_PACKED_ROWS, _PACKED_COLS = 128, 256
_NARROW_ROWS, _WIDE_ROWS = 64, 32
"""Rows of a block that is not copied."""
_0 = np.int64(0)


@compiled
def padded_lines(lines: int) -> int:
    """Distance of samples in the arrays given to products: whole panels, and not a multiple of a cache's period."""
    return (lines + _PANEL - 1) // _PANEL * _PANEL + 16


@compiled
def padded_samples(samples: int) -> int:
    """Samples for which the arrays given to products need room."""
    return (samples + 2) // 3 * 3


@compiled
def packed_size(rows: int, cols: int, samples: int) -> int:
    """Floats that the backward product needs to copy blocks of the tile into."""
    if samples < _PANEL_BATCH:
        return 0
    if not _packs(cols, samples):
        return min(rows, _NARROW_ROWS) * _PANEL
    return min(rows, _PACKED_ROWS) * min((cols + _PANEL - 1) // _PANEL * _PANEL, _PACKED_COLS)


@inlined
def _packs(cols: int, samples: int) -> bool:
    return samples >= _PACKED_BATCH and cols > _UNPACKED_COLS


@inlined
def _four_by_three(
    w: Any, r0: int, r1: int, r2: int, r3: int, v: Any, b: int, sv: int, cols: int, y: Any, o: int, sy: int, first: bool
) -> None:
    """Four rows times three samples: ``y[o + sample * sy + row]`` gets a block's sums, or has them added."""
    b1, b2 = b + sv, b + 2 * sv
    a00 = a01 = a02 = a10 = a11 = a12 = a20 = a21 = a22 = a30 = a31 = a32 = zeros()
    whole = cols & ~7
    for j in range(0, whole, 8):
        x0, x1, x2 = load(v, b + j), load(v, b1 + j), load(v, b2 + j)
        m = load(w, r0 + j)
        a00, a01, a02 = multiply_add(m, x0, a00), multiply_add(m, x1, a01), multiply_add(m, x2, a02)
        m = load(w, r1 + j)
        a10, a11, a12 = multiply_add(m, x0, a10), multiply_add(m, x1, a11), multiply_add(m, x2, a12)
        m = load(w, r2 + j)
        a20, a21, a22 = multiply_add(m, x0, a20), multiply_add(m, x1, a21), multiply_add(m, x2, a22)
        m = load(w, r3 + j)
        a30, a31, a32 = multiply_add(m, x0, a30), multiply_add(m, x1, a31), multiply_add(m, x2, a32)
    rest = cols - whole
    if rest:
        x0, x1, x2 = load(v, b + whole), load(v, b1 + whole), load(v, b2 + whole)
        m = load_first(w, r0 + whole, rest)
        a00, a01, a02 = multiply_add(m, x0, a00), multiply_add(m, x1, a01), multiply_add(m, x2, a02)
        m = load_first(w, r1 + whole, rest)
        a10, a11, a12 = multiply_add(m, x0, a10), multiply_add(m, x1, a11), multiply_add(m, x2, a12)
        m = load_first(w, r2 + whole, rest)
        a20, a21, a22 = multiply_add(m, x0, a20), multiply_add(m, x1, a21), multiply_add(m, x2, a22)
        m = load_first(w, r3 + whole, rest)
        a30, a31, a32 = multiply_add(m, x0, a30), multiply_add(m, x1, a31), multiply_add(m, x2, a32)
    put_totals(y, o, first, a00, a10, a20, a30)
    put_totals(y, o + sy, first, a01, a11, a21, a31)
    put_totals(y, o + 2 * sy, first, a02, a12, a22, a32)


@inlined
def _four_by_one(
    w: Any, r0: int, r1: int, r2: int, r3: int, v: Any, b: int, cols: int, y: Any, o: int, first: bool
) -> None:
    """Four rows times one sample."""
    a0 = a1 = a2 = a3 = zeros()
    whole = cols & ~7
    for j in range(0, whole, 8):
        x = load(v, b + j)
        a0, a1 = multiply_add(load(w, r0 + j), x, a0), multiply_add(load(w, r1 + j), x, a1)
        a2, a3 = multiply_add(load(w, r2 + j), x, a2), multiply_add(load(w, r3 + j), x, a3)
    rest = cols - whole
    if rest:
        x = load(v, b + whole)
        a0 = multiply_add(load_first(w, r0 + whole, rest), x, a0)
        a1 = multiply_add(load_first(w, r1 + whole, rest), x, a1)
        a2 = multiply_add(load_first(w, r2 + whole, rest), x, a2)
        a3 = multiply_add(load_first(w, r3 + whole, rest), x, a3)
    put_totals(y, o, first, a0, a1, a2, a3)


@compiled
def forward_product(
    weights: Any, start: int, rows: int, cols: int, sent: Any, sv: int, results: Any, sy: int, samples: int
) -> None:
    """``results[b * sy + i] = sum_j weights[start + i * cols + j] sent[b * sv + j]``, all flat float32.

    ``sent`` holds zeros from ``cols`` to the next multiple of eight, and is read beyond ``samples``; what ``results``
    holds beyond ``rows`` and ``samples`` is overwritten (see `padded_lines`, `padded_samples`).
    """
    w, v, y = pointer(weights), pointer(sent), pointer(results)
    threes = samples // 3 * 3 + (3 if samples % 3 == 2 else 0)
    together = _ROWS_TOGETHER if samples > 2 else 4  # few samples: along the rows as they lie
    for near in range(0, rows, together):
        for k in range(0, cols, COLUMNS_TOGETHER):
            width = min(COLUMNS_TOGETHER, cols - k)
            for i in range(near, min(near + together, rows), 4):
                # rows behind the last are the last again; there is room for their results
                r0 = start + i * cols + k
                r1 = r0 + (cols if i + 1 < rows else _0)
                r2 = r1 + (cols if i + 2 < rows else _0)
                r3 = r2 + (cols if i + 3 < rows else _0)
                for b in range(0, threes, 3):
                    _four_by_three(w, r0, r1, r2, r3, v, b * sv + k, sv, width, y, b * sy + i, sy, k == 0)
                for b in range(threes, samples):
                    _four_by_one(w, r0, r1, r2, r3, v, b * sv + k, width, y, b * sy + i, k == 0)


@inlined
def _stream(w: Any, start: int, rows: int, cols: int, v: Any, sv: int, y: Any, sy: int, samples: int) -> None:
    """The backward product for few samples: eight rows at a time, as they lie."""
    whole = cols & ~7
    for b in range(samples):
        for j in range(0, cols, 8):
            store(y, b * sy + j, zeros())
    for i in range(0, rows - 7, 8):
        at = start + i * cols
        for b in range(samples):
            q, o = b * sv + i, b * sy
            x0, x1, x2, x3 = spread(v, q), spread(v, q + 1), spread(v, q + 2), spread(v, q + 3)
            x4, x5, x6, x7 = spread(v, q + 4), spread(v, q + 5), spread(v, q + 6), spread(v, q + 7)
            for j in range(0, whole, 8):
                p = at + j
                a = multiply_add(load(w, p), x0, load(y, o + j))
                a = multiply_add(load(w, p + cols), x1, a)
                a = multiply_add(load(w, p + 2 * cols), x2, a)
                a = multiply_add(load(w, p + 3 * cols), x3, a)
                a = multiply_add(load(w, p + 4 * cols), x4, a)
                a = multiply_add(load(w, p + 5 * cols), x5, a)
                a = multiply_add(load(w, p + 6 * cols), x6, a)
                a = multiply_add(load(w, p + 7 * cols), x7, a)
                store(y, o + j, a)
            if whole < cols:
                p, rest = at + whole, cols - whole
                a = load(y, o + whole)
                for k in range(8):
                    a = multiply_add(load_first(w, p + k * cols, rest), spread(v, q + k), a)
                store(y, o + whole, a)
    for i in range(rows & ~7, rows):
        for b in range(samples):
            x, p, o = spread(v, b * sv + i), start + i * cols, b * sy
            for j in range(0, whole, 8):
                store(y, o + j, multiply_add(load(w, p + j), x, load(y, o + j)))
            if whole < cols:
                store(y, o + whole, multiply_add(load_first(w, p + whole, cols - whole), x, load(y, o + whole)))


@inlined
def _panel(w: Any, p: int, step: int, rows: int, v: Any, q: int, sv: int, y: Any, o: int, sy: int) -> None:
    """32 columns times three samples: add the product of some rows, ``step`` apart, to y."""
    o1, o2 = o + sy, o + 2 * sy
    a00, a01, a02, a03 = load(y, o), load(y, o + 8), load(y, o + 16), load(y, o + 24)
    a10, a11, a12, a13 = load(y, o1), load(y, o1 + 8), load(y, o1 + 16), load(y, o1 + 24)
    a20, a21, a22, a23 = load(y, o2), load(y, o2 + 8), load(y, o2 + 16), load(y, o2 + 24)
    for i in range(q, q + rows):
        m0, m1, m2, m3 = load(w, p), load(w, p + 8), load(w, p + 16), load(w, p + 24)
        p += step
        x = spread(v, i)
        a00, a01 = multiply_add(m0, x, a00), multiply_add(m1, x, a01)
        a02, a03 = multiply_add(m2, x, a02), multiply_add(m3, x, a03)
        x = spread(v, i + sv)
        a10, a11 = multiply_add(m0, x, a10), multiply_add(m1, x, a11)
        a12, a13 = multiply_add(m2, x, a12), multiply_add(m3, x, a13)
        x = spread(v, i + 2 * sv)
        a20, a21 = multiply_add(m0, x, a20), multiply_add(m1, x, a21)
        a22, a23 = multiply_add(m2, x, a22), multiply_add(m3, x, a23)
    store(y, o, a00)
    store(y, o + 8, a01)
    store(y, o + 16, a02)
    store(y, o + 24, a03)
    store(y, o1, a10)
    store(y, o1 + 8, a11)
    store(y, o1 + 16, a12)
    store(y, o1 + 24, a13)
    store(y, o2, a20)
    store(y, o2 + 8, a21)
    store(y, o2 + 16, a22)
    store(y, o2 + 24, a23)


@inlined
def _pack(w: Any, start: int, cols: int, rows: int, width: int, packed: Any) -> None:
    """Copy a block of the tile so that each panel lies together, zeros behind the last column."""
    whole = width // _PANEL * _PANEL
    rest = width - whole
    for i in range(rows):
        at, p = start + i * cols, i * _PANEL
        for j in range(at, at + whole, _PANEL):
            for k in range(0, _PANEL, 8):
                store(packed, p + k, load(w, j + k))
            p += rows * _PANEL
        if rest:
            for k in range(0, _PANEL, 8):
                store(packed, p + k, load_first(w, at + whole + k, rest - k))


@compiled
def backward_product(
    weights: Any,
    start: int,
    rows: int,
    cols: int,
    sent: Any,
    sv: int,
    results: Any,
    sy: int,
    samples: int,
    scratch: Any,
) -> None:
    """``results[b * sy + j] = sum_i weights[start + i * cols + j] sent[b * sv + i]``, all flat float32.

    ``scratch`` is of `packed_size`; ``sent`` and ``results`` as for `forward_product`.
    """
    w, v, y, packed = pointer(weights), pointer(sent), pointer(results), pointer(scratch)
    if samples < _PANEL_BATCH:
        _stream(w, start, rows, cols, v, sv, y, sy, samples)
        return
    for b in range(samples):
        for j in range(b * sy, b * sy + cols, 8):
            store(y, j, zeros())
    packs = _packs(cols, samples)
    tall = _PACKED_ROWS if packs else _WIDE_ROWS if cols > _UNPACKED_COLS else _NARROW_ROWS
    for i in range(0, rows, tall):
        height = min(tall, rows - i)
        at = start + i * cols
        for j in range(0, cols, _PACKED_COLS):
            width = min(_PACKED_COLS, cols - j)
            direct = _0 if packs else width // _PANEL * _PANEL
            for k in range(j, j + direct, _PANEL):
                for b in range(0, samples, 3):
                    _panel(w, at + k, cols, height, v, b * sv + i, sv, y, b * sy + k, sy)
            if direct < width:
                _pack(w, at + j + direct, cols, height, width - direct, packed)
            for k in range(direct, width, _PANEL):
                for b in range(0, samples, 3):
                    p = (k - direct) * height
                    _panel(packed, p, _PANEL, height, v, b * sv + i, sv, y, b * sy + j + k, sy)
