"""A long step from short ones: what repeats along a pipeline and over its microbatches is replayed a few times only."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.program import Op
from rpucluster.projection.costs import costs
from rpucluster.projection.extension import Extended, extended
from rpucluster.projection.folding import Folding, foldings_of
from rpucluster.projection.score import Score, score_of
from rpucluster.projection.summary import Sums
from rpucluster.projection.symmetry import Symmetry
from rpucluster.projection.timing import prices_on, timed
from rpucluster.projection.unrolled import Unrolled, unroll
from rpucluster.schedule import interleave
from rpucluster.timeline.prices import Price

AGREE = 2e-4
"""How closely, as a share, the longest of the short steps must agree with what the others foresee (our choice)."""
WILL_DO = 1e-3
"""The same where the whole step is too long to be replayed anyway: each longer series takes several times as long, and
that of ten trillion weights which agreed to 3e-4 was within 1e-3 of the next two."""


@dataclass(frozen=True, kw_only=True)
class Steady:
    """A job as planned, and the short steps that have been written down so far."""

    plan: Plan
    job: Job
    symmetry: Symmetry
    worth: float = 2.0
    """How many times as long as the short steps together a step must be."""
    must: bool = False
    """Whether the short steps that agree best have to do, since the whole step is too long to be replayed."""
    scores: dict[tuple[int, ...], Score] = field(default_factory=dict)
    """By the cut, and the stages and microbatches that are there."""
    steps: dict[tuple[int, ...], Unrolled] = field(default_factory=dict)
    """Likewise."""

    def on(self, cluster: Cluster, deadline: float = math.inf) -> tuple[Sums, str] | None:
        """A step on a cluster, and how it was found; None where the short steps that were tried foresee no longer one.

        Energies, bytes and operations are not extended but counted.  Raises what `timed` raises.
        """
        price = prices_on(cluster)
        all_microbatches = self.job.train.minibatch // self.job.train.microbatch
        best: tuple[Extended, Folding] | None = None
        for folding in foldings_of(self.plan, self.job, cluster, all_microbatches):
            sizes = [folding.size(number) for number in folding.replayed]
            short = sum(stages * microbatches for stages, microbatches in sizes)
            if folding.replayed[-1] >= folding.last or self.worth * short > self.plan.pipeline * all_microbatches:
                break
            found = extended(self._short(folding, cluster, price, deadline), folding)
            worse = best is not None and found.doubt > best[0].doubt
            if not worse:
                best = found, folding
            if found.doubt <= (WILL_DO if self.must else AGREE) or (worse and self.must):
                break
        if best is None or (best[0].doubt > AGREE and not self.must):
            return None
        found, folding = best
        first = self.scores[(folding.cut, *folding.size(0))]
        cost = costs(first, folding.folded(0), self.symmetry, folding.stands_for(), price)
        energy = dict(cost.energy_J) | {"idle": found.step.energy_J["idle"]}
        step = replace(found.step, energy_J=energy, link_bytes=cost.link_bytes, operations=cost.operations)
        return step, self._told(found, [folding.size(number) for number in folding.replayed], all_microbatches)

    def _short(self, folding: Folding, cluster: Cluster, price: Callable[[Op], Price], deadline: float) -> list[Sums]:
        """The short steps of a series; the longest is replayed while the next is written, which a second core does."""
        with ThreadPoolExecutor(1) as worker:
            found = [
                worker.submit(self._timed, self._written(folding, n), folding, n, cluster, price, deadline)
                for n in reversed(folding.replayed)
            ]
        return [each.result() for each in reversed(found)]

    def _written(self, folding: Folding, number: int) -> Unrolled:
        stages, microbatches = folding.size(number)
        key = folding.cut, stages, microbatches
        if key not in self.steps:
            plan = folding.folded(number)
            self.scores[key] = score_of(plan, self.job, self.symmetry.written)
            self.steps[key] = step_of(self.scores[key], plan, self.job, microbatches)
        return self.steps[key]

    def _timed(
        self,
        step: Unrolled,
        folding: Folding,
        number: int,
        cluster: Cluster,
        price: Callable[[Op], Price],
        deadline: float,
    ) -> Sums:
        share = folding.size(number)[1] * self.job.train.microbatch / self.job.train.minibatch
        # a sweep has many of them, so it pays to load compiled code
        return timed(
            step, folding.folded(number), cluster, self.symmetry, share, price, compiled=True, deadline=deadline
        )

    def _told(self, found: Extended, sizes: list[tuple[int, int]], microbatches: int) -> str:
        (p, m), (longest_p, longest_m) = sizes[0], sizes[-1]
        step, parts, bent = (f"{max(share, 1e-12):.0e}" for share in (found.agreement, found.of_parts, found.bent))
        return (
            f"{microbatches} microbatches over {self.plan.pipeline} stages follow from replays of {m} over {p} to "
            f"{longest_m} over {longest_p}, which agree to {step} (what they consist of to {parts}); along a "
            f"parabola the step would differ by {bent}"
        )


def step_of(score: Score, plan: Plan, job: Job, microbatches: int) -> Unrolled:
    """A step of so many microbatches, as columns."""
    score = replace(score, microbatches=microbatches)
    return unroll(score, interleave(job.parallel.schedule, plan.pipeline, microbatches, plan.virtual_stages))
