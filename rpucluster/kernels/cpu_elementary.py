"""Numba building blocks with the bits of `rpucluster.elementary`."""

from typing import Any

import numpy as np

from rpucluster import elementary
from rpucluster.kernels.cpu_random import bits_float, float_bits, inlined

_ZERO, _ONE = np.float32(0), np.float32(1)
_E0, _E1, _E2, _E3, _E4, _E5 = (np.float32(c) for c in elementary.EXP)
_INVERSE_LN2, _ROUNDER = np.float32(elementary.INVERSE_LN2), np.float32(elementary.ROUNDER)
_LN2_HIGH, _LN2_LOW = np.float32(elementary.LN2_HIGH), np.float32(elementary.LN2_LOW)
_EXP_MIN, _EXP_MAX = np.float32(elementary.EXP_MIN), np.float32(elementary.EXP_MAX)
_23, _127 = np.int32(23), np.int32(127)
_TWO, _SPLITTER, _SMALLEST = np.float32(2), np.float32(elementary.SPLITTER), np.float32(elementary.SMALLEST)
_A0, _A1, _A2, _A3 = (np.float32(c) for c in elementary.ATANH)
_SQRT_HALF_BITS = np.int32(elementary.SQRT_HALF_BITS)


@inlined
def exp_sum(high: Any, low: Any) -> Any:
    """e^(high + low), as `elementary.exp_sum`."""
    x = min(max(high, _EXP_MIN), _EXP_MAX)
    n = (x * _INVERSE_LN2 + _ROUNDER) - _ROUNDER
    r = ((x - n * _LN2_HIGH) - n * _LN2_LOW) + low
    q = ((((_E5 * r + _E4) * r + _E3) * r + _E2) * r + _E1) * r + _E0
    scale = bits_float(np.int32(np.int32(np.int32(n) + _127) << _23))
    return _ZERO if high < _EXP_MIN else (_ONE + (r + (r * r) * q)) * scale


@inlined
def exp(value: Any) -> Any:
    """e^value of a float32 number; 0 below `elementary.EXP_MIN` and e^88 above `elementary.EXP_MAX`."""
    return exp_sum(value, _ZERO)


@inlined
def _error(a: Any, b: Any, product: Any) -> Any:
    """What rounding took from a * b."""
    c = _SPLITTER * a
    a_high = c - (c - a)
    a_low = a - a_high
    c = _SPLITTER * b
    b_high = c - (c - b)
    b_low = b - b_high
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@inlined
def power(base: Any, exponent: Any) -> Any:
    """base^exponent of float32 numbers, as `elementary.power`."""
    # the logarithm as an unevaluated sum
    bits = float_bits(max(base, _SMALLEST))
    whole = np.int32((bits - _SQRT_HALF_BITS) >> _23)
    f = bits_float(np.int32(bits - np.int32(whole << _23))) - _ONE
    e = np.float32(whole)
    t = _TWO + f
    t_low = f - (t - _TWO)
    s = f / t
    product = s * t
    s_low = (((f - product) - _error(s, t, product)) - s * t_low) / t
    s2 = s * s
    q = ((_A3 * s2 + _A2) * s2 + _A1) * s2 + _A0
    ahead, main = e * _LN2_HIGH, _TWO * s
    total = ahead + main
    lost = main - (total - ahead)
    low = lost + (_TWO * s_low + ((s * s2) * q + e * _LN2_LOW))
    high = total + low
    low = low - (high - total)
    scaled = exponent * high
    result = exp_sum(scaled, _error(exponent, high, scaled) + exponent * low)
    nothing = _ZERO if exponent > _ZERO else _ONE
    return nothing if base < _SMALLEST else result
