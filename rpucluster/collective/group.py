"""Who takes part, and how they lie on the axes of the network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rpucluster.errors import InputError
from rpucluster.topology import Network


@dataclass(frozen=True, kw_only=True)
class Group:
    """The members of a collective; where they make a product of places on axes, the lines along each axis."""

    members: tuple[int, ...]
    network: Network

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """The axes, by number, along which the members differ, innermost first.

        Empty where the members are not all the combinations of their places on these axes, the innermost varying
        fastest, or where links are written out.
        """
        return tuple(self._places)

    @property
    def places(self) -> tuple[tuple[int, ...], ...]:
        """The coordinates that occur on each of `axes`."""
        return tuple(self._places.values())

    @property
    def shape(self) -> tuple[int, ...]:
        """How many members there are along each of `axes`."""
        return tuple(len(places) for places in self._places.values())

    @cached_property
    def _places(self) -> dict[int, tuple[int, ...]]:
        members = np.asarray(self.members)
        found: dict[int, tuple[int, ...]] = {}
        rebuilt = np.full(1, members[0])
        stride = 1
        for k, axis in enumerate(self.network.axis):
            coordinates = members // stride % axis.size
            inner = len(rebuilt)
            count = len(np.unique(coordinates))
            if count > 1:
                places = coordinates[: inner * count : inner]
                rebuilt = (rebuilt + ((places - coordinates[0]) * stride)[:, None]).reshape(-1)
                found[k] = tuple(places.tolist())
            stride *= axis.size
        return found if len(rebuilt) == len(members) and np.array_equal(rebuilt, members) else {}

    def lines(self, level: int) -> list[tuple[int, ...]]:
        """The members along the `level`-th of `axes`, for each combination of places on the others, as indices."""
        inner = math.prod(self.shape[:level])
        length = self.shape[level]
        block = inner * length
        return [
            tuple(range(base + offset, base + offset + block, inner))
            for base in range(0, len(self.members), block)
            for offset in range(inner)
        ]


def group(members: Sequence[int], network: Network) -> Group:
    """The members of a collective.  Raises `InputError` for members that are named twice, or not there."""
    members = tuple(members)
    if len(set(members)) != len(members) or not members:
        raise InputError(f"members {list(members)}: name each member once, and at least one")
    for end in (min(members), max(members)):
        network.coordinates(end)
    return Group(members=members, network=network)
