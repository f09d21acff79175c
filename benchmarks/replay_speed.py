"""How fast programs are replayed, and how that grows with accelerators, layers and microbatches.

    python benchmarks/replay_speed.py

Each program is lowered, arranged and replayed on one core; of the last two the best of five counts.  Writes
replay_speed.json and .md beside this file.
"""

import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rpucluster.cluster import load_cluster
from rpucluster.job import load_job
from rpucluster.lowering import lower
from rpucluster.partitioner import partition
from rpucluster.timeline import arrange, replay


def deep(layers: int) -> str:
    """The sizes of a network of so many layers."""
    return json.dumps([64, *[64] * (layers - 1), 10])


CASES: dict[str, list[dict[str, Any]]] = {
    "accelerators": [{"parallel.data": n, "train.minibatch": 64} for n in (1, 4, 16, 64, 256)],
    "layers": [{"model.sizes": deep(n), "train.minibatch": 64} for n in (4, 16, 64)],
    "microbatches": [{"train.minibatch": n} for n in (64, 512, 4096)],
}


def best_of(times: int, act: Callable[[], Any]) -> float:
    """Wall seconds of the fastest."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return min(found)


def measure(changes: dict[str, Any]) -> dict[str, Any]:
    """One program."""
    sets = [f"{key}={value}" for key, value in ({"train.microbatch": 1} | changes).items()]
    job = load_job("digits", sets)
    accelerators = job.parallel.tensor * job.parallel.pipeline * job.parallel.data
    cluster = load_cluster("laptop", [f"network.axis.board.size={accelerators}", "accelerator.tiles=1000"])
    plan = partition(job, cluster)
    began = time.perf_counter()
    program = lower(plan, job)
    lowering = time.perf_counter() - began
    arranged = arrange(program)
    replay(arranged, cluster, compiled=True)
    arranging = best_of(5, lambda: arrange(program))
    replaying = best_of(5, lambda: replay(arranged, cluster, compiled=True))
    return {
        "accelerators": accelerators,
        "layers": len(job.network.layers),
        "microbatches": program.microbatches,
        "operations": len(program),
        "lower_wall_s": lowering,
        "arrange_wall_s": arranging,
        "replay_wall_s": replaying,
        "replayed_per_s": len(program) / replaying,
        "arranged_and_replayed_per_s": len(program) / (arranging + replaying),
    }


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """As Markdown."""
    lines = [
        "| grown | accelerators | layers | microbatches | operations | lower s | arrange s | replay s | Mop/s replayed "
        "| with arranging |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['grown']} | {row['accelerators']} | {row['layers']} | {row['microbatches']} | "
        f"{row['operations']:,} | {row['lower_wall_s']:.2f} | {row['arrange_wall_s']:.3f} | "
        f"{row['replay_wall_s']:.4f} | {row['replayed_per_s'] / 1e6:.2f} | "
        f"{row['arranged_and_replayed_per_s'] / 1e6:.2f} |"
        for row in rows
    ]
    return lines


def main() -> None:
    rows = [{"grown": grown, **measure(changes)} for grown, cases in CASES.items() for changes in cases]
    text = ["# Replay", "", f"One core, Python {platform.python_version()}.", "", *table(rows), ""]
    here = Path(__file__)
    here.with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    here.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
