"""What the digital side of each accelerator holds while it performs a program: `buffer_uses`.

Everything that is not in tiles has to wait somewhere: the activations of a microbatch until its errors come back, the
inputs and errors of a layer until they have changed its weights, sums until they are added up, dense gradients until
they are programmed.  A value is held from the operation that makes it to the last one that uses it, in the order in
which the accelerator issues them.  What is sent leaves at once, what is received is taken when the program comes to it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeGuard

from rpucluster.cluster import Cluster
from rpucluster.errors import CapacityError
from rpucluster.job import Job
from rpucluster.model import Layer
from rpucluster.plan import Plan
from rpucluster.program import Collective, Digital, Op, Program, Read, Send, Update
from rpucluster.units import format_quantity, parse_quantity

Value = tuple[str, int, int]  # name, layer, microbatch
KINDS: Final = {
    "activation": "activations",
    "prepared": "activations",
    "tokens": "activations",
    "kept": "activations",
    "delta": "errors",
    "error": "errors",
    "token_errors": "errors",
    "factors": "factors",
    "sums": "sums",
    "partial": "sums",
    "gradient": "gradients",
}
"""Where each value counts.  Inputs of a layer are the activations before it; factors are those of other replicas."""


@dataclass(frozen=True, kw_only=True)
class BufferUse:
    """What one accelerator holds at most."""

    accelerator: int
    in_flight: int
    """Most microbatches that have gone forward through a run of layers and not yet back, over its runs."""
    elements: Mapping[str, int]
    """At the moment of `peak_bytes`: activations, errors, factors, sums, gradients."""
    peak_bytes: float
    """Most bytes at once, at the job's word widths."""


def buffer_uses(program: Program, plan: Plan, job: Job) -> tuple[BufferUse, ...]:
    """What every accelerator of a training program holds at most, ascending; O(n) of the operations."""
    bits = bits_of(job)
    ranks = {accelerator: rank for *_, rank, accelerator in plan.ranks()}
    uses = []
    for accelerator in program.accelerators:
        issued = program.issued_by(accelerator)
        events = Events(plan, job, accelerator, ranks[accelerator], program.microbatches)
        moments = [events.of(op) for op in issued]
        elements, peak = _peak(moments, bits)
        uses.append(
            BufferUse(accelerator=accelerator, in_flight=_in_flight(issued, plan), elements=elements, peak_bytes=peak)
        )
    return tuple(uses)


def bits_of(job: Job) -> dict[str, int]:
    """Bits of an element of each of `KINDS`."""
    words = job.words
    bits = dict.fromkeys(KINDS, words.factor_bits)
    return bits | {"sums": words.sum_bits, "partial": words.sum_bits, "gradient": words.gradient_bits}


def check_buffers(uses: Iterable[BufferUse], cluster: Cluster) -> None:
    """Raise `CapacityError` where an accelerator has to hold more than its `[accelerator] buffer`, if that is given."""
    buffer = cluster.accelerator.buffer
    if buffer is None:
        return
    fullest = max(uses, key=lambda use: use.peak_bytes)
    if fullest.peak_bytes > buffer:
        # rounded up, to what can be read
        enough = (format_quantity(fullest.peak_bytes * more, "size") for more in (1.0, 1.005, 1.01))
        write = next(text for text in enough if parse_quantity(text, "size") >= fullest.peak_bytes)
        raise CapacityError(
            f"accelerator {fullest.accelerator} has to hold {format_quantity(fullest.peak_bytes, 'size')} at once but "
            f"[accelerator] buffer of {cluster.name} is {format_quantity(buffer, 'size')}; write accelerator.buffer = "
            f'"{write}", lower [train] minibatch, or raise [parallel] tensor or pipeline'
        )


Moment = tuple[dict[Value, int], list[Value]]
"""What an operation makes, in elements, and what it uses."""


