"""The score: the typed operations of one training step, without seconds and without arrays.

A `Program` is read twice.  The pool performs it on accelerators that hold arrays; the timeline gives every
operation its modelled time and energy.  Every operation says which accelerators it occupies, which operations
it waits for, and its counts; what an operation costs is the cluster's affair.

Operations stand in one global order that is a valid execution order, and each accelerator issues its own in
that order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["forward", "backward"]
DigitalKind = Literal["prepare", "activation", "loss", "derivative", "prepare_back", "gradient", "bias"]
CollectiveKind = Literal["all_gather", "all_reduce", "all_to_all"]
Purpose = Literal["train", "evaluate", "average"]
Payload = Literal[
    "activation",
    "partial_output",
    "error",
    "partial_error",
    "tokens",
    "token_errors",
    "loss",
    "factors",
    "gradient",
    "weights",
]


class _OnOne:
    """An operation that occupies one accelerator."""

    __slots__ = ()
    accelerator: int

    @property
    def accelerators(self) -> tuple[int, ...]:
        return (self.accelerator,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(_OnOne):
    """Analog vector-matrix products of one layer shard: `vectors` vectors, one after the other, through all its tiles
    at once."""

    id: int
    accelerator: int
    direction: Direction
    layer: int
    microbatch: int
    vectors: int
    tiles: int
    cells: int
    """Cross-points of the shard, which is also its multiply-accumulates per vector."""
    input_lines: int
    """DAC conversions per vector, summed over the tiles."""
    output_lines: int
    """ADC samples per vector, summed over the tiles."""
    additions: int
    """Digital additions per vector that join the partial sums of the tiles."""
    serial_operations: int = 0
    """Digital operations on each vector that the next one waits for; 0 where vectors do not wait for each other."""
    deps: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.direction} L{self.layer} m{self.microbatch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Digital(_OnOne):
    """Work of the digital units: before and behind the arrays of a layer, forward and back, the loss, dense gradients,
    digital biases."""

    id: int
    accelerator: int
    kind: DigitalKind
    layer: int
    microbatch: int
    operations: int
    vectors: int = 1
    """Vectors that come one after the other; 1 where it needs all of them before it can begin."""
    deps: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.kind} L{self.layer}{_microbatch(self.microbatch)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Single lines of tiles that a training algorithm reads or writes in an update; on average over many updates, so
    these counts need not be whole."""

    direction: Direction
    """``"forward"`` for columns, which are read by driving one, ``"backward"`` for rows."""
    passes: float
    """Lines read, summed over the tiles."""
    passes_in_turn: float
    """The most lines of one tile, which are read one after the other."""
    values: float
    """Numbers read, each an ADC sample of one cross-point."""
    writes: float
    """Lines written, summed over the tiles."""
    writes_in_turn: float
    """The most lines of one tile."""
    written: float
    """Cross-points on written lines."""
    slots: int
    """Pulse slots per polarity phase and written line."""
    operations: float
    """Digital operations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(_OnOne):
    """An update of one layer shard, all its tiles at once: for each sample a pulsed rank-1 cycle, or digital work, and
    what the training algorithm does to single lines besides.  Or a dense gradient, one row of each tile at a time."""

    id: int
    accelerator: int
    layer: int
    microbatch: int = -1
    """-1 for the whole minibatch."""
    samples: int
    tiles: int
    cells: int
    lines: int
    """Rows plus columns, summed over the tiles: the lines that carry pulse trains."""
    bit_length: int
    """Pulse slots per polarity phase and sample (the largest, where the bit length is dynamic)."""
    pulsed: bool = True
    """Whether samples are pulse cycles; else the factors are multiplied by the digital units."""
    planes: int = 1
    """Devices at each cross-point that a cycle reaches."""
    dense: bool = False
    """Whether it takes the dense gradient of its samples instead of their factors."""
    alone: Lines | None = None
    """Lines that are read or written by themselves."""
    deps: tuple[int, ...] = ()

    @property
    def cycles(self) -> int:
        """Update cycles, summed over the tiles."""
        return self.samples * self.tiles if self.pulsed else 0

    @property
    def slots(self) -> int:
        """Pulse slots, summed over the tiles and samples."""
        return self.cycles * self.bit_length

    @property
    def label(self) -> str:
        return f"update L{self.layer}{_microbatch(self.microbatch)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite(_OnOne):
    """Read one shard's weights out, or program new ones into it, one row of each tile at a time."""

    id: int
    accelerator: int
    kind: Literal["read_out", "program"]
    layer: int
    rows: int
    """Row cycles one after the other: the rows of the tallest tile, since tiles work at once."""
    tiles: int
    cells: int
    bit_length: int
    deps: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.kind} L{self.layer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One collective among `members`, which holds its links from start to end.

    A `microbatch` of -1 means the whole minibatch.  `elements[i]` is what member i contributes: its block of
    an all-gather (blocks may be uneven, and empty), or the whole buffer of an all-reduce (the same for all).
    """

    id: int
    kind: CollectiveKind
    members: tuple[int, ...]
    elements: tuple[int, ...]
    word_bits: int
    payload: Payload
    layer: int
    microbatch: int
    deps: tuple[int, ...] = ()

    @property
    def accelerators(self) -> tuple[int, ...]:
        return self.members

    @property
    def bytes(self) -> tuple[float, ...]:
        """Bytes that each member contributes, at the job's word width."""
        return tuple(n * self.word_bits / 8 for n in self.elements)

    @property
    def label(self) -> str:
        return f"{self.kind} {self.payload} L{self.layer}{_microbatch(self.microbatch)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One point-to-point transfer."""

    id: int
    source: int
    destination: int
    elements: int
    word_bits: int
    payload: Payload
    layer: int
    microbatch: int
    span: tuple[int, int] = (0, 0)
    """Which elements of each vector travel: first, and one past the last."""
    deps: tuple[int, ...] = ()

    @property
    def accelerators(self) -> tuple[int, ...]:
        return (self.source, self.destination)

    @property
    def bytes(self) -> float:
        """Bytes sent, at the job's word width."""
        return self.elements * self.word_bits / 8

    @property
    def label(self) -> str:
        return f"send {self.payload} L{self.layer} m{self.microbatch}"


def _microbatch(microbatch: int) -> str:
    return "" if microbatch < 0 else f" m{microbatch}"


Op = Read | Digital | Update | Rewrite | Collective | Send


def kind_of(op: Op) -> str:
    """The kind of an operation in a word: forward, backward, prepare, activation, loss, derivative, prepare_back,
    gradient, bias, update, read_out, program, all_gather, all_reduce, all_to_all or send."""
    match op:
        case Read():
            return op.direction
        case Update():
            return "update"
        case Send():
            return "send"
        case Digital() | Rewrite() | Collective():
            return op.kind


@dataclass(frozen=True, kw_only=True)
class Program:
    """The operations of one training step (or evaluation pass, or averaging step) in global issue order."""

    ops: tuple[Op, ...]
    """`ops[i].id == i`, and every dependency has a smaller id."""
    accelerators: tuple[int, ...]
    """The accelerators that take part, ascending."""
    samples: int
    """Samples that one performance of the program consumes, over all replicas."""
    microbatches: int
    minibatch: int
    """Samples per replica."""
    purpose: Purpose = "train"
    _by_accelerator: dict[int, tuple[Op, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for i, op in enumerate(self.ops):
            if op.id != i or any(dep >= i for dep in op.deps):
                raise ValueError(f"operation {i} ({op.label}) is out of order: id {op.id}, waits for {op.deps}")
        issued: dict[int, list[Op]] = {a: [] for a in self.accelerators}
        for op in self.ops:
            for accelerator in op.accelerators:
                issued[accelerator].append(op)
        object.__setattr__(self, "_by_accelerator", {a: tuple(ops) for a, ops in issued.items()})

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    def issued_by(self, accelerator: int) -> tuple[Op, ...]:
        """The operations of one accelerator, in the order in which it issues them."""
        return self._by_accelerator[accelerator]
