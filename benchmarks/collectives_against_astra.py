"""Our collective times against those that ASTRA-sim printed, row by row.

    python benchmarks/collectives_against_astra.py FILE

FILE has a row per run: backend (congestion aware or unaware), topology, sizes, GiB/s and latency per axis, collective,
algorithms, bytes (of an all-gather the shard), chunks, active chunks and nanoseconds.  Each row's machine is written as
a cluster and timed by the functions of ``rpucluster collective`` (tests/astra.py).  Writes
collectives_against_astra.json and .md beside this file.
"""

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.astra import modelled_s, rows

HERE = Path(__file__)


def main(file: Path) -> None:
    """Compare all rows and write the tables."""
    begin = time.perf_counter()
    errors: dict[tuple[str, ...], list[float]] = {}
    worst: tuple[float, dict[str, str]] = (0.0, {})
    found = rows(file)
    for row in found:
        error = modelled_s(row) * 1e9 / float(row["time_ns"]) - 1
        topology = row["topology"].replace("x", " x ")
        chunks = f"{row['chunks']}, {row['active_chunks']} active"
        errors.setdefault((row["backend"], topology, row["collective"], chunks), []).append(abs(error))
        if abs(error) >= worst[0]:
            worst = (abs(error), row)
    wall_s = time.perf_counter() - begin
    plain = [abs(modelled_s(row, plain=True) * 1e9 / float(row["time_ns"]) - 1) for row in found]
    every = [error for group in errors.values() for error in group]
    result: dict[str, Any] = {
        "rows": len(every),
        "median_error": median(every),
        "worst_error": max(every),
        "rows_within_1e-6": sum(error < 1e-6 for error in every),
        "worst_row": worst[1],
        "plain_median_error": median(plain),
        "plain_worst_error": max(plain),
        "plain_rows_above_2_percent": sum(error > 0.02 for error in plain),
        "wall_s": wall_s,
        "groups": [
            {
                "backend": backend,
                "topology": topology,
                "collective": collective,
                "chunks": chunks,
                "rows": len(group),
                "median_error": median(group),
                "worst_error": max(group),
            }
            for (backend, topology, collective, chunks), group in sorted(errors.items())
        ],
    }
    HERE.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    HERE.with_suffix(".md").write_text(page(result), encoding="utf-8")
    print(f"{len(every)} rows: median {result['median_error']:.2g}, worst {result['worst_error']:.2g}; {wall_s:.1f} s")


def page(result: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [
        "# Collectives against ASTRA-sim",
        "",
        f"Relative error of our modelled time in {result['rows']:,} runs of ASTRA-sim's analytical backends: median",
        f"{percent(result['median_error'])}, worst {percent(result['worst_error'])}; "
        f"{result['rows_within_1e-6']:,} rows agree to 1e-6.",
        "",
        '`aware` rows are `forwarding = "store_and_forward"`, `contention = "fifo"`; `unaware` rows are',
        '`"cut_through"` and `"none"`. Both have `endpoint_delay = "1 ns"` and `tick = "1 ns"`. What is left is',
        "ASTRA-sim's time in local memory after each reduced message, which we do not model. Without these two keys",
        f"the median is {percent(result['plain_median_error'])}, and {result['plain_rows_above_2_percent']} rows "
        f"differ by more than 2 % (the worst by {percent(result['plain_worst_error'])}):",
        "an exchange through a switch whose messages take less than its 1 ns each.",
        "",
        "| backend | topology | collective | chunks | rows | median | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in result["groups"]:
        cells = (group["backend"], group["topology"], f"`{group['collective']}`", group["chunks"], str(group["rows"]))
        lines.append(f"| {' | '.join(cells)} | {percent(group['median_error'])} | {percent(group['worst_error'])} |")
    return "\n".join(lines) + "\n"


def percent(share: float) -> str:
    """A share with three digits after the point, or 0."""
    return "0" if share < 5e-9 else f"{100 * share:.4f} %"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
