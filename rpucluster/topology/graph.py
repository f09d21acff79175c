"""Networks that are written out link by link, and the search for ways where arithmetic knows none."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rpucluster.errors import InputError
from rpucluster.topology.links import Link, Node
from rpucluster.topology.wires import Connection

Leaving = Callable[[Node], Iterable[tuple[int, Node]]]


class Graph:
    """Accelerators and switches joined by connections, one by one; links are numbered in their order."""

    def __init__(self, accelerators: int, connections: tuple[Connection, ...]) -> None:
        self.wires = connections
        self.accelerators = accelerators
        self._ends = [(k, *ends) for k, connection in enumerate(connections) for ends in connection.ends]
        self._trees: dict[int, dict[Node, tuple[int, Node]]] = {}

    def coordinates(self, accelerator: int) -> tuple[int, ...]:
        """There is one axis, as it were, and everybody sits on it."""
        return (accelerator,)

    def path(self, source: int, destination: int) -> tuple[int, ...]:
        """A way of fewest links; of several, the one whose links are written first, from the source on."""
        if source not in self._trees:
            self._trees[source] = tree(source, self.leaving)
        return way(self._trees[source], source, destination)

    def wire_number(self, link: int) -> int:
        """The connection, by number, that a link belongs to."""
        if not 0 <= link < len(self._ends):
            raise InputError(f"link {link} does not exist in this network")
        return self._ends[link][0]

    def wire_numbers(self, links: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for many links that are there."""
        return np.array([wire for wire, _, _ in self._ends], np.int64)[links]

    def link(self, number: int) -> Link:
        """The link of a number.  Raises `InputError` for a number that names none."""
        connection = self.wires[self.wire_number(number)]
        _, source, target = self._ends[number]
        return Link(
            number=number,
            name=connection.link_name(source, target),
            axis=connection,
            source=source if isinstance(source, int) else None,
            target=target if isinstance(target, int) else None,
        )

    @property
    def links(self) -> Iterator[Link]:
        """Every link, in the order of their numbers."""
        return (self.link(number) for number in range(len(self._ends)))

    def number_of(self, name: str) -> int | None:
        """The number of the link of a name, if there is one."""
        return next((link.number for link in self.links if link.name == name), None)

    def leaving(self, node: Node) -> list[tuple[int, Node]]:
        """The links that leave an accelerator or a switch, by number, and where each ends."""
        return self._leaving.get(node, [])

    @cached_property
    def _leaving(self) -> dict[Node, list[tuple[int, Node]]]:
        leaving: dict[Node, list[tuple[int, Node]]] = {}
        for number, (_, source, target) in enumerate(self._ends):
            leaving.setdefault(source, []).append((number, target))
        return leaving


def tree(source: Node, leaving: Leaving) -> dict[Node, tuple[int, Node]]:
    """By which link, and from where, a breadth-first search first reached each place."""
    reached: dict[Node, tuple[int, Node]] = {source: (-1, source)}
    queue = deque([source])
    while queue:
        here = queue.popleft()
        for number, there in leaving(here):
            if there not in reached:
                reached[there] = (number, here)
                queue.append(there)
    return reached


def way(reached: dict[Node, tuple[int, Node]], source: int, destination: int) -> tuple[int, ...]:
    """The links from the root of a `tree` to a place.  Raises `InputError` where there is no way."""
    if destination not in reached:
        raise InputError(
            f"there is no way from accelerator {source} to {destination}; add a [[network.link]], or mend one of "
            f"[faults] failed_links"
        )
    links = []
    at: Node = destination
    while at != source:
        number, at = reached[at]
        links.append(number)
    return tuple(reversed(links))
