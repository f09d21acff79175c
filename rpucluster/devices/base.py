"""What every device model answers; the kernels and tiles know devices only through this."""

import math
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from numpy.typing import ArrayLike

from rpucluster.rng import Keys

CELL_ARRAYS = ("step_up", "step_down", "lower", "upper")


class Cells(NamedTuple):
    """Tolerances of some cells, one float32 number per cell in each of four flat arrays, in weight units."""

    step_up: Any
    """Mean weight change of one coincidence that raises the weight."""
    step_down: Any
    """Mean weight change of one coincidence that lowers the weight, as a positive number."""
    lower: Any
    """The lowest weight that the device can hold."""
    upper: Any
    """The highest weight that the device can hold."""


@runtime_checkable
class Device(Protocol):
    """A device model: parameters as fields, physics as methods, no state."""

    pulsed: ClassVar[bool]
    """Whether weights change by stochastic pulses; False means exact digital weights and exact reads."""
    step_depends_on_weight: ClassVar[bool]
    """Whether the size of a step depends on the weight; such a device refuses noise_per = "batch"."""
    cell_arrays: ClassVar[tuple[str, ...]]
    """Names, out of `CELL_ARRAYS`, of the tolerances that it needs for each cell."""
    persistent: ClassVar[tuple[str, ...]]
    """Names of the arrays that are state, so belong into a checkpoint."""

    @property
    def dw_min(self) -> float:
        """Mean weight change of one coincidence, the unit of the pulse generator's gains; 0 if not pulsed."""
        ...

    @property
    def dw_min_std(self) -> float:
        """Cycle-to-cycle standard deviation of a step, relative to that device's step."""
        ...

    def draw(self, key: Keys, cells: ArrayLike) -> Cells | None:
        """Tolerances of the cells with these indices in the tile whose DEVICE stream has this key.

        Key words may be arrays, one for each cell, so that one call serves the cells of many tiles.
        """
        ...


def require(name: str, value: float, holds: bool, instead: str) -> None:
    """Raise ValueError, one line with the field, its value and what to write, unless ``holds``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not holds:
        raise ValueError(f"{name} = {value}: write {instead}")
