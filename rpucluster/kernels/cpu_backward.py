"""The product of a tile with a batch of vectors on the way back; `cpu_product` says in which order it adds."""

from typing import Any

import numpy as np

from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_product import PANEL, SENT, eights_of
from rpucluster.kernels.cpu_random import compiled, inlined, types
from rpucluster.kernels.cpu_vector import (
    HAS_SIXTEEN,
    load,
    load_first,
    load_sixteen,
    multiply_add,
    pointer,
    spread,
    spread_sixteen,
    store,
    store_sixteen,
    twice,
    zeros,
)

_PANEL_BATCH = 3
"""From so many samples on, the backward product takes panels."""
_PACKED_BATCH, _UNPACKED_COLS = 9, 896
"""From so many samples and so many columns on, it copies blocks of the tile so that panels lie together: lines of a
cache that are a power of two apart displace each other.  Measured."""
_PACKED_ROWS, _PACKED_COLS = 128, 256
_NARROW_ROWS, _WIDE_ROWS = 64, 32
"""Rows of a block that is not copied."""
_0 = np.int64(0)
_I, _F4 = types.int64, types.float32[::1]


@compiled
def packed_size(rows: int, cols: int, step: int, samples: int) -> int:
    """Floats that the backward product needs to copy blocks of the tile into."""
    if samples < _PANEL_BATCH:
        return 0
    if not _packs(step, samples):
        return min(rows, _NARROW_ROWS) * PANEL
    return min(rows, _PACKED_ROWS) * min((cols + PANEL - 1) // PANEL * PANEL, _PACKED_COLS)


@inlined
def _packs(step: int, samples: int) -> bool:
    return samples >= _PACKED_BATCH and step > _UNPACKED_COLS


@inlined
def _stream(
    w: Any, start: int, rows: int, cols: int, step: int, v: Any, sv: int, y: Any, sy: int, samples: int
) -> None:
    """The backward product for few samples: eight rows at a time, as they lie."""
    whole = cols & ~7
    for b in range(samples):
        for j in range(0, cols, 8):
            store(y, b * sy + j, zeros())
    for i in range(0, rows - 7, 8):
        at = start + i * step
        for b in range(samples):
            q, o = b * sv + i, b * sy
            x0, x1, x2, x3 = spread(v, q), spread(v, q + 1), spread(v, q + 2), spread(v, q + 3)
            x4, x5, x6, x7 = spread(v, q + 4), spread(v, q + 5), spread(v, q + 6), spread(v, q + 7)
            begin = (cols & ~15) if HAS_SIXTEEN else _0
            if HAS_SIXTEEN:
                z0, z1, z2, z3 = twice(x0), twice(x1), twice(x2), twice(x3)
                z4, z5, z6, z7 = twice(x4), twice(x5), twice(x6), twice(x7)
                for j in range(0, begin, 16):
                    p = at + j
                    c = multiply_add(load_sixteen(w, p), z0, load_sixteen(y, o + j))
                    c = multiply_add(load_sixteen(w, p + step), z1, c)
                    c = multiply_add(load_sixteen(w, p + 2 * step), z2, c)
                    c = multiply_add(load_sixteen(w, p + 3 * step), z3, c)
                    c = multiply_add(load_sixteen(w, p + 4 * step), z4, c)
                    c = multiply_add(load_sixteen(w, p + 5 * step), z5, c)
                    c = multiply_add(load_sixteen(w, p + 6 * step), z6, c)
                    c = multiply_add(load_sixteen(w, p + 7 * step), z7, c)
                    store_sixteen(y, o + j, c)
            for j in range(begin, whole, 8):
                p = at + j
                a = multiply_add(load(w, p), x0, load(y, o + j))
                a = multiply_add(load(w, p + step), x1, a)
                a = multiply_add(load(w, p + 2 * step), x2, a)
                a = multiply_add(load(w, p + 3 * step), x3, a)
                a = multiply_add(load(w, p + 4 * step), x4, a)
                a = multiply_add(load(w, p + 5 * step), x5, a)
                a = multiply_add(load(w, p + 6 * step), x6, a)
                a = multiply_add(load(w, p + 7 * step), x7, a)
                store(y, o + j, a)
            if whole < cols:
                p, rest = at + whole, cols - whole
                a = load(y, o + whole)
                for k in range(8):
                    a = multiply_add(load_first(w, p + k * step, rest), spread(v, q + k), a)
                store(y, o + whole, a)
    for i in range(rows & ~7, rows):
        for b in range(samples):
            x, p, o = spread(v, b * sv + i), start + i * step, b * sy
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
def _panel_by_eight(w: Any, p: int, step: int, rows: int, v: Any, q: int, sv: int, y: Any, o: int, sy: int) -> None:
    """32 columns times eight samples, as `_panel`."""
    a00, a01 = load_sixteen(y, o + 0 * sy), load_sixteen(y, o + 0 * sy + 16)
    a10, a11 = load_sixteen(y, o + 1 * sy), load_sixteen(y, o + 1 * sy + 16)
    a20, a21 = load_sixteen(y, o + 2 * sy), load_sixteen(y, o + 2 * sy + 16)
    a30, a31 = load_sixteen(y, o + 3 * sy), load_sixteen(y, o + 3 * sy + 16)
    a40, a41 = load_sixteen(y, o + 4 * sy), load_sixteen(y, o + 4 * sy + 16)
    a50, a51 = load_sixteen(y, o + 5 * sy), load_sixteen(y, o + 5 * sy + 16)
    a60, a61 = load_sixteen(y, o + 6 * sy), load_sixteen(y, o + 6 * sy + 16)
    a70, a71 = load_sixteen(y, o + 7 * sy), load_sixteen(y, o + 7 * sy + 16)
    for i in range(q, q + rows):
        m0, m1 = load_sixteen(w, p), load_sixteen(w, p + 16)
        p += step
        x = spread_sixteen(v, i + 0 * sv)
        a00, a01 = multiply_add(m0, x, a00), multiply_add(m1, x, a01)
        x = spread_sixteen(v, i + 1 * sv)
        a10, a11 = multiply_add(m0, x, a10), multiply_add(m1, x, a11)
        x = spread_sixteen(v, i + 2 * sv)
        a20, a21 = multiply_add(m0, x, a20), multiply_add(m1, x, a21)
        x = spread_sixteen(v, i + 3 * sv)
        a30, a31 = multiply_add(m0, x, a30), multiply_add(m1, x, a31)
        x = spread_sixteen(v, i + 4 * sv)
        a40, a41 = multiply_add(m0, x, a40), multiply_add(m1, x, a41)
        x = spread_sixteen(v, i + 5 * sv)
        a50, a51 = multiply_add(m0, x, a50), multiply_add(m1, x, a51)
        x = spread_sixteen(v, i + 6 * sv)
        a60, a61 = multiply_add(m0, x, a60), multiply_add(m1, x, a61)
        x = spread_sixteen(v, i + 7 * sv)
        a70, a71 = multiply_add(m0, x, a70), multiply_add(m1, x, a71)
    store_sixteen(y, o + 0 * sy, a00)
    store_sixteen(y, o + 0 * sy + 16, a01)
    store_sixteen(y, o + 1 * sy, a10)
    store_sixteen(y, o + 1 * sy + 16, a11)
    store_sixteen(y, o + 2 * sy, a20)
    store_sixteen(y, o + 2 * sy + 16, a21)
    store_sixteen(y, o + 3 * sy, a30)
    store_sixteen(y, o + 3 * sy + 16, a31)
    store_sixteen(y, o + 4 * sy, a40)
    store_sixteen(y, o + 4 * sy + 16, a41)
    store_sixteen(y, o + 5 * sy, a50)
    store_sixteen(y, o + 5 * sy + 16, a51)
    store_sixteen(y, o + 6 * sy, a60)
    store_sixteen(y, o + 6 * sy + 16, a61)
    store_sixteen(y, o + 7 * sy, a70)
    store_sixteen(y, o + 7 * sy + 16, a71)


@inlined
def _pack(w: Any, start: int, step: int, rows: int, width: int, packed: Any) -> None:
    """Copy a block of the tile so that each panel lies together, zeros behind the last column."""
    whole = width // PANEL * PANEL
    rest = width - whole
    for i in range(rows):
        at, p = start + i * step, i * PANEL
        for j in range(at, at + whole, PANEL):
            for k in range(0, PANEL, 8):
                store(packed, p + k, load(w, j + k))
            p += rows * PANEL
        if rest:
            for k in range(0, PANEL, 8):
                store(packed, p + k, load_first(w, at + whole + k, rest - k))


@apart(compiled, types.void, _F4, _I, _I, _I, _I, *SENT)
def backward_product(
    weights: Any,
    start: int,
    rows: int,
    cols: int,
    step: int,
    sent: Any,
    sv: int,
    results: Any,
    sy: int,
    samples: int,
    scratch: Any,
) -> None:
    """``results[b * sy + j] = sum_i weights[start + i * step + j] sent[b * sv + i]``, all flat float32.

    ``step`` exceeds ``cols`` where these are some columns of a tile.  ``scratch`` is of `packed_size`; ``sent`` and
    ``results`` as for `forward_product`.
    """
    w, v, y, packed = pointer(weights), pointer(sent), pointer(results), pointer(scratch)
    if samples < _PANEL_BATCH:
        _stream(w, start, rows, cols, step, v, sv, y, sy, samples)
        return
    for b in range(samples):
        for j in range(b * sy, b * sy + cols, 8):
            store(y, j, zeros())
    eights, packs = eights_of(samples), _packs(step, samples)
    tall = _PACKED_ROWS if packs else _WIDE_ROWS if step > _UNPACKED_COLS else _NARROW_ROWS
    for i in range(0, rows, tall):
        height = min(tall, rows - i)
        at = start + i * step
        for j in range(0, cols, _PACKED_COLS):
            width = min(_PACKED_COLS, cols - j)
            direct = _0 if packs else width // PANEL * PANEL
            for k in range(j, j + direct, PANEL):
                for b in range(0, eights, 8):
                    _panel_by_eight(w, at + k, step, height, v, b * sv + i, sv, y, b * sy + k, sy)
                for b in range(eights, samples, 3):
                    _panel(w, at + k, step, height, v, b * sv + i, sv, y, b * sy + k, sy)
            if direct < width:
                _pack(w, at + j + direct, step, height, width - direct, packed)
            for k in range(direct, width, PANEL):
                p = (k - direct) * height
                for b in range(0, eights, 8):
                    _panel_by_eight(packed, p, PANEL, height, v, b * sv + i, sv, y, b * sy + j + k, sy)
                for b in range(eights, samples, 3):
                    _panel(packed, p, PANEL, height, v, b * sv + i, sv, y, b * sy + j + k, sy)
