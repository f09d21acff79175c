"""What moves values between accelerators: gathers, sends and all-reduces."""

from collections.abc import Sequence
from typing import Literal

from rpucluster.lowering.draft import Draft, length
from rpucluster.plan import LayerPlan, Range, covers
from rpucluster.program import Collective, Send

Passed = Literal["activation", "error"]


def deliver(draft: Draft, payload: Passed, source: LayerPlan, target: LayerPlan, replica: int, microbatch: int) -> None:
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
            gather(draft, payload, value_of, have, replica, microbatch, stage=source.stage, among=ranks)
        return
    if not all(span is None or _first_with(have, span, rank) is not None for rank, span in enumerate(need)):
        gather(draft, payload, value_of, have, replica, microbatch, stage=source.stage, among=source.holders)
        have = tuple(None if span is None else (0, value_of.outputs) for span in have)
    for rank, span in enumerate(need):
        if span is not None and rank in draft.written:
            _send(draft, payload, value_of.layer, microbatch, span, (replica, source.stage, have), target.stage, rank)


def gather(
    draft: Draft,
    payload: Passed,
    value_of: LayerPlan,
    have: Sequence[Range | None],
    replica: int,
    microbatch: int,
    *,
    stage: int,
    among: Sequence[int],
) -> None:
    """All-gather one value over ranks of a stage; what several ranks hold, the first of them gives."""
    members = tuple(draft.plan.accelerator(replica, stage, rank) for rank in among)
    spans = [have[rank] for rank in among]
    op = draft.add(
        Collective(
            id=draft.next_id,
            kind="all_gather",
            members=members,
            elements=tuple(draft.samples * length(span) for span in _once(spans)),
            word_bits=draft.job.words.factor_bits,
            payload=payload,
            layer=value_of.layer,
            microbatch=microbatch,
            deps=draft.made(*((payload, value_of.layer, microbatch, member) for member in members)),
        )
    )
    for member in members:
        draft.maker[(payload, value_of.layer, microbatch, member)] = op


def all_reduce(
    draft: Draft,
    payload: Literal["partial_output", "partial_error"],
    layer: LayerPlan,
    replica: int,
    microbatch: int,
) -> None:
    """Add the partial sums of a layer's ranks up."""
    members = tuple(draft.at(replica, layer, rank) for rank in layer.holders)
    forward = payload == "partial_output"
    value, of = ("out", layer.layer) if forward else ("error", layer.layer - 1)
    elements = layer.shape.sums if forward else (layer.shape.dispatch or layer.inputs)
    op = draft.add(
        Collective(
            id=draft.next_id,
            kind="all_reduce",
            members=members,
            elements=(draft.samples * elements,) * len(members),
            word_bits=draft.job.words.sum_bits,
            payload=payload,
            layer=layer.layer,
            microbatch=microbatch,
            deps=draft.made(*((value, of, microbatch, member) for member in members)),
        )
    )
    for member in members:
        draft.maker[(value, of, microbatch, member)] = op


def to_experts(
    draft: Draft,
    layer: LayerPlan,
    replica: int,
    microbatch: int,
    value: Literal["prepared", "out", "delta", "error"],
) -> None:
    """Exchange vectors between the replicas that share experts, of which `replica` is the first: to these, or back from
    these, forward or backward."""
    shape = layer.shape
    replicas = range(replica, replica + draft.plan.expert)
    out = value in ("prepared", "error")  # before the arrays; else behind them
    of = layer.layer - 1 if value == "error" else layer.layer
    for rank in draft.ranks(layer):
        members = tuple(draft.at(each, layer, rank) for each in replicas)
        made = draft.made(*((value, of, microbatch, member) for member in members))
        op = draft.add(
            Collective(
                id=draft.next_id,
                kind="all_to_all",
                members=members,
                elements=(draft.samples * (shape.dispatch if out else shape.collect),) * len(members),
                word_bits=draft.job.words.factor_bits,
                payload="tokens" if value in ("prepared", "out") else "token_errors",
                layer=layer.layer,
                microbatch=microbatch,
                deps=made,
            )
        )
        for member in members:
            draft.maker[(value, of, microbatch, member)] = op


def _send(
    draft: Draft,
    payload: Passed,
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
    sender = draft.plan.accelerator(replica, from_stage, sender_rank)
    receiver = draft.plan.accelerator(replica, stage, rank)
    draft.maker[(payload, layer, microbatch, receiver)] = draft.add(
        Send(
            id=draft.next_id,
            source=sender,
            destination=receiver,
            elements=draft.samples * (length(span) + draft.plan.layers[layer].shape.carried),
            word_bits=draft.job.words.factor_bits,
            payload=payload,
            layer=layer,
            microbatch=microbatch,
            span=span,
            deps=draft.made((payload, layer, microbatch, sender)),
        )
    )


def _first_with(have: Sequence[Range | None], span: Range, preferred: int) -> int | None:
    """The rank that holds a span: the preferred one if it does, or else the first."""
    ranks = [preferred, *range(len(have))]
    return next((rank for rank in ranks if covers(have[rank : rank + 1], [span])), None)


def _once(spans: Sequence[Range | None]) -> list[Range | None]:
    """Drop the spans that an earlier rank gives already, so that a gather moves each element once."""
    seen: set[Range] = set()
    kept: list[Range | None] = []
    for span in spans:
        kept.append(None if span is None or span in seen else span)
        if span is not None:
            seen.add(span)
    return kept
