"""Which run of layers each stage of a pipeline gets: `balance`."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.model import Layer, TensorSplit


def balance(layers: Sequence[Layer], job: Job, cluster: Cluster) -> list[int]:
    """Cut the layers into runs, so that each fits its accelerators if that can be, the slowest is as quick as can be,
    the fullest as empty, and least goes on beside the outputs at the cuts; which run each layer is in.

    The limits of time and tiles by bisection, since taking as many layers as they allow, run by run, needs the fewest
    runs; the cuts by dynamic programming over runs that keep to them.
    """
    chip, parallel = cluster.accelerator, job.parallel
    runs, count = parallel.pipeline * parallel.virtual_stages, len(layers)
    # whole femtoseconds, so that equal loads compare equal whatever the order of their sum
    seconds = [round(_seconds(layer, i, job, cluster) * 1e15) for i, layer in enumerate(layers)]
    time = [0, *accumulate(seconds)]
    fill = [0, *accumulate(_tiles(layer, job, cluster) for layer in layers)]
    fullest = max(_least(fill[-1], lambda most: _runs([(fill, most)]) <= runs), chip.tiles // parallel.virtual_stages)
    slowest = _least(time[-1], lambda most: _runs([(fill, fullest), (time, most)]) <= runs)
    fullest = _least(fullest, lambda most: _runs([(fill, most), (time, slowest)]) <= runs)
    limits = [(fill, fullest), (time, slowest)]
    beside = np.array([0, *(layer.carried for layer in layers[:-1]), 0], np.int64)
    cuts = _cuts(np.array([_stop(limits, i) for i in range(count)]), beside, runs)
    owner, stop = [0] * count, count
    for k in range(runs - 1, -1, -1):
        first = int(cuts[k][stop])
        owner[first:stop] = [k] * (stop - first)
        stop = first
    return owner


Limits = Sequence[tuple[Sequence[int], int]]
"""Loads of all layers before each, and the most that a run may have."""


def _cuts(stop_of: NDArray[np.int64], beside: NDArray[np.int64], runs: int) -> list[NDArray[np.int64]]:
    """Where the last of so many runs up to each layer begins, for 1, 2, ... runs, so that least goes on beside the
    outputs; of equal ones the earliest cut."""
    count = len(stop_of)
    ends = np.arange(1, count + 1)
    # runs that end somewhere may begin in a row of places: two overlapping powers of two, whose minima are tabled
    first = np.searchsorted(stop_of, ends)
    level = np.frexp(ends - first)[1] - 1
    second = ends - (1 << level)
    far = np.iinfo(np.int64).max // (4 * (count + 1))
    least = np.where(np.arange(count + 1) == 0, 0, far)
    cuts = []
    for _ in range(runs):
        table = [least[:-1] * (count + 1) + np.arange(count)]
        for k in range(int(level.max())):
            table.append(np.append(np.minimum(table[k][: -(1 << k)], table[k][1 << k :]), table[k][-(1 << k) :]))
        found = np.array(table)
        best = np.append(far * (count + 1), np.minimum(found[level, first], found[level, second]))
        least = np.minimum(best // (count + 1) + beside, far)
        cuts.append(best % (count + 1))
    return cuts


def _stop(limits: Limits, start: int) -> int:
    """Where the longest run from `start` on ends that keeps to the limits; `start` where not even its layer does."""
    return min(bisect_right(before, before[start] + most) - 1 for before, most in limits)


def _runs(limits: Limits) -> float:
    """The fewest runs that keep to the limits; infinitely many where a layer does not."""
    count, at, end = 0, 0, len(limits[0][0]) - 1
    while at < end:
        stop = end
        for before, most in limits:
            stop = min(stop, bisect_right(before, before[at] + most, at) - 1)
        if stop == at:
            return math.inf
        count, at = count + 1, stop
    return count


def _least(enough: int, holds: Callable[[int], bool]) -> int:
    """The least number for which something holds that holds for `enough` and for all above the least."""
    low, high = 0, enough
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high


def tiles_of(layer: Layer, cluster: Cluster, tensor: int, expert: int, split: TensorSplit) -> int:
    """Tiles of a layer on the fullest of so many tensor ranks, `split` unless the layer says otherwise."""
    chip = cluster.accelerator
    grid = -(-layer.rows // chip.tile_rows), -(-layer.cols // chip.tile_cols)
    arrays = layer.arrays // (1 if layer.routed is None else expert)
    ranks = 1 if layer.recurrent else tensor
    by_rows, by_cols = -(-grid[0] // ranks) * grid[1], grid[0] * -(-grid[1] // ranks)
    return arrays * {"output": by_rows, "input": by_cols, "auto": min(by_rows, by_cols)}[layer.tensor_split or split]


def digital_of(layer: Layer, tensor: int) -> float:
    """Digital operations of a sample on a rank, forward and back; what is split by outputs is shared by the ranks."""
    behind = layer.operations + layer.back_operations + 6 * layer.digital_macs
    before = layer.prepare_operations + layer.prepare_back_operations
    return behind / (tensor if layer.tensor_split == "output" else 1) + before


def _tiles(layer: Layer, job: Job, cluster: Cluster) -> int:
    parallel = job.parallel
    return tiles_of(layer, cluster, parallel.tensor, parallel.expert, parallel.tensor_split)


def _seconds(layer: Layer, index: int, job: Job, cluster: Cluster) -> float:
    """Of a sample: its passes forward and back (the first layer has nothing behind it), its update, its digital work.

    Arrays do not slow down with their size, only with their number of waves.
    """
    chip = cluster.accelerator
    update = chip.update_phases * job.update.bit_length * chip.pulse_width
    passes = chip.pass_time("forward") + (chip.pass_time("backward") if index or layer.embedding else 0)
    vectors = layer.positions * layer.passes / layer.arrays * (1 if layer.routed is None else job.parallel.expert)
    analog = vectors * chip.waves(_tiles(layer, job, cluster)) * (passes + update)
    return float(analog + digital_of(layer, job.parallel.tensor) / chip.digital_rate)
