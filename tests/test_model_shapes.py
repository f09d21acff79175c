"""Networks that are counted: parameters and work against what was published, and arrays against hand counts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.job import Job
from rpucluster.model import Layer, Model
from rpucluster.model.convolution import Image, Pool, convolution
from rpucluster.model.presets import GPTS, SEQUENCE, VOCABULARY, image_network
from rpucluster.model.recurrent import gru, lstm
from rpucluster.model.transformer import Experts, block, gpt


def gpt_of(name: str) -> Model:
    return Model(layers=tuple(gpt(**GPTS[name]._asdict(), sequence=SEQUENCE, vocabulary=VOCABULARY)))


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("lenet5", 61_706),  # 156 + 2,416 + 48,120 + 10,164 + 850
        ("lenet5-rpu", 80_202),  # 416 + 12,832 + 65,664 + 1,290
        ("alexnet", 60_965_224),
        ("vgg16", 138_357_544),
        ("resnet50", 25_557_032),
    ],
)
def test_networks_for_images_have_their_published_parameters(preset: str, parameters: int) -> None:
    assert image_network(preset).parameters == parameters


@pytest.mark.parametrize(
    ("preset", "multiply_adds"),
    [
        ("alexnet", 0.724e9),  # Krizhevsky's two-group network
        ("vgg16", 15.47e9),
        ("resnet50", 3.86e9),  # He et al. 2015, table 1: 3.8 x 10^9
    ],
)
def test_networks_for_images_have_their_published_work(preset: str, multiply_adds: float) -> None:
    assert image_network(preset).macs == pytest.approx(multiply_adds, rel=1e-3)


def test_the_lenet_of_the_rpu_paper_has_its_arrays_and_vectors() -> None:
    layers = image_network("lenet5-rpu").layers
    assert [(layer.rows, layer.cols) for layer in layers] == [(16, 26), (32, 401), (128, 513), (10, 129)]
    assert [layer.positions for layer in layers] == [576, 64, 1, 1]


def test_the_first_array_of_alexnet_is_the_published_one() -> None:
    first, _ = convolution(
        Image(channels=3, height=227, width=227), name="conv1", filters=96, kernel=11, stride=4, bias="column"
    )
    assert (first.rows, first.cols, first.positions) == (96, 364, 3025)  # Haensch et al. 2019, section II


@pytest.mark.parametrize("name", GPTS)
def test_decoders_have_the_published_parameters(name: str) -> None:
    # Narayanan et al. 2021, equation 2, and the last norm, which it leaves out
    size = GPTS[name]
    width, depth = size.hidden, size.layers
    expected = 12 * depth * width**2 + 13 * depth * width + (VOCABULARY + SEQUENCE) * width + 2 * width
    assert gpt_of(name).parameters == expected


@pytest.mark.parametrize(
    ("name", "billions"), [("gpt3-175b", 174.6), ("gpt-530b", 529.6), ("gpt-1t", 1008.0), ("gpt-10t", 10080)]
)
def test_decoders_are_as_large_as_their_names(name: str, billions: float) -> None:
    assert gpt_of(name).parameters / 1e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.parametrize("name", ["gpt3-175b", "gpt-1t"])
def test_a_decoder_takes_the_published_operations(name: str) -> None:
    # Narayanan et al. 2021, section 5.1, for one sample: forward, backward twice that, blocks forward once more
    size, words = GPTS[name], VOCABULARY
    width, depth = size.hidden, size.layers
    published = 96 * SEQUENCE * depth * width**2 * (1 + SEQUENCE / (6 * width) + words / (16 * depth * width))
    *blocks, head = gpt_of(name).layers
    counted = 2 * (4 * sum(layer.macs + layer.digital_macs for layer in blocks) + 3 * head.macs)
    assert counted == pytest.approx(published, rel=1e-12)


def test_a_block_keeps_what_selective_recomputation_would_make_again() -> None:
    # Korthikanti et al. 2022, section 4: 5 a s^2 b of scores in bytes, of which softmax output is 2 bytes each
    layers = block(name="b", hidden=64, heads=4, tokens=32)
    assert layers[0].kept == 3 * 32 * 64 + 4 * 32**2


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 6))
def test_a_convolution_counts_every_window_that_fits(
    channels: int, filters: int, kernel: int, stride: int, padding: int, more: int
) -> None:
    side = kernel + more
    layer, given_on = convolution(
        Image(channels=channels, height=side, width=side + 1),
        name="c",
        filters=filters,
        kernel=kernel,
        stride=stride,
        padding=padding,
        bias="column",
    )
    corners = [
        (y, x)
        for y in range(-padding, side + padding - kernel + 1, stride)
        for x in range(-padding, side + 1 + padding - kernel + 1, stride)
    ]
    assert layer.positions == len(corners)
    assert (layer.rows, layer.cols) == (filters, kernel**2 * channels + 1)
    assert layer.outputs == given_on.elements == filters * len(corners)
    assert layer.macs == len(corners) * filters * (kernel**2 * channels + 1)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.data())
def test_blocks_of_columns_need_whole_channels_and_all_of_them_together(
    channels: int, kernel: int, filters: int, data: st.DataObject
) -> None:
    layer, _ = convolution(
        Image(channels=channels, height=8, width=7), name="c", filters=filters, kernel=kernel, padding=kernel
    )
    cut = data.draw(st.integers(0, layer.cols))
    left, right = layer.inputs_of((0, cut)), layer.inputs_of((cut, layer.cols))
    assert left[0] == 0
    assert right[1] == layer.inputs == channels * 56
    shared = left[1] - right[0]  # the channel that the cut goes through is needed on both sides
    assert shared == (0 if cut % kernel**2 == 0 else 56)


def test_pooling_and_norms_are_work_for_the_digital_units() -> None:
    image = Image(channels=2, height=6, width=6)
    plain, _ = convolution(image, name="c", filters=3, kernel=3, bias="none")
    pooled, out = convolution(image, name="c", filters=3, kernel=3, bias="none", pool=Pool(size=2, stride=2))
    normed, _ = convolution(image, name="c", filters=3, kernel=3, bias="none", batch_norm=True)
    assert plain.operations == 3 * 16  # one activation function each
    assert pooled.operations == plain.operations + 3 * 4 * 3  # three comparisons in each window
    assert out.elements == 3 * 4
    assert normed.operations == plain.operations + 7 * 3 * 16
    assert normed.parameters == plain.parameters + 2 * 3


def test_recurrent_layers_have_their_gates_in_one_array() -> None:
    one = lstm(name="l", inputs=50, units=64, steps=16)
    assert (one.rows, one.cols, one.positions) == (256, 50 + 64 + 1, 16)
    other = gru(name="g", inputs=50, units=64, steps=16)
    assert other.parameters == 3 * 64 * (50 + 64 + 1)
    assert other.positions == 2 * 16  # the candidate waits for the reset gate


def test_experts_share_the_tokens_out() -> None:
    layers = block(name="b", hidden=32, heads=2, tokens=10, experts=Experts(8, 2))
    up = layers[2]
    assert up.weights == 8 * 128 * 32
    assert up.macs == 10 * 2 * 128 * 32  # each token passes two
    assert [up.vectors(samples) for samples in (1, 2, 4)] == [3, 5, 10]  # 10 * 2 / 8 each, rounded up
    dense = block(name="b", hidden=32, heads=2, tokens=10)
    assert up.digital_parameters - dense[2].digital_parameters == 32 * 8  # the router


def spelled(*layers: dict[str, object]) -> tuple[Layer, ...]:
    tables = {
        "name": "spelled",
        "model": {"layer": list(layers)},
        "data": {"name": "none"},
        "train": {"epochs": 1, "learning_rate": 0.1},
    }
    return Job.model_validate(tables).network.layers


def test_a_network_spelled_out_is_that_of_the_preset() -> None:
    conv = {"kind": "convolution", "kernel": 5, "activation": "tanh", "bias": "column", "pool": 2}
    tail = {"activation": "tanh", "bias": "column"}
    layers = spelled(
        {**conv, "name": "conv1", "image": [1, 28, 28], "outputs": 16},
        {**conv, "name": "conv2", "outputs": 32},
        {**tail, "name": "dense1", "outputs": 128},
        {"name": "dense2", "outputs": 10, "bias": "column"},
    )
    assert layers == image_network("lenet5-rpu").layers


def test_a_decoder_spelled_out_differs_in_tied_weights_only() -> None:
    layers = spelled(
        {
            "kind": "transformer",
            "name": "block",
            "inputs": 64,
            "tokens": 16,
            "heads": 4,
            "blocks": 3,
            "vocabulary": 100,
        },
        {"kind": "logits", "outputs": 100},
    )
    whole = gpt(layers=3, hidden=64, heads=4, sequence=16, vocabulary=100)
    assert sum(layer.parameters for layer in layers) == sum(layer.parameters for layer in whole) + 100 * 64
    assert sum(layer.macs for layer in layers) == sum(layer.macs for layer in whole)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [{"kind": "convolution", "kernel": 3, "outputs": 4}],
            "[[model.layer]] convolution1 does not know its image; write image = [channels, height, width]",
        ),
        ([{"kind": "convolution", "image": [1, 8, 8], "outputs": 4}], 'kind = "convolution" needs kernel; write it'),
        (
            [{"kind": "convolution", "image": [1, 4, 4], "kernel": 5, "outputs": 4}],
            "a window of 5 x 5 does not fit an image of 4 x 4",
        ),
        (
            [{"kind": "convolution", "image": [3, 8, 8], "kernel": 3, "outputs": 4, "groups": 2}],
            "layer convolution1: 2 groups do not divide 3 channels and 4 filters",
        ),
        ([{"inputs": 4, "outputs": 4, "kernel": 5}], 'kernel is for kind = "convolution", not "dense"; remove it'),
        (
            [{"kind": "lstm", "outputs": 4}],
            "[[model.layer]] lstm1 does not know its input; write inputs and steps",
        ),
        (
            [{"kind": "transformer", "inputs": 10, "tokens": 4, "heads": 3}],
            "3 heads do not divide hidden = 10; write a divisor",
        ),
        (
            [{"kind": "transformer", "inputs": 8, "tokens": 4, "heads": 2, "experts": 2, "routed": 3}],
            "3 of 2 experts cannot be routed to; write at most as many",
        ),
        (
            [{"inputs": 4, "outputs": 4}, {"kind": "logits", "outputs": 9}],
            "[[model.layer]] logits2 stands behind no tokens; write a transformer before it",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused_in_words(layers: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        spelled(*layers)
