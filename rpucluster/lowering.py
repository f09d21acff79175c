"""From a plan to a program: `lower(plan, job)`.

Values are named after what they are, so that the two readers agree: layer l takes the activation l-1, sums
the partial results of its tiles, and gives the activation l; backward it takes the error l and gives the
error l-1.  Where a rank does not hold what it needs, the ranks gather the value; where the next layer sits on
another stage, the value is sent from rank to rank.
"""

from collections.abc import Sequence
from typing import Literal

from rpucluster.algorithms import Work
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.partitioner import Block, LayerPlan, Plan, Range, covers
from rpucluster.program import Collective, Digital, Lines, Op, Program, Purpose, Read, Rewrite, Send, Update
from rpucluster.schedule import interleave

WHOLE_MINIBATCH = -1
LOSS_OPERATIONS = 4
"""Digital operations per output of softmax and cross-entropy: exponential, sum, division, difference."""

Value = tuple[str, int, int, int]  # name, layer, microbatch, accelerator


def lower(plan: Plan, job: Job, purpose: Purpose = "train", batch: int | None = None) -> Program:
    """Write the program of one training step, of one evaluation batch, or of one averaging of the replicas.

    ``"train"`` follows ``[parallel] schedule`` and ends with the updates (all-gathering the factors of all
    replicas first under ``data_sync = "factors"``); ``"evaluate"`` is a forward pass of `batch` samples through
    replica 0; ``"average"`` reads all weights out, averages them over the replicas and programs them back.
    """
    if purpose == "average":
        return _Lowering(plan, job, purpose, 1, 1, range(plan.data)).average()
    if purpose == "evaluate":
        size = job.evaluate.batch if batch is None else batch
        return _Lowering(plan, job, purpose, 1, size, range(1)).forward_only()
    train = job.train
    microbatches = train.minibatch // train.microbatch
    return _Lowering(plan, job, purpose, microbatches, train.microbatch, range(plan.data)).train()


