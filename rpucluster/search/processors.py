"""The best plan on GPUs or CPUs: every legal plan is bounded, and priced in full while its bound leaves it a chance."""

import heapq
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.conventional import chain
from rpucluster.job import Job
from rpucluster.search.found import Found, Objective, Search, best_first, priced
from rpucluster.search.processor_bounds import Least, Prices
from rpucluster.search.processor_space import Choice, Shape, choices_of, shapes
from rpucluster.search.refusals import no_legal_plan, too_little_memory
from rpucluster.search.space import Candidate, Kept, arrangement, with_plan

BOUNDING = 0.8
"""Share of the time after which no more plans are looked at; to price what is left takes little (our choice)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fitting:
    """The plans of a shape that fit, in the order of their bounds."""

    shape: Shape
    order: NDArray[np.int64]
    """Of its choices."""
    least: Least
    placements: dict[tuple[str, ...], int]
    """Those that differ in more than the numbers of accelerators, and how many each stands for."""

    @property
    def plans(self) -> int:
        return len(self.order) * len(self.shape.placements)


class _Entry(NamedTuple):
    """What waits for its turn: the next choice of a shape, without transfers, or a plan with its closer bound."""

    bound: float
    number: int
    """Of two with the same bound, the first comes first."""
    of: _Fitting
    place: int
    """Of the choice, in the order of its shape."""
    plan: Candidate | None
    bound_s: float


def search_processors(
    job: Job,
    cluster: Cluster,
    *,
    by: Objective = "time",
    keep: Collection[Kept] = (),
    budget_s: float = math.inf,
    progress: Callable[[int, int], None] = lambda done, most: None,
) -> Search:
    """Look for the best plan; the closed form is quick, so it is found unless `budget_s` is short.

    Raises `CapacityError` where no plan fits and `PlanError` where none is legal, or the job asks for what only RPUs
    have.
    """
    began = time.perf_counter()
    network = chain(job.network.layers)
    choices = choices_of(job, network, keep)
    prices = Prices(job, cluster, network, choices)
    fitting: list[_Fitting] = []
    legal, unseen, leanest = 0, 0, None
    # where time does not suffice for all, those that leave accelerators idle go without
    for shape in sorted(shapes(job, cluster, network, keep), key=lambda each: -_accelerators(each)):
        there = shape.microbatches(choices) > 0
        plans = int(there.sum()) * len(shape.placements)
        legal += plans
        if not there.any():
            continue
        if fitting and time.perf_counter() > began + BOUNDING * budget_s:
            unseen += plans
            continue
        held = np.where(there, prices.memory(shape), np.inf)
        fits = held <= cluster.processor.memory
        if fits.any():
            least = prices.least(shape)
            bound = np.where(fits, least.joules if by == "energy" else least.seconds, np.inf)
            order = np.argsort(bound, kind="stable")[: int(fits.sum())]
            fitting.append(_Fitting(shape=shape, order=order, least=least, placements=_arranged(shape, cluster)))
        elif leanest is None or held.min() < leanest[0]:
            leanest = float(held.min()), shape.plan(choices[int(held.argmin())])
    if not fitting:
        raise no_legal_plan(job, cluster, keep) if leanest is None else too_little_memory(job, cluster, *leanest)
    groups = [fitting]
    if by == "pareto":  # the quickest of each number of accelerators
        groups = [list(group) for _, group in groupby(fitting, key=lambda each: _accelerators(each.shape))]
    found: list[Found] = []
    settled = 0
    for group in groups:
        for each, stands_for in _timed(group, prices, choices, job, by == "energy"):
            found.append(each)
            settled += stands_for
            progress(len(found), len(found))
    plans = sum(each.plans for each in fitting)
    return Search(
        found=best_first(found, by),
        plans=legal,
        fitting=plans,
        bounded=plans - settled,
        alike=sum(len(each.order) * (len(each.shape.placements) - len(each.placements)) for each in fitting),
        timed=len(found),
        unseen=unseen,
        vague=0,
        refused=0,
        unsettled_s=0.0 if unseen and by != "energy" else None,
        unsettled_J=0.0 if unseen and by == "energy" else None,
        wall_s=time.perf_counter() - began,
    )


def _accelerators(shape: Shape) -> int:
    return shape.tensor * shape.pipeline * shape.data


def _timed(
    fitting: Iterable[_Fitting], prices: Prices, choices: tuple[Choice, ...], job: Job, by_energy: bool
) -> Iterator[tuple[Found, int]]:
    """Plans in the order of their bounds until these leave none a chance, and how many each stands for."""

    def value(least: Least, k: int) -> float:
        return float((least.joules if by_energy else least.seconds)[k])

    number = count()
    heap = [_Entry(value(each.least, each.order[0]), next(number), each, 0, None, 0.0) for each in fitting]
    heapq.heapify(heap)
    best = float("inf")
    while heap and heap[0].bound < best:
        bound, _, of, place, plan, bound_s = heapq.heappop(heap)
        if plan is not None:
            changed = with_plan(job, plan)
            found = priced(plan, changed, prices.full(changed), bound_s)
            best = min(best, found.energy_J if by_energy else found.modelled_s)
            yield found, of.placements[plan.placement]
            continue
        if place + 1 < len(of.order):
            after = value(of.least, of.order[place + 1])
            heapq.heappush(heap, _Entry(after, next(number), of, place + 1, None, 0.0))
        for placement in of.placements:
            plan = of.shape.plan(choices[of.order[place]], placement)
            closer = prices.closer(of.shape, plan)
            seconds = float(closer.seconds[0])
            heapq.heappush(heap, _Entry(max(bound, value(closer, 0)), next(number), of, place, plan, seconds))


def _arranged(shape: Shape, cluster: Cluster) -> dict[tuple[str, ...], int]:
    first: dict[object, tuple[str, ...]] = {}
    found: dict[tuple[str, ...], int] = {}
    for placement in shape.placements:
        key = first.setdefault(
            arrangement((shape.tensor, shape.pipeline, shape.data), placement, cluster.network), placement
        )
        found[key] = found.get(key, 0) + 1
    return found
