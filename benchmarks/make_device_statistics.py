"""Statistics of device models from IBM's aihwkit, which the tests hold ours to: tests/data/device_statistics.npz.

Run with a Python that has aihwkit (1.2.0 made the file) and without this package:

    python benchmarks/make_device_statistics.py tests/data/device_statistics.npz

tests/data/device_statistics.md says what is in the file.  Devices differ from run to run, since their seed is 0.
"""

import argparse
import json
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import torch
from aihwkit.simulator.configs import SingleRPUConfig, devices
from aihwkit.simulator.parameters import UpdateParameters
from aihwkit.simulator.presets import devices as presets
from aihwkit.simulator.tiles.analog import AnalogTile

X = np.array([1.0, -0.7, 0.45, 0.2, -0.05, 0.0], np.float32)
D = np.array([1.0, -0.8, 0.6, -0.4, 0.3, -0.2, 0.1, 0.0], np.float32)
BIT_LENGTH = 10
WEIGHTS = np.linspace(-0.4, 0.4, len(D) * len(X), dtype=np.float32).reshape(len(D), len(X))
RISING = 0.4 + WEIGHTS
PULSES = 400
DECILES = np.linspace(0.1, 0.9, 9)
DRAWN = (
    "max_bound", "min_bound", "dwmin_up", "dwmin_down", "slope_up", "slope_down", "gamma_up", "gamma_down", "reference",
    "decay_scales", "reset_bias", "diffusion_rates",
)  # fmt: skip

OURS = {
    "dw_min_dtod_log_normal": "log_normal", "corrupt_devices_prob": "stuck", "corrupt_devices_range": "stuck_range",
    "write_noise_std": "write_noise", "reset": "reset_level", "reset_dtod": "reset_level_dtod",
    "A_up": "a_up", "A_down": "a_down",
}  # fmt: skip
"""Names of parameters that differ here."""
MODELS = {
    "ConstantStepDevice": "ConstantStep", "LinearStepDevice": "LinearStep", "SoftBoundsDevice": "SoftBounds",
    "SoftBoundsReferenceDevice": "SoftBoundsReference", "ExpStepDevice": "ExponentialStep",
    "PowStepDevice": "PowerStep", "PiecewiseStepDevice": "PiecewiseStep",
}  # fmt: skip
NO_SPREAD = {
    "ConstantStepDevice": {},
    "LinearStepDevice": {"gamma_up_dtod": 0.0, "gamma_down_dtod": 0.0},
    "PowStepDevice": {"pow_gamma_dtod": 0.0},
}
QUIET = {"dw_min_dtod": 0.0, "dw_min_std": 0.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0, "up_down_dtod": 0.0}
BASE = {"dw_min": 0.01, "w_max": 0.6, "w_min": -0.5}

RERAM = {
    "A_up": -1.18445, "A_down": -0.081404, "gamma_up": 5.0, "gamma_down": 5.0, "a": -0.5, "b": -0.5,
    "up_down": 0.259359,
}  # fmt: skip
PIECEWISE = {"piecewise_up": [1.0, 0.7, 0.9, 0.2], "piecewise_down": [0.1, 0.8, 0.6, 1.2]}
SYMMETRY = {"up_down": 0.2, "subtract_symmetry_point": True}

RESPONSES: dict[str, tuple[str, dict[str, Any]]] = {
    "constant": ("ConstantStepDevice", {"up_down": 0.1}),
    "linear": ("LinearStepDevice", {"gamma_up": 0.3, "gamma_down": 0.8}),
    "soft": ("SoftBoundsDevice", {}),
    "soft_reference": ("SoftBoundsReferenceDevice", {"reference_mean": 0.1}),
    "soft_symmetry": ("SoftBoundsReferenceDevice", SYMMETRY),
    "exponential": ("ExpStepDevice", {}),
    "exponential_reram": ("ExpStepDevice", RERAM),
    "power": ("PowStepDevice", {"pow_gamma": 2.3, "pow_up_down": 0.2}),
    "power_below_1": ("PowStepDevice", {"pow_gamma": 0.4, "pow_up_down": -0.3}),
    "piecewise": ("PiecewiseStepDevice", PIECEWISE),
}
"""Model and parameters of pulse responses; those of `BASE` and `QUIET` come with each."""

