"""Exponential and power from + - * / alone, so that every processor gets the same bits.

float32 with one IEEE rounding per written operation, as in `rpucluster.rng`: whoever repeats the operations in this
order, without fusing any, repeats the results.  Both are within 2 units in the last place (tests measure it).

The methods are textbook ones: reduction by ln 2 in two parts, log(m) = 2 atanh((m - 1) / (m + 1)), and sums and
products with their rounding errors by Dekker (Numerische Mathematik 18, 224-242, 1971), which the power needs since its
exponent multiplies the error of the logarithm.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# Fitted at Chebyshev nodes, then rounded to float32.
# e^r = 1 + r + r^2 (EXP[0] + EXP[1] r + ...) for |r| <= ln 2 / 2: within 5e-10
EXP: Final = (
    0.5, 0.1666666716337204, 0.04166646674275398, 0.00833331048488617, 0.0013933649752289057, 0.00019890991097781807,
)  # fmt: skip
# 2 atanh s = 2 s + s^3 (ATANH[0] + ATANH[1] s^2 + ...) for |s| <= 0.1716: within 6e-10 of s
ATANH: Final = (0.6666666865348816, 0.4000012278556824, 0.28550735116004944, 0.23332762718200684)
INVERSE_LN2: Final = 1.4426950216293335
LN2_HIGH: Final = 2839 / 4096
"""The first twelve bits of ln 2: times an exponent it is exact in float32."""
LN2_LOW: Final = 3.1946184142725542e-05
SQRT_HALF_BITS: Final = 0x3F3504F3
ROUNDER: Final = 12582912.0
"""1.5 * 2^23: adding and taking it away rounds to the nearest integer, halves to even."""
SPLITTER: Final = 4097.0
"""2^12 + 1, which splits a float32 into two halves of twelve bits."""
EXP_MAX: Final = 88.0
"""Beyond it `exp` stays at e^88, just below the largest float32."""
EXP_MIN: Final = -87.3
"""Below it `exp` is 0, since results would not be normal numbers."""
SMALLEST: Final = 2.0**-126
"""The smallest normal float32; `power` takes a smaller base as 0."""


def exp(x: Float32) -> Float32:
    """e^x; 0 below `EXP_MIN` and e^88 above `EXP_MAX`."""
    return exp_sum(x, np.float32(0))


def exp_sum(high: Float32, low: Float32 | np.float32) -> Float32:
    """e^(high + low) of an unevaluated sum, low at most a few units in the last place of high."""
    x = np.minimum(np.maximum(high, np.float32(EXP_MIN)), np.float32(EXP_MAX))
    rounder = np.float32(ROUNDER)
    n = (x * np.float32(INVERSE_LN2) + rounder) - rounder
    r = ((x - n * np.float32(LN2_HIGH)) - n * np.float32(LN2_LOW)) + low
    q = np.full_like(r, np.float32(EXP[-1]))
    for coefficient in EXP[-2::-1]:
        q = q * r + np.float32(coefficient)
    value = np.float32(1) + (r + (r * r) * q)
    scale = ((n.astype(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.where(high < np.float32(EXP_MIN), np.float32(0), value * scale)


def power(base: Float32, exponent: Float32) -> Float32:
    """base^exponent for base of 0 to 2^127 and exponent of at least 0; 0^0 is 1."""
    high, low = _log(np.maximum(base, np.float32(SMALLEST)))
    product, error = _product(exponent, high)
    result = exp_sum(product, error + exponent * low)
    nothing = np.where(exponent > 0, np.float32(0), np.float32(1))
    return np.where(base < np.float32(SMALLEST), nothing, result)


def _log(x: Float32) -> tuple[Float32, Float32]:
    """ln x of normal positive numbers as an unevaluated sum, relative error about 1e-9."""
    one, two = np.float32(1), np.float32(2)
    bits = x.view(np.int32)
    exponent = (bits - np.int32(SQRT_HALF_BITS)) >> np.int32(23)
    f = (bits - (exponent << np.int32(23))).view(np.float32) - one  # sqrt(1/2) <= 1 + f < sqrt(2), exact
    e = exponent.astype(np.float32)
    # s = f / (2 + f) with what its division left over
    t = two + f
    t_low = f - (t - two)
    s = f / t
    product, error = _product(s, t)
    s_low = (((f - product) - error) - s * t_low) / t
    s2 = s * s
    q = np.full_like(s, np.float32(ATANH[-1]))
    for coefficient in ATANH[-2::-1]:
        q = q * s2 + np.float32(coefficient)
    # the larger term first: without an exponent it is 0, and the sum exact
    whole, main = e * np.float32(LN2_HIGH), two * s
    total = whole + main
    lost = main - (total - whole)
    low = lost + (two * s_low + ((s * s2) * q + e * np.float32(LN2_LOW)))
    high = total + low
    return high, low - (high - total)


def _product(a: Float32, b: Float32) -> tuple[Float32, Float32]:
    """a * b and its rounding error, exactly, from products of halves."""
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    p = a * b
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a: Float32) -> tuple[Float32, Float32]:
    c = np.float32(SPLITTER) * a
    high = c - (c - a)
    return high, a - high
