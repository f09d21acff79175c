"""The figures of unrolled operations on a cluster: `timed`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np

from rpucluster.cluster import Cluster
from rpucluster.collective import Chosen
from rpucluster.plan import Plan
from rpucluster.program import Collective, Op, Send
from rpucluster.projection.extension import in_proportion
from rpucluster.projection.summary import Moments, Sums, summed_up
from rpucluster.projection.symmetry import Symmetry
from rpucluster.projection.unrolled import Unrolled
from rpucluster.timeline.clock import play
from rpucluster.timeline.order import COUNTS
from rpucluster.timeline.prices import Price, price_of
from rpucluster.topology import Faults, Network


def timed(
    unrolled: Unrolled,
    plan: Plan,
    cluster: Cluster,
    symmetry: Symmetry | None,
    share: float | None = None,
    price: Callable[[Op], Price] | None = None,
    compiled: bool | None = None,
    stands_for: Mapping[int, int] | None = None,
    deadline: float = math.inf,
) -> Sums:
    """Replay them, and sum up over all for which they stand.

    `share`: of the flush that there is, in a short step.  `price`: of `prices_on` this cluster, if several are timed.
    `compiled` and `deadline`: as in `play`.  `stands_for`: as in `summed_up`.
    """
    prices = list(map(price or prices_on(cluster), unrolled.examples))
    if share is not None:
        prices = [in_proportion(price, share) if i in unrolled.flush else price for i, price in enumerate(prices)]
    slow = _slow(plan, cluster, symmetry, unrolled.accelerators)
    state = play(unrolled.order, prices, unrolled.held, slow, cluster, compiled=compiled, deadline=deadline)
    working = {op.accelerator for op in unrolled.pattern if not isinstance(op, Collective | Send)}
    moments = Moments(
        pattern=unrolled.pattern,
        of=unrolled.of,
        price=unrolled.price,
        prices=prices,
        start=np.asarray(state.start),
        finish=np.asarray(state.finish),
        accelerators=tuple(sorted(working)),
    )
    return summed_up(moments, plan, symmetry, cluster.accelerator.idle_power, stands_for)


def prices_on(cluster: Cluster) -> Callable[[Op], Price]:
    """What operations cost on a cluster, found once for all that are alike.

    Collectives of members that lie in the same way along the axes take the same algorithm, which is looked for once.
    """
    known: dict[object, Price] = {}
    quickest: dict[object, Sequence[Chosen]] = {}
    even = cluster.network.product is not None and cluster.faults == Faults()

    def price(op: Op) -> Price:
        counts = type(op), COUNTS[type(op)](op)
        if counts in known:
            return known[counts]
        if not (even and isinstance(op, Collective)):
            return known.setdefault(counts, price_of(op, cluster))
        lying = op.kind, op.elements, op.word_bits, _lying(op.members, cluster.network)
        found = price_of(op, cluster, algorithm=quickest.get(lying, ("auto",)))
        if found.sending is not None:
            quickest[lying] = cast("list[Chosen]", found.sending.algorithm.split(","))
        return known.setdefault(counts, found)

    return price


def _lying(members: Sequence[int], network: Network) -> tuple[tuple[int, ...], ...]:
    """Where members lie, seen from the first."""
    first, *others = map(network.coordinates, members)
    return tuple(tuple(there - here for there, here in zip(other, first, strict=True)) for other in others)


def _slow(plan: Plan, cluster: Cluster, symmetry: Symmetry | None, accelerators: Sequence[int]) -> list[float]:
    """How many times longer everything takes at each place: as on the slowest of those that it stands for."""
    slowdowns = cluster.faults.slowdowns
    if not slowdowns:
        return [1.0] * len(accelerators)
    if symmetry is None:
        return [slowdowns.get(accelerator, 1.0) for accelerator in accelerators]
    slowest = {
        plan.accelerator(0, stage, ranks[0]): max(
            slowdowns.get(plan.accelerator(replica, stage, rank), 1.0) for replica in range(plan.data) for rank in ranks
        )
        for stage in range(plan.pipeline)
        for ranks in symmetry.classes
    }
    return [slowest.get(accelerator, 1.0) for accelerator in accelerators]
