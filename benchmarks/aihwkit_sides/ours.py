"""Our side of `against_aihwkit.py`: the same arrays from the same seeds, the same device, one process.

    PYTHON ours.py

Takes one JSON request a line and answers each with one line.
"""

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rpucluster.cluster import Cluster
from rpucluster.coordinator import Progress, run
from rpucluster.devices import device_from
from rpucluster.job import Job
from rpucluster.tile import Converters, Management, TileGrid, UpdateSettings

Floats = npt.NDArray[np.float32]

CONVERTERS: dict[str, Any] = {"input_bits": 7, "output_bits": 9, "output_bound": 20.0, "read_noise": 0.1}
MANAGEMENT: dict[str, Any] = {"noise_management": "abs_max", "bound_management": "iterative"}
UPDATES: dict[str, dict[str, Any]] = {
    "gv": {"bit_length": 31, "update_management": True, "dynamic_bit_length": True},
    "gv-nomgmt": {"bit_length": 10, "update_management": False, "dynamic_bit_length": False},
}
LAYERS = (784, 256, 128, 10)
MIN_TIME_S = 0.05


def preset() -> dict[str, Any]:
    """Our settings, in the form of `theirs.preset`."""
    device: Any = device_from("gokmen-vlasov")
    fields = "dw_min dw_min_dtod dw_min_std w_max w_max_dtod w_min w_min_dtod up_down up_down_dtod"
    read = {
        "input_steps": 2 ** CONVERTERS["input_bits"] - 2,
        "output_steps": 2 ** CONVERTERS["output_bits"] - 2,
        "output_bound": CONVERTERS["output_bound"],
        "read_noise": CONVERTERS["read_noise"],
        "noise_management": "AbsMax",
        "bound_management": "Iterative",
    }
    found: dict[str, Any] = {name: getattr(device, name) for name in fields.split()}
    return found | {"forward": read, "backward": read, "update": UPDATES["gv"]}


def make_inputs(rng: np.random.Generator, samples: int, lines: int, kind: str, scale: float) -> Floats:
    """As the opponent's script describes its inputs: gauss clipped to +-1, or like MNIST with 81 % zeros."""
    if kind == "mnist":
        x = rng.random((samples, lines), dtype=np.float32)
        x[rng.random((samples, lines)) < 0.81] = 0
        return x
    return np.clip(rng.standard_normal((samples, lines), dtype=np.float32) * np.float32(scale), -1, 1)


class Tile:
    """One tile with its inputs; kept while only what is done with it changes."""

    def __init__(self, request: dict[str, Any]) -> None:
        out, inputs, batch, seed = (request[key] for key in ("out", "in", "batch", "seed"))
        rng = np.random.default_rng(seed)
        self.start = rng.uniform(-0.3, 0.3, (out, inputs)).astype(np.float32)
        self.x = make_inputs(rng, batch, inputs, request["inputs"], 0.3)
        self.d = rng.standard_normal((batch, out), dtype=np.float32) * np.float32(0.01)
        began = time.perf_counter()
        self.grid = TileGrid(
            layer=0,
            replica=0,
            rows=out,
            cols=inputs,
            tile_rows=out,
            tile_cols=inputs,
            row_tiles=(0, 1),
            col_tiles=(0, 1),
            device=device_from("gokmen-vlasov"),
            forward=Converters(**CONVERTERS),
            backward=Converters(**CONVERTERS),
            forward_management=Management(**MANAGEMENT),
            backward_management=Management(**MANAGEMENT),
            update=UpdateSettings(noise_per=request["noise_per"], **UPDATES[request["preset"]]),
            seed=seed,
            tolerances=request["tolerances"],
            **({"threads": request["threads"]} if request["threads"] > 1 else {}),
        )
        self.grid.set_weights(self.start)
        self.construction_s = time.perf_counter() - began

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Seconds per call, as the opponent's script takes them: the same warm-up, repeats and calls in each."""
        self.grid.set_weights(self.start)
        batch, done, pulses = len(self.x), 0, 0

        def call() -> None:
            nonlocal done, pulses
            if request["op"] == "update":
                pulses += self.grid.update(self.x, self.d, request["lr"], first_sample=done).coincidences
            elif request["op"] == "forward":
                self.grid.forward(self.x, first_sample=done)
            else:
                self.grid.backward(self.d, first_sample=done)
            done += batch

        call()
        began = time.perf_counter()
        call()
        one = time.perf_counter() - began
        inner = request.get("inner") or max(1, math.ceil(MIN_TIME_S / one))
        times, cpu = [], []
        for _ in range(request["reps"]):
            used, began = time.process_time(), time.perf_counter()
            for _ in range(inner):
                call()
            times.append((time.perf_counter() - began) / inner)
            cpu.append((time.process_time() - used) / inner)
        return {
            "median_s": float(np.median(times)),
            "cpu_median_s": float(np.median(cpu)),
            "min_s": min(times),
            "inner": inner,
            "reps": request["reps"],
            "coincidences_per_item": pulses / done,
            "bytes_per_weight": self.grid.nbytes / self.start.size,
            "construction_s": self.construction_s,
        }


