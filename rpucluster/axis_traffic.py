"""Which axis of the network carries which kind of parallelism, and how much: `axis_traffic`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from rpucluster.collective import CollectiveCost
from rpucluster.program import Collective, Send
from rpucluster.topology import Network

PARALLELISMS: Final = ("tensor", "pipeline", "data", "expert")


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisUse:
    """What one axis, or one written-out connection, carried in a step."""

    axis: str
    kind: str | None
    """None for a connection."""
    size: int | None
    bytes: Mapping[str, float]
    """By the parallelism that asks for it, as far as any does; summed over the links, so a message counts once for each
    hop."""
    busiest_bytes: float
    """Of the link that carries most."""
    utilisation: float
    """The share of the step in which the busiest link is sending; above 1 only without contention."""


def parallelism_of(op: Collective | Send) -> str:
    """Which kind of parallelism asks for a transfer."""
    if isinstance(op, Send):
        return "pipeline"
    match op.payload:
        case "factors" | "gradient" | "weights":
            return "data"
        case "tokens" | "token_errors":
            return "expert"
        case _:
            return "tensor"


def axis_traffic(
    transfers: Iterable[tuple[str, CollectiveCost, float, float]], network: Network, modelled_s: float
) -> tuple[AxisUse, ...]:
    """Sum transfers up by axis, innermost first; those that carry nothing are there as well.

    Of each transfer: the parallelism that asks for it, what it puts on links, how often it happens on the whole
    machine, and how often on these very links.
    """
    wires = network.wires
    total = {name: np.zeros(len(wires)) for name in PARALLELISMS}
    by_link: dict[int, float] = {}
    for parallelism, sending, everywhere, here in transfers:
        nbytes = sending.link_bytes
        carried = np.fromiter(nbytes.values(), np.float64, len(nbytes))
        total[parallelism] += everywhere * np.bincount(network.wire_numbers(nbytes), carried, len(wires))
        for link, each in nbytes.items():
            by_link[link] = by_link.get(link, 0.0) + here * each
    links = np.fromiter(by_link, np.int64, len(by_link))
    at = network.wire_numbers(by_link)
    load = np.fromiter(by_link.values(), np.float64, len(by_link))
    busy = load / network.bandwidths_of(links.tolist())
    most, longest = np.zeros(len(wires)), np.zeros(len(wires))
    np.maximum.at(most, at, load)
    np.maximum.at(longest, at, busy)
    return tuple(
        AxisUse(
            axis=wire.name,
            kind=getattr(wire, "kind", None),
            size=getattr(wire, "size", None),
            bytes={name: float(sums[i]) for name, sums in total.items() if sums[i]},
            busiest_bytes=float(most[i]),
            utilisation=float(longest[i] / modelled_s) if modelled_s else 0.0,
        )
        for i, wire in enumerate(wires)
    )
