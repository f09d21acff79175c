"""Training on Ray beside training in this process: wall time, and where workers spend it.

    python benchmarks/pool_overhead.py [--mnist DIRECTORY] [--seconds 3] [--label now]
        [--jobs digits,mnist] [--minibatches 1,32] [--accelerators 1,2,4,8,16]

One row for each job, minibatch and number of accelerators: in this process, with one accelerator in each Ray actor, and
with as many actors as the machine has cores ("auto"). The pools stand side by side and train in turns, so that a busy
machine hits all of them; steps are submitted and scores taken as a run does it. Rows go under the label into
pool_overhead.json beside this file, in the place of those of the same case, and the table is drawn anew: "before" is
what was measured of the version c8974f3, in turns with "now".
"""

import argparse
import json
import time
from contextlib import ExitStack
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
from rpucluster.pool import LocalPool, RayPool, ray_session

PLANS = {1: (1, 1, 1), 2: (2, 1, 1), 4: (2, 2, 1), 8: (4, 2, 1), 16: (4, 2, 2)}
"""Tensor, pipeline and data, by accelerators."""
PLACES = {"local": None, "each": 1, "auto": '"auto"'}
"""Accelerators in a worker, by the name of a place."""
TURNS = 3
TOGETHER = 4096
"""Samples between scores, as the training loop takes them, of small minibatches at most 256 steps."""
PARTS = ("math", "transport", "waiting", "idle")


def the_job(name: str, mnist: str, minibatch: int, accelerators: int, hosting: Any) -> Job:
    tensor, pipeline, data = PLANS[accelerators]
    sets = [
        f"train.minibatch={minibatch}", f"train.microbatch={max(1, minibatch // pipeline)}", f"parallel.data={data}",
        f"parallel.tensor={tensor}", f"parallel.pipeline={pipeline}", "train.learning_rate=0.01",
    ]  # fmt: skip
    sets += [] if hosting is None else [f"run.accelerators_per_worker={hosting}"]
    of_data = ["data.nudge=0"] if name == "digits" else [f"data.path={mnist}", "data.train_samples=4096"]
    return load_job("digits" if name == "digits" else "mnist_paper", [*sets, *of_data])


