"""The analog read of one tile, each operation once, in NumPy.

Everything is float32 with one rounding per written operation; the compiled kernels differ only in the order in which
a product is summed.
"""

import numpy as np
from numpy.typing import NDArray

from rpucluster.errors import NumericalError
from rpucluster.kernels.base import FIXED_BITS, FIXED_LIMIT, ReadRule, overflow_message
from rpucluster.rng import Float32, Key, normals

F32 = np.float32


def read_tile(w: Float32, values: Float32, key: Key, sample: int, rule: ReadRule) -> tuple[Float32, int]:
    """One vector through one tile: scale, DAC, product, noise, ADC, and again with inputs halved if it clips.

    The order and the steps are aihwkit's: DAC step 1 / levels, ADC step bound / levels, both round half to even.
    """
    scale = np.abs(values).max() if rule.abs_max else F32(1)
    if scale == 0:
        return np.zeros(len(w), F32), 0
    for repeat in range(rule.rounds + 1):
        factor = scale * F32(2.0**repeat)
        v = values / factor
        if rule.input_levels:
            v = np.rint(v / F32(rule.input_step)) * F32(rule.input_step)
        y = w @ np.clip(v, F32(-1), F32(1))
        if rule.read_noise > 0:
            y = y + F32(rule.read_noise) * normals(key, len(y), sample, round=repeat)
        step = F32(rule.output_step or 1.0)
        if rule.output_levels:
            y = np.rint(y / step)
        limit = F32(rule.limit)
        saturated = bool((np.abs(y) > limit).any())
        y = np.clip(y, -limit, limit) * step
        if not saturated or repeat == rule.rounds:
            break
    with np.errstate(over="ignore"):
        return y * factor, repeat


def to_fixed(y: Float32) -> NDArray[np.int64]:
    """Outputs as fixed point of the same shape.  Raises `NumericalError` from 2^22 on."""
    if not bool((np.abs(y) < FIXED_LIMIT).all()):
        raise NumericalError(overflow_message())
    return np.rint(y.astype(np.float64) * 2.0**FIXED_BITS).astype(np.int64)


def require_in_range(sums: NDArray[np.int64]) -> None:
    """Raise `NumericalError` if a sum over tiles has reached 2^22."""
    if bool((np.abs(sums) >= int(FIXED_LIMIT) << FIXED_BITS).any()):
        raise NumericalError(overflow_message())
