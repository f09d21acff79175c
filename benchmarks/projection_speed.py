"""What one projection costs, and how far it is from a replay of every operation.

    python benchmarks/projection_speed.py

Decoders of a trillion weights on 4,096 accelerators and of ten trillion on 65,536.  Each is projected in two processes
of its own, of which the faster counts: wall seconds and processor seconds from the names of the two files to the row,
after all imports, with nothing kept but the machine code of the event loop; the same again; and by how much the largest
size of the process grew.  Then the first 48 blocks alone, on 48 stages: few enough that all operations of the
representatives can be replayed too, with several schedules and ways to agree.  Takes two minutes; writes
projection_speed.json and .md beside this file.
"""

import json
import os
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
    f"{FIRST}, GPipe, averages": ["parallel.schedule=gpipe", "parallel.data_sync=average"],
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


SMALLER = ["model.layers=48", "parallel.pipeline=48", "train.minibatch=288"]
BOTH_WAYS = {
    f"{schedule}, {data_sync}": [f"parallel.schedule={schedule}", f"parallel.data_sync={data_sync}"]
    for schedule in ("1f1b", "gpipe")
    for data_sync in ("factors", "average")
}


def measure(sets: list[str]) -> dict[str, Any]:
    """One case, in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        (row,) = project(JOB, CLUSTER, Projection(), sets)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return row | {
        "wall_s": times[0][0],
        "cpu_s": times[0][1],
        "again_wall_s": times[1][0],
        "peak_beyond_imports_B": grown * 1024,
    }


def both_ways(sets: list[str]) -> dict[str, Any]:
    """A smaller case from short steps and whole: steps, shares, and how far the first are from the second."""
    found = []
    for whole in (False, True):
        wall = time.perf_counter()
        (row,) = project(JOB, CLUSTER, Projection(whole=whole), [*SMALLER, *sets])
        found.append(row | {"wall_s": time.perf_counter() - wall})
    short, whole_row = found
    counted = [name for name in short if name.startswith("energy_") or name in ("operations", "link_bytes")]
    return {
        "short": short,
        "whole": whole_row,
        "step_apart": short["modelled_step_s"] / whole_row["modelled_step_s"] - 1,
        "communication_apart": short["communication_fraction"] - whole_row["communication_fraction"],
        "counts_apart": max(abs(short[name] - whole_row[name]) / max(abs(whole_row[name]), 1.0) for name in counted),
    }


def fastest(name: str, repeats: int = 2) -> dict[str, Any]:
    """One case, in fresh processes."""
    found = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--one", name]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return min(found, key=lambda row: row["wall_s"])


def main() -> None:
    if "--one" in sys.argv:
        print(json.dumps(measure(CASES[sys.argv[sys.argv.index("--one") + 1]])))
        return
    fastest(FIRST, 1)  # which compiles the event loop, once on a machine
    rows = {name: fastest(name) for name in CASES}
    checked = {name: both_ways(sets) for name, sets in BOTH_WAYS.items()}
    text = [
        "# One projection",
        "",
        f"`rpucluster project {JOB} --cluster {CLUSTER}`, Python {platform.python_version()}, {os.cpu_count()} cores.",
        "",
        "| case | operations | wall s | processor s | again, wall s | memory beyond imports | step |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['operations']:,} | {row['wall_s']:.2f} | {row['cpu_s']:.2f} | "
            f"{row['again_wall_s']:.2f} | {row['peak_beyond_imports_B'] / 1e6:,.0f} MB | "
            f"{row['modelled_step_s']:.4f} s |"
            for name, row in rows.items()
        ),
        "",
        f"The same with 48 blocks on 48 stages and 288 microbatches (`{' '.join(SMALLER)}`), from short steps and with",
        "all operations of the representatives replayed (`--whole`):",
        "",
        "| schedule, replicas | step | whole | apart | exposed communication apart | energies and counts apart | "
        "wall s | whole, wall s |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {each['short']['modelled_step_s']:.4f} s | {each['whole']['modelled_step_s']:.4f} s | "
            f"{100 * each['step_apart']:+.4f} % | {100 * each['communication_apart']:+.3f} % of the step | "
            f"{each['counts_apart']:.0e} | {each['short']['wall_s']:.2f} | {each['whole']['wall_s']:.2f} |"
            for name, each in checked.items()
        ),
        "",
        "What short steps say of themselves:",
        "",
        *(f"* {name}: {row['why_not_exact']}." for name, row in rows.items()),
    ]
    here = Path(__file__)
    result = {"cases": rows, "both_ways": checked}
    here.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    here.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
