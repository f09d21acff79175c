"""`search(job, cluster)`: bound every plan, replay the promising ones, best first."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from rpucluster.cluster import Cluster
from rpucluster.errors import CapacityError, PlanError
from rpucluster.job import Job
from rpucluster.projection.figures import figures
from rpucluster.projection.step import Estimate, estimate
from rpucluster.search.bounds import Bounds
from rpucluster.search.space import Candidate, Kept, batches

Objective = Literal["time", "energy", "pareto"]
MOST_REPLAYS = 200
"""Plans that are replayed at most, unless asked otherwise."""


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
    replayed: int
    refused: int
    """Of those that were to be replayed, those that the partitioner refused."""
    unsettled_s: float | None
    """Where replays ran out, the least that one of the others may take; None where the best is proved."""
    wall_s: float


def search(
    job: Job,
    cluster: Cluster,
    *,
    by: Objective = "time",
    keep: Collection[Kept] = (),
    replays: int = MOST_REPLAYS,
    progress: Callable[[int, int], None] = lambda done, most: None,
) -> Search:
    """Look for the plan whose step is quickest, or takes the least energy, or for the front of both with accelerators.

    A plan is replayed while its bound is below what was found, at most `replays`.  `keep` holds keys at what the job
    says.  Raises `CapacityError` where no plan fits and `PlanError` where none that fits is legal.
    """
    began = time.perf_counter()
    bounds = Bounds(job, cluster)
    legal = list(batches(job, cluster, keep))
    fitting = [plan for batch in legal if bounds.fits(batch.degrees) for plan in batch]
    if not fitting:
        raise _nothing_fits(job, cluster)
    bound = bounds.energy_J if by == "energy" else bounds.modelled_s
    groups: Iterable[Sequence[tuple[float, Candidate]]]
    ranked = sorted(((bound(plan), plan) for plan in fitting), key=lambda pair: pair[0])
    if by == "pareto":  # the quickest of each number of accelerators
        ranked.sort(key=lambda pair: pair[1].accelerators)
        groups = [list(group) for _, group in groupby(ranked, key=lambda pair: pair[1].accelerators)]
        share = max(1, replays // len(list(groups)))
    else:
        groups, share = [ranked], replays
    tally = _Tally(job, cluster, bounds, progress, replays)
    for group in groups:
        tally.take(group, share, (lambda found: found.energy_J) if by == "energy" else (lambda found: found.modelled_s))
    if not tally.found:
        raise tally.last_refusal or _nothing_fits(job, cluster)
    found = sorted(tally.found, key=lambda each: each.energy_J if by == "energy" else each.modelled_s)
    return Search(
        found=tuple(_front(found) if by == "pareto" else found),
        plans=sum(batch.plans for batch in legal),
        fitting=len(fitting),
        bounded=len(fitting) - len(tally.found) - tally.refused - tally.left,
        replayed=len(tally.found),
        refused=tally.refused,
        unsettled_s=tally.unsettled,
        wall_s=time.perf_counter() - began,
    )


class _Tally:
    """What was replayed so far."""

    def __init__(
        self, job: Job, cluster: Cluster, bounds: Bounds, progress: Callable[[int, int], None], most: int
    ) -> None:
        self._job, self._cluster, self._bounds = job, cluster, bounds
        self._progress, self._most = progress, most
        self.found: list[Found] = []
        self.refused, self.left = 0, 0
        self.unsettled: float | None = None
        self.last_refusal: PlanError | None = None

    def take(self, ranked: Sequence[tuple[float, Candidate]], replays: int, worth: Callable[[Found], float]) -> None:
        """Replay plans in the order of their bounds, until these leave no chance to the rest or replays run out."""
        best, done = float("inf"), 0
        for i, (bound, plan) in enumerate(ranked):
            if bound >= best:
                return
            if done == replays:
                rest = [b for b, _ in ranked[i:] if b < best]
                self.left += len(rest)
                self.unsettled = bound if self.unsettled is None else min(self.unsettled, bound)
                return
            job = with_plan(self._job, plan)
            try:
                found = Found(
                    candidate=plan,
                    job=job,
                    estimate=estimate(job, self._cluster),
                    bound_s=self._bounds.modelled_s(plan),
                )
            except PlanError as error:
                self.refused += 1
                self.last_refusal = error
                continue
            done += 1
            self.found.append(found)
            self._progress(len(self.found), self._most)
            best = min(best, worth(found))


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
    return CapacityError(
        f"no plan fits: {job.name} has {cells:,} weights and {cluster.name} holds {held:,} in {cluster.accelerators:,} "
        f"accelerators of {chip.tiles:,} tiles, of which edges stay empty; raise [accelerator] tiles or a "
        f"[network.axis] size"
    )
