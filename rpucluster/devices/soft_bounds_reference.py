"""Soft bounds, with the conductance of a reference device subtracted from the weight."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rpucluster.devices.base import Cells, Int16, Law, require, require_flags
from rpucluster.devices.linear_step import per_bound, soft_step
from rpucluster.devices.pulsed import F32, Pulsed, normal


@dataclass(frozen=True, kw_only=True)
class SoftBoundsReference(Pulsed):
    """Soft bounds whose weight is read as the difference w = g - r of a device g and its fixed reference r.

    g obeys `SoftBounds` between its own bounds, each divided by |1 + slope_dtod z| of its direction, so that the slopes
    spread beyond the bounds.  r = reference_mean + reference_std z4, plus the symmetry point if that is subtracted: the
    weight (up - down) / (up / upper - down / lower) at which up and down steps are equal.  So all that the weight w
    knows of r is that its bounds are shifted by it, and that e0 = -1 / upper and e1 = -1 / lower are those of g.

    Formula: aihwkit's SoftBoundsReferenceDevice, as documented there; slope spread and symmetry point as measured
    there.  Devices of Gong, Rasch et al., IEDM (2022).  Raises ValueError for a parameter out of range.

    Constants after the common ones: 1, slope_up_dtod, slope_down_dtod, reference_mean, reference_std,
    subtract_symmetry_point.
    """

    law: ClassVar[Law] = Law.LINEAR
    step_depends_on_weight: ClassVar[bool] = True

    slope_up_dtod: float = 0.0
    """Device-to-device standard deviation of the slope of up steps.  Read as aihwkit's default."""
    slope_down_dtod: float = 0.0
    """The same of down steps.  Read as aihwkit's default."""
    reference_mean: float = 0.0
    """Mean reference, weight units.  Read as aihwkit's default."""
    reference_std: float = 0.0
    """Device-to-device standard deviation of the reference, weight units.  Read as aihwkit's default."""
    subtract_symmetry_point: bool = False
    """Whether the reference holds the symmetry point of its device, apart from that.  Read as aihwkit's default."""
    additive_noise: bool = True
    """Whether step noise stays that of the full step, or shrinks with it.  aihwkit: not mult_noise, its default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_spread("slope_up_dtod", "slope_down_dtod", "reference_std")
        require("reference_mean", self.reference_mean, True, "a weight, such as 0.0")
        require_flags(self, "subtract_symmetry_point", "additive_noise")

    @property
    def law_lanes(self) -> int:
        """Four, eight for a spread of references or up slopes, twelve for one of down slopes."""
        return 12 if self.slope_down_dtod > 0 else 8 if self.reference_std + self.slope_up_dtod > 0 else 4

    def constants(self) -> tuple[float, ...]:
        """The common ones, and those of the class."""
        spreads = (self.slope_up_dtod, self.slope_down_dtod, self.reference_mean, self.reference_std)
        return (*self.common_constants(), 1.0, *spreads, float(self.subtract_symmetry_point))

    def cells(self, lanes: Int16) -> Cells:
        """Tolerances of n cells from their lanes, int16 (lanes, n): bounds shifted, e0 and e1 as the class says."""
        up, down, lower, upper, *_ = self.common_cells(lanes)
        one, r = F32(1), np.full_like(up, F32(self.reference_mean))
        if self.slope_up_dtod > 0:
            upper = upper / np.abs(one + F32(self.slope_up_dtod) * normal(lanes[5]))
        if self.slope_down_dtod > 0:
            lower = lower / np.abs(one + F32(self.slope_down_dtod) * normal(lanes[11]))
        if self.reference_std > 0:
            r = r + F32(self.reference_std) * normal(lanes[4])
        e0, e1 = per_bound(one, upper), per_bound(one, lower)
        if self.subtract_symmetry_point:
            slopes = down * e1 - up * e0
            r = r + np.where(slopes > 0, (up - down) / np.where(slopes > 0, slopes, one), F32(0))
        return self.with_stuck(Cells(up=up, down=down, lower=lower - r, upper=upper - r, e0=e0, e1=e1), lanes)

    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """Mean size of one pulse that meets the weight w; float32."""
        return soft_step(w, lowers, cells)

    def spread(self, w: Any, lowers: Any, size: Any, cells: Cells) -> Any:
        """What step noise is relative to."""
        return np.where(lowers, cells.down, cells.up) if self.additive_noise else size
