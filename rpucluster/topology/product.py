"""Numbers, links and ways of a product of axes, all by arithmetic.

Accelerators are numbered with the innermost axis varying fastest: with axes of sizes n0, n1, ... the one at
coordinates (c0, c1, ...) is ``c0 + n0 * (c1 + n1 * (...))``.  Links are numbered too, so that a network of
thousands of accelerators costs nothing until somebody asks for a route.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rpucluster.errors import InputError
from rpucluster.topology.links import Link, Node
from rpucluster.topology.wires import Axis

_NAME = re.compile(r"(?P<axis>[^:]+):(?P<source>switch|\d+)->(?P<target>switch|\d+)(?: \((?P<rest>.*)\))?")


class Product:
    """A product of axes, innermost first."""

    def __init__(self, axes: tuple[Axis, ...]) -> None:
        self.wires = axes
        self.accelerators = math.prod(axis.size for axis in axes)
        self.strides = tuple(math.prod(axis.size for axis in axes[:k]) for k in range(len(axes)))
        """What one step along each axis adds to an accelerator's number."""
        # An accelerator owns as many numbers as its axis may need of them: ring and mesh two (ascending,
        # descending), switch two (up, down), fully connected one per coordinate.  Some name no link.
        firsts, following = [], 0
        for axis in axes:
            firsts.append(following)
            following += self.accelerators * _numbers(axis)
        self.first_links = tuple(firsts)
        """The link number with which each axis begins."""
        self._after_last = following

    def coordinates(self, accelerator: int) -> tuple[int, ...]:
        """Where an accelerator sits on each axis, innermost first."""
        return tuple(accelerator // stride % axis.size for axis, stride in zip(self.wires, self.strides, strict=True))

    def path(self, source: int, destination: int) -> tuple[int, ...]:
        """Axis by axis, innermost first, a shortest way; of two round a ring the ascending one."""
        path: list[int] = []
        at = source
        for k, (axis, stride) in enumerate(zip(self.wires, self.strides, strict=True)):
            here, there = source // stride % axis.size, destination // stride % axis.size
            if here == there:
                continue
            target = at + (there - here) * stride
            first = self.first_links[k]
            if axis.kind == "switch":
                path += (first + 2 * at, first + 2 * target + 1)
            elif axis.kind == "fully_connected":
                path.append(first + at * axis.size + there)
            else:
                base = at - here * stride
                path += [first + 2 * (base + c * stride) + down for c, down in _walk(axis, here, there)]
            at = target
        return tuple(path)

    def wire_number(self, link: int) -> int:
        """The axis, by number, that a link belongs to."""
        if 0 <= link < self._after_last:
            return bisect_right(self.first_links, link) - 1
        raise InputError(f"link {link} does not exist in this network")

    def wire_numbers(self, links: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for many links that are there."""
        return np.searchsorted(np.array(self.first_links), links, side="right") - 1

    def link(self, number: int) -> Link:
        """The link of a number.  Raises `InputError` for a number that names none."""
        k = self.wire_number(number)
        axis, stride = self.wires[k], self.strides[k]
        owner, slot = divmod(number - self.first_links[k], _numbers(axis))
        place = self.coordinates(owner)
        if not _is_link(axis, place[k], slot):
            raise InputError(f"link {number} does not exist on axis {axis.name}")
        rest = ", ".join(f"{a.name}={c}" for a, c in zip(self.wires, place, strict=True) if a is not axis)
        source, target = self._ends(k, owner, slot)
        ends = ["switch" if end is None else str(end // stride % axis.size) for end in (source, target)]
        name = f"{axis.name}:{ends[0]}->{ends[1]}" + (f" ({rest})" if rest else "")
        return Link(number=number, name=name, axis=axis, source=source, target=target)

    @property
    def links(self) -> Iterator[Link]:
        """Every link, in the order of their numbers."""
        for k, axis in enumerate(self.wires):
            numbers = _numbers(axis)
            for i in range(self.accelerators * numbers):
                if _is_link(axis, i // numbers // self.strides[k] % axis.size, i % numbers):
                    yield self.link(self.first_links[k] + i)

    def number_of(self, name: str) -> int | None:
        """The number of the link of a name, if there is one."""
        match = _NAME.fullmatch(name)
        axes = {axis.name: k for k, axis in enumerate(self.wires)}
        if match is None or match["axis"] not in axes:
            return None
        k = axes[match["axis"]]
        known = match["source"] if match["source"] != "switch" else match["target"]
        if known == "switch":
            return None
        place = {self.wires[k].name: int(known)}
        for part in (match["rest"] or "").split(", "):
            key, _, value = part.partition("=")
            if key and value.isdecimal():
                place[key] = int(value)
        if set(place) != set(axes) or any(place[axis.name] >= axis.size for axis in self.wires):
            return None
        owner = sum(place[axis.name] * stride for axis, stride in zip(self.wires, self.strides, strict=True))
        numbers = _numbers(self.wires[k])
        for slot in range(numbers):
            if _is_link(self.wires[k], place[self.wires[k].name], slot):
                number = self.first_links[k] + owner * numbers + slot
                if self.link(number).name == name:
                    return number
        return None

    def leaving(self, node: Node) -> Iterator[tuple[int, Node]]:
        """The links that leave an accelerator or a switch, by number, and where each ends."""
        if isinstance(node, int):
            for k, axis in enumerate(self.wires):
                numbers = _numbers(axis)
                place = node // self.strides[k] % axis.size
                for slot in range(numbers if axis.kind != "switch" else 1):
                    if _is_link(axis, place, slot):
                        end = self._ends(k, node, slot)[1]
                        yield (
                            self.first_links[k] + node * numbers + slot,
                            (k, node - place * self.strides[k]) if end is None else end,
                        )
        elif isinstance(node, tuple):  # a switch: its axis and the first accelerator on it
            k, base = node
            for c in range(self.wires[k].size):
                end = base + c * self.strides[k]
                yield self.first_links[k] + 2 * end + 1, end

    def _ends(self, k: int, owner: int, slot: int) -> tuple[int | None, int | None]:
        axis, stride = self.wires[k], self.strides[k]
        place = owner // stride % axis.size
        if axis.kind == "switch":
            return (owner, None) if slot == 0 else (None, owner)
        if axis.kind == "fully_connected":
            return owner, owner + (slot - place) * stride
        step = -1 if slot else 1
        return owner, owner + ((place + step) % axis.size - place) * stride


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
