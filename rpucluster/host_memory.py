"""Whether the arrays of a run fit the memory of this machine."""

import os
import sys

import numpy as np

from rpucluster.arrays import array_module
from rpucluster.errors import CapacityError
from rpucluster.hosting import hosts
from rpucluster.job import Job
from rpucluster.plan import Plan

BYTES_PER_WORKER = 150 << 20
"""Host memory of a Ray actor before it holds any array (measured: 95 to 130 MB private)."""


def check_memory(job: Job, plan: Plan, executor: str) -> None:
    """Refuse a run whose arrays cannot fit this machine's memory.  Raises `CapacityError`."""
    if sys.platform != "linux" or array_module(job.run.arrays) is not np:
        return
    cells = sum(shard.block.cells for shard in plan.shards())
    workers = len(set(hosts(job, plan, os.cpu_count() or 1).values())) if executor == "ray" else 0
    arrays = sum(shard.block.cells * job.bytes_per_weight(shard.layer) for shard in plan.shards())
    needed = arrays + workers * BYTES_PER_WORKER
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise CapacityError(
            f"the arrays of {cells:,} cross-points in {workers} worker processes need {needed / 2**30:,.1f} GiB of "
            f"memory but this machine has {available / 2**30:,.1f} GiB; lower [model] sizes, write [run] "
            f'tolerances = "recomputed", raise accelerators_per_worker, or use plan, which needs no arrays'
        )
