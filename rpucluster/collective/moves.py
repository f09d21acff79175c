"""The collective algorithms as what they are: who sends which parts to whom, in which round.

The members of one line are numbered 0 to n - 1, and so are the n parts into which a buffer is divided; part i is
member i's block of an all-gather and its share of a reduce-scatter.  The parts of an all-to-all are numbered
``origin * n + destination``.  A broadcast comes from member 0.  The next round starts when the slowest message
of this one has arrived.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, get_args

from rpucluster.errors import InputError

CollectiveKind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"]
Algorithm = Literal["ring", "direct", "halving_doubling", "tree"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)


class Move(NamedTuple):
    """One message of one round."""

    source: int
    target: int
    parts: range
    adds: bool
    """Whether the receiver adds what comes to what it has, or keeps it beside that."""


class Step(NamedTuple):
    """So many rounds that differ in nothing but the numbers of the parts; `moves(r)` are those of round r."""

    repeats: int
    moves: Callable[[int], list[Move]]


def steps(kind: CollectiveKind, algorithm: Algorithm, n: int) -> Iterator[Step]:
    """The rounds of a collective among n members.  Raises `InputError` where the algorithm does not do this."""
    check(kind, algorithm, n)
    if n == 1:
        return
    if kind == "all_reduce" and algorithm != "tree":
        yield from _STEPS["reduce_scatter", algorithm](n)
        yield from _STEPS["all_gather", algorithm](n)
    else:
        yield from _STEPS[kind, algorithm](n)


def check(kind: CollectiveKind, algorithm: Algorithm, n: int) -> None:
    """Raises `InputError` where the algorithm does not perform the collective among n members."""
    if algorithm not in _able(kind):
        raise InputError(f"{kind} has no algorithm {algorithm}; write {', '.join(_able(kind))} or auto")
    if algorithm == "halving_doubling" and n & (n - 1):
        raise InputError(f"halving_doubling needs a power of two of members, not {n}; use ring")


def legal(kind: CollectiveKind, n: int) -> tuple[Algorithm, ...]:
    """The algorithms that perform a collective among n members."""
    power_of_two = n & (n - 1) == 0
    return tuple(a for a in _able(kind) if power_of_two or a != "halving_doubling")


def _able(kind: CollectiveKind) -> list[Algorithm]:
    # an all-reduce is a reduce-scatter and the all-gather of its results, unless it is a tree's
    return [a for a in ALGORITHMS if (kind, a) in _STEPS or (kind == "all_reduce" and ("all_gather", a) in _STEPS)]


def tree_depth(n: int) -> int:
    """Levels below the root of a binary tree whose node i has the children 2i + 1 and 2i + 2."""
    return n.bit_length() - 1


def tree_level(n: int, level: int) -> range:
    """The nodes of one level of that tree."""
    return range((1 << level) - 1, min(n, (2 << level) - 1))


def _ring_gather(n: int) -> Iterator[Step]:
    """In round r, member i passes the part of member i - r on to member i + 1."""
    yield Step(n - 1, lambda r: [Move(i, (i + 1) % n, _one((i - r) % n), False) for i in range(n)])


def _ring_scatter(n: int) -> Iterator[Step]:
    """The same way round: what has been added up so far goes on, and ends at the member that it belongs to."""
    yield Step(n - 1, lambda r: [Move(i, (i + 1) % n, _one((i - r - 1) % n), True) for i in range(n)])


def _ring_to_all(n: int) -> Iterator[Step]:
    """Blocks travel round the ring one hop a round: first all that go one hop, then all that go two, ..."""

    def hop(r: int) -> list[Move]:
        distance = (math.isqrt(8 * r + 1) + 1) // 2
        gone = r - distance * (distance - 1) // 2  # a block that has gone h hops is at its origin + h
        origins = ((i - gone) % n for i in range(n))
        return [Move(i, (i + 1) % n, _one(o * n + (o + distance) % n), False) for i, o in enumerate(origins)]

    yield Step(n * (n - 1) // 2, hop)


def _chain(n: int) -> Iterator[Step]:
    """From each member to the next."""
    for i in range(n - 1):
        yield _once([Move(i, i + 1, range(n), False)])


def _direct_gather(n: int) -> Iterator[Step]:
    """Every member sends its part to every other at once, each beginning with its neighbour."""
    yield _once(Move(i, j, _one(i), False) for i, j in _pairs(n))


def _direct_scatter(n: int) -> Iterator[Step]:
    yield _once(Move(i, j, _one(j), True) for i, j in _pairs(n))


def _direct_to_all(n: int) -> Iterator[Step]:
    yield _once(Move(i, j, _one(i * n + j), False) for i, j in _pairs(n))


def _direct_broadcast(n: int) -> Iterator[Step]:
    yield _once(Move(0, i, range(n), False) for i in range(1, n))


def _doubling(n: int) -> Iterator[Step]:
    """Partners at distance 1, 2, 4, ... exchange all that they hold, so that what each holds doubles."""
    for d in _distances(n):
        yield _once(Move(i, i ^ d, _run(i, d), False) for i in range(n))


def _halving(n: int) -> Iterator[Step]:
    """Partners at distance n/2, n/4, ... send each other the half that the other will own."""
    for d in reversed(_distances(n)):
        yield _once(Move(i, i ^ d, _run(i ^ d, d), True) for i in range(n))


def _scatter_and_double(n: int) -> Iterator[Step]:
    """Whoever holds something sends half of it on until everyone has a part; then these are gathered."""
    for d in reversed(_distances(n)):
        yield _once(Move(i, i + d, _run(i + d, d), False) for i in range(0, n, 2 * d))
    yield from _doubling(n)


def _tree_reduce(n: int) -> Iterator[Step]:
    for level in range(tree_depth(n), 0, -1):
        yield _once(Move(i, (i - 1) // 2, range(n), True) for i in tree_level(n, level))


def _tree_broadcast(n: int) -> Iterator[Step]:
    for level in range(1, tree_depth(n) + 1):
        yield _once(Move((i - 1) // 2, i, range(n), False) for i in tree_level(n, level))


def _tree(n: int) -> Iterator[Step]:
    """Up a binary tree to its root, adding, and down again."""
    yield from _tree_reduce(n)
    yield from _tree_broadcast(n)


def _once(moves: Iterable[Move]) -> Step:
    made = list(moves)
    return Step(1, lambda _: made)


def _pairs(n: int) -> Iterator[tuple[int, int]]:
    return ((i, (i + d) % n) for d in range(1, n) for i in range(n))


def _distances(n: int) -> list[int]:
    return [1 << i for i in range(n.bit_length() - 1)]


def _one(part: int) -> range:
    return range(part, part + 1)


def _run(i: int, length: int) -> range:
    """The aligned run of parts, so long, in which part i lies."""
    return range(i // length * length, i // length * length + length)


_STEPS: Mapping[tuple[CollectiveKind, Algorithm], Callable[[int], Iterator[Step]]] = {
    ("all_gather", "ring"): _ring_gather,
    ("all_gather", "direct"): _direct_gather,
    ("all_gather", "halving_doubling"): _doubling,
    ("reduce_scatter", "ring"): _ring_scatter,
    ("reduce_scatter", "direct"): _direct_scatter,
    ("reduce_scatter", "halving_doubling"): _halving,
    ("all_reduce", "tree"): _tree,
    ("all_to_all", "ring"): _ring_to_all,
    ("all_to_all", "direct"): _direct_to_all,
    ("broadcast", "ring"): _chain,
    ("broadcast", "direct"): _direct_broadcast,
    ("broadcast", "halving_doubling"): _scatter_and_double,
    ("broadcast", "tree"): _tree_broadcast,
}
