"""The analog read on the CPU, compiled by Numba: scales, converters, noise and fixed-point sums around the product.

The unit of work is up to `SAMPLES_TOGETHER` vectors through one tile, each pass over it for all of them.  No sample's
bits depend on the others that it is read with.
"""

from typing import Any

import numpy as np

from rpucluster.kernels.base import COL0, COLS, FIXED_BITS, FIXED_LIMIT, OFFSET, ROW0, ROWS
from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_backward import backward_product, packed_size
from rpucluster.kernels.cpu_convert import convert_inputs, convert_outputs, worst_case
from rpucluster.kernels.cpu_forward import forward_product, paired_size
from rpucluster.kernels.cpu_product import padded_lines, padded_samples
from rpucluster.kernels.cpu_random import bits_float, compiled, types
from rpucluster.kernels.cpu_trains import INFINITY_BITS, peak_bits
from rpucluster.kernels.cpu_wire import add_drops
from rpucluster.kernels.read_rule import DECAY, RISE, ROUNDS, SCALE, SCALING, WIRE, WORST_CASE, Scaling

SAMPLES_TOGETHER = 48
"""Vectors that pass a tile together: what they need fits the second-level cache beside a block of the tile."""

FINE, OUT_OF_RANGE, NOT_FINITE = range(3)
"""How a read ended."""

_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_0 = np.int64(0)  # a literal 0 would be a type of its own, for which functions would be compiled again
_SCALE, _LIMIT = 2.0**FIXED_BITS, np.float32(FIXED_LIMIT)
_UNIT, _DOUBLE_LIMIT = 2.0**-FIXED_BITS, float(FIXED_LIMIT)
_SUM_LIMIT = np.int64(int(FIXED_LIMIT) << FIXED_BITS)
_ABS_MAX, _AVERAGE, _CONSTANT = int(Scaling.ABS_MAX), int(Scaling.AVERAGE), int(Scaling.CONSTANT)


_I, _FLAG, _I8, _F4 = types.int64, types.boolean, types.int64[::1], types.float32[::1]
_SIGNALS, _SUMS, _ENDS = types.float32[:, ::1], types.int64[:, ::1], types.UniTuple(types.int64, 2)
_ARRAYS = (_F4, types.int64[:, ::1], types.uint32[:, ::1], _I8, _F4)
_PRODUCTS = (forward_product, backward_product)


@compiled
def lines_of(table: Any, t: int, backward: bool) -> Any:
    """First input line and count of a tile, first output line and count."""
    rows, cols, row0, col0 = table[t, ROWS], table[t, COLS], table[t, ROW0], table[t, COL0]
    if backward:
        return row0, rows, col0, cols
    return col0, cols, row0, rows


@compiled
def find_scales(
    table: Any, averages: Any, ints: Any, floats: Any, lines: Any, backward: bool, learn: bool, scales: Any
) -> int:
    """The scale of each sample and tile into float32 ``scales`` (B, tiles); returns how it ended."""
    scaling = ints[SCALING]
    for t in range(len(table)):
        first, count, _, _ = lines_of(table, t, backward)
        average = averages[t]
        for b in range(len(lines)):
            bits = peak_bits(lines[b, first : first + count])
            if bits >= INFINITY_BITS:
                return NOT_FINITE
            scale = _ONE
            if scaling == _ABS_MAX:
                scale = bits_float(bits)
            elif scaling == _CONSTANT:
                scale = floats[SCALE]
            elif scaling == _AVERAGE:
                peak = bits_float(bits)
                scale = average if average > _ZERO else peak
                if learn:
                    average = floats[DECAY] * average + floats[RISE] * peak if average > _ZERO else peak
            scales[b, t] = scale
        averages[t] = average
    return FINE


@compiled
def _room(table: Any, backward: bool, samples: int) -> Any:
    """Longest input and output, padded, and the floats that the product needs beside them."""
    into = out = packed = _0
    for t in range(len(table)):
        _, count_in, _, count_out = lines_of(table, t, backward)
        into, out = max(into, count_in), max(out, count_out)
        own = packed_size(count_in, count_out, count_out, samples) if backward else paired_size(count_in, samples)
        packed = max(packed, own)
    return padded_lines(into), padded_lines(out), packed


@compiled
def add_fixed(y: Any, factor: Any, sums: Any) -> bool:
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
def take_fixed(y: Any, factor: Any, sums: Any) -> None:
    """Undo `add_fixed`."""
    for i in range(len(y)):
        sums[i] -= np.int64(np.rint(np.float64(y[i] * factor) * _SCALE))


