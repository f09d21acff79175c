"""What a round of a collective costs: queues that its messages pass, and what else it waits for."""

from collections.abc import Hashable, Iterable
from typing import NamedTuple


class Hop(NamedTuple):
    """A link, or several alike, that a message of a round passes."""

    server: Hashable
    """What messages queue for; None on links without contention."""
    messages: int
    """Of this round, on the busiest of these links."""
    service_s: float
    """That the link is busy with each of them."""
    latency_s: float


class Round(NamedTuple):
    """So many rounds alike."""

    repeats: int
    hops: tuple[Hop, ...]
    stores: bool
    """Whether a message is received whole before the next hop."""
    latency_s: float
    """What the round would take with endless bandwidth."""

    @property
    def seconds(self) -> float:
        """Of one of the rounds, alone on its links."""
        first = last = end = 0.0
        for hop in self.hops:
            first, last, end, _ = passed(hop, first, last, end, 0.0, self.stores)
        return end


def passed(
    hop: Hop, first: float, last: float, whole: float, free: float, stores: bool
) -> tuple[float, float, float, float]:
    """How the messages of a round pass one hop.

    The first and the last of them begin to arrive at `first` and `last`, all have arrived at `whole`, and the link
    is free from `free` on.  Returns the same three for the next hop, and when the link is free again.
    """
    if hop.server is None:
        begin, leaves, busy = first, last + hop.service_s, 0.0
    else:
        begin = max(first, free)
        leaves = busy = max(begin + hop.messages * hop.service_s, last + hop.service_s)
    arrived = max(leaves, whole) + hop.latency_s
    if stores:
        return begin + hop.service_s + hop.latency_s, leaves + hop.latency_s, arrived, busy
    return begin + hop.latency_s, leaves - hop.service_s + hop.latency_s, arrived, busy


def alone_s(rounds: Iterable[Round], endpoint_delay: float) -> tuple[float, float]:
    """Seconds of rounds one after the other, and how many of them would remain with endless bandwidth.

    Each round ends with an endpoint's delay for its message, and there is one before the first.
    """
    seconds = latency = endpoint_delay
    for each in rounds:
        seconds += each.repeats * (each.seconds + endpoint_delay)
        latency += each.repeats * (each.latency_s + endpoint_delay)
    return seconds, latency
