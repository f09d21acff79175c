"""The device of Gokmen and Vlasov (2016): a step of fixed mean size between hard bounds."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rpucluster.devices.base import LANE_UNIT, Cells, Int16, Law, require


@dataclass(frozen=True, kw_only=True)
class ConstantStep:
    """A resistive device whose step does not depend on its weight; lengths are in weight units.

    The defaults are the paper's combined model ("RPU baseline"): 1200 steps between the mean bounds, every
    spread 30 percent, up and down steps equal within 2 percent.  Raises ValueError for a parameter out of range.
    Sources: paper = Gokmen and Vlasov, Front. Neurosci. 10:333 (2016); aihwkit = the defaults of IBM's
    simulator, of the same group, which says that it follows the paper.
    """

    pulsed: ClassVar[bool] = True
    step_depends_on_weight: ClassVar[bool] = False
    law: ClassVar[Law] = Law.CONSTANT
    persistent: ClassVar[tuple[str, ...]] = ("weights",)

    dw_min: float = 0.001
    """Mean weight change of one coincidence; above 0.  Source: read as aihwkit's default."""
    dw_min_dtod: float = 0.3
    """Device-to-device standard deviation of the step, relative; at least 0.  Read as aihwkit's default."""
    dw_min_std: float = 0.3
    """Cycle-to-cycle standard deviation of one step, relative to the device's own; at least 0.

    One step of a device with a large value may change sign.  Read as aihwkit's default.
    """
    w_max: float = 0.6
    """Mean upper bound of the weight; above 0.  Read as aihwkit's default."""
    w_max_dtod: float = 0.3
    """Device-to-device standard deviation of the upper bound, relative.  Read as aihwkit's default."""
    w_min: float = -0.6
    """Mean lower bound of the weight; below 0, drawn independently of the upper.  Read as aihwkit's default."""
    w_min_dtod: float = 0.3
    """Device-to-device standard deviation of the lower bound, relative.  Read as aihwkit's default."""
    up_down: float = 0.0
    """Systematic asymmetry, between -1 and 1: positive weakens every down step by this share, negative every up
    step.  The paper's mean is 0; that one direction alone weakens was measured on aihwkit."""
    up_down_dtod: float = 0.01
    """Device-to-device standard deviation of the asymmetry, added to one direction and taken from the other,
    so that the ratio of the two steps spreads by twice as much: 2 percent as restated by Haensch et al. (2019)."""

    def __post_init__(self) -> None:
        require("dw_min", self.dw_min, self.dw_min > 0, "a number above 0, such as 0.001")
        for name in ("dw_min_dtod", "dw_min_std", "w_max_dtod", "w_min_dtod", "up_down_dtod"):
            value = getattr(self, name)
            require(name, value, value >= 0, "a relative spread of at least 0, such as 0.3")
        require("w_max", self.w_max, self.w_max > 0, "a number above 0, such as 0.6")
        require("w_min", self.w_min, self.w_min < 0, "a number below 0, such as -0.6")
        require("up_down", self.up_down, -1 < self.up_down < 1, "a number between -1 and 1, such as 0.0")

    @property
    def lanes(self) -> int:
        """Four normals: step, asymmetry, upper bound, lower bound."""
        return 4

    def constants(self) -> tuple[float, ...]:
        """dw_min and its spread, spread of the asymmetry, its mean as added to up and to down, bounds with spreads."""
        return (
            self.dw_min, self.dw_min_dtod, self.up_down_dtod, min(self.up_down, 0.0), min(-self.up_down, 0.0),
            self.w_max, self.w_max_dtod, self.w_min, self.w_min_dtod,
        )  # fmt: skip

    def cells(self, lanes: Int16) -> Cells:
        """Tolerances of n cells from their lanes z0 to z3, int16 (4, n).

        gain = 1 + dw_min_dtod z0, r = up_down_dtod z1, steps dw_min |gain + bias +- r|, bounds
        |w_max (1 + w_max_dtod z2)| and -|w_min (1 + w_min_dtod z3)| (aihwkit's construction).
        """
        one = np.float32(1)
        dw_min, dw_min_dtod, up_down_dtod, bias_up, bias_down, w_max, w_max_dtod, w_min, w_min_dtod = (
            np.float32(constant) for constant in self.constants()
        )
        z = lanes.astype(np.float32) * np.float32(LANE_UNIT)
        gain, r = one + dw_min_dtod * z[0], up_down_dtod * z[1]
        nothing = np.zeros_like(gain)
        return Cells(
            up=np.abs((gain + bias_up) + r) * dw_min,
            down=np.abs((gain + bias_down) - r) * dw_min,
            lower=-np.abs(w_min * (one + w_min_dtod * z[3])),
            upper=np.abs(w_max * (one + w_max_dtod * z[2])),
            e0=nothing,
            e1=nothing,
        )

    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """The cell's step of that direction, wherever the weight is."""
        return np.where(lowers, cells.down, cells.up)
