"""What stops a pulsed update: the random numbers and the cells that it cannot do without, beside what it takes.

    python benchmarks/update_floors.py [--sizes 512,1024,4096]

The floor of a sample is lines x (a Philox block) + hits x (a normal + the cell), where the lines are those that are not
0, a hit is a cell with coincidences, and the cell is its 8 bytes of lanes, read, and its weight, read and written back,
in the order in which an update meets them; with recomputed tolerances a hit takes four more normals and no lanes.
All are measured alone, on this machine, in loops that do nothing else, in CPU time of one thread; so is the update.
Writes update_floors.md beside this file, or with --sizes prints only.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numba
import numpy as np

from rpucluster.kernels.base import D_KEY, X_KEY
from rpucluster.kernels.cpu_random import fill_normals
from rpucluster.kernels.cpu_tile_trains import KNOWN, tile_trains
from rpucluster.kernels.cpu_trains import make_trains, new_lines
from rpucluster.kernels.update_rule import pack_update

sys.path.insert(0, str(Path(__file__).parent / "aihwkit_sides"))
from ours import Tile

RATE = np.float32(0.01)
FIRES = 50
"""Samples whose trains are timed together."""
COLUMNS = "out batch preset inputs tolerances hits lines floor_us lines_us normals_us cells_us ours_us over_floor"


@numba.njit(nogil=True)
def _touch(weights: Any, lanes: Any, places: Any, stored: bool) -> Any:
    """Change the weights of some cells, after reading their lanes."""
    total = np.int64(0)
    for k in range(len(places)):
        place = places[k]
        if stored:
            total ^= lanes[place]
        weights[place] += np.float32(1)
    return total


@numba.njit(nogil=True)
def _fire(values: Any, bits: int, key: Any, found: Any, times: int) -> None:
    for sample in range(times):
        make_trains(values, 0, len(values), np.float32(1), bits, key[0], key[1], sample, found)


def shortest(work: Callable[[], Any], seconds: float = 0.2) -> float:
    """The shortest CPU time of a call, after one that compiles."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return min(times)


def hit_places(trains: Any, size: int) -> Any:
    """Cells with coincidences, in the order of an update: rows outside, samples inside, then columns."""
    found = []
    for row in range(size):
        for sample in np.flatnonzero(trains.d_words[row] & 0x7FFFFFFF):
            count = trains.x_count[sample]
            both = trains.x_words[sample, :count] & trains.d_words[row, sample] & 0x7FFFFFFF
            found.append(row * size + (trains.x_lines[sample, :count][both != 0] & 0xFFFFF).astype(np.int64))
    return np.concatenate(found)


def measure(size: int, batch: int, preset: str, inputs: str, normal_s: float) -> list[dict[str, Any]]:
    """A row for stored and one for recomputed tolerances."""
    rows: list[dict[str, Any]] = []
    for tolerances in ("stored", "recomputed"):
        case: dict[str, Any] = {
            "out": size,
            "in": size,
            "batch": batch,
            "preset": preset,
            "inputs": inputs,
            "tolerances": tolerances,
        }
        tile = Tile({**case, "seed": 1, "noise_per": "sample", "threads": 1})
        grid = tile.grid
        grid.set_weights(tile.start)
        ints, floats = pack_update(grid.parts().update_rule)
        keys, table = grid.parts().update_keys, grid.parts().table
        known = np.zeros((KNOWN, batch), np.int64)
        trains = tile_trains(table, keys, 0, ints, floats, tile.x, tile.d, RATE, 0, known)
        places, found = hit_places(trains, size), new_lines(size)
        lines = (np.count_nonzero(tile.x) + np.count_nonzero(tile.d)) / batch
        bits = 1 if preset == "gv" else 10  # gv: as few slots as the largest change needs
        fire = sum(
            shortest(partial(_fire, signal[0], bits, keys[0, key], found, FIRES), 0.1) / FIRES
            for signal, key in ((tile.x, X_KEY), (tile.d, D_KEY))
        )
        weights, lanes = np.zeros(size * size, np.float32), np.zeros(size * size, np.int64)
        stored = tolerances == "stored"
        touch = shortest(partial(_touch, weights, lanes, places, stored))
        hits = len(places) / batch
        normals = hits * normal_s * (1 if stored else 5)
        done = 0

        def call(tile: Any = tile) -> None:
            nonlocal done
            tile.grid.update(tile.x, tile.d, float(RATE), first_sample=done)
            done += batch

        ours, floor = shortest(call) / batch, fire + normals + touch / batch
        parts = {"floor_us": floor, "lines_us": fire, "normals_us": normals, "cells_us": touch / batch}
        in_us = {name: value * 1e6 for name, value in (parts | {"ours_us": ours}).items()}
        rows.append(case | {"hits": round(hits), "lines": round(lines), "over_floor": ours / floor} | in_us)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="tiles, separated by commas (512,1024,4096); nothing is written")
    sizes = parser.parse_args().sizes
    out = np.empty(1 << 12, np.float32)
    normal_s = shortest(lambda: [fill_normals(out, 0, 1 << 10, 7, 9, 1, 0) for _ in range(100)]) / 100 / len(out)
    names = COLUMNS.split()
    text = [
        "# Floors of the pulsed update\n",
        f"{(__doc__ or '').split('    python')[0].strip()}\n",
        f"A normal takes {normal_s * 1e9:.2f} ns. Microseconds per sample; see `update_floors.py`.\n",
        f"| {' | '.join(names)} |", "|" + "---|" * len(names),
    ]  # fmt: skip
    cases = product(map(int, (sizes or "512,1024,4096").split(",")), (1, 32), ("gv-nomgmt", "gv"), ("gauss", "mnist"))
    for case in cases:
        for row in measure(*case, normal_s):
            cells = [f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in names]
            text.append(f"| {' | '.join(cells)} |")
            print(text[-1], file=sys.stderr, flush=True)
    print("\n".join(text))
    if not sizes:
        Path(__file__).with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
