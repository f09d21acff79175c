"""What the operations of a step cost, whenever they run: `costs`."""

import math

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.projection.score import FLUSH, score_of
from rpucluster.projection.summary import Copies
from rpucluster.projection.symmetry import Symmetry
from rpucluster.timeline.order import COUNTS
from rpucluster.timeline.prices import price_of


def costs(plan: Plan, job: Job, symmetry: Symmetry, cluster: Cluster) -> NDArray[np.float64]:
    """Joules by the components of `Energy`, bytes on links, and operations, of all accelerators in one step."""
    score, copies = score_of(plan, job, symmetry.written, passed=1), Copies(plan, symmetry)
    priced: dict[object, NDArray[np.float64]] = {}
    total = np.zeros(0)
    for key, part in score.parts.items():
        each = 1 if key == FLUSH else score.microbatches
        for op in part.ops:
            counts = COUNTS[type(op)](op)
            if counts not in priced:
                price = price_of(op, cluster)
                carried = math.fsum(price.sending.link_bytes.values()) if price.sending else 0.0
                priced[counts] = np.array([*price.energy, carried, 1.0])
            cost = each * copies.of_operation(op) * priced[counts]
            total = total + cost if len(total) else cost
    return total
