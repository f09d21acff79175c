"""On a GPU: update and forward of a 4096 x 4096 tile over the floor of the memory, parity, largest network, MNIST.

    python benchmarks/gpu.py [--mnist DIRECTORY_WITH_IDX_FILES] [--parts tile,parity,...] [--seconds 220] [--out FILE]

Needs CuPy and a GPU, and says so in one line where there is none.  Every part writes what it has found, as it finds it,
into gpu.json beside this file; a part that fails is noted there and stops no other.  Parts that would start after
`--seconds` are left out, and MNIST takes as many seeds as there is time for.  The two parts that also need the CPU's
kernels come last, since Numba may have to compile them for a minute or two.

The floor is what has to be moved at least, at the bandwidth that a copy reaches on the same GPU: for a forward pass
the weights once; for an update, of each 32-byte sector of the weights that holds a cell that is hit, a read and a
write, and a read of the tolerances of its cells where they are stored.
"""

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rpucluster.arrays import array_module, to_host
from rpucluster.devices import device_from
from rpucluster.tile import Converters, Management, TileGrid, UpdateSettings

SIZE, SECTOR, RATE = 4096, 32, 0.01
REPEATS = 9
SEEDS = 5

Note = Callable[[str, Any], None]
"""Keeps a finding of a part, and writes all of them."""


