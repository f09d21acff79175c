"""Two questions about workers on this machine: do two cores share a large job, and do many accelerators fit.

    python benchmarks/pool_scale.py [recomputed] [stored] [many]

`recomputed`, `stored`: a layer of 4096 x 4096 cells in tiles of 2048 on one accelerator and on two, each a worker with
one thread; seconds per step in turns, so that a busy machine hits both alike.  Recomputed tolerances make it a matter
of computing, stored ones of moving 12 bytes per weight, where two independent processes together are 1.5 times one.
`many`: the digits job, 4 x 2 x 8 = 64 accelerators; from the start of the process to the end of the first step, and the
memory of all its processes (PSS: shared pages counted once).  Adds what it finds to pool_scale.json beside this file.
"""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rpucluster.accelerator import Steps
from rpucluster.cluster import Cluster, load_cluster
from rpucluster.data import load_data
from rpucluster.job import Job, load_job
from rpucluster.kernels import warm_up
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.pool import LocalPool, Pool, RayPool

TURNS, STEPS = 9, 6


class Trained:
    """A job on a pool of its own, trained on chosen samples of digits."""

    def __init__(self, job: Job, cluster: Cluster, local: bool = False) -> None:
        plan, data = partition(job, cluster), load_data(job.data)
        self.pool: Pool = LocalPool(job, cluster, plan) if local else RayPool(job, cluster, plan)
        self._program = lower(plan, job, "train")
        self.pool.load("train", self._program)
        self.pool.set_data("train", data.train_x, data.train_y)
        self._done, self._rows = 0, len(data.train_y)

    def train(self, steps: int) -> float:
        """Wall time of some steps."""
        began, batch = time.perf_counter(), self._program.samples
        indices = np.random.default_rng(self._done).integers(0, self._rows, (steps, batch))
        self.pool.perform("train", "train", Steps(first_sample=self._done * batch, learning_rate=0.01, indices=indices))
        self.pool.take_score()
        self._done += steps
        return time.perf_counter() - began


def digits(**sets: Any) -> Job:
    return load_job("digits", ["data.nudge=0", *(f"{key.replace('__', '.')}={value}" for key, value in sets.items())])


def speedup(tolerances: str) -> dict[str, Any]:
    """Two accelerators and two cores against one."""
    cluster = load_cluster(
        "laptop", ["network.axis.board.size=2", "accelerator.tile_rows=2048", "accelerator.tile_cols=2048"]
    )
    sizes = "[64, 4096, 4096, 10]"
    common = {"model__sizes": sizes, "train__minibatch": 32, "train__microbatch": 32, "parallel__pipeline": 1}
    common["run__tolerances"] = f'"{tolerances}"'
    one = Trained(digits(**common, parallel__tensor=1), cluster, local=True)
    two = Trained(digits(**common, parallel__tensor=2, run__accelerators_per_worker=1), cluster)
    try:
        for side in (one, two):
            side.train(6)
        times = [[side.train(STEPS) / STEPS for side in (one, two)] for _ in range(TURNS)]
        spent = two.pool.spent()
    finally:
        for side in (two, one):
            side.pool.close()
    return {
        "sizes": sizes,
        "one_s": [pair[0] for pair in times],
        "two_s": [pair[1] for pair in times],
        "median_speedup": float(np.median([a / b for a, b in times])),
        "math_s": [part.math_wall_s / part.steps for part in spent],
        "waiting_s": [part.waiting_wall_s / part.steps for part in spent],
        "performing_s": [part.performing_wall_s / part.steps for part in spent],
    }


def many() -> dict[str, Any]:
    """64 accelerators, as the default hosts them."""
    job = digits(parallel__tensor=4, parallel__pipeline=2, parallel__data=8, train__minibatch=4, train__microbatch=2)
    cluster = load_cluster("laptop", ["network.axis.board.size=64"])
    warm_up(job.devices(), False)
    trained = Trained(job, cluster)
    try:
        trained.train(1)
        started = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        first = float(Path("/proc/uptime").read_text().split()[0]) - started
        memory = pss()
        step = trained.train(20) / 20
        workers = len(trained.pool.spent())
    finally:
        trained.pool.close()
    return {
        "accelerators": len(partition(job, cluster).accelerators),
        "workers": workers,
        "start_to_first_step_s": first,
        "memory_pss_GB": memory / 1e9,
        "step_s": step,
    }


def pss() -> int:
    """Memory of this process and all that have come from it, in bytes."""
    total, family = 0, {os.getpid()}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    for process in family:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def main() -> None:
    path = Path(__file__).with_suffix(".json")
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in sys.argv[1:] or ("recomputed", "stored", "many"):
        measure = {"recomputed": lambda: speedup("recomputed"), "stored": lambda: speedup("stored"), "many": many}[name]
        results.setdefault(name, []).append(measure())
        print(name, json.dumps(results[name][-1]), flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