class _Lowering:
    """One program under construction: its operations so far, and which operation made each value."""

    def __init__(
        self, plan: Plan, job: Job, purpose: Purpose, microbatches: int, microbatch: int, replicas: Sequence[int]
    ) -> None:
        self.plan, self.job, self.purpose = plan, job, purpose
        self.microbatches, self.vectors, self.replicas = microbatches, microbatch, replicas
        self.ops: list[Op] = []
        self.maker: dict[Value, int] = {}
        self.touched: dict[tuple[int, int], list[int]] = {}  # (layer, accelerator) -> its reads in this step

    # --- whole programs ---

    def train(self) -> Program:
        for replica in self.replicas:
            for action, stage, microbatch in interleave(
                self.job.parallel.schedule, self.plan.pipeline, self.microbatches
            ):
                if action == "forward":
                    self._forward_stage(replica, stage, microbatch)
                else:
                    self._backward_stage(replica, stage, microbatch)
        self._update_all()
        return self._program()

    def forward_only(self) -> Program:
        for stage in range(self.plan.pipeline):
            self._forward_stage(0, stage, 0)
        return self._program()

    def average(self) -> Program:
        if self.plan.data < 2:
            raise PlanError("nothing to average: [parallel] data is 1")
        for layer in self.plan.layers:
            for rank in layer.holders:
                self._average_shard(layer, rank)
        return self._program()

    def _program(self) -> Program:
        return Program(
            ops=tuple(self.ops),
            accelerators=tuple(sorted({a for op in self.ops for a in op.accelerators})),
            samples=self.vectors * self.microbatches * len(self.replicas),
            microbatches=self.microbatches,
            minibatch=self.vectors * self.microbatches,
            purpose=self.purpose,
        )

    # --- forward ---

    def _forward_stage(self, replica: int, stage: int, microbatch: int) -> None:
        for layer in self.plan.stage_layers(stage):
            if layer.layer > 0:
                self._deliver("activation", self.plan.layers[layer.layer - 1], layer, replica, microbatch)
            self._forward_layer(layer, replica, microbatch)
            if layer.layer == len(self.plan.layers) - 1:
                self._loss(layer, replica, microbatch)

    def _forward_layer(self, layer: LayerPlan, replica: int, microbatch: int) -> None:
        for rank in layer.holders:
            accelerator = self._at(replica, layer, rank)
            self._read("forward", layer, rank, accelerator, microbatch)
        if layer.sums_forward:
            self._all_reduce("partial_output", layer, replica, microbatch)
        model = self.job.network.layers[layer.layer]
        for rank in layer.holders:
            accelerator = self._at(replica, layer, rank)
            per_output = (model.activation != "identity") + (model.bias == "digital")
            self._digital(
                "activation",
                layer,
                accelerator,
                microbatch,
                operations=self.vectors * _length(layer.gives[rank]) * per_output,
                deps=self._made(("out", layer.layer, microbatch, accelerator)),
                makes="activation",
            )

    def _loss(self, layer: LayerPlan, replica: int, microbatch: int) -> None:
        whole: tuple[Range | None, ...] = tuple((0, layer.outputs) if b else None for b in layer.blocks)
        if not covers(layer.gives, whole):
            self._gather("activation", layer, layer.gives, replica, microbatch, stage=layer.stage, among=layer.holders)
        for rank in layer.holders:
            accelerator = self._at(replica, layer, rank)
            self._digital(
                "loss",
                layer,
                accelerator,
                microbatch,
                operations=self.vectors * layer.outputs * LOSS_OPERATIONS,
                deps=self._made(("activation", layer.layer, microbatch, accelerator)),
                makes="delta",
            )

    # --- backward ---

    def _backward_stage(self, replica: int, stage: int, microbatch: int) -> None:
        for layer in reversed(self.plan.stage_layers(stage)):
            if layer.layer < len(self.plan.layers) - 1:
                self._deliver("error", self.plan.layers[layer.layer + 1], layer, replica, microbatch)
                self._derivative(layer, replica, microbatch)
            if layer.layer > 0:
                for rank in layer.holders:
                    self._read("backward", layer, rank, self._at(replica, layer, rank), microbatch)
                if layer.sums_backward:
                    self._all_reduce("partial_error", layer, replica, microbatch)

    def _derivative(self, layer: LayerPlan, replica: int, microbatch: int) -> None:
        model = self.job.network.layers[layer.layer]
        for rank in layer.holders:
            accelerator = self._at(replica, layer, rank)
            self._digital(
                "derivative",
                layer,
                accelerator,
                microbatch,
                operations=self.vectors * _length(layer.gives[rank]) * (model.activation != "identity"),
                deps=self._made(("error", layer.layer, microbatch, accelerator)),
                makes="delta",
            )

    # --- moving values ---

    def _deliver(
        self,
        payload: Literal["activation", "error"],
        source: LayerPlan,
        target: LayerPlan,
        replica: int,
        microbatch: int,
    ) -> None:
        """Bring a value from the ranks of one layer to those of its neighbour.

        The activation of layer l is made by layer l; the error of layer l is made by layer l+1, whose ranks hold
        it in the ranges of that layer's inputs.
        """
        if payload == "activation":
            have, need, value_of = source.gives, target.needs, source
        else:
            have, need, value_of = source.needs, target.gives, target
        if source.stage == target.stage:
            if not covers(have, need):
                ranks = [rank for rank, spans in enumerate(zip(have, need, strict=True)) if any(spans)]
                self._gather(payload, value_of, have, replica, microbatch, stage=source.stage, among=ranks)
            return
        if not all(span is None or _first_with(have, span, rank) is not None for rank, span in enumerate(need)):
            self._gather(payload, value_of, have, replica, microbatch, stage=source.stage, among=source.holders)
            have = tuple(None if span is None else (0, value_of.outputs) for span in have)
        for rank, span in enumerate(need):
            if span is not None:
                self._send(payload, value_of.layer, microbatch, span, (replica, source.stage, have), target.stage, rank)

    def _send(
        self,
        payload: Literal["activation", "error"],
        layer: int,
        microbatch: int,
        span: Range,
        source: tuple[int, int, Sequence[Range | None]],
        stage: int,
        rank: int,
    ) -> None:
        """Send a rank of another stage what it needs, from the same rank where that has it."""
        replica, from_stage, have = source
        sender_rank = _first_with(have, span, rank)
        if sender_rank is None:
            raise ValueError(f"no rank of stage {from_stage} has elements {span} of the {payload} of layer {layer}")
        sender = self.plan.accelerator(replica, from_stage, sender_rank)
        receiver = self.plan.accelerator(replica, stage, rank)
        op = Send(
            id=len(self.ops),
            source=sender,
            destination=receiver,
            elements=self.vectors * _length(span),
            word_bits=self.job.words.factor_bits,
            payload=payload,
            layer=layer,
            microbatch=microbatch,
            span=span,
            deps=self._made((payload, layer, microbatch, sender)),
        )
        self._add(op)
        self.maker[(payload, layer, microbatch, receiver)] = op.id

    def _gather(
        self,
        payload: Literal["activation", "error"],
        value_of: LayerPlan,
        have: Sequence[Range | None],
        replica: int,
        microbatch: int,
        *,
        stage: int,
        among: Sequence[int],
    ) -> None:
        """All-gather one value over ranks of a stage; what several ranks hold, the first of them gives."""
        members = tuple(self.plan.accelerator(replica, stage, rank) for rank in among)
        spans = [have[rank] for rank in among]
        op = Collective(
            id=len(self.ops),
            kind="all_gather",
            members=members,
            elements=tuple(self.vectors * _length(span) for span in _once(spans)),
            word_bits=self.job.words.factor_bits,
            payload=payload,
            layer=value_of.layer,
            microbatch=microbatch,
            deps=self._made(*((payload, value_of.layer, microbatch, member) for member in members)),
        )
        self._add(op)
        for member in members:
            self.maker[(payload, value_of.layer, microbatch, member)] = op.id

    def _all_reduce(
        self, payload: Literal["partial_output", "partial_error"], layer: LayerPlan, replica: int, microbatch: int
    ) -> None:
        members = tuple(self._at(replica, layer, rank) for rank in layer.holders)
        forward = payload == "partial_output"
        value, of = ("out", layer.layer) if forward else ("error", layer.layer - 1)
        op = Collective(
            id=len(self.ops),
            kind="all_reduce",
            members=members,
            elements=(self.vectors * (layer.outputs if forward else layer.inputs),) * len(members),
            word_bits=self.job.words.sum_bits,
            payload=payload,
            layer=layer.layer,
            microbatch=microbatch,
            deps=self._made(*((value, of, microbatch, member) for member in members)),
        )
        self._add(op)
        for member in members:
            self.maker[(value, of, microbatch, member)] = op.id

    # --- updates ---

    def _update_all(self) -> None:
        """Update every shard once its errors and activations are there, the last layer first."""
        factors = self.plan.data > 1 and self.job.parallel.data_sync == "factors"
        samples = self.vectors * self.microbatches * (self.plan.data if factors else 1)
        for layer in reversed(self.plan.layers):
            for rank in layer.holders:
                members = tuple(self._at(replica, layer, rank) for replica in self.replicas)
                waits = {member: self._factor_makers(layer, member) for member in members}
                if factors:
                    gathered = self._gather_factors(layer, rank, members, waits)
                    waits = {member: (gathered, *self.touched[(layer.layer, member)]) for member in members}
                for member in members:
                    self._update(layer, rank, member, samples, waits[member])

    def _factor_makers(self, layer: LayerPlan, accelerator: int) -> tuple[int, ...]:
        values = [("delta", layer.layer, m, accelerator) for m in range(self.microbatches)]
        values += [("activation", layer.layer - 1, m, accelerator) for m in range(self.microbatches)]
        made = {self.maker[value] for value in values if value in self.maker}
        return tuple(sorted(made.union(self.touched[(layer.layer, accelerator)])))

    def _gather_factors(
        self, layer: LayerPlan, rank: int, members: tuple[int, ...], waits: dict[int, tuple[int, ...]]
    ) -> int:
        width = _length(layer.needs[rank]) + _length(layer.gives[rank])
        op = Collective(
            id=len(self.ops),
            kind="all_gather",
            members=members,
            elements=(self.vectors * self.microbatches * width,) * len(members),
            word_bits=self.job.words.factor_bits,
            payload="factors",
            layer=layer.layer,
            microbatch=WHOLE_MINIBATCH,
            deps=tuple(sorted({dep for wait in waits.values() for dep in wait})),
        )
        return self._add(op)

    def _update(self, layer: LayerPlan, rank: int, accelerator: int, samples: int, deps: tuple[int, ...]) -> None:
        block = _block(layer, rank)
        work = self.job.algorithm_of(layer.layer).work(samples)
        op = Update(
            id=len(self.ops),
            accelerator=accelerator,
            layer=layer.layer,
            samples=samples,
            tiles=block.tiles,
            cells=block.cells,
            lines=sum(_lines(block)),
            bit_length=self.job.update.bit_length,
            pulsed=work.cycles > 0,
            planes=work.planes,
            alone=_lines_alone(work, block, min(self.plan.tile_rows, _length(block.rows))),
            deps=deps,
        )
        self._add(op)
        if self.job.network.layers[layer.layer].bias == "digital":
            operations = samples * _length(block.rows)
            self._digital("bias", layer, accelerator, WHOLE_MINIBATCH, operations=operations, deps=deps)

    def _average_shard(self, layer: LayerPlan, rank: int) -> None:
        block = _block(layer, rank)
        members = tuple(self._at(replica, layer, rank) for replica in self.replicas)
        tallest = min(self.plan.tile_rows, _length(block.rows))
        bias = _length(block.rows) if self.job.network.layers[layer.layer].bias == "digital" else 0

        def rewrite(kind: Literal["read_out", "program"], accelerator: int, deps: tuple[int, ...]) -> int:
            return self._add(
                Rewrite(
                    id=len(self.ops),
                    accelerator=accelerator,
                    kind=kind,
                    layer=layer.layer,
                    rows=tallest,
                    tiles=block.tiles,
                    cells=block.cells,
                    bit_length=self.job.update.bit_length,
                    deps=deps,
                )
            )

        read = tuple(rewrite("read_out", member, ()) for member in members)
        reduced = self._add(
            Collective(
                id=len(self.ops),
                kind="all_reduce",
                members=members,
                elements=(block.cells + bias,) * len(members),
                word_bits=self.job.words.weight_bits,
                payload="weights",
                layer=layer.layer,
                microbatch=WHOLE_MINIBATCH,
                deps=read,
            )
        )
        for member in members:
            rewrite("program", member, (reduced,))

    # --- building blocks ---

    def _read(
        self, direction: Literal["forward", "backward"], layer: LayerPlan, rank: int, accelerator: int, microbatch: int
    ) -> None:
        block = _block(layer, rank)
        across, down = _lines(block)
        forward = direction == "forward"
        grid_rows, grid_cols = _length(block.tile_rows), _length(block.tile_cols)
        if forward:
            deps = self._made(("activation", layer.layer - 1, microbatch, accelerator))
            additions = (grid_cols - 1) * _length(block.rows)
        else:
            deps = self._made(("delta", layer.layer, microbatch, accelerator))
            additions = (grid_rows - 1) * _length(block.cols)
        op = Read(
            id=len(self.ops),
            accelerator=accelerator,
            direction=direction,
            layer=layer.layer,
            microbatch=microbatch,
            vectors=self.vectors,
            tiles=block.tiles,
            cells=block.cells,
            input_lines=across if forward else down,
            output_lines=down if forward else across,
            additions=additions,
            deps=deps,
        )
        self._add(op)
        made = "out" if forward else "error"
        self.maker[(made, layer.layer if forward else layer.layer - 1, microbatch, accelerator)] = op.id
        self.touched.setdefault((layer.layer, accelerator), []).append(op.id)

    def _digital(
        self,
        kind: Literal["activation", "loss", "derivative", "bias"],
        layer: LayerPlan,
        accelerator: int,
        microbatch: int,
        *,
        operations: int,
        deps: tuple[int, ...],
        makes: str | None = None,
    ) -> None:
        op = Digital(
            id=len(self.ops),
            accelerator=accelerator,
            kind=kind,
            layer=layer.layer,
            microbatch=microbatch,
            operations=operations,
            deps=deps,
        )
        self._add(op)
        if makes is not None:
            self.maker[(makes, layer.layer, microbatch, accelerator)] = op.id

    def _add(self, op: Op) -> int:
        self.ops.append(op)
        return op.id

    def _made(self, *values: Value) -> tuple[int, ...]:
        return tuple(sorted({self.maker[value] for value in values if value in self.maker}))

    def _at(self, replica: int, layer: LayerPlan, rank: int) -> int:
        return self.plan.accelerator(replica, layer.stage, rank)


