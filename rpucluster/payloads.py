"""What an accelerator gives to others and takes from them in a program, and how it joins the two."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rpucluster.arrays import to_host
from rpucluster.holdings import Holdings
from rpucluster.interpreter import Interpreter
from rpucluster.program import Collective, Program, Send
from rpucluster.tape import Tape

Array = Any  # a NumPy or CuPy array
Floats = npt.NDArray[np.float32]


class Payloads:
    """The payloads of one program on accelerator `number`: copies of parts of its values, and back."""

    def __init__(self, number: int, program: Program, tape: Tape, values: Interpreter, holdings: Holdings) -> None:
        self._number, self._program, self._tape, self._holdings = number, program, tape, holdings
        self._values = values
        self._views: dict[tuple[str, int, int, tuple[int, int] | None], Array] = {}
        self.weights: dict[int, Floats] = {}
        """Weights of a shard that were read out and are not yet programmed, by layer."""
        self.emitted: Counter[int] = Counter()
        """Elements given, by operation."""
        self.absorbed: Counter[tuple[int, int]] = Counter()
        """Elements taken, by (operation, giver)."""

    def give(self, index: int) -> Any:
        """The payload of a communication: an array or a tuple, on the host and no part of this accelerator."""
        op = self._program.ops[index]
        match op:
            case Send():
                payload: Any = self._copy(op.payload, op.layer, op.microbatch, op.span)
            case Collective(payload="partial_output"):
                payload = self._copy("out", op.layer, op.microbatch)
            case Collective(payload="partial_error"):
                payload = self._copy("partial", op.layer - 1, op.microbatch, self._shard(op.layer).needs)
            case Collective(payload="activation"):
                span = self._shard(op.layer).gives
                payload = (span[0], self._copy("activation", op.layer, op.microbatch, span))
            case Collective(payload="error"):
                span = self._shard(op.layer + 1).needs
                payload = (span[0], self._copy("error", op.layer, op.microbatch, span))
            case Collective(payload="factors"):
                payload = tuple(to_host(part.copy()) for part in self._factors(op, self._number))
            case Collective(payload="gradient"):
                payload = tuple(None if part is None else to_host(part.copy()) for part in self._gradient(op.layer))
            case Collective():
                bias = self._holdings.by_layer[op.layer].bias
                payload = (self.weights[op.layer], None if bias is None else to_host(bias.copy()))
            case _:
                raise TypeError(f"{op.label} gives nothing")
        self.emitted[index] += _elements(payload)
        return payload

    def absorb(self, index: int, arrived: Sequence[tuple[int, Any]]) -> None:
        """Join what others gave in a communication, as (giver, payload), with this accelerator's own."""
        op = self._program.ops[index]
        for giver, payload in arrived:
            self.absorbed[index, giver] += _elements(payload)
        match op:
            case Send():
                self._view(op.payload, op.layer, op.microbatch, op.span)[:] = self._values.array(arrived[0][1])
            case Collective(payload="partial_output" | "partial_error"):
                forward = op.payload == "partial_output"
                total = (
                    self._view("out", op.layer, op.microbatch)
                    if forward
                    else self._view("partial", op.layer - 1, op.microbatch, self._shard(op.layer).needs)
                )
                for _, partial in arrived:
                    total += self._values.array(partial)  # integers: any order gives the same sum
            case Collective(payload="activation" | "error"):
                for _, (start, block) in arrived:
                    span = (start, start + block.shape[1])
                    self._view(op.payload, op.layer, op.microbatch, span)[:] = self._values.array(block)
            case Collective(payload="factors"):
                for giver, pair in arrived:
                    for mine, other in zip(self._factors(op, giver), pair, strict=True):
                        mine[:] = self._values.array(other)
            case Collective(payload="gradient"):
                own = self._gradient(op.layer)
                given = dict(arrived) | {self._number: own}
                for part, total in enumerate(own):
                    if total is not None:
                        total[:] = self._values.array(_sum([given[member][part] for member in op.members]))
            case Collective():
                self._average(op, arrived)

    def _average(self, op: Collective, arrived: Sequence[tuple[int, Any]]) -> None:
        bias = self._holdings.by_layer[op.layer].bias
        given = dict(arrived)
        given[self._number] = (self.weights[op.layer], bias)
        ordered = [given[member] for member in op.members]
        self.weights[op.layer] = _mean([pair[0] for pair in ordered])
        if bias is not None:
            bias[:] = self._values.array(_mean([pair[1] for pair in ordered]))

    def _gradient(self, layer: int) -> tuple[Array, Array | None]:
        """The dense gradient of a shard, (rows, cols), and that of its digital biases, (1, rows)."""
        digital = self._shard(layer).layer.bias == "digital"
        names = ("gradient", "bias gradient") if digital else ("gradient",)
        parts = [self._values.view(self._tape.whole(name, layer)) for name in names]
        return parts[0], parts[1] if digital else None

    def _factors(self, op: Collective, member: int) -> tuple[Array, Array]:
        """A replica's x, without the bias line, and errors: views of (samples, inputs) and (samples, outputs).

        Of the minibatch or of a microbatch.  Replicas lie in order, so that an update runs through its samples in
        global order.
        """
        first, size = op.members.index(member) * self._tape.minibatch, self._tape.minibatch
        if op.microbatch >= 0:
            first, size = first + op.microbatch * self._tape.vectors, self._tape.vectors
        needs = self._shard(op.layer).needs
        x = self._values.view(self._tape.factor("x", op.layer, first, size, needs))
        return x, self._values.view(self._tape.factor("delta", op.layer, first, size))

    def _shard(self, layer: int) -> Any:
        return self._holdings.by_layer[layer].shard

    def _view(self, name: str, layer: int, microbatch: int, span: tuple[int, int] | None = None) -> Array:
        part = (name, layer, microbatch, span)
        if part not in self._views:  # making a view costs as much as copying a small payload
            self._views[part] = self._values.view(self._tape.window(*part))
        return self._views[part]

    def _copy(self, name: str, layer: int, microbatch: int, span: tuple[int, int] | None = None) -> Array:
        return to_host(self._view(name, layer, microbatch, span).copy())


def _sum(arrays: Sequence[Array]) -> Any:
    """In float64 and in the order of the replicas, so that every replica computes the same."""
    total = np.zeros(arrays[0].shape, np.float64)
    for array in arrays:
        total += to_host(array)
    return total


def _mean(arrays: Sequence[Array]) -> Floats:
    mean: Floats = (_sum(arrays) / len(arrays)).astype(np.float32)
    return mean


def _elements(payload: Any) -> int:
    if isinstance(payload, tuple):
        return sum(_elements(part) for part in payload if not isinstance(part, int))
    return 0 if payload is None else int(payload.size)
