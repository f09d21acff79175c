"""Layer shapes: counts against the paper's, and chains that do not fit."""

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.model import MAX_LINES, MAX_WEIGHTS, Bias, Layer, Model, default_name, mlp
from rpucluster.model import dense as dense_layer

SIZES = st.lists(st.integers(1, 5000), min_size=2, max_size=6)


def dense(inputs: int, outputs: int, name: str | None = None, bias: Bias = "column") -> Layer:
    called = f"from {inputs}" if name is None else name
    return dense_layer(name=called, inputs=inputs, outputs=outputs, bias=bias)


@pytest.mark.parametrize(
    ("bias", "weights", "parameters"),
    [
        ("column", 235_146, 235_146),  # the paper's network with bias
        ("digital", 234_752, 235_146),  # the arrays hold no bias, the digital units do
        ("none", 234_752, 234_752),  # and without
    ],
)
def test_the_papers_network_has_its_weights(bias: Bias, weights: int, parameters: int) -> None:
    model = mlp([784, 256, 128, 10], "sigmoid", bias)
    assert (model.weights, model.parameters) == (weights, parameters)
    assert (model.inputs, model.outputs) == (784, 10)


@pytest.mark.parametrize(("bias", "cols"), [("column", 65), ("digital", 64), ("none", 64)])
def test_only_a_bias_column_widens_the_array(bias: Bias, cols: int) -> None:
    layer = dense(64, 10, bias=bias)
    assert (layer.rows, layer.cols) == (10, cols)


def test_the_preset_gives_hidden_layers_the_activation_and_the_softmax_its_logits() -> None:
    model = mlp([4, 3, 2, 5], "tanh")
    assert [layer.activation for layer in model.layers] == ["tanh", "tanh", "identity"]
    assert [layer.name for layer in model.layers] == ["dense1", "dense2", "dense3"] == [*map(default_name, range(3))]
    assert all(layer.tensor_split is None for layer in model.layers)
    assert model.loss == "softmax-cross-entropy"


@given(SIZES, st.sampled_from(["column", "digital", "none"]))
def test_counts_add_up_from_the_sizes_alone(sizes: list[int], bias: Bias) -> None:
    model = mlp(sizes, "relu", bias)
    products = sum(a * b for a, b in pairwise(sizes))
    biases = sum(sizes[1:]) if bias != "none" else 0
    assert model.parameters == products + biases
    assert model.weights == products + (biases if bias == "column" else 0)


def test_a_trillion_weights_are_counted_without_an_array() -> None:
    assert mlp([2**20, 2**20, 2**20], bias="none").weights == 2 * 2**40


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp([64]), "sizes = [64] makes no layer; write at least two, such as [64, 10]"),
        (lambda: mlp([64, 0]), "layer dense1 has 0 outputs; write a number from 1 to 2,147,483,646"),
        (lambda: dense(-1, 2), "layer from -1 has -1 inputs; write a number from 1 to 2,147,483,646"),
        (
            lambda: dense(MAX_LINES, 2),
            f"layer from {MAX_LINES} has {MAX_LINES} inputs; write a number from 1 to 2,147,483,646",
        ),
        (lambda: dense(1, 2, name=""), "a layer has an empty name; write one, or leave the key out"),
        (lambda: Model(layers=()), "the network has no layers; write at least one"),
        (
            lambda: Model(layers=(dense(4, 3), dense(2, 5))),
            "layer from 2 takes 2 inputs but from 4 before it gives 3 outputs; write 3, or leave inputs out",
        ),
        (
            lambda: Model(layers=(dense(3, 3), dense(3, 3))),
            "2 layers are named from 3; give each its own name",
        ),
        (
            lambda: mlp([10**7, 10**7, 1], bias="none"),
            "the network has 100,000,010,000,000 weights; at most 100,000,000,000,000 are taken",
        ),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_the_largest_network_is_taken() -> None:
    assert mlp([10**7, 10**7], bias="none").weights == MAX_WEIGHTS
