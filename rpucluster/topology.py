"""The network between accelerators: a product of axes, its links and its routes.

Accelerators are numbered with the innermost axis varying fastest: with axes of sizes n0, n1, ... the one at
coordinates (c0, c1, ...) is ``c0 + n0 * (c1 + n1 * (...))``.  Links are numbered too, by arithmetic, so that
a network of thousands of accelerators costs nothing until somebody asks for a route.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from rpucluster.config import BytesPerSecond, JoulesPerByte, Seconds, Spec
from rpucluster.errors import InputError

AxisKind = Literal["ring", "fully_connected", "switch", "mesh"]


class Axis(Spec):
    """One axis of the network: `size` accelerators in a row, joined in one way."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")
    """What `--set network.axis.NAME.key=value` and the reports call it; letters, digits, `-` and `_`."""

    kind: AxisKind
    """`ring`, `mesh` (a line without wrap-around), `fully_connected` (a link for each ordered pair) or
    `switch` (one link up to the switch and one down from it per accelerator)."""

    size: int = Field(ge=1)
    """Accelerators along this axis; the network has as many as the product of all sizes."""

    bandwidth: BytesPerSecond = Field(gt=0)
    """Of each link in each direction, B/s; `"inf GB/s"` makes transfers cost their latency alone."""

    latency: Seconds = Field(ge=0, lt=math.inf)
    """Of each hop, s; a way through a switch is two hops."""

    forwarding: Literal["cut_through", "store_and_forward"] = "cut_through"
    """Whether a message flows through intermediate hops, paying its serialization once, or is received whole
    before each next hop, paying it at every one."""

    contention: Literal["fifo", "fair", "none"] = "fifo"
    """`fifo`: transfers that share a link follow one another; `fair`: they share its bandwidth, max-min; `none`: each
    sees the full link, for comparison with simulators that know no contention."""

    energy_per_byte: JoulesPerByte = Field(default="40 pJ/B", ge=0, lt=math.inf, validate_default=True)
    """For each byte on each link, J/B.  The paper says nothing of links (U); 5 pJ per bit is the order of
    magnitude of a serial link on a board and our assumption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One direction of one connection; `source` or `target` is None where that end is a switch."""

    number: int
    name: str
    """For people: axis, coordinates along it and, in brackets, the coordinates on the other axes."""
    axis: Axis
    source: int | None
    target: int | None


Leg = tuple[int, tuple[int, ...]]
"""The part of a route along one axis: the number of the axis, and the links in travelling order."""


