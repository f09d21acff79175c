"""Random plans and clusters for the tests of projections."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from rpucluster.cluster import Cluster
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.partitioner import partition
from rpucluster.plan import Plan

AXES = ("a", "b", "c")


def random_case(seed: int, **axis: Any) -> tuple[Job, Cluster]:
    """A small job and a cluster that it may fit, over schedules, ways to agree, topologies, placements and uneven
    shares; keys of every axis may be fixed.  May raise `ValidationError`."""
    rng = random.Random(seed)
    degrees = {"tensor": rng.choice([1, 2, 3, 4]), "pipeline": rng.choice([1, 2, 3, 4]), "data": rng.choice([1, 2, 3])}
    schedule = rng.choice(["gpipe", "1f1b", "interleaved", "async"])
    chunks = 2 if schedule == "interleaved" else 1
    microbatch = rng.choice([1, 2])
    microbatches = rng.choice([1, 2, 3, 5]) * (degrees["pipeline"] if schedule == "interleaved" else 1)
    even = 4 * degrees["tensor"]
    layers = max(degrees["pipeline"] * chunks, rng.choice([2, 3, 4, 6]))
    placement = ["tensor", "pipeline", "data"]
    rng.shuffle(placement)
    job = {
        "name": f"case{seed}",
        "model": {
            "preset": "mlp",
            "sizes": [rng.choice([even, even, even, 2 * even, even + 3]) for _ in range(layers + 1)],
            "bias": rng.choice(["none", "digital", "digital", "column"]),
        },
        "data": {"name": "digits"},
        "train": {"epochs": 1, "minibatch": microbatch * microbatches, "microbatch": microbatch, "learning_rate": 0.01},
        "parallel": {
            **degrees,
            "schedule": schedule,
            "virtual_stages": chunks,
            "tensor_split": rng.choice(["auto", "output", "input"]),
            "data_sync": rng.choice(["factors", "gradient", "average"]),
            "placement": placement,
        },
    }
    sizes = [degrees[name] for name in placement]
    if rng.random() < 0.3:
        sizes = [sizes[0] * sizes[1], sizes[2]]
    if rng.random() < 0.3:
        sizes = [degrees["tensor"] * degrees["pipeline"] * degrees["data"] + rng.choice([0, 1])]
    axes = [
        {
            "name": name,
            "kind": rng.choice(["ring", "switch", "fully_connected", "mesh"]),
            "size": size,
            "bandwidth": f"{rng.choice([1, 5, 50])} GB/s",
            "latency": f"{rng.choice([0, 50, 500])} ns",
            "contention": rng.choice(["fifo", "fifo", "fair", "none"]),
            **axis,
        }
        for name, size in zip(AXES, sizes, strict=False)
    ]
    chip = {
        "tile_rows": 4,
        "tile_cols": 4,
        "tiles": 1000,
        "active_tiles": rng.choice([1000, 50, 4]),
        "layer_streaming": rng.random() < 0.4,
        "idle_power": "1 W",
        "digital_rate": f"{rng.choice([0.5, 5, 500])} Gop/s",
    }
    cluster = {"name": "random", "accelerator": chip, "network": {"axis": axes}}
    return Job.model_validate(job), Cluster.model_validate(cluster)


def random_decoder(seed: int) -> tuple[Job, Cluster]:
    """The same with transformer blocks, half of them with experts, which replicas may share.  May raise
    `ValidationError`."""
    job, cluster = random_case(seed)
    rng = random.Random(seed + 1_000_000)
    tensor, stages, data = rng.choice([1, 2, 4]), rng.choice([1, 2, 3]), rng.choice([1, 2, 4])
    tables = job.model_dump(exclude_unset=True)
    experts = rng.choice([0, 2, 4])
    tables["model"] = {
        "preset": "gpt",
        "layers": rng.choice([2, 3]),
        "hidden": 16,
        "heads": 4,
        "sequence": 4,
        "vocabulary": rng.choice([16, 24, 40]),
        **({"experts": experts, "routed": 1} if experts else {}),
    }
    tables["data"] = {"name": "none", "samples": 100}
    schedule = rng.choice(["gpipe", "1f1b", "async"])
    expert = rng.choice([n for n in (1, 2, 4) if data % n == 0 and experts % n == 0]) if experts else 1
    placement = rng.sample(["tensor", "pipeline", "data"], 3)
    tables["parallel"] |= {
        "tensor": tensor,
        "pipeline": stages,
        "data": data,
        "expert": expert,
        "schedule": schedule,
        "virtual_stages": 1,
        "placement": placement,
    }
    sizes = {"tensor": tensor, "pipeline": stages, "data": data}
    axes = [
        {"name": name, "kind": rng.choice(["ring", "switch", "fully_connected"]), "size": sizes[degree]}
        | {"bandwidth": "5 GB/s", "latency": "50 ns", "contention": rng.choice(["fifo", "fair"])}
        for name, degree in zip(AXES, placement, strict=True)
    ]
    chip = cluster.accelerator.model_dump(exclude_unset=True) | {"tile_rows": 8, "tile_cols": 8}
    machine = {"name": "random", "accelerator": chip, "network": {"axis": axes}}
    return Job.model_validate(tables), Cluster.model_validate(machine)


def random_pipeline(seed: int) -> tuple[Job, Cluster]:
    """A pipeline of many stages, most of them alike, over many microbatches.  May raise `ValidationError`."""
    rng = random.Random(seed)
    tensor, stages, data = rng.choice([1, 2, 2, 3]), rng.choice([16, 24, 32]), rng.choice([1, 2])
    schedule = rng.choice(["gpipe", "1f1b", "async", "interleaved"])
    chunks = 2 if schedule == "interleaved" else 1
    microbatches = stages * rng.choice([1, 2]) if chunks > 1 else rng.choice([12, 16, 31, 48, 64])
    width = rng.choice([4, 4, 8]) * tensor + rng.choice([0, 0, 3])
    layers = stages * chunks * rng.choice([1, 1, 2])
    job = {
        "name": f"pipeline{seed}",
        "model": {
            "preset": "mlp",
            "sizes": [rng.choice([width, 3 * width]), *([width] * (layers - 1)), rng.choice([width, 4 * width])],
            "bias": rng.choice(["none", "digital"]),
        },
        "data": {"name": "digits"},
        "train": {"epochs": 1, "minibatch": 2 * microbatches, "microbatch": 2, "learning_rate": 0.01},
        "parallel": {
            "tensor": tensor,
            "pipeline": stages,
            "data": data,
            "schedule": schedule,
            "virtual_stages": chunks,
            "tensor_split": rng.choice(["auto", "output"]),
            "data_sync": rng.choice(["factors", "gradient"]),
        },
    }
    axes = [
        {
            "name": name,
            "kind": rng.choice(["ring", "switch", "fully_connected"]),
            "size": size,
            "bandwidth": f"{rng.choice([1, 5, 50])} GB/s",
            "latency": f"{rng.choice([0, 50, 500])} ns",
            "contention": rng.choice(["fifo", "fifo", "fair", "none"]),
        }
        for name, size in zip(AXES, (tensor, stages, data), strict=True)
    ]
    chip = {
        "tile_rows": 4,
        "tile_cols": 4,
        "tiles": 1000,
        "active_tiles": rng.choice([1000, 4]),
        "layer_streaming": rng.random() < 0.3,
        "idle_power": "1 W",
        "digital_rate": f"{rng.choice([0.5, 5, 500])} Gop/s",
        "queue": rng.choice(["arrival", "program"]),
    }
    network = {"queue": rng.choice(["arrival", "program"]), "axis": axes}
    return Job.model_validate(job), Cluster.model_validate({"name": "random", "accelerator": chip, "network": network})


def cases(
    seeds: range, make: Callable[[int], tuple[Job, Cluster]] = random_case
) -> Iterator[tuple[int, Job, Cluster, Plan]]:
    """The seeds whose job fits its cluster, with both and the plan."""
    for seed in seeds:
        try:
            job, cluster = make(seed)
            yield seed, job, cluster, partition(job, cluster)
        except (ValidationError, PlanError):
            continue
