"""Which run of layers each stage of a pipeline gets: `balance`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.model import Layer

Ints = NDArray[np.int64]


def balance(layers: Sequence[Layer], job: Job, cluster: Cluster) -> list[int]:
    """Cut the layers into runs, so that each fits its accelerators if that can be, the slowest is as quick as can be,
    the fullest as empty, and least goes on beside the outputs at the cuts; which run each layer is in.

    Dynamic programming over cuts, O(runs * layers^2).
    """
    chip, parallel = cluster.accelerator, job.parallel
    runs, count = parallel.pipeline * parallel.virtual_stages, len(layers)
    seconds = np.array([_seconds(layer, i, job, cluster) for i, layer in enumerate(layers)])
    tiles = np.array([_tiles(layer, job, cluster) for layer in layers], np.int64)
    before = np.concatenate(([0.0], np.cumsum(seconds))), np.concatenate(([0], np.cumsum(tiles)))
    # load[i, j]: of layers i to j - 1; rounded, so that equal loads compare equal whatever the order of their sum
    time = np.rint((before[0][None, :] - before[0][:, None]) * 1e15).astype(np.int64)
    fill = before[1][None, :] - before[1][:, None]
    room = chip.tiles // parallel.virtual_stages
    excess = np.maximum(fill - room, 0)
    empty = np.tri(count + 1, dtype=bool)  # runs have at least one layer
    carried = np.array([0, *(layer.carried for layer in layers)], np.int64)
    carried[count] = 0
    cuts: list[Ints] = []
    worst = [np.where(np.arange(count + 1) == 0, 0, _FAR) for _ in range(3)]
    beside = worst[0].copy()
    for _ in range(runs):
        keys = [np.maximum(w[:, None], load) for w, load in zip(worst, (excess, time, fill), strict=True)]
        keys.append(beside[:, None] + carried[None, :])
        keys = [np.where(empty, _FAR, key) for key in keys]
        best = _first_smallest(keys)
        cuts.append(best)
        at = np.arange(count + 1)
        *worst, beside = (key[best, at] for key in keys)
    owner, stop = [0] * count, count
    for k in range(runs - 1, -1, -1):
        start = int(cuts[k][stop])
        owner[start:stop] = [k] * (stop - start)
        stop = start
    return owner


_FAR = np.iinfo(np.int64).max // 4


def _first_smallest(keys: Sequence[Ints]) -> Ints:
    """Of each column, the first row whose keys, compared one after the other, are the smallest."""
    left = np.ones(keys[0].shape, bool)
    for key in keys:
        masked = np.where(left, key, _FAR + 1)
        left &= masked == masked.min(axis=0)
    first: Ints = left.argmax(axis=0).astype(np.int64)
    return first


def _tiles(layer: Layer, job: Job, cluster: Cluster) -> int:
    """Tiles of a layer on the fullest of its ranks, whichever way it is split."""
    chip = cluster.accelerator
    grid = -(-layer.rows // chip.tile_rows), -(-layer.cols // chip.tile_cols)
    arrays = layer.arrays // (1 if layer.routed is None else job.parallel.expert)
    tensor = 1 if layer.recurrent else job.parallel.tensor
    split = job.parallel.tensor_split if layer.tensor_split is None else layer.tensor_split
    by_rows, by_cols = -(-grid[0] // tensor) * grid[1], grid[0] * -(-grid[1] // tensor)
    return arrays * {"output": by_rows, "input": by_cols, "auto": min(by_rows, by_cols)}[split]


def _seconds(layer: Layer, index: int, job: Job, cluster: Cluster) -> float:
    """Of a sample: its passes forward and back (the first layer has nothing behind it), its update, its digital work.

    Arrays do not slow down with their size, only with their number of waves.
    """
    chip = cluster.accelerator
    update = chip.update_phases * job.update.bit_length * chip.pulse_width
    passes = chip.pass_time("forward") + (chip.pass_time("backward") if index or layer.embedding else 0)
    vectors = layer.positions * layer.passes / layer.arrays * (1 if layer.routed is None else job.parallel.expert)
    analog = vectors * chip.waves(_tiles(layer, job, cluster)) * (passes + update)
    ranks = job.parallel.tensor if layer.tensor_split == "output" else 1
    digital = layer.operations + layer.back_operations + 6 * layer.digital_macs
    before = layer.prepare_operations + layer.prepare_back_operations
    return float(analog + (digital / ranks + before) / chip.digital_rate)