class Network(Spec):
    """A product of axes, innermost first; without any axis it is a single accelerator."""

    axis: Annotated[tuple[Axis, ...], Strict(False)] = ()
    """One `[[network.axis]]` table each, innermost first."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Network":
        names = [axis.name for axis in self.axis]
        for name in names:
            if (count := names.count(name)) > 1:
                raise ValueError(f'axis name "{name}" is used {count} times; name each axis differently')
        return self

    @cached_property
    def accelerators(self) -> int:
        """How many accelerators the network joins."""
        return math.prod(axis.size for axis in self.axis)

    @cached_property
    def _strides(self) -> tuple[int, ...]:
        """What one step along each axis adds to an accelerator's number."""
        return tuple(math.prod(axis.size for axis in self.axis[:k]) for k in range(len(self.axis)))

    @cached_property
    def _first_links(self) -> tuple[int, ...]:
        """The link number with which each axis begins.

        An accelerator owns as many numbers as its axis may need of them: ring and mesh two (ascending,
        descending), switch two (up, down), fully connected one per coordinate.  Some name no link.
        """
        firsts, following = [], 0
        for axis in self.axis:
            firsts.append(following)
            following += self.accelerators * _numbers(axis)
        return tuple(firsts)

    def coordinates(self, accelerator: int) -> tuple[int, ...]:
        """Where an accelerator sits on each axis, innermost first.

        Raises `InputError` for an accelerator that is not there.
        """
        self._check(accelerator)
        return tuple(accelerator // stride % axis.size for axis, stride in zip(self.axis, self._strides, strict=True))

    def crossed(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """The axes, by number, along which the members of a group differ."""
        places = [self.coordinates(member) for member in members]
        return tuple(k for k in range(len(self.axis)) if len({place[k] for place in places}) > 1)

    def legs(self, source: int, destination: int) -> tuple[Leg, ...]:
        """The way from one accelerator to another, axis by axis, innermost first.

        On each axis the way is a shortest one; of two equally short ways round a ring it is the ascending
        one.  Raises `InputError` for an accelerator that is not there.
        """
        here = self.coordinates(source)
        there = self.coordinates(destination)
        legs: list[Leg] = []
        at = source
        for k, (axis, stride) in enumerate(zip(self.axis, self._strides, strict=True)):
            if here[k] == there[k]:
                continue
            target = at + (there[k] - here[k]) * stride
            links: tuple[int, ...]
            first = self._first_links[k]
            if axis.kind == "switch":
                links = (first + 2 * at, first + 2 * target + 1)
            elif axis.kind == "fully_connected":
                links = (first + at * axis.size + there[k],)
            else:
                base = at - here[k] * stride
                links = tuple(first + 2 * (base + c * stride) + down for c, down in _walk(axis, here[k], there[k]))
            legs.append((k, links))
            at = target
        return tuple(legs)

    def route(self, source: int, destination: int) -> tuple[Link, ...]:
        """The links from one accelerator to another, in travelling order; see `legs`."""
        return tuple(self.link(number) for _, links in self.legs(source, destination) for number in links)

    def hops(self, source: int, destination: int) -> int:
        """How many links lie between two accelerators."""
        return sum(len(links) for _, links in self.legs(source, destination))

    @property
    def links(self) -> Iterator[Link]:
        """Every link, in the order of their numbers."""
        for k, axis in enumerate(self.axis):
            numbers = _numbers(axis)
            for i in range(self.accelerators * numbers):
                if _is_link(axis, i // numbers // self._strides[k] % axis.size, i % numbers):
                    yield self.link(self._first_links[k] + i)

    def axis_of(self, link: int) -> Axis:
        """The axis that a link, given by number, belongs to."""
        return self.axis[self._axis_number(link)]

    def link(self, number: int) -> Link:
        """The link of a number.  Raises `InputError` for a number that names none."""
        k = self._axis_number(number)
        axis, stride = self.axis[k], self._strides[k]
        owner, slot = divmod(number - self._first_links[k], _numbers(axis))
        place = self.coordinates(owner)
        if not _is_link(axis, place[k], slot):
            raise InputError(f"link {number} does not exist on axis {axis.name}")
        rest = ", ".join(f"{a.name}={c}" for a, c in zip(self.axis, place, strict=True) if a is not axis)
        source, target = self._ends(axis, stride, owner, place[k], slot)
        ends = ["switch" if end is None else str(end // stride % axis.size) for end in (source, target)]
        name = f"{axis.name}:{ends[0]}->{ends[1]}" + (f" ({rest})" if rest else "")
        return Link(number=number, name=name, axis=axis, source=source, target=target)

    @staticmethod
    def _ends(axis: Axis, stride: int, owner: int, place: int, slot: int) -> tuple[int | None, int | None]:
        if axis.kind == "switch":
            return (owner, None) if slot == 0 else (None, owner)
        if axis.kind == "fully_connected":
            return owner, owner + (slot - place) * stride
        step = -1 if slot else 1
        return owner, owner + ((place + step) % axis.size - place) * stride

    def _axis_number(self, link: int) -> int:
        for k in reversed(range(len(self.axis))):
            if link >= self._first_links[k]:
                if link < self._first_links[k] + self.accelerators * _numbers(self.axis[k]):
                    return k
                break
        raise InputError(f"link {link} does not exist in this network")

    def _check(self, accelerator: int) -> None:
        if not 0 <= accelerator < self.accelerators:
            raise InputError(
                f"accelerator {accelerator} does not exist: the network has {self.accelerators}, numbered "
                f"from 0; raise a [network.axis] size"
            )


def _numbers(axis: Axis) -> int:
    """Link numbers that each accelerator owns on an axis."""
    return axis.size if axis.kind == "fully_connected" else 2


def _is_link(axis: Axis, place: int, slot: int) -> bool:
    """Whether the accelerator at `place` of the axis has the link that its number `slot` would name."""
    if axis.size == 1:
        return False
    if axis.kind == "fully_connected":
        return slot != place
    if axis.kind == "switch" or (axis.kind == "ring" and axis.size > 2):
        return True
    # a ring of two is one connection, not two side by side, and thus the same as a mesh of two
    return place < axis.size - 1 if slot == 0 else place > 0


def _walk(axis: Axis, here: int, there: int) -> Iterator[tuple[int, int]]:
    """The coordinates that a message leaves on its way along a ring or mesh, and whether downwards."""
    n = axis.size
    if axis.kind == "ring":
        up = (there - here) % n
        down = int(up > n - up or (n == 2 and here > there))
        distance = n - up if down else up
    else:
        down, distance = int(there < here), abs(there - here)
    step = -1 if down else 1
    return (((here + step * i) % n, down) for i in range(distance))