class Side:
    """A job on a pool of its own, which is closed with `stack`."""

    def __init__(self, job: Job, tile: int, local: bool, stack: ExitStack) -> None:
        tiles = [f"accelerator.tile_rows={tile}", f"accelerator.tile_cols={tile}"]
        cluster = load_cluster("laptop", ["network.axis.board.size=16", *tiles])
        plan = partition(job, cluster)
        program, data = lower(plan, job, "train"), load_data(job.data)
        began = time.perf_counter()
        self.pool: Any = LocalPool(job, cluster, plan) if local else RayPool(job, cluster, plan)
        stack.callback(self.pool.close)
        self.start_s = time.perf_counter() - began
        self.pool.load("train", program)
        self.pool.set_data("train", data.train_x, data.train_y)
        self._random, self._rows, self._batch = np.random.default_rng(1), len(data.train_y), program.samples
        self.done, self.turns = 0, []
        self.train(20)  # loads kernels
        self._pace = self.train(60) / 60
        self._before = self._spent()

    def train(self, count: int) -> float:
        """Wall time of some steps; the next ones are submitted before a score is taken, where the pool can do that."""
        began, asked = time.perf_counter(), []
        together = max(1, min(256, TOGETHER // self._batch))
        for first in range(0, count, together):
            indices = self._random.integers(0, self._rows, (min(count - first, together), self._batch))
            steps = Steps(first_sample=self.done * self._batch, learning_rate=0.01, indices=indices)
            self.pool.perform("train", "train", steps)
            self.done += len(steps)
            asked.append(self.pool.ask_score() if hasattr(self.pool, "ask_score") else self.pool.take_score)
            if len(asked) > getattr(self.pool, "ahead", 0):
                asked.pop(0)()
        for score in asked:
            score()
        return time.perf_counter() - began

    def turn(self, seconds: float) -> None:
        """Train for about as long, in whole runs of steps."""
        together = max(1, min(256, TOGETHER // self._batch))
        steps = max(together, int(seconds / self._pace) // together * together)
        self.turns.append(self.train(steps) / steps)

    def row(self) -> dict[str, Any]:
        """What was found; seconds of the parts are means over workers and all turns."""
        found: dict[str, Any] = {"step_us": float(np.median(self.turns)) * 1e6, "start_wall_s": self.start_s}
        spent = [
            {k: after[k] - then[k] for k in after} for after, then in zip(self._spent(), self._before, strict=True)
        ]
        if not spent:
            return found
        steps, workers = spent[0]["steps"], len(spent)
        mean = {key: sum(part[key] for part in spent) / workers / steps * 1e6 for key in spent[0]}
        math, waiting, performing = (mean[f"{part}_wall_s"] for part in ("math", "waiting", "performing"))
        found |= {"workers": workers, "steps": steps, "math_us": math, "waiting_us": waiting}
        found |= {"transport_us": performing - math - waiting, "idle_us": float(np.mean(self.turns)) * 1e6 - performing}
        messages = sum(part["messages"] for part in spent) / steps
        found |= {"messages": messages, "message_bytes": sum(part["message_bytes"] for part in spent) / steps}
        return found

    def _spent(self) -> list[dict[str, Any]]:
        return [asdict(spent) for spent in self.pool.spent()] if hasattr(self.pool, "spent") else []


def measure(asked: argparse.Namespace, name: str, minibatch: int, accelerators: int) -> dict[str, Any]:
    """All places of a case, in turns."""
    with ExitStack() as stack:
        sides = {}
        for place, hosting in PLACES.items():
            if place == "auto" and asked.label == "before":  # it was one worker for each accelerator then
                continue
            job = the_job(name, asked.mnist, minibatch, accelerators, hosting)
            warm_up(job.devices(), False)
            sides[place] = Side(job, 16 if name == "digits" else 64, place == "local", stack)
        for _ in range(TURNS):
            for side in sides.values():
                side.turn(asked.seconds / TURNS)
        row: dict[str, Any] = {"job": name, "minibatch": minibatch, "accelerators": accelerators}
        for place, side in sides.items():
            over = float(np.median([a / b for a, b in zip(side.turns, sides["local"].turns, strict=True)]))
            row[place] = side.row() | {"over_local": over}
    return row


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Two tables: times before and now, and where they go now."""
    before = {case(row): row for row in results.get("before", [])}
    lines = [
        "## A step, before and now\n",
        "Microseconds, and how many times that of the same version in one process. `each`: a worker for each "
        "accelerator; `auto`: as many workers as cores, the default now.\n",
        "| job | minibatch | accelerators | local before | local now | each before | each now | auto now |",
        "|" + "---|" * 8,
    ]
    for row in results["now"]:
        then = before.get(case(row), {})
        cells = [time_of(then, "local"), time_of(row, "local")]
        cells += [time_of(then, "each"), time_of(row, "each"), time_of(row, "auto")]
        lines.append(f"| {row['job']} | {row['minibatch']} | {row['accelerators']} | {' | '.join(cells)} |")
    lines += [
        "\n## Where the time of a step goes now\n",
        "Microseconds of a worker, the mean of all: math; transport, which is copying, sending, receiving and its "
        "bookkeeping; waiting for messages of others; idle between runs of steps. Messages are those of all workers; "
        "transport per message is that of a worker by the messages that it sends. `start` is until accelerators stand "
        "ready, in a Ray that runs.\n",
        f"| job | minibatch | accelerators | where | workers | start s | step | {' | '.join(PARTS)} | messages "
        "| transport per message |",
        "|" + "---|" * 13,
    ]
    for row in results["now"]:
        for place in PLACES:
            found = row[place]
            parts = [f"{found[f'{part}_us']:,.0f}" for part in PARTS]
            each = f"{found['transport_us'] * found['workers'] / found['messages']:.0f}" if found["messages"] else ""
            head = f"| {row['job']} | {row['minibatch']} | {row['accelerators']} | {place} | {found['workers']} "
            lines.append(
                f"{head}| {found['start_wall_s']:.1f} | {found['step_us']:,.0f} | {' | '.join(parts)} "
                f"| {found['messages']:.0f} | {each} |"
            )
    return "\n".join(lines) + "\n"


def time_of(row: dict[str, Any], place: str) -> str:
    if place not in row:
        return ""
    found = row[place]
    return f"{found['step_us']:,.0f}" + (f" ({found['over_local']:.2f})" if place != "local" else "")


def case(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["job"], row["minibatch"], row["accelerators"]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--mnist", default="data/mnist")
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--jobs", default="digits,mnist")
    options.add_argument("--minibatches", default="1,32")
    options.add_argument("--accelerators", default="1,2,4,8,16")
    options.add_argument("--label", default="now", choices=["before", "now"])
    asked = options.parse_args()
    path = Path(__file__).with_suffix(".json")
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = {case(row): row for row in results.get(asked.label, [])}
    with ray_session(None):
        for name in asked.jobs.split(","):
            for minibatch in map(int, asked.minibatches.split(",")):
                for accelerators in map(int, asked.accelerators.split(",")):
                    row = measure(asked, name, minibatch, accelerators)
                    rows[case(row)] = row
                    print(json.dumps(row), flush=True)
                    results[asked.label] = [rows[key] for key in sorted(rows)]
                    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if "now" in results:
        path.with_suffix(".md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
