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
from rpucluster.collective import CollectiveKind, cost
from rpucluster.job import Job
from rpucluster.model import Layer
from rpucluster.schedule import Schedule
from rpucluster.search.space import Candidate
from rpucluster.stages import digital_of, tiles_of

Floats = NDArray[np.float64]


class Bounds:
    """Bounds of the plans of a job on a cluster; what plans have in common is computed once."""

    def __init__(self, job: Job, cluster: Cluster) -> None:
        self._job, self._cluster, self._chip = job, cluster, cluster.accelerator
        self._layers = job.network.layers
        # layers that differ in their names only cost the same: most of a deep network
        kinds: dict[Layer, int] = {}
        self._kind = np.array([kinds.setdefault(replace(layer, name="-"), len(kinds)) for layer in self._layers])
        self._kinds = tuple(kinds)
        vectors = [layer.positions * layer.passes / layer.arrays for layer in self._layers]
        self._vectors = np.array(vectors)
        self._back = np.array([i > 0 or layer.embedding > 0 for i, layer in enumerate(self._layers)])
        contention = {wire.contention for wire in cluster.network.wires}
        self._in_turn, self._shared = contention <= {"fifo"}, "none" not in contention
        self._tiles = cache(self._tiles_for)
        self._fullest = cache(self._fullest_for)
        self._digital = cache(self._digital_for)
        self._collective = cache(self._collective_for)
        self._bound = cache(self._bound_for)
        self._transfers = cache(self._transfers_for)
        self._exchange = cache(self._exchange_for)
        self._busiest = cache(self._busiest_for)

    def fits(self, degrees: tuple[int, int, int]) -> bool:
        """Whether the tiles could fit at all on so many tensor ranks, stages and replicas; how evenly they can be cut
        is the partitioner's to find out."""
        tensor, pipeline, _ = degrees
        most, total = self._fullest(tensor, self._job.parallel.expert)
        return total <= pipeline * self._chip.tiles and most <= self._chip.tiles

    def modelled_s(self, plan: Candidate) -> float:
        """Seconds of a step, at least."""
        limited = plan.schedule in ("1f1b", "async")
        # the others may have every microbatch on its way; only an update after each microbatch is another update
        schedule: Schedule = plan.schedule if plan.schedule == "async" else "1f1b" if limited else "gpipe"
        return self._bound(plan._replace(schedule=schedule, virtual_stages=1))

    def _bound_for(self, plan: Candidate) -> float:
        chip, count = self._chip, plan.microbatches
        tiles = self._tiles(plan.tensor, plan.expert)
        waves: Floats = np.ceil(tiles / chip.active_tiles)
        each = self._vectors * plan.microbatch * waves
        forward, back = each * chip.pass_time("forward"), each * chip.pass_time("backward") * self._back
        update = self._updates(plan, waves)
        digital = self._digital(plan.tensor) * plan.microbatch / chip.digital_rate
        moved = self._transfers(plan.tensor, plan.microbatch, _strides(plan)[0])
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
            bounds.append(count * moved.sum() / plan.pipeline)
        return float(max(*bounds, self._exchanged(plan) / plan.pipeline))

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
        tiles = np.array([tiles_of(layer, self._cluster, tensor, expert, split) for layer in self._kinds], np.int64)
        each: NDArray[np.int64] = tiles[self._kind]
        return each

    def _fullest_for(self, tensor: int, expert: int) -> tuple[int, int]:
        tiles = self._tiles(tensor, expert)
        return int(tiles.max()), int(tiles.sum())

    def _digital_for(self, tensor: int) -> Floats:
        # a layer that may be split either way is taken as the one that shares its work
        shared = [replace(layer, tensor_split=layer.tensor_split or "output") for layer in self._kinds]
        each: Floats = np.array([0.0 if layer.recurrent else digital_of(layer, tensor) for layer in shared])[self._kind]
        return each

    def _transfers_for(self, tensor: int, microbatch: int, stride: int) -> Floats:
        """Of a microbatch and layer: the sums that its tensor ranks add up, where the layer says how it is split."""
        seconds = np.zeros(len(self._kinds))
        for i, layer in enumerate(self._kinds if tensor > 1 else ()):
            if layer.tensor_split is None or not self._splits(layer, tensor):
                continue
            elements = layer.sums if layer.tensor_split == "input" else layer.dispatch or layer.inputs
            nbytes = microbatch * elements * self._job.words.sum_bits / 8
            seconds[i] = self._collective("all_reduce", tensor, stride, nbytes)
        split = np.array([layer.tensor_split == "input" for layer in self._kinds])[self._kind]
        return np.where(split | self._back, seconds[self._kind], 0.0)

    def _splits(self, layer: Layer, tensor: int) -> bool:
        """Whether every rank has tiles of the layer, so that all of them take part."""
        chip = self._chip
        rows, cols = -(-layer.rows // chip.tile_rows), -(-layer.cols // chip.tile_cols)
        return not layer.recurrent and (rows if layer.tensor_split == "output" else cols) >= tensor

    def _exchanged(self, plan: Candidate) -> float:
        """What one tensor rank exchanges with its replicas in a step, over all stages, on its busiest link."""
        if plan.data == 1 or plan.data_sync == "average":
            return 0.0
        batch = plan.minibatch if plan.data_sync == "factors" else 0
        return self._exchange(plan.tensor, plan.data, _strides(plan)[1], batch)

    def _exchange_for(self, tensor: int, data: int, stride: int, batch: int) -> float:
        """Dense gradients, or the factors of so many samples."""
        words = self._job.words
        if batch:
            kind: CollectiveKind = "all_gather"
            amounts = [batch * _factors(layer, tensor) * words.factor_bits / 8 for layer in self._kinds]
        else:
            kind = "all_reduce"
            amounts = [layer.weights / tensor * words.gradient_bits / 8 for layer in self._kinds]
        # experts are exchanged among some of the replicas only
        each = [
            0.0 if layer.routed is not None else self._busiest(kind, data, stride, nbytes)
            for layer, nbytes in zip(self._kinds, amounts, strict=True)
        ]
        return float(np.array(each)[self._kind].sum())

    def _busiest_for(self, kind: CollectiveKind, size: int, stride: int, nbytes: float) -> float:
        """For how long a collective keeps the link that it keeps longest: until it ends where links are held, else what
        its bytes take of the bandwidth."""
        network = self._cluster.network
        members, amounts = tuple(range(0, stride * size, stride)), (nbytes,) * size
        chunks, active = network.chunks, network.active_chunks
        found = cost(kind, members, amounts, network, chunks=chunks, active_chunks=active)
        if self._in_turn:
            return found.modelled_s
        if not self._shared:
            return 0.0
        links = list(found.link_bytes)
        carried = np.fromiter(found.link_bytes.values(), np.float64, len(links))
        return float((carried / network.bandwidths_of(links)).max(initial=0.0))

    def _collective_for(self, kind: CollectiveKind, size: int, stride: int, nbytes: float) -> float:
        network = self._cluster.network
        members, amounts = tuple(range(0, stride * size, stride)), (nbytes,) * size
        chunks, active = network.chunks, network.active_chunks
        # its latency and bytes are those of the replay, which charges nothing less
        return cost(kind, members, amounts, network, chunks=chunks, active_chunks=active).modelled_s


def _strides(plan: Candidate) -> tuple[int, int]:
    """What one step along tensor and data adds to an accelerator's number."""
    sizes = {"tensor": plan.tensor, "pipeline": plan.pipeline, "data": plan.data}
    strides, stride = {}, 1
    for name in plan.placement:
        strides[name] = stride
        stride *= sizes[name]
    return strides["tensor"], strides["data"]


def _factors(layer: Layer, tensor: int) -> float:
    """Elements of a sample that a rank holds of the inputs and errors of a layer, on average over the ranks and at
    least: all of one and its share of the other."""
    by_rows, by_cols = layer.inputs + layer.sums / tensor, layer.inputs / tensor + layer.sums
    return {"output": by_rows, "input": by_cols}.get(layer.tensor_split or "", min(by_rows, by_cols))
