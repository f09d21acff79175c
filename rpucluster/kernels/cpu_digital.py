"""What the digital units compute, compiled: the operations of `rpucluster.layers`, one by one, on flat spans."""

import math
from typing import Any

import numpy as np

from rpucluster import layers
from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_elementary import exp
from rpucluster.kernels.cpu_random import compiled, types

_ZERO, _ONE, _MINUS_TWO = np.float32(0), np.float32(1), np.float32(-2)
_T0, _T1, _T2, _T3, _T4 = (np.float32(c) for c in layers.TANH)
_TANH_LIMIT = np.float32(layers.TANH_LIMIT)
_LOWEST, _HIGHEST = np.float32(layers.SIGMOID_LOWEST), np.float32(-layers.SIGMOID_LOWEST)


_I, _F4 = types.int64, types.float32[::1]


@apart(compiled, types.void, _I, _F4)
def activate(code: int, values: Any) -> None:
    """An activation function, in place on a float32 span."""
    if code == layers.SIGMOID:
        for j in range(len(values)):
            values[j] = _ONE / (_ONE + exp(-max(values[j], _LOWEST)))
    elif code == layers.TANH_CODE:
        for j in range(len(values)):
            y = values[j]
            size = abs(y)
            m = min(size, _ONE)
            square = m * m
            near = m + (m * square) * ((((_T4 * square + _T3) * square + _T2) * square + _T1) * square + _T0)
            e = exp(min(size, _HIGHEST) * _MINUS_TWO)
            far = (_ONE - e) / (_ONE + e)
            value = near if size < _TANH_LIMIT else far
            values[j] = -value if y < _ZERO else value
    elif code == layers.RELU:
        for j in range(len(values)):
            values[j] = values[j] if values[j] > _ZERO else _ZERO


@apart(compiled, types.void, _I, _F4, _F4, _F4)
def derive(code: int, activation: Any, error: Any, delta: Any) -> None:
    """The backward of an activation function: the error before it from the error behind it, float32 spans."""
    if code == layers.SIGMOID:
        for j in range(len(delta)):
            a = activation[j]
            delta[j] = error[j] * (a * (_ONE - a))
    elif code == layers.TANH_CODE:
        for j in range(len(delta)):
            a = activation[j]
            delta[j] = error[j] * (_ONE - a * a)
    elif code == layers.RELU:
        for j in range(len(delta)):
            delta[j] = error[j] if activation[j] > _ZERO else _ZERO
    else:
        for j in range(len(delta)):
            delta[j] = error[j]


@apart(compiled, types.Tuple([types.float64, types.boolean]), _F4, _I, _F4)
def score(logits: Any, label: int, error: Any) -> Any:
    """Softmax and cross-entropy of one sample: its loss in nats and whether it is a hit; ``error`` gets dLoss/dy."""
    top = np.int64(0)
    for j in range(len(logits)):
        if logits[j] > logits[top]:
            top = np.int64(j)
    most = logits[top]
    total = _ZERO
    for j in range(len(logits)):
        power = exp(logits[j] - most)
        error[j] = power
        total += power
    for j in range(len(logits)):
        error[j] = error[j] / total
    error[label] -= _ONE
    return math.log(np.float64(total)) - np.float64(logits[label] - most), top == label