UPDATES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("LinearStepDevice", {"gamma_up": 0.4, "gamma_down": 0.8}),
    "linear_noise": ("LinearStepDevice", {"gamma_up": 0.4, "gamma_down": 0.8, "dw_min_std": 0.5}),
    "linear_additive": (
        "LinearStepDevice", {"gamma_up": 0.9, "gamma_down": 0.8, "dw_min_std": 0.5, "mult_noise": False},
    ),
    "linear_dtod": (
        "LinearStepDevice", {"gamma_up": 0.4, "gamma_down": 0.8, "gamma_up_dtod": 0.2, "gamma_down_dtod": 0.3},
    ),
    "linear_own_bounds": (
        "LinearStepDevice",
        {"gamma_up": 0.9, "gamma_down": 0.8, "mean_bound_reference": False, "w_max_dtod": 0.1, "w_min_dtod": 0.05},
    ),
    "soft_noise": ("SoftBoundsDevice", {"dw_min_std": 0.5}),
    "soft_dtod": ("SoftBoundsDevice", {"dw_min_dtod": 0.3, "up_down": -0.1, "up_down_dtod": 0.1}),
    "soft_reference": ("SoftBoundsReferenceDevice", {"reference_mean": 0.1, "dw_min_std": 0.5}),
    "soft_reference_dtod": (
        "SoftBoundsReferenceDevice", {"reference_std": 0.1, "slope_up_dtod": 0.2, "slope_down_dtod": 0.1},
    ),
    "soft_symmetry": ("SoftBoundsReferenceDevice", {**SYMMETRY, "up_down_dtod": 0.1, "dw_min_dtod": 0.3}),
    "exponential_noise": ("ExpStepDevice", {"dw_min_std": 0.5}),
    "exponential_reram": ("ExpStepDevice", {**RERAM, "w_max_dtod": 0.2, "w_min_dtod": 0.2}),
    "exponential_complex_noise": (
        "ExpStepDevice", {**RERAM, "dw_min_std": 0.6, "dw_min_std_add": 0.01, "dw_min_std_slope": 0.05},
    ),
    "power_noise": ("PowStepDevice", {"pow_gamma": 2.3, "dw_min_std": 0.5}),
    "power_dtod": (
        "PowStepDevice", {"pow_gamma": 1.6, "pow_gamma_dtod": 0.2, "pow_up_down": 0.3, "pow_up_down_dtod": 0.1},
    ),
    "piecewise_noise": ("PiecewiseStepDevice", {**PIECEWISE, "dw_min_std": 0.5}),
    "log_normal": ("ConstantStepDevice", {"dw_min_dtod": 0.7, "dw_min_dtod_log_normal": True, "up_down_dtod": 0.2}),
    "stuck": ("ConstantStepDevice", {"corrupt_devices_prob": 0.3, "corrupt_devices_range": 0.2}),
    "stuck_wide": ("SoftBoundsDevice", {"corrupt_devices_prob": 0.5, "corrupt_devices_range": 0.9}),
    "write_noise": ("SoftBoundsDevice", {"write_noise_std": 3.0, "dw_min_std": 0.3}),
    "decay": ("ConstantStepDevice", {"lifetime": 10.0, "reset": 0.2}),
    "decay_dtod": ("SoftBoundsDevice", {"lifetime": 10.0, "lifetime_dtod": 0.3, "reset": 0.1, "reset_dtod": 0.2}),
    "diffusion": ("ConstantStepDevice", {"diffusion": 0.02}),
    "diffusion_dtod": ("ConstantStepDevice", {"diffusion": 0.05, "diffusion_dtod": 0.5, "lifetime": 5.0}),
}  # fmt: skip

PRESETS = {
    "reram-es": presets.ReRamESPresetDevice, "reram-sb": presets.ReRamSBPresetDevice,
    "reram-array-om": presets.ReRamArrayOMPresetDevice, "reram-array-hfo2": presets.ReRamArrayHfO2PresetDevice,
    "capacitor": presets.CapacitorPresetDevice, "ecram": presets.EcRamPresetDevice,
    "ecram-mo": presets.EcRamMOPresetDevice, "pcm": presets.PCMPresetDevice,
    "idealized": presets.IdealizedPresetDevice, "gokmen-vlasov": presets.GokmenVlasovPresetDevice,
}  # fmt: skip


class Scenario(NamedTuple):
    """A device under one update, and what it is called here."""

    name: str
    device: Any
    ours: dict[str, Any]
    """Model and parameters, or preset, in the words of this package."""


def our_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """The same parameters by the names that they have here."""
    renamed = {OURS.get(name, name): value for name, value in parameters.items()}
    if "mult_noise" in renamed:
        renamed["additive_noise"] = not renamed.pop("mult_noise")
    return renamed


def scenario(name: str, model: str, parameters: dict[str, Any], seed: int = 0) -> Scenario:
    """A model with `BASE`, `QUIET` and some parameters more."""
    full = BASE | QUIET | NO_SPREAD.get(model, {}) | parameters
    device = getattr(devices, model)(construction_seed=seed, **full)
    return Scenario(name, device, {"model": MODELS[model], "parameters": our_parameters(full)})


def tile_of(device: Any, rows: int, cols: int, bit_length: int) -> Any:
    """A tile whose pulse trains have a fixed length and no management."""
    update = UpdateParameters(desired_bl=bit_length, fixed_bl=True, update_management=False, update_bl_management=False)
    return AnalogTile(rows, cols, SingleRPUConfig(device=device, update=update))


def granularity(tile: Any) -> float:
    """The step that the pulse generator counts in, as aihwkit prints it."""
    found = re.search(r"granularity \(calc\.\):\s*(\S+)", str(tile.tile))
    assert found
    return float(found.group(1))


