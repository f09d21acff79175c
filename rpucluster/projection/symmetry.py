"""Which accelerators of a plan do the same at the same moments, so that one of them can stand for all: `symmetry_of`.

Replicas are alike, and so are the tensor ranks that hold blocks of the same shapes.  Call what one rank of one replica
does a *copy*.  Map every operation of the whole machine to that of the copy that is written: if

* every operation costs as much as the one it is mapped to, and
* no link is used by two copies of the same operation, nor in another order than the links of the written copy,

then the moments of the written copy, given to all, are a timeline of the whole machine: each operation finds all that
it waits for at the same moment.  Since a replay has one outcome, they are the timeline.  Arrays, digital units and the
network on a chip belong to one accelerator each, so only links have to be looked at.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.plan import LayerPlan, Plan, covers
from rpucluster.topology import Faults, Network


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """Sets of tensor ranks that do the same, and whether the first of each, in the first replica, may stand for all."""

    classes: tuple[tuple[int, ...], ...]
    """Every tensor rank that holds tiles once; ascending in each class, and the classes by their first."""
    replicas: int
    why_not: str | None
    """Why it is not known that the others do the same at the same moments; None where it is."""

    @property
    def exact(self) -> bool:
        """Whether the representatives' timeline is that of the whole machine."""
        return self.why_not is None

    @property
    def written(self) -> tuple[int, ...]:
        """The representatives."""
        return tuple(ranks[0] for ranks in self.classes)

    @property
    def copies(self) -> int:
        """How many accelerators of a stage there are for each that is written, in the largest class."""
        return self.replicas * max(len(ranks) for ranks in self.classes)


def symmetry_of(plan: Plan, job: Job, cluster: Cluster) -> Symmetry:
    """Decide it from the structure of the plan and the network, in O(layers x ranks), without a route."""
    by_shape: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for rank in range(plan.tensor):
        shapes = tuple(layer.sides(rank) for layer in plan.layers)
        if any(shapes):
            by_shape[shapes].append(rank)
    # a rank that takes from another rank of the stage before is not alone with itself
    if not all(_from_itself(*pair) for pair in pairwise(plan.layers) if pair[0].stage != pair[1].stage):
        by_shape = {(rank,): [rank] for ranks in by_shape.values() for rank in ranks}
    classes = tuple(sorted(tuple(ranks) for ranks in by_shape.values()))
    copied = {
        axis for axis, more in (("tensor", any(len(ranks) > 1 for ranks in classes)), ("data", plan.data > 1)) if more
    }
    why_not = None
    if copied:
        why_not = _faulty(cluster) or _entangled(plan, cluster.network, copied)
    return Symmetry(classes=classes, replicas=plan.data, why_not=why_not)


def _from_itself(before: LayerPlan, after: LayerPlan) -> bool:
    """Whether each rank takes activations, and errors on the way back, from the same rank of the other stage."""
    return _passes(before.gives, after.needs, before.holders) and _passes(after.needs, before.gives, after.holders)


def _passes(
    have: tuple[tuple[int, int] | None, ...], need: tuple[tuple[int, int] | None, ...], holders: tuple[int, ...]
) -> bool:
    spans = [span for span in need if span is not None]
    if all(any(covers([h], [span]) for h in have) for span in spans):
        return all(span is None or covers([have[rank]], [span]) for rank, span in enumerate(need))
    return all(span is None or rank in holders for rank, span in enumerate(need))  # after a gather among the holders


def _faulty(cluster: Cluster) -> str | None:
    if cluster.faults != Faults():
        return "[faults] make some accelerators or links unlike the others"
    return None


def _entangled(plan: Plan, network: Network, copied: set[str]) -> str | None:
    """Why copies may meet on links, or differ in price; None where they do not.

    Where the mesh of the plan lies along the axes of the network, a way between two accelerators of a copy passes
    only accelerators of that copy, since it goes axis by axis: on switches and between pairs the links belong to
    these.  Rings and meshes lend the links between others, so they may be crossed by one kind of parallelism only.
    """
    if network.product is None:
        return "the network is written out link by link, and ways of several copies may share links"
    sizes = {"tensor": plan.tensor, "pipeline": plan.pipeline, "data": plan.data}
    edges, at = [], 1
    for name in plan.placement:
        if name == "data":  # replicas in a row share experts
            edges.append((at, at * plan.expert, "expert"))
            edges.append((at * plan.expert, at * sizes[name], name))
        else:
            edges.append((at, at * sizes[name], name))
        at *= sizes[name]
    whole, first = at, 1
    copied = copied | {"expert"} if "data" in copied else copied
    marks = sorted({edge[1] for edge in edges} | {s for s in network.product.strides if s <= whole})
    for low, high in pairwise(marks):
        if high % low:
            return (
                f"the sizes of [parallel] in the order of its placement do not divide those of [[network.axis]]: "
                f"{high} accelerators are not whole groups of {low}"
            )
    for axis in network.axis:
        last = min(first * axis.size, whole)
        crossing = {name for start, stop, name in edges if max(start, first) < min(stop, last)}
        lent = axis.kind in ("ring", "mesh") and axis.contention != "none"
        if lent and len(crossing) > 1 and crossing & copied:
            names = [name for *_, name in edges if name in crossing]
            return (
                f"{' and '.join(names)} share axis {axis.name}, a {axis.kind}, on whose links the transfers of several "
                f"copies may meet"
            )
        first *= axis.size
    return None
