"""Devices by name, as a job file asks for them."""

import dataclasses
import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rpucluster.devices.base import Device
from rpucluster.devices.constant_step import ConstantStep
from rpucluster.devices.floating_point import FloatingPoint

DEVICE_PRESETS: Mapping[str, Device] = MappingProxyType(
    {
        # the combined model of the 2016 paper, with every spread at once
        "rpu-baseline": ConstantStep(),
        # the same step and bounds without any spread or noise: what stochastic pulses and bounds alone do
        "ideal": ConstantStep(dw_min_dtod=0.0, dw_min_std=0.0, w_max_dtod=0.0, w_min_dtod=0.0, up_down_dtod=0.0),
        # aihwkit's preset of that name: the same 1200 steps on bounds of 1
        "gokmen-vlasov": ConstantStep(dw_min=0.0016, w_max=1.0, w_min=-1.0),
        "floating-point": FloatingPoint(),
    }
)


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
