"""Random kill -9 of accelerators and of the driver: every run has to end with the weights of an undisturbed one.

    python benchmarks/kill_tests.py [ACCELERATOR_KILLS] [DRIVER_KILLS] [SEED]

Small networks on digits, under several plans.  Three parts:

* accelerators, a checkpoint every 100 steps: while a run trains on Ray, one of its actors' processes is killed at
  random moments.  Bringing the others back takes longer than the steps of a checkpoint: moments uniform in time would
  hardly meet training: three in four are up to two seconds after training has been heard of again, the rest anywhere;
* driver, a checkpoint every 20 steps: the command is killed at random moments, most of them after its first checkpoint,
  its children are left to end by themselves, and --resume goes on;
* driver, another plan: the same, and each resume has a plan of its own, on Ray or in one process.

Moments fall into starting, training, writing of checkpoints and restoring.  Only processes that this script has started
are killed, by their number.  Writes kill_tests.json and kill_tests.md beside this file.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rpucluster.checkpoint import complete
from rpucluster.config import write_toml
from rpucluster.coordinator import Progress, run
from rpucluster.job import Job
from rpucluster.pool import ray_session
from rpucluster.runlog import RunDirectory
from tests.processes import accelerators, descendants
from tests.specs import make_cluster, make_job

ROOT = Path(__file__).parent.parent
KILLS_PER_RUN = 10
LONGEST_PAUSE_S = 8.0
"""Between kills that may fall anywhere, and from a start of the command to its kill, at most."""
INTO_TRAINING_S = 2.0
"""After which a kill that waits for training comes, at most."""
PATIENCE_S = 10.0
"""In which children of a driver that was killed have to end."""
TRANSFER = {"algorithm": {"kind": "tiki_taka", "gamma": 0.3, "transfer_every": 3, "transfer_columns": 2}}
JOBS: dict[str, dict[str, Any]] = {
    "tensor 2": {"parallel": {"tensor": 2}},
    "pipeline 2, 1f1b": {"parallel": {"pipeline": 2, "schedule": "1f1b"}},
    "tensor 2, pipeline 2": {"parallel": {"tensor": 2, "pipeline": 2}},
    "data 2, factors": {"parallel": {"data": 2}, "train": {"minibatch": 4}},
    "tensor 2, tiki_taka": {"parallel": {"tensor": 2}, **TRANSFER},
}
PLANS = ({"tensor": 1}, {"tensor": 2}, {"tensor": 3}, {"pipeline": 2}, {"tensor": 2, "pipeline": 2}, {"pipeline": 3})


def job_of(tables: dict[str, Any], epochs: int, checkpoint_every: str) -> Job:
    """640 samples in 80 steps an epoch, by whatever number of replicas."""
    train = {"epochs": epochs} | tables.get("train", {})
    host = {"checkpoint_every": checkpoint_every, "restarts": 10_000}
    data = {"train_samples": 640}
    return make_job(**(tables | {"train": train, "run": host, "data": data}))


def facts(directory: RunDirectory) -> tuple[str, list[dict[str, Any]]]:
    """The weights' digest, and what was measured in each epoch; modelled time belongs to plans."""
    rows = [asdict(row) for row in directory.read_epochs()]
    kept = [{k: v for k, v in row.items() if "wall" not in k and "modelled" not in k} for row in rows]
    return directory.read_summary()["weights_sha256"], kept


