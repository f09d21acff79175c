"""`search(job, cluster)`: bound every plan, replay the promising ones, best first."""

import time
from collections.abc import Callable, Collection
from itertools import groupby

from rpucluster.cluster import Cluster
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.projection.step import estimate
from rpucluster.search.bounds import Bounds
from rpucluster.search.found import Found, Objective, Search, best_first, replayed
from rpucluster.search.processors import search_processors
from rpucluster.search.ranking import Family, Ranking, families
from rpucluster.search.refusals import check_kept, no_legal_plan, too_few_tiles
from rpucluster.search.space import Kept, batches, with_plan

MOST_REPLAYS = 200
"""Plans that are replayed at most, unless asked otherwise."""
BUDGET_S = 10.0
"""Host seconds that a search takes, as far as it can be told before a replay, unless asked otherwise."""


def search(
    job: Job,
    cluster: Cluster,
    *,
    by: Objective = "time",
    keep: Collection[Kept] = (),
    replays: int = MOST_REPLAYS,
    budget_s: float = BUDGET_S,
    progress: Callable[[int, int], None] = lambda done, most: None,
) -> Search:
    """Look for the plan whose step is quickest, or takes the least energy, or for the front of both with accelerators.

    A plan is replayed while its bound is below what was found, at most `replays`; GPUs and CPUs need no replays.
    `keep` holds keys at what the job says.  Raises `CapacityError` where no plan fits, `PlanError` where none that
    fits is legal, `ConfigError` for what cannot be kept.
    """
    check_kept(keep, cluster)
    if not cluster.has_tiles:
        return search_processors(job, cluster, by=by, keep=keep, progress=progress)
    began = time.perf_counter()
    bounds = Bounds(job, cluster)
    legal = list(batches(job, cluster, keep))
    if not legal:
        raise no_legal_plan(job, cluster, keep)
    plans = list(families(legal, bounds, cluster))
    if not plans:
        raise too_few_tiles(job, cluster, legal, bounds, keep)
    groups: list[list[Family]] = [plans]
    if by == "pareto":  # the quickest of each number of accelerators
        plans.sort(key=lambda each: each.plan.accelerators)
        groups = [list(group) for _, group in groupby(plans, key=lambda each: each.plan.accelerators)]
    share = max(1, replays // len(groups))
    tally = _Tally(job, cluster, progress, replays, began + budget_s)
    for group in groups:
        tally.take(Ranking(group, bounds, by == "energy"), share, by == "energy")
    if not tally.found:
        assert tally.last_refusal is not None
        raise tally.last_refusal
    fitting = sum(each.alike * len(each.sizes) for each in plans)
    return Search(
        found=best_first(tally.found, by),
        plans=sum(batch.plans for batch in legal),
        fitting=fitting,
        bounded=fitting - tally.settled - tally.left,
        alike=fitting - sum(len(each.sizes) for each in plans),
        timed=len(tally.found),
        refused=tally.refused,
        unsettled_s=None if by == "energy" else tally.unsettled,
        unsettled_J=tally.unsettled if by == "energy" else None,
        wall_s=time.perf_counter() - began,
    )


class _Tally:
    """What was replayed so far."""

    def __init__(
        self, job: Job, cluster: Cluster, progress: Callable[[int, int], None], most: int, deadline: float
    ) -> None:
        self._job, self._cluster, self._progress = job, cluster, progress
        self._most, self._deadline, self._longest = most, deadline, 0.0
        self.found: list[Found] = []
        self.refused, self.left, self.settled = 0, 0, 0
        self.unsettled: float | None = None
        self.last_refusal: PlanError | None = None

    def take(self, ranking: Ranking, replays: int, by_energy: bool) -> None:
        """Replay plans in the order of their bounds, until these leave no chance to the rest or replays run out."""
        best, done = float("inf"), 0
        while (each := ranking.next(best)) is not None:
            bound, plan, bound_s, alike = each
            # the next replay may take as long as the longest so far; one is made in any case
            if done == replays or (done and time.perf_counter() + self._longest > self._deadline):
                self.left += alike + ranking.left(best)
                self.unsettled = bound if self.unsettled is None else min(self.unsettled, bound)
                return
            job, began = with_plan(self._job, plan), time.perf_counter()
            self.settled += alike
            try:
                found = replayed(plan, job, estimate(job, self._cluster), bound_s)
            except PlanError as error:
                self.refused += 1
                self.last_refusal = error
                continue
            done += 1
            self.found.append(found)
            self._longest = max(self._longest, time.perf_counter() - began)
            self._progress(len(self.found), self._most)
            best = min(best, found.energy_J if by_energy else found.modelled_s)
