"""What plans take at least: `Bounds`.

Each bound is the time of something that has to happen one after the other, so none is above what a replay finds, and a
plan whose bound is above a replayed one need not be replayed.  docs/search.md says what these are.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.search.layouts import Layout
from rpucluster.search.longest import Flush, Travel, longest
from rpucluster.search.pieces import Pieces, Updated
from rpucluster.search.routes import Routes
from rpucluster.search.space import Candidate, Sync, divisors, strides

Floats = NDArray[np.float64]


class Mesh(NamedTuple):
    """How an accelerator's number grows with its tensor rank, stage and replica."""

    tensor: int
    pipeline: int
    data: int


class Least(NamedTuple):
    """Bounds by size of the microbatch."""

    seconds: Floats
    joules: Floats


class _Sums(NamedTuple):
    """What tensor ranks add up and gather, forward, and the same back."""

    seconds: Floats
    """(4, sites)"""
    joules: Floats
    load: Floats
    """(sites, ranks, axes), of the sums."""


class Bounds:
    """Bounds of the plans of a job on a cluster; what plans have in common is computed once."""

    def __init__(self, job: Job, cluster: Cluster) -> None:
        self._job, self._cluster = job, cluster
        self._routes = Routes(cluster.network)
        self.pieces = cache(lambda tensor: Pieces(job, cluster, tensor))
        sizes = tuple(divisors(job.train.minibatch * job.parallel.data))
        self.layout = cache(
            lambda tensor, stages, chunks: Layout(self.pieces(tensor), job, cluster, stages, chunks, sizes)
        )
        self._kinds = Counter(layer.nameless for layer in job.network.layers)
        self._least_tiles = cache(self._least_tiles_for)
        self._sums = cache(self._sums_for)
        self._travel = cache(self._travel_for)
        self._flush = cache(self._flush_for)
        self._average = cache(self._average_for)

    def fits(self, tensor: int, stages: int, chunks: int = 1) -> bool:
        """Whether the partitioner can give every accelerator its tiles."""
        room = self._cluster.accelerator.tiles
        # before layers are cut for so many ranks
        if self._least_tiles(tensor) > stages * room:
            return False
        pieces = self.pieces(tensor)
        tiles = pieces.tiles[pieces.site]
        # whatever the stages
        if not pieces.splits or tiles.max() > room or tiles.sum(axis=0).max() > stages * room:
            return False
        return bool(self.layout(tensor, stages, chunks).fits)

    def tiles(self, tensor: int, stages: int) -> float:
        """Tiles of the fullest accelerator, whether there are so many or not; endless where no layer can be split."""
        return float(self.layout(tensor, stages, 1).held.max()) if self.pieces(tensor).splits else math.inf

    def _least_tiles_for(self, tensor: int) -> int:
        """Tiles of all layers on the first rank, which has a share of each and the smallest of most."""
        chip, expert, total = self._cluster.accelerator, self._job.parallel.expert, 0
        for layer, count in self._kinds.items():
            arrays = layer.arrays // (1 if layer.routed is None else expert)
            ranks = 1 if layer.recurrent else tensor
            rows, cols = -(-layer.rows // chip.tile_rows), -(-layer.cols // chip.tile_cols)
            total += count * arrays * min(rows // min(rows, ranks) * cols, cols // min(cols, ranks) * rows)
        return total

    def least(self, plan: Candidate, mesh: Mesh | None, sizes: tuple[int, ...]) -> Least:
        """Bounds of a plan with microbatches of each of some sizes; without a mesh those of its passes alone, without
        transfers and updates, which are lower and known at once."""
        tensor, stages, data, minibatch = plan.tensor, plan.pipeline, plan.data, plan.minibatch
        schedule, chunks, sync = plan.schedule, plan.virtual_stages, plan.data_sync
        layout = self.layout(tensor, stages, chunks)
        count = minibatch // np.array(sizes)
        at = mesh if mesh is not None and self._know(mesh) else Mesh(0, 0, 0)
        travel = self._travel(layout, at.tensor, at.pipeline, sizes)
        loads = layout.loads(sizes)
        each = sizes if schedule == "async" else (minibatch,)
        flush = self._flush(tensor, sync, data, at.data, each) if mesh else self._no_flush(tensor, len(each))
        turns: Floats | None = layout.ways(sizes).behind_last[:, None]
        if self._cluster.accelerator.layer_streaming or len(layout.pieces.layers) == 1:
            turns = None
        seconds = longest(layout, travel, loads, flush, count, schedule, sync == "gradient", turns)
        every = layout.layers_of_run.sum(axis=0)
        passes = [layout.pieces.passes(size) for size in sizes]
        joules = data * count * (np.array([p.joules for p in passes]) @ every + travel.joules)
        if sync == "gradient":
            joules = joules + data * count * (np.array([p.gradient_joules for p in passes]) @ every)
        joules = joules + (flush.joules @ every) * (count if schedule == "async" else 1)
        if sync == "average" and data > 1 and mesh is not None:
            more = self._average(tensor, data, at.data, layout)
            seconds, joules = seconds + more[0], joules + more[1]
        return Least(seconds, joules)

    def know_transfers(self, plan: Candidate) -> bool:
        """Whether bounds know what the transfers of a plan take, or leave them out."""
        return self._know(Mesh(*strides(plan)))

    def _know(self, mesh: Mesh) -> bool:
        # groups must lie alike wherever they begin
        return self._routes.whole(sorted(mesh))

    def _travel_for(self, layout: Layout, tensor: int, pipeline: int, sizes: tuple[int, ...]) -> Travel:
        pieces, ways = layout.pieces, layout.ways(sizes)
        found = [self._sums(pieces.tensor, tensor, size) for size in sizes]
        load = np.array([each.load for each in found])
        sums, gathers, sums_back, gathers_back = np.array([each.seconds for each in found]).swapaxes(0, 1)
        every = layout.layers_of_run.sum(axis=0)
        times_moved = (every, layout.inner_forward.sum(axis=0), every, layout.inner_backward.sum(axis=0))
        joules = np.array([(each.joules * times_moved).sum() for each in found])
        forward = ways.forward + sums @ layout.layers_of_run.T + gathers @ layout.inner_forward.T
        backward = ways.backward + sums_back @ layout.layers_of_run.T + gathers_back @ layout.inner_backward.T
        per_stage = np.tensordot(load, layout.layers_of, axes=([1], [1])).transpose(0, 3, 1, 2)
        runs = forward.shape[1]
        sent, sent_back = np.zeros((2, len(sizes), runs - 1))
        if pipeline and runs > 1:
            of, ends = self._routes.boundaries(layout.stages, pipeline)
            where = pieces.site[layout.lasts[:-1]]
            out, back = pieces.crossing(True), pieces.crossing(False)
            stage = np.arange(runs - 1) % layout.stages
            after = (stage + 1) % layout.stages
            # boundaries of the same class between layers of the same kind have the same price
            alike, kind = np.unique(np.stack([of[stage], where]), axis=1, return_inverse=True)
            kind = kind.reshape(-1)
            for k, (route, site) in enumerate(alike.T.tolist()):
                runs_of = kind == k
                here, there = ends[route]
                for way, pair, crossing, at in (
                    (sent, (here, there), out[site], stage[runs_of]),
                    (sent_back, (there, here), back[site], after[runs_of]),
                ):
                    for m, size in enumerate(sizes):
                        prices = [self._routes.send(pair, size * nbytes) for nbytes in crossing.nbytes.tolist()]
                        way[m, runs_of] = min((p.seconds for p in prices if p.seconds), default=0.0)
                        joules[m] += runs_of.sum() * sum(
                            p.joules * n for p, n in zip(prices, pieces.alike, strict=True)
                        )
                        loads = np.array([p.load * own for p, own in zip(prices, crossing.own, strict=True)])
                        np.add.at(per_stage[m], at, loads)
        alone = 0.0 if self._cluster.accelerator.layer_streaming else 1.0
        before = np.zeros((len(sizes), 1))
        head = alone * np.concatenate((before, np.cumsum(forward[:, :-1] + sent, axis=1)), axis=1)
        tail = alone * np.concatenate((before, np.cumsum(backward[:, :-1] + sent_back, axis=1)), axis=1)
        around = forward.sum(axis=1) + sent.sum(axis=1) + backward.sum(axis=1) + sent_back.sum(axis=1)
        trip = around[:, None] - head - tail + ways.trip - sums_back[:, pieces.site[layout.starts]]
        first = pieces.site[0]
        behind = np.array([pieces.passes(size).backward.behind[first].max() for size in sizes]) + sums_back[:, first]
        trip = np.where(np.isfinite(trip), trip, 0.0)
        return Travel(alone * forward, alone * backward, head, tail, alone * trip, alone * behind, per_stage, joules)

    def _sums_for(self, tensor: int, stride: int, size: int) -> _Sums:
        pieces = self.pieces(tensor)
        sites, ranks = pieces.tiles.shape
        seconds, joules = np.zeros((2, 4, sites))
        load = np.zeros((sites, ranks, len(self._cluster.network.axis)))
        ways = pieces.passes(size)[:2] if stride else ()
        for k, moved in enumerate(each for way in ways for each in (way.sums, way.gathers)):
            for site, shared in enumerate(moved):
                for r, rank in enumerate(pieces.ranks if shared is not None else ()):
                    if shared is not None and rank in shared.members:
                        spent = self._routes.collective(shared, stride, shared.members.index(rank))
                        load[site, r] += spent.load if k % 2 == 0 else 0.0
                        seconds[k, site], joules[k, site] = spent.seconds, spent.joules
        return _Sums(seconds, joules, load)

    def _no_flush(self, tensor: int, times: int) -> Flush:
        sites, ranks = self.pieces(tensor).tiles.shape
        each = np.zeros((times, sites))
        return Flush(each, each, np.zeros((times, sites, ranks, len(self._cluster.network.axis))), each)

    def _flush_for(self, tensor: int, sync: Sync, data: int, stride: int, samples: tuple[int, ...]) -> Flush:
        found = [self.pieces(tensor).updated(sync, data, each) for each in samples]
        return _stacked([self._exchanged(tensor, each, stride, data) for each in found])

    def _exchanged(self, tensor: int, updated: Updated, stride: int, data: int) -> Flush:
        pieces, axes = self.pieces(tensor), len(self._cluster.network.axis)
        seconds, load = np.zeros(updated.seconds.shape), np.zeros((*updated.seconds.shape, axes))
        joules = data * updated.joules
        for site, by_rank in enumerate(updated.exchange if stride else ()):
            for r, shared in enumerate(by_rank):
                if shared is not None:
                    spent = self._routes.collective(shared, stride, 0)
                    seconds[site, r], load[site, r] = spent.seconds, spent.load
                    joules[site] += spent.joules * pieces.alike[r]
        return Flush(seconds.max(axis=1), updated.seconds.max(axis=1), load, joules)

    def _average_for(self, tensor: int, data: int, stride: int, layout: Layout) -> tuple[float, float]:
        """Seconds and joules that averagings add to each step."""
        every = self._job.parallel.average_every
        found = self._exchanged(tensor, self.pieces(tensor).averaged(data), stride, data)
        counts = layout.layers_of_run.sum(axis=0)
        alone = float((found.exchange_s + found.update_s).max())
        links = np.tensordot(layout.layers_of, found.load, axes=([1], [0])).max(initial=0.0)
        return max(alone, float(links)) / every, float(found.joules @ counts) / every


def _stacked(parts: Sequence[Flush]) -> Flush:
    return Flush(*(np.array(column) for column in zip(*parts, strict=True)))
