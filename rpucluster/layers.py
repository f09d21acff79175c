"""Digital layers: what the digital units compute between the arrays, each forward beside its backward.

Everything is elementwise or per sample, in float32, so a value does not depend on how a layer is split over
accelerators.  Derivatives are written in terms of the activation itself, which is what an accelerator keeps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Array = Any  # a NumPy or CuPy array


@dataclass(frozen=True, kw_only=True)
class Activation:
    """An elementwise function and its backward."""

    forward: Callable[[Any, Array], Array]
    """`(array module, y) -> a`, same shape."""
    backward: Callable[[Any, Array, Array], Array]
    """`(array module, a, dLoss/da) -> dLoss/dy`, same shape."""


def _identity(xp: Any, y: Array) -> Array:
    return y


def _identity_backward(xp: Any, a: Array, g: Array) -> Array:
    return g


def _sigmoid(xp: Any, y: Array) -> Array:
    # below -80 the exponential would overflow float32; the sigmoid is 0 to 35 decimals there
    return 1 / (1 + xp.exp(-xp.maximum(y, xp.float32(-80))))


def _sigmoid_backward(xp: Any, a: Array, g: Array) -> Array:
    return g * (a * (1 - a))


def _tanh(xp: Any, y: Array) -> Array:
    return xp.tanh(y)


def _tanh_backward(xp: Any, a: Array, g: Array) -> Array:
    return g * (1 - a * a)


def _relu(xp: Any, y: Array) -> Array:
    return xp.maximum(y, xp.float32(0))


def _relu_backward(xp: Any, a: Array, g: Array) -> Array:
    return g * (a > 0)


ACTIVATIONS = {
    "identity": Activation(forward=_identity, backward=_identity_backward),
    "sigmoid": Activation(forward=_sigmoid, backward=_sigmoid_backward),
    "tanh": Activation(forward=_tanh, backward=_tanh_backward),
    "relu": Activation(forward=_relu, backward=_relu_backward),
}


def softmax_cross_entropy(xp: Any, y: Array, labels: Array) -> tuple[float, int, Array]:
    """Loss, hits and error of a batch.

    `y` are the logits, shape (B, classes); `labels` int64, shape (B,).  Returns the sum of the losses over the
    batch (in nats), how many samples have their label on top, and dLoss/dy per sample, shape (B, classes):
    softmax minus one-hot, not divided by B, since every sample is an update of its own.
    """
    batch = xp.arange(len(labels))
    shifted = y - y.max(axis=1, keepdims=True)  # (B, classes)
    powers = xp.exp(shifted)
    sums = powers.sum(axis=1, keepdims=True)  # (B, 1)
    delta = powers / sums
    losses = xp.log(sums[:, 0]) - shifted[batch, labels]  # (B,)
    hits = int((y.argmax(axis=1) == labels).sum())
    delta[batch, labels] -= 1
    return float(losses.sum(dtype=xp.float64)), hits, delta
