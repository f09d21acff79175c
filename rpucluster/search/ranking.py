"""Plans that fit in the order of their bounds, plans that are alike once: `families` and `Ranking`."""

import heapq
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.schedule import Schedule
from rpucluster.search.bounds import Bounds, Floats, Least, Mesh
from rpucluster.search.space import Batch, Candidate, arrangement, strides

FEW = 30
"""Bounds that are refined however late it is, 10 to 30 ms each: those without transfers do not tell good plans."""


@dataclass(kw_only=True, eq=False)
class Family:
    """Plans that differ in the size of their microbatches only; the one of size 1 stands for all."""

    plan: Candidate
    sizes: tuple[int, ...]
    alike: int
    """How many plans differ from each in the numbers of accelerators only, itself among them."""
    least: Least
    """Of the passes alone, until `refine` has found more."""

    def refine(self, k: int, bounds: Bounds) -> None:
        """Find the bounds of the k-th size with transfers and updates."""
        found = bounds.least(self.plan, Mesh(*strides(self.plan)), self.sizes[k : k + 1])
        # what is known without these stays a bound
        self.least.seconds[k] = max(self.least.seconds[k], found.seconds[0])
        self.least.joules[k] = max(self.least.joules[k], found.joules[0])


def families(batches: Iterable[Batch], bounds: Bounds, cluster: Cluster) -> Iterator[Family]:
    """The plans of batches that fit."""
    for degrees, group in groupby(batches, key=lambda batch: batch.degrees):
        same = list(group)
        placements: dict[object, list[tuple[str, ...]]] = {}
        for placement in same[0].placements:
            placements.setdefault(arrangement(degrees, placement, cluster.network), []).append(placement)
        found: dict[tuple[Schedule, int], list[int]] = {}
        for batch in same:
            for kind in batch.schedules:
                found.setdefault(kind, []).append(batch.microbatch)
        for (schedule, chunks), microbatches in found.items():
            if not bounds.fits(degrees[0], degrees[1], chunks):
                continue
            sizes = tuple(microbatches)
            for sync in same[0].syncs:
                plan = next(iter(same[0]))._replace(
                    microbatch=1, schedule=schedule, virtual_stages=chunks, data_sync=sync
                )
                least = bounds.least(plan, None, sizes)
                for alike in placements.values():
                    own = Least(least.seconds.copy(), least.joules.copy())
                    yield Family(plan=plan._replace(placement=alike[0]), sizes=sizes, alike=len(alike), least=own)


_Entry = tuple[float, int, int, bool]
"""The bound of a plan, its family and the place of its size there, and whether the bound is refined."""


class Ranked(NamedTuple):
    """A plan whose turn it is."""

    bound: float
    plan: Candidate
    bound_s: float
    alike: int
    """How many plans it stands for, itself among them."""
    vague: bool
    """Whether its transfers are left out of its bound."""

    @property
    def turns(self) -> int:
        """Turns of a step, of which it has as many forward as back: what a replay takes goes with these."""
        return self.plan.microbatches * self.plan.pipeline * self.plan.virtual_stages


class Ranking:
    """Plans of families, the one with the lowest bound first; bounds are refined for those that come first only.

    Bounds that leave transfers out are much lower than the others and tell little: plans of such bounds, with the
    degrees of the job and with others, take turns with those whose bounds know all, or nobody else would be looked at.
    """

    def __init__(self, families: Iterable[Family], bounds: Bounds, by_energy: bool, job: Job) -> None:
        self._families, self._bounds, self._by_energy = list(families), bounds, by_energy
        self._known: list[_Entry] = []
        own: list[_Entry] = []
        others: list[_Entry] = []
        self._vague = [not bounds.know_transfers(family.plan) for family in self._families]
        for i, (family, vague) in enumerate(zip(self._families, self._vague, strict=True)):
            degrees = family.plan.tensor, family.plan.pipeline
            of_job = degrees == (job.parallel.tensor, job.parallel.pipeline)
            lane = self._known if not vague else own if of_job else others
            lane += [(bound, i, k, False) for k, bound in enumerate(self._of(family).tolist())]
        self._lanes = [lane for lane in (self._known, own, others) if lane]
        for lane in self._lanes:
            heapq.heapify(lane)
        self._turn = self._count = 0

    def _of(self, family: Family) -> Floats:
        return family.least.joules if self._by_energy else family.least.seconds

    def next(self, below: float, deadline: float = math.inf) -> Ranked | None:
        """The plan whose turn it is; None where none has a bound below a number.

        Once `time.perf_counter` has come to `deadline`, bounds are left as they are, but for the first few.
        """
        for _ in self._lanes:
            lane = self._lanes[self._turn]
            self._turn = (self._turn + 1) % len(self._lanes)
            while lane and lane[0][0] < below:
                bound, i, k, refined = lane[0]
                if refined or not self._refines(deadline):
                    heapq.heappop(lane)
                    return self._ranked(bound, i, k)
                heapq.heapreplace(lane, self._refine(i, k))
        return None

    def shorter(self, turns: float) -> Ranked | None:
        """The plan with the lowest bound of those with at most so many turns a step; None where there is none."""
        short = [entry for lane in self._lanes for entry in lane if self._ranked(*entry[:3]).turns <= turns]
        heapq.heapify(short)
        for _ in range(FEW):
            if short and not short[0][3]:
                heapq.heapreplace(short, self._refine(*short[0][1:3]))
        if not short:
            return None
        _, i, k, _ = first = short[0]
        for lane in self._lanes:
            lane[:] = [entry for entry in lane if entry[1:3] != (i, k)]
            heapq.heapify(lane)
        return self._ranked(*first[:3])

    def _refines(self, deadline: float) -> bool:
        return self._count < FEW or time.perf_counter() < deadline

    def _refine(self, i: int, k: int) -> _Entry:
        self._count += 1
        family = self._families[i]
        family.refine(k, self._bounds)
        return float(self._of(family)[k]), i, k, True

    def _ranked(self, bound: float, i: int, k: int) -> Ranked:
        family = self._families[i]
        plan = family.plan._replace(microbatch=family.sizes[k])
        return Ranked(bound, plan, float(family.least.seconds[k]), family.alike, self._vague[i])

    def left(self, below: float, vague: bool = False) -> int:
        """How many plans have bounds below a number; or only of those without their transfers."""
        lanes = [lane for lane in self._lanes if lane is not self._known or not vague]
        return sum(self._families[i].alike for lane in lanes for bound, i, *_ in lane if bound < below)

    def lowest(self) -> float:
        """The lowest bound with transfers of a plan that is left; endless where none is."""
        return self._known[0][0] if self._known else math.inf
