"""Every plan that fits with its bounds, plans that are alike once: `bounded`."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from rpucluster.cluster import Cluster
from rpucluster.search.bounds import Bounds, Mesh
from rpucluster.search.space import Batch, Candidate, arrangement, strides


class Bounded(NamedTuple):
    """A plan with what it takes at least."""

    seconds: float
    joules: float
    plan: Candidate
    alike: int
    """How many plans differ from it in the numbers of accelerators only, itself among them."""


def bounded(batches: Iterable[Batch], bounds: Bounds, cluster: Cluster) -> Iterator[Bounded]:
    """The plans of batches that fit."""
    for degrees, group in groupby(batches, key=lambda batch: batch.degrees):
        same = list(group)
        placements: dict[object, list[tuple[str, ...]]] = {}
        for placement in same[0].placements:
            placements.setdefault(arrangement(degrees, placement, cluster.network), []).append(placement)
        sizes: dict[tuple[object, int], list[int]] = {}
        for batch in same:
            for schedule in batch.schedules:
                sizes.setdefault(schedule, []).append(batch.microbatch)
        for (schedule, chunks), microbatches in sizes.items():
            if not bounds.fits(degrees[0], degrees[1], chunks):
                continue
            for alike in placements.values():
                for sync in same[0].syncs:
                    plan = Candidate(
                        *degrees, same[0].expert, same[0].minibatch, 1, schedule, chunks, sync, alike[0]  # type: ignore[arg-type]
                    )
                    least = bounds.least(plan, Mesh(*strides(plan)), tuple(microbatches))
                    for i, size in enumerate(microbatches):
                        yield Bounded(
                            float(least.seconds[i]), float(least.joules[i]), plan._replace(microbatch=size), len(alike)
                        )
