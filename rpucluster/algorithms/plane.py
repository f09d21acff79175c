"""A plane: one device for each weight of a shard, in flat arrays that lie as `rpucluster.kernels.base` says."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.arrays import aligned_empty, to_host
from rpucluster.devices import Cells, Device, PulsedDevice
from rpucluster.errors import NumericalError
from rpucluster.kernels import Kernels, Tiling, UpdateRule, program
from rpucluster.kernels.base import PROGRAM_KEY
from rpucluster.rng import Float32, normals


class Storage(NamedTuple):
    """Arrays that a plane lives in, so that several can share one array; their content is overwritten."""

    weights: Any
    """float32 (cells,)."""
    lanes: Any
    """int16 (cells * lanes,), or (0,) where tolerances are recomputed."""


class Plane:
    """The weights of one device per cell, with its tolerances; it starts at 0.

    ``table`` is the tile table on the host, ``keys`` uint32 (tiles, keys, 2) those of an update of this plane, and
    ``lanes`` how many lanes of each cell are stored, 0 where they are recomputed.  Raises ValueError for storage of
    another size.
    """

    def __init__(
        self,
        *,
        layer: int,
        device: Device,
        table: Any,
        tiling: Tiling,
        keys: Any,
        lanes: int,
        kernels: Kernels,
        xp: ModuleType,
        storage: Storage | None = None,
    ) -> None:
        cells = tiling.rows * tiling.cols
        if storage is None:
            storage = Storage(weights=aligned_empty(xp, cells, "f4"), lanes=xp.empty(cells * lanes, "i2"))
        if storage.weights.shape != (cells,) or storage.lanes.shape != (cells * lanes,):
            raise ValueError(
                f"storage of {storage.weights.shape} weights and {storage.lanes.shape} lanes for {cells} cells with "
                f"{lanes} stored lanes each"
            )
        self._layer = layer
        self.device, self.keys = device, xp.asarray(keys)
        self._pulsed = device if isinstance(device, PulsedDevice) else None
        self._table, self._tiling, self._kernels, self._xp = table, tiling, kernels, xp
        self.weights, self.lanes = storage
        self.weights[:] = 0
        noisy = "hidden" in device.persistent
        self.hidden = xp.zeros(cells if noisy else 0, "f4")
        """float32 (cells,): what pulses move where a written weight is noisy; empty on other devices."""
        self.settings = np.zeros(int(noisy), np.int64)
        """How often the weights were set where that is noisy, int64 (1,), else empty."""
        self._set = np.zeros(cells if noisy else 0, np.bool_)
        if lanes:
            kernels.draw_lanes(self.lanes, tiling, self.keys, lanes, 0)

    @property
    def moved(self) -> Any:
        """What updates move, float32 (cells,): the weights, or the hidden ones behind them."""
        return self.hidden if len(self.hidden) else self.weights

    @property
    def nbytes(self) -> int:
        """Bytes of weights and tolerances."""
        return int(self.weights.nbytes) + int(self.hidden.nbytes) + int(self.lanes.nbytes)

    def state(self, rows: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
        """What the device keeps, on the host, by its names in a checkpoint; of cells all or a range of rows."""
        state: dict[str, NDArray[Any]] = {"weights": self.values(rows)}
        if len(self.hidden):
            hidden = in_order(self.hidden, self._table, self._tiling, rows)
            state |= {"hidden": hidden, "settings": self.settings.copy()}
        return state

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from `state`.  Raises ValueError if arrays are missing, unknown or of another shape."""
        if set(state) != set(self.device.persistent):
            raise ValueError(
                f"state has {sorted(state)}, {type(self.device).__name__} keeps {sorted(self.device.persistent)}"
            )
        shape = (self._tiling.rows, self._tiling.cols)
        for name, cells in (("weights", self.weights), ("hidden", self.hidden)):
            if name in state:
                values = checked(state[name], shape, self._layer)
                for part in self.parts():
                    cells[part.cells] = self._xp.asarray(values[part.rows, part.cols].reshape(-1))
        if len(self.settings):
            self.settings[:] = state["settings"]

    def parts(self) -> "Iterator[Part]":
        """Whole rows of tiles, few enough at a time that what is computed of them needs little memory."""
        for tile, (offset, rows, cols, row, col) in enumerate(self._table.tolist()):
            together = max(_CELLS_TOGETHER // cols, 1)
            for first in range(0, rows, together):
                stop = min(first + together, rows)
                yield Part(
                    slice(offset + first * cols, offset + stop * cols),
                    slice(row + first, row + stop),
                    slice(col, col + cols),
                    tile,
                    first * cols,
                )

    def tolerances(self, part: "Part") -> Cells | None:
        """Tolerances of some cells, on the host; None for exact weights."""
        if self._pulsed is None:
            return None
        each, first, stop = self._pulsed.lanes, part.cells.start, part.cells.stop
        if len(self.lanes):
            lanes = self.lanes[first * each : stop * each]
        else:
            lanes = self._xp.empty((stop - first) * each, "i2")
            self._kernels.draw_lanes(lanes, self._tiling, self.keys, each, first)
        return self._pulsed.cells(to_host(lanes).reshape(-1, each).T)

    def put(self, values: Float32) -> None:
        """Put a (rows, cols) array on the cells, as far as they can hold it."""
        for part in self.parts():
            self.put_part(part, values[part.rows, part.cols])
        self.settle()

    def put_part(self, part: "Part", values: Float32) -> None:
        """Put values of the shape of a part on its cells, as far as they can hold it; `settle` comes after the last."""
        flat = values.reshape(-1)
        cells = self.tolerances(part)
        if cells is not None:
            flat = np.minimum(np.maximum(flat, cells.lower), cells.upper)
        self.write(part, flat)

    def written(self, part: "Part") -> Float32:
        """What pulses move, as a copy on the host: the weights of a part, or the hidden ones behind them."""
        moved: Float32 = to_host(self.moved[part.cells]).copy()
        return moved

    def write(self, part: "Part", values: Float32, cells: Any = True) -> None:
        """Make flat values what pulses move, of which only ``cells``, a mask, differ; `settle` comes after the last."""
        self.weights[part.cells] = self._xp.asarray(values)
        if len(self.hidden):
            self.hidden[part.cells] = self.weights[part.cells]
            self._set[part.cells] |= cells

    def settle(self) -> None:
        """Give the cells that were written since the last time the noise of being set, all in one setting.

        A setting counts where no cell was due too: other shards of the layer may have had some, and the noise of the
        next setting must not depend on which cells share a shard.
        """
        device: Any = self.device
        if self._set.any():
            for part in self.parts():
                key = to_host(self.keys[part.tile, PROGRAM_KEY])
                count = part.cells.stop - part.cells.start
                z = normals((int(key[0]), int(key[1])), count, int(self.settings[0]), first=part.first)
                hidden, weights = self.written(part), to_host(self.weights[part.cells])
                noisy = np.where(self._set[part.cells], device.written(hidden, z), weights)
                self.weights[part.cells] = self._xp.asarray(noisy)
            self._set[:] = False
        self.settings += 1

    def relax(self, first_sample: int, rule: UpdateRule, always: bool = False) -> None:
        """What the time of an update operation, named by its first sample, does to the cells.

        Cells that time does not change are only clipped, if ``always``.
        """
        if self._pulsed is not None and (always or self._pulsed.relaxes):
            self._kernels.relax(self.weights, self.lanes, self._tiling, self.keys, first_sample, rule, self.hidden)

    def program(self, target: Float32) -> int:
        """Write-verify a (rows, cols) array onto the cells, within half a step; returns the pulses fired."""
        pulses = 0
        for part in self.parts():
            weights = self.written(part)
            wanted = np.ascontiguousarray(target[part.rows, part.cols], np.float32).reshape(-1)
            pulses += program(weights, self._pulsed, self.tolerances(part), wanted)
            self.write(part, weights)
        self.settle()
        return pulses

    def values(self, rows: tuple[int, int] | None = None) -> Float32:
        """The weights as float32 (rows, cols), or those of a range of rows: a copy on the host."""
        values: Float32 = in_order(self.weights, self._table, self._tiling, rows)
        return values


class Part(NamedTuple):
    """Some rows of one tile."""

    cells: slice
    """Of the flat weights."""
    rows: slice
    """Of the shard."""
    cols: slice
    tile: int
    first: int
    """Number of the first cell in its tile."""


def in_order(flat: Any, table: Any, tiling: Tiling, rows: tuple[int, int] | None = None) -> Any:
    """A flat array of the cells as (rows, cols), or a range of the rows: a copy on the host."""
    first, stop = rows if rows is not None else (0, tiling.rows)
    result = np.empty((stop - first, tiling.cols), flat.dtype)
    for offset, tall, wide, row, col in table.tolist():
        begin, end = max(first, row), min(stop, row + tall)
        if begin < end:
            part = flat[offset + (begin - row) * wide : offset + (end - row) * wide]
            result[begin - first : end - first, col : col + wide] = to_host(part).reshape(-1, wide)
    return result


def in_tiles(values: Any, table: Any, xp: ModuleType = np) -> Any:
    """A (rows, cols) array in the order of the cells, flat: a copy."""
    result = xp.empty(values.size, values.dtype)
    for offset, rows, cols, row, col in table.tolist():
        result[offset : offset + rows * cols] = values[row : row + rows, col : col + cols].reshape(-1)
    return result


def checked(array: Any, shape: tuple[int, int], layer: int) -> Float32:
    """A (rows, cols) array on the host, float32 and finite.

    Raises ValueError for another shape and `NumericalError`, which names the layer, where it is not finite.
    """
    values = to_host(array)
    if values.shape != shape:
        raise ValueError(f"weights of shape {values.shape} for a shard of {shape}")
    values = np.asarray(values, np.float32)
    together = max(_CELLS_TOGETHER // shape[1], 1)
    if not all(bool(np.isfinite(values[row : row + together]).all()) for row in range(0, shape[0], together)):
        raise NumericalError(f"layer {layer}: a weight to be set is not finite")
    return values


_CELLS_TOGETHER = 1 << 16
"""Cells whose tolerances are made in one go outside of kernels: few enough for the cache."""
