"""What computes: the reads of a run of layers and the digital work between them, forward and backward."""

from collections.abc import Sequence
from typing import Final, Literal

from rpucluster.lowering.draft import WHOLE_MINIBATCH, Draft, block_of, length, lines_of
from rpucluster.lowering.moves import all_reduce, deliver, gather, to_experts
from rpucluster.plan import LayerPlan, Range, covers
from rpucluster.program import Collective, Digital, DigitalKind, Direction, Read

LOSS_OPERATIONS: Final = 4
"""Digital operations per output of softmax and cross-entropy: exponential, sum, division, difference."""


def forward_run(draft: Draft, layers: Sequence[LayerPlan], replicas: Sequence[int], microbatch: int) -> None:
    """Pass a microbatch of each of some replicas, which share experts if they are several, through a run of layers, and
    score it behind the last layer of all."""
    for layer in layers:
        for replica in replicas:
            if layer.layer > 0:
                deliver(draft, "activation", draft.plan.layers[layer.layer - 1], layer, replica, microbatch)
            _prepare(draft, layer, replica, microbatch)
        if layer.shape.dispatch and draft.plan.expert > 1:
            to_experts(draft, layer, replicas[0], microbatch, "prepared")
        for replica in replicas:
            for rank in draft.ranks(layer):
                _read(draft, "forward", layer, rank, draft.at(replica, layer, rank), microbatch)
            if layer.sums_forward:
                all_reduce(draft, "partial_output", layer, replica, microbatch)
        if layer.shape.collect and draft.plan.expert > 1:
            to_experts(draft, layer, replicas[0], microbatch, "out")
        for replica in replicas:
            _activation(draft, layer, replica, microbatch)
            if layer.layer == len(draft.plan.layers) - 1:
                _loss(draft, layer, replica, microbatch)


def backward_run(draft: Draft, layers: Sequence[LayerPlan], replicas: Sequence[int], microbatch: int) -> None:
    """Pass the errors of a microbatch of each of some replicas back through a run of layers."""
    for layer in reversed(layers):
        if layer.layer < len(draft.plan.layers) - 1:
            for replica in replicas:
                deliver(draft, "error", draft.plan.layers[layer.layer + 1], layer, replica, microbatch)
                _derivative(draft, layer, replica, microbatch)
        if layer.shape.collect and draft.plan.expert > 1:
            to_experts(draft, layer, replicas[0], microbatch, "delta")
        if layer.layer == 0 and not layer.shape.embedding:
            continue
        for replica in replicas:
            for rank in draft.ranks(layer):
                _read(draft, "backward", layer, rank, draft.at(replica, layer, rank), microbatch)
            if layer.sums_backward:
                all_reduce(draft, "partial_error", layer, replica, microbatch)
        if layer.shape.dispatch and draft.plan.expert > 1:
            to_experts(draft, layer, replicas[0], microbatch, "error")
        for replica in replicas:
            _prepare(draft, layer, replica, microbatch, back=True)


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
    of: int | None = None,
    vectors: int = 1,
) -> int:
    """Work of the digital units, which may make a value of the layer, or of another."""
    op = draft.add(
        Digital(
            id=draft.next_id,
            accelerator=accelerator,
            kind=kind,
            layer=layer.layer,
            microbatch=microbatch,
            operations=operations,
            vectors=vectors,
            deps=deps,
        )
    )
    if makes is not None:
        draft.maker[(makes, layer.layer if of is None else of, microbatch, accelerator)] = op
    return op


