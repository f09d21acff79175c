"""What computes: the reads of a run of layers and the digital work between them, forward and backward."""

from collections.abc import Sequence
from typing import Final, Literal

from rpucluster.lowering.draft import WHOLE_MINIBATCH, Draft, block_of, length, lines_of
from rpucluster.lowering.moves import all_reduce, deliver, gather
from rpucluster.plan import LayerPlan, Range, covers
from rpucluster.program import Digital, DigitalKind, Direction, Read

LOSS_OPERATIONS: Final = 4
"""Digital operations per output of softmax and cross-entropy: exponential, sum, division, difference."""


def forward_run(draft: Draft, layers: Sequence[LayerPlan], replica: int, microbatch: int) -> None:
    """Pass a microbatch through a run of layers, and score it behind the last layer of all."""
    for layer in layers:
        if layer.layer > 0:
            deliver(draft, "activation", draft.plan.layers[layer.layer - 1], layer, replica, microbatch)
        _forward_layer(draft, layer, replica, microbatch)
        if layer.layer == len(draft.plan.layers) - 1:
            _loss(draft, layer, replica, microbatch)


def backward_run(draft: Draft, layers: Sequence[LayerPlan], replica: int, microbatch: int) -> None:
    """Pass the errors of a microbatch back through a run of layers."""
    for layer in reversed(layers):
        if layer.layer < len(draft.plan.layers) - 1:
            deliver(draft, "error", draft.plan.layers[layer.layer + 1], layer, replica, microbatch)
            _derivative(draft, layer, replica, microbatch)
        if layer.layer > 0:
            for rank in draft.ranks(layer):
                _read(draft, "backward", layer, rank, draft.at(replica, layer, rank), microbatch)
            if layer.sums_backward:
                all_reduce(draft, "partial_error", layer, replica, microbatch)


def digital(
    draft: Draft,
    kind: DigitalKind,
    layer: LayerPlan,
    accelerator: int,
    microbatch: int,
    *,
    operations: int,
    deps: tuple[int, ...],
    makes: str | None = None,
) -> int:
    """Work of the digital units, which may make a value of the layer."""
    op = draft.add(
        Digital(
            id=draft.next_id,
            accelerator=accelerator,
            kind=kind,
            layer=layer.layer,
            microbatch=microbatch,
            operations=operations,
            deps=deps,
        )
    )
    if makes is not None:
        draft.maker[(makes, layer.layer, microbatch, accelerator)] = op
    return op


def _forward_layer(draft: Draft, layer: LayerPlan, replica: int, microbatch: int) -> None:
    for rank in draft.ranks(layer):
        _read(draft, "forward", layer, rank, draft.at(replica, layer, rank), microbatch)
    if layer.sums_forward:
        all_reduce(draft, "partial_output", layer, replica, microbatch)
    model = draft.job.network.layers[layer.layer]
    for rank in draft.ranks(layer):
        accelerator = draft.at(replica, layer, rank)
        per_output = (model.activation != "identity") + (model.bias == "digital")
        digital(
            draft,
            "activation",
            layer,
            accelerator,
            microbatch,
            operations=draft.vectors * length(layer.gives[rank]) * per_output,
            deps=draft.made(
                ("out", layer.layer, microbatch, accelerator), ("biases", layer.layer, WHOLE_MINIBATCH, accelerator)
            ),
            makes="activation",
        )


def _loss(draft: Draft, layer: LayerPlan, replica: int, microbatch: int) -> None:
    whole: tuple[Range | None, ...] = tuple((0, layer.outputs) if b else None for b in layer.blocks)
    if not covers(layer.gives, whole):
        gather(draft, "activation", layer, layer.gives, replica, microbatch, stage=layer.stage, among=layer.holders)
    for rank in draft.ranks(layer):
        accelerator = draft.at(replica, layer, rank)
        digital(
            draft,
            "loss",
            layer,
            accelerator,
            microbatch,
            operations=draft.vectors * layer.outputs * LOSS_OPERATIONS,
            deps=draft.made(("activation", layer.layer, microbatch, accelerator)),
            makes="delta",
        )


def _derivative(draft: Draft, layer: LayerPlan, replica: int, microbatch: int) -> None:
    model = draft.job.network.layers[layer.layer]
    for rank in draft.ranks(layer):
        accelerator = draft.at(replica, layer, rank)
        digital(
            draft,
            "derivative",
            layer,
            accelerator,
            microbatch,
            operations=draft.vectors * length(layer.gives[rank]) * (model.activation != "identity"),
            deps=draft.made(("error", layer.layer, microbatch, accelerator)),
            makes="delta",
        )


def _read(draft: Draft, direction: Direction, layer: LayerPlan, rank: int, accelerator: int, microbatch: int) -> None:
    block = block_of(layer, rank)
    across, down = lines_of(block)
    forward = direction == "forward"
    grid_rows, grid_cols = length(block.tile_rows), length(block.tile_cols)
    weights = ("weights", layer.layer, WHOLE_MINIBATCH, accelerator)
    if forward:
        deps = draft.made(("activation", layer.layer - 1, microbatch, accelerator), weights)
        additions = (grid_cols - 1) * length(block.rows)
    else:
        deps = draft.made(("delta", layer.layer, microbatch, accelerator), weights)
        additions = (grid_rows - 1) * length(block.cols)
    op = draft.add(
        Read(
            id=draft.next_id,
            accelerator=accelerator,
            direction=direction,
            layer=layer.layer,
            microbatch=microbatch,
            vectors=draft.vectors,
            tiles=block.tiles,
            cells=block.cells,
            input_lines=across if forward else down,
            output_lines=down if forward else across,
            additions=additions,
            deps=deps,
        )
    )
    made: tuple[Literal["out", "error"], int] = ("out", layer.layer) if forward else ("error", layer.layer - 1)
    draft.maker[(*made, microbatch, accelerator)] = op
    draft.touched.setdefault((layer.layer, accelerator), []).append(op)
