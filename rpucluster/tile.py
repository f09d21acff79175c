"""Crossbar tiles of one layer shard, with their periphery: `forward`, `backward` and `update` on real arrays."""

import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster import kernels as kernel_sets
from rpucluster.algorithms import Algorithm, Plane, Sgd, Shard, Trainer, checked, in_tiles, write_rows
from rpucluster.algorithms import Storage as Storage
from rpucluster.arrays import namespace, to_host
from rpucluster.devices import Device, PulsedDevice
from rpucluster.errors import NumericalError
from rpucluster.kernels import KernelChoice, ReadRule, Scaling, UpdateRule, require_batch_noise
from rpucluster.kernels import from_fixed as from_fixed
from rpucluster.kernels.base import input_message
from rpucluster.periphery import Converters as Converters
from rpucluster.periphery import Management as Management
from rpucluster.periphery import read_rule
from rpucluster.rng import Float32, Purpose, init_uniform, stream_key
from rpucluster.settings import Tolerances as Tolerances
from rpucluster.settings import UpdateSettings as UpdateSettings
from rpucluster.settings import stored_lanes
from rpucluster.tile_counts import PulseCount, ReadCount
from rpucluster.tile_layout import TileLayout

_READ_STREAMS = (Purpose.READ_FORWARD, Purpose.READ_BACKWARD, Purpose.EVALUATE)
_AVERAGES = ("forward_averages", "backward_averages")
"""What `TileGrid.state` calls the running averages of noise management."""


class GridParts(NamedTuple):
    """What compiled code must know of a grid besides the arrays that it lives in."""

    table: Any
    """The tile table of `rpucluster.kernels.base`, int64 (tiles, 5)."""
    update_keys: Any
    """uint32 (tiles, keys, 2)."""
    read_keys: Any
    """uint32 (3, tiles, 2): of forward, backward and evaluating reads."""
    update_rule: UpdateRule | None
    """None where weights do not change by pulses."""
    forward_rule: ReadRule
    backward_rule: ReadRule


