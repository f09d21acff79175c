"""The figures of a long step from those of short ones: `extended`.

The moments at which operations end are maxima of sums of durations.  Along a series of plans that repeat one another
(`rpucluster.projection.folding`) the number of durations in each sum grows evenly, and where the same sum stays the
largest, its length is a polynomial of the first degree; what is added up over accelerators is one of the second.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from rpucluster.projection.folding import Folding
from rpucluster.projection.summary import Sums
from rpucluster.timeline.prices import Price


@dataclass(frozen=True, kw_only=True)
class Extended:
    """A step that was not replayed."""

    step: Sums
    agreement: float
    """How far the longest of the replayed steps is from what the others foresee, as a share of it."""
    of_parts: float
    """The same for what it consists of."""
    parabola_s: float
    """How long the step would be if it went on along the parabola through the replayed ones."""

    @property
    def bent(self) -> float:
        """By what share it would be another then."""
        return abs(self.parabola_s / self.step.modelled_s - 1)

    @property
    def doubt(self) -> float:
        """The largest of the three, the last of which small errors of short steps enter as far as they matter."""
        return max(self.agreement, self.of_parts, self.bent / 10)


def extended(steps: Sequence[Sums], folding: Folding) -> Extended:
    """The times of the last plan of a series from those of `Folding.replayed`; what operations cost is left as it is in
    the first of them.
    """
    columns = np.array([_numbers(step) for step in steps])
    there, far = np.arange(len(steps), dtype=np.float64), folding.times
    modelled_s = float(np.polyval(np.polyfit(there, columns[:, 0], 1), far))
    parabola_s = float(np.polyval(np.polyfit(there, columns[:, 0], 2), far))
    accelerators, *seconds = (np.polyfit(there, columns[:, 1:], 2).T @ [far * far, far, 1.0]).tolist()
    first, second, third, last = columns
    step = (last[0] - first[0] - 1.5 * (third[0] - first[0])) / last[0]
    bend = (second[0] - (first[0] + third[0]) / 2) / second[0]
    parts = (first + 3 * (third - second) - last)[2:] / (last[0] * last[1])
    return Extended(
        step=_sum(modelled_s, accelerators, seconds, steps[0]),
        agreement=float(max(abs(step), abs(bend))),
        of_parts=float(np.abs(parts).max()),
        parabola_s=parabola_s,
    )


def lengthened(fewer: Extended, more: Extended, shortest: Sequence[Sums], times: float) -> Extended:
    """A step of more microbatches along the line through two of fewer: `times` their distance from the first.

    `shortest`: of fewer stages, with the microbatches of the two and as many more again, which tell how straight it is.
    """

    def along(one: float, other: float) -> float:
        return one + times * (other - one)

    first, second = _numbers(fewer.step), _numbers(more.step)
    modelled_s, accelerators, *seconds = map(along, first, second)
    slopes = [other.modelled_s - one.modelled_s for one, other in pairwise(shortest)]
    # the first is about half as long as the second, and as far from it as from nothing
    agreement = fewer.agreement + 2 * more.agreement + abs(slopes[1] / slopes[0] - 1)
    return Extended(
        step=_sum(modelled_s, accelerators, seconds, fewer.step),
        agreement=agreement,
        of_parts=fewer.of_parts + 2 * more.of_parts,
        parabola_s=along(fewer.parabola_s, more.parabola_s),
    )


def in_proportion(price: Price, share: float) -> Price:
    """What a share of an operation would take."""
    sending = price.sending
    if sending is not None:
        passing = sending.passing
        sending = replace(
            sending,
            modelled_s=share * sending.modelled_s,
            latency_s=share * sending.latency_s,
            traffic=_shared(sending.traffic, share),
            passing=passing
            and tuple(hold._replace(begin=share * hold.begin, end=share * hold.end) for hold in passing),
        )
    seconds = {
        name: share * getattr(price, name) for name in ("seconds", "analog_s", "lead_s", "on_chip_s", "digital_s")
    }
    energy = type(price.energy)(*(share * joules for joules in price.energy))
    return price._replace(energy=energy, sending=sending, **seconds)


def _shared(traffic: Callable[[], Mapping[int, float]], share: float) -> Callable[[], Mapping[int, float]]:
    return lambda: {link: share * nbytes for link, nbytes in traffic().items()}


def _numbers(step: Sums) -> list[float]:
    """The step, then what adds up over accelerators: these, and the seconds that are not idle."""
    return [
        step.modelled_s,
        step.accelerators,
        *(step.accelerators * value for value in list(step.seconds.values())[:-1]),
    ]


def _sum(modelled_s: float, accelerators: float, seconds: Sequence[float], example: Sums) -> Sums:
    mean = [max(0.0, value) / accelerators for value in seconds]
    parts = (*mean, max(0.0, modelled_s - math.fsum(mean)))
    computing = math.fsum(mean[:-1])
    idle = example.idle_power * max(0.0, modelled_s - computing) * accelerators
    return replace(
        example,
        modelled_s=modelled_s,
        accelerators=round(accelerators),
        seconds=dict(zip(example.seconds, parts, strict=True)),
        energy_J=dict(example.energy_J) | {"idle": idle},
    )
