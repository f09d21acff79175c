"""Rounds of members whose slowest messages are known: those of anyone where all see the same, or of a line's ends.

With n members, hops of latency L and bandwidth B, parts of m bytes and messages that flow through switches, the rounds
take (the usual alpha-beta forms; those of ring, direct and halving-doubling are also what ASTRA-sim's analytical
backends compute):

    ring on a ring             n - 1 rounds of L + m/B
    direct, fully connected    L + m/B
    direct through a switch    2 L + (n - 1) m/B, since n - 1 messages queue at each port
    direct on a ring           floor(n/2) L + floor(n/2) (floor(n/2) + 1) / 2 m/B, since messages share links
    halving or doubling        the sum over d = 1, 2, 4, ..., n/2 of h L + d m/B; h is 2 through a switch, 1 where
                               all are connected, and d on a ring or line, on whose links d messages of d m bytes queue
    ring on a line             n - 1 rounds of (n - 1) L + m/B, the way back from the last member to the first
    direct on a line           (n - 1) L + floor(n/2) ceil(n/2) m/B, what crosses its middle
    binary tree                floor(log2 n) rounds up, and as many down, of h L + k n m/B; k is 2 where two messages
                               queue at a port of a switch
    broadcast down the line    n - 1 rounds of h L + n m/B
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from rpucluster.collective.moves import Algorithm, CollectiveKind, check, tree_depth, tree_level
from rpucluster.collective.rounds import Hop, Round
from rpucluster.topology import Axis, Network

Form = Literal["ports", "ring", "line"]
"""Members with links of their own; a whole ring; neighbours on a mesh or on less than half a ring."""


class _Pattern(NamedTuple):
    """The messages of a round: how far on a ring, how many queue at a port, and whose ports these are."""

    repeats: int
    parts: int
    """Of the n parts of a buffer, in each message."""
    distance: int = 1
    """Between sender and receiver, on a ring or line."""
    shared: int = 1
    """Messages on the busiest link of a ring or line."""
    sent: int = 1
    """By the busiest member."""
    received: int = 1
    """By the busiest member."""
    sender: int | str = ""
    """Which members' ports these are, where only some of them send."""
    receiver: int | str = ""
    link: int | str = ""
    """Which links of a ring or a fully connected axis."""


def rounds(
    kind: CollectiveKind, algorithm: Algorithm, form: Form, n: int, part: float, k: int, network: Network
) -> list[Round]:
    """The rounds among n members of axis k, parts being of `part` bytes.  Raises `InputError` as `moves.check` does."""
    check(kind, algorithm, n)
    axis = network.axis[k]
    patterns = _patterns(kind, algorithm, n, form == "line") if n > 1 else ()
    return [_round(pattern, part, k, axis, network) for pattern in patterns]


def form_of(kind: CollectiveKind, algorithm: Algorithm, axis: Axis, places: tuple[int, ...]) -> Form | None:
    """What the members at these places of an axis look like to an algorithm, if it is one of the forms here."""
    if axis.kind in ("switch", "fully_connected"):
        return "ports"
    # the nodes of a tree, and what a broadcast scatters, are at all distances from one another
    if algorithm == "tree" or (kind, algorithm) == ("broadcast", "halving_doubling"):
        return None
    n = len(places)
    if not all(b - a in (1, 1 - axis.size) for a, b in pairwise(places)):
        return None
    if axis.kind == "ring":
        # part of a ring is a line where the way back over it is the shorter one
        return "ring" if n == axis.size else "line" if 2 * (n - 1) < axis.size else None
    return "line" if places[-1] - places[0] == n - 1 else None


def _round(pattern: _Pattern, part: float, k: int, axis: Axis, network: Network) -> Round:
    service = network.serialization_s(pattern.parts * part, axis.rate)
    shares = axis.contention != "none"
    stores = axis.forwarding == "store_and_forward"
    if axis.kind == "switch":
        up, down = (
            (k, way, port) if shares else None for way, port in (("up", pattern.sender), ("down", pattern.receiver))
        )
        hops = (
            Hop(up, pattern.sent, service, axis.latency),
            Hop(down, pattern.received, service, axis.latency),
        )
        return Round(pattern.repeats, hops, stores, 2 * axis.latency)
    server = (k, pattern.link) if shares else None
    distance, shared = (pattern.distance, pattern.shared) if axis.kind in ("ring", "mesh") else (1, 1)
    latency = distance * axis.latency
    # what a stored message pays at the hops that are not the busiest one
    passing = (distance - 1) * service if stores else 0.0
    return Round(pattern.repeats, (Hop(server, shared, service, latency + passing),), stores, latency)


def _patterns(kind: CollectiveKind, algorithm: Algorithm, n: int, line: bool) -> Iterator[_Pattern]:
    half = n // 2
    distances = [1 << i for i in range(n.bit_length() - 1)]
    # n - 1 messages at once: over a link of a ring come those of so many members behind it, over one of a line those
    # from all on one side of it to all on the other
    everyone = _Pattern(1, 1, distance=half, shared=half * (half + 1) // 2, sent=n - 1, received=n - 1)
    if line:
        everyone = everyone._replace(distance=n - 1, shared=half * (n - half))
    following = _Pattern(1, 1, distance=n - 1 if line else 1)
    match kind, algorithm:
        case "all_reduce", "tree":
            yield from _tree_up(n)
            yield from _tree_down(n)
        case "broadcast", "tree":
            yield from _tree_down(n)
        case "broadcast", "ring":
            yield from (_Pattern(1, n, sender=i, receiver=i + 1, link=i) for i in range(n - 1))
        case "broadcast", "direct":
            farthest = n - 1 if line else half
            yield _Pattern(1, n, distance=farthest, shared=farthest, sent=n - 1)
        case "broadcast", "halving_doubling":
            yield from (_Pattern(1, d, distance=d, shared=1, link=d) for d in reversed(distances))
            yield from (_Pattern(1, d, distance=d, shared=d, link=d) for d in distances)
        case "all_to_all", "ring":
            yield following._replace(repeats=n * (n - 1) // 2)
        case _, "ring":
            yield following._replace(repeats=2 * (n - 1) if kind == "all_reduce" else n - 1)
        case _, "direct":
            yield everyone._replace(repeats=2 if kind == "all_reduce" else 1)
        case _:
            if kind != "all_gather":
                yield from (_Pattern(1, d, distance=d, shared=d, link=d) for d in reversed(distances))
            if kind != "reduce_scatter":
                yield from (_Pattern(1, d, distance=d, shared=d, link=d) for d in distances)


def _tree_up(n: int) -> Iterator[_Pattern]:
    for level in range(tree_depth(n), 0, -1):
        siblings = min(2, len(tree_level(n, level)))
        yield _Pattern(1, n, received=siblings, sender=level, receiver=level - 1, link=level)


def _tree_down(n: int) -> Iterator[_Pattern]:
    for level in range(1, tree_depth(n) + 1):
        siblings = min(2, len(tree_level(n, level)))
        yield _Pattern(1, n, sent=siblings, sender=level - 1, receiver=level, link=-level)
