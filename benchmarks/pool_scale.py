"""Two questions about workers on this machine: do two cores share a large job, and do many accelerators fit.

    python benchmarks/pool_scale.py [--side 4096] [recomputed] [stored] [many]

`recomputed`, `stored`: a layer of 4096 x 4096 cells (`--side`) in tiles of 2048 on one accelerator and on two, each a
worker with one thread, and half of it in each of two processes that know nothing of each other; these also count in
registers, alone and both at once, which two whole cores do twice as quickly: a virtual machine may have less for a
while.  Seconds per step in turns, so that a busy machine hits all alike.  Recomputed tolerances make it a matter of
computing, stored ones of moving 12 bytes per weight.
`many`: the digits job, 4 x 2 x 8 = 64 accelerators; from the start of the process to the end of the first step, and the
memory of all its processes (PSS: shared pages counted once).  Adds what it finds to pool_scale.json beside this file.
"""

import argparse
import json
import multiprocessing
import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numba
import numpy as np

from rpucluster.accelerator import Steps
from rpucluster.cluster import Cluster, load_cluster
from rpucluster.data import load_data
from rpucluster.job import Job, load_job
from rpucluster.kernels import warm_up
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.pool import LocalPool, Pool, RayPool

TURNS, STEPS = 15, 6
ROUNDS = 60_000_000
"""Of counting in registers: some tenths of a second."""
WHOLE = 1.9
"""Times as quick as one that two cores count at least, if both are there."""
WHAT = ("recomputed", "stored", "many")


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


def the_layer(tolerances: str, tensor: int, side: int, outputs: int) -> tuple[Job, Cluster]:
    """A job that is one large layer before all, `outputs` x `side` cells, and its cluster."""
    cluster = load_cluster(
        "laptop", ["network.axis.board.size=2", "accelerator.tile_rows=2048", "accelerator.tile_cols=2048"]
    )
    job = digits(
        model__sizes=f"[64, {outputs}, {side}, 10]", train__minibatch=32, train__microbatch=32, parallel__pipeline=1,
        parallel__tensor=tensor, run__tolerances=f'"{tolerances}"', run__accelerators_per_worker=1,
    )  # fmt: skip
    return job, cluster


@numba.njit
def counted(rounds: int) -> float:
    """Multiplications that wait for nothing but one another."""
    found = 1.0
    for _ in range(rounds):
        found = found * 1.0000001 + 1e-9
    return found


def count() -> float:
    """Wall time of counting."""
    began = time.perf_counter()
    counted(ROUNDS)
    return time.perf_counter() - began


def apart(tolerances: str, side: int, pipe: Any) -> None:
    """Half of the layer in a process of its own: trains or counts when it is asked, and says how long that took."""
    half = Trained(*the_layer(tolerances, 1, side, side // 2), local=True)
    half.train(6)
    counted(1)
    pipe.send(0.0)
    while asked := pipe.recv():
        pipe.send(count() if asked == "count" else half.train(STEPS) / STEPS)


def speedup(tolerances: str, side: int) -> dict[str, Any]:
    """Two accelerators and two cores against one, and against two processes that have nothing to do with each other."""
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe() for _ in range(2)]
    halves = [spawn.Process(target=apart, args=(tolerances, side, end)) for _, end in pipes]
    for half in halves:
        half.start()
    for pipe, _ in pipes:
        pipe.recv()

    def ask(what: str, *these: int) -> float:
        for i in these:
            pipes[i][0].send(what)
        return max(pipes[i][0].recv() for i in these)

    def turn() -> list[float]:
        before = 2 * ask("count", 0) / ask("count", 0, 1)
        found = [one.train(STEPS) / STEPS, two.train(STEPS) / STEPS, ask("train", 0, 1)]
        return [*found, min(before, 2 * ask("count", 1) / ask("count", 0, 1))]

    one = Trained(*the_layer(tolerances, 1, side, side), local=True)
    two = Trained(*the_layer(tolerances, 2, side, side))
    try:
        for pool in (one, two):
            pool.train(6)
        before = two.pool.spent()  # the first steps load kernels
        times = [turn() for _ in range(TURNS)]
        spent = [
            {key: after - then for (key, after), then in zip(asdict(now).items(), asdict(early).values(), strict=True)}
            for now, early in zip(two.pool.spent(), before, strict=True)
        ]
    finally:
        for pool in (two, one):
            pool.pool.close()
        for pipe, _ in pipes:
            pipe.send("")
        for half in halves:
            half.join()
    return {
        "side": side,
        "one_s": [turn[0] for turn in times],
        "two_s": [turn[1] for turn in times],
        "apart_s": [turn[2] for turn in times],
        "cores": [turn[3] for turn in times],
        "median_speedup": float(np.median([a / b for a, b, *_ in times])),
        "median_speedup_apart": float(np.median([a / b for a, _, b, _ in times])),
        "turns_with_two_whole_cores": sum(turn[3] >= WHOLE for turn in times),
        "speedups_with_these": [a / b for a, b, _, cores in times if cores >= WHOLE],
        "math_s": [part["math_wall_s"] / part["steps"] for part in spent],
        "waiting_s": [part["waiting_wall_s"] / part["steps"] for part in spent],
        "performing_s": [part["performing_wall_s"] / part["steps"] for part in spent],
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
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("what", nargs="*", choices=WHAT, default=list(WHAT))
    asked = parser.parse_args()
    for name in asked.what:
        results.setdefault(name, []).append(many() if name == "many" else speedup(name, asked.side))
        print(name, json.dumps(results[name][-1]), flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
