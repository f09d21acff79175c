"""Whether the arrays of a run fit the memory of the machines and GPUs that they live on."""

import os
import sys
from collections.abc import Mapping, Sequence

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
    cores = os.cpu_count() or 1
    host_of = hosts(job, plan, cores) if executor == "ray" else dict.fromkeys(plan.accelerators, 0)
    if array_module(job.run.arrays) is not np:
        gpus = gpu_report()[: None if executor == "ray" else 1]
        check_gpus(gpus, worker_bytes(job, plan, host_of))
        return
    if sys.platform != "linux":
        return
    cells = sum(shard.block.cells for shard in plan.shards())
    held = worker_bytes(job, plan, host_of)
    workers = len(held) if executor == "ray" else 0
    needed = sum(held) + workers * BYTES_PER_WORKER
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise CapacityError(
            f"the arrays of {cells:,} cross-points in {workers} worker processes need {needed / 2**30:,.1f} GiB of "
            f"memory but this machine has {available / 2**30:,.1f} GiB; lower [model] sizes, write [run] "
            f'tolerances = "recomputed", raise accelerators_per_worker, or use plan, which needs no arrays'
        )


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
