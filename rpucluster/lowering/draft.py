"""A program under construction: its operations so far, and which operation made each value."""

from collections.abc import Collection, Sequence
from typing import Final

from rpucluster.job import Job
from rpucluster.plan import Block, LayerPlan, Plan, Range
from rpucluster.program import Op, Program, Purpose

WHOLE_MINIBATCH: Final = -1

Value = tuple[str, int, int, int]  # name, layer, microbatch, accelerator


class Draft:
    """The operations of a program so far; `microbatches` of `samples` pass each of the `replicas`.

    `written` are the tensor ranks whose operations it has, of the first replica alone; None: all, of all replicas.
    """

    def __init__(
        self,
        plan: Plan,
        job: Job,
        purpose: Purpose,
        microbatches: int,
        samples: int,
        replicas: Sequence[int],
        written: Collection[int] | None = None,
    ) -> None:
        self.plan, self.job, self.purpose = plan, job, purpose
        self.microbatches, self.samples, self.replicas = microbatches, samples, replicas
        self.passed: Sequence[int] = range(microbatches)  # those whose operations there are
        self.written = range(plan.tensor) if written is None else written
        self.written_replicas = replicas if written is None else replicas[:1]
        self.ops: list[Op] = []
        self.maker: dict[Value, int] = {}
        self.touched: dict[tuple[int, int], list[int]] = {}  # (layer, accelerator) -> its reads since its last update

    def add(self, op: Op) -> int:
        """Append an operation, whose id is `next_id`; returns it."""
        self.ops.append(op)
        return op.id

    @property
    def next_id(self) -> int:
        """Id of the operation that is added next."""
        return len(self.ops)

    def made(self, *values: Value) -> tuple[int, ...]:
        """The operations that made some values, as far as operations did."""
        return tuple(sorted({self.maker[value] for value in values if value in self.maker}))

    def at(self, replica: int, layer: LayerPlan, rank: int) -> int:
        """The accelerator of a tensor rank of a layer."""
        return self.plan.accelerator(replica, layer.stage, rank)

    def ranks(self, layer: LayerPlan) -> tuple[int, ...]:
        """The tensor ranks that hold tiles of a layer and whose operations are written."""
        return tuple(rank for rank in layer.holders if rank in self.written)

    def passing(self, layer: LayerPlan, samples: int) -> int:
        """Vectors of so many samples of a replica through each array of a layer; experts work for several replicas."""
        together = 1 if layer.shape.routed is None else self.plan.expert
        return layer.shape.vectors(samples * together)

    def finish(self) -> Program:
        """The program."""
        return Program(
            ops=tuple(self.ops),
            accelerators=tuple(sorted({a for op in self.ops for a in op.accelerators})),
            samples=self.samples * self.microbatches * len(self.replicas),
            microbatches=self.microbatches,
            minibatch=self.samples * self.microbatches,
            purpose=self.purpose,
        )


def block_of(layer: LayerPlan, rank: int) -> Block:
    """The block of a rank that holds tiles of the layer."""
    block = layer.blocks[rank]
    if block is None:
        raise ValueError(f"{layer.name} has no tiles on tensor rank {rank}")
    return block


def lines_of(block: Block) -> tuple[int, int]:
    """Column lines and row lines of a block, summed over its tiles."""
    across, down = length(block.cols) * length(block.tile_rows), length(block.rows) * length(block.tile_cols)
    return block.arrays * across, block.arrays * down


def length(span: Range | None) -> int:
    """Elements of a range."""
    return 0 if span is None else span[1] - span[0]
