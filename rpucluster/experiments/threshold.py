"""Means over seeds with their intervals, and the value of a parameter at which the error grows by 0.3 %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rpucluster.rng import Purpose, stream_key, uniform_u32

T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 97.5 % for 1 to 9 degrees of freedom; the last serves for more, where it is a little too wide."""
DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval; bounds are None where one run alone does not give any."""

    value: float
    low: float | None
    high: float | None
    runs: int


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Where a swept parameter reaches the penalty, with a 95 % interval.

    None stands for a place outside the sweep: of `value` and `mild` on the mild side that even the mildest point
    exceeds the penalty, of `severe` that no point does.  `beyond` tells which for `value`.
    """

    value: float | None
    beyond: str
    """``""``, or ``"mild"`` or ``"severe"`` where the sweep does not reach the threshold on that side."""
    mild: float | None
    """The end of the interval at milder values."""
    severe: float | None
    """The end at more severe values."""
    runs: int
    """The fewest runs of a point."""


def estimate(samples: Sequence[float]) -> Estimate:
    """Mean and Student's interval over independent runs.  Raises ValueError without any."""
    n = len(samples)
    if n == 0:
        raise ValueError("a mean of no runs")
    mean = math.fsum(samples) / n
    if n == 1:
        return Estimate(value=mean, low=None, high=None, runs=1)
    deviation = math.sqrt(math.fsum((s - mean) ** 2 for s in samples) / (n - 1))
    half = T_QUANTILES[min(n - 1, len(T_QUANTILES)) - 1] * deviation / math.sqrt(n)
    return Estimate(value=mean, low=mean - half, high=mean + half, runs=n)


def crossing(errors: Sequence[float], limit: float) -> float:
    """The place in a sweep, from mild to severe, at which errors first rise above `limit`.

    1.25 is a quarter of the way from the second point to the third, as `place_to_value` takes it.  -inf where the
    first point is above already, +inf where none is.
    """
    if errors[0] > limit:
        return -math.inf
    for i in range(1, len(errors)):
        if errors[i] > limit:
            return i - 1 + (limit - errors[i - 1]) / (errors[i] - errors[i - 1])
    return math.inf


def place_to_value(place: float, values: Sequence[float], log: bool) -> float | None:
    """The parameter at a place between the points of a sweep, interpolated linearly or, if `log`, over its logarithm;
    None outside."""
    if math.isinf(place):
        return None
    i = min(int(place), len(values) - 2)
    share = place - i
    if log:
        return float(math.exp((1 - share) * math.log(values[i]) + share * math.log(values[i + 1])))
    return (1 - share) * values[i] + share * values[i + 1]


def threshold(
    values: Sequence[float], samples: Sequence[Sequence[float]], control: Sequence[float], penalty: float, log: bool
) -> Threshold:
    """Where the mean error over runs exceeds that of the control by `penalty`.

    `values` and the runs `samples` of each go from mild to severe.  The interval is from bootstrap: the runs of each
    point and of the control are drawn anew with replacement, `DRAWS` times.  Of three runs a bootstrap knows only
    what these three show, so the interval is rather too narrow.  Raises ValueError for fewer than two points.
    """
    if len(values) < 2:
        raise ValueError("a threshold needs two points")
    means = [math.fsum(runs) / len(runs) for runs in samples]
    found = crossing(means, math.fsum(control) / len(control) + penalty)
    groups = [np.asarray(control, np.float64), *(np.asarray(runs, np.float64) for runs in samples)]
    words = uniform_u32(stream_key(0, Purpose.BOOTSTRAP), DRAWS * sum(map(len, groups))).reshape(DRAWS, -1)
    drawn, first = [], 0
    for group in groups:
        # the high word of the product: uniform in 0 .. runs - 1 to one part in 2^32
        chosen = (words[:, first : first + len(group)].astype(np.uint64) * np.uint64(len(group))) >> np.uint64(32)
        drawn.append(group[chosen.astype(np.int64)].mean(axis=1))  # (draws,)
        first += len(group)
    again = np.stack(drawn[1:], axis=1)  # (draws, points)
    places = sorted(crossing(again[i].tolist(), float(drawn[0][i]) + penalty) for i in range(DRAWS))
    tail = round(0.025 * DRAWS)
    ends = places[tail], places[DRAWS - 1 - tail]
    return Threshold(
        value=place_to_value(found, values, log),
        beyond="" if math.isfinite(found) else "mild" if found < 0 else "severe",
        mild=place_to_value(ends[0], values, log),
        severe=place_to_value(ends[1], values, log),
        runs=min(map(len, groups)),
    )
