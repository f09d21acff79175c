"""Digital units on a GPU: the launches of digital.cu."""

from typing import Any

import numpy as np

from rpucluster.kernels.cuda_launch import (
    HITS,
    LOSS,
    Functions,
    Launch,
    Place,
    Take,
    alone,
    check,
    perform,
    shape,
    spread,
    stride,
)
from rpucluster.layers import ACTIVATIONS


def activate(place: Place, code: int, sums: Any, bias: Any, out: Any) -> list[Launch]:
    """``out`` becomes the activation function of sums int64 and a bias, or None."""
    status = place.shared.status
    return spread(
        "digital_activate", sums.size, sums, stride(sums), status if bias is None else bias,
        np.int32(bias is not None), np.int32(code), *shape(sums), out, stride(out), status, place.mark,
    )  # fmt: skip


def derive(code: int, activation: Any, error: Any, out: Any) -> list[Launch]:
    """``out`` becomes the error before an activation function."""
    return spread(
        "digital_derive", out.size, activation, stride(activation), error, stride(error), np.int32(code), *shape(out),
        out, stride(out),
    )  # fmt: skip


def score(take: Take, place: Place, logits: Any, labels: Any, out: Any, reports: bool) -> list[Launch]:
    """``out`` becomes the error; loss and hits are added up where they are reported.  Without ``labels`` the clock says
    whose they are."""
    vectors = len(logits)
    losses, hits, status = take(vectors, "f8"), take(vectors, "i4"), place.shared.status
    found = spread(
        "digital_score", vectors, logits, stride(logits), status if labels is None else labels,
        np.int32(labels is None), place.shared.clock, place.sample, *shape(logits), out, stride(out), losses, hits,
        status,
    )  # fmt: skip
    if reports:
        found.append(
            Launch("digital_tally", (1,), (32,), (
                np.int32(vectors), losses, hits, place.shared.sums[LOSS:], place.shared.counts[HITS:], status,
            ))
        )  # fmt: skip
    return found


class CudaDigital:
    """Digital units on arrays of ``xp``, operation by operation."""

    def __init__(self, xp: Any, function: Functions) -> None:
        self._xp, self._function = xp, function

    def convert(self, sums: Any, out: Any) -> None:
        """Fixed-point sums as numbers."""
        self.activate("identity", sums, None, out)

    def activate(self, function: str, sums: Any, bias: Any, out: Any) -> None:
        """Sums, bias and activation function."""
        place = alone(self._xp, 0)
        perform(self._function, activate(place, ACTIVATIONS[function].code, sums, bias, out))
        check(place.shared.status)

    def derive(self, function: str, activation: Any, error: Any, out: Any) -> None:
        """The backward of an activation function."""
        perform(self._function, derive(ACTIVATIONS[function].code, activation, error, out))

    def score(self, logits: Any, labels: Any, out: Any) -> tuple[float, int]:
        """Softmax and cross-entropy."""
        place = alone(self._xp, 0)
        perform(self._function, score(self._xp.empty, place, logits, labels, out, True))
        return float(place.shared.sums[LOSS]), int(place.shared.counts[HITS])
