"""The figures of unrolled operations on a cluster: `timed`."""

from collections.abc import Callable, Sequence

import numpy as np

from rpucluster.cluster import Cluster
from rpucluster.plan import Plan
from rpucluster.program import Collective, Op, Send
from rpucluster.projection.extension import in_proportion
from rpucluster.projection.summary import Moments, Sums, summed_up
from rpucluster.projection.symmetry import Symmetry
from rpucluster.projection.unrolled import Unrolled
from rpucluster.timeline.clock import play
from rpucluster.timeline.order import COUNTS
from rpucluster.timeline.prices import Price, price_of


def timed(
    unrolled: Unrolled,
    plan: Plan,
    cluster: Cluster,
    symmetry: Symmetry | None,
    share: float | None = None,
    price: Callable[[Op], Price] | None = None,
    compiled: bool | None = None,
) -> Sums:
    """Replay them, and sum up over all for which they stand.

    `share`: of the flush that there is, in a short step.  `price`: of `prices_on` this cluster, if several are timed.
    `compiled`: as in `play`.
    """
    prices = list(map(price or prices_on(cluster), unrolled.examples))
    if share is not None:
        prices = [in_proportion(price, share) if i in unrolled.flush else price for i, price in enumerate(prices)]
    slow = _slow(plan, cluster, symmetry, unrolled.accelerators)
    state = play(unrolled.order, prices, unrolled.held, slow, cluster, compiled=compiled)
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
    return summed_up(moments, plan, symmetry, cluster.accelerator.idle_power)


def prices_on(cluster: Cluster) -> Callable[[Op], Price]:
    """What operations cost on a cluster, found once for all that are alike."""
    known: dict[object, Price] = {}

    def price(op: Op) -> Price:
        counts = type(op), COUNTS[type(op)](op)
        if counts not in known:
            known[counts] = price_of(op, cluster)
        return known[counts]

    return price


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
