"""What transfers of a plan take at least on a network, wherever in the plan they are: `Routes`."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpucluster.collective import CollectiveCost, cost, send_cost
from rpucluster.collective.group import group
from rpucluster.search.pieces import Shared
from rpucluster.topology import Network

Floats = NDArray[np.float64]


class Spent(NamedTuple):
    """What a transfer takes."""

    seconds: float
    joules: float
    load: Floats
    """For how long it keeps one link of the accelerator on each axis, seconds by axis."""


class Routes:
    """Prices of transfers, each kind once.

    Groups that lie alike have the same price: on switches and between pairs it does not matter which places they take.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._nothing = Spent(0.0, 0.0, np.zeros(len(network.axis)))
        self._lies = cache(self._lies_on)
        self._prices: dict[object, CollectiveCost] = {}
        self._spent: dict[object, Spent] = {}
        self.boundaries = cache(self._boundaries)

    def whole(self, strides: Sequence[int]) -> bool:
        """Whether groups with these strides, each a multiple of the one before, lie alike wherever they begin."""
        if self._network.product is None:
            return False
        edges = sorted({*strides, *self._network.product.strides})
        return all(high % low == 0 for low, high in pairwise(edges))

    def collective(self, shared: Shared, stride: int, at: int) -> Spent:
        """One among members so many numbers apart; load on the links of the member that stands at index `at`."""
        first = shared.members[0]
        places = tuple((member - first) * stride for member in shared.members)
        # an even contribution is told by one number
        even = min(shared.nbytes) == max(shared.nbytes)
        amounts = shared.nbytes[:1] if even else shared.nbytes
        key = (shared.kind, self._lies(places), amounts)
        if (key, at) not in self._spent:
            network = self._network
            if key not in self._prices:
                self._prices[key] = cost(
                    shared.kind, places, shared.nbytes, network,
                    chunks=network.chunks, active_chunks=network.active_chunks,
                )  # fmt: skip
            found = self._prices[key]
            self._spent[key, at] = Spent(found.modelled_s, found.energy_J, self._load(found, places[at], held=True))
        return self._spent[key, at]

    def _load(self, found: CollectiveCost, accelerator: int, *, held: bool) -> Floats:
        load, carried = np.zeros(len(self._network.axis)), found.link_bytes
        for k, axis in enumerate(self._network.axis):
            link = self._own(k, accelerator)
            nbytes = carried.get(link, 0.0)
            if nbytes and axis.contention != "none":
                keeps = found.modelled_s if held and axis.contention == "fifo" else 0.0
                load[k] = keeps or self._network.serialization_s(nbytes, axis.rate)
        return load

    def _own(self, k: int, accelerator: int) -> int:
        """One link that leaves an accelerator on an axis: to the switch, or to the next place."""
        layout = self._network.product
        assert layout is not None
        axis, stride = layout.wires[k], layout.strides[k]
        if axis.kind == "fully_connected":
            return layout.first_links[k] + accelerator * axis.size + (accelerator // stride + 1) % axis.size
        return layout.first_links[k] + 2 * accelerator

    def _lies_on(self, places: tuple[int, ...]) -> object:
        found = group(places, self._network)
        axes = [self._network.axis[k] for k in found.axes]
        if not axes:
            return places
        return tuple(
            (k, len(at) if axis.kind in ("switch", "fully_connected") else at)
            for k, axis, at in zip(found.axes, axes, found.places, strict=True)
        )

    def _boundaries(self, stages: int, stride: int) -> tuple[NDArray[np.int64], tuple[tuple[int, int], ...]]:
        """Of the ways from each stage to the next, and from the last to the first, which class each is of, and an
        example of each class: two accelerators."""
        at = np.arange(stages) * stride
        to = np.roll(at, -1)
        keys, inner = [], 1
        for axis in self._network.axis:
            here, there = at // inner % axis.size, to // inner % axis.size
            far = there - here if axis.kind == "mesh" else (there - here) % axis.size
            keys.append((here != there).astype(np.int64) if axis.kind in ("switch", "fully_connected") else far)
            inner *= axis.size
        _, example, of = np.unique(
            np.array(keys).reshape(len(keys), stages), axis=1, return_index=True, return_inverse=True
        )
        return of.reshape(-1), tuple((int(at[i]), int(to[i])) for i in example)

    def send(self, ends: tuple[int, int], nbytes: float) -> Spent:
        """One from an accelerator to another."""
        if nbytes == 0:
            return self._nothing
        key = (ends, nbytes)
        if key not in self._spent:
            found = send_cost(*ends, nbytes, self._network)
            self._spent[key] = Spent(found.modelled_s, found.energy_J, self._load(found, ends[0], held=False))
        return self._spent[key]
