"""Transfers between planes and flushes of a digital matrix on the CPU, compiled by Numba."""

from typing import Any

import numpy as np

from rpucluster.kernels.base import COL0, COLS, D_KEY, OFFSET, ROW0, ROWS
from rpucluster.kernels.cpu_chunk import HITS, Shard, new_chunk
from rpucluster.kernels.cpu_hits import add_group, flush
from rpucluster.kernels.cpu_random import compiled, fill_normals, philox, popcount
from rpucluster.kernels.cpu_trains import COUNT_AT, SIGN
from rpucluster.kernels.transfer import (
    ALL_WORDS,
    BUFFERED,
    CHOP_EVERY,
    CHOP_RANDOM,
    CHOPPER_KEY,
    COLUMN_READ_KEY,
    COLUMNS,
    DYNAMIC_REFERENCE,
    FORGET,
    MEMORY,
    MOMENTUM,
    OUTPUT_LIMIT,
    OUTPUT_STEP,
    PULSE_UNIT,
    READ_NOISE,
    THRESHOLD,
)
from rpucluster.kernels.update_rule import BIT_LENGTH, GENERAL

_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_U0, _U1, _U3 = np.uint64(0), np.uint64(1), np.uint64(3)
_ZERO, _ONE = np.float32(0), np.float32(1)
_0 = np.int64(0)
_NO_SIGN = np.uint32(0)


@compiled
def _hit(column: Any, count: Any) -> Any:
    """A hit of so many pulses, negative where they lower the weight, as `cpu_hits` takes it."""
    return np.uint32(column) | np.uint32(abs(count)) << COUNT_AT | (SIGN if count < 0 else _NO_SIGN)


@compiled
def _whole_pulses(held: Any, threshold: Any, slots: Any) -> Any:
    return min(max(np.float32(np.trunc(held / threshold)), -slots), slots)


@compiled
def _read_column(w: Any, noise: Any, step: Any, limit: Any, key: Any, sample: int, number: int, z: Any, y: Any) -> None:
    """A column ``w`` as a pass with its input alone, fully on, gives it: noise, ADC."""
    if noise > _ZERO:
        fill_normals(z, _0, (len(w) + 31 >> 5) << 3, key[0], key[1], sample, number)
        for i in range(len(w)):
            y[i] = w[i] + noise * z[i]
    else:
        for i in range(len(w)):
            y[i] = w[i]
    for i in range(len(w)):
        value = np.rint(y[i] / step) if step > _ZERO else y[i]
        value = min(max(value, -limit), limit)
        y[i] = value * step if step > _ZERO else value