def undisturbed(job: Job, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    return facts(run(job, make_cluster(), executor="local", out=folder).directory)


class Killer(threading.Thread):
    """Kills accelerators of this process, one after the other, until it has killed enough or is told to stop."""

    def __init__(self, chance: random.Random, kills: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self.chance, self.kills, self.folder = chance, kills, folder
        self.enough = threading.Event()
        self.when: list[str] = []
        self.restarts = 0
        self.training = threading.Event()

    def progress(self, now: Progress) -> None:
        self.restarts += now.phase == "restart"
        if now.phase in ("start", "restart"):
            self.training.clear()
        else:
            self.training.set()

    def stop(self) -> None:
        self.enough.set()
        self.training.set()

    def run(self) -> None:
        while len(self.when) < self.kills and not self._waited_in_vain():
            alive = accelerators(os.getpid())
            if not alive:
                continue
            writing = any((self.folder / "checkpoint").glob(".step-*"))
            trains = self.training.is_set()
            self.training.clear()
            os.kill(self.chance.choice(alive), signal.SIGKILL)
            moment = "training" if trains else "starting, restoring, or training before the first report"
            self.when.append("writing a checkpoint" if writing else moment)

    def _waited_in_vain(self) -> bool:
        """Whether the run has ended before the next moment came."""
        if self.chance.random() < 0.25:
            return self.enough.wait(self.chance.uniform(0, LONGEST_PAUSE_S))
        self.training.wait()
        return self.enough.wait(self.chance.uniform(0, INTO_TRAINING_S))


def kill_accelerators(kills: int, chance: random.Random, work: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    expected: dict[str, Any] = {}
    with ray_session(None):
        while (done := sum(row["kills"] for row in rows)) < kills:
            name = list(JOBS)[len(rows) % len(JOBS)]
            job, folder = job_of(JOBS[name], 80, "100 steps"), work / f"killed-{len(rows)}"
            if name not in expected:
                expected[name] = undisturbed(job, work / f"undisturbed-{name}")
            killer = Killer(chance, min(KILLS_PER_RUN, kills - done), folder)
            killer.start()
            began = time.perf_counter()
            found = run(job, make_cluster(), out=folder, progress=killer.progress)
            killer.stop()
            killer.join()
            rows.append(
                {
                    "plan": name,
                    "kills": len(killer.when),
                    "restarts": killer.restarts,
                    "when": dict(Counter(killer.when)),
                    "steps": found.summary["steps"],
                    "wall_s": round(time.perf_counter() - began, 1),
                    "same_weights": facts(found.directory)[0] == expected[name][0],
                    "same_epochs": facts(found.directory)[1] == expected[name][1],
                    "processes_left": len(accelerators(os.getpid())),
                }
            )
            print(rows[-1], flush=True)
            shutil.rmtree(folder)
    return rows


def kill_driver(kills: int, chance: random.Random, work: Path, other_plans: bool) -> dict[str, Any]:
    """Start, kill, resume, kill, ... until there were enough kills; then let it end."""
    name = "other plans" if other_plans else "same plan"
    job, folder = job_of({"parallel": {"tensor": 2}}, 100, "20 steps"), work / f"driver-{name}"
    (work / "job.toml").write_text(write_toml(job))
    (work / "cluster.toml").write_text(write_toml(make_cluster()))
    expected = undisturbed(job, work / f"undisturbed-driver-{name}")
    found: dict[str, Any] = {"part": name, "kills": 0, "resumes": 0, "from_start": 0, "plans": [], "left_behind": 0}
    while True:
        resuming = bool(complete(folder / "checkpoint"))
        executor = "ray" if chance.random() < 0.35 else "local"
        words = ["--resume", str(folder)] if resuming else [str(work / "job.toml"), "--cluster",
                 str(work / "cluster.toml"), "--out", str(folder)]  # fmt: skip
        if other_plans:
            keys: dict[str, Any] = {"tensor": 1, "pipeline": 1} | dict(chance.choice(PLANS))
            words += [word for key, value in keys.items() for word in ("--set", f"parallel.{key}={value}")]
            found["plans"].append(f"tensor {keys['tensor']}, pipeline {keys['pipeline']}, {executor}")
        if not resuming:
            shutil.rmtree(folder, ignore_errors=True)
        found["resumes" if resuming else "from_start"] += 1
        process = subprocess.Popen(
            [sys.executable, "-m", "rpucluster", "run", *words, "--executor", executor, "--quiet", "--json"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            if found["kills"] < kills:
                wait_for_the_moment(process, chance, folder / "checkpoint")
            out, err = process.communicate()
        except subprocess.TimeoutExpired:
            children = list(descendants(process.pid))
            process.kill()
            process.communicate()
            found["kills"] += 1
            until = time.monotonic() + PATIENCE_S
            while (left := [number for number in children if _alive(number)]) and time.monotonic() < until:
                time.sleep(0.1)
            found["left_behind"] += len(left)
            continue
        if process.returncode:
            raise SystemExit(f"{name}: {err}")
        assert json.loads(out)["steps"] == job.train.epochs * 80
        if found["kills"] >= kills:
            break
        shutil.rmtree(folder)  # it was done before it could be killed often enough
    digest, rows = facts(RunDirectory(folder))
    found |= {
        "same_weights": digest == expected[0],
        "same_epochs": rows == expected[1],
        "plans": Counter(found["plans"]),
    }
    print(found, flush=True)
    return found


def wait_for_the_moment(process: "subprocess.Popen[str]", chance: random.Random, checkpoints: Path) -> None:
    """Raise TimeoutExpired when the driver shall be killed: one time in four soon after it was started, while it reads,
    starts accelerators or restores them; else up to three seconds after its first checkpoint."""
    if chance.random() < 0.25:
        process.wait(chance.uniform(0, LONGEST_PAUSE_S))
        return
    before = complete(checkpoints)
    while process.poll() is None and complete(checkpoints) in ([], before):
        time.sleep(0.02)
    process.wait(chance.uniform(0, 3))


def _alive(number: int) -> bool:
    try:
        state = re.sub(r"^.*\) ", "", Path(f"/proc/{number}/stat").read_text())[0]
    except OSError:
        return False
    return state != "Z"


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = result["accelerators"]
    kills, same = sum(row["kills"] for row in rows), sum(row["same_weights"] and row["same_epochs"] for row in rows)
    moments: Counter[str] = Counter()
    for row in rows:
        moments.update(row["when"])
    plans = "; ".join(f"{name} ({n})" for name, n in result["driver"][1]["plans"].items())
    lines = [
        "# Kill tests\n",
        f"Written by `kill_tests.py`, seed {result['seed']}. Same: weights bit for bit, and metrics of all epochs.\n",
        f"{kills} random kills (SIGKILL) of an accelerator's process in {len(rows)} runs on Ray; {same} runs ended the "
        f"same as the undisturbed run in one process.\n",
        "| plan | kills | restarts | steps | wall_s | same | processes left |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['plan']} | {row['kills']} | {row['restarts']} | {row['steps']} | {row['wall_s']} | "
            f"{row['same_weights'] and row['same_epochs']} | {row['processes_left']} |"
            for row in rows
        ),
        "\nThe kills fell into: " + ", ".join(f"{name} ({n})" for name, n in moments.most_common()) + ".",
        "A process that dies while others are being brought back belongs to the same restart.\n",
        "| driver killed, resumed on | kills | resumes | started anew | same | children left after 10 s |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['part']} | {row['kills']} | {row['resumes']} | {row['from_start']} | "
            f"{row['same_weights'] and row['same_epochs']} | {row['left_behind']} |"
            for row in result["driver"]
        ),
        "\nWhat is left then are two agents of Ray's own for each driver that was killed on Ray, which end by",
        "themselves after 40 s; accelerators end at once. A driver that is killed before its first checkpoint is",
        f"started anew. Plans of the last row: {plans}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    numbers = [int(text) for text in sys.argv[1:]]
    accelerator_kills, driver_kills, seed = numbers + [60, 12, 1][len(numbers) :]
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        result = {
            "seed": seed,
            "accelerators": kill_accelerators(accelerator_kills, chance, work),
            "driver": [kill_driver(driver_kills, chance, work, other_plans) for other_plans in (False, True)],
        }
    target = Path(__file__).with_suffix("")
    target.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    target.with_suffix(".md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
