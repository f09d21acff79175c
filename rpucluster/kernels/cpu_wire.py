"""Voltage drop along the output lines on the CPU; `reference_read.voltage_drop` derives it."""

from typing import Any

import numpy as np

from rpucluster.kernels.cpu_random import compiled
from rpucluster.kernels.read_rule import BASELINE, WIRE

_ZERO, _HALF, _TWO = np.float32(0), np.float32(0.5), np.float32(2)


@compiled
def add_drops(
    w: Any,
    start: int,
    rows: int,
    cols: int,
    step: int,
    floats: Any,
    backward: bool,
    v: Any,
    sv: int,
    y: Any,
    sy: int,
    samples: int,
) -> None:
    """Take the drop of each line from the outputs y of some samples; arrays as for `backward_product`."""
    wire, twice = floats[WIRE] * _HALF, floats[BASELINE] * _TWO
    for b in range(samples):
        sent = v[b * sv : (b + 1) * sv]
        out = y[b * sy : (b + 1) * sy]
        if backward:
            _drops_of_columns(w, start, rows, cols, step, wire, twice, sent, out)
        else:
            for i in range(rows):
                out[i] -= wire * _drop_of_row(w[start + i * step : start + i * step + cols], twice, sent)


@compiled
def _drop_of_row(w: Any, twice: Any, v: Any) -> Any:
    """Sum over the segments of the line of current times conductance before it, both as prefix sums."""
    current = currents = conductance = conductances = lost = _ZERO
    for j in range(len(w)):
        both = abs(w[j]) + twice
        current += w[j] * v[j]
        currents += both * v[j]
        conductance += w[j]
        conductances += both
        lost += current * conductances + currents * conductance
    return lost


@compiled
def _drops_of_columns(
    w: Any, start: int, rows: int, cols: int, step: int, wire: Any, twice: Any, v: Any, y: Any
) -> None:
    """As `_drop_of_row` for all columns at a time."""
    current, currents = np.zeros(cols, np.float32), np.zeros(cols, np.float32)
    conductance, conductances = np.zeros(cols, np.float32), np.zeros(cols, np.float32)
    lost = np.zeros(cols, np.float32)
    for i in range(rows):
        row, sent = w[start + i * step : start + i * step + cols], v[i]
        for j in range(cols):
            both = abs(row[j]) + twice
            current[j] += row[j] * sent
            currents[j] += both * sent
            conductance[j] += row[j]
            conductances[j] += both
            lost[j] += current[j] * conductances[j] + currents[j] * conductance[j]
    for j in range(cols):
        y[j] -= wire * lost[j]
