"""One training step of a job on a cluster, however large: `estimate`."""

import gc
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rpucluster.buffers import BufferUse, buffer_uses, check_buffers
from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.plan import Plan
from rpucluster.projection.folding import foldings_of
from rpucluster.projection.held import uses_of_representatives
from rpucluster.projection.score import score_of
from rpucluster.projection.steady import Steady, step_of
from rpucluster.projection.summary import Sums
from rpucluster.projection.symmetry import Symmetry, symmetry_of
from rpucluster.projection.timing import timed
from rpucluster.projection.unrolled import Unrolled, as_columns

FULL_OPERATIONS = 200_000
"""Where representatives are not known to be exact, steps of about no more operations are replayed whole."""
SHORT_OPERATIONS = 300_000
"""Steps of representatives with about no more operations are replayed as they are, which is fast enough."""

WHOLE_OPERATIONS = 5_000_000
"""Longer steps of representatives are replayed whole only when that is asked for: 500 bytes and 1 to 5 us for each."""
QUICKEST_S = 1e-6
"""Host seconds that an operation takes at least, of steps that are written down and replayed whole."""


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Keep the garbage collector from looking for cycles again and again among operations, which have none: a sixth of
    a projection."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
class Averaging:
    """An averaging of replicas, as the operations of stages that are unlike one another."""

    plan: Plan
    stands_for: Mapping[int, int] | None
    program: Unrolled

    @classmethod
    def of(cls, plan: Plan, job: Job, cluster: Cluster, symmetry: Symmetry | None) -> "Averaging":
        """Write it down.  Stages do it each by themselves, so it takes as long as on the slowest of them."""
        folding = next(foldings_of(plan, job, cluster, job.train.microbatches), None) if symmetry else None
        stands_for = folding.stands_for() if folding else None
        plan = folding.folded(0) if folding else plan
        program = as_columns(lower(plan, job, "average", written=symmetry.written if symmetry else None))
        return cls(plan=plan, stands_for=stands_for, program=program)

    def on(self, cluster: Cluster, symmetry: Symmetry | None, deadline: float = math.inf) -> Sums:
        """Time it; `deadline` as in `Prepared.on`."""
        return timed(self.program, self.plan, cluster, symmetry, stands_for=self.stands_for, deadline=deadline)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job as planned, ready to be timed on clusters whose links differ in speed."""

    plan: Plan
    job: Job
    symmetry: Symmetry | None
    """None where all accelerators are there."""
    steady: Steady | None
    """None where steps are replayed whole."""
    average: Averaging | None
    steps: dict[str, Unrolled]
    """The whole step, once it has been needed."""
    about: int
    """Roughly how many operations that has."""

    @_collecting_nothing()
    def on(self, cluster: Cluster, deadline: float = math.inf) -> Estimate:
        """Time it.  Raises `TimeoutError` where that would not end before `time.perf_counter` comes to `deadline`."""
        reasons = [self.symmetry.why_not] if self.symmetry else []
        found = self.steady.on(cluster, deadline) if self.steady else None
        if found is None:
            if time.perf_counter() + self.about * QUICKEST_S > deadline:
                raise TimeoutError("a replay would take longer than it may")
            step = timed(self._whole(), self.plan, cluster, self.symmetry, deadline=deadline)
        else:
            step, why_not = found
            reasons.append(why_not)
        return Estimate(
            plan=self.plan,
            step=step,
            average=None if self.average is None else self.average.on(cluster, self.symmetry, deadline),
            why_not_exact="; ".join(why for why in reasons if why is not None) or None,
        )

    def _whole(self) -> Unrolled:
        if "whole" not in self.steps:
            if self.symmetry is None:
                self.steps["whole"] = as_columns(lower(self.plan, self.job))
            else:
                score = score_of(self.plan, self.job, self.symmetry.written)
                self.steps["whole"] = step_of(score, self.plan, self.job, self.job.train.microbatches)
        return self.steps["whole"]


@_collecting_nothing()
def prepare(job: Job, cluster: Cluster, plan: Plan | None = None, *, whole: bool = False) -> Prepared:
    """Plan a job, if there is no plan yet, and choose the accelerators and the part of a step that stand for all.

    `whole`: never take a step from shorter ones.  Raises what `partition` and `check_buffers` raise.
    """
    plan = partition(job, cluster) if plan is None else plan
    symmetry: Symmetry | None = symmetry_of(plan, job, cluster)
    assert symmetry is not None
    if not symmetry.exact and plan.data * _about(plan, job, range(plan.tensor)) <= FULL_OPERATIONS:
        symmetry = None
    if cluster.accelerator.buffer is not None:
        check_buffers(buffers_of(plan, job, symmetry), cluster)
    averaging = plan.data > 1 and job.parallel.data_sync == "average"
    average = Averaging.of(plan, job, cluster, symmetry) if averaging else None
    steady = None
    about = (
        plan.data * _about(plan, job, range(plan.tensor)) if symmetry is None else _about(plan, job, symmetry.written)
    )
    if symmetry is not None and not whole and about > SHORT_OPERATIONS:
        steady = Steady(plan=plan, job=job, symmetry=symmetry, must=about > WHOLE_OPERATIONS)
    return Prepared(plan=plan, job=job, symmetry=symmetry, steady=steady, average=average, steps={}, about=about)


def buffers_of(plan: Plan, job: Job, symmetry: Symmetry | None) -> tuple[BufferUse, ...]:
    """What the representatives hold outside of tiles, or all accelerators where none stands for others."""
    if symmetry is not None and job.train.microbatches > 2:
        return uses_of_representatives(plan, job, symmetry)
    return buffer_uses(lower(plan, job, written=symmetry.written if symmetry else None), plan, job)


def estimate(
    job: Job, cluster: Cluster, plan: Plan | None = None, *, whole: bool = False, deadline: float = math.inf
) -> Estimate:
    """Plan a job, if there is no plan yet, and time one step on representative accelerators.

    Raises what `partition` and `check_buffers` raise, and `TimeoutError` as `Prepared.on` does.
    """
    return prepare(job, cluster, plan, whole=whole).on(cluster, deadline)


def _about(plan: Plan, job: Job, written: Collection[int]) -> int:
    """Roughly how many operations a step of one replica has."""
    return 6 * job.train.microbatches * sum(rank in written for layer in plan.layers for rank in layer.holders)
