"""The figures of a long step from those of short ones: `extended`.

The moments at which operations end are maxima of sums of durations.  Along a series of plans that repeat one another
(`rpucluster.projection.folding`) the number of durations in each sum grows evenly, and where the same sum stays the
largest, its length is a polynomial of the first degree; what is added up over accelerators is one of the second.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rpucluster.projection.summary import Sums
from rpucluster.timeline.prices import Price

AGREE = 1e-11
"""How closely, as a share, a further step must agree with what was foreseen."""

Floats = NDArray[np.float64]


def extended(steps: Mapping[int, Sums], last: int) -> Sums | None:
    """The figures of number `last` of a series from numbers 0, 1 and 2; None unless all others in `steps` agree."""
    columns = {number: np.array(_numbers(step)) for number, step in steps.items()}
    known = columns[0], columns[1], columns[2]
    for number in steps.keys() - {0, 1, 2}:
        if (np.abs(_foreseen(known, number) - columns[number]) > AGREE * _scales(steps[number])).any():
            return None
    durations = [column[0] for column in known]
    if abs(durations[2] - 2 * durations[1] + durations[0]) > AGREE * durations[2]:
        return None
    found = _foreseen(known, last)
    found[0] = durations[0] + last * (durations[2] - durations[0]) / 2
    first, second, third = (steps[number].operations for number in range(3))
    operations = first + last * (second - first) + last * (last - 1) // 2 * (third - 2 * second + first)
    return _sums(found.tolist(), steps[0], operations)


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


def _foreseen(known: tuple[Floats, Floats, Floats], number: int) -> Floats:
    """Newton's polynomial through numbers 0, 1 and 2."""
    first, second, third = known
    return np.asarray(
        first + number * (second - first) + number * (number - 1) / 2 * ((third - second) - (second - first))
    )


def _numbers(step: Sums) -> list[float]:
    """The step, then what adds up over accelerators."""
    seconds = [step.accelerators * value for value in step.seconds.values()]
    return [step.modelled_s, step.accelerators, *seconds, *step.energy_J.values(), step.link_bytes]


def _scales(step: Sums) -> Floats:
    """What the numbers are to be compared with: each with the sum that it belongs to."""
    time = step.accelerators * step.modelled_s
    scales = [step.modelled_s, step.accelerators, *(time for _ in step.seconds), *(step.all_J for _ in step.energy_J)]
    return np.array([*scales, step.link_bytes])


def _sums(numbers: Sequence[float], example: Sums, operations: int) -> Sums:
    modelled_s, accelerators, *rest = numbers
    parts = len(example.seconds)
    mean = [max(0.0, value) / accelerators for value in rest[: parts - 1]]
    seconds = dict(zip(example.seconds, (*mean, max(0.0, modelled_s - math.fsum(mean))), strict=True))
    energy = dict(zip(example.energy_J, rest[parts:-1], strict=True))
    return Sums(
        modelled_s=modelled_s,
        accelerators=round(accelerators),
        seconds=seconds,
        energy_J=energy,
        link_bytes=rest[-1],
        operations=operations,
    )
