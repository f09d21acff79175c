"""The price of a round of many messages at once, where ways are arithmetic; the same as `routed` has it one by one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.topology import Axis, Network
from rpucluster.topology.product import Product

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class ManyPrices(NamedTuple):
    """What a round costs and where."""

    seconds: float
    latency_s: float
    busiest: int | None
    """The link with contention that takes longest, by number."""
    busiest_s: float


class _Leg(NamedTuple):
    """The ways of all messages along one axis."""

    axis: Axis
    hops: Ints  # (messages,)
    links: Ints  # (hops of all messages,), message by message


def price(network: Network, layout: Product, source: Ints, target: Ints, nbytes: Floats) -> ManyPrices:
    """What a round of messages costs; see `routed`."""
    latency, stored, flowing, wait = (np.zeros(len(source)) for _ in range(4))
    busiest, busiest_s = None, 0.0
    for leg in _legs(layout, source, target):
        axis, moving = leg.axis, leg.hops > 0
        latency += leg.hops * axis.latency
        own = nbytes / axis.rate
        if network.tick:
            own = np.floor(own / network.tick * (1 + 1e-12)) * network.tick
        if axis.forwarding == "store_and_forward":
            stored += np.where(moving, flowing + leg.hops * own, 0.0)
            flowing[moving] = 0.0
        else:
            flowing = np.where(moving, np.maximum(flowing, own), flowing)
        if axis.contention != "none" and moving.any():
            numbers, place = np.unique(leg.links, return_inverse=True)
            loads = np.bincount(place, weights=np.repeat(nbytes, leg.hops))
            firsts = (np.cumsum(leg.hops) - leg.hops)[moving]
            most = np.maximum.reduceat(loads[place], firsts)  # of the links that each message passes
            wait[moving] = np.maximum(wait[moving], (most - nbytes[moving]) / axis.rate)
            if loads.max() / axis.rate > busiest_s:
                busiest, busiest_s = int(numbers[loads.argmax()]), float(loads.max() / axis.rate)
    seconds = latency + stored + flowing + wait
    return ManyPrices(float(seconds.max(initial=0.0)), float(latency.max(initial=0.0)), busiest, busiest_s)


def _legs(layout: Product, source: Ints, target: Ints) -> list[_Leg]:
    legs = []
    at = source
    for axis, stride, first in zip(layout.wires, layout.strides, layout.first_links, strict=True):
        n = axis.size
        here, there = source // stride % n, target // stride % n
        after = at + (there - here) * stride
        moving = (here != there).astype(np.int64)
        if axis.kind == "switch":
            both = np.stack([first + 2 * at, first + 2 * after + 1], axis=1)  # (messages, 2)
            legs.append(_Leg(axis, 2 * moving, both[moving == 1].reshape(-1)))
        elif axis.kind == "fully_connected":
            legs.append(_Leg(axis, moving, (first + at * n + there)[moving == 1]))
        else:
            up = (there - here) % n if axis.kind == "ring" else there - here
            # the ascending way of two equally long ones; a ring of two has one connection
            down = (2 * up > n) | ((n == 2) & (here > there)) if axis.kind == "ring" else up < 0
            hops = np.where(down, (here - there) % n if axis.kind == "ring" else here - there, up)
            step = np.repeat(np.where(down, -1, 1), hops)
            nth = np.arange(hops.sum()) - np.repeat(np.cumsum(hops) - hops, hops)
            place = (np.repeat(here, hops) + step * nth) % n
            base = np.repeat(at - here * stride, hops)
            legs.append(_Leg(axis, hops, first + 2 * (base + place * stride) + np.repeat(down, hops)))
        at = after
    return legs
