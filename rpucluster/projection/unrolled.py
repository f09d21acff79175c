"""A score repeated over its microbatches, as the arrays that a replay reads: `unroll`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rpucluster.program import Collective, Digital, Op, Program, Read, Send
from rpucluster.projection.score import EVERY, FLUSH, LATEST, SAME, Score
from rpucluster.schedule import Turn
from rpucluster.timeline.order import ARRAYS, COUNTS, DEPENDS, DIGITAL, STREAMS, TRANSFER, TURN, Order, arrange

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Unrolled:
    """All operations of a step, each as a position in the concatenated parts of a score."""

    pattern: tuple[Op, ...]
    """The operations of all parts."""
    of: NDArray[np.int32]
    """Which of these each operation repeats, in the order of the program."""
    price: NDArray[np.int32]
    """Which of `examples` each of the pattern costs as much as."""
    order: Order
    examples: tuple[Op, ...]
    """One operation of each price."""
    flush: frozenset[int]
    """Which of these are of the flush; operations of turns have others."""
    accelerators: tuple[int, ...]
    """Those with operations of their own, ascending."""
    held: tuple[int, ...]
    """Tiles of the shards that work, by the place of their accelerator."""


def unroll(score: Score, turns: list[Turn]) -> Unrolled:
    """Repeat the parts of a score in the order of the turns, and flush; O(operations + dependencies)."""
    pattern = _Pattern(score)
    places = _Places.of(score, turns, pattern)
    of = places.repeats
    count = len(of)
    regular, slot_of_regular, streams = pattern.regular_edges()
    late_source, late_target = places.late(pattern)
    turn_source, turn_target = _in_turn(pattern.shard, of)
    # where the followers of each operation stand: those of the pattern, then the irregular ones, then its turn's next
    ends = [places.ends(group) for group in regular]
    always = pattern.followers[of]
    follows = always + np.bincount(late_source, minlength=count)
    last = follows.copy()
    follows[turn_source] += 1
    first = np.concatenate(([0], np.cumsum(follows)))
    follower = np.empty(first[-1], np.int32)
    why = np.full(first[-1], DEPENDS, np.int8)
    for (source, target), slots, stream in zip(ends, slot_of_regular, streams, strict=True):
        at = first[source] + slots[:, None]
        follower[at] = target
        why[at[stream]] = STREAMS
    follower[first[late_source] + always[late_source] + _rank_among_equals(late_source)] = late_target
    at = first[turn_source] + last[turn_source]
    follower[at] = turn_target
    why[at] = TURN
    issued_first, issued_next = _issued(pattern, of)
    order = Order(
        works_with=pattern.works_with[of],
        place=pattern.place[of],
        tiles=pattern.tiles[of],
        vectors=pattern.vectors[of],
        price=pattern.price[of],
        waiting=np.bincount(follower, minlength=count).astype(np.int32),
        first=first,
        follower=follower,
        why=why,
        issued_first=issued_first,
        issued_next=issued_next,
    )
    return Unrolled(
        pattern=pattern.ops,
        of=of,
        price=pattern.price,
        order=order,
        examples=tuple(pattern.examples),
        flush=frozenset(pattern.flush),
        accelerators=pattern.accelerators,
        held=pattern.held,
    )


def as_columns(program: Program) -> Unrolled:
    """A program as it stands, in which nothing repeats."""
    arranged = arrange(program)
    return Unrolled(
        pattern=program.ops,
        of=np.arange(len(program), dtype=np.int32),
        price=arranged.order.price,
        order=arranged.order,
        examples=arranged.examples,
        flush=frozenset(),
        accelerators=program.accelerators,
        held=arranged.held,
    )


class _Pattern:
    """The parts of a score one after the other, as columns."""

    def __init__(self, score: Score) -> None:
        self.keys = {key: i for i, key in enumerate(score.parts)}
        self.lengths = np.array([len(part.ops) for part in score.parts.values()], np.int64)
        self.offsets = np.concatenate(([0], np.cumsum(self.lengths)))
        self.ops = tuple(op for part in score.parts.values() for op in part.ops)
        own = {op.accelerator for op in self.ops if not isinstance(op, Collective | Send)}
        self.accelerators = tuple(sorted(own))
        at = {accelerator: i for i, accelerator in enumerate(self.accelerators)}
        count = len(self.ops)
        self.works_with = np.full(count, TRANSFER, np.int8)
        self.place, self.shard = np.full(count, -1, np.int32), np.full(count, -1, np.int64)
        self.tiles, self.vectors = np.zeros(count, np.int64), np.ones(count, np.int64)
        self.price, self.passes = np.zeros(count, np.int32), np.zeros(count, np.bool_)
        self.examples: list[Op] = []
        self.flush: set[int] = set()
        turns = count - (len(score.parts[FLUSH].ops) if FLUSH in score.parts else 0)  # the flush comes last
        prices: dict[object, int] = {}
        shards: dict[tuple[int, int], int] = {}
        tiles_of: dict[tuple[int, int], int] = {}
        for i, op in enumerate(self.ops):
            counts = i >= turns, *COUNTS[type(op)](op)
            known = prices.setdefault(counts, len(prices))
            if known == len(self.examples):
                self.examples.append(op)
                if i >= turns:
                    self.flush.add(known)
            self.price[i] = known
            if isinstance(op, Collective | Send):
                continue
            self.place[i] = at[op.accelerator]
            if isinstance(op, Digital):
                self.works_with[i] = DIGITAL
                self.passes[i] = op.microbatch >= 0
                self.vectors[i] = op.vectors
                continue
            self.works_with[i] = ARRAYS
            self.tiles[i] = op.tiles
            if isinstance(op, Read):
                self.passes[i], self.vectors[i] = True, op.vectors
            shard = (at[op.accelerator], op.layer)
            self.shard[i] = shards.setdefault(shard, len(shards))
            tiles_of[shard] = max(op.tiles, tiles_of.get(shard, 0))
        held = [0] * len(at)
        for (place, _), tiles in tiles_of.items():
            held[place] += tiles
        self.held = tuple(held)
        self._sort_edges(score)

    def _sort_edges(self, score: Score) -> None:
        rows = [
            (self.keys[edge.key], edge.position, number, i, edge.which)
            for number, part in enumerate(score.parts.values())
            for i, edges in enumerate(part.edges)
            for edge in edges
        ]
        edges = np.array(rows, np.int64).reshape(-1, 5).T
        flush = self.keys.get(FLUSH, -1)
        kind = np.where((edges[4] == SAME) & (edges[2] == flush), _ONCE, edges[4])
        self.late = edges[:4, kind == LATEST]
        self._regular = [edges[:4, kind == which] for which in (SAME, EVERY, _ONCE)]
        sources = [self.offsets[group[0]] + group[1] for group in self._regular]
        self.followers = np.bincount(np.concatenate(sources), minlength=len(self.ops))
        ranks = _rank_among_equals(np.concatenate(sources))
        self._slots = np.split(ranks, np.cumsum([len(source) for source in sources])[:-1])

    def regular_edges(self) -> tuple[list[Ints], list[Ints], list[NDArray[np.bool_]]]:
        """Edges that go out from every repetition of an operation: those to the same microbatch, to the flush, and
        within the flush; the place of each among those of its source, and whether vectors pass one by one."""
        streams = []
        for kind, group in zip((SAME, EVERY, _ONCE), self._regular, strict=True):
            source, target = self.offsets[group[0]] + group[1], self.offsets[group[2]] + group[3]
            streams.append(
                self.passes[source]
                & self.passes[target]
                & (self.place[source] == self.place[target])
                & (self.vectors[source] == self.vectors[target])
                & (kind == SAME)
            )
        return self._regular, self._slots, streams


_ONCE = 3  # beside the numbers of `Edge.which`: an edge within the flush


@dataclass(frozen=True, kw_only=True, eq=False)
class _Places:
    """Where every turn stands in the program."""

    repeats: NDArray[np.int32]
    begin: Ints
    """The first operation of the turn of a part and a microbatch."""
    moment: Ints
    """The position of that turn in the order of all turns."""
    flush: int

    @classmethod
    def of(cls, score: Score, turns: list[Turn], pattern: _Pattern) -> "_Places":
        flush = [pattern.keys[FLUSH]] if FLUSH in pattern.keys else []
        which = np.array([pattern.keys[turn[:3]] for turn in turns] + flush, np.int64)
        microbatch = np.array([turn[3] for turn in turns] + [0] * len(flush), np.int64)
        lengths = pattern.lengths[which]
        begins = np.cumsum(lengths) - lengths
        begin = np.zeros((len(pattern.keys), score.microbatches), np.int64)
        begin[which, microbatch] = begins
        moment = np.zeros_like(begin)
        moment[which, microbatch] = np.arange(len(which))
        repeats = np.repeat(pattern.offsets[which] - begins, lengths) + np.arange(int(lengths.sum()))
        return cls(repeats=repeats.astype(np.int32), begin=begin, moment=moment, flush=flush[0] if flush else -1)

    def ends(self, edges: Ints) -> tuple[Ints, Ints]:
        """Sources and targets of edges for every microbatch; rows by edge."""
        source, target = self.begin[edges[0]] + edges[1][:, None], self.begin[edges[2]] + edges[3][:, None]
        if edges.shape[1] and edges[2, 0] == self.flush:
            target = target[:, :1]  # there is one flush
            source = source[:, :1] if edges[0, 0] == self.flush else source
        return source, np.broadcast_to(target, source.shape)

    def late(self, pattern: _Pattern) -> tuple[Ints, Ints]:
        """Sources and targets of the edges from the last turn before."""
        sources, targets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        names = list(pattern.keys)
        pairs, group = np.unique(pattern.late[[0, 2]], axis=1, return_inverse=True)
        for i, (before, here) in enumerate(pairs.T.tolist()):
            edges = pattern.late[:, group.reshape(-1) == i]
            own = np.arange(1 if here == self.flush else self.begin.shape[1])
            found = np.searchsorted(self.moment[before], self.moment[here, own]) - 1
            # an update follows the reads of its own microbatch anyway
            kept = (found >= 0) & ((found != own) | (names[here][0] != "update"))
            sources.append((self.begin[before, found[kept]] + edges[1][:, None]).reshape(-1))
            targets.append((self.begin[here, own[kept]] + edges[3][:, None]).reshape(-1))
        return np.concatenate(sources), np.concatenate(targets)


def _in_turn(shard: Ints, of: NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Which operation with arrays follows which on the same shard."""
    shards = shard[of]
    at = np.flatnonzero(shards >= 0)
    at = at[_stable_order(shards[at])]
    follows = np.flatnonzero(shards[at[1:]] == shards[at[:-1]])
    return at[follows], at[follows + 1]


