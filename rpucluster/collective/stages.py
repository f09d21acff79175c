"""A collective as stages: one along each axis that a group spans, or a single flat one over the whole group.

Hierarchical, with the axes from the innermost outwards (van de Geijn's scheme of divided buffers, as ASTRA-sim's
multi-dimensional collectives have it): an all-reduce is a reduce-scatter along each axis but the last, of ever
smaller buffers, an all-reduce along the last, and the all-gathers back; a reduce-scatter goes inwards out, an
all-gather outwards in, an all-to-all exchanges the whole buffer along each axis, and a broadcast first reaches one
member of each outer line and then all of the inner ones.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rpucluster.collective import symmetric
from rpucluster.collective.group import Group
from rpucluster.collective.moves import Algorithm, CollectiveKind, Step, check, steps
from rpucluster.collective.rounds import Round
from rpucluster.collective.routed import Routes, Transfer

FLAT = -1
"""The level of a stage over the whole group."""


class Stage(NamedTuple):
    """One collective along one axis, on all lines of the group at once."""

    kind: CollectiveKind
    level: int
    """Of `Group.axes`; `FLAT` for the whole group."""
    algorithm: Algorithm
    parts: tuple[float, ...]
    """Bytes of each part of a member's buffer; one number stands for equal parts."""
    back: bool
    """Whether this is the way back of a hierarchical all-reduce."""


def stages(
    kind: CollectiveKind, found: Group, blocks: Sequence[float], algorithms: Sequence[Algorithm]
) -> tuple[Stage, ...]:
    """The stages of a collective.

    `blocks` are the bytes that the members contribute, as `cost` takes them, and `algorithms` has one name for each
    axis of the group, or a single one for a flat collective.
    """
    n = len(found.members)
    if len(algorithms) == 1:
        uneven = kind == "all_gather" and min(blocks) != max(blocks)
        whole = blocks[0] if kind == "all_gather" else blocks[0] / n
        level = 0 if len(found.axes) == 1 else FLAT
        return (Stage(kind, level, algorithms[0], tuple(blocks) if uneven else (whole,), False),)
    shape, last = found.shape, len(found.shape) - 1
    below = [math.prod(shape[:level]) for level in range(last + 2)]  # members within one place of each level
    size = blocks[0]

    def stage(kind: CollectiveKind, level: int, part: float, back: bool = False) -> Stage:
        return Stage(kind, level, algorithms[level], (part,), back)

    inwards_out = range(last + 1)
    match kind:
        case "all_reduce":
            return (
                *(stage("reduce_scatter", level, size / below[level + 1]) for level in inwards_out[:-1]),
                stage("all_reduce", last, size / below[last + 1]),
                *(stage("all_gather", level, size / below[level + 1], True) for level in reversed(inwards_out[:-1])),
            )
        case "reduce_scatter":
            return tuple(stage(kind, level, size / below[level + 1]) for level in inwards_out)
        case "all_gather":
            return tuple(stage(kind, level, size * n / below[level + 1]) for level in reversed(inwards_out))
        case "all_to_all":
            return tuple(stage(kind, level, size / shape[level]) for level in inwards_out)
        case "broadcast":
            return tuple(stage(kind, level, size / shape[level]) for level in reversed(inwards_out))


def prepared(stage: Stage, found: Group, routes: Routes) -> list[Round]:
    """The rounds of a stage, at the price of their links.  Raises `InputError` where an algorithm is not able."""
    network = found.network
    if network.product is not None and stage.level != FLAT and len(stage.parts) == 1:
        k, places = found.axes[stage.level], found.places[stage.level]
        form = symmetric.form_of(stage.kind, stage.algorithm, network.axis[k], places)
        if form is not None:
            return symmetric.rounds(stage.kind, stage.algorithm, form, len(places), stage.parts[0], k, network)
    # all lines are alike unless something is broken or slow on some of them
    lines = active_lines(stage, found)
    chosen = lines[:1] if network.product is not None else lines
    return [routes.round(repeats, sends) for repeats, sends in sent(stage, found, chosen)]


def active_lines(stage: Stage, found: Group) -> list[tuple[int, ...]]:
    """The lines, as indices of members, on which a stage sends."""
    if stage.level == FLAT:
        return [tuple(range(len(found.members)))]
    lines = found.lines(stage.level)
    if stage.kind != "broadcast":
        return lines
    # only lines whose first member has been reached through the outer axes
    inner = math.prod(found.shape[: stage.level])
    return [line for line in lines if line[0] % inner == 0]


def sent(stage: Stage, found: Group, lines: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, list[Transfer]]]:
    """How often, and what each time, the members of some lines send; rounds in which nobody does are left out."""
    for step in stage_steps(stage, found):
        alike = len(stage.parts) == 1
        for r in range(1 if alike else step.repeats):
            sends = transfers(stage, step, r, found, lines)
            if sends:
                yield (step.repeats if alike else 1), sends


def stage_steps(stage: Stage, found: Group) -> Iterator[Step]:
    """The rounds of a stage among the members of one line."""
    n = len(found.members) if stage.level == FLAT else found.shape[stage.level]
    check(stage.kind, stage.algorithm, n)
    return steps(stage.kind, stage.algorithm, n)


def transfers(stage: Stage, step: Step, r: int, found: Group, lines: Sequence[tuple[int, ...]]) -> list[Transfer]:
    """What round r of a step sends on some lines."""
    members, parts = found.members, stage.parts
    moves = [
        (
            move.source,
            move.target,
            parts[0] * len(move.parts) if len(parts) == 1 else math.fsum(parts[i] for i in move.parts),
        )
        for move in step.moves(r)
    ]
    return [
        Transfer(members[line[source]], members[line[target]], nbytes)
        for line in lines
        for source, target, nbytes in moves
        if nbytes > 0
    ]
