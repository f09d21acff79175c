"""What transfers ask of links, with links that always serve together taken as one.

A collective of a large group holds as many links as its members have pairs, but nearly always all or none of a set of
them are taken: those that the same prices hold, for the same times, are one link to the replay, with the same results.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.collective import CollectiveCost
from rpucluster.topology import Network

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class LinkDemands(NamedTuple):
    """Columns of `rpucluster.timeline.state.Demands`, and the bandwidth of each link."""

    hold_first: Ints
    hold_link: Ints
    hold_begin: Floats
    hold_end: Floats
    share_first: Ints
    share_link: Ints
    share_rate: Floats
    top_rate: Floats
    capacity: Floats


def demands_on_links(sendings: Sequence[CollectiveCost | None], network: Network) -> LinkDemands:
    """Of each price, which links it holds and when (``contention = "fifo"``), and which it shares at what rate
    (``"fair"``)."""
    used = [_used(sending) for sending in sendings]
    firsts = np.cumsum([0, *(len(links) for links, *_ in used)])
    numbers, begin, end, rate = (_joined([each[k] for each in used]) for k in range(4))
    price = np.repeat(np.arange(len(used)), np.diff(firsts))
    links, place = np.unique(numbers.astype(np.int64), return_inverse=True)
    numbered = links.tolist()
    kinds = np.array([wire.contention for wire in network.wires], dtype="U4")
    contention = kinds[network.wire_numbers(numbered)]
    capacity = network.bandwidths_of(numbered)
    fifo, fair = contention[place] == "fifo", contention[place] == "fair"
    # the same sum for links that the same prices hold at the same times, or share at the same rates: which links are
    # one is decided by these 64 bits, and among a million links two others agree with a chance of 1 in 10^7
    mark = np.where(fair, _mixed(price, rate, rate), _mixed(price, begin, end))
    sums = np.where(contention == "fair", _bits(capacity), np.uint64(0))
    np.add.at(sums, place, mark)
    _, example, kind = np.unique(sums, return_index=True, return_inverse=True)
    # of each price, one of every set of links
    one = np.unique(price * len(example) + kind[place], return_index=True)[1]
    held, shared = one[fifo[one] & (end > begin)[one]], one[fair[one]]
    counts = len(used)
    top = np.zeros(counts)
    np.maximum.at(top, price[shared], rate[shared])
    return LinkDemands(
        hold_first=_firsts(price[held], counts),
        hold_link=kind[place[held]],
        hold_begin=begin[held],
        hold_end=end[held],
        share_first=_firsts(price[shared], counts),
        share_link=kind[place[shared]],
        share_rate=rate[shared],
        top_rate=top,
        capacity=capacity[example],
    )


def _used(sending: CollectiveCost | None) -> tuple[Sequence[float] | Floats, ...]:
    """Links, when a transfer is on them, and bytes per second that it puts on them at full speed."""
    if sending is None or sending.modelled_s == 0:
        return (), (), (), ()
    nbytes = sending.link_bytes
    count = len(nbytes)
    carried = np.fromiter(nbytes.values(), np.float64, count)
    rate = carried / sending.transfer_s if sending.transfer_s > 0 else np.zeros(count)
    if sending.passing is None:
        return np.fromiter(nbytes, np.float64, count), np.zeros(count), np.full(count, sending.modelled_s), rate
    held = {hold.link: hold for hold in sending.passing}
    times = [(held[link].begin, held[link].end) if link in held else (0.0, 0.0) for link in nbytes]
    return list(nbytes), [begin for begin, _ in times], [end for _, end in times], rate


def _joined(parts: Sequence[Sequence[float] | Floats]) -> Floats:
    return np.concatenate([np.asarray(part, np.float64) for part in parts]) if parts else np.empty(0)


def _firsts(price: Ints, counts: int) -> Ints:
    return np.concatenate(([0], np.cumsum(np.bincount(price, minlength=counts)))).astype(np.int64)


def _bits(values: Floats) -> NDArray[np.uint64]:
    return np.ascontiguousarray(values, np.float64).view(np.uint64)


def _mixed(price: Ints, first: Floats, second: Floats) -> NDArray[np.uint64]:
    """64 bits of three numbers, by the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    bits = price.astype(np.uint64)
    for value in (first, second):
        bits = (bits + np.uint64(0x9E3779B97F4A7C15)) ^ _bits(value)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits = bits ^ (bits >> np.uint64(31))
    return bits
