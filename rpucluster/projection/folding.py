"""Pipelines with fewer of the stages that are alike, and fewer microbatches: `Folding`, `foldings_of`.

A long pipeline over many microbatches is a short one over few, with its middle repeated.  A *folding* is a series of
plans of one job, each with the same number of stages and of microbatches more than the one before; the job's own plan
is one of the series, far on.  `rpucluster.projection.extension` takes the figures of the first few further.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.plan import LayerPlan, Plan
from rpucluster.topology import Faults, Network

FEWEST = 4
"""Alike stages, and microbatches, of the smallest plan that is tried at first (our choice)."""
STEADY = 8
"""Microbatches per stage beyond which more change nothing but the length (our choice)."""
_WITHIN = 0.15  # how far small plans may be from the ratio of microbatches and stages
_WIDEST = 4  # units that repeat, between neighbours in a series


@dataclass(frozen=True, kw_only=True)
class Folding:
    """A series of plans: number n has `stages` + n * `more_stages`, and so on; the job's own is number `last`."""

    plan: Plan
    run: tuple[int, int]
    """The first of the stages that are alike, and the one behind the last."""
    unit: int
    """After how many of them they repeat."""
    stages: int
    more_stages: int
    microbatches: int
    more_microbatches: int
    last: int

    @property
    def cut(self) -> int:
        """The stage before which others are left out."""
        return self.run[0] + self.unit

    def stands_for(self) -> dict[int, int]:
        """For how many stages of the whole plan some of the smallest one do the work, which are all of different work:
        the ends of a run send to others."""
        found: dict[int, int] = {}
        gone = self.plan.pipeline - self.stages
        for stage in range(self.plan.pipeline):
            if self.run[0] < stage < self.run[1] - 1:
                place = self.cut + (stage - self.cut) % self.unit
            else:
                place = stage if stage < self.cut else stage - gone
            found[place] = found.get(place, 0) + 1
        return found

    @property
    def replayed(self) -> tuple[int, int, int, int]:
        """Those that are replayed: three to go by, far enough apart, and one to hold them to."""
        more = self.more_stages or self.more_microbatches
        apart = max(1, (self.stages if self.more_stages else self.microbatches) // (3 * more))
        return 0, apart, 2 * apart, 3 * apart

    @property
    def times(self) -> float:
        """How many of the steps between those the plan itself is from the first."""
        return self.last / self.replayed[1]

    def size(self, number: int) -> tuple[int, int]:
        """Stages and microbatches of a plan of the series."""
        return self.stages + number * self.more_stages, self.microbatches + number * self.more_microbatches

    def folded(self, number: int) -> Plan:
        """The plan of that number, all stages behind the cut moved up; its accelerators are those of the whole plan."""
        stages = self.size(number)[0]
        gone = self.plan.pipeline - stages
        layers: list[LayerPlan] = []
        for layer in self.plan.layers:
            if self.cut <= layer.stage < self.cut + gone:
                continue
            stage = layer.stage if layer.stage < self.cut else layer.stage - gone
            layers.append(replace(layer, layer=len(layers), stage=stage))
        names = {name: getattr(self.plan, name) for name in Plan.__dataclass_fields__}
        strides = {
            "data": self.plan.accelerator(1, 0, 0),
            "pipeline": self.plan.accelerator(0, 1, 0),
            "tensor": self.plan.accelerator(0, 0, 1),
        }
        return _Folded(**names | {"layers": tuple(layers), "pipeline": stages, "strides": strides})


@dataclass(frozen=True, kw_only=True)
class _Folded(Plan):
    """A plan whose accelerators have the numbers of a larger one."""

    strides: Mapping[str, int]

    @cached_property
    def _strides(self) -> Mapping[str, int]:  # type: ignore[override]
        return self.strides


def leading_to(plan: Plan, microbatches: int) -> tuple[int, ...]:
    """Of how many microbatches steps of all stages are looked at: as many as there are, or of very many per stage two
    fewer numbers, from which a step grows along a line, and a third that the line is held to.

    Stages that take turns with p microbatches on their way have a time per microbatch of c - k / p.  So steps grow
    along a line with their microbatches, and along a series with as many of them per stage, but not along others.
    """
    if microbatches <= 2 * STEADY * plan.pipeline:
        return (microbatches,)
    return tuple(share * STEADY * plan.pipeline for share in (1, 2, 3))


def foldings_of(plan: Plan, job: Job, cluster: Cluster, microbatches: int) -> Iterator[Folding]:
    """Series that lead to a plan with so many microbatches, from short beginnings to longer ones."""
    together = job.parallel.schedule == "interleaved"
    run = _run_alike(plan, _shift(plan, cluster, together))
    level = 1
    while True:
        found = [
            folding
            for step in (range(1, _WIDEST + 1) if run else range(1))
            if (folding := _series(plan, microbatches, run or (0, 0, 0), step, level, together)) is not None
        ]
        if not found:
            return
        yield min(found, key=lambda folding: folding.size(2)[0] * folding.size(2)[1])
        level *= 2


def _series(
    plan: Plan, microbatches: int, run: tuple[int, int, int], step: int, level: int, together: bool
) -> Folding | None:
    """The series with the shortest beginning whose plans are about as full as the whole one; None without one."""
    first, last, unit = run
    more, whole = step * unit, plan.pipeline
    ratio = microbatches / whole
    full = ratio if more and (together or ratio <= 3 * STEADY) else min(ratio, STEADY * level)
    least = whole - (last - first) + max(2 * unit, FEWEST * level) if more else whole
    for stages in range(least, whole + 1):
        wanted = full * stages
        if more:
            number = (whole - stages) // more
            if (whole - stages) % more:
                continue
        else:
            number = int(microbatches - wanted) // stages
        if number < 6:
            return None
        more_microbatches = round((microbatches - wanted) / number) if more else stages
        start = microbatches - number * more_microbatches
        if start < min(FEWEST * level, microbatches) or (start >= stages) != (microbatches >= whole):
            continue
        if full * (1 - _WITHIN) <= start / stages <= ratio * (1 + _WITHIN):
            return Folding(
                plan=plan,
                run=(first, last),
                unit=unit,
                stages=stages,
                more_stages=more,
                microbatches=start,
                more_microbatches=more_microbatches,
                last=number,
            )
        if not more:
            return None
    return None


def _run_alike(plan: Plan, shift: int | None) -> tuple[int, int, int] | None:
    """The longest run of stages (first, behind the last) that repeat one another after some of them (the unit)."""
    if shift is None:
        return None
    stages: list[list[object]] = [[] for _ in range(plan.pipeline)]
    for layer in plan.layers:
        shape = layer.shape.nameless
        stages[layer.stage].append((layer.chunk, shape, layer.split, layer.arrays, layer.blocks))
    numbers: dict[object, int] = {}
    kinds = [numbers.setdefault(tuple(stage), len(numbers)) for stage in stages]
    best = None
    for unit in range(shift, min(_WIDEST * shift, len(kinds) // 4) + 1, shift):
        first = 0
        for stage in range(len(kinds) - unit + 1):
            if stage == len(kinds) - unit or kinds[stage] != kinds[stage + unit]:
                length = stage - first + unit
                if length >= 4 * unit and (best is None or length > best[1] - best[0]):
                    best = first, first + length, unit
                first = stage + 1
    return best


def _shift(plan: Plan, cluster: Cluster, round_about: bool) -> int | None:
    """By how many stages everything may move up and find the same network again; None where it never does.

    `round_about`: whether the last stage sends to the first.
    """
    network: Network = cluster.network
    if network.product is None or cluster.faults != Faults() or plan.pipeline == 1:
        return None
    sizes = {"tensor": plan.tensor, "pipeline": plan.pipeline, "data": plan.data}
    spans, at = {}, 1
    for name in plan.placement:
        spans[name] = at, at * sizes[name]
        at *= sizes[name]
    begin, end = spans["pipeline"]
    inside, outside, first = 1, 1, 1
    for axis in network.axis:
        behind = first * axis.size
        if max(first, begin) < min(behind, end):
            crossing = [name for name, (start, stop) in spans.items() if max(start, first) < min(stop, behind)]
            lent = axis.kind in ("ring", "mesh")
            if lent and (round_about or len(crossing) > 1):
                return None
            inside, outside = first, behind
        first = behind
    if outside < at and outside % end:
        return None  # other replicas would not move along the same axis
    return inside // math.gcd(inside, begin)
