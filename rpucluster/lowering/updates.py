"""What changes weights: updates, with what replicas exchange before them, and averaging."""

from collections.abc import Sequence
from typing import Literal

from rpucluster.algorithms import Work
from rpucluster.lowering.draft import WHOLE_MINIBATCH, Draft, block_of, length, lines_of
from rpucluster.lowering.passes import digital
from rpucluster.plan import Block, LayerPlan
from rpucluster.program import Collective, Lines, Rewrite, Update


def update(draft: Draft, layers: Sequence[LayerPlan], microbatch: int = WHOLE_MINIBATCH) -> None:
    """Update the shards of a run of layers by a microbatch, or by all, on every replica, the last layer first."""
    microbatches = range(draft.microbatches) if microbatch == WHOLE_MINIBATCH else [microbatch]
    for layer in reversed(layers):
        for rank in draft.ranks(layer):
            members = tuple(draft.at(replica, layer, rank) for replica in draft.replicas)
            written = members[: len(draft.written_replicas)]
            waits = {member: _makers(draft, layer, member, microbatches) for member in written}
            if len(members) > 1 and draft.job.parallel.data_sync != "average":
                shared = _exchange(draft, layer, rank, members, microbatch, waits)
                waits = {member: (shared, *draft.touched[(layer.layer, member)]) for member in written}
            for member in written:
                _update(draft, layer, rank, member, microbatch, waits[member])


def accumulate(draft: Draft, layers: Sequence[LayerPlan], replica: int, microbatch: int) -> None:
    """Add a microbatch to the dense gradients of a run of layers, once its errors are there, the last layer first.

    A multiplication and an addition per cell and sample, and an addition per digital bias.
    """
    for layer in reversed(layers):
        for rank in draft.ranks(layer):
            accelerator, block = draft.at(replica, layer, rank), block_of(layer, rank)
            place = ("gradient", layer.layer, WHOLE_MINIBATCH, accelerator)
            delta = ("delta", layer.layer, microbatch, accelerator)
            x = ("activation", layer.layer - 1, microbatch, accelerator)
            draft.maker[place] = digital(
                draft,
                "gradient",
                layer,
                accelerator,
                microbatch,
                operations=draft.vectors * (2 * block.cells + _biases(draft, layer, rank)),
                deps=draft.made(delta, x, place),
            )


def average_shard(draft: Draft, layer: LayerPlan, rank: int) -> None:
    """Read a shard's weights out on all replicas, average them and program them back."""
    block = block_of(layer, rank)
    members = tuple(draft.at(replica, layer, rank) for replica in draft.replicas)
    written = members[: len(draft.written_replicas)]
    tallest = min(draft.plan.tile_rows, length(block.rows))

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

    read = tuple(rewrite("read_out", member, ()) for member in written)
    reduced = draft.add(
        Collective(
            id=draft.next_id,
            kind="all_reduce",
            members=members,
            elements=(block.cells + _biases(draft, layer, rank),) * len(members),
            word_bits=draft.job.words.weight_bits,
            payload="weights",
            layer=layer.layer,
            microbatch=WHOLE_MINIBATCH,
            deps=read,
        )
    )
    for member in written:
        rewrite("program", member, (reduced,))


def _makers(draft: Draft, layer: LayerPlan, accelerator: int, microbatches: Sequence[int]) -> tuple[int, ...]:
    """What made the factors or the dense gradient of an update, and the reads that come before it."""
    if draft.job.parallel.data_sync == "gradient":
        made = draft.made(("gradient", layer.layer, WHOLE_MINIBATCH, accelerator))
    else:
        values = [("delta", layer.layer, m, accelerator) for m in microbatches]
        made = draft.made(*values, *(("activation", layer.layer - 1, m, accelerator) for m in microbatches))
    return tuple(sorted({*made, *draft.touched[(layer.layer, accelerator)]}))


def _exchange(
    draft: Draft,
    layer: LayerPlan,
    rank: int,
    members: tuple[int, ...],
    microbatch: int,
    waits: dict[int, tuple[int, ...]],
) -> int:
    """Bring the factors, or the sum of the dense gradients, to all replicas."""
    dense, words = draft.job.parallel.data_sync == "gradient", draft.job.words
    if dense:
        elements = block_of(layer, rank).cells + _biases(draft, layer, rank)
    else:
        vectors = draft.vectors * (draft.microbatches if microbatch == WHOLE_MINIBATCH else 1)
        elements = vectors * (length(layer.needs[rank]) + length(layer.gives[rank]))
    return draft.add(
        Collective(
            id=draft.next_id,
            kind="all_reduce" if dense else "all_gather",
            members=members,
            elements=(elements,) * len(members),
            word_bits=words.gradient_bits if dense else words.factor_bits,
            payload="gradient" if dense else "factors",
            layer=layer.layer,
            microbatch=microbatch,
            deps=tuple(sorted({dep for wait in waits.values() for dep in wait})),
        )
    )


def _update(
    draft: Draft, layer: LayerPlan, rank: int, accelerator: int, microbatch: int, deps: tuple[int, ...]
) -> None:
    block, sync = block_of(layer, rank), draft.job.parallel.data_sync
    samples = draft.vectors * (draft.microbatches if microbatch == WHOLE_MINIBATCH else 1)
    samples *= 1 if sync == "average" else draft.plan.data
    bits, tallest = draft.job.update.bit_length, min(draft.plan.tile_rows, length(block.rows))
    dense = sync == "gradient"
    # one cycle per row; a multiplication makes a probability of each number of the gradient
    work = _ROWS._replace(slots=bits) if dense else draft.job.algorithm_of(layer.layer).work(samples)
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
            bit_length=bits,
            pulsed=work.cycles > 0,
            planes=work.planes,
            dense=dense,
            alone=_lines_alone(work, block, tallest),
            deps=deps,
        )
    )
    if biases := _biases(draft, layer, rank):
        draft.maker[("biases", *place)] = digital(
            draft, "bias", layer, accelerator, microbatch, operations=biases * (1 if dense else samples), deps=deps
        )
    draft.touched[(layer.layer, accelerator)] = []
    draft.maker.pop(("gradient", *place), None)


_ROWS = Work(cycles=0, planes=1, matrices_written=1, operations_per_cell=1)
"""What writing a dense gradient costs each tile."""


def _biases(draft: Draft, layer: LayerPlan, rank: int) -> int:
    """Digital biases of a rank."""
    return length(layer.gives[rank]) if draft.job.network.layers[layer.layer].bias == "digital" else 0


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
