"""The device of Gokmen and Vlasov (2016): a step of fixed mean size between hard bounds."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rpucluster.devices.base import Cells, Int16, Law
from rpucluster.devices.pulsed import Pulsed


@dataclass(frozen=True, kw_only=True)
class ConstantStep(Pulsed):
    """A resistive device whose step does not depend on its weight; parameters are those of `Pulsed`.

    The defaults are the paper's combined model ("RPU baseline"): 1200 steps between the mean bounds, every
    spread 30 percent, up and down steps equal within 2 percent.  Raises ValueError for a parameter out of range.
    Source: Gokmen and Vlasov, Front. Neurosci. 10:333 (2016).
    """

    law: ClassVar[Law] = Law.CONSTANT
    step_depends_on_weight: ClassVar[bool] = False

    def constants(self) -> tuple[float, ...]:
        """The common ones."""
        return self.common_constants()

    def cells(self, lanes: Int16) -> Cells:
        """Tolerances of n cells from their lanes, int16 (lanes, n): the common ones."""
        return self.with_stuck(self.common_cells(lanes), lanes)

    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """The cell's step of that direction, wherever the weight is."""
        return np.where(lowers, cells.down, cells.up)
