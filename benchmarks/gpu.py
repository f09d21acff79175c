"""On a GPU: update and forward of a 4096 x 4096 tile over the floor of the memory, parity with the CPU, MNIST.

    python benchmarks/gpu.py [--mnist DIRECTORY_WITH_IDX_FILES] [--quick]

Needs CuPy and a GPU, and says so in one line where there is none.  Writes gpu.json beside this file.
The floor is what has to be moved at least, at the bandwidth that a copy reaches on the same GPU: for a forward pass
the weights once; for an update, of each 32-byte sector of the weights that holds a cell that is hit, a read and a
write, and a read of the tolerances of its cells where they are stored.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rpucluster import load_cluster, load_job, run
from rpucluster.arrays import array_module, to_host
from rpucluster.devices import device_from
from rpucluster.tile import Converters, Management, TileGrid, UpdateSettings

SIZE, SECTOR, RATE = 4096, 32, 0.01
REPEATS = 9


def grid_of(xp: ModuleType, rows: int, cols: int, *, tolerances: Any = "stored", read: Any = None) -> TileGrid:
    """Tiles of the RPU-baseline device with the converters of the paper and abs-max noise management."""
    tall, wide = min(rows, SIZE), min(cols, SIZE)
    management = Management(noise_management="abs_max")
    return TileGrid(
        layer=0, replica=0, rows=rows, cols=cols, tile_rows=tall, tile_cols=wide,
        row_tiles=(0, -(-rows // tall)), col_tiles=(0, -(-cols // wide)), device=device_from("rpu-baseline"),
        forward=read or Converters(), backward=read or Converters(), forward_management=management,
        backward_management=management, update=UpdateSettings(), seed=1, xp=xp, tolerances=tolerances,
    )  # fmt: skip


def signals(xp: ModuleType, batch: int, rows: int, cols: int, seed: int = 1) -> tuple[Any, Any]:
    """x of about 0.3 clipped to +-1 and d of about 0.01."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.standard_normal((batch, cols), np.float32) * np.float32(0.3), -1, 1)
    return xp.asarray(x), xp.asarray(rng.standard_normal((batch, rows), np.float32) * np.float32(0.01))


def seconds(xp: ModuleType, work: Callable[[], Any]) -> float:
    """The median time of a call to the end of what it started."""
    times = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        work()
        wait(xp)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])  # the first compile


def wait(xp: ModuleType) -> None:
    """Until the GPU has done what it was given."""
    if xp is not np:
        xp.cuda.Device().synchronize()


def copy_bandwidth(xp: ModuleType) -> float:
    """Bytes read and written per second by a copy of 512 MB."""
    source = xp.ones(1 << 27, "f4")
    target = xp.empty_like(source)
    return float(2 * source.nbytes / seconds(xp, lambda: target.__setitem__(slice(None), source)))


def tile(xp: ModuleType, size: int) -> list[dict[str, Any]]:
    """Update and forward of one tile, beside their floors."""
    bandwidth = copy_bandwidth(xp)
    rows = []
    for tolerances in ("stored", "recomputed"):
        grid = grid_of(xp, size, size, tolerances=tolerances)
        lanes = grid.nbytes / size**2 - 4  # bytes of tolerances per cell
        for batch in (1, 32, 256):
            grid.initialise(0.3)
            x, d = signals(xp, batch, size, size)
            hits, sectors = grid.update(x, d, RATE, first_sample=0).coincidences, size**2 * 4 / SECTOR
            touched = sectors * -np.expm1(-hits / sectors)  # as if hits fell anywhere
            per_sector = 2 * SECTOR + max(lanes * 8, 0 if not lanes else SECTOR)
            floors = {"update": touched * per_sector / bandwidth, "forward": size**2 * 4 / bandwidth}
            taken = {
                "update": seconds(xp, lambda: grid.update(x, d, RATE, first_sample=batch)),  # noqa: B023
                "forward": seconds(xp, lambda: grid.forward(x, first_sample=0)),  # noqa: B023
            }
            for op, floor in floors.items():
                rows.append(
                    {
                        "op": op, "size": size, "minibatch": batch, "tolerances": tolerances, "us": taken[op] * 1e6,
                        "floor_us": floor * 1e6, "over_floor": taken[op] / floor, "copy_GB_per_s": bandwidth / 1e9,
                    }
                )  # fmt: skip
    return rows


