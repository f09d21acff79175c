"""Several devices for each weight, trained by plain pulses."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rpucluster.algorithms.base import Compound, Memory, Moved, Shard, Trainer, Work, require_count
from rpucluster.algorithms.plane import Part
from rpucluster.rng import Float32

DeviceChoice = Literal["all", "fixed", "cyclic"]


@dataclass(frozen=True, kw_only=True)
class VectorCell:
    """The weight is the mean of n devices, whose spreads and noise are independent; all share the pulse trains.

    With ``"all"`` every device takes every update, at the learning rate.  With ``"cyclic"`` one device takes an update
    (a whole minibatch) at n times the rate and the next one the next; with ``"fixed"`` it is always the first, and the
    others stay as initialised.  So the weight moves by the learning rate on average in each case.  Boybat et al.,
    Nature Communications 9:2514 (2018) choose cyclically; the choices are those of aihwkit's VectorUnitCell.  Raises
    ValueError for a value out of range.
    """

    kind: ClassVar[str] = "sgd"

    devices: int = 2
    """Devices of a weight, 2 to 255."""
    choice: DeviceChoice = "all"
    """Which of them take an update."""

    def __post_init__(self) -> None:
        require_count("devices_per_weight", self.devices, least=2, most=255)
        if self.choice not in ("all", "fixed", "cyclic"):
            raise ValueError(f'device_choice = "{self.choice}": write "all", "fixed" or "cyclic"')

    def trainer(self, shard: Shard) -> Trainer:
        """So many planes at 0."""
        return _VectorCells(shard, self)

    def work(self, samples: int) -> Work:
        """A pulse cycle per sample, which reaches all devices or one of them."""
        return Work(cycles=samples, planes=self.devices if self.choice == "all" else 1)

    @property
    def memory(self) -> Memory:
        """The devices and their mean."""
        return Memory(planes=self.devices, numbers=1)


class _VectorCells(Compound):
    def __init__(self, shard: Shard, settings: VectorCell) -> None:
        # the mean lives where the weights shall, plane 0 beside it
        planes = [shard.plane(i, shard.device, shard.storage if i == 0 else None) for i in range(settings.devices)]
        super().__init__(shard, planes)
        self.weights = planes[0].weights
        planes[0].weights = shard.xp.zeros_like(self.weights)
        self._settings, self._rule = settings, shard.rule(shard.device)

    def update(self, x: Any, d: Any, lr: float, first_sample: int) -> Moved:
        """Pulses of the samples on the devices whose turn it is."""
        shard, n = self.shard, len(self.planes)
        turns = {"all": range(n), "fixed": [0], "cyclic": [int(self.counters[1]) % n]}[self._settings.choice]
        rate = lr if self._settings.choice == "all" else lr * n
        moved = Moved()
        for number in turns:
            plane = self.planes[number]
            more = shard.kernels.pulsed_update(
                plane.weights, plane.lanes, shard.tiling, plane.keys, x, d, rate, first_sample, self._rule,
                plane.hidden,
            )  # fmt: skip
            # the trains are fired once, whatever number of devices they reach
            moved = moved.plus(more)._replace(slots=more.slots, cycles=more.cycles)
        self.counters += (len(x), 1)
        self.relax(first_sample)
        self.combine()
        return moved

    def combine(self) -> None:
        """What the network reads: the mean."""
        xp, weights = self.shard.xp, self.weights
        xp.add(self.planes[0].weights, self.planes[1].weights, out=weights)
        for plane in self.planes[2:]:
            xp.add(weights, plane.weights, out=weights)
        xp.multiply(weights, xp.float32(1 / len(self.planes)), out=weights)

    def put_part(self, part: Part, values: Float32) -> None:
        """Onto every device."""
        for plane in self.planes:
            plane.put_part(part, values)
        total = sum(plane.weights[part.cells] for plane in self.planes)
        self.weights[part.cells] = total * self.shard.xp.float32(1 / len(self.planes))

    def program(self, target: Float32) -> int:
        """Write-verify every device."""
        pulses = sum(plane.program(target) for plane in self.planes)
        self.combine()
        return pulses
