"""What each collective algorithm puts on each link, and how long and how much energy that takes.

A collective is a sequence of rounds; in a round every member sends at most a few messages, and the next round
starts when the slowest has arrived.  Each message costs alpha-beta: the latencies of its hops, its own
serialization, and, where messages of its round share a link that knows contention, the wait for the others on
the worst such link.  Rounds that repeat are priced once, which makes the cost a closed form in the number of
rounds; `expand` writes all of them out.  The arithmetic of a reduction is not charged here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rpucluster.errors import InputError
from rpucluster.topology import Leg, Network

CollectiveKind = Literal["all_reduce", "all_gather", "reduce_scatter"]
Algorithm = Literal["ring", "direct", "halving_doubling"]

_NATURAL: Mapping[str, Algorithm] = {
    "ring": "ring",
    "mesh": "ring",
    "fully_connected": "direct",
    "switch": "halving_doubling",
}


class Transfer(NamedTuple):
    """One message of one round: accelerators, and bytes."""

    source: int
    destination: int
    bytes: float


class Hold(NamedTuple):
    """A link, by number, that is taken from `begin` until `end`, seconds after the operation starts."""

    link: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveCost:
    """What one collective or one send costs when nothing else is on its links."""

    modelled_s: float
    latency_s: float
    """The part that does not depend on bandwidth."""
    link_bytes: Mapping[int, float]
    """Bytes on each link, by the number of the link."""
    steps: int
    """Rounds in which anything was sent."""
    energy_J: float
    """Of the links."""
    algorithm: Algorithm | Literal["send"]
    holds: tuple[Hold, ...]
    """The links that no other transfer may use meanwhile; links without contention are not held."""

    @property
    def transfer_s(self) -> float:
        """The part that depends on bandwidth."""
        return self.modelled_s - self.latency_s


def default_algorithm(members: Sequence[int], network: Network) -> Algorithm:
    """The algorithm that suits the axis on which a group lies.

    `ring` on a ring or mesh, `direct` on a fully connected axis, `halving_doubling` on a switch when the
    members are a power of two.  A group that spans several axes runs one flat ring over its members in the
    given order, each message routed over the real links.  Raises `InputError` for members that are not there.
    """
    crossed = network.crossed(tuple(members))
    if len(crossed) != 1:
        return "ring"
    algorithm = _NATURAL[network.axis[crossed[0]].kind]
    return "ring" if algorithm == "halving_doubling" and len(members) & (len(members) - 1) else algorithm


def cost(
    kind: CollectiveKind,
    members: Sequence[int],
    bytes_per_member: Sequence[float],
    network: Network,
    algorithm: Algorithm | Literal["auto"] = "auto",
) -> CollectiveCost:
    """What a collective among `members` costs.

    `bytes_per_member[i]` is what member i contributes: its block of an all-gather (blocks may be uneven, and
    empty), or the whole buffer of an all-reduce or reduce-scatter (the same for all).  A single member, or no
    bytes, costs nothing.  With n members, S bytes, and hops of latency L and bandwidth B, an all-reduce takes
    2(n-1)(L + S/nB) by ring, 2(L + S/nB) direct and the sum over i = 1..log2 n of 2(2L + S/2^i B) by halving
    and doubling through a switch; an all-gather of even blocks takes (n-1)(L + S/B), L + S/B and the sum over
    i = 0..log2 n - 1 of 2L + 2^i S/B (the usual alpha-beta forms, as ASTRA-sim's analytical backends have
    them).  Raises `InputError`.
    """
    chosen = default_algorithm(members, network) if algorithm == "auto" else algorithm
    seconds, latency, steps = 0.0, 0.0, 0
    link_bytes: dict[int, float] = {}
    legs: dict[tuple[int, int], tuple[Leg, ...]] = {}
    for repeats, sends in _rounds(kind, members, bytes_per_member, chosen):
        for source, destination, _ in sends:
            if (source, destination) not in legs:
                legs[source, destination] = network.legs(source, destination)
        load: dict[int, float] = {}
        for source, destination, nbytes in sends:
            for _, links in legs[source, destination]:
                for link in links:
                    load[link] = load.get(link, 0.0) + nbytes
        seconds += repeats * max(_transfer_s(network, legs[s, d], nbytes, load) for s, d, nbytes in sends)
        latency += repeats * max(_latency_s(network, legs[s, d]) for s, d, _ in sends)
        steps += repeats
        for link, nbytes in load.items():
            link_bytes[link] = link_bytes.get(link, 0.0) + repeats * nbytes
    held = [link for link in link_bytes if seconds > 0 and network.axis_of(link).contention == "fifo"]
    return CollectiveCost(
        modelled_s=seconds,
        latency_s=latency,
        link_bytes=link_bytes,
        steps=steps,
        energy_J=_energy(network, link_bytes),
        algorithm=chosen,
        holds=tuple(Hold(link, 0.0, seconds) for link in held),
    )


def send_cost(source: int, destination: int, nbytes: float, network: Network) -> CollectiveCost:
    """What one transfer costs: hops times latency plus the serialization.

    Serialization is paid once on a way of cut-through hops, at the narrowest of them, and at every
    store-and-forward hop.  A link is held only while the message passes over it.  To itself, or without
    bytes, an accelerator sends for nothing.  Raises `InputError` for an accelerator that is not there.
    """
    legs = network.legs(source, destination) if nbytes > 0 else ()
    link_bytes = {link: nbytes for _, links in legs for link in links}
    holds: list[Hold] = []
    head = flowing = 0.0  # when the first byte reaches the next link, and how long the rest follows it
    for k, links in legs:
        axis = network.axis[k]
        on_link = nbytes / axis.bandwidth
        stores = axis.forwarding == "store_and_forward"
        if stores:
            head, flowing = head + flowing, 0.0
        for link in links:
            if axis.contention == "fifo" and on_link > 0:
                holds.append(Hold(link, head, head + on_link))
            head += axis.latency + (on_link if stores else 0.0)
        flowing = 0.0 if stores else max(flowing, on_link)
    return CollectiveCost(
        modelled_s=head + flowing,
        latency_s=_latency_s(network, legs),
        link_bytes=link_bytes,
        steps=1 if legs else 0,
        energy_J=_energy(network, link_bytes),
        algorithm="send",
        holds=tuple(holds),
    )


def expand(
    kind: CollectiveKind, members: Sequence[int], bytes_per_member: Sequence[float], algorithm: Algorithm
) -> tuple[tuple[Transfer, ...], ...]:
    """All rounds of a collective as single sends; arguments and errors are those of `cost`."""
    return tuple(
        tuple(sends) for repeats, sends in _rounds(kind, members, bytes_per_member, algorithm) for _ in range(repeats)
    )


_Round = tuple[int, list[Transfer]]  # how often, and what each time


def _rounds(
    kind: CollectiveKind, members: Sequence[int], bytes_per_member: Sequence[float], algorithm: Algorithm
) -> Iterator[_Round]:
    n = len(members)
    if len(set(members)) != n or n == 0:
        raise InputError(f"{kind} among {list(members)}: name each member once, and at least one")
    if len(bytes_per_member) != n or min(bytes_per_member) < 0:
        raise InputError(f"{kind} of {list(bytes_per_member)} bytes: give a size of 0 or more to each of {n}")
    if kind != "all_gather" and min(bytes_per_member) != max(bytes_per_member):
        raise InputError(f"{kind} of {list(bytes_per_member)} bytes: every member must give the same")
    if algorithm == "halving_doubling" and n & (n - 1):
        raise InputError(f"halving_doubling needs a power of two of members, not {n}; use ring")
    blocks = list(bytes_per_member) if kind == "all_gather" else [size / n for size in bytes_per_member]
    gathering = {"ring": _ring, "direct": _direct, "halving_doubling": _doubling}[algorithm](members, blocks)
    # a reduce-scatter is the all-gather of the reduced blocks run backwards, and its even blocks make the
    # rounds of both directions alike; an all-reduce is one after the other
    moving = ((repeats, [send for send in sends if send.bytes > 0]) for repeats, sends in gathering)
    rounds = [(repeats, sends) for repeats, sends in moving if sends]
    if kind != "all_gather":
        yield from reversed(rounds)
    if kind != "reduce_scatter":
        yield from rounds


def _ring(members: Sequence[int], blocks: Sequence[float]) -> Iterator[_Round]:
    """In round r, member i passes the block of member i - r on to member i + 1."""
    n = len(members)
    even = min(blocks) == max(blocks)
    for r in range(min(1, n - 1) if even else n - 1):
        sends = [Transfer(members[i], members[(i + 1) % n], blocks[(i - r) % n]) for i in range(n)]
        yield (n - 1 if even else 1), sends


def _direct(members: Sequence[int], blocks: Sequence[float]) -> Iterator[_Round]:
    """Every member sends its block to every other at once."""
    pairs = [(i, b) for i in range(len(members)) for b in members if b != members[i]]
    yield 1, [Transfer(members[i], destination, blocks[i]) for i, destination in pairs]


def _doubling(members: Sequence[int], blocks: Sequence[float]) -> Iterator[_Round]:
    """Partners at distance 1, 2, 4, ... exchange all that they hold, so that what each holds doubles."""
    n, held = len(members), list(blocks)
    distance = 1
    while distance < n:
        yield 1, [Transfer(members[i], members[i ^ distance], held[i]) for i in range(n)]
        held = [held[i] + held[i ^ distance] for i in range(n)]
        distance *= 2


def _transfer_s(network: Network, legs: Sequence[Leg], nbytes: float, load: Mapping[int, float]) -> float:
    """Seconds of one message, given the bytes that its round puts on each link."""
    latency = stored = flowing = wait = 0.0
    for k, links in legs:
        axis = network.axis[k]
        latency += len(links) * axis.latency
        own = nbytes / axis.bandwidth
        if axis.forwarding == "store_and_forward":
            # what flowed so far is held up until the message is whole
            stored, flowing = stored + flowing + len(links) * own, 0.0
        else:
            flowing = max(flowing, own)
        if axis.contention != "none":
            wait = max(wait, max(load[link] - nbytes for link in links) / axis.bandwidth)
    return latency + stored + flowing + wait


def _latency_s(network: Network, legs: Sequence[Leg]) -> float:
    return math.fsum(len(links) * network.axis[k].latency for k, links in legs)


def _energy(network: Network, link_bytes: Mapping[int, float]) -> float:
    return math.fsum(nbytes * network.axis_of(link).energy_per_byte for link, nbytes in link_bytes.items())
