"""Tolerances and pulses of every device model on the CPU, compiled by Numba: the operations of `rpucluster.devices`.

Lanes that a device does not have are whatever lies there: their spread is 0, and 0 times a number changes nothing.
"""

from typing import Any

import numpy as np

from rpucluster.devices import LANE_UNIT, Law
from rpucluster.kernels.cpu_elementary import exp, power
from rpucluster.kernels.cpu_random import borrowing, inlined
from rpucluster.kernels.update_rule import ADDITIVE, CONSTANTS, STD

UP, DOWN, LOW, HIGH, E0, E1 = range(6)
"""Rows of `cpu_chunk.General.cells`."""
LINEAR, _EXPONENTIAL, _POWER = int(Law.LINEAR), int(Law.EXPONENTIAL), int(Law.POWER)
_PIECEWISE = int(Law.PIECEWISE)
_W_MAX, _W_MIN, _STUCK, _STUCK_RANGE, _LOG_NORMAL, _FOLD = (CONSTANTS + place for place in (5, 7, 9, 10, 11, 12))
_OWN = CONSTANTS + 13  # the first constant of a law
SOFT = _OWN
"""Place of what tells soft bounds from linear steps."""
_ZERO, _ONE, _TWO, _HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)
_UNIT, _SHORT = np.float32(LANE_UNIT), np.float32(2.0**-16)


@inlined
def normal_lane(word: Any, place: int) -> Any:
    """The normal of a lane, 0 to 3 of a word."""
    return np.float32(np.int16(word >> 16 * place)) * _UNIT


@inlined
def _uniform_lane(word: Any, place: int) -> Any:
    return (np.float32(np.uint16(word >> 16 * place)) + _HALF) * _SHORT


@inlined
def _per_bound(gamma: Any, bound: Any) -> Any:
    return -abs(gamma) / bound if bound != _ZERO else _ZERO


@borrowing
def make_cells(g: Any, count: int, law: int, floats: Any) -> None:
    """Tolerances of so many cells from their words."""
    f, words = g.cells, g.words
    c = floats[CONSTANTS : CONSTANTS + 9]
    dw_min, dw_min_dtod, up_down_dtod, bias_up, bias_down = c[0], c[1], c[2], c[3], c[4]
    w_max, w_max_dtod, w_min, w_min_dtod = c[5], c[6], c[7], c[8]
    if floats[_LOG_NORMAL] != _ZERO:
        for k in range(count):
            h = np.uint64(k)
            f[E0, h] = exp(dw_min_dtod * normal_lane(words[0, h], 0))
    else:
        for k in range(count):
            h = np.uint64(k)
            f[E0, h] = _ONE + dw_min_dtod * normal_lane(words[0, h], 0)
    for k in range(count):
        h = np.uint64(k)
        word = words[0, h]
        gain, r = f[E0, h], up_down_dtod * normal_lane(word, 1)
        f[UP, h] = ((gain + bias_up) + r) * dw_min
        f[DOWN, h] = ((gain + bias_down) - r) * dw_min
        f[LOW, h] = w_min * (_ONE + w_min_dtod * normal_lane(word, 3))
        f[HIGH, h] = w_max * (_ONE + w_max_dtod * normal_lane(word, 2))
    if floats[_FOLD] != _ZERO:
        for k in range(count):
            h = np.uint64(k)
            f[UP, h], f[DOWN, h] = abs(f[UP, h]), abs(f[DOWN, h])
            f[LOW, h], f[HIGH, h] = -abs(f[LOW, h]), abs(f[HIGH, h])
    if law == LINEAR:
        _linear_cells(f, words, count, floats)
    elif law == _EXPONENTIAL:
        whole = _TWO * floats[_OWN + 4]
        _over_width(f, count, whole)
    elif law == _PIECEWISE:
        _over_width(f, count, floats[_OWN] - _ONE)
    elif law == _POWER:
        gamma, gamma_dtod, spread = floats[_OWN], floats[_OWN + 1], floats[_OWN + 2]
        more_up, more_down = floats[_OWN + 3], floats[_OWN + 4]
        for k in range(count):
            h = np.uint64(k)
            gain, r = _ONE + gamma_dtod * normal_lane(words[1, h], 0), spread * normal_lane(words[1, h], 1)
            f[E0, h] = abs((gain + more_up) + r) * gamma
            f[E1, h] = abs((gain + more_down) - r) * gamma
    if floats[_STUCK] > _ZERO:
        _stick(f, words, count, floats[_STUCK], floats[_STUCK_RANGE])


