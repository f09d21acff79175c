"""The network between accelerators: its links, the ways between accelerators, and what is broken of it."""

from rpucluster.topology.faults import Faults
from rpucluster.topology.links import Link
from rpucluster.topology.network import Leg, Network
from rpucluster.topology.wires import Axis, AxisKind, Connection, Wire

__all__ = ["Axis", "AxisKind", "Connection", "Faults", "Leg", "Link", "Network", "Wire"]