@apart(compiled, _ENDS, *_ARRAYS, _SIGNALS, _SUMS, _I, _FLAG, _SIGNALS, needs=_PRODUCTS)
def read_scaled(
    weights: Any,
    table: Any,
    keys: Any,
    ints: Any,
    floats: Any,
    lines: Any,
    sums: Any,
    first_sample: int,
    backward: bool,
    scales: Any,
) -> Any:
    """Read all listed tiles for all samples with given scales into ``sums``; returns repeats and how it ended."""
    samples = len(lines)
    together = min(samples, SAMPLES_TOGETHER)
    wide_in, wide_out, packed_floats = _room(table, backward, together)
    v = np.zeros(padded_samples(together) * wide_in, np.float32)  # zeros, since products with what memory holds crawl
    y = np.empty(padded_samples(together) * wide_out, np.float32)
    z = np.zeros(max(wide_in, wide_out) + 32, np.float32)
    packed = np.empty(packed_floats, np.float32)
    who, factors = np.empty(together, np.int64), np.empty(together, np.float32)
    rounds, repeats = ints[ROUNDS], _0
    for t in range(len(table)):
        rows, cols, start = table[t, ROWS], table[t, COLS], table[t, OFFSET]
        first_in, into, first_out, out = lines_of(table, t, backward)
        for near in range(0, samples, together):
            count = _0
            for b in range(near, min(near + together, samples)):
                if scales[b, t] > _ZERO:  # else exact zeros
                    who[count], factors[count] = b, scales[b, t]
                    count += 1
            repeat = _0
            while count > 0:
                for k in range(count):
                    values = lines[who[k], first_in : first_in + into]
                    at = v[k * wide_in : (k + 1) * wide_in]
                    convert_inputs(values, factors[k], ints, floats, at, z, keys[t], first_sample + who[k], repeat)
                if backward:
                    backward_product(weights, start, rows, cols, cols, v, wide_in, y, wide_out, count, packed)
                else:
                    forward_product(weights, start, rows, cols, v, wide_in, y, wide_out, count, packed)
                if floats[WIRE] > _ZERO:
                    add_drops(weights, start, rows, cols, cols, floats, backward, v, wide_in, y, wide_out, count)
                again = _0
                for k in range(count):
                    b, factor, result = who[k], factors[k], y[k * wide_out : k * wide_out + out]
                    sent = v[k * wide_in : k * wide_in + into]
                    saturated = convert_outputs(result, _0, sent, ints, floats, z, keys[t], first_sample + b, repeat)
                    if saturated and repeat < rounds:
                        who[again], factors[again] = b, factor * _TWO
                        if ints[WORST_CASE] != 0:
                            factors[again] = worst_case(lines[b, first_in : first_in + into], factor, floats)
                        again += 1
                    elif not add_fixed(result, factor, sums[b, first_out : first_out + out]):
                        return repeats, OUT_OF_RANGE
                repeats += again
                count = again
                repeat += 1
    return repeats, FINE


@apart(
    compiled,
    _ENDS,
    _F4,
    types.int64[:, ::1],
    types.uint32[:, ::1],
    _F4,
    _I8,
    _F4,
    _SIGNALS,
    _SUMS,
    _I,
    _FLAG,
    _FLAG,
    needs=(read_scaled,),
)
def read(
    weights: Any,
    table: Any,
    keys: Any,
    averages: Any,
    ints: Any,
    floats: Any,
    lines: Any,
    sums: Any,
    first_sample: int,
    backward: bool,
    learn: bool,
) -> Any:
    """Add the reads of all listed tiles for all samples to ``sums``; returns repeats and how it ended.

    weights float32 (cells,), table int64 (tiles, 5), keys uint32 (tiles, 2), averages float32 (tiles,), ints and
    floats those of `pack_read`, lines float32 (B, lines in), sums int64 (B, lines out).
    """
    scales = np.empty((len(lines), len(table)), np.float32)
    end = find_scales(table, averages, ints, floats, lines, backward, learn, scales)
    if end != FINE:
        return _0, end
    return read_scaled(weights, table, keys, ints, floats, lines, sums, first_sample, backward, scales)


@apart(compiled, _I, _F4, types.int64[:, ::1], _SIGNALS, _SUMS, _FLAG, needs=_PRODUCTS)
def exact_read(weights: Any, table: Any, lines: Any, sums: Any, backward: bool) -> int:
    """Products without converters and noise into ``sums``; returns how it ended."""
    samples = len(lines)
    together = min(samples, SAMPLES_TOGETHER)
    wide_in, wide_out, packed_floats = _room(table, backward, together)
    v = np.zeros(padded_samples(together) * wide_in, np.float32)
    y = np.empty(padded_samples(together) * wide_out, np.float32)
    packed = np.empty(packed_floats, np.float32)
    for t in range(len(table)):
        rows, cols, start = table[t, ROWS], table[t, COLS], table[t, OFFSET]
        first_in, into, first_out, out = lines_of(table, t, backward)
        for near in range(0, samples, together):
            count = min(together, samples - near)
            for k in range(count):
                values = lines[near + k, first_in : first_in + into]
                if peak_bits(values) >= INFINITY_BITS:
                    return NOT_FINITE
                at = v[k * wide_in : (k + 1) * wide_in]
                at[:into] = values
                at[into : into + 8] = _ZERO
            if backward:
                backward_product(weights, start, rows, cols, cols, v, wide_in, y, wide_out, count, packed)
            else:
                forward_product(weights, start, rows, cols, v, wide_in, y, wide_out, count, packed)
            for k in range(count):
                result = y[k * wide_out : k * wide_out + out]
                if not add_fixed(result, _ONE, sums[near + k, first_out : first_out + out]):
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
