"""What changes weights: updates, with what replicas exchange before them, and averaging."""

from collections.abc import Sequence
from typing import Literal

from rpucluster.algorithms import Work
from rpucluster.lowering.draft import WHOLE_MINIBATCH, Draft, Value, block_of, length, lines_of
from rpucluster.lowering.passes import digital
from rpucluster.plan import Block, LayerPlan
from rpucluster.program import Collective, Lines, Rewrite, Update


def update(draft: Draft, layers: Sequence[LayerPlan], microbatch: int = WHOLE_MINIBATCH) -> None:
    """Update the shards of a run of layers by a microbatch, or by all, on every replica, the last layer first."""
    microbatches = draft.passed if microbatch == WHOLE_MINIBATCH else [microbatch]
    for layer in reversed(layers):
        for rank in draft.ranks(layer):
            for replicas, written in _alike(draft, layer):
                members = tuple(draft.at(replica, layer, rank) for replica in replicas)
                waits = {member: _makers(draft, layer, member, microbatches) for member in members[:written]}
                if len(members) > 1 and draft.job.parallel.data_sync != "average":
                    shared = _exchange(draft, layer, rank, members, microbatch, waits)
                    waits = {member: (shared, *draft.touched[(layer.layer, member)]) for member in waits}
                for member in waits:
                    _update(draft, layer, rank, member, microbatch, waits[member])


def _alike(draft: Draft, layer: LayerPlan) -> Sequence[tuple[Sequence[int], int]]:
    """The replicas that hold the same weights of a layer, all or of experts those with the same share, as far as the
    operations of any are written, and of how many they are."""
    written = len(draft.written_replicas)
    if layer.shape.routed is None or draft.plan.expert == 1:
        return [(draft.replicas, written)]
    parts = min(draft.plan.expert, written)
    return [(draft.replicas[part :: draft.plan.expert], -(-written // draft.plan.expert)) for part in range(parts)]


def accumulate(draft: Draft, layers: Sequence[LayerPlan], replica: int, microbatch: int) -> None:
    """Add a microbatch to the dense gradients of a run of layers, once its errors are there, the last layer first.

    A multiplication and an addition per cell and vector, and an addition per digital bias.
    """
    for layer in reversed(layers):
        for rank in draft.ranks(layer):
            accelerator, block = draft.at(replica, layer, rank), block_of(layer, rank)
            place = ("gradient", layer.layer, WHOLE_MINIBATCH, accelerator)
            delta = ("delta", layer.layer, microbatch, accelerator)
            vectors = draft.passing(layer, draft.samples)
            draft.maker[place] = digital(
                draft,
                "gradient",
                layer,
                accelerator,
                microbatch,
                operations=vectors * (2 * block.cells + _biases(layer, rank)),
                vectors=vectors,
                deps=draft.made(delta, *_inputs_of(layer, microbatch, accelerator), place),
            )


def average_shard(draft: Draft, layer: LayerPlan, rank: int) -> None:
    """Read a shard's weights out on all replicas, average them and program them back."""
    for replicas, written in _alike(draft, layer):
        _average(draft, layer, rank, tuple(draft.at(replica, layer, rank) for replica in replicas), written)


def _average(draft: Draft, layer: LayerPlan, rank: int, members: tuple[int, ...], written: int) -> None:
    block = block_of(layer, rank)
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

    read = tuple(rewrite("read_out", member, ()) for member in members[:written])
    reduced = draft.add(
        Collective(
            id=draft.next_id,
            kind="all_reduce",
            members=members,
            elements=(block.cells + _digital(layer, rank),) * len(members),
            word_bits=draft.job.words.weight_bits,
            payload="weights",
            layer=layer.layer,
            microbatch=WHOLE_MINIBATCH,
            deps=read,
        )
    )
    for member in members[:written]:
        rewrite("program", member, (reduced,))


def _makers(draft: Draft, layer: LayerPlan, accelerator: int, microbatches: Sequence[int]) -> tuple[int, ...]:
    """What made the factors or the dense gradient of an update, and the reads that come before it."""
    if draft.job.parallel.data_sync == "gradient":
        made = draft.made(("gradient", layer.layer, WHOLE_MINIBATCH, accelerator))
    else:
        values = [("delta", layer.layer, m, accelerator) for m in microbatches]
        made = draft.made(*values, *(x for m in microbatches for x in _inputs_of(layer, m, accelerator)))
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
        elements = block_of(layer, rank).cells + _digital(layer, rank)
    else:
        shape = layer.shape
        samples = draft.samples * (draft.microbatches if microbatch == WHOLE_MINIBATCH else 1)
        x = shape.dispatch or length(layer.needs[rank])
        # an embedding needs the errors of what it gave; other digital parameters are exchanged as their gradients
        elements = samples * (x + layer.sums[rank] + (shape.inputs if shape.embedding else 0))
        elements += shape.digital_parameters
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
    samples = draft.samples * (draft.microbatches if microbatch == WHOLE_MINIBATCH else 1)
    vectors = draft.passing(layer, samples) if sync == "average" else layer.shape.vectors(samples * draft.plan.data)
    bits, tallest = draft.job.update.bit_length, min(draft.plan.tile_rows, length(block.rows))
    dense = sync == "gradient"
    # one cycle per row; a multiplication makes a probability of each number of the gradient
    work = _ROWS._replace(slots=bits) if dense else draft.job.algorithm_of(layer.layer).work(vectors)
    place = (layer.layer, WHOLE_MINIBATCH, accelerator)
    draft.maker[("weights", *place)] = draft.add(
        Update(
            id=draft.next_id,
            accelerator=accelerator,
            layer=layer.layer,
            microbatch=microbatch,
            samples=vectors,
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
    operations = _biases(layer, rank) * (1 if dense else vectors) + layer.shape.digital_parameters
    if operations:
        draft.maker[("biases", *place)] = digital(
            draft, "bias", layer, accelerator, microbatch, operations=operations, deps=deps
        )
    draft.touched[(layer.layer, accelerator)] = []
    draft.maker.pop(("gradient", *place), None)


_ROWS = Work(cycles=0, planes=1, matrices_written=1, operations_per_cell=1)
"""What writing a dense gradient costs each tile."""


def _biases(layer: LayerPlan, rank: int) -> int:
    """Digital biases of a rank."""
    block = block_of(layer, rank)
    return block.arrays * length(block.rows) * (layer.shape.bias == "digital")


def _digital(layer: LayerPlan, rank: int) -> int:
    """Everything that a rank's digital units train of a layer."""
    return _biases(layer, rank) + layer.shape.digital_parameters + layer.shape.embedding


def _inputs_of(layer: LayerPlan, microbatch: int, accelerator: int) -> tuple[Value, Value]:
    """What may hold the x of a layer: the activation before it, or what was prepared of that."""
    return ("activation", layer.layer - 1, microbatch, accelerator), ("prepared", layer.layer, microbatch, accelerator)


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
