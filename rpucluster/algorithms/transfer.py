"""The engine of all algorithms that gather gradients on one plane and transfer them, column by column, to another."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rpucluster.algorithms.base import (
    Compound,
    Memory,
    Moved,
    Shard,
    Trainer,
    Work,
    is_number,
    require_count,
    require_flag,
    require_positive,
    require_share,
    require_whole_pulses,
)
from rpucluster.algorithms.plane import Part
from rpucluster.arrays import to_host
from rpucluster.kernels import MAX_BIT_LENGTH, ReadRule, TransferRule, TransferState
from rpucluster.kernels.base import D_KEY
from rpucluster.rng import Float32, Purpose

_OPERATIONS = 4
"""Digital operations per value of a column: scale, add to the buffer, compare, and take out what is fired."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What all algorithms with a transfer are set by.  Raises ValueError for a value out of range.

    The fast plane A takes the pulses of x and d; every so often a column of each tile is read and moves the slow plane
    C.  Reads of the network see gamma A + C.
    """

    kind: ClassVar[str]

    transfer_every: int = 1
    """Samples between transfers.  aihwkit: transfer_every with units_in_mbatch off."""
    transfer_columns: int = 1
    """Columns of each tile that a transfer takes, going round.  aihwkit: n_reads_per_transfer."""
    transfer_rate: float = 1.0
    """What a transfer carries, as a share of what was read times the learning rate over that of the fast plane; so
    each gradient counts transfer_rate times the reads that it lasts on the fast plane."""
    transfer_bit_length: int = 1
    """Pulse slots of a transfer: the most pulses that a weight gets from it."""
    fast_learning_rate: float = 0.0
    """Learning rate of the fast plane, whatever that of the job; 0 takes the job's.  With auto_scale, the share of its
    slots in which the largest x and the largest error would meet.  aihwkit: fast_lr."""
    auto_scale: bool = False
    """Scales x and errors of each tile by running means of their largest magnitudes, so that the fast plane gets about
    as many pulses late in training as early.  Late in training few errors are large: those above the mean times
    1 / fast_learning_rate are clipped, and without update management those above 1 / sqrt(fast_learning_rate), which
    lets weights drift (docs/algorithms.md).  aihwkit: auto_scale."""
    auto_momentum: float = 0.99
    """Share that a running mean keeps at each sample; below 1.  Read as aihwkit's default."""
    gamma: float = 0.0
    """Share of the fast plane in what the network reads; at least 0.  aihwkit: gamma, 0."""
    output_bits: int | None = None
    """ADC resolution of transfers; left out, the accelerator's of the forward direction."""
    output_bound: float | None = None
    """ADC bound of transfers; left out, the accelerator's of the forward direction."""
    read_noise: float | None = None
    """Noise of transfers; left out, the accelerator's of the forward direction."""

    def __post_init__(self) -> None:
        require_count("transfer_every", self.transfer_every)
        require_count("transfer_columns", self.transfer_columns)
        require_count("transfer_bit_length", self.transfer_bit_length, most=MAX_BIT_LENGTH)
        require_positive("transfer_rate", self.transfer_rate)
        require_share("auto_momentum", self.auto_momentum)
        require_flag("auto_scale", self.auto_scale)
        for name in ("fast_learning_rate", "gamma", "read_noise"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and value >= 0):
                raise ValueError(f"{name} = {value}: write a number of at least 0")
        if self.auto_scale and self.fast_learning_rate == 0:
            raise ValueError("auto_scale needs fast_learning_rate; write the share of slots that meet, such as 0.5")
        if self.output_bits not in (None, 0, *range(2, 17)) or isinstance(self.output_bits, bool | float):
            raise ValueError(f"output_bits = {self.output_bits}: write 0 for no quantisation, or 2 to 16")
        if self.output_bound is not None:
            require_positive("output_bound", self.output_bound)

    def rule(self, shard: Shard) -> TransferRule:
        """How columns go; algorithms add to this one, which fires what was read as a train."""
        update = shard.rule(shard.device)._replace(
            bit_length=self.transfer_bit_length, noise_per_batch=False, update_management=False,
            dynamic_bit_length=False,
        )  # fmt: skip
        return TransferRule(
            update=update,
            read=self._read(shard.read),
            columns=self.transfer_columns,
            buffered=False,
            threshold=1.0,
            momentum=0.0,
            forget=False,
            chop_every=0,
            chop_random=False,
            dynamic_reference=False,
            memory=1.0,
        )

    def trainer(self, shard: Shard) -> Trainer:
        """Two planes, both at 0, and what stands between them."""
        return Transfers(shard, self, self.rule(shard))

    def work(self, samples: int) -> Work:
        """A pulse cycle per sample, and the transfers that fall to so many samples on average."""
        lines = samples * self.transfer_columns / self.transfer_every
        return Work(
            cycles=samples, planes=1, columns_read=lines, columns_written=lines, slots=self.transfer_bit_length,
            operations_per_row=_OPERATIONS * lines,
        )  # fmt: skip

    @property
    def memory(self) -> Memory:
        """Two devices, and their sum where the network reads both."""
        return Memory(planes=2, numbers=int(self.gamma > 0))

    def _read(self, read: ReadRule) -> ReadRule:
        levels, bound = read.output_levels, read.output_bound
        if self.output_bits is not None:
            levels = (1 << self.output_bits - 1) - 1 if self.output_bits else 0
        if self.output_bound is not None:
            bound = self.output_bound
        # one line is fully on, so that the noise of weights adds to that of outputs as it is
        noise = math.hypot(read.read_noise, read.weight_noise) if self.read_noise is None else self.read_noise
        return read._replace(output_levels=levels, output_bound=bound, read_noise=noise)


