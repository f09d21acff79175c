"""A billion weights over four accelerators on Ray: peak memory of all processes, wall time, and a loss that falls.

    python benchmarks/billion_weights_ray.py MNIST_DIRECTORY [--samples 16] [--epochs 5] [--sizes 784,16384,...,10]

Runs jobs/mlp_1b.toml as a user would: tensor 2 x pipeline 2, a Ray actor for each accelerator, on the devices of
RPU-baseline with every spread on and tolerances recomputed, on the first images of MNIST.  Memory is the proportional
set size, in which a page that several processes share is counted once, of the command and all its descendants, twice a
second.  `starting_loss` is the logarithm of the number of classes, the loss of who knows nothing.  Writes
billion_weights_ray.json beside this file where the network is the whole one.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

SETTINGS = {
    "parallel.tensor": 2,
    "parallel.pipeline": 2,
    "train.minibatch": 4,
    "train.microbatch": 2,
    "train.initial_scale": 2.45,  # the square root of 6: ReLU then keeps the size of activations (He et al. 2015)
    "train.learning_rate": 0.0002,
    "update.update_management": "true",
    "data.test_samples": 4,
    "run.tolerances": "recomputed",
}
_EVERY_S = 0.5


def descendants(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                told = (entry / "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            children.setdefault(int(told.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def proportional_bytes(process: int) -> int:
    """Proportional set size of a process; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


class Watch(threading.Thread):
    """Looks at the memory of a process and its descendants until that process has ended."""

    def __init__(self, root: int) -> None:
        super().__init__()
        self._root, self._ended = root, threading.Event()
        self.peak, self.processes, self.looks = 0, 0, 0

    def run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            sizes = [proportional_bytes(process) for process in descendants(self._root)]
            self.looks += 1
            if sum(sizes) > self.peak:
                self.peak, self.processes = sum(sizes), sum(size > 0 for size in sizes)

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self.join()


def measure(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """The run's summary, its losses, and what it took."""
    settings = SETTINGS | {
        "data.path": arguments.mnist.resolve(),
        "data.train_samples": arguments.samples,
        "train.epochs": arguments.epochs,
    }
    settings |= {"model.sizes": f"[{arguments.sizes}]"} if arguments.sizes else {}
    command = [sys.executable, "-m", "rpucluster", "run", "mlp_1b", "--cluster", "ring8", "--executor", "ray"]
    command += [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    load, began = os.getloadavg()[0], time.perf_counter()
    child = subprocess.Popen([*command, "--json", "--quiet", "--out", str(out)], stdout=subprocess.PIPE)
    watch = Watch(child.pid)
    watch.start()
    printed, _ = child.communicate()
    watch.end()
    if child.returncode:
        raise SystemExit(f"the run ended with {child.returncode}")
    found = json.loads(printed)
    plan = json.loads((out / "plan.json").read_text())
    losses = [row["train_loss"] for row in pq.read_table(out / "metrics.parquet").to_pylist()]
    return {
        **{key: found[key] for key in ("weights", "accelerators", "tiles", "steps", "samples", "executor")},
        **{key: plan[key] for key in ("tensor", "pipeline")},
        "weights_by_accelerator": [place["weights"] for place in plan["by_accelerator"]],
        "weights_GB": 4 * found["weights"] / 1e9,
        "peak_GB": watch.peak / 1e9,
        "peak_processes": watch.processes,
        "looks": watch.looks,
        "starting_loss": math.log(10),
        "train_loss_by_epoch": losses,
        "process_wall_s": time.perf_counter() - began,
        **{key: found[key] for key in found if key.endswith("wall_s")},
        "step_wall_s": found["train_wall_s"] / found["steps"],
        "modelled_step_s": found["modelled_step_s"],
        "load_before": load,
        "cores": os.cpu_count(),
        "weights_sha256": found["weights_sha256"],
        "settings": {key: value for key, value in settings.items() if key != "data.path"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path, help="the directory of MNIST's four IDX files")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--sizes", help="another network, from 784 to 10")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder) / "run")
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.sizes is None:
        Path(__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