@compiled
def _switches(age: Any, key: Any, sample: int, number: int, ints: Any) -> bool:
    """Whether a column changes its sign after this read."""
    if ints[CHOP_EVERY] == 0:
        return False
    if ints[CHOP_RANDOM] == 0:
        return bool(np.int64(age) + 1 >= ints[CHOP_EVERY])
    n, s = np.uint64(number), np.uint64(sample)
    words = philox(n >> np.uint64(2), s & _MASK, s >> _32, _U0, np.uint64(key[0]), np.uint64(key[1]))
    lane = n & _U3
    word = words[0] if lane == _U0 else words[1] if lane == _U1 else words[2] if lane == np.uint64(2) else words[3]
    return bool(np.int64(word) < ALL_WORDS // ints[CHOP_EVERY])


@compiled
def _accumulate(
    y: Any,
    buffer: Any,
    mean: Any,
    reference: Any,
    gain: Any,
    age: Any,
    switch: bool,
    ints: Any,
    floats: Any,
    slots: Any,
    counts: Any,
    wanted: Any,
) -> None:
    """Readings of a column into its buffer, and the pulses that the buffer is good for; views of one column."""
    dynamic, buffered, forget = ints[DYNAMIC_REFERENCE] != 0, ints[BUFFERED] != 0, ints[FORGET] != 0
    threshold, keep, memory = floats[THRESHOLD], floats[MOMENTUM], floats[MEMORY]
    for i in range(len(y)):
        change = y[i]
        if dynamic:
            change = y[i] - reference[i]
            now = y[i] if age == 0 else mean[i] + memory * (y[i] - mean[i])
            mean[i] = now
            if switch:
                reference[i] = now
        value = gain * change
        wanted[i] = value
        if buffered:
            held = buffer[i] + value
            n = _whole_pulses(held, threshold, slots)
            if n != _ZERO:
                buffer[i] = keep * held if forget else held - (n * threshold) * (_ONE - keep)
            else:
                buffer[i] = held
            counts[i] = np.int32(n)


@compiled
def _trains(wanted: Any, first_line: Any, key: Any, sample: int, unit: Any, slots: int, counts: Any) -> None:
    """Pulses of stochastic trains of the rows, whose lines in the stream start at ``first_line``."""
    low, high = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    gain = _ONE / unit
    for i in range(len(wanted)):
        p = min(abs(wanted[i]) * gain, _ONE)
        exact = np.float64(p) * 4294967296.0
        limit = np.uint64(np.ceil(exact))
        n = _0
        for block in range((slots + 3) // 4 if p > _ZERO else 0):
            w0, w1, w2, w3 = philox(np.uint64(first_line + i) * np.uint64(8) + np.uint64(block), low, high, _U0, k0, k1)
            fired = np.uint32(w0 < limit) | np.uint32(w1 < limit) << 1
            fired |= np.uint32(w2 < limit) << 2 | np.uint32(w3 < limit) << 3
            rest = slots - 4 * block
            n += np.int64(popcount(np.uint32(fired & ((1 << rest) - 1 if rest < 4 else 15))))
        counts[i] = np.int32(-n if wanted[i] < _ZERO else n)


@compiled
def transfer_columns(
    fast: Any, slow: Any, hidden: Any, lanes: Any, table: Any, keys: Any, column_keys: Any, update_ints: Any,
    update_floats: Any, ints: Any, floats: Any, gains: Any, buffer: Any, mean: Any, reference: Any, choppers: Any,
    ages: Any, sample: int, start: int,
) -> Any:  # fmt: skip
    """Transfer columns of all tiles; returns the pulses."""
    shard = Shard(slow, hidden, lanes.view(np.int64), table, keys, update_ints, update_floats)
    chunk = new_chunk(ints[COLUMNS], update_ints[GENERAL] != 0)
    most_rows = table[:, ROWS].max()
    z, y = np.zeros(most_rows + 32, np.float32), np.empty(most_rows, np.float32)
    together = min(ints[COLUMNS], table[:, COLS].max())
    counts = np.zeros((together, most_rows), np.int32)
    wanted = np.zeros(most_rows, np.float32)
    slots = update_ints[BIT_LENGTH]
    pulses = _0
    for t in range(len(table)):
        rows, cols, offset, col0 = table[t, ROWS], table[t, COLS], table[t, OFFSET], table[t, COL0]
        columns, first = min(ints[COLUMNS], cols), start % cols
        for number in range(columns):
            j = (first + number) % cols
            cells = slice(offset + j, offset + rows * cols, cols)
            age = ages[col0 + j]
            switch = _switches(age, column_keys[t, CHOPPER_KEY], sample, number, ints)
            _read_column(
                fast[cells], floats[READ_NOISE], floats[OUTPUT_STEP], floats[OUTPUT_LIMIT],
                column_keys[t, COLUMN_READ_KEY], sample, number, z, y[:rows],
            )  # fmt: skip
            gain = gains[t] * choppers[col0 + j]
            _accumulate(
                y[:rows], buffer[cells], mean[cells], reference[cells], gain, age, switch, ints, floats,
                np.float32(slots), counts[number], wanted,
            )  # fmt: skip
            if ints[BUFFERED] == 0:
                _trains(wanted[:rows], number * rows, keys[t, D_KEY], sample, floats[PULSE_UNIT], slots, counts[number])
        wrapped = cols - first if first + columns > cols else _0  # number of the column that comes first on the tile
        for i in range(rows):
            listed, total = _0, _0
            for k in range(columns):
                number = (wrapped + k) % columns
                n = counts[number, i]
                if n != 0:
                    chunk.tags[chunk.fill[HITS] + listed] = _hit((first + number) % cols, n)
                    listed += 1
                    total += np.int64(abs(n))
            if listed > 0:
                add_group(shard, chunk, listed, total != listed, t, i, sample)
            pulses += total
    flush(shard, chunk)
    for t in range(len(table)):
        if table[t, ROW0] != 0 or ints[CHOP_EVERY] + ints[DYNAMIC_REFERENCE] == 0:
            continue
        cols, col0 = table[t, COLS], table[t, COL0]
        for number in range(min(ints[COLUMNS], cols)):
            j = col0 + (start + number) % cols
            if _switches(ages[j], column_keys[t, CHOPPER_KEY], sample, number, ints):
                ages[j] = 0
                choppers[j] = -choppers[j]
            else:
                ages[j] += 1
    return pulses


@compiled
def flush_rows(
    weights: Any, hidden: Any, lanes: Any, table: Any, keys: Any, update_ints: Any, update_floats: Any, held: Any,
    threshold: Any, sample: int,
) -> Any:  # fmt: skip
    """Fire the whole pulses of a digital matrix; returns how many."""
    shard = Shard(weights, hidden, lanes.view(np.int64), table, keys, update_ints, update_floats)
    chunk = new_chunk(table[:, COLS].max(), update_ints[GENERAL] != 0)
    slots = np.float32(update_ints[BIT_LENGTH])
    pulses = _0
    for t in range(len(table)):
        rows, cols, offset = table[t, ROWS], table[t, COLS], table[t, OFFSET]
        for i in range(rows):
            row = held[offset + i * cols : offset + (i + 1) * cols]
            due = _0
            for j in range(cols):
                due += np.int64(abs(row[j]) >= threshold)
            if due == 0:
                continue
            listed, total = _0, _0
            for j in range(cols):
                n = _whole_pulses(row[j], threshold, slots)
                if n != _ZERO:
                    row[j] -= n * threshold
                    chunk.tags[chunk.fill[HITS] + listed] = _hit(j, np.int32(n))
                    listed += 1
                    total += np.int64(abs(n))
            if listed > 0:
                add_group(shard, chunk, listed, total != listed, t, i, sample)
            pulses += total
    flush(shard, chunk)
    return pulses
