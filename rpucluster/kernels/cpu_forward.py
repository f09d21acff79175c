"""The product of a tile with a batch of vectors on the way forward; `cpu_product` says in which order it adds."""

from typing import Any

import numpy as np

from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_product import SENT, eights_of
from rpucluster.kernels.cpu_random import compiled, inlined, types
from rpucluster.kernels.cpu_vector import (
    load,
    load_first,
    load_sixteen,
    load_twice,
    multiply_add,
    pointer,
    put_totals,
    put_totals_twice,
    store,
    twice,
    zeros,
    zeros_sixteen,
)

COLUMNS_TOGETHER = 1024
"""Columns of a forward block: changing it changes the order of additions."""
_ROWS_TOGETHER = 64
_0 = np.int64(0)
_I, _F4 = types.int64, types.float32[::1]


@compiled
def paired_size(cols: int, samples: int) -> int:
    """Floats that the forward product needs to copy pairs of samples into."""
    floats: int = eights_of(samples) * (min(cols, COLUMNS_TOGETHER) + 7 & ~7)
    return floats


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


@inlined
def _pair(v: Any, b: int, sv: int, cols: int, pairs: Any, p: int) -> None:
    """Copy eight samples so that eight numbers of one and of the next follow each other, pair after pair."""
    for s in range(8):
        at, o = p + 8 * s, b + s * sv
        for j in range(0, cols, 8):
            store(pairs, at + 8 * j, load(v, o + j))


@inlined
def _four_by_eight(
    w: Any, r0: int, r1: int, r2: int, r3: int, v: Any, p: int, cols: int, y: Any, o: int, sy: int, first: bool
) -> None:
    """Four rows times eight samples, which `_pair` has put at ``v[p]``."""
    a00 = a01 = a02 = a03 = a10 = a11 = a12 = a13 = zeros_sixteen()
    a20 = a21 = a22 = a23 = a30 = a31 = a32 = a33 = zeros_sixteen()
    whole = cols & ~7
    for j in range(0, whole, 8):
        x0, x1 = load_sixteen(v, p), load_sixteen(v, p + 16)
        x2, x3 = load_sixteen(v, p + 32), load_sixteen(v, p + 48)
        p += 64
        m = load_twice(w, r0 + j)
        a00, a01, a02, a03 = (
            multiply_add(m, x0, a00),
            multiply_add(m, x1, a01),
            multiply_add(m, x2, a02),
            multiply_add(m, x3, a03),
        )
        m = load_twice(w, r1 + j)
        a10, a11, a12, a13 = (
            multiply_add(m, x0, a10),
            multiply_add(m, x1, a11),
            multiply_add(m, x2, a12),
            multiply_add(m, x3, a13),
        )
        m = load_twice(w, r2 + j)
        a20, a21, a22, a23 = (
            multiply_add(m, x0, a20),
            multiply_add(m, x1, a21),
            multiply_add(m, x2, a22),
            multiply_add(m, x3, a23),
        )
        m = load_twice(w, r3 + j)
        a30, a31, a32, a33 = (
            multiply_add(m, x0, a30),
            multiply_add(m, x1, a31),
            multiply_add(m, x2, a32),
            multiply_add(m, x3, a33),
        )
    rest = cols - whole
    if rest:
        x0, x1 = load_sixteen(v, p), load_sixteen(v, p + 16)
        x2, x3 = load_sixteen(v, p + 32), load_sixteen(v, p + 48)
        m = twice(load_first(w, r0 + whole, rest))
        a00, a01, a02, a03 = (
            multiply_add(m, x0, a00),
            multiply_add(m, x1, a01),
            multiply_add(m, x2, a02),
            multiply_add(m, x3, a03),
        )
        m = twice(load_first(w, r1 + whole, rest))
        a10, a11, a12, a13 = (
            multiply_add(m, x0, a10),
            multiply_add(m, x1, a11),
            multiply_add(m, x2, a12),
            multiply_add(m, x3, a13),
        )
        m = twice(load_first(w, r2 + whole, rest))
        a20, a21, a22, a23 = (
            multiply_add(m, x0, a20),
            multiply_add(m, x1, a21),
            multiply_add(m, x2, a22),
            multiply_add(m, x3, a23),
        )
        m = twice(load_first(w, r3 + whole, rest))
        a30, a31, a32, a33 = (
            multiply_add(m, x0, a30),
            multiply_add(m, x1, a31),
            multiply_add(m, x2, a32),
            multiply_add(m, x3, a33),
        )
    put_totals_twice(y, o, o + sy, first, a00, a10, a20, a30)
    put_totals_twice(y, o + 2 * sy, o + 3 * sy, first, a01, a11, a21, a31)
    put_totals_twice(y, o + 4 * sy, o + 5 * sy, first, a02, a12, a22, a32)
    put_totals_twice(y, o + 6 * sy, o + 7 * sy, first, a03, a13, a23, a33)


