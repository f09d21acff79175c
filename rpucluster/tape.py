"""From an accelerator's part of a program to a tape: `write(program, number, ...)`.

Every value of a step has a place of its own in a flat arena, for the whole minibatch: a microbatch is a range of its
vectors, and an update finds its factors side by side.  What is gathered is put around the accelerator's own block.
Operations that communicate are not on the tape; `Tape.window` says where their payloads lie.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.holdings import Shard
from rpucluster.kernels import step
from rpucluster.program import Collective, Digital, Op, Program, Read, Rewrite, Send, Update

Range = tuple[int, int]
Value = tuple[str, int]
"""Name and layer: "x" (the lines that drive a shard's columns), "out" (sums of its outputs), "activation", "partial"
(sums of the error behind a layer), "error" (behind a layer), "delta" (the error of its sums)."""
FIXED = ("out", "partial")
"""Values that are int64 sums; the others are float32."""
_FACTORS = ("x", "delta")
"""Values that may hold the vectors of all replicas."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some elements of some vectors of a value."""

    fixed: bool
    """Whether it lies in the int64 arena."""
    start: int
    """Where its first vector starts in the arena."""
    vectors: int
    stride: int
    """From one vector to the next."""
    first: int
    """The first element of each vector that belongs to the window."""
    width: int

    def of(self, arena: Any) -> Any:
        """The window as a view of its arena, shape (vectors, width)."""
        whole = arena[self.start : self.start + self.vectors * self.stride].reshape(self.vectors, self.stride)
        return whole[:, self.first : self.first + self.width]


@dataclass(kw_only=True)
class _Buffer:
    """The place of a value: of each of `vectors` vectors the elements of `span`, and a bias line behind them."""

    span: Range
    vectors: int
    bias_line: bool = False
    start: int = 0

    @property
    def stride(self) -> int:
        return self.span[1] - self.span[0] + self.bias_line


@dataclass(kw_only=True)
class Tape:
    """One accelerator's part of a program as rows of `rpucluster.kernels.step`, and where its values lie."""

    rows: NDArray[np.int64]
    """(rows, TAPE_COLUMNS)."""
    windows: list[tuple[Window, ...]]
    """The windows A, B, C of each row, as far as it has them."""
    of_operation: dict[int, Range]
    """Which rows perform an operation of the program."""
    floats: int
    """Elements of the float32 arena."""
    fixed: int
    """Elements of the int64 arena."""
    vectors: int
    """Vectors of a microbatch."""
    minibatch: int
    """Vectors of one replica."""
    own: int
    """Where this replica's vectors start among the factors of an update."""
    _buffers: dict[Value, _Buffer] = field(repr=False)

    def window(self, name: str, layer: int, microbatch: int = 0, span: Range | None = None) -> Window:
        """The vectors of a microbatch; all elements, or those of `span`, counted as in the whole layer."""
        first = self.own * (name in _FACTORS) + microbatch * self.vectors
        return self._window(name, layer, first, self.vectors, span)

    def factor(self, name: str, layer: int, first: int, vectors: int, span: Range | None = None) -> Window:
        """Vectors from `first` on of "x" or "delta" of an update."""
        return self._window(name, layer, first, vectors, span)

    def bias_lines(self) -> list[Window]:
        """What must be 1 before the first step, and stays so."""
        return [
            Window(
                fixed=False, start=b.start, vectors=b.vectors, stride=b.stride, first=b.stride - 1, width=1,
            )
            for (name, _), b in self._buffers.items()
            if b.bias_line and name == "x"
        ]  # fmt: skip

    def _window(self, name: str, layer: int, first: int, vectors: int, span: Range | None) -> Window:
        buffer = self._buffers[name, layer]
        at, stop = buffer.span if span is None else span
        return Window(
            fixed=name in FIXED,
            start=buffer.start + first * buffer.stride,
            vectors=vectors,
            stride=buffer.stride,
            first=at - buffer.span[0],
            width=stop - at + (span is None and buffer.bias_line),
        )


def write(
    program: Program, number: int, replica: int, shards: Mapping[int, Shard], outputs: Sequence[int], reports: bool
) -> Tape:
    """Write the tape of accelerator `number`.

    `shards` are those that it holds, by layer; `outputs` the widths of all layers; `reports` says whether it is the
    one that counts loss and hits.
    """
    training = program.purpose == "train"
    issued = program.issued_by(number)
    shared = any(isinstance(op, Collective) and op.payload == "factors" for op in issued)
    samples = program.samples if shared else program.minibatch
    tape = Tape(
        rows=np.empty((0, step.TAPE_COLUMNS), np.int64),
        windows=[],
        of_operation={},
        floats=0,
        fixed=0,
        vectors=program.minibatch // program.microbatches,
        minibatch=program.minibatch,
        own=replica * program.minibatch if shared else 0,
        _buffers={},
    )
    offset = replica * program.minibatch if training else 0
    writer = _Writer(program, number, shards, outputs, tape, offset, samples)
    for op in program.issued_by(number):
        writer.place(op)
    writer.allocate()
    for op in program.issued_by(number):
        first = len(writer.rows)
        writer.perform(op, reports)
        tape.of_operation[op.id] = (first, len(writer.rows))
    tape.rows = np.array(writer.rows, np.int64).reshape(-1, step.TAPE_COLUMNS)
    return tape


class _Writer:
    """A tape under construction: first every value gets its place, then every operation its rows."""

    def __init__(
        self,
        program: Program,
        number: int,
        shards: Mapping[int, Shard],
        outputs: Sequence[int],
        tape: Tape,
        offset: int,
        samples: int,
    ) -> None:
        self.program, self.number, self.shards, self.outputs = program, number, shards, outputs
        self.tape, self.offset, self.samples = tape, offset, samples
        self.rows: list[list[int]] = []
        self.reduced = {
            (op.layer, op.microbatch)
            for op in program.issued_by(number)
            if isinstance(op, Collective) and op.payload == "partial_error"
        }

    # --- places ---

    def place(self, op: Op) -> None:
        """Make room for what an operation makes or takes."""
        match op:
            case Read(direction="forward"):
                shard = self.shards[op.layer]
                self._room("x", op.layer, shard.needs, shard.bias_line)
                self._room("out", op.layer, shard.gives)
            case Read():
                shard = self.shards[op.layer]
                self._room("partial", op.layer - 1, shard.needs, shard.bias_line)
                self._room("error", op.layer - 1, shard.needs)
            case Digital(kind="activation"):
                self._room("activation", op.layer, self.shards[op.layer].gives)
            case Digital(kind="loss"):
                self._room("error", op.layer, (0, self.outputs[op.layer]))
                self._room("delta", op.layer, self.shards[op.layer].gives)
            case Digital(kind="derivative"):
                self._room("delta", op.layer, self.shards[op.layer].gives)
            case Collective(payload="activation" | "error"):
                self._room(op.payload, op.layer, (0, self.outputs[op.layer]))
            case Send() if op.destination == self.number:
                self._room(op.payload, op.layer, op.span)

    def _room(self, name: str, layer: int, span: Range, bias_line: bool = False) -> None:
        buffer = self.tape._buffers.get((name, layer))
        if buffer is not None and span[0] < span[1]:
            old = buffer.span
            span = (min(old[0], span[0]), max(old[1], span[1])) if old[0] < old[1] else span
        elif buffer is not None:
            span = buffer.span
        vectors = self.samples if name in _FACTORS else self.program.minibatch
        self.tape._buffers[name, layer] = _Buffer(span=span, vectors=vectors, bias_line=bias_line)

    def allocate(self) -> None:
        """Lay the values one after the other."""
        for (name, _), buffer in self.tape._buffers.items():
            size = buffer.vectors * buffer.stride
            if name in FIXED:
                buffer.start, self.tape.fixed = self.tape.fixed, self.tape.fixed + size
            else:
                buffer.start, self.tape.floats = self.tape.floats, self.tape.floats + size

    # --- rows ---

    def perform(self, op: Op, reports: bool) -> None:
        """Write the rows of an operation; one that communicates may have none."""
        window = self.tape.window
        match op:
            case Read(direction="forward"):
                self._forward(op)
            case Read():
                delta, sums = (window(name, op.layer - below, op.microbatch) for name, below in _BACKWARD)
                self._row(step.READ, op, delta, sums, mode=step.BACKWARD)
                if (op.layer, op.microbatch) not in self.reduced:
                    self._error(op, op.layer - 1, op.microbatch)
            case Digital(kind="activation"):
                span = self.shards[op.layer].gives
                out = window("out", op.layer, op.microbatch)
                self._row(step.ACTIVATE, op, out, window("activation", op.layer, op.microbatch, span))
            case Digital(kind="loss"):
                logits, error = (window(name, op.layer, op.microbatch) for name in ("activation", "error"))
                self._row(step.SCORE, op, logits, error, mode=int(reports))
                if self.program.purpose == "train":
                    self._derive(op)
            case Digital(kind="derivative"):
                self._derive(op)
            case Digital():
                self._change(step.BIAS, op, "delta")
            case Update():
                self._change(step.UPDATE, op, *_FACTORS)
            case Collective(payload="partial_error"):
                self._error(op, op.layer - 1, op.microbatch)
            case Rewrite() | Collective() | Send():
                pass

    def _forward(self, op: Read) -> None:
        shard, window = self.shards[op.layer], self.tape.window
        inputs = window("x", op.layer, op.microbatch, shard.needs)
        if inputs.width == 0:
            pass  # the shard has nothing but the bias line
        elif op.layer == 0:
            self._row(step.LOAD, op, inputs, inputs, mode=shard.needs[0])
        else:
            self._row(step.COPY, op, window("activation", op.layer - 1, op.microbatch, shard.needs), inputs)
        mode = step.FORWARD if self.program.purpose == "train" else step.EVALUATE
        lines, sums = (window(name, op.layer, op.microbatch) for name in ("x", "out"))
        self._row(step.READ, op, lines, sums, mode=mode)

    def _error(self, op: Read | Collective, layer: int, microbatch: int) -> None:
        span = self.shards[layer + 1].needs
        sums, error = (self.tape.window(name, layer, microbatch, span) for name in ("partial", "error"))
        self._row(step.ERROR, op, sums, error)

    def _derive(self, op: Digital) -> None:
        span = self.shards[op.layer].gives
        values = [self.tape.window(name, op.layer, op.microbatch, span) for name in ("activation", "error", "delta")]
        self._row(step.DERIVE, op, *values)

    def _change(self, code: int, op: Digital | Update, *names: str) -> None:
        """Rows that change weights or biases by factors: one row for samples that follow each other."""
        minibatch, vectors = self.program.minibatch, self.tape.vectors
        if op.microbatch < 0:
            parts = [(0, self.samples)]
        else:  # of each replica whose factors are here
            parts = [(first + op.microbatch * vectors, vectors) for first in range(0, self.samples, minibatch)]
        for first, count in parts:
            windows = [self.tape.factor(name, op.layer, first, count) for name in names]
            self._row(code, op, *windows, sample=first + self.offset - self.tape.own)

    def _row(
        self,
        code: int,
        op: Read | Digital | Update | Collective,
        *windows: Window,
        mode: int = 0,
        sample: int | None = None,
    ) -> None:
        if sample is None:
            sample = self.offset + op.microbatch * self.tape.vectors
        first, last, slot = windows[0], windows[-1], self.shards[op.layer].slot
        row = [code, op.id, slot, first.vectors, last.width, sample, mode]
        for window in windows:
            row += [window.start, window.stride, window.first]
        self.tape.windows.append(windows)
        self.rows.append(row + [0] * (step.TAPE_COLUMNS - len(row)))


_BACKWARD = (("delta", 0), ("partial", 1))