@borrowing
def _linear_cells(f: Any, words: Any, count: int, floats: Any) -> None:
    """Of linear steps, or of soft bounds with their reference."""
    own = floats[_OWN : _OWN + 6]
    if own[0] == _ZERO:
        mean_bounds, w_max, w_min = own[5] != _ZERO, floats[_W_MAX], floats[_W_MIN]
        for k in range(count):
            h = np.uint64(k)
            rise = own[1] + own[2] * normal_lane(words[1, h], 0)
            fall = own[3] + own[4] * normal_lane(words[1, h], 1)
            high, low = w_max if mean_bounds else f[HIGH, h], w_min if mean_bounds else f[LOW, h]
            f[E0, h] = _per_bound(rise, high)
            f[E1, h] = _per_bound(fall, low)
        return
    up_dtod, down_dtod, mean, std, symmetric = own[1], own[2], own[3], own[4], own[5] != _ZERO
    for k in range(count):
        h = np.uint64(k)
        up, down = f[UP, h], f[DOWN, h]
        upper = f[HIGH, h] / abs(_ONE + up_dtod * normal_lane(words[1, h], 1))
        lower = f[LOW, h] / abs(_ONE + down_dtod * normal_lane(words[2, h], 3))
        r = mean + std * normal_lane(words[1, h], 0)
        e0, e1 = _per_bound(_ONE, upper), _per_bound(_ONE, lower)
        slopes = down * e1 - up * e0
        point = (up - down) / slopes if slopes > _ZERO else _ZERO
        r = r + point if symmetric else r
        f[LOW, h] = lower - r
        f[HIGH, h] = upper - r
        f[E0, h] = e0
        f[E1, h] = e1


@borrowing
def _over_width(f: Any, count: int, whole: Any) -> None:
    """e0 = whole / (upper - lower), 0 where there is no room."""
    for k in range(count):
        h = np.uint64(k)
        width = f[HIGH, h] - f[LOW, h]
        f[E0, h] = whole / width if width > _ZERO else _ZERO


@borrowing
def _stick(f: Any, words: Any, count: int, share: Any, reach: Any) -> None:
    """Cells that nothing moves."""
    for k in range(count):
        h = np.uint64(k)
        stuck = _uniform_lane(words[1, h], 2) < share
        low = min(max(-reach, f[LOW, h]), f[HIGH, h])
        high = min(max(reach, f[LOW, h]), f[HIGH, h])
        value = low + (high - low) * _uniform_lane(words[1, h], 3)
        f[LOW, h] = value if stuck else f[LOW, h]
        f[HIGH, h] = value if stuck else f[HIGH, h]
        for part in (UP, DOWN, E0, E1):
            f[part, h] = _ZERO if stuck else f[part, h]


@inlined
def linear(w: Any, lowers: bool, step: Any, f: Any, h: Any, soft: bool, additive: bool) -> Any:
    """Mean size of a pulse that meets the weight w, and what its noise is relative to, where steps are linear."""
    slope = f[E1, h] if lowers else f[E0, h]
    bound = f[LOW, h] if lowers else f[HIGH, h]
    size = step * ((w - bound) * slope if soft else _ONE + slope * w)
    return size, step if additive else size


@borrowing
def amount(w: Any, lowers: bool, n: Any, noise: Any, f: Any, h: Any, law: int, floats: Any) -> Any:
    """Size of n pulses that meet the weight w, with noise = (std sqrt(n)) z; h is the cell's place in ``f``."""
    step = f[DOWN, h] if lowers else f[UP, h]
    size = spread = step
    if law == LINEAR:
        size, spread = linear(w, lowers, step, f, h, floats[SOFT] != _ZERO, floats[ADDITIVE] != _ZERO)
    elif law == _EXPONENTIAL:
        place = f[E0, h] * w + floats[_OWN + 5]
        gamma = -floats[_OWN + 3] if lowers else floats[_OWN + 1]
        factor = _ONE - (floats[_OWN + 2] if lowers else floats[_OWN]) * exp(gamma * place)
        size = step * (factor if factor > _ZERO else _ZERO)
        spread = (floats[_OWN + 6] + size) + floats[_OWN + 7] * abs(w)
    elif law == _POWER:
        width = f[HIGH, h] - f[LOW, h]
        distance = w - f[LOW, h] if lowers else f[HIGH, h] - w
        share = max(distance, _ZERO) / (width if width > _ZERO else _ONE)
        size = spread = step * power(min(share, _ONE), f[E1, h] if lowers else f[E0, h])
    elif law == _PIECEWISE:
        last = floats[_OWN] - _ONE
        place = min(max((w - f[LOW, h]) * f[E0, h], _ZERO), last)
        node = min(np.int32(place), np.int32(last) - np.int32(1))
        part = place - np.float32(node)
        at = _OWN + 1 + np.int64(node) + (np.int64(last) + 1 if lowers else 0)
        size = spread = step * ((_ONE - part) * floats[at] + part * floats[at + 1])
    return size * n + spread * noise


@inlined
def moved(w: Any, lowers: bool, by: Any, low: Any, high: Any) -> Any:
    """The weight after a change, clipped to its bounds; one that is at a bound keeps the sign of its 0."""
    new = w - by if lowers else w + by
    new = low if new < low else new
    return high if new > high else new


@borrowing
def fired(w: Any, lowers: bool, z: Any, f: Any, h: Any, law: int, floats: Any) -> Any:
    """The weight after one pulse with step noise z; h is the cell's place in ``f``."""
    by = amount(w, lowers, _ONE, floats[STD] * z, f, h, law, floats)
    return moved(w, lowers, by, f[LOW, h], f[HIGH, h])
