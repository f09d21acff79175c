"""The interpreter: performs rows of a tape, step after step, in one compiled call."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels import cpu_update, step
from rpucluster.kernels.base import UPDATE_KEYS
from rpucluster.kernels.cpu_digital import activate, derive, score
from rpucluster.kernels.cpu_general import relax
from rpucluster.kernels.cpu_random import compiled, inlined
from rpucluster.kernels.cpu_read import FINE, NOT_FINITE, OUT_OF_RANGE, exact_read, from_fixed, read
from rpucluster.kernels.cpu_update import exact_update, pulsed_update
from rpucluster.kernels.read_rule import READ_FLOATS, READ_INTS
from rpucluster.kernels.update_rule import DIFFUSION, LIFETIME, UPDATE_FLOATS, UPDATE_INTS

_0 = np.int64(0)


class _Shard(NamedTuple):
    """One shard's part of the accelerator's arrays."""

    weights: Any
    lanes: Any
    table: Any
    tile: int
    rows: int
    cols: int
    pulsed: bool


@compiled
def _shard(memory: Any, slot: int) -> Any:
    place = memory.shards[slot]
    return _Shard(
        memory.weights[place[step.CELL] : place[step.CELL_STOP]],
        memory.lanes[place[step.LANE] : place[step.LANE_STOP]],
        memory.table[place[step.TILE] : place[step.TILE_STOP]],
        place[step.TILE],
        place[step.LINES_OUT],
        place[step.LINES_IN],
        place[step.PULSED] != 0,
    )


@compiled
def _vectors(arena: Any, row: Any, window: int, width: int) -> Any:
    """All vectors of a window that is whole: (vectors, width)."""
    start, count = row[window + step.START], row[step.ROWS]
    return arena[start : start + count * width].reshape(count, width)


@compiled
def _vector(arena: Any, row: Any, window: int, number: int) -> Any:
    """One vector of a window: (width,)."""
    start = row[window + step.START] + number * row[window + step.STRIDE] + row[window + step.FIRST]
    return arena[start : start + row[step.WIDTH]]


@inlined
def _read(row: Any, memory: Any, floats: Any, fixed: Any, sample: int) -> Any:
    """Perform a READ; returns how it ended."""
    shard, mode = _shard(memory, row[step.SLOT]), row[step.MODE]
    backward = mode == step.BACKWARD
    lines = _vectors(floats, row, step.A, shard.rows if backward else shard.cols)
    sums = _vectors(fixed, row, step.B, shard.cols if backward else shard.rows)
    sums[:] = _0
    memory.counts[step.PASSES] += len(lines) * len(shard.table)
    if not shard.pulsed:
        return np.int64(exact_read(shard.weights, shard.table, lines, sums, backward))
    first, stop, direction = shard.tile, shard.tile + len(shard.table), np.int64(backward)
    ints, numbers = memory.read_ints[row[step.SLOT], direction], memory.read_floats[row[step.SLOT], direction]
    repeats, end = read(
        shard.weights, shard.table, memory.read_keys[mode, first:stop], memory.averages[direction, first:stop],
        ints, numbers, lines, sums, sample, backward, mode != step.EVALUATE,
    )  # fmt: skip
    memory.counts[step.REPEATS] += repeats
    return np.int64(end)


@inlined
def _update(row: Any, memory: Any, floats: Any, sample: int, rate: Any) -> Any:
    """Perform an UPDATE; returns how it ended."""
    slot, counts = row[step.SLOT], memory.counts
    shard = _shard(memory, slot)
    x, d = _vectors(floats, row, step.A, shard.cols), _vectors(floats, row, step.B, shard.rows)
    counts[step.CYCLES] += len(x) * len(shard.table)
    if shard.pulsed:
        ints, numbers = memory.update_ints[slot], memory.update_floats[slot]
        no_cells = shard.weights[:0]  # shards with hidden weights are not updated here
        keys = memory.update_keys[shard.tile : shard.tile + len(shard.table)]
        slots, coincidences, expected, finite = pulsed_update(
            shard.weights, no_cells, shard.lanes, shard.table, keys, ints, numbers, x, d, rate, sample
        )
        if finite and (numbers[LIFETIME] > 0 or numbers[DIFFUSION] > 0):
            relax(shard.weights, no_cells, shard.lanes, shard.table, keys, ints, numbers, sample)
        counts[step.SLOTS] += slots
        counts[step.COINCIDENCES] += coincidences
        memory.sums[step.EXPECTED] += expected
    else:
        finite = exact_update(shard.weights, shard.table, x, d, rate)
    return np.int64(FINE if finite else NOT_FINITE)


@inlined
def _move(row: Any, memory: Any, floats: Any, fixed: Any, feed: Any, number: int) -> Any:
    """Perform a LOAD, COPY, ERROR, ACTIVATE or DERIVE, vector by vector; returns how it ended."""
    code, place = row[step.CODE], memory.shards[row[step.SLOT]]
    inside = True
    for b in range(row[step.ROWS]):
        to = _vector(floats, row, step.B, b)
        if code == step.LOAD:
            first = row[step.MODE]
            to[:] = feed.x[feed.indices[number, row[step.SAMPLE] + b], first : first + len(to)]
        elif code == step.COPY:
            to[:] = _vector(floats, row, step.A, b)
        elif code == step.DERIVE:
            derive(place[step.FUNCTION], _vector(floats, row, step.A, b), to, _vector(floats, row, step.C, b))
        else:
            inside &= from_fixed(_vector(fixed, row, step.A, b), to)
            if code == step.ACTIVATE:
                bias = place[step.BIAS_START]
                if bias >= 0:
                    to += memory.biases[bias : bias + len(to)]
                activate(place[step.FUNCTION], to)
    return np.int64(FINE if inside else OUT_OF_RANGE)


@inlined
def _score(row: Any, memory: Any, floats: Any, feed: Any, number: int) -> None:
    """Perform a SCORE."""
    loss, hits = 0.0, _0
    for b in range(row[step.ROWS]):
        label = feed.y[feed.indices[number, row[step.SAMPLE] + b]]
        of_sample, hit = score(_vector(floats, row, step.A, b), label, _vector(floats, row, step.B, b))
        loss += of_sample
        hits += np.int64(hit)
    if row[step.MODE] != 0:
        memory.sums[step.LOSS] += loss
        memory.counts[step.HITS] += hits
        memory.counts[step.SCORED] += row[step.ROWS]


@inlined
def _train_bias(row: Any, memory: Any, floats: Any, rate: Any) -> None:
    """Perform a BIAS: the errors of the batch are added one after the other, whatever the width of the shard."""
    total = _vector(floats, row, step.A, _0).copy()
    for b in range(1, row[step.ROWS]):
        total += _vector(floats, row, step.A, b)
    first = memory.shards[row[step.SLOT], step.BIAS_START]
    for j in range(len(total)):
        memory.biases[first + j] -= rate * total[j]


@compiled
def perform(
    tape: Any, start: int, stop: int, memory: Any, floats: Any, fixed: Any, done: Any, feed: Any, first: int, last: int
) -> Any:
    """Perform rows start to stop of a tape for steps first to last; returns how it ended, and at which row.

    ``done`` int64 counts, by operation of the program, the vectors that went through tiles.
    """
    for number in range(first, last):
        for r in range(start, stop):
            row = tape[r]
            code, end = row[step.CODE], np.int64(FINE)
            sample = feed.first_sample + number * feed.indices.shape[1] + row[step.SAMPLE]
            if code in (step.READ, step.UPDATE):
                place = memory.shards[row[step.SLOT]]
                done[row[step.OPERATION]] += row[step.ROWS] * (place[step.TILE_STOP] - place[step.TILE])
            if code == step.READ:
                end = _read(row, memory, floats, fixed, sample)
            elif code == step.UPDATE:
                end = _update(row, memory, floats, sample, feed.learning_rate)
            elif code == step.SCORE:
                _score(row, memory, floats, feed, number)
            elif code == step.BIAS:
                _train_bias(row, memory, floats, feed.learning_rate)
            else:
                end = _move(row, memory, floats, fixed, feed, number)
            if end != FINE:
                return end, r
    return np.int64(FINE), _0


def prepare(tape: Any, start: int, stop: int, memory: Any, floats: Any, fixed: Any, done: Any) -> Callable[..., Any]:
    """`perform` of these rows, with all that they call loaded."""
    for kernel in (read, exact_read, pulsed_update, exact_update, activate, derive, score):
        kernel.load()
    cpu_update.load(memory.update_ints, memory.update_floats)
    return partial(perform, tape, start, stop, memory, floats, fixed, done)


def warm_up() -> None:
    """Load or compile `perform`, on nothing."""
    memory = step.Memory(
        shards=np.zeros((0, step.SHARD_COLUMNS), np.int64),
        weights=np.zeros(0, np.float32),
        lanes=np.zeros(0, np.int16),
        table=np.zeros((0, 5), np.int64),
        update_keys=np.zeros((0, UPDATE_KEYS, 2), np.uint32),
        read_keys=np.zeros((3, 0, 2), np.uint32),
        update_ints=np.zeros((0, UPDATE_INTS), np.int64),
        update_floats=np.zeros((0, UPDATE_FLOATS), np.float32),
        read_ints=np.zeros((0, 2, READ_INTS), np.int64),
        read_floats=np.zeros((0, 2, READ_FLOATS), np.float32),
        averages=np.zeros((2, 0), np.float32),
        biases=np.zeros(0, np.float32),
        counts=np.zeros(step.COUNTS, np.int64),
        sums=np.zeros(2, np.float64),
    )
    feed = step.Feed(
        x=step.constant(np.zeros((0, 0), np.float32)),
        y=step.constant(np.zeros(0, np.int64)),
        indices=step.constant(np.zeros((0, 0), np.int64)),
        first_sample=0,
        learning_rate=np.float32(0),
    )
    tape, floats, fixed = np.zeros((0, step.TAPE_COLUMNS), np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64)
    prepare(tape, 0, 0, memory, floats, fixed, np.zeros(0, np.int64))(feed, 0, 0)
