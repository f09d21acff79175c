"""Digital units on a GPU: the launches of digital.cu."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rpucluster.errors import NumericalError
from rpucluster.kernels.base import overflow_message
from rpucluster.layers import ACTIVATIONS

_THREADS = 128


class CudaDigital:
    """Digital units on arrays of ``xp``; ``function`` gives the launcher of a kernel of digital.cu by name."""

    def __init__(self, xp: Any, function: Callable[[str], Any]) -> None:
        self._xp, self._function = xp, function

    def convert(self, sums: Any, out: Any) -> None:
        """Fixed-point sums as numbers."""
        self.activate("identity", sums, None, out)

    def activate(self, function: str, sums: Any, bias: Any, out: Any) -> None:
        """Sums, bias and activation function."""
        status = self._xp.zeros(1, "i4")
        self._launch("digital_activate", sums.size, (
            sums, _stride(sums), status if bias is None else bias, np.int32(bias is not None),
            np.int32(ACTIVATIONS[function].code), *_shape(sums), out, _stride(out), status,
        ))  # fmt: skip
        if int(status[0]):
            raise NumericalError(overflow_message())

    def derive(self, function: str, activation: Any, error: Any, out: Any) -> None:
        """The backward of an activation function."""
        self._launch("digital_derive", out.size, (
            activation, _stride(activation), error, _stride(error), np.int32(ACTIVATIONS[function].code),
            *_shape(out), out, _stride(out),
        ))  # fmt: skip

    def score(self, logits: Any, labels: Any, out: Any) -> tuple[float, int]:
        """Softmax and cross-entropy."""
        xp, vectors = self._xp, len(logits)
        sums, exponents = xp.empty((2, vectors), "f4")
        hits = xp.empty(vectors, "i4")
        self._launch("digital_score", vectors, (
            logits, _stride(logits), labels, *_shape(logits), out, _stride(out), sums, exponents, hits,
        ))  # fmt: skip
        return float((xp.log(sums.astype("f8")) - exponents).sum()), int(hits.sum())

    def _launch(self, name: str, threads: int, arguments: tuple[Any, ...]) -> None:
        if threads:
            self._function(name)((-(-threads // _THREADS),), (_THREADS,), arguments)


def _stride(array: Any) -> Any:
    """Elements from one vector to the next."""
    return np.int64(array.strides[0] // array.itemsize)


def _shape(array: Any) -> tuple[Any, Any]:
    return np.int32(array.shape[0]), np.int32(array.shape[1])
