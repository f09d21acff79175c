"""Numba building blocks with the bits of `rpucluster.elementary`."""

from typing import Any

import numpy as np

from rpucluster import elementary
from rpucluster.kernels.cpu_random import bits_float, inlined

_ZERO, _ONE = np.float32(0), np.float32(1)
_E0, _E1, _E2, _E3, _E4, _E5 = (np.float32(c) for c in elementary.EXP)
_INVERSE_LN2, _ROUNDER = np.float32(elementary.INVERSE_LN2), np.float32(elementary.ROUNDER)
_LN2_HIGH, _LN2_LOW = np.float32(elementary.LN2_HIGH), np.float32(elementary.LN2_LOW)
_EXP_MIN, _EXP_MAX = np.float32(elementary.EXP_MIN), np.float32(elementary.EXP_MAX)
_23, _127 = np.int32(23), np.int32(127)


@inlined
def exp(value: Any) -> Any:
    """e^value of a float32 number; 0 below `elementary.EXP_MIN` and e^88 above `elementary.EXP_MAX`."""
    x = min(max(value, _EXP_MIN), _EXP_MAX)
    n = (x * _INVERSE_LN2 + _ROUNDER) - _ROUNDER
    r = ((x - n * _LN2_HIGH) - n * _LN2_LOW) + _ZERO
    q = ((((_E5 * r + _E4) * r + _E3) * r + _E2) * r + _E1) * r + _E0
    power = bits_float(np.int32(np.int32(np.int32(n) + _127) << _23))
    return _ZERO if value < _EXP_MIN else (_ONE + (r + (r * r) * q)) * power
