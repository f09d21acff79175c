"""Which accelerator holds which whole tiles: the values that a plan consists of.

A layer's array is cut into tiles once, by the tile size alone.  Tensor parallelism gives each rank a block of
tile rows (``output`` split) or tile columns (``input`` split) of a layer, pipeline parallelism gives each stage
a run of layers, or several in turn under an interleaved schedule, data parallelism copies everything.  A plan is
that assignment and nothing more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rpucluster.model import Layer

Split = Literal["output", "input"]
Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A rectangular block of whole tiles of one layer."""

    tile_rows: Range
    tile_cols: Range
    rows: Range
    """Array rows, which are outputs of the layer."""
    cols: Range
    """Array columns, which are inputs of the layer, and the bias line last."""
    arrays: int = 1
    """Arrays of the layer of which it holds this block each."""

    @property
    def tiles(self) -> int:
        return self.arrays * length(self.tile_rows) * length(self.tile_cols)

    @property
    def cells(self) -> int:
        return self.arrays * length(self.rows) * length(self.cols)


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """How one layer is cut and which stage holds it; the same for every replica."""

    layer: int
    shape: Layer
    stage: int
    chunk: int = 0
    """Which of the stage's runs of layers it belongs to; only an interleaved schedule has several."""
    split: Split
    arrays: int = 1
    """Arrays of the layer on each replica: all, or its share of the experts."""
    tile_grid: tuple[int, int]
    """Rows and columns of tiles of each array."""
    blocks: tuple[Block | None, ...]
    """One block per tensor rank; None where the layer has fewer tile rows or columns than there are ranks."""

    @cached_property
    def holders(self) -> tuple[int, ...]:
        """The tensor ranks that hold tiles of the layer."""
        return tuple(rank for rank, block in enumerate(self.blocks) if block is not None)

    @cached_property
    def needs(self) -> tuple[Range | None, ...]:
        """The elements of a sample that each rank must have before the forward pass (the bias line is its own).

        They are also the errors of the inputs that it has after the backward pass and its all-reduce.
        """
        return tuple(None if block is None else self.shape.inputs_of(block.cols) for block in self.blocks)

    @cached_property
    def gives(self) -> tuple[Range | None, ...]:
        """The elements that each rank has after the forward pass, and whose errors it needs before the backward."""
        return tuple(
            None if block is None or needs is None else self.shape.outputs_of(block.rows, needs)
            for block, needs in zip(self.blocks, self.needs, strict=True)
        )

    @cached_property
    def sums(self) -> tuple[int, ...]:
        """The sums of a sample that come out of each rank's arrays."""
        each = self.shape.positions * self.shape.passes
        return tuple(0 if block is None else each * length(block.rows) for block in self.blocks)

    def share(self, rank: int, amount: int) -> int:
        """What a rank does of digital work behind all sums of the layer, which goes by its rows."""
        block = self.blocks[rank]
        return 0 if block is None else -(-amount * length(block.rows) // self.shape.rows)

    def sides(self, rank: int) -> tuple[int, ...] | None:
        """All that the operations of a rank depend on, so that ranks with the same do the same; None without tiles."""
        block, needs, gives = self.blocks[rank], self.needs[rank], self.gives[rank]
        if block is None:
            return None
        sides = (block.tile_rows, block.tile_cols, block.rows, block.cols, needs or (0, 0), gives or (0, 0))
        return block.arrays, *(length(side) for side in sides)

    @property
    def name(self) -> str:
        return self.shape.name

    @property
    def inputs(self) -> int:
        """Elements of a sample that the layer takes."""
        return self.shape.inputs

    @property
    def outputs(self) -> int:
        """Elements of a sample that the layer gives."""
        return self.shape.outputs

    @property
    def sums_forward(self) -> bool:
        """Whether the outputs are partial sums that the ranks must add up."""
        return self.split == "input" and len(self.holders) > 1

    @property
    def sums_backward(self) -> bool:
        """Whether the errors of the inputs are partial sums that the ranks must add up."""
        return self.split == "output" and len(self.holders) > 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One block at its place."""

    layer: int
    name: str
    replica: int
    stage: int
    tensor_rank: int
    accelerator: int
    block: Block


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The assignment of every tile of a job to an accelerator."""

    layers: tuple[LayerPlan, ...]
    tensor: int
    pipeline: int
    virtual_stages: int = 1
    """Runs of layers on each stage: run k * pipeline + s is chunk k of stage s."""
    data: int
    expert: int = 1
    """Replicas in a row that share the experts of a layer."""
    placement: tuple[str, ...]
    tile_rows: int
    tile_cols: int
    tiles_available: int
    """Tiles of each accelerator."""
    accelerators_available: int

    def accelerator(self, replica: int, stage: int, tensor_rank: int) -> int:
        """The number of the accelerator at a place of the mesh; `placement` names the innermost axis first."""
        strides = self._strides
        return replica * strides["data"] + stage * strides["pipeline"] + tensor_rank * strides["tensor"]

    @cached_property
    def _strides(self) -> dict[str, int]:
        """What one step along each axis of the mesh adds to an accelerator's number."""
        sizes = {"tensor": self.tensor, "pipeline": self.pipeline, "data": self.data}
        strides, stride = {}, 1
        for axis in self.placement:
            strides[axis] = stride
            stride *= sizes[axis]
        return strides

    def ranks(self) -> Iterator[tuple[int, int, int, int]]:
        """Every (replica, stage, tensor rank, accelerator) of the mesh."""
        for replica in range(self.data):
            for stage in range(self.pipeline):
                for rank in range(self.tensor):
                    yield replica, stage, rank, self.accelerator(replica, stage, rank)

    def stage_layers(self, stage: int) -> tuple[LayerPlan, ...]:
        """All layers of a stage."""
        return tuple(layer for layer in self.layers if layer.stage == stage)

    def chunk_layers(self, stage: int, chunk: int) -> tuple[LayerPlan, ...]:
        """One run of layers."""
        return tuple(layer for layer in self.layers if (layer.stage, layer.chunk) == (stage, chunk))

    def shards(self) -> Iterator[Shard]:
        """Every block of every replica at its place."""
        for replica, stage, rank, accelerator in self.ranks():
            for layer in self.stage_layers(stage):
                block = layer.blocks[rank]
                if block is not None:
                    yield Shard(
                        layer=layer.layer,
                        name=layer.name,
                        replica=replica,
                        stage=stage,
                        tensor_rank=rank,
                        accelerator=accelerator,
                        block=block,
                    )

    @property
    def accelerators(self) -> tuple[int, ...]:
        """The accelerators that hold tiles, ascending."""
        return tuple(sorted({shard.accelerator for shard in self.shards()}))


def covers(have: Sequence[Range | None], need: Sequence[Range | None]) -> bool:
    """Whether every rank already holds the elements that it needs."""
    return all(
        n is None or n[0] == n[1] or (h is not None and h[0] <= n[0] and n[1] <= h[1])
        for h, n in zip(have, need, strict=True)
    )


def length(span: Range) -> int:
    """Elements of a range."""
    return span[1] - span[0]