class Events:
    """What the operations of one accelerator make and use; those on the whole minibatch use values of so many
    microbatches."""

    def __init__(self, plan: Plan, job: Job, accelerator: int, rank: int, microbatches: int) -> None:
        self._plan, self._job = plan, job
        self._accelerator, self._rank = accelerator, rank
        self._samples, self._microbatches = job.train.microbatch, microbatches

    def of(self, op: Op) -> Moment:
        """Of an operation that the accelerator issues."""
        layer = op.layer
        match op:
            case Read(direction="forward", microbatch=m):
                made = {("sums", layer, m): self._samples * self._sums(layer)}
                if layer == 0:  # its inputs come with it
                    made["activation", -1, m] = self._samples * self._needs(0)
                return made, [*self._x(layer, m)]
            case Read(microbatch=m):
                name = "partial" if self._plan.layers[layer].sums_backward else "error"
                return {(name, layer - 1, m): self._samples * self._x_size(layer)}, [("delta", layer, m)]
            case Digital(kind="prepare", microbatch=m):
                made = {("prepared", layer, m): self._samples * self._needs(layer)}
                return made, [("activation", layer - 1, m)]
            case Digital(kind="prepare_back", microbatch=m):
                used = [("activation", layer - 1, m), ("error", layer - 1, m)]
                return {("error", layer - 1, m): self._samples * self._needs(layer)}, used
            case Digital(kind="activation", microbatch=m):
                made = {("activation", layer, m): self._samples * self._gives(layer)}
                if kept := self._shape(layer).kept:
                    made["kept", layer, m] = self._samples * self._plan.layers[layer].share(self._rank, kept)
                return made, [("sums", layer, m)]
            case Digital(kind="loss", microbatch=m):
                return {("delta", layer, m): self._samples * self._sums(layer)}, [("activation", layer, m)]
            case Digital(kind="derivative", microbatch=m):
                used = [("activation", layer, m), ("kept", layer, m), ("error", layer, m)]
                return {("delta", layer, m): self._samples * self._sums(layer)}, used
            case Digital(kind="gradient", microbatch=m):
                return {("gradient", layer, -1): self._cells(layer)}, self._factors(layer, [m])
            case Digital(microbatch=m) | Update(microbatch=m):
                used = self._factors(layer, range(self._microbatches) if m < 0 else [m])
                return {}, [("gradient", layer, -1)] if self._dense else [*used, ("factors", layer, m)]
            case Send(payload=name, microbatch=m):
                return {} if op.source == self._accelerator else {(name, layer, m): op.elements}, []
            case Collective(payload="partial_output", microbatch=m):
                return {}, [("sums", layer, m)]
            case Collective(payload="partial_error", microbatch=m):
                made = {("error", layer - 1, m): self._samples * self._x_size(layer)}
                return made, [("partial", layer - 1, m)]
            case Collective(payload="activation" | "error" as name, microbatch=m):
                return {(name, layer, m): self._samples * self._plan.layers[layer].outputs}, []
            case Collective(payload="tokens", microbatch=m):
                # tokens that come take the place of those that go; behind experts, of their sums
                return {("tokens", layer, m): op.elements[0]} if self._shape(layer).dispatch else {}, []
            case Collective(payload="token_errors"):
                return {}, []
            case Collective(payload="loss", microbatch=m):
                return {}, [("activation", layer, m)]
            case Collective(payload="factors", microbatch=m):
                others = sum(op.elements) - op.elements[op.members.index(self._accelerator)]
                return {("factors", layer, m): others}, []
            case _:
                return {}, [("gradient", layer, -1)]

    @property
    def _dense(self) -> bool:
        return self._job.parallel.data_sync == "gradient"

    def _factors(self, layer: int, microbatches: Iterable[int]) -> list[Value]:
        return [value for m in microbatches for value in (*self._x(layer, m), ("delta", layer, m))]

    def _x(self, layer: int, microbatch: int) -> tuple[Value, ...]:
        """What the arrays of a layer take, and their updates later."""
        shape = self._shape(layer)
        if shape.dispatch and self._plan.expert > 1:
            return (("tokens", layer, microbatch),)
        name, of = ("prepared", layer) if shape.prepare_operations else ("activation", layer - 1)
        return ((name, of, microbatch),)

    def _x_size(self, layer: int) -> int:
        return self._shape(layer).dispatch or self._needs(layer)

    def _shape(self, layer: int) -> Layer:
        return self._plan.layers[layer].shape

    def _sums(self, layer: int) -> int:
        return self._plan.layers[layer].sums[self._rank]

    def _gives(self, layer: int) -> int:
        span = self._plan.layers[layer].gives[self._rank]
        return 0 if span is None else span[1] - span[0]

    def _needs(self, layer: int) -> int:
        span = self._plan.layers[layer].needs[self._rank]
        return 0 if span is None else span[1] - span[0]

    def _cells(self, layer: int) -> int:
        block = self._plan.layers[layer].blocks[self._rank]
        if block is None:
            return 0
        biases = block.arrays * (block.rows[1] - block.rows[0]) * (self._shape(layer).bias == "digital")
        return block.cells + biases


def _peak(moments: list[Moment], bits: Mapping[str, int]) -> tuple[dict[str, int], float]:
    """Elements by kind at the moment with the most bytes, and these bytes."""
    last: dict[Value, int] = {}
    for i, (made, used) in enumerate(moments):
        last |= dict.fromkeys((*made, *used), i)
    held: dict[Value, int] = {}
    now, most = 0, 0  # bits
    at_most: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    for i, (made, used) in enumerate(moments):
        for value, size in made.items():
            more = size - held.get(value, 0)
            if more > 0:  # a gather adds to what is there
                held[value] = size
                elements[KINDS[value[0]]] += more
                now += more * bits[value[0]]
        if now > most:
            most, at_most = now, elements.copy()
        for value in (*made, *used):
            if last[value] == i and value in held:
                size = held.pop(value)
                elements[KINDS[value[0]]] -= size
                now -= size * bits[value[0]]
    return {kind: at_most[kind] for kind in dict.fromkeys(KINDS.values())}, most / 8


def is_of_a_pass(op: Op) -> TypeGuard[Read | Digital]:
    """Whether an operation belongs to the way of a microbatch forward or back."""
    return isinstance(op, Read) or (isinstance(op, Digital) and op.kind in _OF_A_PASS)


def _in_flight(issued: Iterable[Op], plan: Plan) -> int:
    passes = [op for op in issued if is_of_a_pass(op)]
    chunk = [layer.chunk for layer in plan.layers]
    last = {(chunk[op.layer], op.microbatch): i for i, op in enumerate(passes)}
    flying: set[tuple[int, int]] = set()
    most = 0
    for i, op in enumerate(passes):
        place = (chunk[op.layer], op.microbatch)
        flying.add(place)
        most = max(most, len(flying))
        if last[place] == i:
            flying.remove(place)
    return most


_OF_A_PASS: Final = ("prepare", "activation", "loss", "derivative", "prepare_back")
