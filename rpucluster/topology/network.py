"""The network of a machine: a product of axes, or links written out one by one, less what has failed."""

import difflib
import math
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import groupby
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Strict,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from rpucluster.config import Seconds, Spec
from rpucluster.errors import InputError
from rpucluster.topology.faults import Faults
from rpucluster.topology.graph import Graph, tree, way
from rpucluster.topology.links import Link, Node
from rpucluster.topology.product import Product
from rpucluster.topology.wires import Axis, Connection

Leg = tuple[int, tuple[int, ...]]
"""The part of a way along one axis or connection: its number, and the links in travelling order."""


def _product(data: dict[str, Any]) -> int:
    return math.prod(axis.size for axis in data.get("axis", ()))


class Network(Spec):
    """A product of axes, innermost first, or connections one by one; without any it is a single accelerator."""

    axis: Annotated[tuple[Axis, ...], Strict(False)] = ()
    """One `[[network.axis]]` table each, innermost first."""

    connections: Annotated[tuple[Connection, ...], Strict(False)] = Field((), alias="link")
    """One `[[network.link]]` table each, instead of axes."""

    accelerators: int = Field(default_factory=_product, ge=1)
    """How many there are: the product of the sizes of the axes, or as many as `[[network.link]]` tables need."""

    endpoint_delay: Seconds = Field("0 s", ge=0, lt=math.inf, validate_default=True)
    """What an endpoint takes for each message, and once at the start of a collective, s.  0: it is part of the
    latency of a hop (our assumption, U; ASTRA-sim's systems have 10 ns, the reference runs 1 ns)."""

    tick: Seconds = Field("0 s", ge=0, lt=math.inf, validate_default=True)
    """Serialization times are rounded down to whole multiples of this, s.  0: not at all; 1 ns for comparison with
    simulators that count in whole nanoseconds."""

    chunks: int = Field(1, ge=1)
    """Parts that the payload of a collective is split into, which follow one another through its rounds and axes.  1:
    small messages, which most of a step on RPU accelerators are, only pay more latencies (our choice)."""

    active_chunks: int = Field(1, ge=1)
    """Chunks under way at once on each axis."""

    queue: Literal["arrival", "program"] = "arrival"
    """What is served first where transfers wait for a link: what came first, or what stands first in the program, which
    is the order of the schedule: then a microbatch that is about to leave a stage is not held up by sums of later ones
    that this stage has made already."""

    _faults: Faults = PrivateAttr(default_factory=Faults)

    @field_validator("accelerators")
    @classmethod
    def _are_as_many(cls, value: int, info: ValidationInfo) -> int:
        axes = info.data.get("axis", ())
        if axes and value != _product(info.data):
            raise ValueError(f"{value}, but the axes make {_product(info.data)}; leave it out, or change a size")
        return value

    @model_validator(mode="after")
    def _names_differ(self) -> "Network":
        if self.axis and self.connections:
            raise ValueError("there are axes and links; write [[network.axis]] or [[network.link]], not both")
        for what, names in (
            ("axis name", [axis.name for axis in self.axis]),
            ("link", [link.name for link in (self._layout.links if self.connections else ())]),
        ):
            for name in names:
                if (count := names.count(name)) > 1:
                    raise ValueError(f'{what} "{name}" is used {count} times; name each {what.split()[0]} differently')
        for connection in self.connections:
            for end in (connection.source, connection.target):
                if isinstance(end, int) and end >= self.accelerators:
                    raise ValueError(
                        f"link {connection.name} names accelerator {end}, but there are {self.accelerators}, "
                        f"numbered from 0; raise [network] accelerators"
                    )
        if self.accelerators > 1 and not self.axis and not self.connections:
            raise ValueError(f"{self.accelerators} accelerators, but nothing joins them; write [[network.link]] tables")
        return self

    @model_serializer(mode="wrap")
    def _without_what_follows(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A file that is written for axes must stay right when a size is changed in it."""
        written: dict[str, Any] = handler(self)
        if not self.connections:
            written = {
                key: value for key, value in written.items() if key not in ("accelerators", "link", "connections")
            }
        return written

    def with_faults(self, faults: Faults) -> "Network":
        """The same network with broken and slow links.

        Raises `InputError` for links and accelerators that are not there.
        """
        for accelerator in faults.slowdowns:
            if accelerator >= self.accelerators:
                raise InputError(
                    f"[faults] slow_accelerators names {accelerator}, but there are {self.accelerators}, numbered "
                    f"from 0"
                )
        network = self.model_copy()
        network._faults = faults
        for known in ("_failed", "_slow", "_trees"):
            network.__dict__.pop(known, None)
        for name in faults.of_links:
            network._number_of(name)
        return network

    @cached_property
    def _layout(self) -> Product | Graph:
        return Graph(self.accelerators, self.connections) if self.connections else Product(self.axis)

    @property
    def product(self) -> Product | None:
        """The arithmetic of the axes, where there are axes and nothing is broken or slow."""
        return self._layout if isinstance(self._layout, Product) and not self._faults.of_links else None

    @property
    def wires(self) -> tuple[Axis | Connection, ...]:
        """The axes, or the connections."""
        return self.axis or self.connections

    def coordinates(self, accelerator: int) -> tuple[int, ...]:
        """Where an accelerator sits on each axis, innermost first; its number where there are no axes.

        Raises `InputError` for an accelerator that is not there.
        """
        self._check(accelerator)
        return self._layout.coordinates(accelerator)

    def crossed(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """The axes, by number, along which the members of a group differ."""
        places = [self.coordinates(member) for member in members]
        return tuple(k for k in range(len(self.axis)) if len({place[k] for place in places}) > 1)

    def path(self, source: int, destination: int) -> tuple[int, ...]:
        """The links, by number, from one accelerator to another, in travelling order.

        On a product of axes the way goes axis by axis, innermost first, and on each axis it is a shortest one; of
        two equally short ways round a ring it is the ascending one.  Where a link of that way has failed, or where
        links are written out, it is a way of fewest links, and of several the one whose links come first.  Raises
        `InputError` for an accelerator that is not there and where there is no way.
        """
        self._check(source)
        self._check(destination)
        path = self._layout.path(source, destination) if not (self._failed and self.connections) else None
        if path is None or not self._failed.isdisjoint(path):
            path = way(self._around(source), source, destination)
        return path

    def legs(self, source: int, destination: int) -> tuple[Leg, ...]:
        """The same way, divided where it changes from one axis or connection to another."""
        path = self.path(source, destination)
        return tuple((k, tuple(links)) for k, links in groupby(path, self._layout.wire_number))

    def route(self, source: int, destination: int) -> tuple[Link, ...]:
        """The links from one accelerator to another, in travelling order; see `path`."""
        return tuple(self.link(number) for number in self.path(source, destination))

    def hops(self, source: int, destination: int) -> int:
        """How many links lie between two accelerators."""
        return len(self.path(source, destination))

    @property
    def links(self) -> Iterator[Link]:
        """Every link, in the order of their numbers."""
        return self._layout.links

    def axis_of(self, link: int) -> Axis | Connection:
        """The axis, or the connection, that a link, given by number, belongs to."""
        return self.wires[self._layout.wire_number(link)]

    def wire_numbers(self, links: Collection[int]) -> NDArray[np.int64]:
        """Of many links, which of `wires` each belongs to."""
        return self._layout.wire_numbers(np.fromiter(links, np.int64, len(links)))

    def bandwidth_of(self, link: int) -> float:
        """Bytes of payload per second of a link, given by number: bandwidth times efficiency, less what is slow."""
        rate = self.axis_of(link).rate
        return rate / self._slow.get(link, 1.0) if self._slow else rate

    def bandwidths_of(self, links: Collection[int]) -> NDArray[np.float64]:
        """The same for many links."""
        rates = np.array([wire.rate for wire in self.wires])[self.wire_numbers(links)]
        return rates / [self._slow.get(link, 1.0) for link in links] if self._slow else rates

    def link(self, number: int) -> Link:
        """The link of a number.  Raises `InputError` for a number that names none."""
        return self._layout.link(number)

    def serialization_s(self, nbytes: float, bandwidth: float) -> float:
        """Seconds that so many bytes take at a bandwidth, in whole ticks if the network has them."""
        seconds = nbytes / bandwidth
        # a quotient that rounding left just below a whole number is that number
        return math.floor(seconds / self.tick * (1 + 1e-12)) * self.tick if self.tick else seconds

    @cached_property
    def _failed(self) -> frozenset[int]:
        return frozenset(self._number_of(name) for name in self._faults.failed_links)

    @cached_property
    def _slow(self) -> dict[int, float]:
        return {self._number_of(name): factor for name, factor in self._faults.slow_links.items()}

    @cached_property
    def _trees(self) -> dict[int, dict[Node, tuple[int, Node]]]:
        return {}

    def _around(self, source: int) -> dict[Node, tuple[int, Node]]:
        """Ways from an accelerator to everywhere that avoid what has failed."""
        if source not in self._trees:
            self._trees[source] = tree(source, self._working)
        return self._trees[source]

    def _working(self, node: Node) -> Iterator[tuple[int, Node]]:
        return (leaving for leaving in self._layout.leaving(node) if leaving[0] not in self._failed)

    def _number_of(self, name: str) -> int:
        number = self._layout.number_of(name)
        if number is None:
            raise InputError(f'[faults] there is no link "{name}"; {self._similar(name)}')
        return number

    def _similar(self, name: str) -> str:
        names = [link.name for link, _ in zip(self.links, range(10_000), strict=False)]
        if not names:
            return "this network has no links"
        # what lacks the places on other axes is more likely than a slip
        begun = [known for known in names if known.startswith(f"{name} ")]
        close = begun or difflib.get_close_matches(name, names, n=1)
        return f'did you mean "{close[0]}"?' if close else f'names are such as "{names[0]}"'

    def _check(self, accelerator: int) -> None:
        if not 0 <= accelerator < self.accelerators:
            raise InputError(
                f"accelerator {accelerator} does not exist: the network has {self.accelerators}, numbered "
                f"from 0; raise {'[network] accelerators' if self.connections else 'a [network.axis] size'}"
            )
