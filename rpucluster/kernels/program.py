"""Write-verify programming: bring weights to given values with single pulses."""

from typing import Any, Final

import numpy as np

from rpucluster.arrays import namespace
from rpucluster.devices import Cells, PulsedDevice

MOST_PULSES: Final = 4096
"""Pulses after which a cell whose step depends on its weight is left where it is: no bound is reached in steps that
shrink towards it."""


def program(weights: Any, device: PulsedDevice | None, cells: Cells | None, target: Any) -> int:
    """Program flat float32 weights in place and return the pulses fired.

    Each cell gets the number of its own up or down steps that brings it nearest to its target, read back and
    verified, so that it ends within half a step of the target as clipped to its bounds, if `MOST_PULSES` reach it.
    Cells without steps (``None``: digital weights) are copied exactly, without pulses.
    """
    if device is None or cells is None:
        weights[:] = target
        return 0
    if device.step_depends_on_weight:
        return _step_by_step(weights, device, cells, target)
    xp = namespace(weights, target)
    missing = xp.minimum(xp.maximum(target, cells.lower), cells.upper) - weights
    step = xp.where(missing < 0, cells.down, cells.up)
    # a device whose step was drawn as 0 cannot move
    pulses = xp.rint(missing / xp.where(step > 0, step, xp.float32(xp.inf)))
    weights[:] = xp.minimum(xp.maximum(weights + pulses * step, cells.lower), cells.upper)
    return int(xp.abs(pulses).sum(dtype="float64"))


def _step_by_step(weights: Any, device: PulsedDevice, cells: Cells, target: Any) -> int:
    """Pulse after pulse of the mean size that the law gives it, as long as one brings its cell nearer."""
    wanted = np.minimum(np.maximum(target, cells.lower), cells.upper)
    lowers = wanted < weights
    left, fired = np.flatnonzero(wanted != weights), 0
    for _ in range(MOST_PULSES):
        here, of_left = weights[left], Cells(*(array[left] for array in cells))
        moved = device.fire(here, lowers[left], np.float32(0), of_left)
        nearer = np.abs(moved - wanted[left]) < np.abs(here - wanted[left])
        left = left[nearer]
        weights[left] = moved[nearer]
        fired += len(left)
        if len(left) == 0:
            break
    return fired
