"""Write-verify programming: bring weights to given values with single pulses."""

from typing import Any

from rpucluster.arrays import namespace
from rpucluster.devices import Cells


def program(weights: Any, cells: Cells | None, target: Any) -> int:
    """Program flat float32 weights in place and return the pulses fired.

    Each cell gets the number of its own up or down steps that brings it nearest to its target, read back and
    verified, so that it ends within half a step of the target as clipped to its bounds.  Cells without steps
    (``None``: digital weights) are copied exactly, without pulses.
    """
    if cells is None:
        weights[:] = target
        return 0
    xp = namespace(weights, target)
    missing = xp.minimum(xp.maximum(target, cells.lower), cells.upper) - weights
    step = xp.where(missing < 0, cells.down, cells.up)
    # a device whose step was drawn as 0 cannot move
    pulses = xp.rint(missing / xp.where(step > 0, step, xp.float32(xp.inf)))
    weights[:] = xp.minimum(xp.maximum(weights + pulses * step, cells.lower), cells.upper)
    return int(xp.abs(pulses).sum(dtype="float64"))
