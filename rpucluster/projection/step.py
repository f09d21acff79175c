"""One training step of a job on a cluster, however large: `estimate`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rpucluster.buffers import buffer_uses, check_buffers
from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.plan import Plan
from rpucluster.program import Collective, Send
from rpucluster.projection.extension import extended, in_proportion
from rpucluster.projection.folding import Folding, foldings_of
from rpucluster.projection.score import score_of
from rpucluster.projection.summary import Moments, Sums, summed_up
from rpucluster.projection.symmetry import Symmetry, symmetry_of
from rpucluster.projection.unrolled import Unrolled, as_columns, unroll
from rpucluster.schedule import interleave
from rpucluster.timeline.clock import play
from rpucluster.timeline.prices import price_of

FULL_OPERATIONS = 200_000
"""Where representatives are not known to be exact, steps of about no more operations are replayed whole."""
SHORT_OPERATIONS = 100_000
"""Steps of about no more operations of representatives are not extended from shorter ones, being fast anyway."""
REPLAYED = (0, 1, 2, 4)
"""Which of a series of plans are replayed: three to extend, and one to hold that to."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a step costs on the modelled machine, and whether that is what a replay of the whole program finds."""

    plan: Plan
    step: Sums
    average: Sums | None
    """Of one averaging of the replicas, where they do that."""
    why_not_exact: str | None

    @property
    def exact(self) -> bool:
        """Whether a replay of the operations of all accelerators finds the same."""
        return self.why_not_exact is None

    def seconds(self, steps: int, averages: int) -> float:
        """Modelled time of that many steps and averagings, one after the other."""
        return steps * self.step.modelled_s + averages * (self.average.modelled_s if self.average else 0.0)

    def joules(self, steps: int, averages: int) -> float:
        """Modelled energy of that many steps and averagings."""
        return steps * self.step.all_J + averages * (self.average.all_J if self.average else 0.0)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job as planned and lowered for representatives, ready to be timed on clusters whose links differ in speed."""

    plan: Plan
    symmetry: Symmetry | None
    """None where all accelerators are there."""
    writer: "_Writer"
    """Of steps, as they are needed."""
    average: Unrolled | None

    def on(self, cluster: Cluster) -> Estimate:
        """Time it."""
        step, why_not = self.writer.timed(cluster)
        reasons = [why for why in (self.symmetry.why_not if self.symmetry else None, why_not) if why is not None]
        return Estimate(
            plan=self.plan,
            step=step,
            average=None if self.average is None else _timed(self.average, self.plan, cluster, self.symmetry),
            why_not_exact="; ".join(reasons) or None,
        )


def prepare(job: Job, cluster: Cluster, plan: Plan | None = None, *, whole: bool = False) -> Prepared:
    """Plan a job, if there is no plan yet, and lower it for representatives; all accelerators, where that is needed and
    small.  `whole`: never extend a step from shorter ones.

    Raises what `partition` and `check_buffers` raise.
    """
    plan = partition(job, cluster) if plan is None else plan
    symmetry: Symmetry | None = symmetry_of(plan, job, cluster)
    assert symmetry is not None
    if not symmetry.exact and _about(plan, job, range(plan.tensor)) * plan.data <= FULL_OPERATIONS:
        symmetry = None
    written = None if symmetry is None else symmetry.written
    if cluster.accelerator.buffer is not None:
        check_buffers(buffer_uses(lower(plan, job, written=written), plan, job), cluster)
    averaging = plan.data > 1 and job.parallel.data_sync == "average"
    average = as_columns(lower(plan, job, "average", written=written)) if averaging else None
    writer = _Writer(plan=plan, job=job, symmetry=symmetry, whole=whole)
    return Prepared(plan=plan, symmetry=symmetry, writer=writer, average=average)


def estimate(job: Job, cluster: Cluster, plan: Plan | None = None, *, whole: bool = False) -> Estimate:
    """Plan a job, if there is no plan yet, and time one step on representative accelerators.

    Raises what `partition` and `check_buffers` raise.
    """
    return prepare(job, cluster, plan, whole=whole).on(cluster)


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """Steps of a plan as columns: of the plan itself, or of the shorter ones whose figures lead to it."""

    plan: Plan
    job: Job
    symmetry: Symmetry | None
    whole: bool
    steps: dict[tuple[int, int, int], Unrolled] = field(default_factory=dict)
    """By the stages left out, and those and the microbatches that are there."""

    def timed(self, cluster: Cluster) -> tuple[Sums, str | None]:
        """A step on a cluster, and why it is not known to be that of a replay of all its operations."""
        plan, microbatches = self.plan, self.job.train.minibatch // self.job.train.microbatch
        if not self.whole and _about(plan, self.job, self._written) > SHORT_OPERATIONS:
            for folding in foldings_of(plan, self.job, cluster, microbatches):
                sizes = [folding.size(number) for number in REPLAYED]
                if 2 * sum(p * m for p, m in sizes) > plan.pipeline * microbatches:
                    break
                steps = {number: self._folded(folding, number, cluster) for number in REPLAYED}
                found = extended(steps, folding.last)
                if found is not None:
                    return found, _told(plan, microbatches, sizes)
        return _timed(self._step(plan, microbatches), plan, cluster, self.symmetry), None

    @property
    def _written(self) -> Sequence[int]:
        return range(self.plan.tensor) if self.symmetry is None else self.symmetry.written

    def _folded(self, folding: Folding, number: int, cluster: Cluster) -> Sums:
        stages, microbatches = folding.size(number)
        plan = folding.folded(number)
        all_microbatches = self.job.train.minibatch // self.job.train.microbatch
        share = None if __import__("os").environ.get("UNS") else microbatches / all_microbatches
        key = folding.cut, stages, microbatches
        if key not in self.steps:
            self.steps[key] = self._step(plan, microbatches)
        return _timed(self.steps[key], plan, cluster, self.symmetry, share)

    def _step(self, plan: Plan, microbatches: int) -> Unrolled:
        if plan is self.plan and self.symmetry is None:
            return as_columns(lower(plan, self.job))
        score = replace(score_of(plan, self.job, self._written), microbatches=microbatches)
        turns = interleave(self.job.parallel.schedule, plan.pipeline, microbatches, plan.virtual_stages)
        return unroll(score, turns)


def _about(plan: Plan, job: Job, written: Collection[int]) -> int:
    """Roughly how many operations a step of one replica has."""
    holders = sum(rank in written for layer in plan.layers for rank in layer.holders)
    return 6 * holders * (job.train.minibatch // job.train.microbatch)


def _told(plan: Plan, microbatches: int, sizes: Sequence[tuple[int, int]]) -> str:
    (p, m), (more_p, more_m) = sizes[0], sizes[-1]
    return (
        f"{microbatches} microbatches over {plan.pipeline} stages are extended from replays of {m} to {more_m} over "
        f"{p} to {more_p}, which are in a steady state"
    )


def _timed(
    unrolled: Unrolled, plan: Plan, cluster: Cluster, symmetry: Symmetry | None, share: float | None = None
) -> Sums:
    """Time a step; `share`: of what the flush takes, as there are of the microbatches."""
    prices = [price_of(op, cluster) for op in unrolled.examples]
    if share is not None:
        prices = [in_proportion(price, share) if i in unrolled.flush else price for i, price in enumerate(prices)]
    slow = _slow(plan, cluster, symmetry, unrolled.accelerators)
    state = play(unrolled.order, prices, unrolled.held, slow, cluster)
    working = {op.accelerator for op in unrolled.pattern if not isinstance(op, Collective | Send)}
    moments = Moments(
        pattern=unrolled.pattern,
        of=unrolled.of,
        price=unrolled.price,
        prices=prices,
        start=np.asarray(state.start),
        finish=np.asarray(state.finish),
        accelerators=tuple(sorted(working)),
    )
    return summed_up(moments, plan, symmetry, cluster.accelerator.idle_power)


def _slow(plan: Plan, cluster: Cluster, symmetry: Symmetry | None, accelerators: Sequence[int]) -> list[float]:
    """How many times longer everything takes at each place: as on the slowest of those that it stands for."""
    slowdowns = cluster.faults.slowdowns
    if not slowdowns:
        return [1.0] * len(accelerators)
    if symmetry is None:
        return [slowdowns.get(accelerator, 1.0) for accelerator in accelerators]
    slowest = {
        plan.accelerator(0, stage, ranks[0]): max(
            slowdowns.get(plan.accelerator(replica, stage, rank), 1.0) for replica in range(plan.data) for rank in ranks
        )
        for stage in range(plan.pipeline)
        for ranks in symmetry.classes
    }
    return [slowest.get(accelerator, 1.0) for accelerator in accelerators]
