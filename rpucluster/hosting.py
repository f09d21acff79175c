"""Which worker process hosts which accelerators; no result depends on it."""

from collections.abc import Mapping

import numpy as np

from rpucluster.arrays import array_module
from rpucluster.job import Job
from rpucluster.plan import Plan


def accelerators_per_worker(job: Job, plan: Plan, cores: int) -> int:
    """How many accelerators a worker hosts on machines of so many cores together.

    ``"auto"`` makes as many workers as can compute at the same time, ``[run] threads`` each, since more would only take
    turns, at 100 MB and a second of start-up apiece.  Arrays of a GPU have a worker each, which Ray gives its share.
    """
    each = job.run.accelerators_per_worker
    if each != "auto":
        return each
    if array_module(job.run.arrays) is not np:
        return 1
    workers = max(1, cores // job.run.threads)
    return -(-len(plan.accelerators) // workers)


def hosts(job: Job, plan: Plan, cores: int) -> Mapping[int, int]:
    """The worker of each accelerator.

    Stages of one tensor rank share a worker before ranks of one stage do: stages take turns, ranks of a stage compute
    at the same time.  Replicas stay apart longest, since they exchange least.
    """
    each = accelerators_per_worker(job, plan, cores)
    at_work = set(plan.accelerators)  # a rank of a stage may hold nothing
    places = sorted(
        (replica, rank, stage, number) for replica, stage, rank, number in plan.ranks() if number in at_work
    )
    order = [number for *_, number in places]
    # workers in the order of their first accelerators
    crews = sorted((order[start : start + each] for start in range(0, len(order), each)), key=min)
    worker_of = {number: worker for worker, crew in enumerate(crews) for number in crew}
    return {number: worker_of[number] for number in plan.accelerators}
