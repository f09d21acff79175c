"""Statistics of device models measured with IBM's aihwkit, and the same from our specification; data/ says more."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from rpucluster import devices
from rpucluster.devices import LANE_UNIT, Cells, Int16, Pulsed, device_from
from rpucluster.rng import Float32
from rpucluster.tile import UpdateSettings
from tests.grids import make_grid

FILE = np.load(Path(__file__).parent / "data" / "device_statistics.npz")
META: dict[str, dict[str, Any]] = json.loads(str(FILE["meta_json"]))


def device_of(scenario: dict[str, Any]) -> Pulsed:
    """The device of a scenario's entry in the file."""
    if "preset" in scenario:
        device = device_from(scenario["preset"])
    else:
        device = getattr(devices, scenario["model"])(**scenario["parameters"])
    assert isinstance(device, Pulsed)
    return device


def random_lanes(generator: np.random.Generator, lanes: int, n: int) -> Int16:
    """Lanes as `draw_lanes` makes them, of any generator: int16 (lanes, n)."""
    drawn = np.rint(generator.standard_normal((lanes, n)) / LANE_UNIT).clip(-23_674, 23_674).astype(np.int16)
    drawn[6:8] = generator.integers(-(1 << 15), 1 << 15, drawn[6:8].shape)
    return drawn


def typical(device: Pulsed) -> Cells:
    """The one cell of a device without spreads whose normals are all 0."""
    return device.cells(np.zeros((device.lanes, 1), np.int16))


def fired(device: Pulsed, w: float, pulses: list[tuple[bool, int]]) -> Float32:
    """Weights of the typical cell after each of some runs of pulses, (lowers, how many), without step noise."""
    cells, weight, found = typical(device), np.array([w], np.float32), []
    for lowers, count in pulses:
        for _ in range(count):
            weight = device.fire(weight, np.array([lowers]), np.float32(0), cells)
            found.append(weight[0])
    return np.array(found, np.float32)


COPIES = 100


def changes(device: Pulsed, start: Float32, x: Float32, d: Float32, bits: int) -> Any:
    """10,000 changes (n, rows, cols) of weights by one compiled update of probabilities |d| |x|, each on a tile of its
    own; counted from the weights as the device took them, with write noise from the hidden ones."""
    rows, cols = start.shape
    seed = int(np.random.default_rng().integers(1 << 40))
    update = UpdateSettings(bit_length=bits)
    grid = make_grid(COPIES * rows, COPIES * cols, tile=start.shape, device=device, update=update, seed=seed)
    grid.set_weights(np.tile(start, (COPIES, COPIES)))
    before = grid.state().get("hidden", grid.weights())
    xs, ds = np.tile(x, COPIES)[None], np.tile(d, COPIES)[None]
    grid.update(xs, ds, bits * device.granularity, first_sample=0)  # so that both gains are 1
    moved = (grid.weights() - before).reshape(COPIES, rows, COPIES, cols)
    return moved.swapaxes(1, 2).reshape(-1, rows, cols)


def moments(samples: Any) -> tuple[Any, Any, Any, Any]:
    """Mean and variance over the first axis, and their standard errors."""
    n = len(samples)
    samples = samples.astype(np.float64)
    mean, centred = samples.mean(0), samples - samples.mean(0)
    var, fourth = (centred**2).mean(0), (centred**4).mean(0)
    return mean, var, np.sqrt(var / n), np.sqrt(np.maximum(fourth - var**2, 0) / n)


def scores(name: str, samples: Any) -> tuple[Any, Any]:
    """z of the mean and of the variance of each cell's change, for cells whose change varies."""
    mean, var, se_mean, se_var = moments(samples)
    of = {key: FILE[f"update/{name}/{key}"].astype(np.float64) for key in ("mean", "var", "se_mean", "se_var")}
    p, n = np.abs(np.outer(FILE["d"], FILE["x"])), min(len(samples), int(FILE[f"update/{name}/n"]))
    moved, expected = var > 1e-12, of["var"] > 1e-12
    still = ~moved & ~expected
    np.testing.assert_allclose(mean[still], of["mean"][still], atol=1e-6)
    # one of 2300 capacitor cells forgets at once: some cells may have met that on one side only
    assert (moved != expected).sum() <= 3
    # the moments of rare coincidences are not normally distributed
    tested = moved & expected & ((p == 0) | (p * n * int(FILE["bit_length"]) > 100))
    z_mean = (mean - of["mean"])[tested] / np.hypot(se_mean, of["se_mean"])[tested]
    # of two values that are equally frequent, as where half of the devices are stuck, the first-order error is 0
    second_order = math.sqrt(2) * np.hypot(var, of["var"]) / n
    z_var = (var - of["var"])[tested] / np.maximum(np.hypot(se_var, of["se_var"]), second_order)[tested]
    return z_mean, z_var


def without_spread(device: Pulsed) -> Pulsed:
    """The device with every spread and noise off."""
    spreads = [f.name for f in dataclasses.fields(device) if f.name.endswith("_dtod")]
    spreads += [name for name in ("reference_std", "dw_min_std", "write_noise", "stuck") if hasattr(device, name)]
    return dataclasses.replace(device, **dict.fromkeys(spreads, 0.0))
