"""Exact digital weights: the control experiment."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class FloatingPoint:
    """float32 weights without pulses, bounds, converters or noise: plain stochastic gradient descent."""

    pulsed: ClassVar[bool] = False
    step_depends_on_weight: ClassVar[bool] = False
    persistent: ClassVar[tuple[str, ...]] = ("weights",)

    @property
    def dw_min(self) -> float:
        """No smallest step: 0."""
        return 0.0

    @property
    def dw_min_std(self) -> float:
        """No step noise: 0."""
        return 0.0
