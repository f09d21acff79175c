"""Schedules of a pipeline side by side: modelled time, bubble and memory of each, and what it trains to.

    python benchmarks/pipeline_schedules.py [SEEDS] [EPOCHS]

Eight layers of digits on RPU-baseline devices over 2, 4 and 8 stages.  GPipe, 1F1B and interleaved 1F1B train alike bit
for bit, which is checked on a part of an epoch, so each minibatch is trained once for them.  Writes
pipeline_schedules.json and .md beside this file, as it goes.
"""

import json
import math
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rpucluster import load_cluster, load_job, run
from rpucluster.modelled import model

SHORT = "network.axis.board.latency=10 ns"
MACHINES = {
    "ring8: 500 ns a hop": [],
    "10 ns a hop, as between dies of a package": [SHORT],
    "10 ns a hop and one tile at work at a time on an accelerator, so layer by layer": [
        SHORT,
        "accelerator.active_tiles=1",
    ],
}
SETTINGS = [
    "model.sizes=[64,48,48,48,48,48,48,48,10]",
    "train.initial_scale=1.7",
    "train.microbatch=2",
    "parallel.tensor=1",
]
RATES = ((0, 0.02), (5, 0.01), (8, 0.005))
SAMPLES = 7185
"""Of an epoch of digits with nudged copies."""
SYNCHRONOUS: dict[str, dict[int, int]] = {
    "gpipe": {2: 1, 4: 1, 8: 1},
    "1f1b": {2: 1, 4: 1, 8: 1},
    "interleaved": {2: 4, 4: 2},
}
"""Virtual stages by stages, of which eight layers allow these."""


def settings(schedule: str, stages: int, minibatch: int, chunks: int = 1, slower: int = 1) -> list[str]:
    """Overrides of the job "digits"."""
    rates = [[epoch, rate / slower] for epoch, rate in RATES]
    return [
        *SETTINGS,
        f"train.minibatch={minibatch}",
        f"train.learning_rate={rates}",
        f"parallel.pipeline={stages}",
        f"parallel.schedule={schedule}",
        f"parallel.virtual_stages={chunks}",
    ]


def modelled(schedule: str, stages: int, minibatch: int, chunks: int = 1) -> list[dict[str, Any]]:
    """What a step costs on every machine."""
    job, rows = load_job("digits", settings(schedule, stages, minibatch, chunks)), []
    for machine, overrides in MACHINES.items():
        found = model(job, load_cluster("ring8", overrides))
        rows.append(
            {
                "machine": machine,
                "schedule": schedule,
                "stages": stages,
                "virtual_stages": chunks,
                "minibatch": minibatch,
                "modelled_step_s": found.metrics.modelled_step_s,
                "modelled_epoch_s": found.metrics.modelled_step_s * (SAMPLES // minibatch),
                "bubble": found.metrics.bubble,
                "exposed_communication_fraction": found.metrics.exposed_communication_fraction,
                "in_flight_microbatches": max(use.in_flight for use in found.buffers),
                "peak_bytes": max(use.peak_bytes for use in found.buffers),
            }
        )
    return rows


def trained(overrides: list[str], seed: int, epochs: int, *more: str) -> dict[str, Any]:
    """The summary of a run in this process."""
    job = load_job("digits", [*overrides, f"train.seed={seed}", f"train.epochs={epochs}", "evaluate.every=99", *more])
    with tempfile.TemporaryDirectory() as folder:
        return run(job, load_cluster("ring8"), executor="local", out=Path(folder) / "run").summary


def check_alike() -> None:
    """The synchronous schedules leave the same weights."""
    digests = {
        trained(settings(schedule, stages, 16, chunks), 1, 1, "data.train_samples=60")["weights_sha256"]
        for schedule, degrees in SYNCHRONOUS.items()
        for stages, chunks in degrees.items()
    }
    if len(digests) != 1:
        raise SystemExit(f"synchronous schedules trained {len(digests)} ways")


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    check_alike()
    schedules = SYNCHRONOUS | {"async": {2: 1, 4: 1, 8: 1}}
    timed = [row for b in (16, 128) for s, d in schedules.items() for p, v in d.items() for row in modelled(s, p, b, v)]
    cases = {
        "synchronous, minibatch 16": settings("gpipe", 1, 16),
        "synchronous, minibatch 128": settings("gpipe", 1, 128),
        "synchronous, minibatch 128, rates / 8": settings("gpipe", 1, 128, slower=8),
    }
    cases |= {f"async, {p} stages, minibatch {b}": settings("async", p, b) for b in (16, 128) for p in (2, 4, 8)}
    accuracy: dict[str, list[float]] = {name: [] for name in cases}
    for seed in range(1, seeds + 1):
        for name, overrides in cases.items():
            accuracy[name].append(trained(overrides, seed, epochs)["test_accuracy"])
            print(name, accuracy[name], flush=True)
            write(
                {"seeds": seeds, "epochs": epochs, "settings": SETTINGS, "modelled": timed, "test_accuracy": accuracy}
            )


def write(results: dict[str, Any]) -> None:
    """Both files."""
    here = Path(__file__)
    here.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    accuracy = {name: found for name, found in results["test_accuracy"].items() if found}
    lines = [
        "# Schedules of a pipeline",
        "",
        "Eight layers of digits, RPU-baseline devices, microbatches of 2. Modelled time of an epoch of 7185 samples on",
        *(f"{letter}) {machine}{end}" for letter, machine, end in zip("ABC", MACHINES, ",,.", strict=True)),
        "Bubble (idle share of the step), microbatches in flight and most bytes held on an accelerator are those of C.",
        f"Test accuracy after {results['epochs']} epochs, the mean over seeds; synchronous schedules train alike.",
        "",
        "| schedule | stages | minibatch | epoch A | epoch B | epoch C | bubble C | in flight | held | test accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = results["modelled"]
    for n in range(0, len(rows), len(MACHINES)):
        row, group = rows[n + len(MACHINES) - 1], rows[n : n + len(MACHINES)]
        name = row["schedule"] + (f", v = {row['virtual_stages']}" if row["virtual_stages"] > 1 else "")
        found = accuracy.get(case_of(row), [])
        cells = [name, row["stages"], row["minibatch"], *(f"{each['modelled_epoch_s'] * 1e3:.2f} ms" for each in group)]
        cells += [f"{row['bubble']:.1%}", row["in_flight_microbatches"], f"{row['peak_bytes'] / 1e3:.1f} kB"]
        cells.append(f"{fmean(found):.1%}" if found else "–")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| trained | test accuracy | standard error | seeds |", "|---|---|---|---|"]
    for name, found in accuracy.items():
        error = f"{stdev(found) / math.sqrt(len(found)):.2%}" if len(found) > 1 else "–"
        lines.append(f"| {name} | {fmean(found):.1%} | {error} | {', '.join(f'{value:.1%}' for value in found)} |")
    here.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def case_of(row: dict[str, Any]) -> str:
    """What was trained for a schedule; synchronous ones at a minibatch of 128 need rates of an eighth."""
    if row["schedule"] == "async":
        return f"async, {row['stages']} stages, minibatch {row['minibatch']}"
    return f"synchronous, minibatch {row['minibatch']}" + (", rates / 8" if row["minibatch"] == 128 else "")


if __name__ == "__main__":
    main()
