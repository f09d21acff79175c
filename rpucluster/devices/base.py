"""What every device model answers; the kernels and tiles know devices only through this."""

import math
from enum import IntEnum
from typing import Any, ClassVar, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rpucluster.rng import Keys, block_normals, philox

Int16 = NDArray[np.int16]

LANE_UNIT = 2.0**-12
"""A lane that holds a normal counts in these units: |z| <= 5.78 fits 16 bits."""
LANE_BLOCK = 4
"""Lanes that one block of random words gives; a cell has a whole number of such blocks."""
LAW_CONSTANTS: Final = 40
"""Length of the array in which kernels take `PulsedDevice.constants`, padded with zeros."""


class Law(IntEnum):
    """How the mean step of a device depends on its weight; compiled kernels choose by this number."""

    CONSTANT = 0
    LINEAR = 1
    """Also soft bounds, with and without a reference."""
    EXPONENTIAL = 2
    POWER = 3
    PIECEWISE = 4


class Cells(NamedTuple):
    """Tolerances of some cells, float32 arrays of one shape, in weight units."""

    up: Any
    """Mean weight change of one coincidence that raises the weight, where the factor of the law is 1."""
    down: Any
    """The same of one that lowers the weight, as a positive number."""
    lower: Any
    """The lowest weight that the device can hold."""
    upper: Any
    """The highest weight that the device can hold."""
    e0: Any
    """A number of the device's law; 0 where it has none."""
    e1: Any
    """Another one."""


@runtime_checkable
class Device(Protocol):
    """A device model: parameters as fields, physics as methods, no state."""

    pulsed: ClassVar[bool]
    """Whether weights change by stochastic pulses; False means exact digital weights and exact reads."""
    step_depends_on_weight: ClassVar[bool]
    """Whether the size of a step depends on the weight; such a device refuses noise_per = "batch"."""

    @property
    def persistent(self) -> tuple[str, ...]:
        """Names of the arrays that are state, so belong into a checkpoint."""
        ...

    @property
    def dw_min(self) -> float:
        """Mean weight change of one coincidence where the factor of the law is 1; 0 if not pulsed."""
        ...

    @property
    def dw_min_std(self) -> float:
        """Cycle-to-cycle standard deviation of a step, relative to that device's step."""
        ...


@runtime_checkable
class PulsedDevice(Device, Protocol):
    """A device whose weights change by pulses."""

    law: ClassVar[Law]

    @property
    def w_max(self) -> float:
        """Mean upper bound of the weight."""
        ...

    @property
    def plain(self) -> bool:
        """Whether only steps and bounds of each cell matter: n pulses are one draw, and nothing else ever moves it."""
        ...

    @property
    def relaxes(self) -> bool:
        """Whether weights change with time, pulses or not."""
        ...

    @property
    def lanes(self) -> int:
        """Numbers of 16 bits that a cell's tolerances are made of, a multiple of `LANE_BLOCK`."""
        ...

    @property
    def granularity(self) -> float:
        """Mean weight change of one coincidence near weight 0: the unit of the pulse generator's gains."""
        ...

    def constants(self) -> tuple[float, ...]:
        """The numbers that, with a cell's lanes, make its tolerances, in the order that the law's kernels expect."""
        ...

    def cells(self, lanes: Int16) -> Cells:
        """Tolerances of n cells from their lanes, int16 (lanes, n): the specification of the kernels."""
        ...

    def step(self, w: Any, lowers: Any, cells: Cells) -> Any:
        """Mean size, float32, of one pulse that meets the weight w."""
        ...

    def fire(self, w: Any, lowers: Any, z: Any, cells: Cells) -> Any:
        """Weights, float32, after one pulse each with step noise of the standard normal z."""
        ...


def draw_lanes(key: Keys, cells: ArrayLike, lanes: int) -> Int16:
    """Lanes of the cells with these indices (row * columns + column) in a tile; int16 (lanes, n).

    ``key`` is that of the tile's DEVICE stream, or of each cell's.  Block r of a cell gives its lanes 4 r to 4 r + 3:
    normals in units of `LANE_UNIT`, but for lanes 6 and 7, which are the upper halves of two uniform words.
    """
    found = []
    for block in range(lanes // LANE_BLOCK):
        words = philox((cells, 0, 0, block), key)  # (4, n)
        part = np.rint(block_normals(words) * np.float32(1 / LANE_UNIT)).astype(np.int16)
        if block == 1:
            part[2:] = (words[2:] >> np.uint32(16)).astype(np.uint16).view(np.int16)
        found.append(part)
    return np.concatenate(found)


def require(name: str, value: float, holds: bool, instead: str) -> None:
    """Raise ValueError, one line with the field, its value and what to write, unless ``holds``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not holds:
        raise ValueError(f"{name} = {value}: write {instead}")


def require_flags(device: Any, *names: str) -> None:
    """Raise ValueError, one line, for a field that is not true or false."""
    for name in names:
        value = getattr(device, name)
        if not isinstance(value, bool):
            raise ValueError(f"{name} = {value}: write true or false")
