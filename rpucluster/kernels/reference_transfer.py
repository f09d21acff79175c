"""Transfers and flushes on one tile, each operation once, in NumPy: the specification of the compiled kernels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.devices import Int16
from rpucluster.kernels.base import D_KEY
from rpucluster.kernels.read_rule import ReadRule
from rpucluster.kernels.reference_update import SLOTS, apply_sample, pulse_trains
from rpucluster.kernels.transfer import (
    ALL_WORDS,
    CHOPPER_KEY,
    COLUMN_READ_KEY,
    FlushRule,
    TransferRule,
    TransferState,
    pulse_unit,
)
from rpucluster.rng import Float32, Key, normals, uniform_u32

F32 = np.float32


def columns_of(start: int, columns: int, cols: int) -> list[int]:
    """The columns, ascending, that a transfer with the pointer ``start`` takes of a tile of so many."""
    return sorted((start + r) % cols for r in range(min(columns, cols)))


def read_column(w: Float32, key: Key, sample: int, number: int, rule: ReadRule) -> Float32:
    """Weights (rows,) of a column as a pass with its input alone, fully on, gives them: noise, ADC."""
    y = w
    if rule.read_noise > 0:
        y = y + F32(rule.read_noise) * normals(key, len(w), sample, round=number)
    step, limit = F32(rule.output_step or 1.0), F32(rule.limit)
    if rule.output_levels:
        y = np.rint(y / step)
    result: Float32 = np.minimum(np.maximum(y, -limit), limit) * step
    return result


def switches(age: int, key: Key, sample: int, number: int, rule: TransferRule) -> bool:
    """Whether a column changes its sign after a read; ``age`` is how often it was read since the last change."""
    if rule.chop_every == 0:
        return False
    if rule.chop_random:
        return int(uniform_u32(key, 1, sample, first=number)[0]) < ALL_WORDS // rule.chop_every
    return age + 1 >= rule.chop_every


def whole_pulses(held: Float32, threshold: float, slots: int) -> Float32:
    """Pulses, with their sign, that the contents of a buffer are good for; float32."""
    pulses: Float32 = np.minimum(np.maximum(np.trunc(held / F32(threshold)), F32(-slots)), F32(slots))
    return pulses


def transfer_tile(
    fast: Float32, slow: Float32, lanes: Int16, keys: list[Key], column_keys: list[Key], gain: F32,
    state: TransferState, sample: int, start: int, rule: TransferRule, hidden: Float32 | None = None,
) -> int:  # fmt: skip
    """Transfer columns of a tile; returns the pulses.  Planes, buffer, mean and reference are (rows, cols) or empty.

    A reading y of a column under the sign c adds (gain c) (y - reference) to the buffer, the reference being 0 unless
    it is dynamic.  Signs and ages are the same for all tiles of a column of tiles, and not changed here.
    """
    rows, cols = slow.shape
    slots = rule.update.bit_length
    counts, lowers = np.zeros(slow.shape, np.int64), np.zeros(slow.shape, np.bool_)
    columns = columns_of(start, rule.columns, cols)
    wanted = np.zeros((len(columns), rows), F32)
    for j in columns:
        number = (j - start) % cols
        y = read_column(fast[:, j], column_keys[COLUMN_READ_KEY], sample, number, rule.read)
        if rule.dynamic_reference:
            change = y - state.reference[:, j]
            mean = y if state.ages[j] == 0 else state.mean[:, j] + F32(rule.memory) * (y - state.mean[:, j])
            state.mean[:, j] = mean
            if switches(int(state.ages[j]), column_keys[CHOPPER_KEY], sample, number, rule):
                state.reference[:, j] = mean
        else:
            change = y
        wanted[number] = (gain * state.choppers[j]) * change
        if rule.buffered:
            held = state.buffer[:, j] + wanted[number]
            n = whole_pulses(held, rule.threshold, slots)
            keep = F32(rule.momentum)
            left = keep * held if rule.forget else held - (n * F32(rule.threshold)) * (F32(1) - keep)
            state.buffer[:, j] = np.where(n != 0, left, held)
            counts[:, j], lowers[:, j] = np.abs(n), n < 0
    if not rule.buffered:  # trains of the rows, while the lines of the columns are always on
        per_pulse = F32(1) / F32(pulse_unit(rule.update))
        trains, _ = pulse_trains(wanted.reshape(-1), per_pulse, slots, keys[D_KEY], sample)
        for j in columns:
            words = trains.reshape(-1, rows)[(j - start) % cols]
            counts[:, j], lowers[:, j] = np.bitwise_count(words & SLOTS), words > SLOTS
    apply_sample(slow, rule.update.device.cells(lanes), keys, counts, lowers, sample, rule.update, hidden)
    return int(counts.sum())


def flush_tile(
    w: Float32, lanes: Int16, keys: list[Key], held: Float32, sample: int, rule: FlushRule,
    hidden: Float32 | None = None,
) -> int:  # fmt: skip
    """Fire the whole pulses that a digital matrix (rows, cols) holds, and take them out; returns the pulses."""
    n = whole_pulses(held, rule.threshold, rule.update.bit_length)
    held -= n * F32(rule.threshold)
    counts: NDArray[Any] = np.abs(n).astype(np.int64)
    apply_sample(w, rule.update.device.cells(lanes), keys, counts, n < 0, sample, rule.update, hidden)
    return int(counts.sum())
