"""Converters, noise and bound management of one vector on the CPU: the operations of `reference_read`, which round
alike."""

from typing import Any

import numpy as np

from rpucluster.kernels.cpu_random import compiled, fill_normals, philox
from rpucluster.kernels.read_rule import (
    IN_NOISE,
    IN_STEP,
    IN_STOCHASTIC,
    INPUT_NOISE,
    INPUT_ROUNDING,
    LIMIT,
    OUT_NOISE,
    OUT_POWER,
    OUT_STEP,
    OUT_STOCHASTIC,
    OUTPUT_ROUNDING,
    SUM_BITS,
    SUM_LIMIT,
    WEIGHT_POWER,
    WORST,
)

_ZERO, _ONE = np.float32(0), np.float32(1)
_0 = np.int64(0)
_MASK, _32, _8 = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(8)
_UNIFORM, _SUM_LIMIT = np.float32(2.0**-24), np.float32(SUM_LIMIT)
_SUM_SCALE, _SUM_UNIT = np.float32(2.0**SUM_BITS), np.float32(2.0**-SUM_BITS)


@compiled
def _fill_uniforms(out: Any, first: int, blocks: int, key: Any, sample: int, round: int) -> None:
    """Uniforms of 24 bits in [0, 1) of consecutive blocks of one (sample, round)."""
    low, high, r = np.uint64(sample) & _MASK, np.uint64(sample) >> _32, np.uint64(round)
    key0, key1 = np.uint64(key[0]), np.uint64(key[1])
    for i in range(blocks):
        w0, w1, w2, w3 = philox(np.uint64(first + i), low, high, r, key0, key1)
        out[4 * i] = np.float32(np.int32(w0 >> _8)) * _UNIFORM
        out[4 * i + 1] = np.float32(np.int32(w1 >> _8)) * _UNIFORM
        out[4 * i + 2] = np.float32(np.int32(w2 >> _8)) * _UNIFORM
        out[4 * i + 3] = np.float32(np.int32(w3 >> _8)) * _UNIFORM


@compiled
def _blocks(lines: int) -> int:
    """Blocks of random numbers to draw for so many lines, in numbers that suit SIMD code."""
    return (lines + 31 >> 5) << 3


@compiled
def convert_inputs(
    values: Any, factor: Any, ints: Any, floats: Any, v: Any, z: Any, key: Any, sample: int, repeat: int
) -> None:
    """The DAC, clipped to 1, and the noise behind it; zeros follow up to the next multiple of eight.

    ``z`` is scratch for the random numbers of 32 lines more than there are.
    """
    lines, step = len(values), floats[IN_STEP]
    if step > _ZERO and ints[IN_STOCHASTIC] != 0:
        _fill_uniforms(z, _0, _blocks(lines), key, sample, INPUT_ROUNDING + repeat)
        for j in range(lines):
            code = values[j] / factor / step
            whole = np.floor(code)
            whole += _ONE if z[j] < code - whole else _ZERO
            v[j] = min(max(whole * step, -_ONE), _ONE)
    elif step > _ZERO:
        for j in range(lines):
            v[j] = min(max(np.rint(values[j] / factor / step) * step, -_ONE), _ONE)
    else:
        for j in range(lines):
            v[j] = min(max(values[j] / factor, -_ONE), _ONE)
    noise = floats[IN_NOISE]
    if noise > _ZERO:
        fill_normals(z, _0, _blocks(lines), key[0], key[1], sample, INPUT_NOISE + repeat)
        for j in range(lines):
            v[j] += noise * z[j]
    v[lines : lines + 8] = _ZERO


@compiled
def _power(v: Any) -> Any:
    """Sum of squares, in an order that the length decides."""
    sums = np.zeros(8, np.float32)
    for j in range(0, len(v) - 7, 8):
        for k in range(8):
            sums[k] += v[j + k] * v[j + k]
    for j in range(len(v) & ~7, len(v)):
        sums[0] += v[j] * v[j]
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))


@compiled
def convert_outputs(
    y: Any, first: int, v: Any, ints: Any, floats: Any, z: Any, key: Any, sample: int, repeat: int
) -> bool:
    """Noise and the ADC of the output lines from ``first`` on, a multiple of four, in place; whether one saturated.

    ``v`` is what was sent into the tile.
    """
    noise, step, limit = floats[OUT_NOISE], floats[OUT_STEP], floats[LIMIT]
    if floats[WEIGHT_POWER] > _ZERO:
        noise = np.float32(np.sqrt(floats[OUT_POWER] + floats[WEIGHT_POWER] * _power(v)))
    if noise > _ZERO:
        fill_normals(z, first >> 2, _blocks(len(y)), key[0], key[1], sample, repeat)
    if step > _ZERO and ints[OUT_STOCHASTIC] != 0:
        saturated: bool = _round_up_or_down(y, first, noise, step, limit, z, key, sample, repeat)
        return saturated
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
def _round_up_or_down(
    y: Any, first: int, noise: Any, step: Any, limit: Any, z: Any, key: Any, sample: int, repeat: int
) -> bool:
    """Noise z and an ADC that rounds up with the probability that keeps the mean."""
    if noise > _ZERO:
        for i in range(len(y)):
            y[i] += noise * z[i]
    _fill_uniforms(z, first >> 2, _blocks(len(y)), key, sample, OUTPUT_ROUNDING + repeat)
    over = 0
    for i in range(len(y)):
        code = y[i] / step
        whole = np.floor(code)
        whole += _ONE if z[i] < code - whole else _ZERO
        over += int(abs(whole) > limit)
        y[i] = min(max(whole, -limit), limit) * step
    return over > 0


@compiled
def worst_case(values: Any, factor: Any, floats: Any) -> Any:
    """The scale at which weights up to the assumed one saturate no output, or ``factor`` if that is larger."""
    total = _0
    for j in range(len(values)):
        total += np.int64(np.rint(min(abs(values[j]) / factor, _SUM_LIMIT) * _SUM_SCALE))
    return factor * max(floats[WORST] * (np.float32(total) * _SUM_UNIT), _ONE)
