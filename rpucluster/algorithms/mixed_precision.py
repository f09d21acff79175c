"""Mixed precision, Nandakumar et al. (2020): gradients in a digital matrix, whole pulses of it on the devices."""

from dataclasses import dataclass
from typing import Any, ClassVar

from rpucluster.algorithms.base import (
    Compound,
    Memory,
    Moved,
    Shard,
    Trainer,
    Work,
    require_count,
    require_positive,
    require_whole_pulses,
)
from rpucluster.algorithms.plane import Part
from rpucluster.kernels import MAX_BIT_LENGTH, FlushRule
from rpucluster.kernels.base import ROWS
from rpucluster.rng import Float32


@dataclass(frozen=True, kw_only=True)
class MixedPrecision:
    """A digital matrix takes chi -= lr d x exactly; every so often, n = trunc(chi / threshold) pulses leave it.

    Pulses go out row by row, each row with its own number of pulses for each cell, and chi keeps what they do not
    carry.  The reads stay analog.  Nandakumar et al., Front. Neurosci. 14:406 (2020); Le Gallo et al., Nature
    Electronics 1, 246 (2018).  Raises ValueError for a value out of range.
    """

    kind: ClassVar[str] = "mixed_precision"

    flush_every: int = 1
    """Samples between flushes.  aihwkit: transfer_every."""
    flush_bit_length: int = 31
    """Pulse slots of a row: the most pulses that a weight gets from a flush."""
    threshold: float = 1.0
    """Contents of chi that a pulse stands for, in steps of the device.  aihwkit: granularity."""

    def __post_init__(self) -> None:
        require_count("flush_every", self.flush_every)
        require_count("flush_bit_length", self.flush_bit_length, most=MAX_BIT_LENGTH)
        require_positive("threshold", self.threshold)

    def trainer(self, shard: Shard) -> Trainer:
        """One plane at 0, and its digital matrix."""
        return _MixedPrecision(shard, self)

    def work(self, samples: int) -> Work:
        """No pulse trains of x and d; a multiplication and an addition per cell and sample, and the flushes."""
        flushes = samples / self.flush_every
        return Work(
            cycles=0, planes=1, matrices_written=flushes, slots=self.flush_bit_length,
            operations_per_cell=2 * samples + 2 * flushes,
        )  # fmt: skip

    @property
    def memory(self) -> Memory:
        """The device and chi."""
        return Memory(planes=1, numbers=1)


class _MixedPrecision(Compound):
    def __init__(self, shard: Shard, settings: MixedPrecision) -> None:
        require_whole_pulses(settings.kind, shard.device)
        self._plane = shard.plane(0, shard.device, shard.storage)
        super().__init__(shard, [self._plane])
        self.weights = self._plane.weights
        self._settings = settings
        update = shard.rule(shard.device)._replace(bit_length=settings.flush_bit_length, noise_per_batch=False)
        self._rule = FlushRule(update, settings.threshold * shard.device.granularity)
        self._held = shard.xp.zeros(shard.tiling.rows * shard.tiling.cols, "f4")

    def update(self, x: Any, d: Any, lr: float, first_sample: int) -> Moved:
        """Add the samples to the digital matrix and flush it when due."""
        shard, every, seen = self.shard, self._settings.flush_every, int(self.counters[0])
        moved, done = Moved(), 0
        while done < len(x):
            stop = min(len(x), done + every - seen % every)
            shard.kernels.exact_update(self._held, shard.tiling, x[done:stop], d[done:stop], lr)
            seen += stop - done
            done = stop
            if seen % every == 0:
                moved = moved.plus(self._flush(first_sample + done - 1))
        self.counters[0] = seen
        self.counters[1] += 1
        self.relax(first_sample)
        return moved

    def _flush(self, sample: int) -> Moved:
        shard, plane = self.shard, self._plane
        pulses = shard.kernels.flush(
            plane.weights, plane.lanes, shard.tiling, plane.keys, self._held, sample, self._rule, plane.hidden
        )
        rows = int(shard.table[:, ROWS].sum())
        return Moved(line_slots=rows * self._rule.update.bit_length, line_pulses=pulses)

    def put_part(self, part: Part, values: Float32) -> None:
        """Onto the plane."""
        self._plane.put_part(part, values)

    def combine(self) -> None:
        """Reads see the plane itself."""

    def program(self, target: Float32) -> int:
        """Write-verify the plane."""
        return self._plane.program(target)

    def cell_arrays(self) -> dict[str, Any]:
        """The digital matrix."""
        return {"accumulated": self._held}
