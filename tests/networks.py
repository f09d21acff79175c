"""Networks, routes and collectives as tests make them, and a simulation of every single message of a collective."""

from collections import defaultdict, deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from rpucluster.collective import Algorithm, CollectiveKind, Send, expand
from rpucluster.topology import AxisKind, Network


def network(*axes: tuple[AxisKind, int], **keys: Any) -> Network:
    """Axes x, y, z of 50 GB/s and 500 ns; keys of `Network` and, on every axis, of `Axis`."""
    own = {key: keys.pop(key) for key in ("endpoint_delay", "tick") if key in keys}
    defaults = {"bandwidth": "50 GB/s", "latency": "500 ns"}
    tables = [{"name": "xyz"[k], "kind": kind, "size": size, **defaults, **keys} for k, (kind, size) in enumerate(axes)]
    return Network.model_validate({"axis": tables, **own})


class Messages:
    """Every message of every chunk on every link, first come, first served.

    A member goes on to its next round when what it gets in this one has arrived; chunks wait at each member for a
    place in the queues of an axis.  Knows nothing of symmetry, closed forms or representatives.
    """

    def __init__(self, net: Network, stages: Sequence[Sequence[Sequence[Send]]], lanes: Any, chunks: int, places: int):
        self.net, self.lanes, self.places = net, lanes, places
        self.rounds = [[list(sends) for sends in stage] for stage in stages]
        self.chunks = chunks
        self.free: dict[int, float] = defaultdict(float)
        self.at: dict[tuple[int, int], tuple[int, int]] = {}  # member, chunk -> stage, round
        self.got: dict[tuple[int, int, int, int], int] = defaultdict(int)
        self.under_way: dict[Any, int] = defaultdict(int)
        self.waiting: dict[Any, deque[int]] = defaultdict(deque)
        self.events: list[tuple[float, int, Any]] = []
        self.serial = 0
        self.members = sorted({end for stage in stages for sends in stage for s in sends for end in s[:2]})
        self.end = 0.0

    def run(self) -> float:
        """When the last member has the last chunk."""
        for chunk in range(self.chunks):
            for member in self.members:
                self.arrive(member, chunk, 0, 0.0)
        while self.events:
            now, _, event = heappop(self.events)
            if event[0] == "message":
                self.message(now, *event[1:])
            else:
                self.received(now, *event[1:])
        return self.end

    def push(self, when: float, *event: Any) -> None:
        self.serial += 1
        heappush(self.events, (when, self.serial, event))

    def arrive(self, member: int, chunk: int, stage: int, now: float) -> None:
        lane = (member, self.lanes(stage, chunk))
        self.at[member, chunk] = stage, -1
        self.waiting[lane].append(chunk)
        self.admit(lane, now)

    def admit(self, lane: Any, now: float) -> None:
        while self.waiting[lane] and self.under_way[lane] < self.places:
            self.under_way[lane] += 1
            self.push(now + self.net.endpoint_delay, "received", lane[0], self.waiting[lane].popleft(), None)

    def received(self, now: float, member: int, chunk: int, which: tuple[int, int] | None) -> None:
        if which is not None:
            self.got[member, chunk, *which] += 1
        while True:
            stage, r = self.at[member, chunk]
            rounds = self.rounds[stage]
            if r < 0:
                if which is not None:
                    return  # still waiting for a place
            elif self.got[member, chunk, stage, r] < sum(s.destination == member for s in rounds[r]):
                return
            which = stage, r
            r += 1
            if r == len(rounds):
                self.leave(member, chunk, stage, now)
                return
            self.at[member, chunk] = stage, r
            for s in rounds[r]:
                if s.source == member:
                    path = self.net.path(s.source, s.destination)
                    self.push(now, "message", path, 0, s.bytes / self.chunks, s.destination, chunk, (stage, r))
            which = stage, r

    def leave(self, member: int, chunk: int, stage: int, now: float) -> None:
        lane = (member, self.lanes(stage, chunk))
        self.under_way[lane] -= 1
        self.at[member, chunk] = stage + 1, -1
        if stage + 1 < len(self.rounds):
            self.arrive(member, chunk, stage + 1, now)
        else:
            self.end = max(self.end, now)
        self.admit(lane, now)

    def message(
        self, now: float, path: tuple[int, ...], hop: int, nbytes: float, to: int, chunk: int, which: tuple[int, int]
    ) -> None:
        link = path[hop]
        wire = self.net.axis_of(link)
        service = nbytes / self.net.bandwidth_of(link)
        begin = now
        if wire.contention != "none":
            begin = max(now, self.free[link])
            self.free[link] = begin + service
        if hop + 1 == len(path):
            self.push(begin + service + wire.latency + self.net.endpoint_delay, "received", to, chunk, which)
        else:
            stored = service if wire.forwarding == "store_and_forward" else 0.0
            self.push(begin + stored + wire.latency, "message", path, hop + 1, nbytes, to, chunk, which)


def messages_s(
    kind: CollectiveKind,
    net: Network,
    nbytes: float,
    algorithms: Sequence[Algorithm],
    chunks: int = 1,
    active_chunks: int = 1,
) -> float:
    """Seconds of a collective among all accelerators by simulating its messages; `nbytes` as `cost` takes them."""
    n = net.accelerators
    rounds = expand(kind, range(n), [nbytes] * n, net, algorithms)
    # the axis of its messages tells the stage that a round belongs to
    axes = [net.axis.index(net.axis_of(net.path(*sends[0][:2])[0])) for sends in rounds]
    stages: list[list[Sequence[Send]]] = []
    for i, sends in enumerate(rounds):
        if i == 0 or axes[i] != axes[i - 1]:
            stages.append([])
        stages[-1].append(sends)
    several = len(set(axes)) > 1

    def lane(stage: int, chunk: int) -> tuple[int, int]:
        axis = list(dict.fromkeys(axes))[min(stage, len(stages) - 1 - stage)] if kind == "all_reduce" else stage
        back = stage > (len(stages) - 1) / 2
        return axis, 0 if not several else int(back) if kind == "all_reduce" else chunk % 2

    places = -(-active_chunks // 2) if several else active_chunks
    return Messages(net, stages, lane, chunks, places).run()
