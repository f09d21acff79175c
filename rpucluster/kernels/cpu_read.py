"""The analog read on the CPU, compiled by Numba: converters, product, noise and fixed-point sums.

The unit of work is one vector through one tile, in an order that depends on the tile's shape alone.  Tiles too
large for the second-level cache get the products of a whole batch from BLAS instead; shape and batch size decide.
"""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.base import COL0, COLS, FIXED_BITS, FIXED_LIMIT, OFFSET, ROW0, ROWS
from rpucluster.kernels.cpu_random import bits_float, compiled, fill_normals
from rpucluster.kernels.cpu_trains import INFINITY_BITS, peak_bits

BLAS_CELLS = 1 << 20
"""From so many cells on, and from `BLAS_BATCH` vectors on, BLAS makes the product."""
BLAS_BATCH = 16

FINE, OUT_OF_RANGE, NOT_FINITE = range(3)
"""How a read ended."""

_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_0 = np.int64(0)  # a literal 0 would be a type of its own, for which functions would be compiled again
_SCALE, _LIMIT = 2.0**FIXED_BITS, np.float32(FIXED_LIMIT)
_UNIT, _DOUBLE_LIMIT = 2.0**-FIXED_BITS, float(FIXED_LIMIT)
_SUM_LIMIT = np.int64(int(FIXED_LIMIT) << FIXED_BITS)
_REORDERED = {"reassoc", "nsz", "contract"}  # a fixed loop over a fixed shape still has one order


class _Line(NamedTuple):
    """One read direction: `ReadRule`'s numbers as float32."""

    backward: bool
    in_step: Any
    noise: Any
    step: Any
    limit: Any
    rounds: int


def _forward_product(w: Any, rows: int, cols: int, v: Any, y: Any) -> None:
    """``y[:rows] = w @ v``, four rows at a time so that each load of v serves four."""
    for i in range(0, rows - 3, 4):
        start = i * cols
        w0, w1 = w[start : start + cols], w[start + cols : start + 2 * cols]
        w2, w3 = w[start + 2 * cols : start + 3 * cols], w[start + 3 * cols : start + 4 * cols]
        s0 = s1 = s2 = s3 = _ZERO
        for j in range(cols):
            x = v[j]
            s0 += w0[j] * x
            s1 += w1[j] * x
            s2 += w2[j] * x
            s3 += w3[j] * x
        y[i], y[i + 1], y[i + 2], y[i + 3] = s0, s1, s2, s3
    for i in range(rows & ~3, rows):
        w0 = w[i * cols : (i + 1) * cols]
        s0 = _ZERO
        for j in range(cols):
            s0 += w0[j] * v[j]
        y[i] = s0


def _backward_product(w: Any, rows: int, cols: int, v: Any, y: Any) -> None:
    """``y[:cols] = v @ w``, four rows at a time so that each load of y serves four."""
    out = y[:cols]
    for j in range(cols):
        out[j] = _ZERO
    for i in range(0, rows - 3, 4):
        start = i * cols
        w0, w1 = w[start : start + cols], w[start + cols : start + 2 * cols]
        w2, w3 = w[start + 2 * cols : start + 3 * cols], w[start + 3 * cols : start + 4 * cols]
        v0, v1, v2, v3 = v[i], v[i + 1], v[i + 2], v[i + 3]
        for j in range(cols):
            out[j] += (w0[j] * v0 + w1[j] * v1) + (w2[j] * v2 + w3[j] * v3)
    for i in range(rows & ~3, rows):
        w0 = w[i * cols : (i + 1) * cols]
        v0 = v[i]
        for j in range(cols):
            out[j] += w0[j] * v0


forward_product = compiled(_forward_product, fastmath=_REORDERED)
backward_product = compiled(_backward_product, fastmath=_REORDERED)


@compiled
def convert_inputs(values: Any, factor: Any, step: Any, out: Any) -> None:
    """The DAC: values / factor to the nearest multiple of the step, unless that is 0, and clipped to 1."""
    if step > _ZERO:
        for j in range(len(values)):
            out[j] = min(max(np.rint(values[j] / factor / step) * step, -_ONE), _ONE)
    else:
        for j in range(len(values)):
            out[j] = min(max(values[j] / factor, -_ONE), _ONE)


@compiled
def _convert_outputs(y: Any, z: Any, line: Any) -> bool:
    """Noise and the ADC, in place; returns whether an output saturated."""
    noise, step, limit = line.noise, line.step, line.limit
    over = 0
    if step > _ZERO:
        for i in range(len(y)):
            code = np.rint((y[i] + noise * z[i]) / step)
            over += int(abs(code) > limit)
            y[i] = min(max(code, -limit), limit) * step
    else:
        for i in range(len(y)):
            value = y[i] + noise * z[i]
            over += int(abs(value) > limit)
            y[i] = min(max(value, -limit), limit)
    return over > 0