def _issued(pattern: _Pattern, of: NDArray[np.int32]) -> tuple[Ints, Ints]:
    """The first operation with arrays of each place, and which follows each there."""
    place = np.where(pattern.shard >= 0, pattern.place, -1).astype(np.int64)
    source, target = _in_turn(place, of)
    following = np.full(len(of), -1, np.int64)
    following[source] = target
    first = np.full(len(pattern.accelerators), -1, np.int64)
    places = place[of]
    own = np.flatnonzero(places >= 0)
    first[places[own[::-1]]] = own[::-1]
    return first, following


def _rank_among_equals(values: Ints) -> Ints:
    """How many equal values stand before each."""
    order = _stable_order(values)
    ranked = values[order]
    new = np.concatenate(([True], ranked[1:] != ranked[:-1]))[: len(values)]
    begins = np.flatnonzero(new)
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.repeat(begins, np.diff(np.append(begins, len(values))))
    return ranks


def _stable_order(values: Ints) -> Ints:
    """A stable sort of numbers below 2^32: NumPy sorts 16-bit numbers by radix."""
    low = np.argsort((values & 0xFFFF).astype(np.uint16), kind="stable")
    if not len(values) or values.max() <= 0xFFFF:
        return low
    return low[np.argsort((values[low] >> 16).astype(np.uint16), kind="stable")]
