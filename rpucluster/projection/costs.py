"""What the operations of a step cost, whenever they run: `costs`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.program import Op
from rpucluster.projection.score import FLUSH, score_of
from rpucluster.projection.summary import Copies
from rpucluster.projection.symmetry import Symmetry
from rpucluster.timeline.prices import Energy, Price


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of all accelerators in one step."""

    energy_J: Mapping[str, float]
    """By the components of `Energy`."""
    link_bytes: float
    operations: int


def costs(
    plan: Plan, job: Job, symmetry: Symmetry, stands_for: Mapping[int, int], price: Callable[[Op], Price]
) -> Costs:
    """Add them up, where each of some stages of a plan stands for so many."""
    score, copies = score_of(plan, job, symmetry.written, passed=1), Copies(plan, symmetry)
    stages = [layer.stage for layer in plan.layers]
    total = np.zeros(len(Energy._fields) + 2)
    for key, part in score.parts.items():
        repeats = 1 if key == FLUSH else score.microbatches
        for op in part.ops:
            times = repeats * stands_for.get(stages[op.layer] if key == FLUSH else key[1], 0)
            if not times:
                continue
            cost = price(op)
            carried = math.fsum(cost.sending.link_bytes.values()) if cost.sending else 0.0
            total += times * copies.of_operation(op) * np.array([*cost.energy, carried, 1.0])
    *joules, link_bytes, operations = total.tolist()
    energy = dict(zip(Energy._fields, joules, strict=True))
    return Costs(energy_J=energy, link_bytes=link_bytes, operations=round(operations))
