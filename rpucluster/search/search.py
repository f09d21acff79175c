"""`search(job, cluster)`: bound every plan, replay the promising ones, best first."""

import math
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
from rpucluster.search.ranking import Family, Ranked, Ranking, families
from rpucluster.search.refusals import check_kept, no_legal_plan, too_few_tiles, too_slow
from rpucluster.search.space import Kept, batches, with_plan

MOST_REPLAYS = 200
"""Plans that are replayed at most, unless asked otherwise."""
BUDGET_S = 10.0
"""Host seconds that a search takes, unless asked otherwise."""
FRACTION = 0.25
"""Of the turns of a plan whose replay takes too long, where none is known (our choice)."""
BOUNDING, CHOOSING, FIRST = 0.5, 0.7, 0.75
"""Shares of these after which no more plans are looked at, and bounds are no longer refined before the first replay;
and the share of what is left that the first replay may take (our choices)."""
GRACE_S, LAST_S = 8.0, 60.0
"""What the first replay may take in any case, and the last that is begun where time has run out without any, since a
search without any has nothing to tell (our choices)."""


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
    fits is legal or can be replayed in `budget_s`, `ConfigError` for what cannot be kept.
    """
    check_kept(keep, cluster)
    if not cluster.has_tiles:
        return search_processors(job, cluster, by=by, keep=keep, budget_s=budget_s, progress=progress)
    began = time.perf_counter()
    bounds = Bounds(job, cluster)
    legal = list(batches(job, cluster, keep))
    if not legal:
        raise no_legal_plan(job, cluster, keep)
    # where time does not suffice for all, those that leave accelerators idle go without
    legal.sort(key=lambda batch: -math.prod(batch.degrees))
    plans: list[Family] = []
    unseen = 0
    for _, alike in groupby(legal, key=lambda batch: batch.degrees):
        same = list(alike)
        if plans and time.perf_counter() > began + BOUNDING * budget_s:
            unseen += sum(batch.plans for batch in same)
        else:
            plans += families(same, bounds, cluster)
    if not plans:
        raise too_few_tiles(job, cluster, legal, bounds, keep)
    groups: list[list[Family]] = [plans]
    if by == "pareto":  # the quickest of each number of accelerators
        groups = [list(group) for _, group in groupby(plans, key=lambda each: each.plan.accelerators)]
    share = max(1, replays // len(groups))
    tally = _Tally(job, cluster, progress, replays, began + CHOOSING * budget_s)
    if unseen:
        tally.unsettled = 0.0
    for i, group in enumerate(groups):
        now = time.perf_counter()
        until = now + (began + budget_s - now) / (len(groups) - i)
        tally.take(Ranking(group, bounds, by == "energy", job), share, by == "energy", until)
    if not tally.found:
        raise tally.last_refusal or too_slow(job, cluster, budget_s)
    fitting = sum(each.alike * len(each.sizes) for each in plans)
    return Search(
        found=best_first(tally.found, by),
        plans=sum(batch.plans for batch in legal),
        fitting=fitting,
        bounded=fitting - tally.settled - tally.left,
        alike=fitting - sum(len(each.sizes) for each in plans),
        timed=len(tally.found),
        refused=tally.refused,
        unseen=unseen,
        vague=tally.vague,
        unsettled_s=None if by == "energy" else tally.unsettled,
        unsettled_J=tally.unsettled if by == "energy" else None,
        wall_s=time.perf_counter() - began,
    )


class _Tally:
    """What was replayed so far."""

    def __init__(
        self, job: Job, cluster: Cluster, progress: Callable[[int, int], None], most: int, choose_until: float
    ) -> None:
        self._job, self._cluster, self._progress = job, cluster, progress
        self._most, self._choose_until, self._longest = most, choose_until, 0.0
        self.found: list[Found] = []
        self.refused, self.left, self.vague, self.settled = 0, 0, 0, 0
        self.unsettled: float | None = None
        self.last_refusal: PlanError | None = None

    def take(self, ranking: Ranking, replays: int, by_energy: bool, deadline: float) -> None:
        """Replay plans in the order of their bounds, until these leave no chance to the rest or replays or time run
        out.  As long as all take too long, the next is one with a fraction of the turns."""
        best, done, late = float("inf"), 0, False
        each = ranking.next(best, self._choose_until)
        while each is not None:
            now = time.perf_counter()
            # the next replay may take as long as the longest so far
            if done == replays or (now + (self._longest if done else 0.0) > deadline and (late or self.found)):
                self._leave(each)
                self.left, self.vague = self.left + ranking.left(best), self.vague + ranking.left(best, vague=True)
                self._unsettle(ranking.lowest(), best)
                return
            late = now > deadline  # without any so far, one begins even so
            try:
                found = self._timed(each, now + self._may_take(deadline - now))
            except PlanError as error:
                self.settled += each.alike
                self.refused += 1
                self.last_refusal = error
            except TimeoutError:
                self._leave(each)
                if not self.found and (shorter := ranking.shorter(each.turns * FRACTION)) is not None:
                    each = shorter
                    continue
            else:
                self.settled += each.alike
                done += 1
                best = min(best, found.energy_J if by_energy else found.modelled_s)
            each = ranking.next(best, deadline if self.found else self._choose_until)

    def _timed(self, each: Ranked, deadline: float) -> Found:
        job, began = with_plan(self._job, each.plan), time.perf_counter()
        found = replayed(each.plan, job, estimate(job, self._cluster, deadline=deadline), each.bound_s)
        self.found.append(found)
        self._longest = max(self._longest, time.perf_counter() - began)
        self._progress(len(self.found), self._most)
        return found

    def _may_take(self, left: float) -> float:
        """Seconds for a replay, of those that are left: none takes all, since the time of a replay is hard to tell
        from its length where many transfers share links."""
        if not self.found:
            return max(FIRST * left, GRACE_S) if left > 0 else LAST_S
        return min(left, max(self._longest, left / 2))

    def _leave(self, each: Ranked) -> None:
        self.left += each.alike
        if each.vague:
            self.vague += each.alike
        else:
            self._unsettle(each.bound)

    def _unsettle(self, bound: float, below: float = math.inf) -> None:
        if bound < below:
            self.unsettled = bound if self.unsettled is None else min(self.unsettled, bound)
