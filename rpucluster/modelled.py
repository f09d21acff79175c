"""The second reading of a job by itself: what its steps cost on the modelled machine."""

from dataclasses import dataclass

from rpucluster.buffers import BufferUse, buffer_uses, check_buffers
from rpucluster.cluster import Cluster
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.metrics import Metrics, summarise
from rpucluster.partitioner import partition
from rpucluster.plan import Plan
from rpucluster.program import Program
from rpucluster.timeline import Timeline, replay

MOST_OPERATIONS = 5_000_000
"""Of a step that is written down one by one, at about a kilobyte each."""


@dataclass(frozen=True, kw_only=True)
class Modelled:
    """The second reading of a job: what its steps cost on the modelled machine."""

    plan: Plan
    train: Program
    buffers: tuple[BufferUse, ...]
    timeline: Timeline
    metrics: Metrics
    average: Program | None
    average_metrics: Metrics | None

    def seconds(self, steps: int, averages: int) -> float:
        """Modelled time of that many training steps and averagings, one after the other."""
        extra = self.average_metrics.modelled_step_s if self.average_metrics else 0.0
        return steps * self.metrics.modelled_step_s + averages * extra

    def joules(self, steps: int, averages: int) -> float:
        """Modelled energy of that many training steps and averagings."""
        extra = self.average_metrics.energy_J if self.average_metrics else 0.0
        return steps * self.metrics.energy_J + averages * extra


def model(job: Job, cluster: Cluster, plan: Plan | None = None) -> Modelled:
    """Plan, lower and replay a job without any array; `plan` is what `partition` gives, if that is known.

    Raises what `partition` and `check_buffers` raise, and `PlanError` for a step of more operations than fit memory.
    """
    plan = partition(job, cluster) if plan is None else plan
    require_few_operations(plan, job)
    train = lower(plan, job)
    buffers = buffer_uses(train, plan, job)
    check_buffers(buffers, cluster)
    timeline = replay(train, cluster)
    averaging = job.parallel.data > 1 and job.parallel.data_sync == "average"
    average = lower(plan, job, "average") if averaging else None
    return Modelled(
        plan=plan,
        train=train,
        buffers=buffers,
        timeline=timeline,
        metrics=summarise(timeline),
        average=average,
        average_metrics=summarise(replay(average, cluster)) if average else None,
    )


def require_few_operations(plan: Plan, job: Job) -> None:
    """Raise `PlanError` for a step of more operations than fit memory one by one."""
    least = least_operations(plan, job)
    if least > MOST_OPERATIONS:
        raise PlanError(
            f"a step of {job.name} has more than {least:,} operations, which are too many to look at one by one; use "
            f"plan or project, which look at representatives, or raise [train] microbatch"
        )


def least_operations(plan: Plan, job: Job) -> int:
    """A step has more: a read and digital work each way, for each shard and microbatch."""
    microbatches = job.train.microbatches
    return 4 * plan.data * microbatches * sum(len(layer.holders) for layer in plan.layers)
