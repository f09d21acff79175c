"""Digital layers: what the digital units compute between the arrays, each forward beside its backward.

Everything is elementwise or per sample, in float32 with one rounding per written operation, so a value depends neither
on how a layer is split over accelerators nor on which processor or compiled loop computes it.  Derivatives are written
in terms of the activation itself, which is what an accelerator keeps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rpucluster.elementary import exp

Array = Any  # a NumPy or CuPy array

# Fitted at Chebyshev nodes: tanh(m) = m + m^3 (TANH[0] + TANH[1] m^2 + ...) for |m| < TANH_LIMIT
TANH: Final = (
    -0.333333283662796, 0.13332782685756683, -0.05385249853134155, 0.021003641188144684, -0.006104947999119759,
)  # fmt: skip
TANH_LIMIT: Final = 0.625
SIGMOID_LOWEST: Final = -80.0
"""Where a sigmoid is 0 to 34 decimals; below it its exponential would overflow."""


@dataclass(frozen=True, kw_only=True)
class Activation:
    """An elementwise function and its backward, on float32 arrays."""

    code: int
    """What compiled code knows it by."""
    forward: Callable[[Any, Array], Array]
    """`(array module, y) -> a`, same shape."""
    backward: Callable[[Any, Array, Array], Array]
    """`(array module, a, dLoss/da) -> dLoss/dy`, same shape."""


def _identity(xp: Any, y: Array) -> Array:
    return y


def _identity_backward(xp: Any, a: Array, g: Array) -> Array:
    return g


def _sigmoid(xp: Any, y: Array) -> Array:
    return np.float32(1) / (np.float32(1) + exp(-xp.maximum(y, np.float32(SIGMOID_LOWEST))))


def _sigmoid_backward(xp: Any, a: Array, g: Array) -> Array:
    return g * (a * (np.float32(1) - a))


def _tanh(xp: Any, y: Array) -> Array:
    size = xp.abs(y)
    m = xp.minimum(size, np.float32(1))
    square = m * m
    q = xp.full_like(square, np.float32(TANH[-1]))
    for coefficient in TANH[-2::-1]:
        q = q * square + np.float32(coefficient)
    near = m + (m * square) * q
    e = exp(xp.minimum(size, np.float32(-SIGMOID_LOWEST)) * np.float32(-2))
    far = (np.float32(1) - e) / (np.float32(1) + e)
    value = xp.where(size < np.float32(TANH_LIMIT), near, far)
    return xp.where(y < np.float32(0), -value, value)


def _tanh_backward(xp: Any, a: Array, g: Array) -> Array:
    return g * (np.float32(1) - a * a)


def _relu(xp: Any, y: Array) -> Array:
    return xp.where(y > np.float32(0), y, np.float32(0))


def _relu_backward(xp: Any, a: Array, g: Array) -> Array:
    return xp.where(a > np.float32(0), g, np.float32(0))


IDENTITY, SIGMOID, TANH_CODE, RELU = range(4)
ACTIVATIONS = {
    "identity": Activation(code=IDENTITY, forward=_identity, backward=_identity_backward),
    "sigmoid": Activation(code=SIGMOID, forward=_sigmoid, backward=_sigmoid_backward),
    "tanh": Activation(code=TANH_CODE, forward=_tanh, backward=_tanh_backward),
    "relu": Activation(code=RELU, forward=_relu, backward=_relu_backward),
}


def softmax_cross_entropy(xp: Any, y: Array, labels: Array) -> tuple[float, int, Array]:
    """Loss, hits and error of a batch.

    `y` are the logits, float32 (B, classes); `labels` int64, shape (B,).  Returns the sum of the losses over the
    batch (in nats), how many samples have their label on top, and dLoss/dy per sample, shape (B, classes):
    softmax minus one-hot, not divided by B, since every sample is an update of its own.
    """
    batch = xp.arange(len(labels))
    shifted = y - y.max(axis=1, keepdims=True)  # (B, classes)
    powers = exp(shifted)
    sums = xp.cumsum(powers, axis=1)[:, -1:]  # (B, 1), added from left to right
    delta = powers / sums
    losses = xp.log(sums[:, 0].astype(np.float64)) - shifted[batch, labels]  # (B,)
    hits = int((y.argmax(axis=1) == labels).sum())
    delta[batch, labels] -= np.float32(1)
    return float(losses.sum()), hits, delta
