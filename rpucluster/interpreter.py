"""Performs rows of a tape with array operations: for arrays of a GPU, and for what compiled code leaves to BLAS, to
threads or to a grid of a kind of its own.  What it computes has the bits of `rpucluster.kernels.cpu_step`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from rpucluster.errors import NumericalError
from rpucluster.holdings import Held
from rpucluster.kernels import digital_units, step
from rpucluster.rng import Purpose
from rpucluster.tape import Tape, Window
from rpucluster.tile import TileGrid
from rpucluster.tile_counts import PulseCount, ReadCount

Array = Any  # a NumPy or CuPy array

_PURPOSES = {step.FORWARD: Purpose.READ_FORWARD, step.EVALUATE: Purpose.EVALUATE}


class Interpreter:
    """The values of one tape, and what performs its rows one by one.

    `held` are the accelerator's shards by slot; `counts` and `sums` those of `step.Memory`, on the host.
    """

    def __init__(self, xp: ModuleType, tape: Tape, held: Sequence[Held], counts: Any, sums: Any) -> None:
        self.floats, self.fixed = xp.zeros(tape.floats, "f4"), xp.zeros(tape.fixed, "i8")
        for window in tape.bias_lines():
            window.of(self.floats)[:] = 1
        self._xp, self._held, self._counts, self._sums = xp, held, counts, sums
        self._digital = digital_units(xp)
        self._rows = tape.rows.tolist()
        self._views = [[self.view(window) for window in windows] for windows in tape.windows]

    def view(self, window: Window) -> Array:
        """A window of the tape as an array (vectors, width) that shares its memory."""
        return window.of(self.fixed if window.fixed else self.floats)

    def array(self, payload: Any) -> Array:
        """What came from elsewhere as an array of this module."""
        return self._xp.asarray(payload)

    def perform(self, index: int, feed: step.Feed, performance: int) -> int:
        """Perform a row for one step of a feed; returns the vectors that went through tiles.

        Raises `NumericalError`, which names the layer.
        """
        row, views = self._rows[index], self._views[index]
        held = self._held[row[step.SLOT]]
        function = held.shard.layer.activation
        first, vectors = row[step.SAMPLE], row[step.ROWS]
        sample = int(feed.first_sample) + performance * feed.indices.shape[1] + first
        match row[step.CODE]:
            case step.LOAD:
                chosen = feed.indices[performance, first : first + vectors]
                views[1][:] = feed.x[chosen, row[step.MODE] : row[step.MODE] + row[step.WIDTH]]
            case step.COPY:
                views[1][:] = views[0]
            case step.READ:
                return self._read(held.grid, row[step.MODE], views, sample)
            case step.ACTIVATE:
                with _layer_named(held):
                    self._digital.activate(function, views[0], held.bias, views[1])
            case step.SCORE:
                labels = feed.y[feed.indices[performance, first : first + vectors]]
                loss, hits = self._digital.score(views[0], labels, views[1])
                if row[step.MODE]:
                    self._sums[step.LOSS] += loss
                    self._counts[step.HITS] += hits
                    self._counts[step.SCORED] += vectors
            case step.ERROR:
                with _layer_named(held):
                    self._digital.convert(views[0], views[1])
            case step.DERIVE:
                self._digital.derive(function, *views)
            case step.UPDATE:
                return self._update(held.grid, views, feed.learning_rate, sample)
            case step.ACCUMULATE:
                self._accumulate(row[step.MODE], *views)
            case step.ACCUMULATE_BIAS:
                views[1][0] = self._xp.cumsum(
                    views[0] if row[step.MODE] else self._xp.vstack([views[1], views[0]]), axis=0
                )[-1]
            case step.WRITE_ROWS:
                return self._counted(held.grid.write_rows(views[0], float(feed.learning_rate), first_sample=sample))
            case step.BIAS if held.bias is not None:
                # a running sum adds the samples one after the other whatever the width of the block
                held.bias[:] -= feed.learning_rate * self._xp.cumsum(views[0], axis=0)[-1]
        return 0

    def _read(self, grid: TileGrid, mode: int, views: list[Array], sample: int) -> int:
        count: ReadCount
        if mode == step.BACKWARD:
            views[1][:], count = grid.read_backward(views[0], first_sample=sample)
        else:
            views[1][:], count = grid.read_forward(views[0], first_sample=sample, purpose=_PURPOSES[mode])
        self._counts[step.PASSES] += count.passes
        self._counts[step.REPEATS] += count.repeats
        return count.passes

    def _update(self, grid: TileGrid, views: list[Array], rate: np.float32, sample: int) -> int:
        return self._counted(grid.update(views[0], views[1], float(rate), first_sample=sample))

    def _accumulate(self, starts: int, x: Array, d: Array, total: Array) -> None:
        """One sample after the other, so that a cell's sum does not depend on what else is held."""
        if starts:
            total[:] = 0
        for inputs, errors in zip(x, d, strict=True):
            total += errors[:, None] * inputs  # (rows, cols)

    def _counted(self, pulses: PulseCount) -> int:
        self._counts[step.SLOTS] += pulses.slots
        self._counts[step.COINCIDENCES] += pulses.coincidences
        self._counts[step.CYCLES] += pulses.cycles
        self._counts[step.LINE_PASSES] += pulses.line_passes
        self._counts[step.LINE_SLOTS] += pulses.line_slots
        self._counts[step.LINE_PULSES] += pulses.line_pulses
        self._sums[step.EXPECTED] += pulses.expected_coincidences
        return pulses.cycles


@contextmanager
def _layer_named(held: Held) -> Iterator[None]:
    try:
        yield
    except NumericalError as error:
        raise NumericalError(f"layer {held.shard.index}: {error}") from None
