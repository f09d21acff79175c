"""Steps that change exponentially with the weight, as those of ReRAM, PCM and CMOS-like devices."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rpucluster.devices.base import Cells, Int16, Law, require
from rpucluster.devices.pulsed import F32, Pulsed
from rpucluster.elementary import EXP_MAX, exp


@dataclass(frozen=True, kw_only=True)
class ExponentialStep(Pulsed):
    """A step of size up max(1 - a_up exp(gamma_up z), 0), or down max(1 - a_down exp(-gamma_down z), 0).

    z = e0 w + b is the weight as scaled to the range of its device, e0 = 2 a / (upper - lower).  Step noise has the
    standard deviation dw_min_std (dw_min_std_add + |step| + dw_min_std_slope |w|), which with 0 for the two is
    that of every device.  Formula: aihwkit's ExpStepDevice, as documented there; fits of it are the `reram-es` and
    `pcm` presets.  Raises ValueError for a parameter out of range.

    Constants after the common ones: a_up, gamma_up, a_down, gamma_down, a, b, dw_min_std_add, dw_min_std_slope.
    """

    law: ClassVar[Law] = Law.EXPONENTIAL
    step_depends_on_weight: ClassVar[bool] = True

    a_up: float = 0.00081
    """Factor of the exponential of up steps; negative ones make steps larger.  Read as aihwkit's default."""
    gamma_up: float = 12.44625
    """Steepness of up steps.  Read as aihwkit's default."""
    a_down: float = 0.36833
    """The factor of down steps.  Read as aihwkit's default."""
    gamma_down: float = 12.78785
    """The steepness of down steps.  Read as aihwkit's default."""
    a: float = 0.244
    """Half the change of z over the range of a device.  Read as aihwkit's default."""
    b: float = 0.2425
    """z at weight 0.  Read as aihwkit's default."""
    dw_min_std_add: float = 0.0
    """Part of the step noise that depends on nothing, weight units; at least 0.  Read as aihwkit's default."""
    dw_min_std_slope: float = 0.0
    """Step noise for each unit of weight; at least 0.  Read as aihwkit's default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("a_up", "gamma_up", "a_down", "gamma_down", "a", "b"):
            require(name, getattr(self, name), True, "a number")
        for name in ("dw_min_std_add", "dw_min_std_slope"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "a number of at least 0, such as 0.05")

    @property
    def granularity(self) -> float:
        """The mean down step at weight 0, and dw_min where that is 0."""
        factor = max(1 - self.a_down * math.exp(min(-self.gamma_down * self.b, EXP_MAX)), 0.0)
        return self.dw_min * (1 + min(-self.up_down, 0.0)) * factor or self.dw_min

    def constants(self) -> tuple[float, ...]:
        """The common ones, and those of the class."""
        own = (self.a_up, self.gamma_up, self.a_down, self.gamma_down, self.a, self.b)
        return (*self.common_constants(), *own, self.dw_min_std_add, self.dw_min_std_slope)

    def cells(self, lanes: Int16) -> Cells:
        """Tolerances of n cells from their lanes, int16 (lanes, n): e0 as the class says."""
        cells = self.common_cells(lanes)
        width = cells.upper - cells.lower
        room = width > 0
        e0 = np.where(room, (F32(2) * F32(self.a)) / np.where(room, width, F32(1)), F32(0))
        return self.with_stuck(cells._replace(e0=e0), lanes)

    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """Mean size of one pulse that meets the weight w; float32."""
        z = cells.e0 * w + F32(self.b)
        gamma = np.where(lowers, -F32(self.gamma_down), F32(self.gamma_up))
        factor = F32(1) - np.where(lowers, F32(self.a_down), F32(self.a_up)) * exp(gamma * z)
        return np.where(lowers, cells.down, cells.up) * np.maximum(factor, F32(0))

    def spread(self, w: Any, lowers: Any, size: Any, cells: Cells) -> Any:
        """What step noise is relative to."""
        if self.dw_min_std_add == 0 and self.dw_min_std_slope == 0:
            return size
        return (F32(self.dw_min_std_add) + size) + F32(self.dw_min_std_slope) * np.abs(w)
