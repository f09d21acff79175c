"""The bytes that a collective puts on each link."""

from collections.abc import Sequence

from rpucluster.collective import symmetric
from rpucluster.collective.group import Group
from rpucluster.collective.routed import Routes
from rpucluster.collective.stages import FLAT, Stage, active_lines, sent


def link_bytes(parts: Sequence[Stage], found: Group) -> dict[int, float]:
    """Bytes on each link, by its number, of all stages of a collective."""
    routes = Routes(found.network)
    total: dict[int, float] = {}
    for stage in parts:
        load = _even(stage, found)
        if load is None:
            load = {}
            for repeats, sends in sent(stage, found, active_lines(stage, found)):
                for link, nbytes in routes.loads(sends).items():
                    load[link] = load.get(link, 0.0) + repeats * nbytes
        for link, nbytes in load.items():
            total[link] = total.get(link, 0.0) + nbytes
    return total


def _even(stage: Stage, found: Group) -> dict[int, float] | None:
    """The same by arithmetic, where every member puts as much on links of its own; None elsewhere.

    Each member sends n - 1 parts of a gather, a scatter or an exchange, and as many come to it; an all-reduce is two
    of these, and in an exchange round a ring parts travel (n - 1) n / 2 hops.
    """
    layout = found.network.product
    if layout is None or stage.level == FLAT or len(stage.parts) > 1:
        return None
    if stage.kind == "broadcast" or stage.algorithm == "tree" or stage.parts[0] == 0:
        return None
    k, places = found.axes[stage.level], found.places[stage.level]
    axis, n, first = layout.wires[k], len(places), layout.first_links[k]
    if symmetric.form_of(stage.kind, stage.algorithm, axis, places) not in ("ports", "ring"):
        return None
    hops = n / 2 if (stage.kind, stage.algorithm) == ("all_to_all", "ring") else 1
    each = stage.parts[0] * (n - 1) * hops * (2 if stage.kind == "all_reduce" else 1)
    if axis.kind == "switch":
        return {first + 2 * member + way: each for member in found.members for way in (0, 1)}
    if axis.kind == "ring" and n > 2 and stage.algorithm == "ring":
        return {first + 2 * member: each for member in found.members}
    if axis.kind == "fully_connected" and stage.algorithm == "direct":
        return {first + member * axis.size + place: each / (n - 1)
                for member in found.members for place in places
                if place != member // layout.strides[k] % axis.size}  # fmt: skip
    return None
