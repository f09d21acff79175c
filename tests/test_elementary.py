"""Exponential and power: within two units in the last place of float64's, and from + - * / alone."""

import ast
import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster import elementary
from rpucluster.elementary import EXP_MAX, EXP_MIN, SMALLEST, exp, power


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance from an exact float64 in units in the last place of float32."""
    assert got.dtype == np.float32
    return np.abs(got - exact) / np.spacing(np.abs(exact).astype(np.float32))


def test_exp_is_within_two_units_in_the_last_place() -> None:
    generator = np.random.default_rng()
    for low, high in ((EXP_MIN, EXP_MAX), (-6.0, 6.0), (-1e-3, 1e-3)):
        x = generator.uniform(low, high, 300_000).astype(np.float32)
        assert ulps(exp(x), np.exp(x.astype(np.float64))).max() <= 2


def test_exp_beyond_its_range() -> None:
    x = np.array([-np.inf, -200, -87.31, 0, -0.0, EXP_MAX, 1000, np.inf], np.float32)
    found = exp(x)
    np.testing.assert_array_equal(found[:5], [0, 0, 0, 1, 1])
    assert np.isfinite(found).all()
    assert (found[5:] == found[5]).all()


@pytest.mark.parametrize("most", [1.0, 4.0, 64.0])
def test_power_is_within_two_units_in_the_last_place(most: float) -> None:
    generator = np.random.default_rng()
    n = 300_000
    base = np.where(generator.random(n) < 0.5, generator.random(n), 2.0 ** generator.uniform(-40, 1, n))
    base, exponent = base.astype(np.float32), generator.uniform(0, most, n).astype(np.float32)
    exact = base.astype(np.float64) ** exponent.astype(np.float64)
    normal = exact > np.exp(EXP_MIN) * 1.001
    found = power(base, exponent)
    assert ulps(found[normal], exact[normal]).max() <= 2
    assert (found[~normal] <= np.exp(EXP_MIN) * 1.01).all()


@given(st.floats(0, 1, width=32), st.floats(0, 16, width=32))
def test_a_power_of_a_share_is_a_share(base: float, exponent: float) -> None:
    found = power(np.array([base, base, 1.0], np.float32), np.array([exponent, 0.0, exponent], np.float32))
    assert 0 <= found[0] <= 1
    assert found[1] == 1
    assert found[2] == 1


def test_power_at_the_edge() -> None:
    base = np.array([0, 0, SMALLEST / 2, 2.0**-125, 0.25, 4], np.float32)
    exponent = np.array([0, 2, 0.5, 1, 0.5, 3], np.float32)
    np.testing.assert_array_equal(power(base, exponent), np.array([1, 0, 0, 2.0**-125, 0.5, 64], np.float32))


def test_power_falls_as_its_base_falls() -> None:
    base = np.linspace(0, 1, 20_001, dtype=np.float32)
    for exponent in np.array([0.3, 1, 2.7, 11], np.float32):
        assert (np.diff(power(base, np.full_like(base, exponent))) >= 0).all()


def test_nothing_but_basic_operations_is_called() -> None:
    """Transcendental functions of NumPy differ between processors."""
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(inspect.getsource(elementary)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert called <= {"astype", "view", "float32", "int32", "full_like", "where", "maximum", "minimum"}