def train(request: dict[str, Any]) -> dict[str, Any]:
    """Samples per second of the MNIST network, by the path of every job; each epoch is one repeat.

    aihwkit averages the loss over a minibatch and we add its samples up, so the rate is divided by the minibatch.
    """
    batch, samples, reps = request["batch"], request["samples"], request["reps"]
    rng = np.random.default_rng(request["seed"])
    x = make_inputs(rng, samples, LAYERS[0], "mnist", 1.0)
    y = rng.integers(0, LAYERS[-1], samples)
    with tempfile.TemporaryDirectory() as folder:
        pairs = (("train", slice(None)), ("test", slice(0, 10)))
        for name, part in pairs:
            pq.write_table(pa.table({"image": list(x[part]), "label": y[part]}), f"{folder}/{name}.parquet")
        job = Job.model_validate(
            {
                "name": "against_aihwkit",
                "model": {"preset": "mlp", "sizes": LAYERS, "activation": "sigmoid", "bias": "digital"},
                "data": {
                    "name": "parquet",
                    "path": f"{folder}/train.parquet",
                    "test_path": f"{folder}/test.parquet",
                },
                # the first epoch warms up and the last one is followed by an evaluation
                "train": {
                    "epochs": reps + 2,
                    "minibatch": batch,
                    "learning_rate": request["lr"] / batch,
                    "seed": request["seed"],
                    "shuffle": False,
                },
                "device": {"preset": "gokmen-vlasov"},
                "update": {"noise_per": request["noise_per"], **UPDATES[request["preset"]]},
                "forward": MANAGEMENT,
                "backward": MANAGEMENT,
                "evaluate": {"every": reps + 2},
                "run": {"tolerances": request["tolerances"]},
            }
        )
        chip = {"preset": "rpu-paper", "forward": CONVERTERS, "backward": CONVERTERS}
        cluster = Cluster.model_validate({"name": "one", "accelerator": chip})
        used: list[float] = []
        done = run(job, cluster, executor="local", out=Path(folder) / "run", progress=lambda at: _note(at, used))
        ends = [row.wall_s for row in done.directory.read_epochs()]
    times, cpu = np.diff(ends)[:-1], np.diff(used)[:-1]  # the latter includes writing the row of an epoch
    return {"median_s": float(np.median(times)), "cpu_median_s": float(np.median(cpu)), "min_s": float(times.min())}


def _note(at: Progress, used: list[float]) -> None:
    """Keep the CPU time at the end of each epoch."""
    if at.phase == "epoch":
        used.append(time.process_time())


def main() -> None:
    kept: tuple[str, Tile] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if request == "preset":
            answer = preset()
        elif request == "floors":
            from floors import floors

            answer = floors()
        elif request["op"] == "train":
            answer = train(request)
        else:
            name = json.dumps({key: request[key] for key in sorted(request.keys() - {"op", "inner", "reps", "lr"})})
            if kept is None or kept[0] != name:
                kept = None
                kept = (name, Tile(request))
            answer = kept[1].measure(request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
