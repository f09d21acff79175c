"""What a collective or a send costs on the links of a network."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from rpucluster.collective import symmetric
from rpucluster.collective.group import Group, group
from rpucluster.collective.moves import ALGORITHMS, Algorithm, CollectiveKind, legal
from rpucluster.collective.pipeline import Course, makespan_s
from rpucluster.collective.rounds import Round
from rpucluster.collective.routed import Routes
from rpucluster.collective.stages import Stage, prepared, stages
from rpucluster.collective.traffic import link_bytes
from rpucluster.errors import InputError
from rpucluster.topology import Network

Chosen = Algorithm | Literal["auto"]

_MOST_FLAT = 32
"""Members of a group over several axes, or off its axes, up to which `auto` tries every flat algorithm."""
_NATURAL: Mapping[str, Algorithm] = {
    "ring": "ring",
    "mesh": "ring",
    "fully_connected": "direct",
    "switch": "halving_doubling",
}


class Hold(NamedTuple):
    """A link, by number, that is taken from `begin` until `end`, seconds after the operation starts."""

    link: int
    begin: float
    end: float


@dataclass(frozen=True, kw_only=True)
class CollectiveCost:
    """What one collective or one send costs when nothing else is on its links."""

    modelled_s: float
    latency_s: float
    """What of it would remain with endless bandwidth."""
    steps: int
    """Rounds in which anything was sent, of each chunk."""
    algorithm: str
    """`send`, or the algorithm: for a hierarchical collective one per axis, innermost first, with commas."""
    network: Network = field(repr=False)
    traffic: Callable[[], Mapping[int, float]] = field(default=dict, repr=False)
    """Makes `link_bytes`, when somebody asks: a large collective has many links."""
    passing: tuple[Hold, ...] | None = field(default=None, repr=False)
    """When it is on which link; None for on all of its links from start to end."""

    @property
    def transfer_s(self) -> float:
        """The rest: what the bandwidth of the links makes of it."""
        return self.modelled_s - self.latency_s

    @cached_property
    def link_bytes(self) -> Mapping[int, float]:
        """Bytes on each link, by the number of the link."""
        return self.traffic()

    @cached_property
    def energy_J(self) -> float:
        """Of the links."""
        carried = np.fromiter(self.link_bytes.values(), np.float64, len(self.link_bytes))
        per_byte = np.array([wire.energy_per_byte for wire in self.network.wires])
        return float((carried * per_byte[self.network.wire_numbers(self.link_bytes)]).sum())

    @cached_property
    def holds(self) -> tuple[Hold, ...]:
        """The links that no other transfer may use meanwhile: those with contention = "fifo"."""
        if self.passing is not None:
            return self.passing
        if self.modelled_s <= 0:
            return ()
        fifo = [wire.contention == "fifo" for wire in self.network.wires]
        numbers = self.network.wire_numbers(self.link_bytes).tolist()
        links = (link for link, wire in zip(self.link_bytes, numbers, strict=True) if fifo[wire])
        return tuple(Hold(link, 0.0, self.modelled_s) for link in links)


def cost(
    kind: CollectiveKind,
    members: Sequence[int],
    bytes_per_member: Sequence[float],
    network: Network,
    algorithm: Chosen | Sequence[Chosen] = "auto",
    *,
    chunks: int = 1,
    active_chunks: int = 1,
) -> CollectiveCost:
    """What a collective among `members` costs.

    `bytes_per_member[i]` is what member i contributes: its block of an all-gather (blocks may be uneven, and empty),
    or the whole buffer otherwise (the same for all; a broadcast is the first member's).  A single member, or no
    bytes, costs nothing.

    A group that is a product of places on several axes, its innermost varying fastest, takes one algorithm per axis
    that it spans, innermost first, and goes hierarchically (see `stages`); a single name runs a flat collective over
    the whole group, over the real routes.  `auto` takes the cheapest of all that are able, the suiting one of the
    axis where several cost the same.  (It leaves out what takes long to price: flat algorithms of more than 32 members
    over several axes, and those but the ring of more than 32 on part of a ring, on a mesh, on written-out links and
    around failures, and trees on a ring.)

    The payload is split in `chunks`, of which `active_chunks` may be under way on an axis at once (see `pipeline`).
    The closed forms stand in `symmetric`.  Raises `InputError`.
    """
    found = group(members, network)
    blocks = _checked(kind, found, bytes_per_member, chunks, active_chunks)
    if len(found.members) == 1 or max(blocks) == 0:
        names = (algorithm,) if isinstance(algorithm, str) else algorithm
        named = ",".join("ring" if name == "auto" else name for name in names)
        return CollectiveCost(modelled_s=0.0, latency_s=0.0, steps=0, algorithm=named, network=network)
    pricing = _Pricing(kind, found, blocks, chunks, active_chunks)
    best: CollectiveCost | None = None
    for candidate in _candidates(kind, found, blocks, algorithm):
        price = pricing.price(candidate)
        if best is None or price.modelled_s < best.modelled_s * (1 - 1e-12):
            best = price
    assert best is not None  # every kind has an algorithm for any number of members
    return best


class _Pricing:
    """Prices of one collective by different algorithms, which share stages."""

    def __init__(
        self, kind: CollectiveKind, found: Group, blocks: Sequence[float], chunks: int, active_chunks: int
    ) -> None:
        self.kind, self.found, self.blocks = kind, found, blocks
        self.chunks, self.active_chunks = chunks, active_chunks
        self.routes = Routes(found.network)
        self.rounds: dict[Stage, list[Round]] = {}

    def price(self, algorithms: Sequence[Algorithm]) -> CollectiveCost:
        """What the collective costs by these algorithms."""
        parts = stages(self.kind, self.found, [size / self.chunks for size in self.blocks], algorithms)
        courses = [Course(stage.level, stage.back, tuple(self._rounds(stage))) for stage in parts]
        seconds, latency = makespan_s(
            courses,
            self.chunks,
            self.active_chunks,
            self.found.network.endpoint_delay,
            alternating=self.kind != "all_reduce",
        )
        return CollectiveCost(
            modelled_s=seconds,
            latency_s=min(latency, seconds),
            steps=sum(each.repeats for course in courses for each in course.rounds),
            algorithm=",".join(algorithms),
            network=self.found.network,
            traffic=partial(link_bytes, stages(self.kind, self.found, self.blocks, algorithms), self.found),
        )

    def _rounds(self, stage: Stage) -> list[Round]:
        # the way back of an all-reduce differs from no other all-gather
        key = stage._replace(back=False)
        if key not in self.rounds:
            self.rounds[key] = prepared(stage, self.found, self.routes)
        return self.rounds[key]


def _checked(
    kind: CollectiveKind, found: Group, bytes_per_member: Sequence[float], chunks: int, active_chunks: int
) -> tuple[float, ...]:
    n, blocks = len(found.members), tuple(bytes_per_member)
    if len(blocks) != n or not all(0 <= size < math.inf for size in blocks):
        raise InputError(f"{kind} of {list(blocks)} bytes: give a size of 0 or more to each of {n}")
    if kind != "all_gather" and min(blocks) != max(blocks):
        raise InputError(f"{kind} of {list(blocks)} bytes: every member must give the same")
    if chunks < 1 or active_chunks < 1:
        raise InputError(f"{chunks} chunks, {active_chunks} of them active: both must be 1 or more")
    return blocks


def _candidates(
    kind: CollectiveKind, found: Group, blocks: Sequence[float], algorithm: Chosen | Sequence[Chosen]
) -> Iterator[tuple[Algorithm, ...]]:
    names: tuple[Chosen, ...] = (algorithm,) if isinstance(algorithm, str) else tuple(algorithm)
    axes = len(found.axes)
    if len(names) > 1 and len(names) != axes:
        raise InputError(
            f"{len(names)} algorithms ({', '.join(names)}) for a group over {axes or 'no whole'} axes; write one for "
            f"each axis that it spans, innermost first, or a single one for the whole group"
        )
    even = min(blocks) == max(blocks)
    if names == ("auto",) and axes > 1 and even:
        yield from product(*(_along(kind, found, level) for level in range(axes)))
    elif len(names) > 1:
        if not even:
            raise InputError(f"a hierarchical {kind} needs equal blocks, not {list(blocks)}; name a single algorithm")
        yield from product(
            *(_along(kind, found, level) if name == "auto" else (name,) for level, name in enumerate(names))
        )
        return
    if names != ("auto",):
        yield names  # type: ignore[misc]
    elif axes == 1 and even:
        yield from ((name,) for name in _along(kind, found, 0))
    elif len(found.members) <= _MOST_FLAT:
        yield from ((name,) for name in legal(kind, len(found.members)))
    elif axes < 2 or not even:
        yield ("ring",)


def _along(kind: CollectiveKind, found: Group, level: int) -> tuple[Algorithm, ...]:
    """The algorithms to try along an axis, the one that suits it first."""
    axis, places = found.network.axis[found.axes[level]], found.places[level]
    # an all-reduce divides the buffer on its way to the last axis, which a tree does not
    divides = kind == "all_reduce" and level < len(found.axes) - 1
    able = legal("reduce_scatter" if divides else kind, len(places))
    quick = found.network.product is not None
    if (len(places) if quick else len(found.members)) > _MOST_FLAT:
        able = tuple(
            name for name in able
            if name == "ring" or (quick and symmetric.form_of(kind, name, axis, places))
        )  # fmt: skip
    suiting = _NATURAL[axis.kind]
    return tuple(sorted(able, key=lambda name: (name != suiting, ALGORITHMS.index(name))))


def send_cost(source: int, destination: int, nbytes: float, network: Network) -> CollectiveCost:
    """What one transfer costs: hops times latency plus the serialization, and the delay of an endpoint.

    Serialization is paid once on a way of cut-through hops, at the narrowest of them, and at every store-and-forward
    hop.  A link is held only while the message passes over it.  To itself, or without bytes, an accelerator sends
    for nothing.  Raises `InputError` for an accelerator that is not there and where there is no way.
    """
    path = network.path(source, destination) if nbytes > 0 else ()
    holds: list[Hold] = []
    # when the first byte reaches the next link, how long the rest follows it, and what of it is latency
    head = latency = network.endpoint_delay if path else 0.0
    flowing = 0.0
    for link in path:
        wire = network.axis_of(link)
        on_link = network.serialization_s(nbytes, network.bandwidth_of(link))
        stores = wire.forwarding == "store_and_forward"
        if stores:
            head, flowing = head + flowing, 0.0
        if wire.contention == "fifo" and on_link > 0:
            holds.append(Hold(link, head, head + on_link))
        head += wire.latency + (on_link if stores else 0.0)
        latency += wire.latency
        flowing = 0.0 if stores else max(flowing, on_link)
    return CollectiveCost(
        modelled_s=head + flowing,
        latency_s=latency,
        steps=1 if path else 0,
        algorithm="send",
        network=network,
        traffic=partial(_on_each, path, nbytes),
        passing=tuple(holds),
    )


def _on_each(path: tuple[int, ...], nbytes: float) -> dict[int, float]:
    return dict.fromkeys(path, nbytes)
