"""From an accelerator's part of a program to its tape: `write(program, number, ...)`."""

from collections.abc import Mapping, Sequence

import numpy as np

from rpucluster.holdings import Shard
from rpucluster.kernels import step
from rpucluster.program import Collective, Digital, Op, Program, Read, Rewrite, Send, Update
from rpucluster.tape.places import FACTORS, FIXED, Buffer, Range, Tape, Window


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
        buffers={},
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
        self.begun: set[int] = set()  # layers whose dense gradient has samples in it
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
            case Digital(kind="gradient"):
                shard = self.shards[op.layer]
                self._room("gradient", op.layer, (0, shard.cols), vectors=shard.rows)
                if shard.layer.bias == "digital":
                    self._room("bias gradient", op.layer, shard.gives, vectors=1)
            case Collective(payload="activation" | "error"):
                self._room(op.payload, op.layer, (0, self.outputs[op.layer]))
            case Send() if op.destination == self.number:
                self._room(op.payload, op.layer, op.span)

    def _room(self, name: str, layer: int, span: Range, bias_line: bool = False, vectors: int | None = None) -> None:
        buffer = self.tape.buffers.get((name, layer))
        if buffer is not None and span[0] < span[1]:
            old = buffer.span
            span = (min(old[0], span[0]), max(old[1], span[1])) if old[0] < old[1] else span
        elif buffer is not None:
            span = buffer.span
        if vectors is None:
            vectors = self.samples if name in FACTORS else self.program.minibatch
        self.tape.buffers[name, layer] = Buffer(span=span, vectors=vectors, bias_line=bias_line)

    def allocate(self) -> None:
        """Lay the values one after the other."""
        for (name, _), buffer in self.tape.buffers.items():
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
            case Digital(kind="gradient"):
                self._accumulate(op)
            case Digital() if ("bias gradient", op.layer) in self.tape.buffers:
                self._row(step.BIAS, op, self.tape.whole("bias gradient", op.layer), sample=0)
            case Digital():
                self._change(step.BIAS, op, "delta")
            case Update() if op.dense:
                # every replica writes the same gradient, so all fire the same trains: those of its first sample
                sample = max(op.microbatch, 0) * self.tape.vectors
                self._row(step.WRITE_ROWS, op, self.tape.whole("gradient", op.layer), sample=sample)
                self.begun.discard(op.layer)
            case Update():
                self._change(step.UPDATE, op, *FACTORS)
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

    def _accumulate(self, op: Digital) -> None:
        x, delta = (self.tape.window(name, op.layer, op.microbatch) for name in FACTORS)
        mode = int(op.layer not in self.begun)
        self._row(step.ACCUMULATE, op, x, delta, self.tape.whole("gradient", op.layer), mode=mode)
        if ("bias gradient", op.layer) in self.tape.buffers:
            total = self.tape.whole("bias gradient", op.layer)
            self._row(step.ACCUMULATE_BIAS, op, delta, total, mode=mode)
        self.begun.add(op.layer)

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