class Transfers(Compound):
    """Planes and buffers of a shard under a transfer algorithm."""

    def __init__(self, shard: Shard, settings: Transfer, rule: TransferRule) -> None:
        xp, tiling = shard.xp, shard.tiling
        if shard.rule(shard.fast_device).noise_per_batch:
            raise ValueError(f'noise_per = "batch" with {settings.kind}, which works sample by sample; write "sample"')
        require_whole_pulses(settings.kind, shard.device)
        alone = settings.gamma == 0
        self._slow = shard.plane(0, shard.device, shard.storage)
        self._fast = shard.plane(1, shard.fast_device, None)
        super().__init__(shard, [self._slow, self._fast])
        self._settings, self._rule, self._fast_rule = settings, rule, shard.rule(shard.fast_device)
        self.weights = self._slow.weights
        if not alone:  # what is read lives where it was asked to, the slow plane beside it
            self._slow.weights = xp.zeros_like(self.weights)
        cells = tiling.rows * tiling.cols
        dynamic = rule.dynamic_reference
        self._state = TransferState(
            buffer=xp.zeros(cells if rule.buffered else 0, "f4"),
            mean=xp.zeros(cells if dynamic else 0, "f4"),
            reference=xp.zeros(cells if dynamic else 0, "f4"),
            choppers=xp.ones(tiling.cols, "f4"),
            ages=xp.zeros(tiling.cols, "i4"),
        )
        keys = self._slow.keys.copy()
        keys[:, D_KEY] = xp.asarray(shard.keys(Purpose.TRANSFER_PULSES, False))
        self._transfer_keys = keys
        self._column_keys = xp.asarray(
            np.stack([shard.keys(Purpose.TRANSFER, False), shard.keys(Purpose.CHOPPER, True)], axis=1)
        )
        self._scale = _Scale(shard, settings) if settings.auto_scale else None
        self._gains = xp.ones(tiling.tiles, "f4")

    def update(self, x: Any, d: Any, lr: float, first_sample: int) -> Moved:
        """Pulses of the samples on the fast plane, and after every so many of them a transfer."""
        every, seen = self._settings.transfer_every, int(self.counters[0])
        moved, done = Moved(), 0
        while done < len(x):
            stop = min(len(x), done + (1 if self._scale else every - seen % every))
            moved = moved.plus(self._gather(x[done:stop], d[done:stop], lr, first_sample + done))
            seen += stop - done
            done = stop
            if seen % every == 0:
                moved = moved.plus(self._transfer(lr, first_sample + done - 1, seen // every - 1))
        self.counters[0] = seen
        self.counters[1] += 1
        self.relax(first_sample)
        self.combine()
        return moved

    def _gather(self, x: Any, d: Any, lr: float, first_sample: int) -> Any:
        shard, fast, rate = self.shard, self._fast, self._settings.fast_learning_rate or lr
        if self._rule.chop_every:
            x = x * self._state.choppers
        if self._scale:
            x, d, rate = self._scale.scaled(x, d)
        return shard.kernels.pulsed_update(
            fast.weights, fast.lanes, shard.tiling, fast.keys, x, d, rate, first_sample, self._fast_rule, fast.hidden
        )

    def _transfer(self, lr: float, sample: int, number: int) -> Moved:
        shard, settings, slow = self.shard, self._settings, self._slow
        if self._scale:
            self._gains[:] = self._scale.gains(settings.transfer_rate * lr)
        else:
            rate = settings.fast_learning_rate or lr
            self._gains[:] = settings.transfer_rate * lr / rate if rate > 0 else 0.0
        pulses = shard.kernels.transfer(
            self._fast.weights, slow.weights, slow.lanes, shard.tiling, self._transfer_keys, self._column_keys,
            self._gains, self._state, sample, number * self._rule.columns, self._rule, slow.hidden,
        )  # fmt: skip
        lines = shard.tiling.tiles * self._rule.columns
        return Moved(passes=lines, line_slots=lines * self._rule.update.bit_length, line_pulses=pulses)

    def combine(self) -> None:
        """What the network reads: gamma A + C."""
        if self._settings.gamma > 0:
            xp = self.shard.xp
            xp.multiply(self._fast.weights, xp.float32(self._settings.gamma), out=self.weights)
            xp.add(self.weights, self._slow.weights, out=self.weights)

    def put_part(self, part: Part, values: Float32) -> None:
        """Onto the slow plane, less the share of the fast one."""
        self._slow.put_part(part, self._without_fast(part, values))
        self._combine_part(part)

    def program(self, target: Float32) -> int:
        """Write-verify the slow plane, less the share of the fast one."""
        wanted = target.copy()
        for part in self.parts():
            wanted[part.rows, part.cols] = self._without_fast(part, target[part.rows, part.cols])
        pulses = self._slow.program(wanted)
        self.combine()
        return pulses

    def cell_arrays(self) -> dict[str, Any]:
        """Buffer, running mean and reference, as far as they are there."""
        names = ("buffer", "mean", "reference")
        return {name: array for name in names if len(array := getattr(self._state, name))}

    def line_arrays(self) -> dict[str, Any]:
        """Signs and ages of columns, and what scales are made of."""
        chopped = {"choppers": self._state.choppers, "ages": self._state.ages} if self._rule.chop_every else {}
        return chopped | ({"x_peaks": self._scale.x_peaks, "d_peaks": self._scale.d_peaks} if self._scale else {})

    def _without_fast(self, part: Part, values: Float32) -> Float32:
        if self._settings.gamma == 0:
            return values
        fast = to_host(self._fast.weights[part.cells]).reshape(values.shape)
        rest: Float32 = np.subtract(values, np.float32(self._settings.gamma) * fast, dtype=np.float32)
        return rest

    def _combine_part(self, part: Part) -> None:
        if self._settings.gamma > 0:
            share = self.shard.xp.float32(self._settings.gamma) * self._fast.weights[part.cells]
            self.weights[part.cells] = share + self._slow.weights[part.cells]


class _Scale:
    """Running means of the largest magnitudes that the columns and rows of tiles see, and signals divided by them."""

    def __init__(self, shard: Shard, settings: Transfer) -> None:
        xp, tiling = shard.xp, shard.tiling
        device = shard.fast_device
        self._xp, self._tiling = xp, tiling
        self._rate = settings.fast_learning_rate * shard.rule(device).bit_length * device.granularity
        self._keep = xp.float32(settings.auto_momentum)
        across, down = -(-tiling.cols // tiling.tile_cols), -(-tiling.rows // tiling.tile_rows)
        self.x_peaks, self.d_peaks = xp.zeros(across, "f4"), xp.zeros(down, "f4")
        self._x = xp.zeros((across, tiling.tile_cols), "f4")
        self._d = xp.zeros((down, tiling.tile_rows), "f4")

    def scaled(self, x: Any, d: Any) -> tuple[Any, Any, float]:
        """One sample's x (1, cols) and d (1, rows) in units of the running means, and the learning rate for them."""
        return self._divided(x, self._x, self.x_peaks), self._divided(d, self._d, self.d_peaks), self._rate

    def gains(self, rate: float) -> Any:
        """What makes readings of each tile changes at this learning rate: rate over that of its fast plane."""
        one = self._xp.float32(rate / self._rate)
        return (one * (self.d_peaks[:, None] * self.x_peaks)).reshape(-1)

    def _divided(self, values: Any, padded: Any, peaks: Any) -> Any:
        xp, flat = self._xp, padded.reshape(-1)
        flat[: values.shape[1]] = values[0]
        now = xp.abs(padded).max(axis=1)
        started = xp.where(peaks > 0, self._keep * peaks + (xp.float32(1) - self._keep) * now, now)
        peaks[:] = xp.where(now > 0, started, peaks)
        padded /= xp.where(peaks > 0, peaks, xp.float32(1))[:, None]
        return flat[None, : values.shape[1]].copy()
