"""Runs of layers against every other way to cut them."""

import itertools
from random import Random
from typing import Any

import pytest

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.stages import _seconds, _tiles, balance
from tests.specs import make_cluster, make_job


def best_cut(job: Job, cluster: Cluster, runs: int) -> tuple[int, int, int, int]:
    """The smallest (tiles too many, slowest, fullest, carried) of all cuts."""
    layers = job.network.layers
    return min(judge(job, cluster, cuts) for cuts in itertools.combinations(range(1, len(layers)), runs - 1))


def judge(job: Job, cluster: Cluster, cuts: tuple[int, ...]) -> tuple[int, int, int, int]:
    layers = job.network.layers
    seconds = [round(_seconds(layer, i, job, cluster) * 1e15) for i, layer in enumerate(layers)]
    tiles = [_tiles(layer, job, cluster) for layer in layers]
    spans = list(itertools.pairwise((0, *cuts, len(layers))))
    slowest = max(sum(seconds[a:b]) for a, b in spans)
    fullest = max(sum(tiles[a:b]) for a, b in spans)
    room = cluster.accelerator.tiles // job.parallel.virtual_stages
    return max(fullest - room, 0), slowest, fullest, sum(layers[cut - 1].carried for cut in cuts)


@pytest.mark.parametrize("seed", range(40))
def test_no_other_cut_is_better(seed: int) -> None:
    draw = Random(seed)
    model: dict[str, Any]
    if seed % 2:
        model = {"sizes": [draw.randint(4, 90) for _ in range(draw.randint(5, 9))]}
    else:
        model = {"preset": "gpt", "layers": draw.randint(1, 2), "hidden": 16, "heads": 2, "sequence": 8}
        model |= {"vocabulary": draw.choice([20, 200]), "sizes": None}
    runs = draw.randint(2, 4)
    job = make_job(model=model, parallel={"pipeline": runs, "schedule": "1f1b"})
    cluster = make_cluster(runs, tiles=draw.choice([20, 60, 400]), active_tiles=draw.choice([3, 10]))
    owner = balance(job.network.layers, job, cluster)
    assert sorted(set(owner)) == list(range(runs))
    assert owner == sorted(owner)
    cuts = tuple(i for i in range(1, len(owner)) if owner[i] != owner[i - 1])
    assert judge(job, cluster, cuts) == best_cut(job, cluster, runs)
