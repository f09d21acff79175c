"""Rounds of any group on any network: each message goes over the links of its own route.

A message takes the latencies of its hops, its serialization (once where it flows through, at every hop where it is
stored), and, where messages of its round share a link that knows contention, the wait for the others on the worst such
link.  The round ends with its slowest message.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rpucluster.collective import many
from rpucluster.collective.rounds import Hop, Round
from rpucluster.topology import Network
from rpucluster.topology.product import Product

_MANY = 32
"""Messages of a round from which it pays to look at all of them at once."""


class Transfer(NamedTuple):
    """One message of one round: accelerators, and bytes."""

    source: int
    destination: int
    bytes: float


class LinkUse(NamedTuple):
    """What the price of a message depends on at one link."""

    latency_s: float
    bandwidth: float
    stores: bool
    shares: bool


class Routes:
    """The ways of a network, each looked up once."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._paths: dict[tuple[int, int], tuple[int, ...]] = {}
        self._uses: dict[int, LinkUse] = {}

    def path(self, source: int, destination: int) -> tuple[int, ...]:
        """The links from one accelerator to another."""
        path = self._paths.get((source, destination))
        if path is None:
            path = self._paths[source, destination] = self.network.path(source, destination)
        return path

    def use(self, link: int) -> LinkUse:
        """What a message sees of a link."""
        use = self._uses.get(link)
        if use is None:
            wire = self.network.axis_of(link)
            use = self._uses[link] = LinkUse(
                wire.latency,
                self.network.bandwidth_of(link),
                wire.forwarding == "store_and_forward",
                wire.contention != "none",
            )
        return use

    def loads(self, sends: Iterable[Transfer]) -> dict[int, float]:
        """Bytes on each link."""
        load: dict[int, float] = {}
        for source, destination, nbytes in sends:
            for link in self.path(source, destination):
                load[link] = load.get(link, 0.0) + nbytes
        return load

    def round(self, repeats: int, sends: Sequence[Transfer]) -> Round:
        """The price of a round.

        Rounds of other chunks queue at its busiest link for as long as this has to send; what the round takes
        beyond that passes beside them.
        """
        layout = self.network.product
        if layout is not None and len(sends) >= _MANY:
            return self._round_of_many(repeats, sends, layout)
        load = self.loads(sends)
        seconds = max((self._message_s(send, load) for send in sends), default=0.0)
        latency = max((self._latency_s(send) for send in sends), default=0.0)
        busiest, service = None, 0.0
        for link, nbytes in load.items():
            use = self.use(link)
            if use.shares and nbytes / use.bandwidth > service:
                busiest, service = link, nbytes / use.bandwidth
        return _round(repeats, seconds, latency, busiest, service)

    def _round_of_many(self, repeats: int, sends: Sequence[Transfer], layout: Product) -> Round:
        source, target = (np.array([send[i] for send in sends], np.int64) for i in (0, 1))
        found = many.price(self.network, layout, source, target, np.array([send.bytes for send in sends]))
        return _round(repeats, *found)

    def _latency_s(self, send: Transfer) -> float:
        return sum(self.use(link).latency_s for link in self.path(send.source, send.destination))

    def _message_s(self, send: Transfer, load: Mapping[int, float]) -> float:
        nbytes = send.bytes
        latency = stored = flowing = wait = 0.0
        for link in self.path(send.source, send.destination):
            use = self.use(link)
            latency += use.latency_s
            own = self.network.serialization_s(nbytes, use.bandwidth)
            if use.stores:
                # what flowed so far is held up until the message is whole
                stored, flowing = stored + flowing + own, 0.0
            else:
                flowing = max(flowing, own)
            if use.shares:
                wait = max(wait, (load[link] - nbytes) / use.bandwidth)
        return latency + stored + flowing + wait


def _round(repeats: int, seconds: float, latency: float, busiest: int | None, busiest_s: float) -> Round:
    service = min(busiest_s, seconds)
    return Round(repeats, (Hop(busiest, 1, service, seconds - service),), True, latency)
