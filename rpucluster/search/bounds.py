"""What a plan takes at least: `Bounds`.

Each is the time of something that has to happen one after the other: the passes of a layer on its arrays, the digital
work of a stage, the transfers of a group, a microbatch on its way through all layers and back.  So none is above what
a replay finds, and a plan whose bound is above a replayed one need not be replayed.
"""

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.collective import cost
from rpucluster.job import Job
from rpucluster.model import Layer
from rpucluster.search.space import Candidate
from rpucluster.stages import digital_of, tiles_of

Floats = NDArray[np.float64]


class Bounds:
    """Bounds of the plans of a job on a cluster; what plans have in common is computed once."""

    def __init__(self, job: Job, cluster: Cluster) -> None:
        self._job, self._cluster, self._chip = job, cluster, cluster.accelerator
        self._layers = job.network.layers
        vectors = [layer.positions * layer.passes / layer.arrays for layer in self._layers]
        self._vectors = np.array(vectors)
        self._back = np.array([i > 0 or layer.embedding > 0 for i, layer in enumerate(self._layers)])
        self._in_turn = all(axis.contention == "fifo" for axis in cluster.network.axis)
        self._tiles = cache(self._tiles_for)
        self._digital = cache(self._digital_for)
        self._collective = cache(self._collective_for)

    def fits(self, plan: Candidate) -> bool:
        """Whether the tiles of a plan could fit at all; how evenly they can be cut is the partitioner's to find out."""
        tiles = self._tiles(plan.tensor, plan.expert)
        return bool(tiles.sum() <= plan.pipeline * self._chip.tiles and tiles.max() <= self._chip.tiles)

    def modelled_s(self, plan: Candidate) -> float:
        """Seconds of a step, at least."""
        chip, count = self._chip, plan.microbatches
        tiles = self._tiles(plan.tensor, plan.expert)
        waves: Floats = np.ceil(tiles / chip.active_tiles)
        each = self._vectors * plan.microbatch * waves
        forward, back = each * chip.pass_time("forward"), each * chip.pass_time("backward") * self._back
        update = self._updates(plan, waves)
        digital = self._digital(plan.tensor) * plan.microbatch / chip.digital_rate
        moved = self._transfers(plan)
        passes = forward + back
        # one after the other, unless layers pass vectors on one by one
        alone = (0.0 if chip.layer_streaming else 1.0) * (passes + digital + moved)
        before = np.concatenate(([0.0], np.cumsum(alone)[:-1]))  # in and out again through the layers before
        arrays = (before + count * passes).max()
        busy = (count * passes + update).max()
        # tiles that may be active at once are shared by the layers of an accelerator
        crowded = (np.minimum(tiles, chip.active_tiles) * (count * passes + update)).sum()
        shared = crowded / (chip.active_tiles * plan.pipeline) if chip.active_tiles < chip.tiles else 0.0
        bounds = [arrays, busy, shared, count * digital.sum() / plan.pipeline]
        if plan.schedule in ("1f1b", "async") and plan.pipeline > 1:  # as many on their way as there are stages
            bounds.append(-(-count // plan.pipeline) * alone.sum())
        if self._in_turn:
            bounds += [count * moved.sum() / plan.pipeline, self._exchange(plan) / plan.pipeline]
        return float(max(bounds))

    def energy_J(self, plan: Candidate) -> float:
        """Joules of a step, at least: those of the reads and of the digital units."""
        chip, samples = self._chip, plan.minibatch * plan.data
        macs = np.array([layer.macs for layer in self._layers], np.float64)
        reads = macs.sum() + (macs * self._back).sum()
        digital = self._digital(plan.tensor).sum() * plan.tensor * chip.digital_energy
        return float(samples * (reads * chip.read_energy + digital))

    def _updates(self, plan: Candidate, waves: Floats) -> Floats:
        chip, samples = self._chip, plan.minibatch * plan.data
        cycle = chip.update_phases * self._job.update.bit_length * chip.pulse_width
        if plan.data_sync == "gradient":
            rows = np.array([min(layer.rows, chip.tile_rows) for layer in self._layers])
            updates = plan.microbatches if plan.schedule == "async" else 1
            gradient: Floats = updates * rows * waves * cycle
            return gradient
        factors: Floats = self._vectors * (plan.minibatch if plan.data_sync == "average" else samples) * waves * cycle
        return factors

    def _tiles_for(self, tensor: int, expert: int) -> NDArray[np.int64]:
        split = self._job.parallel.tensor_split
        return np.array([tiles_of(layer, self._cluster, tensor, expert, split) for layer in self._layers], np.int64)

    def _digital_for(self, tensor: int) -> Floats:
        # a layer that may be split either way is taken as the one that shares its work
        shared = [replace(layer, tensor_split=layer.tensor_split or "output") for layer in self._layers]
        return np.array([0.0 if layer.recurrent else digital_of(layer, tensor) for layer in shared])

    def _transfers(self, plan: Candidate) -> Floats:
        """Of a microbatch and layer: the sums that its tensor ranks add up, where the layer says how it is split."""
        seconds = np.zeros(len(self._layers))
        if plan.tensor == 1:
            return seconds
        for i, layer in enumerate(self._layers):
            if layer.tensor_split is None or not self._splits(layer, plan.tensor):
                continue
            elements = layer.sums if layer.tensor_split == "input" else layer.dispatch or layer.inputs
            if layer.tensor_split == "input" or self._back[i]:
                nbytes = plan.microbatch * elements * self._job.words.sum_bits / 8
                seconds[i] = self._collective("all_reduce", "tensor", _shape(plan), nbytes)
        return seconds

    def _splits(self, layer: Layer, tensor: int) -> bool:
        """Whether every rank has tiles of the layer, so that all of them take part."""
        chip = self._chip
        if layer.recurrent:
            return False
        return (
            -(-layer.rows // chip.tile_rows) if layer.tensor_split == "output" else -(-layer.cols // chip.tile_cols)
        ) >= tensor

    def _exchange(self, plan: Candidate) -> float:
        """What one tensor rank exchanges with its replicas in a step, over all stages: dense gradients.

        Factors are left out: how much of them a rank holds depends on the split.
        """
        if plan.data == 1 or plan.data_sync != "gradient":
            return 0.0
        seconds = 0.0
        for layer in self._layers:
            nbytes = layer.weights / plan.tensor * self._job.words.gradient_bits / 8
            seconds += self._collective("all_reduce", "data", _shape(plan), nbytes)
        return seconds

    def _collective_for(self, kind: str, along: str, shape: tuple[tuple[str, int], ...], nbytes: float) -> float:
        stride = 1
        for name, size in shape:
            if name == along:
                members = tuple(range(0, stride * size, stride))
                network = self._cluster.network
                amounts = (nbytes,) * size
                chunks, active = network.chunks, network.active_chunks
                # its latency and bytes are those of the replay, which charges nothing less
                return cost(kind, members, amounts, network, chunks=chunks, active_chunks=active).modelled_s  # type: ignore[arg-type]
            stride *= size
        return 0.0


def _shape(plan: Candidate) -> tuple[tuple[str, int], ...]:
    """The axes of its mesh, innermost first."""
    sizes = {"tensor": plan.tensor, "pipeline": plan.pipeline, "data": plan.data}
    return tuple((name, sizes[name]) for name in plan.placement)
