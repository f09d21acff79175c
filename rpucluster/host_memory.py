"""Whether the arrays of a run fit the memory of the machines and GPUs that they live on."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rpucluster.arrays import Gpu, array_module, gpu_report
from rpucluster.errors import AcceleratorError, CapacityError
from rpucluster.hosting import hosts
from rpucluster.job import Job
from rpucluster.plan import Plan

BYTES_PER_WORKER = 150 << 20
"""Host memory of a Ray actor before it holds any array (measured: 95 to 130 MB private)."""


def check_memory(job: Job, plan: Plan, executor: str) -> None:
    """Refuse a run whose arrays cannot fit this machine's memory, or that of its GPUs.  Raises `CapacityError`."""
    if array_module(job.run.arrays) is not np:
        gpus = gpu_report()[: None if executor == "ray" else 1]
        check_gpus(gpus, worker_bytes(job, plan, _hosts(job, plan, executor)))
        return
    if sys.platform != "linux":
        return
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed, workers = _needed(job, plan, executor)
    if needed > available:
        cells = sum(shard.block.cells for shard in plan.shards())
        where = f" in {workers} worker processes" if workers else ""
        raise CapacityError(
            f"the arrays of {cells:,} cross-points{where} need {needed / 2**30:,.1f} GiB of "
            f"memory but this machine has {available / 2**30:,.1f} GiB; write "
            f"{_instead(job, plan, executor, available)}, or use plan, which needs no arrays"
        )


def _hosts(job: Job, plan: Plan, executor: str) -> Mapping[int, int]:
    return hosts(job, plan, os.cpu_count() or 1) if executor == "ray" else dict.fromkeys(plan.accelerators, 0)


def _needed(job: Job, plan: Plan, executor: str) -> tuple[int, int]:
    """Bytes of all processes, and how many of these are workers."""
    held = worker_bytes(job, plan, _hosts(job, plan, executor))
    workers = len(held) if executor == "ray" else 0
    return sum(held) + workers * BYTES_PER_WORKER, workers


def _instead(job: Job, plan: Plan, executor: str, available: int) -> str:
    """What would do: tolerances that are not stored, fewer replicas, both, or a smaller network."""
    lean = job.model_copy(update={"run": job.run.model_copy(update={"tolerances": "recomputed"})})
    told, fewer = 'run.tolerances = "recomputed"', range(plan.data - 1, 0, -1)
    for each, data in [(lean, plan.data), *((job, n) for n in fewer), *((lean, n) for n in fewer)]:
        if data % plan.expert == 0 and _needed(each, replace(plan, data=data), executor)[0] <= available:
            keys = [f"parallel.data = {data}"] * (data < plan.data) + [told] * (each is lean)
            return " and ".join(keys)
    needed, workers = _needed(lean, replace(plan, data=plan.expert), executor)
    spare = workers * BYTES_PER_WORKER
    share = 0.99 * max(0.0, available - spare) / (needed - spare)  # biases do not shrink as weights do
    alone = f" and parallel.data = {plan.expert}" if plan.data > plan.expert else ""
    return f"{told}{alone} and [model] sizes of {share * job.network.weights:,.0f} weights or fewer"


def worker_bytes(job: Job, plan: Plan, host_of: Mapping[int, int]) -> list[int]:
    """Bytes of the arrays of each worker; `host_of` has the worker of each accelerator."""
    found = [0] * (max(host_of.values()) + 1)
    for shard in plan.shards():
        found[host_of[shard.accelerator]] += shard.block.cells * job.bytes_per_weight(shard.layer)
    return found


def check_gpus(gpus: Sequence[Gpu], held: Sequence[int], sharing: int | None = None) -> None:
    """Refuse workers that hold so many bytes where as many as share each GPU do not fit.

    `sharing` is how many that are, where these are not all GPUs.  Raises `CapacityError`.
    """
    smallest = min(gpus, key=lambda gpu: gpu.memory_bytes)
    sharing = -(-len(held) // len(gpus)) if sharing is None else min(sharing, len(held))
    needed = sum(sorted(held, reverse=True)[:sharing])
    if needed > smallest.memory_bytes:
        who = "a worker" if sharing == 1 else f"{sharing} workers that share a GPU"
        raise CapacityError(
            f"the arrays of {who} need {needed / 2**30:,.1f} GiB but {smallest.name} has "
            f'{smallest.memory_bytes / 2**30:,.1f} GiB; lower [model] sizes, write [run] arrays = "numpy", or use '
            f"more GPUs"
        )


def out_of_memory(error: MemoryError) -> AcceleratorError:
    """What a process is told for that got no more memory from the system, its limits or its GPU."""
    told = " ".join(str(error).split()) or "the system gave no more"
    return AcceleratorError(
        f"an accelerator ran out of memory: {told}; give its machine more, lower [model] sizes, or write [run] "
        f'tolerances = "recomputed"'
    )
