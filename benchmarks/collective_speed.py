"""How long it takes to time an all-reduce of 1 GiB, beside ASTRA-sim's runs of the same collectives.

    python benchmarks/collective_speed.py FILE

FILE has a row per run of ASTRA-sim: backend, topology, accelerators, algorithms, chunks ("splits") and active chunks,
nanoseconds modelled, wall and user seconds of its process.  Ours is the median of 15 calls in this process, machine and
all, by the functions of ``rpucluster collective`` (tests/astra.py), and for the rows of 1024 and more the whole command
too, start of Python included, best of 3.  Its times were taken on another day and two busy cores.  Writes
collective_speed.json and .md beside this file.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rpucluster.config import write_toml
from tests.astra import ALGORITHMS, cluster_of, modelled_s

HERE = Path(__file__)
CALLS, COMMANDS = 15, 3
OURS_ALONE = [
    {
        "backend": "congestion_aware" if "x" not in sizes else "congestion_unaware",
        "topology": topology,
        "npus_per_dim": sizes,
        "collective": "all_reduce",
        "algo": algorithm,
        "comm_size_bytes": "1073741824",
        "splits": splits,
        "active": active,
    }
    for topology, algorithm, shapes in (
        ("Ring", "ring", ("512", "1024", "4096")),
        ("Switch", "halvingDoubling", ("512", "1024", "4096")),
        ("RingxSwitch", "ringxhalvingDoubling", ("8x8", "8x64", "32x32", "64x64")),
    )
    for sizes in shapes
    for splits, active in (("1", "1"), ("64", "8"))
    if splits == "64" or sizes == "4096"
]
"""Chunked and larger ones, which ASTRA-sim was not timed on."""


def main(file: Path) -> None:
    """Time every row and write the table."""
    with file.open(newline="", encoding="utf-8") as source:
        rows = [row_of(line) for line in [*csv.DictReader(source), *OURS_ALONE]]
    results = []
    for row in rows:
        begin = time.perf_counter()
        found_s = modelled_s(row)
        first_s = time.perf_counter() - begin
        ours = median(timed(lambda row=row: modelled_s(row)) for _ in range(CALLS))  # type: ignore[misc]
        results.append(
            {
                "backend": row["backend"],
                "topology": row["topology"],
                "sizes": row["size_per_dim"],
                "chunks": int(row["chunks"]),
                "active_chunks": int(row["active_chunks"]),
                "astra_wall_s": float(row["wall_s"]) if "wall_s" in row else None,
                "astra_user_s": float(row["user_s"]) if "user_s" in row else None,
                "wall_s": ours,
                "first_wall_s": first_s,
                "command_wall_s": command_s(row) if large(row["size_per_dim"]) else None,
                "times_faster_wall": float(row["wall_s"]) / ours if "wall_s" in row else None,
                "times_faster_user": float(row["user_s"]) / ours if "user_s" in row else None,
                "modelled_error": found_s * 1e9 / float(row["time_ns"]) - 1 if "time_ns" in row else None,
            }
        )
    HERE.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    HERE.with_suffix(".md").write_text(page(results), encoding="utf-8")
    print(page(results))


def row_of(line: dict[str, str]) -> dict[str, str]:
    """A row of the file of speeds with the columns of the file of times; links are of 50 GiB/s and 500 ns."""
    axes = line["topology"].count("x") + 1
    return {
        **line,
        "backend": line["backend"].removeprefix("congestion_"),
        "size_per_dim": line["npus_per_dim"],
        "bandwidth_GiBps_per_dim": "x".join(["50"] * axes),
        "latency_ns_per_dim": "x".join(["500"] * axes),
        "algorithm_per_dim": line["algo"],
        "size_bytes": line["comm_size_bytes"],
        "chunks": line["splits"],
        "active_chunks": line["active"],
    }


def large(sizes: str) -> bool:
    """Whether a machine has a thousand accelerators or more."""
    return prod(int(size) for size in sizes.split("x")) >= 1024


def timed(call: Any) -> float:
    """Wall seconds of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def command_s(row: dict[str, str]) -> float:
    """Wall seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "machine.toml"
        path.write_text(write_toml(cluster_of(row)), encoding="utf-8")
        algorithm = ",".join(ALGORITHMS[name] for name in row["algorithm_per_dim"].split("x"))
        command = [
            *(sys.executable, "-m", "rpucluster", "collective", row["collective"], "--cluster", str(path), "--json"),
            *("--bytes", row["size_bytes"], "--algorithm", algorithm),
            *("--chunks", row["chunks"], "--active-chunks", row["active_chunks"]),
        ]
        return min(
            timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=HERE.parents[1]))
            for _ in range(COMMANDS)
        )


def page(results: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [
        "# Speed of a collective",
        "",
        "Wall time of an all-reduce of 1 GiB: ASTRA-sim's process, where it was timed; our function (median of 15",
        "calls, with the making of the machine); our whole command (best of 3), most of which is the start of Python.",
        "",
        "| backend | topology | accelerators | chunks | ASTRA-sim (user) | ours | times faster (user) | command |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        command = f"{row['command_wall_s']:.2f} s" if row["command_wall_s"] else ""
        theirs = faster = ""
        if row["astra_wall_s"]:
            theirs = f"{row['astra_wall_s']:.2f} s ({row['astra_user_s']:.2f})"
            faster = f"{row['times_faster_wall']:,.0f} ({row['times_faster_user']:,.0f})"
        lines.append(
            f"| {row['backend']} | {row['topology'].replace('x', ' x ')} | {row['sizes'].replace('x', ' x ')} "
            f"| {row['chunks']}, {row['active_chunks']} active | {theirs} | {row['wall_s'] * 1e3:.2f} ms "
            f"| {faster} | {command} |"
        )
    worst = max(abs(row["modelled_error"]) for row in results if row["modelled_error"] is not None)
    return "\n".join([*lines, "", f"Modelled times differ from ASTRA-sim's by {100 * worst:.3f} % at most."]) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
