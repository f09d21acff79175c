"""Digital layers: every backward against finite differences, every value independent of how it is cut."""

import numpy as np
import pytest

from rpucluster.layers import ACTIVATIONS, softmax_cross_entropy


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backward_is_the_derivative(name: str, rng: np.random.Generator) -> None:
    function = ACTIVATIONS[name]
    y = rng.normal(0, 2, (5, 7))
    y[np.abs(y) < 1e-3] = 0.5  # the kink of relu has no derivative
    g = rng.normal(0, 1, (5, 7))
    h = 1e-6
    expected = g * (function.forward(np, y + h) - function.forward(np, y - h)) / (2 * h)
    found = function.backward(np, function.forward(np, y), g)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_block_of_outputs_has_the_bits_of_the_whole(name: str, rng: np.random.Generator) -> None:
    """Tensor ranks compute blocks of different widths, so vectorised loops must not change last bits."""
    y = rng.normal(0, 5, (3, 103)).astype(np.float32)
    function = ACTIVATIONS[name]
    whole = function.forward(np, y)
    errors = function.backward(np, whole, y)
    for start, stop in [(0, 1), (1, 18), (18, 67), (67, 103)]:
        block = np.ascontiguousarray(y[:, start:stop])
        assert function.forward(np, block).tobytes() == whole[:, start:stop].tobytes()
        assert function.backward(np, whole[:, start:stop], block).tobytes() == errors[:, start:stop].tobytes()


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu"])
def test_extreme_inputs_stay_finite(name: str) -> None:
    y = np.array([[-np.finfo(np.float32).max, -1e4, 0, 1e4]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        a = ACTIVATIONS[name].forward(np, y)
    assert np.isfinite(a).all()
    assert a.dtype == np.float32


def test_cross_entropy_against_its_definition(rng: np.random.Generator) -> None:
    y = rng.normal(0, 3, (6, 4))
    labels = rng.integers(0, 4, 6)
    powers = np.exp(y)
    p = powers / powers.sum(1, keepdims=True)
    loss, hits, delta = softmax_cross_entropy(np, y, labels)
    assert loss == pytest.approx(-np.log(p[np.arange(6), labels]).sum(), rel=1e-12)
    assert hits == (p.argmax(1) == labels).sum()
    np.testing.assert_allclose(delta, p - np.eye(4)[labels], atol=1e-12)


def test_cross_entropy_error_is_the_gradient_of_the_loss(rng: np.random.Generator) -> None:
    y, labels, h = rng.normal(0, 1, (3, 5)), np.array([0, 4, 2]), 1e-6
    _, _, delta = softmax_cross_entropy(np, y, labels)
    for i in range(3):
        for j in range(5):
            up, down = y.copy(), y.copy()
            up[i, j] += h
            down[i, j] -= h
            slope = (softmax_cross_entropy(np, up, labels)[0] - softmax_cross_entropy(np, down, labels)[0]) / (2 * h)
            assert delta[i, j] == pytest.approx(slope, abs=1e-8)


def test_errors_of_a_sample_sum_to_zero(rng: np.random.Generator) -> None:
    """Adding a constant to all logits changes nothing, so the gradient has no component along it."""
    _, _, delta = softmax_cross_entropy(np, rng.normal(0, 30, (50, 10)).astype(np.float32), rng.integers(0, 10, 50))
    np.testing.assert_allclose(delta.sum(1), 0, atol=1e-6)