class TileGrid:
    """The tiles of one shard of a layer: a rectangle of whole tiles, which owns its arrays.

    A layer's array of ``rows`` x ``cols`` cells (out x in; a bias column counts as a column) is cut into tiles of
    ``tile_rows`` x ``tile_cols`` from the upper left; the shard holds tile rows ``row_tiles[0]`` up to, without,
    ``row_tiles[1]``, and tile columns likewise.  Tolerances, pulses and noise belong to the tile's place in the
    layer, so a shard behaves as the same tiles of any other shard would.  ``tolerances`` chooses between memory and
    computation, ``threads`` how many share large updates and reads on a CPU; both change no value.  ``storage`` gives
    the arrays to live in, ``averages`` float32 (2, tiles) that of the running averages of noise management, forward
    and backward.  ``algorithm`` is how pulses train the weights, plain gradient descent where it is left out, and
    ``fast_device`` that of the plane of gradients.

    Raises ValueError for shapes that do not fit together and for noise_per "batch" with a device on which the pulses of
    a batch are more than one draw; methods raise `NumericalError`, which names the layer, for a signal that is not
    finite or a sum that leaves the fixed-point range, and TypeError where host and GPU arrays meet.
    """

    def __init__(
        self,
        *,
        layer: int,
        replica: int,
        rows: int,
        cols: int,
        tile_rows: int,
        tile_cols: int,
        row_tiles: tuple[int, int],
        col_tiles: tuple[int, int],
        device: Device,
        forward: Converters,
        backward: Converters,
        forward_management: Management,
        backward_management: Management,
        update: UpdateSettings,
        seed: int,
        xp: ModuleType = np,
        kernels: KernelChoice = "auto",
        threads: int = 1,
        tolerances: Tolerances = "auto",
        storage: Storage | None = None,
        averages: Any = None,
        algorithm: Algorithm | None = None,
        fast_device: Device | None = None,
    ) -> None:
        if update.noise_per == "batch":
            require_batch_noise(device)
        self._exact = update.pulses == "none" and device.pulsed
        self._layout = layout = TileLayout(
            layer=layer,
            replica=replica,
            seed=seed,
            rows=rows,
            cols=cols,
            tile_rows=tile_rows,
            tile_cols=tile_cols,
            row_tiles=row_tiles,
            col_tiles=col_tiles,
        )
        self.row_range, self.col_range, self.shape = layout.row_range, layout.col_range, layout.shape
        self.tiles = layout.tiles
        self.device = device
        self._xp = xp
        self._kernels = kernel_sets.for_module(xp, kernels, threads)
        self._tiling = layout.tiling(xp)
        self._pulsed = device if isinstance(device, PulsedDevice) else None
        self._update_rule = _update_rule(update, self._pulsed) if self._pulsed else None
        self._forward_rule = read_rule(forward, forward_management)
        self._backward_rule = read_rule(backward, backward_management)
        self._read_keys: dict[Purpose, Any] = {}
        rules = (self._forward_rule, self._backward_rule)
        kept = [name for name, rule in zip(_AVERAGES, rules, strict=True) if rule.scaling is Scaling.AVERAGE]
        self._kept = kept if self._pulsed else []
        self._averages = xp.empty((2, self.tiles), "f4") if averages is None else averages
        self._averages[:] = 0  # none yet
        self._tolerances = tolerances
        self._learner: Plane | Trainer = self._trained(algorithm or Sgd(), update, fast_device or device, storage)
        self._weights = self._learner.weights
        first = self._learner if isinstance(self._learner, Plane) else self._learner.planes[0]
        self._lanes, self._update_keys = first.lanes, first.keys

    @property
    def nbytes(self) -> int:
        """Bytes of weights and tolerances."""
        return self._learner.nbytes

    def set_weights(self, weights: Any) -> None:
        """Put each weight of a (rows, cols) array on its cell, clipped to what the cell can hold."""
        self._learner.put(checked(weights, self.shape, self._layout.layer))

    def weights(self, rows: tuple[int, int] | None = None) -> Float32:
        """The weights as float32 (rows, cols), or those of a range of the shard's rows: a copy on the host."""
        return self._learner.values(rows)

    def initialise(self, scale: float) -> None:
        """Set weights uniform in [-scale, scale), the same for every replica and partition, then clipped."""
        layout, origin = self._layout, (self.row_range[0], self.col_range[0])
        key = stream_key(layout.seed, Purpose.INIT, layout.layer)
        if isinstance(self._learner, Plane) and self._kernels.put_uniform(
            self._weights, self._lanes, self._tiling, self._update_keys, self.device, origin, key, scale
        ):
            return
        for part in self._learner.parts():
            uniform = init_uniform(
                layout.seed,
                layout.layer,
                *layout.layer_shape,
                row_start=origin[0] + part.rows.start,
                row_stop=origin[0] + part.rows.stop,
                col_start=origin[1] + part.cols.start,
                col_stop=origin[1] + part.cols.stop,
            )
            self._learner.put_part(part, np.float32(scale) * uniform)
        self._learner.settle()

    def program(self, target: Any) -> int:
        """Write-verify a (rows, cols) array onto the cells, within half a step; returns the pulses fired."""
        return self._learner.program(checked(target, self.shape, self._layout.layer))

    def read_forward(
        self, x: Any, *, first_sample: int, purpose: Purpose = Purpose.READ_FORWARD
    ) -> tuple[Any, ReadCount]:
        """Drive the columns: float32 (B, cols) to sums over tiles, int64 (B, rows) in units of 2^-40.

        ``first_sample`` is the index of x[0] since the start of training (or of the evaluation); ``purpose``
        chooses the stream of the noise.  Sums of shards add; `from_fixed` turns them into float32.
        """
        return self._read(x, first_sample, purpose, self._forward_rule, False)

    def read_backward(self, d: Any, *, first_sample: int) -> tuple[Any, ReadCount]:
        """Drive the rows: float32 (B, rows) to sums over tiles, int64 (B, cols) in units of 2^-40."""
        return self._read(d, first_sample, Purpose.READ_BACKWARD, self._backward_rule, True)

    def forward(self, x: Any, *, first_sample: int, purpose: Purpose = Purpose.READ_FORWARD) -> Any:
        """`read_forward` of a whole layer as float32 (B, rows)."""
        return from_fixed(self.read_forward(x, first_sample=first_sample, purpose=purpose)[0])

    def backward(self, d: Any, *, first_sample: int) -> Any:
        """`read_backward` of a whole layer as float32 (B, cols)."""
        return from_fixed(self.read_backward(d, first_sample=first_sample)[0])

    def update(self, x: Any, d: Any, lr: float, *, first_sample: int) -> PulseCount:
        """Change the weights by about ``-lr d x^T`` for each sample: x float32 (B, cols), d float32 (B, rows).

        d is the derivative of the loss by the outputs.  ``first_sample`` is the index of x[0] since the start of
        training, over all replicas.  Raises ValueError for a negative learning rate.
        """
        if not 0 <= lr < math.inf:
            raise ValueError(f"learning rate {lr}: write a number of at least 0")
        x, d = self._lines(x, self.shape[1]), self._lines(d, self.shape[0])
        if len(x) != len(d):
            raise ValueError(f"x has {len(x)} samples and d {len(d)}: pass the same samples in both")
        try:
            if not isinstance(self._learner, Plane):
                return PulseCount(*self._learner.update(x, d, lr, first_sample))
            if self._update_rule is None:
                return PulseCount(*self._kernels.exact_update(self._weights, self._tiling, x, d, lr))
            if self._exact:
                counts = self._kernels.exact_update(self._learner.moved, self._tiling, x, d, lr)
                self._learner.relax(first_sample, self._update_rule, always=True)
                return PulseCount(*counts)
            counts = self._kernels.pulsed_update(
                self._weights, self._lanes, self._tiling, self._update_keys, x, d,
                lr, first_sample, self._update_rule, self._learner.hidden,
            )  # fmt: skip
            self._learner.relax(first_sample, self._update_rule)
            return PulseCount(*counts)
        except NumericalError as error:
            raise self._named(error) from None

    def write_rows(self, gradient: Any, lr: float, *, first_sample: int) -> PulseCount:
        """Change the weights by about ``-lr`` times a gradient, float32 (rows, cols), one row of each tile at a time.

        Exact weights, and devices with exact changes, take all of it.  ``first_sample`` is the index of the first
        sample that the gradient is of.  Raises ValueError for weights that an algorithm makes of several devices.
        """
        plane = self._learner
        if not isinstance(plane, Plane):
            raise ValueError("rows are written on single devices")
        try:
            if self._update_rule is None or self._exact:
                if not bool(self._xp.isfinite(gradient).all()):
                    raise NumericalError(input_message())
                moved = plane.moved
                moved -= in_tiles(gradient, self._layout.table, self._xp) * np.float32(lr)
                if self._update_rule is not None:
                    plane.relax(first_sample, self._update_rule, always=True)
                return PulseCount()
            number = first_sample * self._layout.tile_rows
            counts = write_rows(
                self._kernels, self._xp, plane, self._layout.table, gradient, lr, number, self._update_rule
            )
            plane.relax(first_sample, self._update_rule)
            return PulseCount(*counts)
        except NumericalError as error:
            raise self._named(error) from None

    def parts(self) -> GridParts:
        """The tiles as compiled code takes them, which reads and updates the grid's storage by itself."""
        return GridParts(
            table=self._tiling.table,
            update_keys=self._update_keys,
            read_keys=self._xp.stack([self._keys_of_reads(purpose) for purpose in _READ_STREAMS]),
            update_rule=self._update_rule,
            forward_rule=self._forward_rule,
            backward_rule=self._backward_rule,
        )

    def large_read(self, samples: int) -> bool:
        """Whether reading so many vectors is work for `read_forward` and `read_backward` rather than for a part of
        compiled code; only shapes decide."""
        return self._kernels.large_read(self._tiling, samples)

    def large_update(self, samples: int) -> bool:
        """Whether an update by so many samples is work for `update`."""
        if self._exact or not isinstance(self._learner, Plane) or len(self._learner.hidden):
            return True
        return self._kernels.large_update(self._tiling, samples)

    def state(self, rows: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
        """Every array that a restart needs, on the host, in the layer's order: the same for every partition.

        ``weights`` (rows, cols), or what the algorithm keeps, of all cells or of a range of the shard's
        rows; the running averages of noise management, one for each tile and (tile rows, tile columns) as the tiles
        lie, where a direction keeps them.
        """
        averages = to_host(self._averages).reshape(2, *self._layout.grid)
        kept = {name: averages[_AVERAGES.index(name)].copy() for name in self._kept}
        return self._learner.state(rows) | kept

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from `state`.  Raises ValueError if arrays are missing, unknown or of another shape."""
        missing = [name for name in self._kept if name not in state]
        if missing:
            raise ValueError(f"state has {sorted(state)}, without {missing[0]}")
        self._learner.load_state({name: array for name, array in state.items() if name not in self._kept})
        for name in self._kept:
            if state[name].shape != self._layout.grid:
                raise ValueError(f"{name} of shape {state[name].shape} for {self._layout.grid} tiles")
            averages = self._xp.asarray(state[name].reshape(-1), dtype=np.float32)
            self._averages[_AVERAGES.index(name)] = averages

    def _trained(
        self, algorithm: Algorithm, update: UpdateSettings, fast_device: Device, storage: Storage | None
    ) -> Plane | Trainer:
        """The planes of the algorithm, or one plane where this grid does all that there is to do."""
        if self._pulsed is not None:
            shard = Shard(
                kernels=self._kernels,
                tiling=self._tiling,
                table=self._layout.table,
                xp=self._xp,
                device=self._pulsed,
                fast_device=fast_device if isinstance(fast_device, PulsedDevice) else self._pulsed,
                plane=self._plane,
                rule=lambda device: _update_rule(update, device),
                keys=self._layout.keys,
                read=self._forward_rule._replace(scaling=Scaling.NONE, rounds=0),
                storage=storage,
            )
            trainer = algorithm.trainer(shard)
            if trainer is not None:
                if self._exact:
                    raise ValueError(f'pulses = "none" with {type(algorithm).__name__}; write "stochastic"')
                return trainer
        return self._plane(0, self.device, storage)

    def _plane(self, number: int, device: Device, storage: Storage | None) -> Plane:
        return Plane(
            layer=self._layout.layer,
            device=device,
            table=self._layout.table,
            tiling=self._tiling,
            keys=self._layout.update_keys(number),
            lanes=stored_lanes(self._tolerances, device),
            kernels=self._kernels,
            xp=self._xp,
            storage=storage,
        )

    def _keys_of_reads(self, purpose: Purpose) -> Any:
        if purpose not in self._read_keys:
            self._read_keys[purpose] = self._xp.asarray(self._layout.keys(purpose))
        return self._read_keys[purpose]

    def _lines(self, lines: Any, width: int) -> Any:
        if not isinstance(lines, self._xp.ndarray):
            namespace(self._weights, lines)  # says what is mixed
        if lines.ndim != 2 or lines.shape[1] != width:
            raise ValueError(f"signals of shape {lines.shape} for a shard of {self.shape}: pass (samples, {width})")
        return self._xp.ascontiguousarray(lines, dtype=np.float32)

    def _read(
        self, lines: Any, first_sample: int, purpose: Purpose, rule: ReadRule, backward: bool
    ) -> tuple[Any, ReadCount]:
        lines = self._lines(lines, self.shape[0] if backward else self.shape[1])
        try:
            if self._pulsed is None:
                sums, passes, repeats = self._kernels.exact_read(self._weights, self._tiling, lines, backward)
            else:
                sums, passes, repeats = self._kernels.read(
                    self._weights, self._tiling, self._keys_of_reads(purpose), self._averages[int(backward)], lines,
                    first_sample, rule, backward, purpose is not Purpose.EVALUATE,
                )  # fmt: skip
        except NumericalError as error:
            raise self._named(error) from None
        return sums, ReadCount(passes=passes, repeats=repeats)

    def _named(self, error: NumericalError) -> NumericalError:
        return NumericalError(f"layer {self._layout.layer}: {error}")


def _update_rule(update: UpdateSettings, device: PulsedDevice) -> UpdateRule:
    return UpdateRule(
        bit_length=update.bit_length,
        noise_per_batch=update.noise_per == "batch",
        update_management=update.update_management,
        dynamic_bit_length=update.dynamic_bit_length,
        device=device,
        deterministic=update.pulses == "deterministic",
    )
