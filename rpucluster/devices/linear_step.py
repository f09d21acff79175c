"""Steps that shrink linearly with the weight, and soft bounds, where they reach 0 at the bound."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rpucluster.devices.base import Cells, Int16, Law, require, require_flags
from rpucluster.devices.pulsed import F32, Pulsed, normal


@dataclass(frozen=True, kw_only=True)
class LinearStep(Pulsed):
    """A step of size up (1 + e0 w) upwards and down (1 + e1 w) downwards, w the weight.

    e0 = -|gamma_up + gamma_up_dtod z4| / w_max and e1 = -|gamma_down + gamma_down_dtod z5| / w_min, so that a gamma
    is the share of the step that is lost between weight 0 and the bound.  Formula: aihwkit's LinearStepDevice, as
    documented there.  Raises ValueError for a parameter out of range.

    Constants after the common ones: 0, gamma_up, gamma_up_dtod, gamma_down, gamma_down_dtod, mean_bound_reference.
    """

    law: ClassVar[Law] = Law.LINEAR
    step_depends_on_weight: ClassVar[bool] = True

    gamma_up: float = 0.0
    """Share of an up step that is lost at w_max.  Read as aihwkit's default."""
    gamma_up_dtod: float = 0.05
    """Device-to-device standard deviation of gamma_up, added to it.  Read as aihwkit's default."""
    gamma_down: float = 0.0
    """Share of a down step that is lost at w_min.  Read as aihwkit's default."""
    gamma_down_dtod: float = 0.05
    """Device-to-device standard deviation of gamma_down, added to it.  Read as aihwkit's default."""
    mean_bound_reference: bool = True
    """Whether gammas refer to the mean bounds, or to each device's own.  Read as aihwkit's default."""
    additive_noise: bool = False
    """Whether step noise stays that of weight 0, or shrinks with the step.  aihwkit: not mult_noise, its default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma_up", "gamma_up_dtod", "gamma_down", "gamma_down_dtod"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "a number of at least 0, such as 0.05")
        require_flags(self, "mean_bound_reference", "additive_noise")
        if self.w_min == 0 and self.mean_bound_reference:
            raise ValueError("w_min = 0.0: write a number below 0, which gamma_down refers to")

    @property
    def law_lanes(self) -> int:
        """Eight with a spread of slopes, else four."""
        return 8 if self.gamma_up_dtod + self.gamma_down_dtod > 0 else 4

    def constants(self) -> tuple[float, ...]:
        """The common ones, and those of the class."""
        own = (self.gamma_up, self.gamma_up_dtod, self.gamma_down, self.gamma_down_dtod)
        return (*self.common_constants(), 0.0, *own, float(self.mean_bound_reference))

    def cells(self, lanes: Int16) -> Cells:
        """Tolerances of n cells from their lanes, int16 (lanes, n): e0 and e1 as the class says."""
        cells = self.common_cells(lanes)
        rise, fall = np.full_like(cells.up, F32(self.gamma_up)), np.full_like(cells.up, F32(self.gamma_down))
        if self.law_lanes > 4:
            rise = rise + F32(self.gamma_up_dtod) * normal(lanes[4])
            fall = fall + F32(self.gamma_down_dtod) * normal(lanes[5])
        high, low = (F32(self.w_max), F32(self.w_min)) if self.mean_bound_reference else (cells.upper, cells.lower)
        return self.with_stuck(cells._replace(e0=per_bound(rise, high), e1=per_bound(fall, low)), lanes)

    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """Mean size of one pulse that meets the weight w; float32."""
        return np.where(lowers, cells.down, cells.up) * (F32(1) + np.where(lowers, cells.e1, cells.e0) * w)

    def spread(self, w: Any, lowers: Any, size: Any, cells: Cells) -> Any:
        """What step noise is relative to."""
        return np.where(lowers, cells.down, cells.up) if self.additive_noise else size


@dataclass(frozen=True, kw_only=True)
class SoftBounds(Pulsed):
    """A step of size up (w - upper) e0 upwards and down (w - lower) e1 downwards, with e0 = -1 / upper and
    e1 = -1 / lower: it shrinks linearly with the weight and reaches 0 at the bound.

    Formula: aihwkit's SoftBoundsDevice, as documented there; the model is that of Fusi and Abbott, Nature Neuroscience
    10, 485-493 (2007).  Raises ValueError for a parameter out of range.  Constants after the common ones: 1.
    """

    law: ClassVar[Law] = Law.LINEAR
    step_depends_on_weight: ClassVar[bool] = True

    additive_noise: bool = False
    """Whether step noise stays that of weight 0, or shrinks with the step.  aihwkit: not mult_noise, its default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_flags(self, "additive_noise")

    def constants(self) -> tuple[float, ...]:
        """The common ones, and 1: the step is 0 at the bound."""
        return (*self.common_constants(), 1.0)

    def cells(self, lanes: Int16) -> Cells:
        """Tolerances of n cells from their lanes, int16 (lanes, n): e0 and e1 as the class says."""
        cells = self.common_cells(lanes)
        e0, e1 = per_bound(F32(1), cells.upper), per_bound(F32(1), cells.lower)
        return self.with_stuck(cells._replace(e0=e0, e1=e1), lanes)

    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """Mean size of one pulse that meets the weight w; float32."""
        return soft_step(w, lowers, cells)

    def spread(self, w: Any, lowers: Any, size: Any, cells: Cells) -> Any:
        """What step noise is relative to."""
        return np.where(lowers, cells.down, cells.up) if self.additive_noise else size


def per_bound(gamma: Any, bound: Any) -> Any:
    """-|gamma| / bound, and 0 for a bound of 0, which leaves no room for a slope."""
    room = bound != 0
    return np.where(room, -np.abs(gamma) / np.where(room, bound, F32(1)), F32(0))


def soft_step(w: Any, lowers: Any, cells: Cells) -> Any:
    """Mean size of one pulse between soft bounds: the step times (w - bound) times the number of the law."""
    bound, slope = np.where(lowers, cells.lower, cells.upper), np.where(lowers, cells.e1, cells.e0)
    return np.where(lowers, cells.down, cells.up) * ((w - bound) * slope)
