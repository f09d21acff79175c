"""Chunks of a payload on their way through the stages of a collective, several at a time.

Each axis has a queue in which chunks wait their turn, first come, first served, and so many of which are under way at
once.  A collective over several axes has two such queues per axis, as ASTRA-sim's multi-dimensional systems do: the
chunks of an all-reduce use one on the way out and the other on the way back, those of other collectives alternate.
Each then has half of the chunks that may be under way, and at least one.

Chunks that are under way at the same time queue for the links that know contention, message by message, first come,
first served.  Where they meet on no such link the chunks are simulated, not their messages.  Rounds that repeat soon
come to repeat the same pattern of all chunks too, and then as many of them as all chunks have left are one step.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from rpucluster.collective.rounds import Hop, Round, alone_s, passed


class Course(NamedTuple):
    """A stage as the chunks go through it."""

    level: int
    """The axis."""
    back: bool
    """Whether it lies on the way back of an all-reduce."""
    rounds: tuple[Round, ...]


def makespan_s(
    courses: Sequence[Course], chunks: int, active: int, endpoint_delay: float, *, alternating: bool
) -> tuple[float, float]:
    """Seconds until the last chunk is through, and how many of them would remain with endless bandwidth.

    `alternating` says that chunks alternate between the queues of an axis.  O(chunks x active x rounds that differ)
    where chunks meet on links, else O(chunks x stages).
    """
    if chunks == 1:
        alone = [alone_s(course.rounds, endpoint_delay) for course in courses]
        return sum(seconds for seconds, _ in alone), sum(latency for _, latency in alone)
    queues = 2 if len({course.level for course in courses}) > 1 else 1
    per_queue = -(-active // queues)
    lanes = [
        [(course.level, int(course.back) if not alternating else chunk % queues) for chunk in range(queues)]
        for course in courses
    ]
    meet = per_queue > 1 or queues > 1
    timed = [_timed(course, endpoint_delay, meet) for course in courses]
    bare = [_bare(course, endpoint_delay) for course in courses]
    return tuple(_Flow(each, lanes, chunks, per_queue).run() for each in (timed, bare))  # type: ignore[return-value]


class _Passage(NamedTuple):
    """One round of one chunk: what it passes, and what it waits for besides."""

    hops: tuple[Hop, ...]
    stores: bool
    before_s: float
    after_s: float


def _timed(course: Course, endpoint_delay: float, meet: bool) -> list[tuple[int, _Passage]]:
    if meet and any(hop.server is not None for each in course.rounds for hop in each.hops):
        passages = [(each.repeats, _Passage(each.hops, each.stores, 0.0, endpoint_delay)) for each in course.rounds]
        return [(1, _Passage((), True, endpoint_delay, 0.0)), *passages]
    return [(1, _Passage((), True, alone_s(course.rounds, endpoint_delay)[0], 0.0))]


def _bare(course: Course, endpoint_delay: float) -> list[tuple[int, _Passage]]:
    return [(1, _Passage((), True, alone_s(course.rounds, endpoint_delay)[1], 0.0))]


class _Chunk:
    """Where a chunk is: its stage, the passage there, and how often it has still to be made."""

    __slots__ = ("first", "last", "left", "number", "passage", "stage", "whole")

    def __init__(self, number: int) -> None:
        self.number = number
        self.stage, self.passage, self.left = 0, 0, 0
        self.first = self.last = self.whole = 0.0


class _Moment(NamedTuple):
    """All that the future depends on, but for how many rounds are left, at the end of a round of some chunk."""

    chunk: _Chunk
    now: float
    where: tuple[tuple[int, int, int, int], ...]
    """Of each chunk that is under way, in the order of their events: number, stage, passage, hop."""
    after: tuple[float, ...]
    """Seconds from now to their events and messages, and until links are free."""
    left: dict[_Chunk, int]
    """Rounds of each in its passage."""


_SAME = 1e-9
"""Differences of moments, as a share of the time between them, that are rounding."""


class _Flow:
    """An event simulation of chunks; an event is a chunk that arrives at a hop."""

    def __init__(
        self,
        stages: Sequence[list[tuple[int, _Passage]]],
        lanes: Sequence[Sequence[tuple[int, int]]],
        chunks: int,
        per_queue: int,
    ) -> None:
        self.stages, self.lanes, self.per_queue = stages, lanes, per_queue
        self.chunks = [_Chunk(number) for number in range(chunks)]
        self.under_way: dict[tuple[int, int], int] = {}
        self.waiting: dict[tuple[int, int], deque[_Chunk]] = {}
        self.free: dict[Hashable, float] = {}
        self.events: list[tuple[float, int, _Chunk, int]] = []
        self.serial = 0
        self.end = 0.0
        self.seen: _Moment | None = None

    def run(self) -> float:
        """When the last chunk is through."""
        for chunk in self.chunks:
            self._arrive(chunk, 0.0)
        while self.events:
            now, _, chunk, hop = heappop(self.events)
            passage = self.stages[chunk.stage][chunk.passage][1]
            if hop < len(passage.hops):
                self._pass(chunk, passage, hop)
            else:
                self._next(chunk, now)
        return self.end

    def _lane(self, chunk: _Chunk) -> tuple[int, int]:
        lanes = self.lanes[chunk.stage]
        return lanes[chunk.number % len(lanes)]

    def _arrive(self, chunk: _Chunk, now: float) -> None:
        """A chunk comes to a stage, and waits for its turn."""
        lane = self._lane(chunk)
        self.waiting.setdefault(lane, deque()).append(chunk)
        self._admit(lane, now)

    def _admit(self, lane: tuple[int, int], now: float) -> None:
        while self.waiting[lane] and self.under_way.get(lane, 0) < self.per_queue:
            self.under_way[lane] = self.under_way.get(lane, 0) + 1
            chunk = self.waiting[lane].popleft()
            chunk.passage, chunk.left = 0, self.stages[chunk.stage][0][0]
            self._set_out(chunk, now)

    def _set_out(self, chunk: _Chunk, now: float) -> None:
        passage = self.stages[chunk.stage][chunk.passage][1]
        begin = now + passage.before_s
        chunk.first = chunk.last = chunk.whole = begin
        self._push(begin, chunk, 0)

    def _pass(self, chunk: _Chunk, passage: _Passage, number: int) -> None:
        hop = passage.hops[number]
        free = self.free.get(hop.server, 0.0) if hop.server is not None else 0.0
        chunk.first, chunk.last, chunk.whole, busy = passed(
            hop, chunk.first, chunk.last, chunk.whole, free, passage.stores
        )
        if hop.server is not None:
            self.free[hop.server] = busy
        last = number + 1 == len(passage.hops)
        self._push(chunk.whole + passage.after_s if last else chunk.first, chunk, number + 1)

    def _next(self, chunk: _Chunk, now: float) -> None:
        """A round is over."""
        chunk.left -= 1
        if chunk.left == 0:
            chunk.passage += 1
            if chunk.passage == len(self.stages[chunk.stage]):
                self._leave(chunk, now)
                return
            chunk.left = self.stages[chunk.stage][chunk.passage][0]
        elif chunk.left > 1:
            now = self._leap(chunk, now)
        self._set_out(chunk, now)

    def _leap(self, chunk: _Chunk, now: float) -> float:
        """Skip rounds in which nothing changes but the time; returns what time it is then."""
        seen = self.seen
        if seen is not None and seen.chunk is not chunk:
            there = seen.chunk.stage, seen.chunk.passage
            if seen.where[0][1:3] == there and seen.chunk.left > 1:
                return now  # the one that was looked at goes on with its rounds, and will be looked at again
        self.seen = here = self._moment(chunk, now)
        # a link that was not used before makes another moment, too
        if seen is None or seen.where != here.where or len(seen.after) != len(here.after):
            return now
        period = now - seen.now
        if any(abs(a - b) > _SAME * period for a, b in zip(seen.after, here.after, strict=True)):
            return now
        done = {each: seen.left[each] - here.left[each] for each in here.left}
        periods = min((each.left - 1) // rounds for each, rounds in done.items() if rounds > 0)
        if periods < 1 or any(rounds < 0 for rounds in done.values()):
            return now
        self.seen = None
        return now + self._shift(periods * period, {each: periods * rounds for each, rounds in done.items()})

    def _shift(self, seconds: float, rounds: dict[_Chunk, int]) -> float:
        self.events = [(when + seconds, serial, chunk, hop) for when, serial, chunk, hop in self.events]
        self.free = {server: when + seconds for server, when in self.free.items()}
        for chunk, done in rounds.items():
            chunk.left -= done
            chunk.first, chunk.last, chunk.whole = (t + seconds for t in (chunk.first, chunk.last, chunk.whole))
        return seconds

    def _moment(self, chunk: _Chunk, now: float) -> _Moment:
        events = [(now, 0, chunk, -1), *sorted(self.events, key=lambda event: event[:2])]
        after = [max(0.0, when - now) for when in self.free.values()]
        for when, _, each, _ in events[1:]:
            after += (when - now, each.first - now, each.last - now, each.whole - now)
        where = tuple((each.number, each.stage, each.passage, hop) for _, _, each, hop in events)
        return _Moment(chunk, now, where, tuple(after), {each: each.left for _, _, each, _ in events})

    def _leave(self, chunk: _Chunk, now: float) -> None:
        """A stage is over; the chunk goes on before the next one of its queue sets out."""
        lane = self._lane(chunk)
        self.under_way[lane] -= 1
        chunk.stage += 1
        if chunk.stage < len(self.stages):
            self._arrive(chunk, now)
        else:
            self.end = max(self.end, now)
        self._admit(lane, now)

    def _push(self, when: float, chunk: _Chunk, hop: int) -> None:
        self.serial += 1
        heappush(self.events, (when, self.serial, chunk, hop))
