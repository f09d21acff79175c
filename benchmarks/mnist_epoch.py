"""One epoch of the paper's MNIST network on one accelerator and one core: seconds, and test error after it.

    python benchmarks/mnist_epoch.py DIRECTORY_WITH_IDX_FILES

Runs the command as a user would, pinned to one core, for the RPU-baseline device and for floating point, three
times each, and writes the medians to mnist_epoch.json beside this file.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

DEVICES = ("rpu-baseline", "floating-point")
REPEATS = 3


def one_run(device: str, data: str, out: Path) -> dict[str, float]:
    command = [
        *(sys.executable, "-m", "rpucluster", "run", "mnist_paper", "--cluster", "paper_chip"),
        *("--executor", "local", "--json", "--quiet", "--out", str(out)),
        *("--set", f"data.path={data}", "--set", "train.epochs=1", "--set", f"device.preset={device}"),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    summary: dict[str, float] = json.loads(done.stdout)
    return summary


def main() -> None:
    data = str(Path(sys.argv[1]).resolve())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for device in DEVICES:
            runs = [one_run(device, data, Path(folder) / f"{device}-{i}") for i in range(REPEATS)]
            results[device] = {
                "epoch_wall_s": statistics.median(run["train_wall_s"] for run in runs),
                "epoch_wall_s_all": [run["train_wall_s"] for run in runs],
                "samples_per_s": statistics.median(run["samples_per_s"] for run in runs),
                "test_error_after_epoch_1": 1 - runs[0]["test_accuracy"],
                "modelled_step_s": runs[0]["modelled_step_s"],
                "wall_s": statistics.median(run["wall_s"] for run in runs),
            }
            print(device, json.dumps(results[device]))
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
