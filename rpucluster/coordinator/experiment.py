"""What an experiment is: the keys that change its weights or its metrics, and those that a restart may change."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rpucluster.arrays import array_module
from rpucluster.cluster import Cluster
from rpucluster.data import Dataset
from rpucluster.job import Job
from rpucluster.plan import Plan

_PLAN = ("tensor", "tensor_split", "pipeline", "virtual_stages", "schedule", "expert", "placement")
"""Keys of ``[parallel]`` that only say who performs the experiment."""
_ELSEWHERE = {"data.path", "data.test_path", "data.image_column", "data.label_column"}
"""Where data lie; what they are has a key of its own."""


def experiment(job: Job, cluster: Cluster, plan: Plan, data: Dataset) -> dict[str, Any]:
    """What has to stay the same for a run to stay the same experiment: values by ``section.key``.

    The job without its plan, host and words; tile size, converters, bounds and noise of the reads of the cluster; the
    content of the data; NumPy or CuPy, whose reads differ in the last bits.  Stages of an asynchronous pipeline update
    at times of their own, so there they belong to it.  Epochs are not in it: `rpucluster.coordinator.resume` decides.
    """
    tables = job.model_dump(mode="json", exclude={"name", "words", "run"})
    tables["train"].pop("epochs")
    asynchronous = job.parallel.schedule == "async"
    for key in _PLAN:
        tables["parallel"].pop(key)
    for layer in tables["model"]["layer"] or ():
        layer.pop("tensor_split", None)
    tables["parallel"]["schedule"] = "async" if asynchronous else "any that flushes"
    if asynchronous:
        tables["parallel"]["pipeline"] = [layer.stage for layer in plan.layers]
    chip = cluster.model_dump(mode="json")["accelerator"]
    tables["accelerator"] = {key: chip[key] for key in ("tile_rows", "tile_cols", "forward", "backward")}
    tables["run"] = {"arrays": array_module(job.run.arrays).__name__}
    found = {key: value for key, value in _flat("", tables) if key not in _ELSEWHERE}
    return found | {"data.content": _digest(data)}


def differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key, as people write it, that two experiments differ in, and its two values."""
    for key in dict.fromkeys((*now, *before)):
        if before.get(key) != now.get(key):
            section, _, name = key.rpartition(".")
            return f"[{section}] {name}", before.get(key), now.get(key)
    return None


def plan_digest(plan: Plan) -> str:
    """Tells whether two plans give every accelerator the same tiles."""
    return hashlib.sha256(repr(sorted(plan.shards(), key=lambda s: (s.accelerator, s.layer))).encode()).hexdigest()


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), item)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value, start=1):
            yield from _flat(f"{prefix}#{number}", item)
    else:
        yield prefix, list(value) if isinstance(value, tuple) else value


def _digest(data: Dataset) -> str:
    digest = hashlib.sha256()
    for array in (data.train_x, data.train_y, data.test_x, data.test_y):
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
