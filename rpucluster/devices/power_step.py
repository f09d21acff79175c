"""Steps that fall as a power of the distance to the bound."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rpucluster.devices.base import Cells, Int16, Law, require
from rpucluster.devices.pulsed import F32, Pulsed, normal
from rpucluster.elementary import power


@dataclass(frozen=True, kw_only=True)
class PowerStep(Pulsed):
    """A step of size up ((upper - w) / (upper - lower))^e0 upwards, down ((w - lower) / (upper - lower))^e1 downwards.

    e0 = |pow_gamma (1 + bias + pow_gamma_dtod z4 + pow_up_down_dtod z5)|, and e1 the same with the other bias and the
    last term taken off; the biases are those of ``up_down``: a positive pow_up_down lowers e1, a negative one e0.
    dw_min is the step at the opposite bound, not at weight 0.  Formula: aihwkit's PowStepDevice, as documented there
    (which exponent a bias lowers as measured there), after Fusi and Abbott, Nature Neuroscience 10, 485-493 (2007), and
    Frascaroli et al., Scientific Reports 8, 7178 (2018).  Raises ValueError for a parameter out of range.

    Constants after the common ones: pow_gamma, pow_gamma_dtod, pow_up_down_dtod, bias of e0, bias of e1.
    """

    law: ClassVar[Law] = Law.POWER
    step_depends_on_weight: ClassVar[bool] = True

    pow_gamma: float = 1.0
    """Mean exponent, 0 to 16.  Read as aihwkit's default."""
    pow_gamma_dtod: float = 0.1
    """Device-to-device standard deviation of both exponents together.  Read as aihwkit's default."""
    pow_up_down: float = 0.0
    """Systematic difference of the exponents, between -1 and 1.  Read as aihwkit's default."""
    pow_up_down_dtod: float = 0.0
    """Device-to-device standard deviation of that difference.  Read as aihwkit's default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require("pow_gamma", self.pow_gamma, 0 <= self.pow_gamma <= 16, "a number from 0 to 16, such as 1.0")
        require("pow_up_down", self.pow_up_down, -1 < self.pow_up_down < 1, "a number between -1 and 1, such as 0.0")
        self.require_spread("pow_gamma_dtod", "pow_up_down_dtod")

    @property
    def granularity(self) -> float:
        """The step halfway between the bounds: dw_min 2^-pow_gamma."""
        return self.dw_min * math.pow(0.5, self.pow_gamma)

    @property
    def law_lanes(self) -> int:
        """Eight with a spread of exponents, else four."""
        return 8 if self.pow_gamma_dtod + self.pow_up_down_dtod > 0 else 4

    def constants(self) -> tuple[float, ...]:
        """The common ones, and those of the class."""
        bias_up, bias_down = min(self.pow_up_down, 0.0), min(-self.pow_up_down, 0.0)
        own = (self.pow_gamma, self.pow_gamma_dtod, self.pow_up_down_dtod, bias_up, bias_down)
        return (*self.common_constants(), *own)

    def cells(self, lanes: Int16) -> Cells:
        """Tolerances of n cells from their lanes, int16 (lanes, n): e0 and e1 as the class says."""
        cells = self.common_cells(lanes)
        gamma, gamma_dtod, up_down_dtod, bias_up, bias_down = (F32(constant) for constant in self.constants()[-5:])
        gain, r = np.ones_like(cells.up), np.zeros_like(cells.up)
        if self.law_lanes > 4:
            gain, r = gain + gamma_dtod * normal(lanes[4]), up_down_dtod * normal(lanes[5])
        e0 = np.abs((gain + bias_up) + r) * gamma
        e1 = np.abs((gain + bias_down) - r) * gamma
        return self.with_stuck(cells._replace(e0=e0, e1=e1), lanes)

    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """Mean size of one pulse that meets the weight w; float32."""
        width = cells.upper - cells.lower
        distance = np.where(lowers, w - cells.lower, cells.upper - w)
        # a weight outside the bounds, or bounds in one place, must not make a power of something else than 0 to 1
        share = np.minimum(np.maximum(distance, F32(0)) / np.where(width > 0, width, F32(1)), F32(1))
        return np.where(lowers, cells.down, cells.up) * power(share, np.where(lowers, cells.e1, cells.e0))
