"""What the operations of a step cost and send, whenever they run: `costs`, `traffic`."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rpucluster.axis_traffic import AxisUse, axis_traffic, parallelism_of
from rpucluster.plan import Plan
from rpucluster.program import Collective, Op, Send
from rpucluster.projection.score import FLUSH, Score
from rpucluster.projection.summary import Copies
from rpucluster.projection.symmetry import Symmetry
from rpucluster.timeline.prices import Energy, Price
from rpucluster.topology import Network


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of all accelerators in one step."""

    energy_J: Mapping[str, float]
    """By the components of `Energy`."""
    link_bytes: float
    operations: int


def costs(
    score: Score, plan: Plan, symmetry: Symmetry, stands_for: Mapping[int, int], price: Callable[[Op], Price]
) -> Costs:
    """Add them up from the score of a plan, some stages of which stand for so many each."""
    total = np.zeros(len(Energy._fields) + 2)
    for op, everywhere, _ in _repeated(score, plan, symmetry, stands_for):
        if not everywhere:
            continue
        cost = price(op)
        carried = math.fsum(cost.sending.link_bytes.values()) if cost.sending else 0.0
        total += everywhere * np.array([*cost.energy, carried, 1.0])
    *joules, link_bytes, operations = total.tolist()
    energy = dict(zip(Energy._fields, joules, strict=True))
    return Costs(energy_J=energy, link_bytes=link_bytes, operations=round(operations))


def traffic(
    score: Score,
    plan: Plan,
    symmetry: Symmetry,
    stands_for: Mapping[int, int],
    price: Callable[[Op], Price],
    network: Network,
    modelled_s: float,
) -> tuple[AxisUse, ...]:
    """What each axis of a network carries in a step of so many seconds; arguments as of `costs`."""
    transfers = [
        (parallelism_of(op), sending, everywhere, here)
        for op, everywhere, here in _repeated(score, plan, symmetry, stands_for)
        if isinstance(op, Collective | Send) and (sending := price(op).sending)
    ]
    return axis_traffic(transfers, network, modelled_s)


def _repeated(
    score: Score, plan: Plan, symmetry: Symmetry, stands_for: Mapping[int, int]
) -> Iterator[tuple[Op, int, int]]:
    """The operations of one microbatch and of the flush; how often each is performed in the whole step, and how often
    by the same accelerators."""
    copies = Copies(plan, symmetry)
    stages = [layer.stage for layer in plan.layers]
    for key, part in score.parts.items():
        repeats = 1 if key == FLUSH else score.microbatches
        for op in part.ops:
            # a stage that stands for none still loads the links of its neighbours
            stands = stands_for.get(stages[op.layer] if key == FLUSH else key[1], 0)
            yield op, repeats * stands * copies.of_operation(op), repeats
