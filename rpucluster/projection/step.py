"""One training step of a job on a cluster, however large: `estimate`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rpucluster.buffers import buffer_uses, check_buffers
from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.plan import Plan
from rpucluster.program import Collective, Send
from rpucluster.projection.score import score_of
from rpucluster.projection.summary import Moments, Sums, summed_up
from rpucluster.projection.symmetry import Symmetry, symmetry_of
from rpucluster.projection.unrolled import Unrolled, as_columns, unroll
from rpucluster.schedule import interleave
from rpucluster.timeline.clock import play
from rpucluster.timeline.prices import price_of

FULL_OPERATIONS = 200_000
"""Where representatives are not known to be exact, steps of no more operations are replayed whole."""


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
    step: Unrolled
    average: Unrolled | None

    def on(self, cluster: Cluster) -> Estimate:
        """Time it."""
        return Estimate(
            plan=self.plan,
            step=_timed(self.step, self.plan, cluster, self.symmetry),
            average=None if self.average is None else _timed(self.average, self.plan, cluster, self.symmetry),
            why_not_exact=None if self.symmetry is None else self.symmetry.why_not,
        )


def prepare(job: Job, cluster: Cluster, plan: Plan | None = None) -> Prepared:
    """Plan a job, if there is no plan yet, and lower it for representatives; whole, where that is needed and small.

    Raises what `partition` and `check_buffers` raise.
    """
    plan = partition(job, cluster) if plan is None else plan
    symmetry: Symmetry | None = symmetry_of(plan, job, cluster)
    assert symmetry is not None
    score = score_of(plan, job, symmetry.written)
    turns = interleave(job.parallel.schedule, plan.pipeline, score.microbatches, plan.virtual_stages)
    step = unroll(score, turns)
    if not symmetry.exact and len(step.of) * symmetry.copies <= FULL_OPERATIONS:
        symmetry = None
        step = as_columns(lower(plan, job))
    written = None if symmetry is None else symmetry.written
    if cluster.accelerator.buffer is not None:
        check_buffers(buffer_uses(lower(plan, job, written=written), plan, job), cluster)
    averaging = plan.data > 1 and job.parallel.data_sync == "average"
    average = as_columns(lower(plan, job, "average", written=written)) if averaging else None
    return Prepared(plan=plan, symmetry=symmetry, step=step, average=average)


def estimate(job: Job, cluster: Cluster, plan: Plan | None = None) -> Estimate:
    """Plan a job, if there is no plan yet, and time one step on representative accelerators.

    Raises what `partition` and `check_buffers` raise.
    """
    return prepare(job, cluster, plan).on(cluster)


def _timed(unrolled: Unrolled, plan: Plan, cluster: Cluster, symmetry: Symmetry | None) -> Sums:
    prices = [price_of(op, cluster) for op in unrolled.examples]
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
