"""A digital matrix programmed row by row: what becomes of a dense gradient."""

from types import ModuleType
from typing import Any, Final

import numpy as np

from rpucluster.algorithms.base import Moved
from rpucluster.algorithms.plane import Plane
from rpucluster.kernels import COLS, ROW0, ROWS, Kernels, Tiling, UpdateRule

_LINES_TOGETHER: Final = 1 << 22
"""Numbers of the rows that are on, made in one go."""


def write_rows(
    kernels: Kernels, xp: ModuleType, plane: Plane, table: Any, gradient: Any, lr: float, number: int, rule: UpdateRule
) -> Moved:
    """Change the weights of a plane by about ``-lr`` times a gradient, float32 (rows, cols).

    Each row of a tile is one pulse cycle: its line is on in every slot, the lines of the columns fire trains with the
    probability |lr g| / (BL dw) of each slot, dw the device's granularity, so that the mean change is -lr g up to BL
    steps, beyond which it is clipped.  The rows of a tile come one after the other, tiles work at once.  The cycle of
    row i of a tile has the random numbers of sample ``number`` + i.  `table` is the tile table on the host.

    Raises `NumericalError` for a gradient that is not finite.
    """
    rule = rule._replace(noise_per_batch=False, update_management=False, dynamic_bit_length=False)
    unit = np.float32(rule.device.granularity) * np.float32(rule.bit_length)
    pulses = 0
    for top in np.unique(table[:, ROW0]).tolist():
        chosen = np.flatnonzero(table[:, ROW0] == top)
        part = table[chosen]
        tall = int(part[0, ROWS])
        part[:, ROW0] = 0
        tiling = Tiling(
            table=xp.asarray(part),
            tiles=len(part),
            rows=tall,
            cols=gradient.shape[1],
            tile_rows=tall,
            tile_cols=int(part[:, COLS].max()),
        )
        keys = xp.ascontiguousarray(plane.keys[chosen[0] : chosen[-1] + 1])  # tiles of a row follow each other
        x = gradient[top : top + tall] * np.float32(lr / unit)  # (tall, cols): a sample for each row
        together = max(1, _LINES_TOGETHER // tall)
        for first in range(0, tall, together):
            band = x[first : first + together]  # (band, cols)
            on = xp.eye(len(band), tall, first, dtype="f4")  # (band, tall)
            pulses += kernels.pulsed_update(
                plane.weights, plane.lanes, tiling, keys, band, on, float(unit), number + first, rule, plane.hidden
            ).coincidences
    return Moved(line_slots=int(table[:, ROWS].sum()) * rule.bit_length, line_pulses=pulses)
