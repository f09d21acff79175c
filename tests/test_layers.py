"""Digital layers: against closed forms in float64, compiled against written, independent of how they are cut."""

import numpy as np
import pytest

from rpucluster.errors import NumericalError
from rpucluster.kernels import Kernels, cpu_digital
from rpucluster.kernels.cuda import CudaKernels
from rpucluster.kernels.cuda_digital import CudaDigital
from rpucluster.kernels.digital import HostDigital
from rpucluster.layers import ACTIVATIONS, softmax_cross_entropy


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


EXACT = {
    "identity": (lambda y: y, np.ones_like),
    "sigmoid": (lambda y: 1 / (1 + np.exp(-y)), lambda y: np.exp(-y) / (1 + np.exp(-y)) ** 2),
    "tanh": (np.tanh, lambda y: 1 / np.cosh(y) ** 2),
    "relu": (lambda y: np.maximum(y, 0), lambda y: (y > 0).astype(float)),
}
"""Function and derivative in float64."""


def units(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units in the last place of float32."""
    return float(np.max(np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(float)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_functions_are_accurate(name: str, rng: np.random.Generator) -> None:
    y = np.concatenate([rng.normal(0, scale, 50_000) for scale in (1e-3, 1, 10)]).astype(np.float32)
    assert units(ACTIVATIONS[name].forward(np, y), EXACT[name][0](y.astype(float))) < 3


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backward_is_the_derivative(name: str, rng: np.random.Generator) -> None:
    function = ACTIVATIONS[name]
    y, g = rng.normal(0, 2, (5, 70)).astype(np.float32), rng.normal(0, 1, (5, 70)).astype(np.float32)
    found = function.backward(np, function.forward(np, y), g)
    np.testing.assert_allclose(found, g * EXACT[name][1](y.astype(float)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_compiled_functions_have_the_same_bits(name: str, rng: np.random.Generator) -> None:
    edges = [0.0, -0.0, 0.625, -0.625, 1, -1, 80, -80, 87, -87, 88, -88, 1e-30, 2.0**22, -(2.0**22)]
    y = np.concatenate([rng.normal(0, 5, 1003), rng.normal(0, 0.1, 1003), edges]).astype(np.float32)
    g = rng.normal(0, 1, y.size).astype(np.float32)
    function = ACTIVATIONS[name]
    a, delta = y.copy(), np.empty_like(y)
    cpu_digital.activate(function.code, a)
    assert a.tobytes() == function.forward(np, y).tobytes()
    cpu_digital.derive(function.code, a, g, delta)
    assert delta.tobytes() == function.backward(np, a, g).tobytes()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_cuda_functions_have_the_same_bits(name: str, all_kernels: list[Kernels], rng: np.random.Generator) -> None:
    """On windows of larger arrays, as a tape has them."""
    units = [HostDigital(), *(CudaDigital(np, k._function) for k in all_kernels if isinstance(k, CudaKernels))]
    sums = np.zeros((7, 300), np.int64)
    sums[:, 20:287] = rng.normal(0, 3 * 2.0**40, (7, 267)).astype(np.int64)
    bias, errors = rng.normal(0, 1, 267).astype(np.float32), rng.normal(0, 1, (7, 270)).astype(np.float32)
    found = []
    for digital in units:
        numbers, a, delta = (np.full((7, 301), np.nan, np.float32) for _ in range(3))
        digital.convert(sums[:, 20:287], numbers[:, 3:270])
        digital.activate(name, sums[:, 20:287], bias, a[:, 3:270])
        digital.derive(name, a[:, 3:270], errors[:, 2:269], delta[:, 3:270])
        found.append([part.tobytes() for part in (numbers, a, delta)])
        with pytest.raises(NumericalError, match="has reached"):
            digital.activate(name, np.full((1, 3), 1 << 62), None, np.empty((1, 3), np.float32))
    assert all(other == found[0] for other in found)


def test_cuda_loss_has_the_same_error(all_kernels: list[Kernels], rng: np.random.Generator) -> None:
    y, labels = rng.normal(0, 9, (150, 12)).astype(np.float32), rng.integers(0, 11, 150)
    loss, hits, delta = softmax_cross_entropy(np, y[:, :11].copy(), labels)
    for kernels in all_kernels:
        if isinstance(kernels, CudaKernels):
            error = np.zeros_like(y)
            found = CudaDigital(np, kernels._function).score(y[:, :11], labels, error[:, 1:])
            assert error[:, 1:].tobytes() == delta.tobytes()
            assert found == (pytest.approx(loss, rel=1e-12), hits)


def test_compiled_loss_has_the_same_error(rng: np.random.Generator) -> None:
    """Bit for bit; the loss itself, which nothing is trained with, to rounding of float64."""
    for classes, scale in [(1, 1), (2, 1), (10, 5), (117, 40)]:
        y = rng.normal(0, scale, (20, classes)).astype(np.float32)
        y[3] = 0.5  # a tie: the first class wins
        labels = rng.integers(0, classes, 20)
        error = np.empty_like(y)
        scored = [cpu_digital.score(y[b], labels[b], error[b]) for b in range(20)]
        loss, hits, delta = softmax_cross_entropy(np, y, labels)
        assert error.tobytes() == delta.tobytes()
        assert sum(of_sample for of_sample, _ in scored) == pytest.approx(loss, rel=1e-12)
        assert sum(hit for _, hit in scored) == hits


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
    y = rng.normal(0, 3, (600, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 600)
    powers = np.exp(y.astype(float))
    p = powers / powers.sum(1, keepdims=True)
    loss, hits, delta = softmax_cross_entropy(np, y, labels)
    assert loss == pytest.approx(-np.log(p[np.arange(600), labels]).sum(), rel=1e-6)
    assert hits == (p.argmax(1) == labels).sum()
    np.testing.assert_allclose(delta, p - np.eye(4)[labels], atol=3e-7)


def test_errors_of_a_sample_sum_to_zero(rng: np.random.Generator) -> None:
    """Adding a constant to all logits changes nothing, so the gradient has no component along it."""
    _, _, delta = softmax_cross_entropy(np, rng.normal(0, 30, (50, 10)).astype(np.float32), rng.integers(0, 10, 50))
    np.testing.assert_allclose(delta.sum(1), 0, atol=1e-6)
