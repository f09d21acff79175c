"""How often a better machine makes a step slower, where transfers and digital units serve who comes first.

    python benchmarks/replay_anomalies.py [CASES]

Where the program fixes every order, a faster part can only make things faster (a test holds that).  Where who comes
first is served first, it may let something less urgent go first (R. L. Graham, Bounds on multiprocessing timing
anomalies, 1969).  Replays random programs of 60 operations with and without one improvement.  Writes
replay_anomalies.md beside this file.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rpucluster.cluster import Accelerator, Cluster
from rpucluster.timeline import arrange, replay
from rpucluster.topology import Axis, Network
from tests.ops import random_program

BETTER = {
    "bandwidth x2": ({"bandwidth": "2 GB/s"}, {}),
    "latency /2": ({"latency": "0.5 us"}, {}),
    "forward pass /2": ({}, {"forward_time": "40 ns"}),
    "digital rate x2": ({}, {"digital_rate": "2 Gop/s"}),
    "active tiles x2": ({}, {"active_tiles": 12}),
}
MACHINES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "contention fifo": ({"contention": "fifo"}, {"active_tiles": 64}),
    "contention fair": ({"contention": "fair"}, {"active_tiles": 64}),
    "fifo, 6 tiles active": ({"contention": "fifo"}, {"active_tiles": 6}),
}


def cluster(axis: dict[str, Any], chip: dict[str, Any]) -> Cluster:
    keys = {"name": "board", "kind": "ring", "size": 4, "bandwidth": "1 GB/s", "latency": "1 us"} | axis
    small = {"tile_rows": 16, "tile_cols": 16, "tiles": 64, "digital_rate": "1 Gop/s"} | chip
    return Cluster(name="small", accelerator=Accelerator(**small), network=Network(axis=(Axis(**keys),)))


def main() -> None:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    lines = [
        f"# Anomalies in {cases:,} random programs",
        "",
        "Share of programs whose step gets longer by one improvement, and the worst of them.",
        "",
        "| machine | " + " | ".join(BETTER) + " |",
        "|---|" + "---|" * len(BETTER),
    ]
    for name, (axis, chip) in MACHINES.items():
        cells = []
        for better_axis, better_chip in BETTER.values():
            before, after = cluster(axis, chip), cluster(axis | better_axis, chip | better_chip)
            growth = []
            for seed in range(cases):
                score = arrange(random_program(seed, 60))
                growth.append(replay(score, after).makespan_s / replay(score, before).makespan_s - 1)
            slower = [change for change in growth if change > 1e-9]
            cells.append(f"{len(slower) / cases:.1%}, +{max(slower):.0%}" if slower else "none")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