@inlined
def _eight_by_one(w: Any, r: int, step: int, v: Any, b: int, cols: int, y: Any, o: int, first: bool) -> None:
    """Eight rows, ``step`` apart, times one sample: as many sums as the processor has multiply-adds under way."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = zeros()
    r1, r2, r3, r4 = r + step, r + 2 * step, r + 3 * step, r + 4 * step
    r5, r6, r7 = r + 5 * step, r + 6 * step, r + 7 * step
    whole = cols & ~7
    for j in range(0, whole, 8):
        x = load(v, b + j)
        a0, a1 = multiply_add(load(w, r + j), x, a0), multiply_add(load(w, r1 + j), x, a1)
        a2, a3 = multiply_add(load(w, r2 + j), x, a2), multiply_add(load(w, r3 + j), x, a3)
        a4, a5 = multiply_add(load(w, r4 + j), x, a4), multiply_add(load(w, r5 + j), x, a5)
        a6, a7 = multiply_add(load(w, r6 + j), x, a6), multiply_add(load(w, r7 + j), x, a7)
    rest = cols - whole
    if rest:
        x = load(v, b + whole)
        a0 = multiply_add(load_first(w, r + whole, rest), x, a0)
        a1 = multiply_add(load_first(w, r1 + whole, rest), x, a1)
        a2 = multiply_add(load_first(w, r2 + whole, rest), x, a2)
        a3 = multiply_add(load_first(w, r3 + whole, rest), x, a3)
        a4 = multiply_add(load_first(w, r4 + whole, rest), x, a4)
        a5 = multiply_add(load_first(w, r5 + whole, rest), x, a5)
        a6 = multiply_add(load_first(w, r6 + whole, rest), x, a6)
        a7 = multiply_add(load_first(w, r7 + whole, rest), x, a7)
    put_totals(y, o, first, a0, a1, a2, a3)
    put_totals(y, o + 4, first, a4, a5, a6, a7)


@apart(compiled, types.void, _F4, _I, _I, _I, *SENT)
def forward_product(
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
    """``results[b * sy + i] = sum_j weights[start + i * cols + j] sent[b * sv + j]``, all flat float32.

    ``sent`` holds zeros from ``cols`` to the next multiple of eight, and is read beyond ``samples``; what ``results``
    holds beyond ``rows`` and ``samples`` is overwritten (see `padded_lines`, `padded_samples`).  ``scratch`` is of
    `paired_size`.
    """
    w, v, y, pairs = pointer(weights), pointer(sent), pointer(results), pointer(scratch)
    eights = eights_of(samples)
    rest = samples - eights
    threes = eights + rest // 3 * 3 + (3 if rest % 3 == 2 else 0)
    together = _ROWS_TOGETHER if samples > 2 else 8  # few samples: along the rows as they lie
    for k in range(0, cols, COLUMNS_TOGETHER):
        width = min(COLUMNS_TOGETHER, cols - k)
        wide = width + 7 & ~7
        for b in range(0, eights, 8):
            _pair(v, b * sv + k, sv, width, pairs, b * wide)
        for near in range(0, rows, together):
            stop = min(near + together, rows)
            for b in range(threes, samples):
                for i in range(near, stop - 7, 8):
                    _eight_by_one(w, start + i * cols + k, cols, v, b * sv + k, width, y, b * sy + i, k == 0)
            for i in range(near, stop, 4):
                # rows behind the last are the last again; there is room for their results
                r0 = start + i * cols + k
                r1 = r0 + (cols if i + 1 < rows else _0)
                r2 = r1 + (cols if i + 2 < rows else _0)
                r3 = r2 + (cols if i + 3 < rows else _0)
                for b in range(0, eights, 8):
                    _four_by_eight(w, r0, r1, r2, r3, pairs, b * wide, width, y, b * sy + i, sy, k == 0)
                for b in range(eights, threes, 3):
                    _four_by_three(w, r0, r1, r2, r3, v, b * sv + k, sv, width, y, b * sy + i, sy, k == 0)
                if i >= near + (stop - near & ~7):
                    for b in range(threes, samples):
                        _four_by_one(w, r0, r1, r2, r3, v, b * sv + k, width, y, b * sy + i, k == 0)