def response(device: Any) -> Any:
    """Weight after each of `PULSES` up pulses from 0, then as many down pulses, float32."""
    tile = tile_of(device, 1, 1, 1)
    tile.tile.set_weights(torch.zeros(1, 1))
    tile.set_learning_rate(50 * granularity(tile))  # every pulse is certain
    one, found = torch.ones(1, 1), []
    for pulse in range(2 * PULSES):
        tile.tile.update(one, -one if pulse < PULSES else one, False)
        found.append(float(tile.tile.get_weights()[0, 0]))
    return np.array(found, np.float32)


def is_fixed(device: Any) -> bool:
    """Whether all devices are alike, so that one tile serves all repetitions."""
    spreads = [value for name, value in vars(device).items() if name.endswith("_dtod") and not isinstance(value, bool)]
    return not (any(spreads) or device.corrupt_devices_prob or getattr(device, "reference_std", 0.0))


def placed(tile: Any, weights: Any) -> Any:
    """Put weights on a tile, and return those that pulses will move: within bounds, and hidden with write noise."""
    tile.tile.set_weights(weights)
    hidden = tile.get_hidden_parameters()
    if "reference" in hidden:
        # setting clips to the bounds of the device, pulses to those of the difference from its reference
        low, high = (hidden[name] - hidden["reference"] for name in ("min_bound", "max_bound"))
        tile.tile.set_weights(torch.clamp(torch.clamp(weights, min=low), max=high))
        hidden = tile.get_hidden_parameters()
    return hidden.get("persistent_weights", tile.tile.get_weights()).numpy().copy()


def changes(device: Any, weights: Any, repetitions: int) -> Iterator[Any]:
    """Weight changes (8, 6) of single updates, each followed by one step of decay and diffusion where there is one."""
    x, d = torch.as_tensor(X[None]), torch.as_tensor(D[None])
    start, tile = torch.as_tensor(weights), None
    for _ in range(repetitions):
        if tile is None or not is_fixed(device):
            tile = tile_of(device, len(D), len(X), BIT_LENGTH)
            tile.set_learning_rate(BIT_LENGTH * granularity(tile))
        before = placed(tile, start)
        tile.tile.update(x, d, False)
        if device.lifetime > 0:
            tile.tile.decay_weights(1.0)
        if device.diffusion > 0:
            tile.tile.diffuse_weights()
        yield tile.tile.get_weights().numpy().copy() - before


def moments(samples: Any) -> dict[str, Any]:
    """Mean, variance and their standard errors over the first axis."""
    n = len(samples)
    mean, centred = samples.mean(0), samples - samples.mean(0)
    var, fourth = (centred**2).mean(0), (centred**4).mean(0)
    errors = np.sqrt(var / n), np.sqrt(np.maximum(fourth - var**2, 0) / n)
    return {"mean": mean, "var": var, "se_mean": errors[0], "se_var": errors[1], "n": n}


def drawn(device: Any) -> dict[str, Any]:
    """Deciles of the tolerances of 200 x 200 devices; bounds are those of the weight, so less the reference."""
    hidden = tile_of(device, 200, 200, 1).get_hidden_parameters()
    found = {name: hidden[name].numpy().astype(np.float64) for name in DRAWN if name in hidden}
    for name in ("max_bound", "min_bound"):
        found[name] = found[name] - found.get("reference", 0.0)
    return {name: np.quantile(values, DECILES) for name, values in found.items()}


def measured(one: Scenario, repetitions: int) -> dict[str, Any]:
    """The arrays of one scenario by their names in the file."""
    torch.set_num_threads(1)
    start = RISING if one.device.w_min == 0 else WEIGHTS
    samples = np.stack(list(changes(one.device, start, repetitions))).astype(np.float64)
    found = {f"update/{one.name}/{key}": values for key, values in moments(samples).items()}
    if not is_fixed(one.device):
        found |= {f"draw/{one.name}/{key}": values for key, values in drawn(one.device).items()}
    return {name: np.asarray(values, np.int64 if name.endswith("/n") else np.float32) for name, values in found.items()}


def main() -> None:
    """Measure everything and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--repetitions", type=int, default=10_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arrays: dict[str, Any] = {"x": X, "d": D, "bit_length": BIT_LENGTH, "weights": WEIGHTS, "rising": RISING}
    meta: dict[str, Any] = {"pulse_response": {}, "update": {}}
    for name, (model, parameters) in RESPONSES.items():
        one = scenario(name, model, parameters)
        arrays[f"pulse_response/{name}"] = response(one.device)
        meta["pulse_response"][name] = one.ours
    scenarios = [scenario(name, *of) for name, of in UPDATES.items()]
    scenarios += [Scenario(name, make(), {"preset": name}) for name, make in PRESETS.items()]
    for one in scenarios:
        # a process of its own for each, since tiles are never quite freed
        with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
            arrays |= pool.submit(measured, one, arguments.repetitions).result()
        meta["update"][one.name] = one.ours | {"start": "rising" if one.device.w_min == 0 else "weights"}
        print(one.name, flush=True)
    np.savez_compressed(arguments.out, **arrays, meta_json=json.dumps(meta))


if __name__ == "__main__":
    main()