def _block(layer: LayerPlan, rank: int) -> Block:
    block = layer.blocks[rank]
    if block is None:
        raise ValueError(f"{layer.name} has no tiles on tensor rank {rank}")
    return block


def _first_with(have: Sequence[Range | None], span: Range, preferred: int) -> int | None:
    """The rank that holds a span: the preferred one if it does, or else the first."""
    ranks = [preferred, *range(len(have))]
    return next((rank for rank in ranks if covers(have[rank : rank + 1], [span])), None)


def _lines(block: Block) -> tuple[int, int]:
    """Column lines and row lines of a block, summed over its tiles."""
    return _length(block.cols) * _length(block.tile_rows), _length(block.rows) * _length(block.tile_cols)


def _lines_alone(work: Work, block: Block, tallest: int) -> Lines | None:
    """What an algorithm does to single lines of a block whose tallest tile has so many rows."""
    _, down = _lines(block)
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


def _once(spans: Sequence[Range | None]) -> list[Range | None]:
    """Drop the spans that an earlier rank gives already, so that a gather moves each element once."""
    seen: set[Range] = set()
    kept: list[Range | None] = []
    for span in spans:
        kept.append(None if span is None or span in seen else span)
        if span is not None:
            seen.add(span)
    return kept


def _length(span: Range | None) -> int:
    return 0 if span is None else span[1] - span[0]