def grid_of(
    xp: ModuleType, rows: int, cols: int, *, tolerances: Any = "stored", read: Any = None, noise_per: Any = "sample"
) -> TileGrid:
    """Tiles of the RPU-baseline device with the converters of the paper and abs-max noise management."""
    tall, wide = min(rows, SIZE), min(cols, SIZE)
    management = Management(noise_management="abs_max")
    return TileGrid(
        layer=0, replica=0, rows=rows, cols=cols, tile_rows=tall, tile_cols=wide,
        row_tiles=(0, -(-rows // tall)), col_tiles=(0, -(-cols // wide)), device=device_from("rpu-baseline"),
        forward=read or Converters(), backward=read or Converters(), forward_management=management,
        backward_management=management, update=UpdateSettings(noise_per=noise_per), seed=1, xp=xp,
        tolerances=tolerances,
    )  # fmt: skip


def signals(xp: ModuleType, batch: int, rows: int, cols: int, seed: int = 1) -> tuple[Any, Any]:
    """x of about 0.3 clipped to +-1 and d of about 0.01."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.standard_normal((batch, cols), np.float32) * np.float32(0.3), -1, 1)
    return xp.asarray(x), xp.asarray(rng.standard_normal((batch, rows), np.float32) * np.float32(0.01))


def seconds(xp: ModuleType, work: Callable[[], Any]) -> float:
    """The median time of a call on the GPU, by events, so without what the host takes to start it if that is less."""
    times = []
    for _ in range(REPEATS + 2):
        if xp is np:  # where the benchmark itself is tried
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
            continue
        start, stop = xp.cuda.Event(), xp.cuda.Event()
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(xp.cuda.get_elapsed_time(start, stop) / 1e3)
    return statistics.median(times[2:])  # the first compile, or capture


def wait(xp: ModuleType) -> None:
    """Until the GPU has done what it was given."""
    if xp is not np:
        xp.cuda.Device().synchronize()


def copy_bandwidth(xp: ModuleType) -> float:
    """Bytes read and written per second by a copy of 512 MB."""
    source = xp.ones(1 << 27, "f4")
    target = xp.empty_like(source)
    return float(2 * source.nbytes / seconds(xp, lambda: target.__setitem__(slice(None), source)))


def launches(xp: ModuleType, grid: TileGrid, x: Any, d: Any) -> dict[str, Callable[[], Any]]:
    """Forward and update of a grid, each captured in a graph: what the GPU does, without the host."""
    from rpucluster.kernels import cuda, cuda_launch, cuda_read, cuda_update, pack_read, pack_update

    functions, place = cuda.functions_of(xp), cuda_launch.alone(xp, len(x), RATE)
    parts, tiling, sums = grid.parts(), grid._tiling, xp.empty((len(x), grid.shape[0]), "i8")
    packed = pack_update(parts.update_rule)
    found = {
        "forward": cuda_read.read(
            xp.empty, place, grid._weights, tiling, parts.read_keys[0], grid._averages[0], x, sums,
            cuda_read.numbers_of(xp, pack_read(parts.forward_rule)), exact=False, backward=False, learn=True,
        ),
        "update": cuda_update.pulsed_update(
            xp.empty, place, grid._weights, grid._lanes, tiling, parts.update_keys, x, d, *packed,
            xp.asarray(packed[1]),
        ),
    }  # fmt: skip
    graphs = {}
    for name, kernels in found.items():

        def run(kernels: Any = kernels) -> None:
            cuda_launch.perform(functions, kernels)

        run()
        wait(xp)
        graphs[name] = cuda.graphs(xp)(run)
    return graphs


def tile(xp: ModuleType, note: Note) -> None:
    """Update and forward of one tile, beside their floors; minibatch 32, which has an aim, first."""
    bandwidth = copy_bandwidth(xp)
    note("copy_GB_per_s", bandwidth / 1e9)
    rows: list[dict[str, Any]] = []
    for batch in (32, 1, 256):
        x, d = signals(xp, batch, SIZE, SIZE)
        for tolerances in ("stored", "recomputed"):
            for noise_per in ("sample", "batch"):
                grid = grid_of(xp, SIZE, SIZE, tolerances=tolerances, noise_per=noise_per)
                lanes = grid.nbytes / SIZE**2 - 4  # bytes of tolerances per cell
                grid.initialise(0.3)
                hits, sectors = grid.update(x, d, RATE, first_sample=0).coincidences, SIZE**2 * 4 / SECTOR
                touched = sectors * -np.expm1(-hits / sectors)  # as if hits fell anywhere
                per_sector = 2 * SECTOR + max(lanes * 8, 0 if not lanes else SECTOR)
                floors = {"update": touched * per_sector / bandwidth, "forward": SIZE**2 * 4 / bandwidth}
                graphs = launches(xp, grid, x, d)
                called = {
                    "update": lambda: grid.update(x, d, RATE, first_sample=batch),  # noqa: B023
                    "forward": lambda: grid.forward(x, first_sample=0),  # noqa: B023
                }
                for op, floor in floors.items():
                    if op == "forward" and (tolerances, noise_per) != ("stored", "sample"):
                        continue  # the same kernels
                    taken = seconds(xp, graphs[op])
                    rows.append(
                        {
                            "op": op, "size": SIZE, "minibatch": batch, "tolerances": tolerances,
                            "noise_per": noise_per, "us": taken * 1e6, "floor_us": floor * 1e6,
                            "over_floor": taken / floor, "us_called_alone": seconds(xp, called[op]) * 1e6,
                            "hits_per_cell": hits / SIZE**2,
                        }
                    )  # fmt: skip
                    note("rows", rows)


def parity(xp: ModuleType, note: Note) -> None:
    """The same tiles on both: the weights after an update bit for bit, outputs before and after the ADC."""
    shape, code = (300, 700), Converters().output_bound / 255
    exact = Converters(input_bits=5, output_bits=0, output_bound=float("inf"), read_noise=0.06)
    for tolerances in ("stored", "recomputed"):
        for noise_per in ("sample", "batch"):
            for batch in (1, 8, 40):
                grids = [grid_of(m, *shape, tolerances=tolerances, noise_per=noise_per) for m in (np, xp)]
                for grid, module in zip(grids, (np, xp), strict=True):
                    grid.initialise(0.5)
                    grid.update(*signals(module, batch, *shape), 0.05, first_sample=0)
                same = bool((grids[0].weights().view(np.uint32) == grids[1].weights().view(np.uint32)).all())
                note(f"weights_bit_identical_{tolerances}_{noise_per}_{batch}", same)
    for name, read in (("before_adc", exact), ("codes", Converters())):
        for batch in (1, 8, 40):
            outputs = []
            for module in (np, xp):
                grid = grid_of(module, *shape, read=read)
                grid.initialise(0.5)
                outputs.append(to_host(grid.forward(signals(module, batch, *shape)[0], first_sample=0)))
            difference = np.abs(outputs[0] - outputs[1])
            if name == "before_adc":
                note(f"reads_relative_{batch}", float(difference.max() / np.abs(outputs[0]).max()))
                continue
            # a code is worth `code` times the largest input of its sample
            worth = code * np.abs(signals(np, batch, *shape)[0]).max(axis=1, keepdims=True)
            note(f"most_codes_apart_{batch}", float((difference / worth).max()))
            note(f"share_of_codes_apart_{batch}", float((difference > worth / 2).mean()))


def largest(xp: ModuleType, note: Note) -> None:
    """The most weights of one layer that this GPU holds, one training step included; tolerances recomputed."""
    pool = xp.get_default_memory_pool()
    pool.free_all_blocks()
    free, total = xp.cuda.runtime.memGetInfo()
    note("memory_bytes", total)
    tiles = int(free * 0.97 // (SIZE**2 * 4))
    while tiles:
        grid = None
        try:
            grid = grid_of(xp, SIZE, SIZE * tiles, tolerances="recomputed")
            x, d = signals(xp, 1, SIZE, SIZE * tiles)
            for _ in range(2):
                began = time.perf_counter()
                grid.forward(x, first_sample=0)
                grid.backward(d, first_sample=0)
                grid.update(x, d, RATE, first_sample=0)
                wait(xp)
            note("weights", tiles * SIZE**2)
            note("step_s", time.perf_counter() - began)
            return
        except xp.cuda.memory.OutOfMemoryError:
            grid = None
            pool.free_all_blocks()
            tiles -= max(1, tiles // 32)


def network(folder: str, arrays: str, seed: int, samples: int) -> tuple[float, float]:
    """Train the paper's network at minibatch 1 in this process; samples per second and test error."""
    # not at the top: the other parts need no pydantic
    from rpucluster.accelerator import Steps
    from rpucluster.cluster import load_cluster
    from rpucluster.data import load_data
    from rpucluster.job import load_job
    from rpucluster.lowering import lower
    from rpucluster.partitioner import partition
    from rpucluster.pool import LocalPool

    sets = [f"data.path={folder}", f"data.train_samples={samples}", "data.test_samples=2000", "evaluate.batch=100"]
    job, cluster = (
        load_job("mnist_paper", [*sets, f"run.arrays={arrays}", f"train.seed={seed}"]),
        load_cluster("paper_chip"),
    )
    plan, data = partition(job, cluster), load_data(job.data)
    order = np.random.default_rng(seed).permutation(len(data.train_y)).reshape(-1, 1)
    warm, rate = min(100, len(order) // 2), 0.01
    pool = LocalPool(job, cluster, plan)
    try:
        pool.load("train", lower(plan, job))
        pool.load("evaluate", lower(plan, job, "evaluate", 100))
        pool.set_data("train", data.train_x, data.train_y)
        pool.set_data("test", data.test_x, data.test_y)
        pool.perform("train", "train", Steps(first_sample=0, learning_rate=rate, indices=order[:warm]))
        began = time.perf_counter()
        pool.perform("train", "train", Steps(first_sample=warm, learning_rate=rate, indices=order[warm:]))
        taken = time.perf_counter() - began
        pool.take_score()
        test = np.arange(len(data.test_y)).reshape(-1, 100)
        pool.perform("evaluate", "test", Steps(first_sample=0, learning_rate=0.0, indices=test))
        score = pool.take_score()
    finally:
        pool.close()
    return (len(order) - warm) / taken, 1 - score.hits / score.samples


def mnist(folder: str, samples: int, until: float, note: Note) -> None:
    """Samples per second at minibatch 1, and the test error over seeds on the GPU and on the CPU."""
    found: dict[str, list[tuple[float, float]]] = {"cupy": [], "numpy": []}
    note("train_samples", samples)
    slowest = 0.0
    for seed in range(1, SEEDS + 1):
        began = time.perf_counter()
        if seed > 1 and began + slowest > until:
            note("stopped_after_seeds", seed - 1)
            break
        for arrays, runs in found.items():
            runs.append(network(folder, arrays, seed, samples))
            note(f"{arrays}_samples_per_s", statistics.median(rate for rate, _ in runs))
            note(f"{arrays}_test_errors", [error for _, error in runs])
        slowest = max(slowest, time.perf_counter() - began)
        if seed > 1:
            errors = {arrays: [error for _, error in runs] for arrays, runs in found.items()}
            apart = statistics.mean(errors["cupy"]) - statistics.mean(errors["numpy"])
            spread = np.hypot(*(statistics.stdev(e) / len(e) ** 0.5 for e in errors.values()))
            note("difference_in_standard_errors", float(apart / spread) if spread else 0.0)


def main() -> None:
    names = ("tile", "largest", "parity", "mnist")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="directory with MNIST's four IDX files")
    parser.add_argument("--mnist-samples", type=int, default=10_000, help="training samples of each run")
    parser.add_argument("--parts", default=",".join(names), help=f"some of {','.join(names)}, in order")
    parser.add_argument("--seconds", type=float, default=220, help="no part starts later")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    unknown = set(arguments.parts.split(",")) - set(names)
    if unknown:
        parser.error(f"no part {sorted(unknown)[0]}: write some of {','.join(names)}")
    xp = array_module("auto")
    if xp is np:
        print("nothing measured: no CuPy or no GPU; pip install 'rpucluster[gpu]' where there is one")
        return
    until = time.perf_counter() + arguments.seconds
    found: dict[str, Any] = {"gpu": xp.cuda.runtime.getDeviceProperties(0)["name"].decode()}
    works: dict[str, Callable[[Note], None]] = {
        "parity": lambda note: parity(xp, note),
        "tile": lambda note: tile(xp, note),
        "largest": lambda note: largest(xp, note),
        "mnist": lambda note: mnist(str(Path(arguments.mnist).resolve()), arguments.mnist_samples, until, note),
    }
    for name in arguments.parts.split(","):
        if name == "mnist" and not arguments.mnist:
            continue
        part: dict[str, Any] = {}
        found[name] = part

        def note(key: str, value: Any, part: dict[str, Any] = part, name: str = name) -> None:
            part[key] = value
            print(name, key, json.dumps(value[-1] if key == "rows" else value), flush=True)
            arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

        began = time.perf_counter()
        if began > until:
            note("left_out", f"no time left of {arguments.seconds:g} s")
            continue
        try:
            works[name](note)
        except Exception as error:
            traceback.print_exc()
            note("failed", f"{type(error).__name__}: {error}")
        note("part_s", time.perf_counter() - began)


if __name__ == "__main__":
    main()
