"""Devices by name, as a job file asks for them."""

import dataclasses
import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rpucluster.devices.base import Device
from rpucluster.devices.constant_step import ConstantStep
from rpucluster.devices.exponential_step import ExponentialStep
from rpucluster.devices.floating_point import FloatingPoint
from rpucluster.devices.linear_step import LinearStep, SoftBounds
from rpucluster.devices.piecewise_step import PiecewiseStep
from rpucluster.devices.power_step import PowerStep
from rpucluster.devices.soft_bounds_reference import SoftBoundsReference

# Numbers of published devices were read as those of aihwkit's preset of the device, which names the same paper.
DEVICE_PRESETS: Mapping[str, Device] = MappingProxyType(
    {
        # the combined model of the 2016 paper, with every spread at once
        "rpu-baseline": ConstantStep(),
        # the same step and bounds without any spread or noise: what stochastic pulses and bounds alone do
        "ideal": ConstantStep(dw_min_dtod=0.0, dw_min_std=0.0, w_max_dtod=0.0, w_min_dtod=0.0, up_down_dtod=0.0),
        # aihwkit's preset of that name: the same 1200 steps on bounds of 1
        "gokmen-vlasov": ConstantStep(dw_min=0.0016, w_max=1.0, w_min=-1.0),
        # Rasch, Gokmen and Haensch, IEEE Design & Test (2019), arXiv:1906.02698: 10,000 symmetric steps
        "idealized": ConstantStep(dw_min=0.0002, w_max=1.0, w_min=-1.0, up_down_dtod=0.0),
        # each model as aihwkit sets it where nothing is said
        "linear-step": LinearStep(),
        "soft-bounds": SoftBounds(),
        "soft-bounds-reference": SoftBoundsReference(),
        "exponential-step": ExponentialStep(),
        "power-step": PowerStep(),
        "piecewise-step": PiecewiseStep(),
        # ReRAM: Gong et al., Nature Communications 9:2102 (2018)
        "reram-es": ExponentialStep(
            dw_min=0.00135, dw_min_dtod=0.2, dw_min_std=5.0, up_down=0.259359, up_down_dtod=0.05,
            w_max=1.0, w_min=-1.0, write_noise=75.0,
            a_up=-1.18445, gamma_up=5.0, a_down=-0.081404, gamma_down=5.0, a=-0.5, b=-0.5,
        ),
        # the same device, loosely, with its range shifted so that up and down steps are equal at 0
        "reram-sb": SoftBounds(
            dw_min=0.002, dw_min_std=3.75, w_max=1.25, w_max_dtod=0.24, w_min=-0.75, w_min_dtod=0.4,
            write_noise=56.0, additive_noise=True,
        ),
        # ReRAM arrays with optimised material and with plain HfO2: Gong, Rasch et al., IEDM (2022); measured were 13.5
        # and 10 percent of stuck cells, which have to be asked for (stuck)
        "reram-array-om": SoftBoundsReference(
            dw_min=0.0949, dw_min_dtod=0.7829, log_normal=True, dw_min_std=0.4158,
            w_max=1.0, w_max_dtod=0.3499, w_min=-1.0, w_min_dtod=0.5695, write_noise=1.4113, stuck_range=0.01,
            reference_std=0.05, subtract_symmetry_point=True,
        ),
        "reram-array-hfo2": SoftBoundsReference(
            dw_min=0.4622, dw_min_dtod=0.7125, log_normal=True, dw_min_std=0.2174,
            w_max=1.0, w_max_dtod=0.4295, w_min=-1.0, w_min_dtod=0.599, write_noise=0.5841, stuck_range=0.01,
            reference_std=0.05, subtract_symmetry_point=True,
        ),
        # capacitor cell: Li et al., VLSI Technology (2018); the lifetime counts update operations and stands for no
        # particular duration
        "capacitor": LinearStep(
            dw_min=0.005, dw_min_dtod=0.1, up_down_dtod=0.06, w_max=1.0, w_max_dtod=0.07, w_min=-1.0, w_min_dtod=0.07,
            lifetime=1e6, lifetime_dtod=0.3, additive_noise=True,
            gamma_up=0.05, gamma_up_dtod=0.01, gamma_down=0.05, gamma_down_dtod=0.01,
        ),
        # lithium ECRAM: Tang et al., IEDM (2018), with its range shifted so that up and down steps are equal at 0
        "ecram": LinearStep(
            dw_min=0.002, dw_min_dtod=0.1, w_max=1.1724, w_max_dtod=0.05, w_min=-0.8276, w_min_dtod=0.05,
            gamma_up=0.1153, gamma_down=0.5085,
        ),
        # metal-oxide ECRAM: Kim et al., IEDM (2019)
        "ecram-mo": LinearStep(
            dw_min=0.00028214, dw_min_dtod=0.1, dw_min_std=2.0,
            w_max=1.1714, w_max_dtod=0.05, w_min=-0.8286, w_min_dtod=0.05, gamma_up=0.4152, gamma_down=0.7342,
        ),
        # phase-change memory: Nandakumar et al., Frontiers in Neuroscience 14:406 (2020); it only rises, so a weight
        # needs a pair of them, which is refreshed
        "pcm": ExponentialStep(
            dw_min=0.01, dw_min_dtod=0.2, dw_min_std=0.6, up_down_dtod=0.05,
            w_max=2.0, w_max_dtod=0.1, w_min=0.0, w_min_dtod=0.0, reset_level=0.01, reset_level_dtod=0.02,
            a_up=-27.235, gamma_up=2.5, a_down=-2.235, gamma_down=2.5, a=-1.0, b=0.0,
            dw_min_std_add=0.042, dw_min_std_slope=0.108,
        ),
        "floating-point": FloatingPoint(),
    }
)  # fmt: skip


def device_from(preset: str, overrides: Mapping[str, Any] | None = None) -> Device:
    """The device of a preset with some of its fields replaced.

    Raises ValueError for an unknown preset or field, naming the nearest known one, and for a value out of range.
    """
    if preset not in DEVICE_PRESETS:
        raise ValueError(f'preset = "{preset}" is no device; {_nearest(preset, list(DEVICE_PRESETS))}')
    device: Any = DEVICE_PRESETS[preset]
    known = [field.name for field in dataclasses.fields(device)]
    for name in overrides or {}:
        if name not in known:
            kind = type(device).__name__
            raise ValueError(f"{kind} has no parameter {name}; {_nearest(name, known)}")
    changed: Device = dataclasses.replace(device, **(overrides or {}))
    return changed


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"known are {', '.join(known)}" if known else "it has none"
