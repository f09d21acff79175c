"""A long step from short ones: what repeats along a pipeline and over its microbatches is replayed a few times only."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.program import Op
from rpucluster.projection.costs import costs
from rpucluster.projection.extension import Extended, extended, lengthened
from rpucluster.projection.folding import Folding, foldings_of, leading_to
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

_Series = Sequence[tuple[Folding, Sequence[int]]]


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
        best: tuple[Extended, _Series] | None = None
        for series in self._series(cluster):
            sizes = [size for folding, numbers in series for size in map(folding.size, numbers)]
            short = sum(stages * microbatches for stages, microbatches in sizes)
            ends = any(folding.replayed[-1] >= folding.last for folding, _ in series)
            if ends or self.worth * short > self.plan.pipeline * self.job.train.microbatches:
                break
            whole = self._flushes_alone and self._delays(series[0][0], cluster, price, deadline)
            found = self._found([self._short(*each, cluster, price, whole, deadline) for each in series], series)
            worse = best is not None and found.doubt > best[0].doubt
            if not worse:
                best = found, series
            if found.doubt <= (WILL_DO if self.must else AGREE) or (worse and self.must):
                break
        if best is None or (best[0].doubt > AGREE and not self.must):
            return None
        found, series = best
        folding = series[0][0]
        first = self.scores[(folding.cut, *folding.size(0))]
        cost = costs(first, folding.folded(0), self.symmetry, folding.stands_for(), price)
        energy = dict(cost.energy_J) | {"idle": found.step.energy_J["idle"]}
        step = replace(found.step, energy_J=energy, link_bytes=cost.link_bytes, operations=cost.operations)
        return step, self._told(found, series)

    def _series(self, cluster: Cluster) -> Iterator[_Series]:
        """Series of short steps from which the step follows, with the numbers that are replayed of each: one that leads
        to it, or two to steps of fewer microbatches and the shortest of a third; from short beginnings to longer ones.
        """

        def foldings(microbatches: int) -> Iterator[Folding]:
            return foldings_of(self.plan, self.job, cluster, microbatches)

        counts = leading_to(self.plan, self.job.train.microbatches)
        first = next(foldings(self.job.train.microbatches), None)
        if first is None or not first.more_stages or len(counts) == 1:
            yield from ([(folding, folding.replayed)] for folding in foldings(self.job.train.microbatches))
            return
        for fewer, more, most in zip(*map(foldings, counts), strict=False):
            yield [(fewer, fewer.replayed), (more, more.replayed), (most, (0,))]

    def _found(self, steps: list[list[Sums]], series: _Series) -> Extended:
        if len(series) == 1:
            return extended(steps[0], series[0][0])
        fewer, more = (extended(each, folding) for each, (folding, _) in zip(steps[:2], series[:2], strict=True))
        one, other, _ = (folding.size(folding.last)[1] for folding, _ in series)
        shortest = [each[0] for each in steps]
        return lengthened(fewer, more, shortest, (self.job.train.microbatches - one) / (other - one))

    @property
    def _flushes_alone(self) -> bool:
        """Whether the flush of a stage is its own work: nothing is exchanged with replicas."""
        return self.plan.data == 1 or self.job.parallel.data_sync == "average"

    def _delays(self, folding: Folding, cluster: Cluster, price: Callable[[Op], Price], deadline: float) -> bool:
        """Whether a flush lengthens a step at least as much where there are more stages.

        Each then holds up what goes back through it, by what its flush takes, however short the step: a share of the
        flush would delay it by less than that share.  Else a flush is over sooner than the stages behind it.
        """
        ends = folding.replayed[0], folding.replayed[-1]
        first, last = (
            self._timed(step, folding, n, cluster, price, 1.0, deadline).modelled_s
            - self._timed(step, folding, n, cluster, price, 0.0, deadline).modelled_s
            for n, step in ((n, self._written(folding, n)) for n in ends)
        )
        return last > first * (1 - 1e-9)

    def _short(
        self,
        folding: Folding,
        numbers: Sequence[int],
        cluster: Cluster,
        price: Callable[[Op], Price],
        whole: bool,
        deadline: float,
    ) -> list[Sums]:
        """Short steps of a series, with a `whole` flush or one that goes with their length; the longest is replayed
        while the next is written, which a second core does."""
        # the same flush follows steps of fewer microbatches but as many stages
        leads = folding.size(folding.last)[1] == self.job.train.microbatches

        def share(stages: int, microbatches: int) -> float:
            return (
                1.0 if whole else microbatches / self.job.train.microbatches if leads else stages / self.plan.pipeline
            )

        with ThreadPoolExecutor(1) as worker:
            found = [
                worker.submit(
                    self._timed,
                    self._written(folding, n),
                    folding,
                    n,
                    cluster,
                    price,
                    share(*folding.size(n)),
                    deadline,
                )
                for n in reversed(numbers)
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
        share: float,
        deadline: float,
    ) -> Sums:
        # a sweep has many of them, so it pays to load compiled code
        return timed(
            step, folding.folded(number), cluster, self.symmetry, share, price, compiled=True, deadline=deadline
        )

    def _told(self, found: Extended, series: _Series) -> str:
        replays = []
        for folding, numbers in series[:2]:
            (p, m), (longest_p, longest_m) = folding.size(numbers[0]), folding.size(numbers[-1])
            replays.append(f"{m} over {p} to {longest_m} over {longest_p}")
        step, parts, bent = (f"{max(share, 1e-12):.0e}" for share in (found.agreement, found.of_parts, found.bent))
        return (
            f"{self.job.train.microbatches} microbatches over {self.plan.pipeline} stages follow from replays of "
            f"{' and of '.join(replays)}, which agree to {step} (what they consist of to {parts}); along a parabola "
            f"the step would differ by {bent}"
        )


def step_of(score: Score, plan: Plan, job: Job, microbatches: int) -> Unrolled:
    """A step of so many microbatches, as columns."""
    score = replace(score, microbatches=microbatches)
    return unroll(score, interleave(job.parallel.schedule, plan.pipeline, microbatches, plan.virtual_stages))
