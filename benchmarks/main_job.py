"""The main job on Ray and in this process: wall time and its parts, accuracy over seeds, beside floating point.

    python benchmarks/main_job.py [SEEDS]

Writes main_job.json beside this file.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = {
    "rpu-baseline on ray": ["--executor", "ray"],
    "rpu-baseline in process": ["--executor", "local"],
    "floating-point in process": ["--executor", "local", "--set", "device.preset=floating-point"],
}
KEYS = (
    *("test_accuracy", "wall_s", "start_wall_s", "executor_start_wall_s", "train_wall_s", "evaluate_wall_s"),
    *("modelled_step_s", "modelled_s", "modelled_energy_J"),
)


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case, options in CASES.items():
            for seed in range(1, (1 if "ray" in case else seeds) + 1):
                out = Path(folder) / f"{case}-{seed}"
                command = [sys.executable, "-m", "rpucluster", "run", "digits", "--cluster", "laptop", *options]
                command += ["--seed", str(seed), "--out", str(out), "--json", "--quiet"]
                summary = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                row = {"seed": seed, **{key: summary[key] for key in KEYS}}
                results.setdefault(case, []).append(row)
                print(case, json.dumps(row), flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
