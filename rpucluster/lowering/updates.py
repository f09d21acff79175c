"""What changes weights: updates, with the gathers of factors before them, and averaging."""

from collections.abc import Sequence
from typing import Literal

from rpucluster.algorithms import Work
from rpucluster.lowering.draft import WHOLE_MINIBATCH, Draft, block_of, length, lines_of
from rpucluster.lowering.passes import digital
from rpucluster.partitioner import Block, LayerPlan
from rpucluster.program import Collective, Lines, Rewrite, Update


def update(draft: Draft, layers: Sequence[LayerPlan], microbatch: int = WHOLE_MINIBATCH) -> None:
    """Update the shards of a run of layers by a microbatch, or by all, on every replica, the last layer first."""
    microbatches = range(draft.microbatches) if microbatch == WHOLE_MINIBATCH else [microbatch]
    factors = draft.plan.data > 1 and draft.job.parallel.data_sync == "factors"
    samples = draft.vectors * len(microbatches) * (draft.plan.data if factors else 1)
    for layer in reversed(layers):
        for rank in layer.holders:
            members = tuple(draft.at(replica, layer, rank) for replica in draft.replicas)
            waits = {member: _factor_makers(draft, layer, member, microbatches) for member in members}
            if factors:
                gathered = _gather_factors(draft, layer, rank, members, microbatch, waits)
                waits = {member: (gathered, *draft.touched[(layer.layer, member)]) for member in members}
            for member in members:
                _update(draft, layer, rank, member, microbatch, samples, waits[member])


def average_shard(draft: Draft, layer: LayerPlan, rank: int) -> None:
    """Read a shard's weights out on all replicas, average them and program them back."""
    block = block_of(layer, rank)
    members = tuple(draft.at(replica, layer, rank) for replica in draft.replicas)
    tallest = min(draft.plan.tile_rows, length(block.rows))
    bias = length(block.rows) if draft.job.network.layers[layer.layer].bias == "digital" else 0

    def rewrite(kind: Literal["read_out", "program"], accelerator: int, deps: tuple[int, ...]) -> int:
        return draft.add(
            Rewrite(
                id=draft.next_id,
                accelerator=accelerator,
                kind=kind,
                layer=layer.layer,
                rows=tallest,
                tiles=block.tiles,
                cells=block.cells,
                bit_length=draft.job.update.bit_length,
                deps=deps,
            )
        )

    read = tuple(rewrite("read_out", member, ()) for member in members)
    reduced = draft.add(
        Collective(
            id=draft.next_id,
            kind="all_reduce",
            members=members,
            elements=(block.cells + bias,) * len(members),
            word_bits=draft.job.words.weight_bits,
            payload="weights",
            layer=layer.layer,
            microbatch=WHOLE_MINIBATCH,
            deps=read,
        )
    )
    for member in members:
        rewrite("program", member, (reduced,))


def _factor_makers(draft: Draft, layer: LayerPlan, accelerator: int, microbatches: Sequence[int]) -> tuple[int, ...]:
    values = [("delta", layer.layer, m, accelerator) for m in microbatches]
    values += [("activation", layer.layer - 1, m, accelerator) for m in microbatches]
    return tuple(sorted({*draft.made(*values), *draft.touched[(layer.layer, accelerator)]}))


def _gather_factors(
    draft: Draft,
    layer: LayerPlan,
    rank: int,
    members: tuple[int, ...],
    microbatch: int,
    waits: dict[int, tuple[int, ...]],
) -> int:
    width = length(layer.needs[rank]) + length(layer.gives[rank])
    vectors = draft.vectors * (draft.microbatches if microbatch == WHOLE_MINIBATCH else 1)
    return draft.add(
        Collective(
            id=draft.next_id,
            kind="all_gather",
            members=members,
            elements=(vectors * width,) * len(members),
            word_bits=draft.job.words.factor_bits,
            payload="factors",
            layer=layer.layer,
            microbatch=microbatch,
            deps=tuple(sorted({dep for wait in waits.values() for dep in wait})),
        )
    )


def _update(
    draft: Draft, layer: LayerPlan, rank: int, accelerator: int, microbatch: int, samples: int, deps: tuple[int, ...]
) -> None:
    block = block_of(layer, rank)
    work = draft.job.algorithm_of(layer.layer).work(samples)
    place = (layer.layer, WHOLE_MINIBATCH, accelerator)
    draft.maker[("weights", *place)] = draft.add(
        Update(
            id=draft.next_id,
            accelerator=accelerator,
            layer=layer.layer,
            microbatch=microbatch,
            samples=samples,
            tiles=block.tiles,
            cells=block.cells,
            lines=sum(lines_of(block)),
            bit_length=draft.job.update.bit_length,
            pulsed=work.cycles > 0,
            planes=work.planes,
            alone=_lines_alone(work, block, min(draft.plan.tile_rows, length(block.rows))),
            deps=deps,
        )
    )
    if draft.job.network.layers[layer.layer].bias == "digital":
        operations = samples * length(block.rows)
        draft.maker[("biases", *place)] = digital(
            draft, "bias", layer, accelerator, microbatch, operations=operations, deps=deps
        )
    draft.touched[(layer.layer, accelerator)] = []


def _lines_alone(work: Work, block: Block, tallest: int) -> Lines | None:
    """What an algorithm does to single lines of a block whose tallest tile has so many rows."""
    _, down = lines_of(block)
    operations = work.operations_per_cell * block.cells + work.operations_per_row * down
    if work.columns_read or work.columns_written:
        return Lines(
            direction="forward",
            passes=work.columns_read * block.tiles,
            passes_in_turn=work.columns_read,
            values=work.columns_read * down,
            writes=work.columns_written * block.tiles,
            writes_in_turn=work.columns_written,
            written=work.columns_written * down,
            slots=work.slots,
            operations=operations,
        )
    if work.matrices_read or work.matrices_written or operations:
        return Lines(
            direction="backward",
            passes=work.matrices_read * down,
            passes_in_turn=work.matrices_read * tallest,
            values=work.matrices_read * block.cells,
            writes=work.matrices_written * down,
            writes_in_turn=work.matrices_written * tallest,
            written=work.matrices_written * block.cells,
            slots=work.slots,
            operations=operations,
        )
    return None
