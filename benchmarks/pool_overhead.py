"""Training on Ray beside training in this process: wall time, and where workers spend it.

    python benchmarks/pool_overhead.py [--mnist DIRECTORY] [--seconds 4] [--label now]
        [--jobs digits,mnist] [--minibatches 1,32] [--accelerators 1,2,4,8,16]

One row for each job, minibatch and number of accelerators, one accelerator in each Ray actor and as many of them as the
machine has cores ("auto").  Steps are submitted and scores taken as a run does it.  Start-up is until the accelerators
stand ready, Ray included.  Rows go under the label into pool_overhead.json and .md beside this file, in the place of
those of the same case: "before" is what was measured of the version c8974f3, "now" of this one.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rpucluster.accelerator import Steps
from rpucluster.cluster import load_cluster
from rpucluster.data import load_data
from rpucluster.job import Job, load_job
from rpucluster.kernels import warm_up
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.pool import LocalPool, RayPool

PLANS = {1: (1, 1, 1), 2: (2, 1, 1), 4: (2, 2, 1), 8: (4, 2, 1), 16: (4, 2, 2)}
"""Tensor, pipeline and data, by accelerators."""
OPTIONS = {"job": "jobs", "minibatch": "minibatches", "accelerators": "accelerators"}
KEYS = ("minibatch", "accelerators", "where")
TOGETHER = 4096
"""Samples between scores, as the training loop takes them, of small minibatches at most 256 steps."""


def the_job(name: str, mnist: str, minibatch: int, accelerators: int, hosting: Any) -> Job:
    tensor, pipeline, data = PLANS[accelerators]
    sets = [
        f"train.minibatch={minibatch}", f"train.microbatch={max(1, minibatch // pipeline)}", f"parallel.data={data}",
        f"parallel.tensor={tensor}", f"parallel.pipeline={pipeline}", "train.learning_rate=0.01",
    ]  # fmt: skip
    sets += [] if hosting is None else [f"run.accelerators_per_worker={hosting}"]
    of_data = ["data.nudge=0"] if name == "digits" else [f"data.path={mnist}", "data.train_samples=4096"]
    return load_job("digits" if name == "digits" else "mnist_paper", [*sets, *of_data])


def measure(job: Job, tile: int, executor: str, seconds: float) -> dict[str, Any]:
    """Time per step, start-up and where workers spent their time."""
    cluster = load_cluster(
        "laptop", ["network.axis.board.size=16", f"accelerator.tile_rows={tile}", f"accelerator.tile_cols={tile}"]
    )
    plan = partition(job, cluster)
    program, data = lower(plan, job, "train"), load_data(job.data)
    began = time.perf_counter()
    pool = LocalPool(job, cluster, plan) if executor == "local" else RayPool(job, cluster, plan)
    start = time.perf_counter() - began
    try:
        pool.load("train", program)
        pool.set_data("train", data.train_x, data.train_y)
        random, done, batch = np.random.default_rng(1), 0, program.samples

        def train(count: int) -> float:
            nonlocal done
            began = time.perf_counter()
            for first in range(0, count, max(1, min(256, TOGETHER // batch))):
                some = min(count - first, max(1, min(256, TOGETHER // batch)))
                indices = random.integers(0, len(data.train_y), (some, batch))
                pool.perform("train", "train", Steps(first_sample=done * batch, learning_rate=0.01, indices=indices))
                done += some
                pool.take_score()
            return time.perf_counter() - began

        train(20)  # loads kernels
        pace = train(100) / 100
        steps = max(20, int(seconds / pace))
        before = spent_by(pool)
        wall = train(steps)
        parts = [
            {key: after[key] - then[key] for key in after} for after, then in zip(spent_by(pool), before, strict=True)
        ]
    finally:
        pool.close()
    row = {"start_wall_s": start, "steps": steps, "step_us": wall / steps * 1e6, "workers": len(parts)}
    if parts:
        mean = {key: sum(part[key] for part in parts) / len(parts) / steps for key in parts[0]}
        math, waiting = mean["math_wall_s"], mean["waiting_wall_s"]
        row |= {
            "math_us": math * 1e6,
            "waiting_us": waiting * 1e6,
            "transport_us": (mean["performing_wall_s"] - math - waiting) * 1e6,
            "idle_us": (wall / steps - mean["performing_wall_s"]) * 1e6,
            "messages": mean["messages"] * len(parts),
            "message_bytes": mean["message_bytes"] * len(parts),
        }
    return row


def spent_by(pool: Any) -> list[dict[str, Any]]:
    return [asdict(spent) for spent in pool.spent()] if hasattr(pool, "spent") else []


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| job | minibatch | accelerators | where | workers | start s | step us | over local | math | transport | "
        "waiting | idle | messages | transport per message us |",
        "|" + "---|" * 14,
    ]
    for row in rows:
        found = [
            f"{row[key]:.0f}" if key in row else ""
            for key in ("math_us", "transport_us", "waiting_us", "idle_us", "messages")
        ]
        each = f"{row['transport_us'] * row['workers'] / row['messages']:.0f}" if row.get("messages") else ""
        lines.append(
            f"| {row['job']} | {row['minibatch']} | {row['accelerators']} | {row['where']} | {row['workers']} "
            f"| {row['start_wall_s']:.1f} | {row['step_us']:,.0f} | {row['over_local']:.2f} "
            f"| {' | '.join(found)} | {each} |"
        )
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--mnist", default="data/mnist")
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--jobs", default="digits,mnist")
    options.add_argument("--minibatches", default="1,32")
    options.add_argument("--accelerators", default="1,2,4,8,16")
    options.add_argument("--label", default="now")
    asked = options.parse_args()
    path = Path(__file__).with_suffix(".json")
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = [row for row in results.get(asked.label, []) if not asks_for(asked, row)]
    for name in asked.jobs.split(","):
        for minibatch in map(int, asked.minibatches.split(",")):
            for accelerators in map(int, asked.accelerators.split(",")):
                local = 0.0
                for where in ("local", "ray, 1 each", "ray, auto"):
                    if where == "ray, auto" and asked.label == "before":
                        continue
                    hosting = {"ray, 1 each": 1, "ray, auto": '"auto"'}.get(where)
                    job = the_job(name, asked.mnist, minibatch, accelerators, hosting)
                    warm_up(job.devices(), False)
                    row = measure(job, 16 if name == "digits" else 64, where.split(",")[0], asked.seconds)
                    local = local or row["step_us"]
                    rows.append(
                        {"job": name, "minibatch": minibatch, "accelerators": accelerators, "where": where}
                        | {"over_local": row["step_us"] / local}
                        | row
                    )
                    print(json.dumps(rows[-1]), flush=True)
                    results[asked.label] = sorted(rows, key=lambda row: (row["job"], *map(row.get, KEYS)))
                    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sections = [f"## {label}\n\n{table(found)}\n" for label, found in results.items()]
    path.with_suffix(".md").write_text("\n".join(sections), encoding="utf-8")


def asks_for(asked: argparse.Namespace, row: dict[str, Any]) -> bool:
    """Whether a row is to be measured again."""
    return all(str(row[key]) in getattr(asked, option).split(",") for key, option in OPTIONS.items())


if __name__ == "__main__":
    main()
