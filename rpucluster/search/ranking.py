"""Plans that fit in the order of their bounds, plans that are alike once: `families` and `Ranking`."""

import heapq
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from rpucluster.cluster import Cluster
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


class Ranked(NamedTuple):
    """A plan whose turn it is."""

    bound: float
    plan: Candidate
    bound_s: float
    alike: int
    """How many plans it stands for, itself among them."""

    @property
    def turns(self) -> int:
        """Turns of a step, of which it has as many forward as back: what a replay takes goes with these."""
        return self.plan.microbatches * self.plan.pipeline * self.plan.virtual_stages


class Ranking:
    """Plans of families, the one with the lowest bound first; bounds are refined for those that come first only."""

    def __init__(self, families: Iterable[Family], bounds: Bounds, by_energy: bool) -> None:
        self._families, self._bounds, self._by_energy = list(families), bounds, by_energy
        self._heap = [
            (bound, i, k, False)
            for i, family in enumerate(self._families)
            for k, bound in enumerate(self._of(family).tolist())
        ]
        heapq.heapify(self._heap)
        self._count = 0

    def _of(self, family: Family) -> Floats:
        return family.least.joules if self._by_energy else family.least.seconds

    def next(self, below: float, deadline: float = math.inf) -> Ranked | None:
        """The plan with the lowest bound; None where none has a bound below a number.

        Once `time.perf_counter` has come to `deadline`, bounds are left as they are, but for the first few.
        """
        while self._heap and self._heap[0][0] < below:
            bound, i, k, refined = self._heap[0]
            if refined or not self._refines(deadline):
                heapq.heappop(self._heap)
                return self._ranked(bound, i, k)
            heapq.heapreplace(self._heap, self._refine(i, k))
        return None

    def shorter(self, turns: float) -> Ranked | None:
        """The plan with the lowest bound of those with at most so many turns a step; None where there is none."""
        short = [entry for entry in self._heap if self._ranked(*entry[:3]).turns <= turns]
        heapq.heapify(short)
        for _ in range(FEW):
            if short and not short[0][3]:
                heapq.heapreplace(short, self._refine(*short[0][1:3]))
        if not short:
            return None
        _, i, k, _ = first = short[0]
        self._heap = [entry for entry in self._heap if entry[1:3] != (i, k)]
        heapq.heapify(self._heap)
        return self._ranked(*first[:3])

    def _refines(self, deadline: float) -> bool:
        return self._count < FEW or time.perf_counter() < deadline

    def _refine(self, i: int, k: int) -> tuple[float, int, int, bool]:
        self._count += 1
        family = self._families[i]
        family.refine(k, self._bounds)
        return float(self._of(family)[k]), i, k, True

    def _ranked(self, bound: float, i: int, k: int) -> Ranked:
        family = self._families[i]
        plan = family.plan._replace(microbatch=family.sizes[k])
        return Ranked(bound, plan, float(family.least.seconds[k]), family.alike)

    def left(self, below: float) -> int:
        """How many plans have bounds below a number."""
        return sum(self._families[i].alike for bound, i, *_ in self._heap if bound < below)
