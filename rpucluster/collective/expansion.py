"""All rounds of a collective as single sends, and what each of them carries: what the closed forms are held to."""

from collections.abc import Iterator, Sequence
from itertools import product as combinations
from typing import NamedTuple

from rpucluster.collective.group import Group, group
from rpucluster.collective.moves import Algorithm, CollectiveKind
from rpucluster.collective.stages import FLAT, Stage, active_lines, stage_steps, stages
from rpucluster.topology import Network


class Send(NamedTuple):
    """One message of one round."""

    source: int
    destination: int
    bytes: float
    blocks: tuple[int, ...]
    """Which blocks it carries: i for what belongs to member i, of an all-to-all n * origin + destination."""
    adds: bool
    """Whether the receiver adds them to its own, or keeps them beside those."""


def expand(
    kind: CollectiveKind,
    members: Sequence[int],
    bytes_per_member: Sequence[float],
    network: Network,
    algorithm: Algorithm | Sequence[Algorithm],
) -> tuple[tuple[Send, ...], ...]:
    """All rounds of a collective, unchunked; arguments and errors are those of `cost`.

    Rounds in which nothing is sent are left out.
    """
    found = group(members, network)
    names = (algorithm,) if isinstance(algorithm, str) else tuple(algorithm)
    rounds = (sends for stage in stages(kind, found, bytes_per_member, names) for sends in _rounds(kind, stage, found))
    return tuple(sends for sends in rounds if sends)


def _rounds(kind: CollectiveKind, stage: Stage, found: Group) -> Iterator[tuple[Send, ...]]:
    lines = active_lines(stage, found)
    for step in stage_steps(stage, found):
        for r in range(step.repeats):
            yield tuple(
                Send(found.members[line[move.source]], found.members[line[move.target]], nbytes, blocks, move.adds)
                for line in lines
                for move in step.moves(r)
                if (nbytes := sum(stage.parts[i if len(stage.parts) > 1 else 0] for i in move.parts)) > 0
                and (blocks := tuple(b for part in move.parts for b in _blocks(kind, stage, found, line, part)))
            )


def _blocks(kind: CollectiveKind, stage: Stage, found: Group, line: tuple[int, ...], part: int) -> list[int]:
    """The blocks that make up a part of the buffer of a line's members, while a stage works on it."""
    n = len(found.members)
    if stage.level == FLAT or len(found.shape) == 1:
        return [part]
    shape, level = found.shape, stage.level
    if kind == "broadcast":  # one buffer for everyone, divided finer or coarser
        pieces = n // shape[level]
        return list(range(part * pieces, (part + 1) * pieces))
    place = _place(line[0], shape)
    everywhere = [range(size) for size in shape]
    inner = [_only(c) for c in place]
    if kind == "all_to_all":
        # inner places are already those of the destination, outer ones still those of the origin
        origins = [*everywhere[:level], _only(part // shape[level]), *inner[level + 1 :]]
        ends = [*inner[:level], _only(part % shape[level]), *everywhere[level + 1 :]]
        return [o * n + d for o in _members(origins, shape) for d in _members(ends, shape)]
    # inner axes are scattered, outer ones whole; an all-gather goes outwards in, so the same
    return _members([*inner[:level], _only(part), *everywhere[level + 1 :]], shape)


def _only(place: int) -> range:
    return range(place, place + 1)


def _place(index: int, shape: Sequence[int]) -> list[int]:
    place = []
    for size in shape:
        place.append(index % size)
        index //= size
    return place


def _members(places: Sequence[range], shape: Sequence[int]) -> list[int]:
    """The indices of members at all combinations of places, the innermost varying fastest."""
    found = []
    for place in combinations(*reversed(places)):
        index = 0
        for c, size in zip(place, reversed(shape), strict=True):
            index = index * size + c
        found.append(index)
    return found
