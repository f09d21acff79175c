"""Thresholds on curves whose crossing is known in closed form."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.experiments.threshold import T_QUANTILES, crossing, estimate, place_to_value, threshold


def test_a_straight_line_is_crossed_where_it_reaches_the_penalty() -> None:
    rng = np.random.default_rng()
    for _ in range(20):
        base, slope = rng.uniform(0.01, 0.05), rng.uniform(0.01, 1.0)
        values = np.sort(rng.uniform(0, 1, 7)).tolist()
        at = rng.uniform(values[0], values[-1])
        penalty = slope * at
        found = threshold(values, [[base + slope * v] * 3 for v in values], [base] * 3, penalty, log=False)
        assert found.value == pytest.approx(at, rel=1e-9)
        # runs that agree leave nothing to the bootstrap
        assert found.mild == pytest.approx(at, rel=1e-9)
        assert found.severe == pytest.approx(at, rel=1e-9)
        assert (found.beyond, found.runs) == ("", 3)


def test_what_is_straight_over_the_logarithm_is_interpolated_over_it() -> None:
    rng = np.random.default_rng()
    values = np.exp(np.sort(rng.uniform(-7, 2, 6))).tolist()
    at = math.exp(rng.uniform(math.log(values[0]), math.log(values[-1])))
    errors = [[0.02 + 0.003 + 0.01 * math.log(v / at)] for v in values]
    assert threshold(values, errors, [0.02], 0.003, log=True).value == pytest.approx(at, rel=1e-9)


def test_a_parameter_that_hurts_when_it_falls_goes_from_large_to_small() -> None:
    found = threshold([1.0, 0.9, 0.8], [[0.02], [0.02], [0.03]], [0.02], 0.003, log=False)
    assert found.value == pytest.approx(0.9 - 0.1 * 0.3)


def test_a_sweep_that_does_not_reach_the_threshold_says_on_which_side() -> None:
    never = threshold([1.0, 2.0], [[0.02] * 3, [0.021] * 3], [0.02] * 3, 0.003, log=False)
    assert (never.value, never.beyond, never.mild, never.severe) == (None, "severe", None, None)
    always = threshold([1.0, 2.0], [[0.03] * 3, [0.04] * 3], [0.02] * 3, 0.003, log=False)
    assert (always.value, always.beyond) == (None, "mild")


def test_an_interval_may_leave_the_sweep_on_one_side() -> None:
    """Two of the four means that two runs of the last point can have stay below the limit."""
    found = threshold([1.0, 2.0], [[0.02, 0.02], [0.0221, 0.03]], [0.02, 0.02], 0.003, log=False)
    assert found.value is not None
    assert found.mild is not None
    assert found.severe is None


def test_the_interval_is_that_of_all_ways_to_draw_the_runs() -> None:
    """Three runs of one point give 27 draws; the bootstrap must find their quantiles."""
    runs = [0.024, 0.026, 0.031]
    found = threshold([0.0, 1.0], [[0.02] * 3, runs], [0.02] * 3, 0.003, log=False)
    ways = sorted(0.003 / ((a + b + c) / 3 - 0.02) for a in runs for b in runs for c in runs)
    assert found.mild == pytest.approx(ways[0])  # one way of 27 is 3.7 %, more than the 2.5 % that are cut off
    assert found.severe == pytest.approx(ways[-1])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.floats(0, 1))
def test_the_first_crossing_is_found(errors: list[float], limit: float) -> None:
    place = crossing(errors, limit)
    above = [i for i, error in enumerate(errors) if error > limit]
    if not above:
        assert place == math.inf
    elif above[0] == 0:
        assert place == -math.inf
    else:
        assert above[0] - 1 <= place <= above[0]


@given(st.integers(2, 9), st.data())
def test_places_are_values_of_the_sweep(points: int, data: st.DataObject) -> None:
    values = sorted(data.draw(st.sets(st.floats(1e-3, 1e3), min_size=points, max_size=points)))
    for log in (False, True):
        for i, value in enumerate(values):
            assert place_to_value(float(i), values, log) == pytest.approx(value)
    assert place_to_value(math.inf, values, False) is None


def test_the_t_interval_covers_as_often_as_it_says() -> None:
    """95 % of 20,000 intervals of three normal runs hold the mean; 5 standard deviations are 0.8 %."""
    runs = np.random.default_rng().normal(0.02, 0.001, (20_000, 3))
    found = [estimate(row) for row in runs.tolist()]
    held = sum(e.low <= 0.02 <= e.high for e in found if e.low is not None and e.high is not None)
    assert held / 20_000 == pytest.approx(0.95, abs=5 * math.sqrt(0.95 * 0.05 / 20_000))


def test_quantiles_are_students() -> None:
    from scipy.stats import t

    assert pytest.approx(T_QUANTILES, rel=2e-4) == [t.ppf(0.975, n) for n in range(1, len(T_QUANTILES) + 1)]


def test_a_single_run_has_no_interval() -> None:
    one = estimate([0.02])
    assert (one.value, one.low, one.high, one.runs) == (0.02, None, None, 1)
    with pytest.raises(ValueError, match="no runs"):
        estimate([])
    with pytest.raises(ValueError, match="two points"):
        threshold([1.0], [[0.02]], [0.02], 0.003, log=False)
