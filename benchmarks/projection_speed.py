"""What one projection costs: a decoder of a trillion weights on 4,096 accelerators, of ten trillion on 65,536.

    python benchmarks/projection_speed.py [--whole]

Each case is projected in two processes of its own, of which the faster counts: wall seconds and processor seconds
from the names of the two files to the row, after all imports, with nothing compiled or kept; the same again; and by how
much the largest size of the process grew.  `--whole` replays all operations of the representatives of the first case
too, in minutes and gigabytes, and says how far the row is from that; without it the last such result is kept.  Writes
projection_speed.json and .md beside this file.
"""

import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rpucluster.projection.rows import Projection, project

FIRST = "GPT-1T on 4,096"
CASES: dict[str, list[str]] = {
    FIRST: [],
    **{f"{FIRST}, {768 * n:,} microbatches": [f"train.minibatch={768 * n}"] for n in (4, 16)},
    "GPT-10T on 52,480 of 65,536": [
        "model.preset=gpt-10t",
        "network.axis.node.size=64",
        "network.axis.rail.size=1024",
        "parallel.tensor=64",
        "parallel.pipeline=205",
        "train.minibatch=1024",
    ],
}
JOB, CLUSTER = "gpt_1t", "rpu_pod_4096"


def measure(sets: list[str], whole: bool) -> dict[str, Any]:
    """One case, in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(1 if whole else 2):
        wall, cpu = time.perf_counter(), time.process_time()
        (row,) = project(JOB, CLUSTER, Projection(whole=whole), sets)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return row | {
        "wall_s": times[0][0],
        "cpu_s": times[0][1],
        "again_wall_s": times[-1][0],
        "peak_beyond_imports_B": grown * 1024,
    }


def fastest(name: str, repeats: int = 2, *options: str) -> dict[str, Any]:
    """One case, in fresh processes."""
    found = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--one", name, *options]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return min(found, key=lambda row: row["wall_s"])


def main() -> None:
    if "--one" in sys.argv:
        name = sys.argv[sys.argv.index("--one") + 1]
        print(json.dumps(measure(CASES[name], "--whole" in sys.argv)))
        return
    here = Path(__file__)
    kept = json.loads(here.with_suffix(".json").read_text()) if here.with_suffix(".json").exists() else {}
    rows = {name: fastest(name) for name in CASES}
    whole = fastest(FIRST, 1, "--whole") if "--whole" in sys.argv else kept.get("whole")
    text = [
        "# One projection",
        "",
        f"`rpucluster project {JOB} --cluster {CLUSTER}`, one core, Python {platform.python_version()}.",
        "",
        "| case | operations | wall s | processor s | again, wall s | memory beyond imports | step |",
        "|---|---|---|---|---|---|---|",
    ]
    shown = rows | ({f"{FIRST}, all replayed": whole} if whole else {})
    text += [
        f"| {name} | {row['operations']:,} | {row['wall_s']:.2f} | {row['cpu_s']:.2f} | {row['again_wall_s']:.2f} | "
        f"{row['peak_beyond_imports_B'] / 1e6:,.0f} MB | {row['modelled_step_s']:.4f} s |"
        for name, row in shown.items()
    ]
    if whole:
        first = rows[FIRST]
        apart = first["modelled_step_s"] / whole["modelled_step_s"] - 1
        share = first["communication_fraction"] - whole["communication_fraction"]
        text += [
            "",
            f"The step is {100 * apart:+.4f} % from that of all operations replayed, exposed communication "
            f"{100 * share:+.2f} % of the step; energies and counts are equal. What the short steps say of themselves: "
            f"{first['why_not_exact']}.",
        ]
    here.with_suffix(".json").write_text(json.dumps({"cases": rows, "whole": whole}, indent=2) + "\n", encoding="utf-8")
    here.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
