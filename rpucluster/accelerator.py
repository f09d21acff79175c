"""One RPU accelerator: it holds the tiles of its shards and performs its part of a program.

It knows nothing of processes: what it gives to others and takes from them are plain arrays that the pool
carries.  The same object runs in this process and inside a Ray actor.  A program becomes a tape when it is loaded
(`rpucluster.tape`); compiled code performs as long a piece of it as it can.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rpucluster import kernels
from rpucluster.arrays import array_module, to_host
from rpucluster.calls import Call
from rpucluster.checkpoint import Piece as StatePiece
from rpucluster.checkpoint import WrittenFile
from rpucluster.cluster import Accelerator as AcceleratorSpec
from rpucluster.errors import NumericalError
from rpucluster.holdings import Holdings
from rpucluster.interpreter import Interpreter
from rpucluster.job import Job
from rpucluster.kernels import step
from rpucluster.payloads import Payloads
from rpucluster.plan import Plan
from rpucluster.program import Collective, Program, Rewrite, Send
from rpucluster.shard_state import restore, shard_pieces, take_weights
from rpucluster.tallies import Counters as Counters
from rpucluster.tallies import Counts as Counts
from rpucluster.tallies import Score as Score
from rpucluster.tallies import Spent as Spent
from rpucluster.tallies import Steps as Steps
from rpucluster.tape import Tape, write
from rpucluster.tile_counts import PulseCount, ReadCount

Array = Any  # a NumPy or CuPy array
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Feed = step.Feed


_CELL_VECTORS = 1 << 28
"""Cells times vectors of the steps that one compiled call performs: a fraction of a second, since nobody can interrupt
it."""
Piece = Callable[[Feed, int, int, Sequence[Any]], None]
"""Part of a call: `(feed, first step, last step, inbox)`; only a call without communication has several steps."""


@dataclass(frozen=True, kw_only=True)
class _Script:
    """A loaded program: what each of its calls does here."""

    program: Program
    tape: Tape
    interpreter: Interpreter
    payloads: Payloads
    done: Ints
    """Vectors that went through tiles, by operation."""
    calls: dict[int, tuple[tuple[Piece, ...], tuple[int, ...]]]
    """By index: the pieces of a call, and the operations whose payloads it gives."""


class Accelerator:
    """The tiles of one accelerator and the values of the step under way.

    Holds nothing that the job, the cluster's accelerator and the plan do not determine, save the weights.
    """

    def __init__(self, number: int, job: Job, spec: AcceleratorSpec, plan: Plan) -> None:
        self.number = number
        self._xp = array_module(job.run.arrays)
        self._plan = plan
        self._blocks = {shard.layer: shard.block for shard in plan.shards() if shard.accelerator == number}
        self._holdings = Holdings(number, job, spec, plan, self._xp)
        self._prepare = kernels.step_performer(self._xp)
        self._scripts: dict[str, _Script] = {}
        self._data: dict[str, tuple[Array, Array]] = {}
        self._programmed_pulses = 0
        self.beats = 0
        """Pieces of work so far: what does not grow for long hangs."""
        self.carrying_wall_s = 0.0
        """Time of the host in which payloads were copied out of the accelerator and into it."""

    # --- what the pool calls ---

    def load(self, name: str, program: Program, calls: tuple[Call, ...]) -> None:
        """Take a program, once, before it is performed by its name; nothing happens if it has no part in it."""
        if self.number not in program.accelerators:
            return
        held = self._holdings
        outputs = [layer.outputs for layer in self._plan.layers]
        tape = write(program, self.number, held.replica, held.shards(), outputs, held.reports)
        interpreter = Interpreter(self._xp, tape, held.by_slot, held.counts, held.sums)
        script = _Script(
            program=program,
            tape=tape,
            interpreter=interpreter,
            payloads=Payloads(self.number, program, tape, interpreter, held),
            done=np.zeros(len(program), np.int64),
            calls={},
        )
        for index, call in enumerate(calls):
            if call.accelerator == self.number:
                script.calls[index] = (self._pieces(script, call), call.emits)
        self._scripts[name] = script

    def set_data(self, name: str, x: Floats, y: Ints) -> None:
        """Take a data set: `x` of shape (samples, features), `y` of shape (samples,) with labels of the last layer."""
        layers = self._holdings.by_layer
        last = len(self._plan.layers) - 1
        if not all(0 <= label < self._plan.layers[last].outputs for label in (y.min(initial=0), y.max(initial=0))):
            raise ValueError(f"labels from {y.min()} to {y.max()} for {self._plan.layers[last].outputs} outputs")
        x, y = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.int64)
        self._data[name] = (
            step.constant(self._xp.asarray(x if 0 in layers else x[:0])),
            step.constant(self._xp.asarray(y if last in layers else y[:0])),
        )

    def feed(self, data: str, steps: Steps) -> Feed:
        """What `perform` takes: steps on a data set, checked."""
        if not 0 <= steps.learning_rate < math.inf:
            raise ValueError(f"learning rate {steps.learning_rate}: write a number of at least 0")
        x, y = self._data[data]
        rows = min((len(array) for array in (x, y) if len(array)), default=None)
        low, high = steps.indices.min(initial=0), steps.indices.max(initial=0)
        if rows is not None and not 0 <= low <= high < rows:
            raise IndexError(f"rows {low} to {high} of a data set of {rows}")
        indices = step.constant(self._xp.asarray(np.ascontiguousarray(steps.indices, np.int64)))
        return Feed(x, y, indices, steps.first_sample, np.float32(steps.learning_rate))

    def perform(
        self, name: str, call_index: int, feed: Feed, first: int, last: int, inbox: Sequence[Any] = ()
    ) -> tuple[Any, ...]:
        """Perform one call of a program for the steps `first` up to, without, `last` of a feed.

        A call that communicates is performed for one step at a time; `inbox` holds what it absorbs.  Returns the
        payloads that it gives, in the order of its `emits`.  Raises `NumericalError` where a sum leaves its range.
        """
        script = self._scripts[name]
        if len(script.tape.rows) and feed.indices.shape[1] != script.program.samples:
            raise ValueError(f"{feed.indices.shape[1]} samples a step for a program of {script.program.samples}")
        pieces, emits = script.calls[call_index]
        self.beats += 1
        if len(pieces) == 1:
            pieces[0](feed, first, last, inbox)
        else:
            for index in range(first, last):
                for piece in pieces:
                    piece(feed, index, index + 1, inbox)
        if not emits:
            return ()
        began = time.perf_counter()
        payloads = tuple(script.payloads.give(op) for op in emits)
        self.carrying_wall_s += time.perf_counter() - began
        return payloads

    def take_score(self) -> Score:
        """The scores since the last time this was asked; zero on an accelerator that does not report."""
        counts, sums = self._holdings.counts, self._holdings.sums
        hits, samples, loss = int(counts[step.HITS]), int(counts[step.SCORED]), float(sums[step.LOSS])
        counts[step.HITS] = counts[step.SCORED] = sums[step.LOSS] = 0
        return Score(loss=loss, hits=hits, samples=samples)

    def state(self) -> Iterator[StatePiece]:
        """Everything that a restart needs besides `counters`, piece by piece: copies on the host."""
        return shard_pieces(self._holdings, self._blocks)

    @property
    def state_bytes(self) -> int:
        """About how much memory a copy of `state` takes."""
        return sum(held.grid.nbytes for held in self._holdings.by_slot)

    def restore(self, files: Mapping[Path, WrittenFile]) -> None:
        """Continue from the pieces in the files of a checkpoint, of whatever plan.

        Raises `RunDirectoryError` where they are of another network.
        """
        restore(self._holdings, self._blocks, files)

    def take_weights(self, files: Mapping[Path, WrittenFile], replicas: int) -> None:
        """Start from the effective weights in the files of a checkpoint of so many replicas."""
        take_weights(self._holdings, self._blocks, files, replicas)

    @property
    def counters(self) -> Counters:
        """What it has counted and scored and nobody has taken yet."""
        held = self._holdings
        return Counters(
            replica=held.replica,
            reports=held.reports,
            counts=tuple(held.counts.tolist()),
            sums=tuple(held.sums.tolist()),
            programmed_pulses=self._programmed_pulses,
        )

    def set_counters(self, counters: Counters) -> None:
        """Count on from there."""
        self._holdings.counts[:], self._holdings.sums[:] = counters.counts, counters.sums
        self._programmed_pulses = counters.programmed_pulses

    def weights(self, layer: int, rows: tuple[int, int]) -> tuple[int, int, Floats, Floats | None] | None:
        """What this accelerator holds of some rows of a layer; None where it holds nothing of them.

        Its first row and column there, the effective weights of its shard, and its digital bias.
        """
        held = self._holdings.by_layer.get(layer)
        if held is None:
            return None
        start, end = held.grid.row_range
        first, stop = max(rows[0], start), min(rows[1], end)
        if first >= stop:
            return None
        part = (first - start, stop - start)
        bias = None if held.bias is None else to_host(held.bias[part[0] : part[1]].copy())
        return first, held.grid.col_range[0], held.grid.weights(part), bias

    @property
    def counts(self) -> Counts:
        """What this accelerator did so far."""
        counts, sums = self._holdings.counts.tolist(), self._holdings.sums
        found = Counts(
            reads=ReadCount(passes=counts[step.PASSES], repeats=counts[step.REPEATS]),
            pulses=PulseCount(
                slots=counts[step.SLOTS],
                coincidences=counts[step.COINCIDENCES],
                expected_coincidences=float(sums[step.EXPECTED]),
                cycles=counts[step.CYCLES],
                line_passes=counts[step.LINE_PASSES],
                line_slots=counts[step.LINE_SLOTS],
                line_pulses=counts[step.LINE_PULSES],
            ),
            programmed_pulses=self._programmed_pulses,
        )
        for name, script in self._scripts.items():
            found.performed.update({(name, op): int(n) for op, n in enumerate(script.done) if n})
            found.emitted.update({(name, op): n for op, n in script.payloads.emitted.items()})
            found.absorbed.update({(name, op, giver): n for (op, giver), n in script.payloads.absorbed.items()})
        return found

    # --- calls into pieces ---

    def _pieces(self, script: _Script, call: Call) -> tuple[Piece, ...]:
        """What a call does: compiled as far as possible, row by row and payload by payload where not."""
        pieces: list[Piece] = []
        start = stop = 0  # rows that compiled code will perform in one go

        def compile_rows() -> None:
            nonlocal start, stop
            if start < stop:
                pieces.append(self._compiled_piece(script, start, stop))
            start = stop = 0

        for index in call.ops:
            op = script.program.ops[index]
            if isinstance(op, Collective | Send | Rewrite):
                compile_rows()
                pieces.append(
                    self._rewrite_piece(script, op) if isinstance(op, Rewrite) else self._absorb_piece(script, op, call)
                )
            for row in range(*script.tape.of_operation[index]):
                if self._holdings.compiles(script.tape.rows[row]):
                    start, stop = (row if start == stop else start), row + 1
                else:
                    compile_rows()
                    pieces.append(_row_piece(script, row, index))
        compile_rows()
        return tuple(pieces)

    def _compiled_piece(self, script: _Script, start: int, stop: int) -> Piece:
        memory, rows = self._holdings.memory, script.tape.rows
        if memory is None:
            raise ValueError("rows of a tape without shards")
        values = script.interpreter.floats, script.interpreter.fixed
        perform = self._prepare(rows, start, stop, memory, *values, script.done)
        together = max(1, _CELL_VECTORS // (self._holdings.cells * script.tape.minibatch))

        def piece(feed: Feed, first: int, last: int, inbox: Sequence[Any]) -> None:
            for begin in range(first, last, together):
                self.beats += 1
                problem, row = perform(feed, begin, min(begin + together, last))
                if problem:
                    layer = self._holdings.by_slot[rows[row, step.SLOT]].shard.index
                    raise NumericalError(f"layer {layer}: {kernels.problem_message(problem)}")

        return piece

    def _rewrite_piece(self, script: _Script, op: Rewrite) -> Piece:
        grid, weights = self._holdings.by_layer[op.layer].grid, script.payloads.weights

        def piece(feed: Feed, first: int, last: int, inbox: Sequence[Any]) -> None:
            if op.kind == "read_out":
                weights[op.layer] = grid.weights()
            else:
                self._programmed_pulses += grid.program(weights.pop(op.layer))

        return piece

    def _absorb_piece(self, script: _Script, op: Collective | Send, call: Call) -> Piece:
        places = [(place, giver) for place, (of, giver) in enumerate(call.inbox) if of == op.id]

        def piece(feed: Feed, first: int, last: int, inbox: Sequence[Any]) -> None:
            began = time.perf_counter()
            script.payloads.absorb(op.id, [(giver, inbox[place]) for place, giver in places])
            self.carrying_wall_s += time.perf_counter() - began

        return piece


def _row_piece(script: _Script, row: int, op: int) -> Piece:
    def piece(feed: Feed, first: int, last: int, inbox: Sequence[Any]) -> None:
        for index in range(first, last):
            script.done[op] += script.interpreter.perform(row, feed, index)

    return piece
