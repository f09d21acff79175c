"""The analog read of one tile, each operation once, in NumPy.

Everything is float32 with one rounding per written operation; the compiled kernels differ only in the order in which
a product, a sum of squares or a voltage drop is summed.
"""

import numpy as np
from numpy.typing import NDArray

from rpucluster.errors import NumericalError
from rpucluster.kernels.base import FIXED_BITS, FIXED_LIMIT, overflow_message
from rpucluster.kernels.read_rule import (
    DECAY,
    INPUT_NOISE,
    INPUT_ROUNDING,
    OUT_NOISE,
    OUT_POWER,
    OUTPUT_ROUNDING,
    RISE,
    SUM_BITS,
    SUM_LIMIT,
    WEIGHT_POWER,
    WORST,
    ReadRule,
    Scaling,
    pack_read,
)
from rpucluster.rng import Float32, Key, normals, uniform_u32

F32 = np.float32


def scale_of(values: Float32, average: F32, rule: ReadRule) -> tuple[F32, F32]:
    """What a vector is divided by, and a tile's running average after it; an average of 0 is none yet.

    Noise management by the largest magnitude is US patent 10325007; the running average is aihwkit's AVERAGE_ABS_MAX.
    """
    peak = F32(np.abs(values).max())
    if rule.scaling is Scaling.NONE:
        return F32(1), average
    if rule.scaling is Scaling.CONSTANT:
        return F32(rule.scale), average
    if rule.scaling is Scaling.ABS_MAX:
        return peak, average
    _, floats = pack_read(rule)
    if average == 0:
        return peak, peak
    return average, F32(floats[DECAY] * average + floats[RISE] * peak)


def read_tile(w: Float32, values: Float32, scale: F32, key: Key, sample: int, rule: ReadRule) -> tuple[Float32, int]:
    """One vector through one tile: scale, DAC, product, noise, ADC, and again with smaller inputs if it clips.

    The order and the steps are aihwkit's: DAC step 1 / levels, ADC step bound / levels, both round half to even,
    noise of the input behind its DAC.  A scale of 0 gives zeros.
    """
    if scale == 0:
        return np.zeros(len(w), F32), 0
    factor = scale
    for repeat in range(rule.rounds + 1):
        v = convert_inputs(values, factor, key, sample, repeat, rule)
        y = w @ v
        if rule.wire > 0:
            y = y - voltage_drop(w, v, rule)
        y = y + output_noise(v, len(w), key, sample, repeat, rule)
        step = F32(rule.output_step or 1.0)
        if rule.output_levels:
            y = _rounded(y / step, rule.output_stochastic, key, sample, OUTPUT_ROUNDING + repeat)
        limit = F32(rule.limit)
        saturated = bool((np.abs(y) > limit).any())
        y = np.clip(y, -limit, limit) * step
        if not saturated or repeat == rule.rounds:
            break
        factor = worst_case(values, factor, rule) if rule.worst_case else factor * F32(2)
    with np.errstate(over="ignore"):
        return y * factor, repeat


def convert_inputs(values: Float32, factor: F32, key: Key, sample: int, repeat: int, rule: ReadRule) -> Float32:
    """The DAC, clipped to 1, and the noise behind it."""
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are clipped
        v: Float32 = values / factor
        if rule.input_levels:
            step = F32(rule.input_step)
            v = _rounded(v / step, rule.input_stochastic, key, sample, INPUT_ROUNDING + repeat) * step
    v = np.clip(v, F32(-1), F32(1))
    if rule.input_noise > 0:
        v = v + F32(rule.input_noise) * normals(key, len(v), sample, round=INPUT_NOISE + repeat)
    return v


def output_noise(v: Float32, lines: int, key: Key, sample: int, repeat: int, rule: ReadRule) -> Float32:
    """Noise of the outputs, and of the weights referred to them: sum_j e_ij v_j is normal with deviation e |v|."""
    _, floats = pack_read(rule)
    std = floats[OUT_NOISE]
    if rule.weight_noise > 0:
        std = np.sqrt(floats[OUT_POWER] + floats[WEIGHT_POWER] * np.sum(v * v, dtype=F32))
    if std == 0:
        return np.zeros(lines, F32)
    return F32(std) * normals(key, lines, sample, round=repeat)


def worst_case(values: Float32, factor: F32, rule: ReadRule) -> F32:
    """The scale at which weights up to the assumed one saturate no output, or ``factor`` if that is larger.

    Scaling by the assumed weight times the sum of magnitudes is that of US patent 12169534; in aihwkit,
    ITERATIVE_WORST_CASE.
    """
    with np.errstate(over="ignore"):
        shares = np.minimum(np.abs(values) / factor, F32(SUM_LIMIT))
    parts = np.rint(shares * F32(2**SUM_BITS)).astype(np.int64)
    total = F32(parts.sum()) * F32(2.0**-SUM_BITS)
    return F32(factor * max(pack_read(rule)[1][WORST] * total, F32(1)))


def voltage_drop(w: Float32, v: Float32, rule: ReadRule) -> Float32:
    """What the resistance of the output lines takes from each output, to first order: (lines out,).

    Cell j of an output line has conductance g_j and is driven by the voltage v_j; the line has a resistance r from
    each cell to the next, and from the last one to the integrator, which holds its end at 0.  Without resistance cell
    j passes the current g_j v_j, so the segment behind cell l carries P_l = sum_{j <= l} g_j v_j, and the line at cell
    k is raised to u_k = r sum_{l >= k} P_l.  Cell k then passes g_k (v_k - u_k), and the output lacks

        sum_k g_k u_k = r sum_l P_l G_l,    G_l = sum_{k <= l} g_k,

    two prefix sums.  What is neglected is of second order in r, as u itself is found from undiminished currents.  It
    is linear in v, so it also holds where v is the time that a line is driven and not its voltage.

    A weight is the difference of two such lines, of conductances g+ = b + max(w, 0) and g- = b + max(-w, 0), so with
    the prefix sums of g+ - g- = w and g+ + g- = |w| + 2 b,

        P+ G+ - P- G- = (P_difference G_sum + P_sum G_difference) / 2.
    """
    difference, both = w.astype(np.float64), np.abs(w) + 2 * rule.baseline
    lost = np.cumsum(difference * v, 1) * np.cumsum(both, 1) + np.cumsum(both * v, 1) * np.cumsum(difference, 1)
    drop: Float32 = (rule.wire / 2 * lost.sum(1)).astype(F32)
    return drop


def to_fixed(y: Float32) -> NDArray[np.int64]:
    """Outputs as fixed point of the same shape.  Raises `NumericalError` from 2^22 on."""
    if not bool((np.abs(y) < FIXED_LIMIT).all()):
        raise NumericalError(overflow_message())
    return np.rint(y.astype(np.float64) * 2.0**FIXED_BITS).astype(np.int64)


def require_in_range(sums: NDArray[np.int64]) -> None:
    """Raise `NumericalError` if a sum over tiles has reached 2^22."""
    if bool((np.abs(sums) >= int(FIXED_LIMIT) << FIXED_BITS).any()):
        raise NumericalError(overflow_message())


def _rounded(codes: Float32, stochastic: bool, key: Key, sample: int, round: int) -> Float32:
    """Half to even; or up with the probability of the part behind the point, so that the mean is kept."""
    if not stochastic:
        return np.rint(codes)
    whole = np.floor(codes)
    u = (uniform_u32(key, len(codes), sample, round) >> np.uint32(8)).astype(F32) * F32(2.0**-24)
    return whole + (u < codes - whole).astype(F32)
