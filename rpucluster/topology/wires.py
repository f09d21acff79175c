"""What joins accelerators: links of one kind along an axis, or links written out one by one."""

import math
import re
from typing import Any, Literal

from pydantic import Field, field_validator

from rpucluster.config import BytesPerSecond, JoulesPerByte, Seconds, Spec

AxisKind = Literal["ring", "fully_connected", "switch", "mesh"]
NAME = r"^[A-Za-z_][A-Za-z0-9_-]*$"


class Wire(Spec):
    """What links of one kind have in common."""

    bandwidth: BytesPerSecond = Field(gt=0)
    """Of each link in each direction, B/s; `"inf GB/s"` makes transfers cost their latency alone."""

    latency: Seconds = Field(ge=0, lt=math.inf)
    """Of each hop, s; a way through a switch is two hops."""

    efficiency: float = Field(default=1.0, gt=0, le=1)
    """The share of the bandwidth that payloads get, the rest being headers, encoding and flow control.  1: the
    bandwidth is what payloads see (our assumption, U, since it depends on the protocol)."""

    forwarding: Literal["cut_through", "store_and_forward"] = "cut_through"
    """Whether a message flows through intermediate hops, paying its serialization once, or is received whole
    before each next hop, paying it at every one."""

    contention: Literal["fifo", "fair", "none"] = "fifo"
    """`fifo`: transfers that share a link follow one another; `fair`: they share its bandwidth; `none`: each
    sees the full link, for comparison with simulators that know no contention.  Messages of one round of a
    collective share a fair link as they share a fifo one: the round ends when all bytes are through."""

    energy_per_byte: JoulesPerByte = Field(default="40 pJ/B", ge=0, lt=math.inf, validate_default=True)
    """For each byte on each link, J/B.  The paper says nothing of links (U); 5 pJ per bit is the order of
    magnitude of a serial link on a board and our assumption."""

    @property
    def rate(self) -> float:
        """Bytes of payload per second on each link in each direction."""
        return float(self.bandwidth * self.efficiency)


class Axis(Wire):
    """One axis of the network: `size` accelerators in a row, joined in one way."""

    name: str = Field(pattern=NAME)
    """What `--set network.axis.NAME.key=value` and the reports call it; letters, digits, `-` and `_`."""

    kind: AxisKind
    """`ring`, `mesh` (a line without wrap-around), `fully_connected` (a link for each ordered pair) or
    `switch` (one link up to the switch and one down from it per accelerator)."""

    size: int = Field(ge=1)
    """Accelerators along this axis; the network has as many as the product of all sizes."""


def _called(data: dict[str, Any]) -> str:
    return f"{data['source']}->{data['target']}"


class Connection(Wire):
    """One connection that is written out: a link there and, unless it goes one way, a link back."""

    source: int | str = Field(alias="from")
    """An accelerator, by number, or a switch, by any name."""

    target: int | str = Field(alias="to")
    """The other end, likewise."""

    both_ways: bool = True
    """Whether there is a link back."""

    name: str = Field(default_factory=_called, pattern=r"^[A-Za-z0-9_-]+(->[A-Za-z0-9_-]+)?$")
    """What `--set network.link.NAME.key=value` calls it; unwritten, its ends: `0->leaf0`."""

    @field_validator("source", "target", mode="before")
    @classmethod
    def _is_an_end(cls, value: object) -> object:
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not number and not (isinstance(value, str) and re.match(NAME, value)):
            raise ValueError(f'{value!r} is neither an accelerator nor a switch; write a number or a name, "leaf0"')
        return value

    @property
    def ends(self) -> tuple[tuple[int | str, int | str], ...]:
        """Where its links begin and end: there, and back."""
        there = (self.source, self.target)
        return (there, there[::-1]) if self.both_ways else (there,)

    def link_name(self, source: int | str, target: int | str) -> str:
        """What the link between two of its ends is called: with the name of the connection, if it has one."""
        before = "" if self.name == f"{self.source}->{self.target}" else f"{self.name}:"
        return f"{before}{source}->{target}"
