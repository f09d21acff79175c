"""What the digital units compute on windows of values, where no compiled tape does."""

from typing import Any, Protocol

import numpy as np

from rpucluster.kernels import cpu
from rpucluster.layers import ACTIVATIONS, softmax_cross_entropy


class Digital(Protocol):
    """Digital units; every array has shape (vectors, width) and may be a window of something larger."""

    def convert(self, sums: Any, out: Any) -> None:
        """Fixed-point sums int64 into float32 ``out``.  Raises `NumericalError` beyond 2^22."""
        ...

    def activate(self, function: str, sums: Any, bias: Any, out: Any) -> None:
        """The activation function of sums and a bias float32 (width,) or None.  Raises as `convert` does."""
        ...

    def derive(self, function: str, activation: Any, error: Any, out: Any) -> None:
        """The error before an activation function from the error behind it."""
        ...

    def score(self, logits: Any, labels: Any, out: Any) -> tuple[float, int]:
        """Loss and hits of labels int64 (vectors,); ``out`` gets the error."""
        ...


class HostDigital:
    """Digital units on NumPy arrays."""

    def convert(self, sums: Any, out: Any) -> None:
        """Fixed-point sums as numbers."""
        out[:] = cpu.from_fixed(sums)

    def activate(self, function: str, sums: Any, bias: Any, out: Any) -> None:
        """Sums, bias and activation function."""
        y = cpu.from_fixed(sums)
        if bias is not None:
            y += bias
        out[:] = ACTIVATIONS[function].forward(np, y)

    def derive(self, function: str, activation: Any, error: Any, out: Any) -> None:
        """The backward of an activation function."""
        out[:] = ACTIVATIONS[function].backward(np, activation, error)

    def score(self, logits: Any, labels: Any, out: Any) -> tuple[float, int]:
        """Softmax and cross-entropy."""
        loss, hits, out[:] = softmax_cross_entropy(np, logits, labels)
        return loss, hits
