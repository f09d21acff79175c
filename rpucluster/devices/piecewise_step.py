"""Steps given by a curve: nodes over the range of the weight, with straight lines between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from rpucluster.devices.base import Cells, Int16, Law, require
from rpucluster.devices.pulsed import F32, Pulsed

NODES: Final = 12
"""The most nodes of a direction."""


@dataclass(frozen=True, kw_only=True)
class PiecewiseStep(Pulsed):
    """A step of size up or down times a factor that is linear between nodes, equally spaced from lower to upper bound.

    Formula: aihwkit's PiecewiseStepDevice, as documented there: a curve as measured, whatever its shape.
    Raises ValueError for a parameter out of range.

    Constants after the common ones: nodes n, the n factors of up steps, the n factors of down steps.
    """

    law: ClassVar[Law] = Law.PIECEWISE
    step_depends_on_weight: ClassVar[bool] = True

    piecewise_up: tuple[float, ...] = (1.0, 1.0)
    """Factors of up steps from the lower to the upper bound, 2 to 12 of at least 0.  aihwkit: piecewise_up."""
    piecewise_down: tuple[float, ...] = (1.0, 1.0)
    """Factors of down steps from the lower to the upper bound, as many.  aihwkit: piecewise_down."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("piecewise_up", "piecewise_down"):
            nodes = getattr(self, name)
            if not isinstance(nodes, Sequence) or isinstance(nodes, str) or not 2 <= len(nodes) <= NODES:
                raise ValueError(f"{name} = {nodes}: write a list of 2 to {NODES} factors, such as [1.0, 0.5]")
            for node in nodes:
                require(f"a factor in {name}", node, node >= 0, "a number of at least 0, such as 1.0")
            object.__setattr__(self, name, tuple(float(node) for node in nodes))
        if len(self.piecewise_up) != len(self.piecewise_down):
            count, other = len(self.piecewise_up), len(self.piecewise_down)
            raise ValueError(f"piecewise_up has {count} factors and piecewise_down {other}: write as many in both")

    @property
    def granularity(self) -> float:
        """The up step at the middle node, the upper one of two, and dw_min where that is 0."""
        return self.dw_min * self.piecewise_up[len(self.piecewise_up) // 2] or self.dw_min

    def constants(self) -> tuple[float, ...]:
        """The common ones, and those of the class."""
        return (*self.common_constants(), float(len(self.piecewise_up)), *self.piecewise_up, *self.piecewise_down)

    def cells(self, lanes: Int16) -> Cells:
        """Tolerances of n cells from their lanes, int16 (lanes, n): e0 = (nodes - 1) / (upper - lower)."""
        cells = self.common_cells(lanes)
        width = cells.upper - cells.lower
        room = width > 0
        e0 = np.where(room, F32(len(self.piecewise_up) - 1) / np.where(room, width, F32(1)), F32(0))
        return self.with_stuck(cells._replace(e0=e0), lanes)

    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """Mean size of one pulse that meets the weight w; float32."""
        last = len(self.piecewise_up) - 1
        place = np.minimum(np.maximum((w - cells.lower) * cells.e0, F32(0)), F32(last))
        node = np.minimum(place.astype(np.int32), np.int32(last - 1))
        share = place - node.astype(np.float32)
        up, down = np.array(self.piecewise_up, np.float32), np.array(self.piecewise_down, np.float32)
        here, after = np.where(lowers, down[node], up[node]), np.where(lowers, down[node + 1], up[node + 1])
        return np.where(lowers, cells.down, cells.up) * ((F32(1) - share) * here + share * after)
