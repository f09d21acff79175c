"""What a replay found: when each operation ran, why not earlier, and what it consumed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from rpucluster.cluster import Cluster
from rpucluster.program import Program
from rpucluster.timeline.prices import Energy, Price

Reason = Literal["start", "dependency", "stream", "arrays", "tiles", "digital", "link"]
REASONS: tuple[Reason, ...] = ("start", "dependency", "stream", "arrays", "tiles", "digital", "link")
"""In the order of the numbers of `rpucluster.timeline.state`."""


class LinkSpan(NamedTuple):
    """A transfer on one link."""

    link: int
    """The number of the link."""
    op: int
    begin_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """When each operation of a program ran on a cluster, and what it consumed; lists go by operation id."""

    program: Program
    cluster: Cluster
    start_s: tuple[float, ...]
    """Modelled seconds since the program began."""
    finish_s: tuple[float, ...]
    causes: tuple[int, ...]
    """The operation that let this one start, or end: see `reasons`; -1 for a start at 0."""
    reasons: tuple[Reason, ...]
    """Why each did not run earlier.  ``"dependency"``: it takes what the cause made; ``"stream"``: the cause was
    still giving it vectors; ``"arrays"``: it needs the same arrays; ``"tiles"``: the cause was among those that kept
    too many tiles active; ``"digital"``: it had the digital units; ``"link"``: it had a link; ``"start"``: it could
    not have run earlier."""
    prices: tuple[Price, ...]
    price: tuple[int, ...]
    """Which of `prices` each operation has."""

    @property
    def makespan_s(self) -> float:
        """When the last operation ends."""
        return max(self.finish_s, default=0.0)

    @cached_property
    def energy_J(self) -> tuple[Energy, ...]:
        """Joules of each operation."""
        return tuple(self.prices[price].energy for price in self.price)

    @cached_property
    def link_bytes(self) -> Mapping[int, float]:
        """Bytes that crossed each link that was used, by the number of the link, ascending."""
        times: dict[int, int] = {}
        for price in self.price:
            times[price] = times.get(price, 0) + 1
        total: dict[int, float] = {}
        for price, count in times.items():
            sending = self.prices[price].sending
            for link, nbytes in sending.link_bytes.items() if sending else ():
                total[link] = total.get(link, 0.0) + count * nbytes
        return dict(sorted(total.items()))

    @cached_property
    def link_busy_s(self) -> Mapping[int, float]:
        """Seconds that each of these links was sending: its bytes over its bandwidth."""
        network = self.cluster.network
        bandwidths = network.bandwidths_of(self.link_bytes).tolist()
        return {link: nbytes / at for (link, nbytes), at in zip(self.link_bytes.items(), bandwidths, strict=True)}

    def critical_path(self) -> tuple[int, ...]:
        """The operations that fix the makespan, in order: each started, or ended, when the one before let it."""
        if not self.finish_s:
            return ()
        op = self.finish_s.index(self.makespan_s)
        path = [op]
        while (op := self.causes[op]) >= 0:
            path.append(op)
        return tuple(reversed(path))

    def link_spans(self) -> list[LinkSpan]:
        """Every use of a link, by operation: while a send passes over it, and for the whole of a collective."""
        spans = []
        for op, price in enumerate(self.price):
            sending = self.prices[price].sending
            if sending is None:
                continue
            begin, end = self.start_s[op], self.finish_s[op]
            passing = {hold.link: (begin + hold.begin, begin + hold.end) for hold in sending.passing or ()}
            spans += [LinkSpan(link, op, *passing.get(link, (begin, end))) for link in sending.link_bytes]
        return spans
