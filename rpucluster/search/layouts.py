"""Stages of a pipeline, and what a microbatch takes on each: `Layout`."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Accelerator, Cluster
from rpucluster.job import Job
from rpucluster.search.pieces import Passed, Pieces
from rpucluster.stages import balance

Floats = NDArray[np.float64]


class Ways(NamedTuple):
    """A microbatch on its way through the runs of layers, in seconds by size of the microbatch and run: the longest
    sequence of its computations, without transfers."""

    forward: Floats
    backward: Floats
    trip: Floats
    """From the first read of a run to the end of its read on the way back, as far as both are on the same accelerator,
    less what `forward` and `backward` have of the two between which that is."""
    behind_last: Floats
    """What of `forward` stands behind the last read of all."""


class Loads(NamedTuple):
    """What a microbatch takes of the busiest of arrays, digital units and chip network of a stage, seconds by size of
    the microbatch and stage; each does one thing after the other."""

    forward: Floats
    """Without what stands behind the last read of all."""
    backward: Floats
    both: Floats
    gradient: Floats
    """Both, with what adds up dense gradients."""
    backward_gradient: Floats


class Layout:
    """Layers of `pieces` on the stages of a pipeline, in so many runs each, for microbatches of all of some sizes."""

    def __init__(
        self, pieces: Pieces, job: Job, cluster: Cluster, stages: int, chunks: int, sizes: tuple[int, ...]
    ) -> None:
        degrees = {"tensor": pieces.tensor, "pipeline": stages, "virtual_stages": chunks}
        planned = job.model_copy(update={"parallel": job.parallel.model_copy(update=degrees)})
        self.pieces, self.stages, self.chunks = pieces, stages, chunks
        self._chip: Accelerator = cluster.accelerator
        owner = np.array(balance(job.network.layers, planned, cluster))
        runs, sites = stages * chunks, len(pieces.example)
        self.starts = np.searchsorted(owner, np.arange(runs))
        """The first layer of each run."""
        self.lasts = np.append(self.starts[1:], len(owner)) - 1
        self.layers_of_run = _counted(owner, pieces.site, runs, sites)
        """(runs, sites)"""
        within = np.ones(len(owner), bool)
        within[self.starts] = False
        self.inner_forward = _counted(owner[within], pieces.site[within], runs, sites)
        """Layers whose neighbour before is in the same run."""
        within[:] = True
        within[self.lasts] = False
        self.inner_backward = _counted(owner[within], pieces.site[within], runs, sites)
        self.layers_of = self.layers_of_run.reshape(chunks, stages, sites).sum(axis=0)
        """(stages, sites)"""
        self.held = self.layers_of @ pieces.tiles
        """Tiles by stage and rank."""
        self._sizes = sizes
        self._of_all = cache(lambda: (self._ways(sizes), self._loads(sizes)))

    @property
    def fits(self) -> bool:
        """Whether every accelerator has the tiles that it is given."""
        return bool(self.held.max() <= self._chip.tiles)

    def ways(self, sizes: tuple[int, ...]) -> Ways:
        """For some of its sizes."""
        at = np.searchsorted(self._sizes, sizes)
        return Ways(*(each[at] for each in self._of_all()[0]))

    def loads(self, sizes: tuple[int, ...]) -> Loads:
        """For some of its sizes."""
        at = np.searchsorted(self._sizes, sizes)
        return Loads(*(each[at] for each in self._of_all()[1]))

    def _ways(self, sizes: tuple[int, ...]) -> Ways:
        passes = [self.pieces.passes(size) for size in sizes]
        way = self._way([each.forward for each in passes], backward=False)
        back = self._way([each.backward for each in passes], backward=True)
        first, end = self.pieces.site[self.starts], int(self.pieces.site[-1])
        lead = np.array([each.forward.before[first] for each in passes])
        reads = np.array([each.backward.read[first] for each in passes])
        trip = np.where(reads > 0, way.outer - lead + back.outer, -np.inf).max(axis=2) - way.counted - back.counted
        behind = np.array([each.forward.behind[end].max() for each in passes])
        return Ways(way.seconds, back.seconds, trip, behind)

    def _way(self, passed: Sequence[Passed], *, backward: bool) -> "_Way":
        """Ranks wait for each other at collectives.  Between two of them any one of the ranks counts; before the end
        of a run, where each sends by itself, the quickest."""
        pieces, count = self.pieces, len(self.pieces.site)
        site = pieces.site[:: -1 if backward else 1]
        ends = count - 1 - self.starts[::-1] if backward else self.lasts
        last_of_run = np.zeros(count, bool)
        last_of_run[ends] = True
        sums = np.array([each is not None for each in passed[0].sums])[site]
        gathers = np.array([each is not None for each in passed[0].gathers])[site]
        # two phases a layer, up to the end of its read and behind it: (sizes, phases, ranks)
        times = np.array([np.stack([each.before + each.read, each.behind], axis=1)[site] for each in passed])
        times = times.reshape(len(passed), 2 * count, -1)
        holds = np.repeat(pieces.tiles[site] > 0, 2, axis=0)
        meets, final = np.zeros((2, 2 * count), bool)  # whether ranks meet behind a phase, or a run ends there
        meets[0::2] = sums
        meets[1:-1:2] = gathers[1:] & ~last_of_run[:-1]
        final[1::2] = last_of_run
        begins = np.flatnonzero(np.concatenate(([True], (meets | final)[:-1])))
        stops = np.append(begins[1:], 2 * count) - 1
        by_rank = np.add.reduceat(times, begins, axis=1)  # (sizes, parts, ranks)
        slowest = np.where(holds[stops], by_rank, 0.0).max(axis=2)
        quickest = np.add.reduceat(np.where(holds, times, np.inf).min(axis=2), begins, axis=1)
        part = np.where(meets[stops], slowest, quickest)
        runs = np.searchsorted(begins, 2 * np.append(0, ends[:-1] + 1))
        seconds = np.add.reduceat(part, runs, axis=1)
        if not backward:
            counted = part[:, runs]
            chosen = np.where(meets[stops[runs]][:, None], by_rank[:, runs], counted[..., None])
            return _Way(seconds, chosen, counted)
        # that with the read of the last layer on the way, and what follows it
        at = np.searchsorted(begins, 2 * ends, side="right") - 1
        alone = stops[at] == 2 * ends
        behind = np.where(holds, times, 0.0)[:, 2 * ends + 1].max(axis=2)
        counted = part[:, at] + np.where(alone, part[:, np.minimum(at + 1, len(begins) - 1)], 0.0)
        chosen = np.where(alone[:, None], by_rank[:, at], (part[:, at] - behind)[..., None])
        return _Way(seconds[:, ::-1], chosen[:, ::-1], counted[:, ::-1])

    def _loads(self, sizes: tuple[int, ...]) -> Loads:
        pieces, chip = self.pieces, self._chip
        passes = [pieces.passes(size) for size in sizes]
        active = np.minimum(pieces.tiles, chip.active_tiles) / chip.active_tiles
        crowded = self.held > chip.active_tiles
        there = self.layers_of > 0

        def busiest(digital: Floats, on_chip: Floats, read: Floats, less: Floats | float = 0.0) -> Floats:
            units = self.layers_of @ digital  # (sizes, stages, ranks)
            units[:, -1] -= less
            crowd = np.where(crowded, self.layers_of @ (active * read), 0.0)
            shards = np.where(there[..., None], read[:, None], 0.0).max(axis=2)
            most: Floats = np.max([units, self.layers_of @ on_chip, crowd, shards], axis=(0, 3))
            return most

        def columns(name: str) -> tuple[Floats, Floats]:
            forward, backward = (np.array([getattr(each[k], name) for each in passes]) for k in (0, 1))
            return forward, backward

        digital, on_chip, read = columns("digital"), columns("on_chip"), columns("read")
        both = on_chip[0] + on_chip[1], read[0] + read[1]
        gradient = np.array([each.gradient for each in passes])
        behind = np.array([each.forward.behind[pieces.site[-1]] for each in passes])
        return Loads(
            busiest(digital[0], on_chip[0], read[0], behind),
            busiest(digital[1], on_chip[1], read[1]),
            busiest(digital[0] + digital[1], *both),
            busiest(digital[0] + digital[1] + gradient, *both),
            busiest(digital[1] + gradient, on_chip[1], read[1]),
        )


class _Way(NamedTuple):
    """A way through the layers; the part of a run that has its first layer's read, by rank and as it was counted."""

    seconds: Floats
    """By size and run."""
    outer: Floats
    """By size, run and rank, without what stands behind the read."""
    counted: Floats
    """Of `seconds`, by size and run."""


def _counted(run: NDArray[np.int64], site: NDArray[np.int64], runs: int, sites: int) -> NDArray[np.int64]:
    return np.bincount(run * sites + site, minlength=runs * sites).reshape(runs, sites)