def _prepare(draft: Draft, layer: LayerPlan, replica: int, microbatch: int, *, back: bool = False) -> None:
    """What comes before the arrays, or follows them on the way back; each rank prepares what it needs."""
    operations = layer.shape.prepare_back_operations if back else layer.shape.prepare_operations
    if not operations:
        return
    kind: DigitalKind = "prepare_back" if back else "prepare"
    takes, makes, of = ("error", "error", layer.layer - 1) if back else ("activation", "prepared", layer.layer)
    for rank in draft.ranks(layer):
        accelerator = draft.at(replica, layer, rank)
        digital(
            draft,
            kind,
            layer,
            accelerator,
            microbatch,
            operations=-(-draft.samples * operations * length(layer.needs[rank]) // layer.inputs),
            vectors=layer.shape.vectors(draft.samples),
            deps=draft.made((takes, layer.layer - 1, microbatch, accelerator)),
            makes=makes,
            of=of,
        )


def _activation(draft: Draft, layer: LayerPlan, replica: int, microbatch: int) -> None:
    shape = layer.shape
    # a recurrent layer does this vector by vector, in its reads
    operations = 0 if shape.recurrent else shape.operations + 2 * shape.digital_macs
    for rank in draft.ranks(layer):
        accelerator = draft.at(replica, layer, rank)
        digital(
            draft,
            "activation",
            layer,
            accelerator,
            microbatch,
            operations=draft.samples * layer.share(rank, operations),
            vectors=_in_a_row(draft, layer),
            deps=draft.made(
                ("out", layer.layer, microbatch, accelerator), ("biases", layer.layer, WHOLE_MINIBATCH, accelerator)
            ),
            makes="activation",
        )


def _in_a_row(draft: Draft, layer: LayerPlan) -> int:
    """Vectors that digital work behind a layer takes one by one; attention needs all of them."""
    return 1 if layer.shape.kind == "attention" else draft.passing(layer, draft.samples)


def _loss(draft: Draft, layer: LayerPlan, replica: int, microbatch: int) -> None:
    whole: tuple[Range | None, ...] = tuple((0, layer.outputs) if b else None for b in layer.blocks)
    apart = layer.shape.kind == "logits"
    if apart and len(layer.holders) > 1:
        _join_softmax(draft, layer, replica, microbatch)
    elif not covers(layer.gives, whole):
        gather(draft, "activation", layer, layer.gives, replica, microbatch, stage=layer.stage, among=layer.holders)
    for rank in draft.ranks(layer):
        accelerator = draft.at(replica, layer, rank)
        scored = length(layer.gives[rank]) if apart else layer.outputs
        digital(
            draft,
            "loss",
            layer,
            accelerator,
            microbatch,
            operations=draft.samples * scored * LOSS_OPERATIONS,
            vectors=_in_a_row(draft, layer),
            deps=draft.made(("activation", layer.layer, microbatch, accelerator)),
            makes="delta",
        )


def _join_softmax(draft: Draft, layer: LayerPlan, replica: int, microbatch: int) -> None:
    """Of each token, the largest of its sums, the sum of their exponentials and the one that was asked for: what ranks
    that hold some of the words tell each other (Shoeybi et al. 2019, section 3)."""
    members = tuple(draft.at(replica, layer, rank) for rank in layer.holders)
    op = draft.add(
        Collective(
            id=draft.next_id,
            kind="all_reduce",
            members=members,
            elements=(3 * draft.samples * layer.shape.positions,) * len(members),
            word_bits=draft.job.words.sum_bits,
            payload="loss",
            layer=layer.layer,
            microbatch=microbatch,
            deps=draft.made(*(("activation", layer.layer, microbatch, member) for member in members)),
        )
    )
    for member in members:
        draft.maker[("activation", layer.layer, microbatch, member)] = op


def _derivative(draft: Draft, layer: LayerPlan, replica: int, microbatch: int) -> None:
    shape = layer.shape
    operations = 0 if shape.recurrent else shape.back_operations + 4 * shape.digital_macs
    for rank in draft.ranks(layer):
        accelerator = draft.at(replica, layer, rank)
        digital(
            draft,
            "derivative",
            layer,
            accelerator,
            microbatch,
            operations=draft.samples * layer.share(rank, operations),
            vectors=_in_a_row(draft, layer),
            deps=draft.made(("error", layer.layer, microbatch, accelerator)),
            makes="delta",
        )


def _read(draft: Draft, direction: Direction, layer: LayerPlan, rank: int, accelerator: int, microbatch: int) -> None:
    block, shape = block_of(layer, rank), layer.shape
    across, down = lines_of(block)
    forward = direction == "forward"
    grid_rows, grid_cols = length(block.tile_rows), length(block.tile_cols)
    serial = shape.operations if forward else shape.back_operations
    weights = ("weights", layer.layer, WHOLE_MINIBATCH, accelerator)
    if forward:
        x = "prepared" if shape.prepare_operations else "activation"
        deps = draft.made((x, layer.layer - (x == "activation"), microbatch, accelerator), weights)
        additions = (grid_cols - 1) * length(block.rows)
    else:
        deps = draft.made(("delta", layer.layer, microbatch, accelerator), weights)
        additions = (grid_rows - 1 + shape.overlapping) * length(block.cols)
    op = draft.add(
        Read(
            id=draft.next_id,
            accelerator=accelerator,
            direction=direction,
            layer=layer.layer,
            microbatch=microbatch,
            vectors=draft.passing(layer, draft.samples),
            tiles=block.tiles,
            cells=block.cells,
            input_lines=across if forward else down,
            output_lines=down if forward else across,
            additions=block.arrays * additions,
            serial_operations=-(-serial // shape.positions) if shape.recurrent else 0,
            deps=deps,
        )
    )
    made: tuple[Literal["out", "error"], int] = ("out", layer.layer) if forward else ("error", layer.layer - 1)
    draft.maker[(*made, microbatch, accelerator)] = op
    draft.touched.setdefault((layer.layer, accelerator), []).append(op)
