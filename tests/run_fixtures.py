"""A small run directory made by hand: a 4-accelerator step, a plan, three epochs and a summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rpucluster.checkpoint import Piece, begin, finish, write_pieces
from rpucluster.metrics import summarise
from rpucluster.program import Collective, Digital, Op, Program, Read, Send, Update
from rpucluster.runlog import EpochRow, RunDirectory
from rpucluster.timeline import Timeline, replay
from tests.specs import make_cluster

JOB, CLUSTER = "fixture", "square"
LAYERS = (("dense1", 64, 65, 0), ("dense2", 32, 65, 1))  # name, rows, cols, stage
TILE = 16


def program(microbatches: int = 2) -> Program:
    """GPipe over two stages of two tensor ranks: accelerators 0 and 1 hold layer 0, 2 and 3 hold layer 1."""
    ops: list[Op] = []

    def add(op: type, deps: tuple[int, ...], **values: Any) -> int:
        ops.append(op(id=len(ops), deps=deps, **values))
        return len(ops) - 1

    def read(direction: str, layer: int, rank: int, m: int, deps: tuple[int, ...]) -> int:
        rows, cols = LAYERS[layer][1] // 2, LAYERS[layer][2]
        return add(
            Read, deps, accelerator=2 * layer + rank, direction=direction, layer=layer, microbatch=m, vectors=4,
            tiles=rows // TILE * 5, cells=rows * cols, input_lines=5 * rows, output_lines=2 * cols, additions=rows,
        )  # fmt: skip

    def digital(kind: str, layer: int, rank: int, m: int, deps: tuple[int, ...]) -> int:
        return add(Digital, deps, accelerator=2 * layer + rank, kind=kind, layer=layer, microbatch=m, operations=128)

    def send(layer: int, rank: int, m: int, payload: str, deps: tuple[int, ...]) -> int:
        source, destination = (rank, 2 + rank) if payload == "activation" else (2 + rank, rank)
        return add(
            Send, deps, source=source, destination=destination, elements=128, word_bits=16, payload=payload,
            layer=layer, microbatch=m,
        )  # fmt: skip

    def collective(kind: str, stage: int, m: int, payload: str, deps: tuple[int, ...]) -> int:
        return add(
            Collective, deps, kind=kind, members=(2 * stage, 2 * stage + 1), elements=(128, 128), word_bits=32,
            payload=payload, layer=stage, microbatch=m,
        )  # fmt: skip

    arrived: dict[tuple[int, int], int] = {}
    for m in range(microbatches):
        for rank in (0, 1):
            out = digital("activation", 0, rank, m, (read("forward", 0, rank, m, ()),))
            arrived[m, rank] = send(0, rank, m, "activation", (out,))
    losses: dict[tuple[int, int], int] = {}
    for m in range(microbatches):
        reads = tuple(read("forward", 1, rank, m, (arrived[m, rank],)) for rank in (0, 1))
        gathered = collective("all_gather", 1, m, "activation", reads)
        for rank in (0, 1):
            losses[m, rank] = digital("loss", 1, rank, m, (gathered,))
    last: dict[int, int] = {}
    for m in range(microbatches):
        reads = tuple(read("backward", 1, rank, m, (losses[m, rank],)) for rank in (0, 1))
        summed = collective("all_reduce", 1, m, "sum", reads)
        for rank in (0, 1):
            last[2 + rank] = summed
            sent = send(0, rank, m, "error", (summed,))
            last[rank] = digital("derivative", 0, rank, m, (sent,))
    for accelerator in range(4):
        layer, rows = accelerator // 2, LAYERS[accelerator // 2][1] // 2
        add(
            Update, (last[accelerator],), accelerator=accelerator, layer=layer, samples=4 * microbatches,
            tiles=rows // TILE * 5, cells=rows * 65, lines=200, bit_length=10,
        )  # fmt: skip
    return Program(
        ops=tuple(ops), accelerators=(0, 1, 2, 3), samples=4 * microbatches, microbatches=microbatches,
        minibatch=4 * microbatches,
    )  # fmt: skip


def plan(name: str = "dense1") -> dict[str, Any]:
    """plan.json of the same step; `name` is the first layer's."""
    names = (name, "dense2")
    shards = [
        {
            "layer": layer, "name": names[layer], "replica": 0, "stage": stage, "tensor_rank": rank,
            "accelerator": 2 * stage + rank, "tile_rows": [rank * rows // 2 // TILE, (rank + 1) * rows // 2 // TILE],
            "arrays": 1, "tile_cols": [0, 5], "rows": [rank * rows // 2, (rank + 1) * rows // 2], "cols": [0, cols],
            "tiles": rows // 2 // TILE * 5, "weights": rows // 2 * cols,
        }
        for layer, (_, rows, cols, stage) in enumerate(LAYERS)
        for rank in (0, 1)
    ]  # fmt: skip
    by_accelerator = [
        {
            "accelerator": shard["accelerator"], "replica": 0, "stage": shard["stage"],
            "tensor_rank": shard["tensor_rank"], "tiles": shard["tiles"], "tiles_available": 40,
            "weights": shard["weights"], "fill": shard["weights"] / (shard["tiles"] * TILE * TILE),
        }
        for shard in shards
    ]  # fmt: skip
    return {
        "job": JOB, "cluster": CLUSTER, "tensor": 2, "pipeline": 2, "virtual_stages": 1, "data": 1, "schedule": "gpipe",
        "data_sync": None, "minibatch": 8, "microbatch": 4, "tile_rows": TILE, "tile_cols": TILE,
        "accelerators_available": 4, "accelerators": 4, "tiles": 30, "tiles_available": 160, "weights": 6240,
        "fill": 6240 / (30 * TILE * TILE), "modelled_step_s": 4.56e-6, "modelled_energy_per_step_J": 7.89e-9,
        "why_not_exact": None,
        "layers": [
            {
                "layer": layer, "name": names[layer], "arrays": 1, "rows": rows, "cols": cols,
                "weights": rows * cols,
                "split": "output", "stage": stage, "chunk": 0, "tile_grid": [rows // TILE, 5],
                "tiles": rows // TILE * 5, "ranks": 2,
            }
            for layer, (_, rows, cols, stage) in enumerate(LAYERS)
        ],
        "shards": shards,
        "by_accelerator": by_accelerator,
        "buffers": [
            {
                "accelerator": number, "in_flight_microbatches": 2, "activations_elements": 768, "errors_elements": 256,
                "factors_elements": 0, "sums_elements": 0, "gradients_elements": 0, "peak_bytes": 2048.0,
                "buffer_bytes": None if number else 4096.0,
            }
            for number in range(4)
        ],
        "axes": [
            {
                "axis": "board", "kind": "ring", "size": 4, "bytes_per_step": {"tensor": 128.0, "pipeline": 512.0},
                "busiest_link_bytes": 512.0, "busiest_link_utilisation": 0.125,
            },
            {
                "axis": "rack", "kind": "switch", "size": 1, "bytes_per_step": {}, "busiest_link_bytes": 0.0,
                "busiest_link_utilisation": 0.0,
            },
        ],
        "links": [{"link": "board:0->2", "axis": "board", "bytes_per_step": 512.0, "utilisation": 0.125}],
        "warnings": ["dense1: the bias column opens a new tile column of its own"],
    }  # fmt: skip


def epochs() -> list[EpochRow]:
    """Three epochs, of which the second was not evaluated."""
    return [
        EpochRow(
            epoch=n, step=100 * n, samples=800 * n, learning_rate=0.1, train_loss=2.0 / n, train_accuracy=1 - 0.3 / n,
            test_loss=None if n == 2 else 2.2 / n, test_accuracy=None if n == 2 else 1 - 0.32 / n,
            modelled_s=4.56e-4 * n, modelled_energy_J=7.89e-7 * n, wall_s=1.5 * n, coincidences=1000.0 * n,
            pulse_slots=5000.0 * n,
        )
        for n in (1, 2, 3)
    ]  # fmt: skip


def summary() -> dict[str, Any]:
    """summary.json of the same run."""
    return {
        "job": JOB, "cluster": CLUSTER, "executor": "local", "seed": 7, "arrays": "numpy",
        "test_accuracy": 0.8933, "test_loss": 0.7333, "train_loss": 0.6667, "train_accuracy": 0.9,
        "weights": 6240, "weights_sha256": "ab" * 32, "accelerators": 4, "accelerators_available": 4, "tiles": 30,
        "steps": 300, "samples": 2400, "epochs": 3, "modelled_step_s": 4.56e-6, "modelled_s": 1.368e-3,
        "modelled_energy_J": 2.367e-6, "modelled_energy_per_step_J": 7.89e-9, "wall_s": 6.25, "start_wall_s": 1.25,
        "train_wall_s": 4.5, "evaluate_wall_s": 0.5, "samples_per_s": 533.3, "compute_fraction": 0.5,
        "exposed_communication_fraction": 0.3, "idle_fraction": 0.2, "bubble": 0.2,
        "counts": {
            "passes": 48000, "repeats": 0, "update_cycles": 36000, "pulse_slots": 15000, "coincidences": 3000,
            "expected_coincidences": 3010.5, "averages": 0,
        },
        "versions": {"rpucluster": "0.1.0", "python": "3.11.7", "numpy": "2.4.6"},
    }  # fmt: skip


def timeline(microbatches: int = 2) -> Timeline:
    """The program above, timed on four fully connected accelerators."""
    return replay(program(microbatches), make_cluster(tile=TILE))


def write_checkpoint(root: Path, weights: Mapping[tuple[int, int], Any], told: Mapping[str, Any], step: int) -> Path:
    """A checkpoint with a file of each replica, whose layers are cut into bands of two rows."""
    new = begin(root, step)
    files = []
    for chosen in sorted({replica for replica, _ in weights}):
        pieces = [
            Piece(replica, layer, "weights", row, 0, whole[row : row + 2])
            for (replica, layer), whole in sorted(weights.items())
            for row in range(0, len(whole), 2)
            if replica == chosen
        ]
        files.append(write_pieces(new / f"accelerator-{chosen:05d}.parquet", pieces))
    return finish(new, files, told)


def make_run(
    path: Path, *, layer: str = "dense1", job_toml: str = "[model]\nsizes = [64, 64, 32]\n", **summary_changes: Any
) -> RunDirectory:
    """Write a finished run into `path`; the arguments put hostile or missing values into it."""
    run = RunDirectory.create(path, "unused")
    timed = timeline()
    run.write_specs(job_toml, "[accelerator]\ntiles = 40\n")
    run.write_plan(plan(layer))
    run.write_timeline(timed, summarise(timed))
    run.write_trace(timed)
    run.write_epochs(epochs())
    weights = {(0, 0): np.arange(12, dtype=np.float32).reshape(3, 4), (0, 1): np.ones((2, 4), np.float32)}
    write_checkpoint(run.checkpoints, weights, {"position": {"steps": 300}}, 300)
    run.write_summary(summary() | summary_changes)
    return run
