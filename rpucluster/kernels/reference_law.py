"""Pulses and time on devices that are not plain, in NumPy: the specification of the compiled kernels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.devices import Cells, Int16
from rpucluster.kernels.base import NOISE_KEY, RELAXATION_KEY, REPLAY_KEY
from rpucluster.kernels.update_rule import UpdateRule
from rpucluster.rng import Float32, Key, block_normals, normals, philox

F32 = np.float32
ALONE = 31
"""Number of the draw, among the 32 of a cell in REPLAY_NOISE, of the pulses on one line alone."""


def fire_cells(
    w: Float32, hidden: Float32 | None, cells: Cells, keys: list[Key], counts: NDArray[Any], lowers: NDArray[Any],
    alone: NDArray[Any] | None, sample: int, rule: UpdateRule,
) -> None:  # fmt: skip
    """Change the weights (rows, cols) of a tile by a sample: a cell's coincidences one by one, then its ``alone``.

    ``alone`` counts the pulses on one of a cell's two lines; None where only coincidences are fired.  Noise of the
    first coincidence is numbered along the row, as on plain devices, so that compiled code can make it in one go.
    """
    device: Any = rule.device
    noisy = device.dw_min_std > 0
    moved = w if hidden is None else hidden
    for i in range(len(w)):
        hit = np.flatnonzero(counts[i])
        n, falls, of_hits = counts[i, hit], lowers[i, hit], Cells(*(array[i, hit] for array in cells))
        cell, here = i * w.shape[1] + hit, moved[i, hit]
        for m in range(int(n.max(initial=0))):
            z = np.zeros(len(hit), F32)
            if noisy:
                z = normals(keys[NOISE_KEY], len(hit), sample, round=i) if m == 0 else _drawn(keys, cell, m, sample)
            here = np.where(n > m, device.fire(here, falls, z, of_hits), here)
        moved[i, hit] = here
    touched = counts > 0
    if device.half_select > 0 and alone is not None:
        half = np.flatnonzero(alone)
        z = _drawn(keys, half, ALONE, sample) if noisy else np.zeros(len(half), F32)
        of_half = Cells(*(array.reshape(-1)[half] for array in cells))
        n, falls = alone.reshape(-1)[half].astype(F32), lowers.reshape(-1)[half]
        moved.reshape(-1)[half] = device.half_selected(moved.reshape(-1)[half], falls, n, z, of_half)
        touched |= alone > 0
    if hidden is not None:
        again = np.flatnonzero(touched)
        w.reshape(-1)[again] = device.written(hidden.reshape(-1)[again], _drawn(keys, again, 0, sample))


def relax_tile(
    w: Float32, hidden: Float32 | None, lanes: Int16, keys: list[Key], first_sample: int, rule: UpdateRule
) -> None:
    """What the time of an update operation does to the weights (rows, cols) of a tile, and then the write noise."""
    device: Any = rule.device
    lanes = lanes.reshape(len(lanes), -1)
    moved = (w if hidden is None else hidden).reshape(-1)
    z = normals(keys[RELAXATION_KEY], w.size, first_sample) if device.diffusion > 0 else np.zeros(w.size, F32)
    moved[:] = device.relaxed(moved, z, device.relaxation(lanes), device.cells(lanes))
    if hidden is not None:
        w.reshape(-1)[:] = device.written(moved, normals(keys[RELAXATION_KEY], w.size, first_sample, round=1))


def _drawn(keys: list[Key], cell: NDArray[Any], m: int, sample: int) -> Float32:
    """Normal 32 * cell + m of REPLAY_NOISE for each cell."""
    words = philox((cell * 8 + m // 4, sample & 0xFFFFFFFF, sample >> 32, 0), keys[REPLAY_KEY])
    drawn: Float32 = block_normals(words)[m % 4]
    return drawn
