"""What `plan` prints: `plan_report`."""

from dataclasses import dataclass
from typing import Any, Final

from rpucluster.axis_traffic import AxisUse
from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.metrics import LinkUse
from rpucluster.modelled import least_operations, model
from rpucluster.partitioner import partition
from rpucluster.plan import Plan
from rpucluster.plan_report import describe
from rpucluster.projection.costs import traffic
from rpucluster.projection.folding import foldings_of
from rpucluster.projection.held import for_all
from rpucluster.projection.score import score_of
from rpucluster.projection.step import buffers_of, prepare
from rpucluster.projection.timing import prices_on

LISTED_OPERATIONS: Final = 1_000_000
"""Of a step that is replayed as a whole, for what each link carries; a kilobyte and about 20 us for each."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A step of which only representatives were replayed; links are not told apart."""

    modelled_step_s: float
    energy_J: float
    axes: tuple[AxisUse, ...]
    links: tuple[LinkUse, ...] = ()


def plan_report(job: Job, cluster: Cluster) -> dict[str, Any]:
    """Where every tile goes and what a step takes and moves, before anything is allocated.

    Long steps are projected, and what they send is told for each axis of the network and not for each link.  Raises
    what `partition` and `check_buffers` raise.
    """
    plan = partition(job, cluster)
    if least_operations(plan, job) <= LISTED_OPERATIONS:
        modelled = model(job, cluster)
        return describe(job, cluster, modelled.plan, modelled.metrics, modelled.buffers)
    return _projected(job, cluster, plan)


def _projected(job: Job, cluster: Cluster, plan: Plan) -> dict[str, Any]:
    prepared = prepare(job, cluster, plan)
    symmetry, found = prepared.symmetry, prepared.on(cluster)
    assert symmetry is not None  # so long a step is never replayed whole
    folding = next(foldings_of(plan, job, cluster, job.train.microbatches), None)
    part, stands_for = (
        (folding.folded(0), folding.stands_for()) if folding else (plan, dict.fromkeys(range(plan.pipeline), 1))
    )
    score = score_of(part, job, symmetry.written, passed=1)
    axes = traffic(score, part, symmetry, stands_for, prices_on(cluster), cluster.network, found.step.modelled_s)
    step = _Step(modelled_step_s=found.step.modelled_s, energy_J=found.step.all_J, axes=axes)
    buffers = sorted(for_all(buffers_of(plan, job, symmetry), plan, symmetry), key=lambda use: use.accelerator)
    return describe(job, cluster, plan, step, buffers, found.why_not_exact)
