"""What tiles and programs know of a training algorithm: settings that make a trainer, and what its updates cost."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rpucluster.algorithms.plane import Part, Plane, Storage, in_order, in_tiles
from rpucluster.arrays import to_host
from rpucluster.devices import Device, PulsedDevice
from rpucluster.kernels import Kernels, ReadRule, Tiling, UpdateRule, UpdateTotals
from rpucluster.rng import Float32, Purpose


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What a trainer may use of the tiles that it works on."""

    kernels: Kernels
    tiling: Tiling
    table: NDArray[np.int64]
    """The tile table on the host."""
    xp: ModuleType
    device: PulsedDevice
    fast_device: PulsedDevice
    """Of the plane that takes the gradients, where that is not the plane of the weights."""
    plane: Callable[[int, Device, Storage | None], Plane]
    """Makes the plane of that number; plane 0 has the tolerances that a weight of one device has."""
    rule: Callable[[PulsedDevice], UpdateRule]
    """How `[update]` makes pulses on such devices."""
    keys: Callable[[Purpose, bool], NDArray[np.uint32]]
    """Keys (tiles, 2) of a purpose; if asked for, the same for all tiles of a column of tiles."""
    read: ReadRule
    """Of the forward direction, without management."""
    storage: Storage | None
    """Where the weights that are read shall live."""


class Moved(NamedTuple):
    """What an update did; the fields of `UpdateTotals` are about pulse trains of x and d."""

    slots: int = 0
    coincidences: int = 0
    expected: float = 0.0
    cycles: int = 0
    passes: int = 0
    """Lines read to be transferred, summed over the tiles."""
    line_slots: int = 0
    """Pulse slots of lines that were written by themselves, summed over the tiles."""
    line_pulses: int = 0
    """Pulses fired there."""

    def plus(self, other: "Moved | UpdateTotals") -> "Moved":
        """The sum, field by field."""
        return Moved(*(a + b for a, b in zip(self, (*other, 0, 0, 0), strict=False)))


class Work(NamedTuple):
    """What an update of some samples costs each tile, on average where it is not always the same."""

    cycles: float
    """Pulse cycles of the whole tile."""
    planes: int
    """Devices at each cross-point that pulses of such a cycle reach."""
    columns_read: float = 0.0
    """Passes with one column on."""
    columns_written: float = 0.0
    """Pulse cycles of one column by itself."""
    matrices_read: float = 0.0
    """Reads of all rows, one after the other."""
    matrices_written: float = 0.0
    """Pulse cycles of all rows, one after the other."""
    slots: int = 0
    """Pulse slots of the cycle of a single line."""
    operations_per_cell: float = 0.0
    """Digital operations for each cross-point."""
    operations_per_row: float = 0.0
    """Digital operations for each row."""


class Memory(NamedTuple):
    """What an algorithm keeps of each weight."""

    planes: int
    """Devices, each with its tolerances."""
    numbers: int = 0
    """Further float32 numbers."""


