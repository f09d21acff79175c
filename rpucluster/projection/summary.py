"""What the representatives' timeline says of the whole machine: `summed_up`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from rpucluster.plan import Plan
from rpucluster.program import Collective, Digital, Op, Read, Send
from rpucluster.projection.symmetry import Symmetry
from rpucluster.timeline import Energy
from rpucluster.timeline.prices import Price

COMPONENTS = ("forward", "backward", "update", "digital", "exposed_communication", "bubble")
"""Where the step of an accelerator goes: what it does at each moment, or the first of these where it does several."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """When the operations of the representatives ran."""

    pattern: Sequence[Op]
    """Operations, of which each of the program repeats one."""
    of: NDArray[np.int32]
    """Which one each repeats."""
    price: NDArray[np.int32]
    """Which of `prices` each of the pattern has."""
    prices: Sequence[Price]
    start: Floats
    finish: Floats
    accelerators: tuple[int, ...]
    """The representatives."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Of the whole machine, in one performance of a program."""

    modelled_s: float
    accelerators: int
    """Those that take part."""
    seconds: Mapping[str, float]
    """By `COMPONENTS`, the mean over these accelerators; they add up to `modelled_s`."""
    energy_J: Mapping[str, float]
    """By the components of `Energy`, and idle."""
    link_bytes: float
    """Bytes summed over the links."""
    operations: int
    """Of all accelerators."""
    idle_power: float
    """Of each, W."""

    @property
    def all_J(self) -> float:
        """Joules of everything."""
        return math.fsum(self.energy_J.values())

    @property
    def communication_fraction(self) -> float:
        """The share of the step in which an accelerator waits for a transfer under way, averaged over them."""
        return self.seconds["exposed_communication"] / self.modelled_s if self.modelled_s else 0.0


def summed_up(
    moments: Moments,
    plan: Plan,
    symmetry: Symmetry | None,
    idle_power: float,
    stands_for: Mapping[int, int] | None = None,
) -> Sums:
    """Sum up over all accelerators for which the representatives stand, or None where all are there; in O(n log n) of
    their operations.  `stands_for`: how many stages each stands for, if it is not itself."""
    copies = Copies(plan, symmetry)
    stands = [1 if stands_for is None else stands_for.get(stage, 0) for stage in range(plan.pipeline)]
    stages = [stands[layer.stage] for layer in plan.layers]
    repeats = np.bincount(moments.of, minlength=len(moments.pattern))
    times = repeats * np.array([stages[op.layer] * copies.of_operation(op) for op in moments.pattern], np.int64)
    by_price = np.bincount(moments.price, weights=times, minlength=len(moments.prices))
    energies = np.array([price.energy for price in moments.prices]).reshape(-1, len(Energy._fields))
    energy = dict(zip(Energy._fields, (by_price @ energies).tolist(), strict=True))
    carried = [math.fsum(p.sending.link_bytes.values()) if p.sending else 0.0 for p in moments.prices]
    makespan = float(moments.finish.max(initial=0.0))
    weights = np.array([copies.of_accelerator(accelerator) for accelerator in moments.accelerators], np.float64)
    places = product(range(plan.pipeline), range(plan.tensor))
    of = {plan.accelerator(0, stage, rank): stands[stage] for stage, rank in places}
    weights *= [of.get(accelerator, 1) for accelerator in moments.accelerators]
    busy = _busy(moments)
    mean = weights @ busy / weights.sum() if weights.sum() else np.zeros(len(COMPONENTS) - 1)
    computing = mean[:-1].sum()
    seconds = dict(zip(COMPONENTS, mean.tolist(), strict=False))
    # what rounding leaves over in a step without a gap is not idleness
    seconds["bubble"] = max(0.0, makespan - math.fsum(mean.tolist()))
    energy["idle"] = idle_power * max(0.0, float(makespan - computing)) * float(weights.sum())
    return Sums(
        modelled_s=makespan,
        accelerators=int(weights.sum()),
        seconds=seconds,
        energy_J=energy,
        link_bytes=float(by_price @ np.array(carried)) if carried else 0.0,
        operations=int(times.sum()),
        idle_power=idle_power,
    )


class Copies:
    """For how many of the whole machine each representative stands."""

    def __init__(self, plan: Plan, symmetry: Symmetry | None) -> None:
        self._replicas = symmetry.replicas if symmetry else 1
        self._of = {
            plan.accelerator(0, stage, rank): len(ranks) * self._replicas
            for stage in range(plan.pipeline)
            for ranks in (symmetry.classes if symmetry else ())
            for rank in ranks
        }

    def of_accelerator(self, accelerator: int) -> int:
        return self._of.get(accelerator, 1)

    def of_operation(self, op: Op) -> int:
        """A collective over ranks there is once for each replica, one over replicas once for each of their groups."""
        if isinstance(op, Collective):
            known = [self._of[member] for member in op.members if member in self._of]
            if len(known) == len(op.members) > 1:
                return self._replicas
            return known[0] // len(op.members) if known else 1
        return self.of_accelerator(op.destination if isinstance(op, Send) else op.accelerator)


def _busy(moments: Moments) -> Floats:
    """Seconds of each representative (rows) by `COMPONENTS` but the last."""
    at = {accelerator: i for i, accelerator in enumerate(moments.accelerators)}
    places = [[at[a] for a in op.accelerators if a in at] for op in moments.pattern]
    work = np.array([_component(op) for op in moments.pattern], np.int8)
    # a transfer is at several places: as many times there
    width = np.array([len(each) for each in places], np.int64)
    first_place, flat = np.cumsum(width) - width, np.array([p for each in places for p in each], np.int64)
    of = moments.of
    times = np.where(moments.finish > moments.start, width[of], 0)
    ids = np.repeat(np.arange(len(of)), times)
    there = flat[np.arange(len(ids)) + np.repeat(first_place[of] - (np.cumsum(times) - times), times)]
    order = np.argsort(there.astype(np.uint16) if len(at) < 1 << 16 else there, kind="stable")
    ids = ids[order]
    ends = np.cumsum(np.bincount(there, minlength=len(at)))
    busy = np.zeros((len(at), len(COMPONENTS) - 1))
    for i, (first, last) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        mine = ids[first:last]
        mine = mine[np.argsort(moments.start[mine], kind="stable")]
        start, finish, kind = moments.start[mine], moments.finish[mine], work[of[mine]]
        covered = 0.0
        for component in range(len(COMPONENTS) - 1):
            among = kind <= component
            union = _union(start[among], finish[among])
            busy[i, component], covered = union - covered, union
    return busy


def _component(op: Op) -> int:
    if isinstance(op, Read):
        return int(op.direction == "backward")
    return 4 if isinstance(op, Collective | Send) else 3 if isinstance(op, Digital) else 2


def _union(start: Floats, finish: Floats) -> float:
    """Seconds that spans, ascending by their start, cover."""
    if not len(start):
        return 0.0
    until = np.maximum.accumulate(finish)
    return float(finish[0] - start[0] + np.maximum(finish[1:] - np.maximum(start[1:], until[:-1]), 0.0).sum())
