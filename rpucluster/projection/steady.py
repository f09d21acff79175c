"""A long step from short ones: what repeats along a pipeline and over its microbatches is replayed a few times only."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.projection.costs import costs
from rpucluster.projection.extension import Extended, extended
from rpucluster.projection.folding import Folding, foldings_of
from rpucluster.projection.score import score_of
from rpucluster.projection.summary import Sums
from rpucluster.projection.symmetry import Symmetry
from rpucluster.projection.timing import timed
from rpucluster.projection.unrolled import Unrolled, unroll
from rpucluster.schedule import interleave
from rpucluster.timeline.prices import Energy

AGREE = 1e-3
"""How closely, as a share, the longest of the short steps must agree with what the others foresee (our choice)."""
_WORTH = 2  # as many times as many operations must there be in the whole step


@dataclass(frozen=True, kw_only=True)
class Steady:
    """A job as planned, and the short steps that have been written down so far."""

    plan: Plan
    job: Job
    symmetry: Symmetry
    steps: dict[tuple[int, int, int], Unrolled] = field(default_factory=dict)
    """By the cut, and the stages and microbatches that are there."""

    def on(self, cluster: Cluster) -> tuple[Sums, str] | None:
        """A step on a cluster, and how it was found; None where the short steps that were tried foresee no longer one.

        Times are those of the rank of each stage that has the most to do; energies, bytes and operations are counted
        over all.
        """
        all_microbatches = self.job.train.minibatch // self.job.train.microbatch
        for folding in foldings_of(self.plan, self.job, cluster, all_microbatches):
            sizes = [folding.size(number) for number in folding.replayed]
            if _WORTH * sum(p * m for p, m in sizes) > self.plan.pipeline * all_microbatches:
                return None
            found = extended([self._short(folding, number, cluster) for number in folding.replayed], folding)
            if found is not None and found.agreement <= AGREE:
                return self._counted(found.step, folding, cluster), self._told(found, sizes, all_microbatches)
        return None

    @property
    def _fullest(self) -> Symmetry:
        """The rank with the most cells, taken for all."""
        ranks = [rank for each in self.symmetry.classes for rank in each]
        cells = {rank: sum(b.cells for layer in self.plan.layers if (b := layer.blocks[rank])) for rank in ranks}
        first = max(self.symmetry.written, key=lambda rank: cells[rank])
        return replace(self.symmetry, classes=((first, *(rank for rank in ranks if rank != first)),))

    def _short(self, folding: Folding, number: int, cluster: Cluster) -> Sums:
        stages, microbatches = folding.size(number)
        plan, key, fullest = folding.folded(number), (folding.cut, stages, microbatches), self._fullest
        if key not in self.steps:
            self.steps[key] = step_of(plan, self.job, fullest.written, microbatches)
        share = microbatches * self.job.train.microbatch / self.job.train.minibatch
        return timed(self.steps[key], plan, cluster, fullest, share)

    def _counted(self, step: Sums, folding: Folding, cluster: Cluster) -> Sums:
        """The step with what its operations cost, which goes evenly with the stages: of two short plans."""
        one, other = (
            costs(folding.folded(number), self.job, self.symmetry, cluster) for number in (0, folding.replayed[1])
        )
        *joules, link_bytes, operations = (one + folding.times * (other - one)).tolist()
        energy = dict(zip(Energy._fields, joules, strict=True))
        return replace(
            step,
            energy_J=energy | {"idle": step.energy_J["idle"]},
            link_bytes=link_bytes,
            operations=round(operations),
        )

    def _told(self, found: Extended, sizes: list[tuple[int, int]], microbatches: int) -> str:
        (p, m), (longest_p, longest_m) = sizes[0], sizes[-1]
        rank = "" if len(self.symmetry.classes) == 1 else ", the fullest rank of each stage standing for all"
        return (
            f"{microbatches} microbatches over {self.plan.pipeline} stages follow from replays of {m} over {p} to "
            f"{longest_m} over {longest_p}, which agree to {max(found.agreement, 1e-12):.1g}{rank}"
        )


def step_of(plan: Plan, job: Job, written: Collection[int], microbatches: int) -> Unrolled:
    """A step of some of its microbatches, as columns."""
    score = replace(score_of(plan, job, written), microbatches=microbatches)
    return unroll(score, interleave(job.parallel.schedule, plan.pipeline, microbatches, plan.virtual_stages))
