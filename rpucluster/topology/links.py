"""Links and what they join, whatever the network."""

from dataclasses import dataclass

from rpucluster.topology.wires import Axis, Connection

Node = int | str | tuple[int, int]
"""An accelerator; a switch of a written-out network; or a switch of an axis, by the axis and its first accelerator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One direction of one connection; `source` or `target` is None where that end is a switch."""

    number: int
    name: str
    """For people: axis, coordinates along it and, in brackets, the coordinates on the other axes; or the name of
    a written-out connection and its ends."""
    axis: Axis | Connection
    """What it is a part of, whose latency it has; the bandwidth is that of `Network.bandwidth_of`."""
    source: int | None
    target: int | None
