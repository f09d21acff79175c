"""Pairs of devices that only rise: the weight is their difference."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rpucluster.algorithms.base import Compound, Memory, Moved, Shard, Trainer, Work, require_count, require_share
from rpucluster.algorithms.plane import Part
from rpucluster.arrays import to_host
from rpucluster.kernels import MAX_BIT_LENGTH, program
from rpucluster.kernels.base import ROWS
from rpucluster.rng import Float32


@dataclass(frozen=True, kw_only=True)
class OneSided:
    """w = G+ - G-: pulses that would raise w raise G+, and pulses that would lower it raise G-.

    Both devices drift to their upper bound, so that a pair is refreshed now and then: where the larger of the two has
    passed ``refresh_upper`` and the smaller ``refresh_lower``, both in units of the mean upper bound, both are set to
    0 and their difference is written back onto one of them, with single pulses and verification.  Bill and Legenstein
    (2014) and Suri et al. (2011) for pairs of phase-change devices; thresholds as aihwkit's OneSidedUnitCell.  Raises
    ValueError for a value out of range.
    """

    kind: ClassVar[str] = "sgd"

    refresh_every: int = 100
    """Updates (minibatches) between looks at all pairs; 0 for none."""
    refresh_upper: float = 0.75
    """Share of the mean upper bound; below 1.  Read as aihwkit's default."""
    refresh_lower: float = 0.25
    """Share of the mean upper bound; below 1.  Read as aihwkit's default."""

    def __post_init__(self) -> None:
        require_count("refresh_every", self.refresh_every, least=0)
        require_share("refresh_upper", self.refresh_upper)
        require_share("refresh_lower", self.refresh_lower)

    def trainer(self, shard: Shard) -> Trainer:
        """Two planes at 0."""
        return _Pairs(shard, self)

    def work(self, samples: int) -> Work:
        """A pulse cycle per sample on both devices, and per refresh two reads and a write of every row."""
        share = 1 / self.refresh_every if self.refresh_every else 0.0
        return Work(cycles=samples, planes=2, matrices_read=2 * share, matrices_written=share, slots=MAX_BIT_LENGTH)

    @property
    def memory(self) -> Memory:
        """The devices and their difference."""
        return Memory(planes=2, numbers=1)


class _Pairs(Compound):
    def __init__(self, shard: Shard, settings: OneSided) -> None:
        # the difference lives where the weights shall, plane 0 beside it
        super().__init__(shard, [shard.plane(0, shard.device, shard.storage), shard.plane(1, shard.device, None)])
        self.weights = self.planes[0].weights
        self.planes[0].weights = shard.xp.zeros_like(self.weights)
        self._settings, self._rule = settings, shard.rule(shard.device)._replace(raise_only=True)

    def update(self, x: Any, d: Any, lr: float, first_sample: int) -> Moved:
        """The rising half of the pulses onto one plane, the falling half, turned, onto the other."""
        shard, moved = self.shard, Moved()
        for plane, error in zip(self.planes, (d, -d), strict=True):
            more = shard.kernels.pulsed_update(
                plane.weights, plane.lanes, shard.tiling, plane.keys, x, error, lr, first_sample, self._rule,
                plane.hidden,
            )  # fmt: skip
            # the trains are fired once, and each coincidence moves one of the two
            moved = Moved(*more)._replace(coincidences=moved.coincidences + more.coincidences)
        self.counters += (len(x), 1)
        if self._settings.refresh_every and self.counters[1] % self._settings.refresh_every == 0:
            moved = moved.plus(self._refresh())
        self.relax(first_sample)
        self.combine()
        return moved

    def _refresh(self) -> Moved:
        plus, minus = self.planes
        bound = np.float32(self.shard.device.w_max)
        upper, lower = (
            np.float32(self._settings.refresh_upper) * bound,
            np.float32(self._settings.refresh_lower) * bound,
        )
        pulses = 0
        for part in self.parts():
            high, low = (to_host(plane.weights[part.cells]).copy() for plane in (plus, minus))
            due = (np.maximum(high, low) > upper) & (np.minimum(high, low) > lower)
            if not due.any():
                continue
            difference = high - low
            for plane, target in ((plus, difference), (minus, -difference)):
                moved = plane.written(part)
                wanted = np.where(due, np.maximum(target, np.float32(0)), moved)
                moved[due] = 0
                pulses += program(moved, self.shard.device, plane.tolerances(part), wanted)
                plane.write(part, moved, due)
        for plane in self.planes:
            plane.settle()
        rows = int(self.shard.table[:, ROWS].sum())
        return Moved(passes=2 * rows, line_slots=rows * MAX_BIT_LENGTH, line_pulses=pulses)

    def combine(self) -> None:
        """What the network reads: the difference."""
        self.shard.xp.subtract(self.planes[0].weights, self.planes[1].weights, out=self.weights)

    def put_part(self, part: Part, values: Float32) -> None:
        """Positive weights onto one plane, negative ones onto the other, 0 beside them."""
        self.planes[0].put_part(part, np.maximum(values, np.float32(0)))
        self.planes[1].put_part(part, np.maximum(-values, np.float32(0)))
        self.weights[part.cells] = self.planes[0].weights[part.cells] - self.planes[1].weights[part.cells]

    def program(self, target: Float32) -> int:
        """Write-verify both planes to the positive and the negative part."""
        pulses = self.planes[0].program(np.maximum(target, np.float32(0)))
        pulses += self.planes[1].program(np.maximum(-target, np.float32(0)))
        self.combine()
        return pulses