def parity(xp: ModuleType) -> dict[str, Any]:
    """The same tiles on both: the weights after an update bit for bit, outputs before and after the ADC."""
    found: dict[str, Any] = {}
    shape, batch = (300, 700), 8
    exact = Converters(input_bits=5, output_bits=0, output_bound=float("inf"), read_noise=0.06)
    code = Converters().output_bound / 255
    for name, read in (("before_adc", exact), ("codes", Converters())):
        grids = [grid_of(module, *shape, read=read) for module in (np, xp)]
        outputs = []
        for grid, module in zip(grids, (np, xp), strict=True):
            grid.initialise(0.5)
            x, d = signals(module, batch, *shape)
            grid.update(x, d, 0.05, first_sample=0)
            outputs.append(to_host(grid.forward(x, first_sample=0)))
        found["weights_bit_identical"] = bool(
            (grids[0].weights().view(np.uint32) == grids[1].weights().view(np.uint32)).all()
        )
        difference = np.abs(outputs[0] - outputs[1])
        if name == "before_adc":
            found["reads_relative"] = float(difference.max() / np.abs(outputs[0]).max())
        else:  # a code is worth `code` times the largest input of its sample
            worth = code * np.abs(to_host(signals(xp, batch, *shape)[0])).max(axis=1, keepdims=True)
            found["most_codes_apart"] = float((difference / worth).max())
            found["share_of_codes_apart"] = float((difference > worth / 2).mean())
    return found


def largest(xp: ModuleType) -> dict[str, Any]:
    """The most weights of one layer that this GPU holds, one training step included; tolerances recomputed."""
    pool = xp.get_default_memory_pool()
    pool.free_all_blocks()
    free, total = xp.cuda.runtime.memGetInfo()
    tiles = int(free // (SIZE**2 * 4))
    while tiles:
        try:
            grid = grid_of(xp, SIZE, SIZE * tiles, tolerances="recomputed")
            x, d = signals(xp, 1, SIZE, SIZE * tiles)
            began = time.perf_counter()
            grid.forward(x, first_sample=0)
            grid.backward(d, first_sample=0)
            grid.update(x, d, RATE, first_sample=0)
            wait(xp)
            return {"weights": tiles * SIZE**2, "step_s": time.perf_counter() - began, "memory_bytes": total}
        except xp.cuda.memory.OutOfMemoryError:
            grid = None
            pool.free_all_blocks()
            tiles -= max(1, tiles // 64)
    return {"weights": 0, "memory_bytes": total}


def mnist(folder: str, quick: bool) -> dict[str, Any]:
    """Samples per second at minibatch 1, and the test error over seeds on the GPU and on the CPU."""
    samples = 2000 if quick else 20000
    sets = [f"data.path={folder}", "train.epochs=1", f"data.train_samples={samples}"]
    found: dict[str, Any] = {}
    for arrays in ("cupy", "numpy"):
        rates, errors = [], []
        for seed in range(1, 3 if quick else 6):
            job = load_job("mnist_paper", [*sets, f"run.arrays={arrays}", f"train.seed={seed}"])
            with tempfile.TemporaryDirectory() as out:
                done = run(job, load_cluster("paper_chip"), executor="local", out=Path(out) / "run").summary
            rates.append(done["samples_per_s"])
            errors.append(1 - done["test_accuracy"])
        found[arrays] = {
            "samples_per_s": statistics.median(rates),
            "test_errors": errors,
            "mean_test_error": statistics.mean(errors),
            "standard_error": statistics.stdev(errors) / len(errors) ** 0.5,
        }
    apart = found["cupy"]["mean_test_error"] - found["numpy"]["mean_test_error"]
    spread = np.hypot(*(found[arrays]["standard_error"] for arrays in ("cupy", "numpy")))
    return found | {"difference_in_standard_errors": float(apart / spread)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="directory with MNIST's four IDX files")
    parser.add_argument("--quick", action="store_true", help="fewer samples and seeds; nothing is written")
    arguments = parser.parse_args()
    xp = array_module("auto")
    if xp is np:
        print("nothing measured: no CuPy or no GPU; pip install 'rpucluster[gpu]' where there is one")
        return
    found: dict[str, Any] = {"gpu": xp.cuda.runtime.getDeviceProperties(0)["name"].decode(), "parity": parity(xp)}
    print(json.dumps(found), flush=True)
    for name, work in (("tile", lambda: tile(xp, SIZE)), ("largest", lambda: largest(xp))):
        found[name] = work()
        print(name, json.dumps(found[name]), flush=True)
    if arguments.mnist:
        found["mnist"] = mnist(str(Path(arguments.mnist).resolve()), arguments.quick)
        print("mnist", json.dumps(found["mnist"]), flush=True)
    if not arguments.quick:
        Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
