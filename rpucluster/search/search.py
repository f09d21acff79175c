"""`search(job, cluster)`: bound every plan, replay the promising ones, best first."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from rpucluster.cluster import Cluster
from rpucluster.errors import CapacityError, PlanError
from rpucluster.job import Job
from rpucluster.projection.figures import figures
from rpucluster.projection.step import Estimate, estimate
from rpucluster.search.bounds import Bounds
from rpucluster.search.ranking import Family, Ranking, families
from rpucluster.search.space import Candidate, Kept, batches

Objective = Literal["time", "energy", "pareto"]
MOST_REPLAYS = 200
"""Plans that are replayed at most, unless asked otherwise."""
BUDGET_S = 10.0
"""Host seconds after which no more replays begin, unless asked otherwise; one is made in any case."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A plan that was replayed."""

    candidate: Candidate
    job: Job
    estimate: Estimate
    bound_s: float

    @property
    def modelled_s(self) -> float:
        """Seconds of a step, with its share of an averaging of the replicas."""
        average = self.estimate.average
        every = self.job.parallel.average_every
        return self.estimate.step.modelled_s + (average.modelled_s / every if average else 0.0)

    @property
    def energy_J(self) -> float:
        """Joules of a step, with its share of an averaging."""
        average = self.estimate.average
        return self.estimate.step.all_J + (average.all_J / self.job.parallel.average_every if average else 0.0)

    @property
    def row(self) -> dict[str, Any]:
        """Its columns: those of a projection, and what makes the plan."""
        plan = self.candidate
        keys = {
            "minibatch": plan.minibatch,
            "schedule": plan.schedule,
            "virtual_stages": plan.virtual_stages,
            "data_sync": plan.data_sync if plan.data > 1 or plan.data_sync == "gradient" else None,
            "placement": list(plan.placement),
            "bound_s": self.bound_s,
            # what the averagings of a training add to each of its steps
            "modelled_step_s": self.modelled_s,
            "modelled_energy_J": self.energy_J,
            "samples_per_s": plan.minibatch * plan.data / self.modelled_s if self.modelled_s else None,
        }
        return figures(self.job, self.estimate) | keys


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found."""

    found: tuple[Found, ...]
    """Best first; of ``"pareto"`` those that no other one beats in time, energy and accelerators used, by time."""
    plans: int
    """Legal plans."""
    fitting: int
    """Of these, those whose tiles may fit."""
    bounded: int
    """Of these, those that a bound ruled out without a replay."""
    alike: int
    """Of the fitting ones, those whose accelerators are another one's with other numbers, and which are thus told."""
    replayed: int
    refused: int
    """Of those that were to be replayed, those that the partitioner refused."""
    unsettled_s: float | None
    """Where replays ran out, the least seconds that one of the others may take; None where the best is proved, and for
    energies."""
    unsettled_J: float | None
    """The same of joules, by energy."""
    wall_s: float

    @property
    def gap(self) -> float:
        """By how much less than the best found another plan may take, as a share of that; 0 where that is proved."""
        if self.unsettled_J is not None:
            return 1 - self.unsettled_J / self.found[0].energy_J
        return 0.0 if self.unsettled_s is None else max(0.0, 1 - self.unsettled_s / self.found[0].modelled_s)


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

    A plan is replayed while its bound is below what was found, at most `replays`.  `keep` holds keys at what the job
    says.  Raises `CapacityError` where no plan fits and `PlanError` where none that fits is legal.
    """
    began = time.perf_counter()
    bounds = Bounds(job, cluster)
    legal = list(batches(job, cluster, keep))
    plans = list(families(legal, bounds, cluster))
    if not plans:
        raise _nothing_fits(job, cluster)
    groups: list[list[Family]] = [plans]
    if by == "pareto":  # the quickest of each number of accelerators
        plans.sort(key=lambda each: each.plan.accelerators)
        groups = [list(group) for _, group in groupby(plans, key=lambda each: each.plan.accelerators)]
    share = max(1, replays // len(groups))
    tally = _Tally(job, cluster, progress, replays, began + budget_s)
    for group in groups:
        tally.take(Ranking(group, bounds, by == "energy"), share, by == "energy")
    if not tally.found:
        raise tally.last_refusal or _nothing_fits(job, cluster)
    fitting = sum(each.alike * len(each.sizes) for each in plans)
    found = sorted(tally.found, key=lambda each: each.energy_J if by == "energy" else each.modelled_s)
    return Search(
        found=tuple(_front(found) if by == "pareto" else found),
        plans=sum(batch.plans for batch in legal),
        fitting=fitting,
        bounded=fitting - tally.settled - tally.left,
        alike=fitting - sum(len(each.sizes) for each in plans),
        replayed=len(tally.found),
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
        self._most, self._deadline = most, deadline
        self.found: list[Found] = []
        self.refused, self.left, self.settled = 0, 0, 0
        self.unsettled: float | None = None
        self.last_refusal: PlanError | None = None

    def take(self, ranking: Ranking, replays: int, by_energy: bool) -> None:
        """Replay plans in the order of their bounds, until these leave no chance to the rest or replays run out."""
        best, done = float("inf"), 0
        while (each := ranking.next(best)) is not None:
            bound, plan, bound_s, alike = each
            if done == replays or (done and time.perf_counter() > self._deadline):
                self.left += alike + ranking.left(best)
                self.unsettled = bound if self.unsettled is None else min(self.unsettled, bound)
                return
            job = with_plan(self._job, plan)
            self.settled += alike
            try:
                found = Found(candidate=plan, job=job, estimate=estimate(job, self._cluster), bound_s=bound_s)
            except PlanError as error:
                self.refused += 1
                self.last_refusal = error
                continue
            done += 1
            self.found.append(found)
            self._progress(len(self.found), self._most)
            best = min(best, found.energy_J if by_energy else found.modelled_s)


def with_plan(job: Job, plan: Candidate) -> Job:
    """The job with the keys of a plan."""
    parallel = job.parallel.model_copy(
        update={
            "tensor": plan.tensor,
            "pipeline": plan.pipeline,
            "data": plan.data,
            "schedule": plan.schedule,
            "virtual_stages": plan.virtual_stages,
            "data_sync": plan.data_sync,
            "placement": plan.placement,
        }
    )
    train = job.train.model_copy(update={"minibatch": plan.minibatch, "microbatch": plan.microbatch})
    return job.model_copy(update={"parallel": parallel, "train": train})


def _front(found: Sequence[Found]) -> list[Found]:
    """Those that no other one equals or beats in all of time, energy and accelerators."""
    front: list[Found] = []
    for each in found:  # ascending by time
        here = each.energy_J, each.candidate.accelerators
        if not any(other.energy_J <= here[0] and other.candidate.accelerators <= here[1] for other in front):
            front.append(each)
    return front


def _nothing_fits(job: Job, cluster: Cluster) -> CapacityError:
    chip = cluster.accelerator
    cells, held = job.network.weights, cluster.accelerators * chip.tiles * chip.tile_rows * chip.tile_cols
    layers = job.network.layers
    tiles = sum(la.arrays * -(-la.rows // chip.tile_rows) * -(-la.cols // chip.tile_cols) for la in layers)
    return CapacityError(
        f"no plan fits: {job.name} has {cells:,} weights and {cluster.name} holds {held:,} in {cluster.accelerators:,} "
        f"accelerators of {chip.tiles:,} tiles, of which edges stay empty; it takes {-(-tiles // chip.tiles):,} "
        f"such accelerators or more: raise [accelerator] tiles or a [network.axis] size"
    )
