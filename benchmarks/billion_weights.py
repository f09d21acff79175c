"""A billion weights on one desk: peak memory and time of training steps, with every spread of RPU-baseline on.

    python benchmarks/billion_weights.py [STEPS] [--sizes 784,16384,...] [--out DIRECTORY]

Runs jobs/mlp_1b.toml as a user would, on one accelerator in this process's child, minibatch 1, tolerances recomputed,
with data made up to look like MNIST, and puts the time of a step beside the time that this machine's memory takes to
read the weights twice and rewrite the touched lines once.  The run directory with its checkpoint (5 GB) goes to
DIRECTORY, or is removed.  Writes billion_weights.json beside this file where the network is the whole one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from floors import floors

FEATURES, CLASSES = 784, 10
SETTINGS = {
    "data.name": "parquet",
    "train.minibatch": "1",
    "train.microbatch": "1",
    "parallel.tensor": "1",
    "parallel.pipeline": "1",
    "device.preset": "rpu-baseline",
    "run.tolerances": "recomputed",
}


def write_data(path: Path, samples: int) -> None:
    """Random images with the zeros of MNIST, and labels."""
    rng = np.random.default_rng(1)
    x = rng.random((samples, FEATURES), dtype=np.float32)
    x[rng.random(x.shape) < 0.81] = 0
    pq.write_table(pa.table({"image": list(x), "label": np.arange(samples) % CLASSES}), path)


def measure(steps: int, sizes: str | None, out: Path) -> dict[str, Any]:
    """The summary of the run, its peak memory and its time."""
    write_data(out / "data.parquet", steps + 1)
    settings = SETTINGS | {"data.path": str(out / "data.parquet"), "data.test_fraction": str(1 / (steps + 1))}
    settings |= {"model.sizes": f"[{sizes}]"} if sizes else {}
    command = [sys.executable, "-m", "rpucluster", "run", "mlp_1b", "--cluster", "paper_chip", "--executor", "local"]
    load = os.getloadavg()[0]
    command += [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    began = time.perf_counter()
    child = subprocess.Popen([*command, "--json", "--quiet", "--out", str(out / "run")], stdout=subprocess.PIPE)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"the run ended with {os.waitstatus_to_exitcode(status)}")
    summary = json.loads(printed)
    wall = time.perf_counter() - began
    return summary | {"peak_bytes": usage.ru_maxrss * 1024, "process_wall_s": wall, "load_before": load}


def beside_the_floor(found: dict[str, Any]) -> dict[str, Any]:
    """What the run took, and what the memory alone would take."""
    weights, steps = found["weights"], found["steps"]
    coincidences = found["counts"]["coincidences"] / steps
    lines = min(coincidences, weights / 16)  # no more lines are touched than cells are hit
    memory = floors()
    step = found["train_wall_s"] / steps
    result: dict[str, Any] = {
        "weights": weights,
        "peak_GB": found["peak_bytes"] / 1e9,
        "weights_GB": 4 * weights / 1e9,
        "steps": steps,
        "step_wall_s": step,
        "coincidences_per_step": coincidences,
        "touched_lines_at_most": lines,
        "floor_s": {},
        "step_over_floor": {},
    }
    for threads, bandwidth in memory["read_GB_per_s"].items():
        floor = 2 * 4 * weights / bandwidth / 1e9 + lines * memory["random_line_ns"][threads] / 1e9
        result["floor_s"][threads] = floor
        result["step_over_floor"][threads] = step / floor
    walls = (
        "start_wall_s",
        "executor_start_wall_s",
        "train_wall_s",
        "evaluate_wall_s",
        "wall_s",
        "process_wall_s",
        "load_before",
    )
    return result | {key: found[key] for key in (*walls, "train_loss", "weights_sha256")} | {"floors": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", type=int, nargs="?", default=3)
    parser.add_argument("--sizes", help=f"another network, from {FEATURES} to {CLASSES}")
    parser.add_argument("--out", type=Path, help="keep the run directory here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        result = beside_the_floor(measure(arguments.steps, arguments.sizes, out))
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.sizes is None:
        Path(__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