class Trainer(Protocol):
    """The devices of a shard and how they learn: what `TileGrid` reads, sets and updates."""

    weights: Any
    """float32 (cells,): the weights that reads see."""
    planes: list[Plane]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        ...

    def parts(self) -> Iterator[Part]:
        """The cells in pieces of little memory."""
        ...

    def put(self, values: Float32) -> None:
        """Make a (rows, cols) array the weights, as far as devices can hold it."""
        ...

    def put_part(self, part: Part, values: Float32) -> None:
        """The same for a part; `settle` comes after the last."""
        ...

    def settle(self) -> None:
        """Give cells that were written the noise of being set."""
        ...

    def program(self, target: Float32) -> int:
        """Write-verify a (rows, cols) array; returns the pulses fired."""
        ...

    def values(self, rows: tuple[int, int] | None = None) -> Float32:
        """The weights, or a range of rows, as a copy on the host."""
        ...

    def update(self, x: Any, d: Any, lr: float, first_sample: int) -> Moved:
        """Learn from x float32 (B, cols) and d float32 (B, rows)."""
        ...

    def state(self, rows: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
        """Everything that a restart needs, on the host, cells as (rows, cols): all or a range of rows."""
        ...

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from `state`.  Raises ValueError if arrays are missing, unknown or of another shape."""
        ...


class Algorithm(Protocol):
    """Settings of a training algorithm, a frozen dataclass."""

    kind: ClassVar[str]

    def trainer(self, shard: Shard) -> Trainer | None:
        """Devices, all at 0, that learn this way; None for what a grid of tiles has and does by itself."""
        ...

    def work(self, samples: int) -> Work:
        """What an update of so many samples costs each tile."""
        ...

    @property
    def memory(self) -> Memory:
        """What it keeps of each weight."""
        ...


class Compound(ABC):
    """What trainers of several planes share: cells in parts, and state by name."""

    weights: Any

    def __init__(self, shard: Shard, planes: list[Plane]) -> None:
        self.shard, self.planes = shard, planes
        self.counters = np.zeros(2, np.int64)
        """Samples and updates so far."""

    def parts(self) -> Iterator[Part]:
        """The cells in pieces of little memory."""
        return self.planes[0].parts()

    def values(self, rows: tuple[int, int] | None = None) -> Float32:
        """The weights that reads see, or a range of rows: a copy on the host."""
        values: Float32 = in_order(self.weights, self.shard.table, self.shard.tiling, rows)
        return values

    def put(self, values: Float32) -> None:
        """Make a (rows, cols) array the weights, as far as devices can hold it."""
        for part in self.parts():
            self.put_part(part, values[part.rows, part.cols])
        self.settle()

    def settle(self) -> None:
        """Give cells that were written the noise of being set."""
        if any(len(plane.hidden) for plane in self.planes):
            for plane in self.planes:
                plane.settle()
            self.combine()

    def relax(self, first_sample: int) -> None:
        """What the time of an update operation, named by its first sample, does to all devices."""
        for plane in self.planes:
            if isinstance(plane.device, PulsedDevice):
                plane.relax(first_sample, self.shard.rule(plane.device))

    @abstractmethod
    def put_part(self, part: Part, values: Float32) -> None:
        """The same for a part; what else the algorithm holds stays."""

    @property
    def nbytes(self) -> int:
        """Bytes of planes, and of the other arrays."""
        arrays = [array for plane in self.planes for array in (plane.weights, plane.hidden, plane.lanes)]
        arrays += [self.weights, *self.cell_arrays().values(), *self.line_arrays().values()]
        return sum({id(array): int(array.nbytes) for array in arrays}.values())

    def cell_arrays(self) -> dict[str, Any]:
        """Further float32 arrays (cells,) that belong into the state, by name."""
        return {}

    def line_arrays(self) -> dict[str, Any]:
        """Further arrays that belong into the state, of lines or tiles, by name."""
        return {}

    def state(self, rows: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
        """Planes and arrays of cells, all or a range of rows, arrays of the shard's lines, and counters."""
        cells = self._cells()
        lines = {name: np.array(to_host(array)) for name, array in self.line_arrays().items()}
        counts = {name: array.copy() for name, array in self._counts().items()}
        return {name: self._ordered(array, rows) for name, array in cells.items()} | lines | counts

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from `state`.  Raises ValueError if arrays are missing, unknown or of another shape."""
        cells, counts = self._cells(), self._counts()
        lines = self.line_arrays() | counts
        if set(state) != set(cells) | set(lines):
            raise ValueError(f"state has {sorted(state)}, this algorithm keeps {sorted({**cells, **lines})}")
        shape = (self.shard.tiling.rows, self.shard.tiling.cols)
        for name, array in (cells | lines).items():
            expected = shape if name in cells else array.shape
            if state[name].shape != expected:
                raise ValueError(f"state {name} has shape {state[name].shape} for a shard of {shape}")
        for name, array in cells.items():
            array[:] = self.shard.xp.asarray(in_tiles(state[name], self.shard.table))
        for name, array in lines.items():
            array[:] = state[name] if name in counts else self.shard.xp.asarray(state[name])
        self.combine()

    @abstractmethod
    def combine(self) -> None:
        """Make the weights that reads see out of the planes."""

    def _cells(self) -> dict[str, Any]:
        planes = {f"plane{i}": plane.weights for i, plane in enumerate(self.planes)}
        hidden = {f"hidden{i}": plane.hidden for i, plane in enumerate(self.planes) if len(plane.hidden)}
        return planes | hidden | self.cell_arrays()

    def _counts(self) -> dict[str, NDArray[np.int64]]:
        """Arrays of counts, which are on the host."""
        settings = {f"settings{i}": plane.settings for i, plane in enumerate(self.planes) if len(plane.hidden)}
        return {"counters": self.counters} | settings

    def _ordered(self, array: Any, rows: tuple[int, int] | None) -> NDArray[Any]:
        ordered: NDArray[Any] = in_order(array, self.shard.table, self.shard.tiling, rows)
        return ordered


def require_whole_pulses(kind: str, device: Device) -> None:
    """Raise ValueError, one line, for a device on which the pulses of single lines would disturb other cells.

    What a pulse on one line alone does is modelled where rows and columns fire trains, and not where one line after the
    other is written.
    """
    half_select = getattr(device, "half_select", 0.0)
    if half_select > 0:
        raise ValueError(
            f'half_select = {half_select} is not modelled where kind = "{kind}" writes single lines; leave it out, or '
            f'write kind = "sgd"'
        )


def require_share(name: str, value: float) -> None:
    """Raise ValueError, one line, for a number that is not from 0 up to, without, 1."""
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name} = {value}: write a number of at least 0 and below 1, such as 0.1")


def require_positive(name: str, value: float) -> None:
    """Raise ValueError, one line, for a number that is not above 0."""
    if not is_number(value) or not value > 0:
        raise ValueError(f"{name} = {value}: write a number above 0, such as 1.0")


def require_flag(name: str, value: bool) -> None:
    """Raise ValueError, one line, for something else than true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} = {value}: write true or false")


def require_count(name: str, value: int, least: int = 1, most: int | None = None) -> None:
    """Raise ValueError, one line, for something else than a whole number in the range."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        wanted = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"{name} = {value}: write a whole number, {wanted}")


def is_number(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