@compiled
def _add_fixed(y: Any, factor: Any, sums: Any) -> bool:
    """Add y * factor to int64 sums in units of 2^-40; returns whether all stayed in range."""
    wrong = 0
    for i in range(len(y)):
        value = y[i] * factor
        wrong += int(not (abs(value) < _LIMIT))
        total = sums[i] + np.int64(np.rint(np.float64(value) * _SCALE))
        wrong += int(abs(total) >= _SUM_LIMIT)
        sums[i] = total
    return wrong == 0


@compiled
def _read_vector(
    w: Any,
    rows: int,
    cols: int,
    values: Any,
    scale: Any,
    ready: bool,
    v: Any,
    y: Any,
    z: Any,
    key: Any,
    sample: int,
    line: Any,
) -> Any:
    """One vector through one tile; ``ready`` says that y holds the first product already.

    Returns what y is to be multiplied with, and the repeats.
    """
    factor = scale
    repeat = _0
    while True:
        if not ready or repeat > 0:
            convert_inputs(values, factor, line.in_step, v)
            if line.backward:
                backward_product(w, rows, cols, v, y)
            else:
                forward_product(w, rows, cols, v, y)
        if line.noise > _ZERO:
            fill_normals(z, _0, (len(y) + 31 >> 5) << 3, key[0], key[1], sample, repeat)
        saturated = _convert_outputs(y, z, line)
        if not saturated or repeat == line.rounds:
            return factor, repeat
        repeat += 1
        factor = factor * _TWO


@compiled
def read(
    weights: Any,
    table: Any,
    keys: Any,
    lines: Any,
    sums: Any,
    first_sample: int,
    backward: bool,
    abs_max: bool,
    in_step: Any,
    noise: Any,
    step: Any,
    limit: Any,
    rounds: int,
    ready: bool,
    products: Any,
) -> Any:
    """Read all listed tiles for all samples into ``sums``; returns repeats and how it ended.

    With ``ready`` there is one tile, and ``products`` (B, lines out) holds its products.
    """
    line = _Line(backward, in_step, noise, step, limit, rounds)
    repeats = 0
    for t in range(len(table)):
        rows, cols, start = table[t, ROWS], table[t, COLS], table[t, OFFSET]
        into, out = (rows, cols) if backward else (cols, rows)
        first_in, first_out = (table[t, ROW0], table[t, COL0]) if backward else (table[t, COL0], table[t, ROW0])
        w = weights[start : start + rows * cols]
        v, own = np.empty(into, np.float32), np.empty(out, np.float32)
        z = np.zeros(out + 32, np.float32)
        for b in range(len(lines)):
            values = lines[b, first_in : first_in + into]
            peak = peak_bits(values)
            if peak >= INFINITY_BITS:
                return repeats, NOT_FINITE
            scale = bits_float(peak) if abs_max else _ONE
            if scale == _ZERO:
                continue
            y = products[b] if ready else own
            factor, more = _read_vector(w, rows, cols, values, scale, ready, v, y, z, keys[t], first_sample + b, line)
            repeats += more
            if not _add_fixed(y, factor, sums[b, first_out : first_out + out]):
                return repeats, OUT_OF_RANGE
    return repeats, FINE


@compiled
def exact_read(weights: Any, table: Any, lines: Any, sums: Any, backward: bool) -> int:
    """Products without converters and noise into ``sums``; returns how it ended."""
    for t in range(len(table)):
        rows, cols, start = table[t, ROWS], table[t, COLS], table[t, OFFSET]
        into, out = (rows, cols) if backward else (cols, rows)
        first_in, first_out = (table[t, ROW0], table[t, COL0]) if backward else (table[t, COL0], table[t, ROW0])
        w = weights[start : start + rows * cols]
        y = np.empty(out, np.float32)
        for b in range(len(lines)):
            values = lines[b, first_in : first_in + into]
            if peak_bits(values) >= INFINITY_BITS:
                return NOT_FINITE
            if backward:
                backward_product(w, rows, cols, values, y)
            else:
                forward_product(w, rows, cols, values, y)
            if not _add_fixed(y, _ONE, sums[b, first_out : first_out + out]):
                return OUT_OF_RANGE
    return FINE


@compiled
def from_fixed(sums: Any, values: Any) -> bool:
    """Fixed-point sums as float32, element by element; False where one is beyond the limit."""
    inside = True
    for i in range(len(sums)):
        value = np.float64(sums[i]) * _UNIT
        if not abs(value) < _DOUBLE_LIMIT:
            inside = False
        values[i] = np.float32(value)
    return inside
