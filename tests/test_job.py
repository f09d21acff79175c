"""Jobs: what files say, what is checked before anything runs, and that a resolved job reads back equal."""

import dataclasses
import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.algorithms import Agad, MixedPrecision, OneSided, Sgd, TikiTakaV2, VectorCell
from rpucluster.cluster import load_cluster
from rpucluster.config import shipped, validated, write_toml
from rpucluster.devices import ConstantStep, FloatingPoint, PiecewiseStep, device_from
from rpucluster.errors import ConfigError
from rpucluster.job import JOB_TABLES, Job, load_job
from rpucluster.job.devices import DeviceSpec
from rpucluster.job.interval import Interval
from rpucluster.job.training import TrainSpec
from rpucluster.partitioner import partition
from rpucluster.tile import Management, UpdateSettings

LAYERS = [{"inputs": 64, "outputs": 32}, {"outputs": 10}]


def tables(**changes: dict[str, Any] | None) -> dict[str, Any]:
    """The tables of a small job; a None removes a key."""
    base: dict[str, dict[str, Any]] = {
        "model": {"preset": "mlp", "sizes": [64, 32, 10]},
        "data": {"name": "digits"},
        "train": {"epochs": 2, "learning_rate": 0.1},
    }
    merged: dict[str, Any] = {"name": "small"}
    for name in [*base, *(set(changes) - set(base))]:
        table = base.get(name, {}) | (changes.get(name) or {})
        merged[name] = {key: value for key, value in table.items() if value is not None}
    return merged


def layered(*layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"preset": None, "sizes": None, "layer": list(layers), **more}


def job(**changes: dict[str, Any] | None) -> Job:
    return validated(Job, tables(**changes), "digits.toml")


def refusal(**changes: dict[str, Any] | None) -> str:
    with pytest.raises(ConfigError) as caught:
        job(**changes)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("digits.toml: ")


# --- defaults and the design's example ---


def test_three_tables_are_enough() -> None:
    small = job()
    assert small.network.weights == 32 * 65 + 10 * 33
    assert small.device_of(0) == small.device_of(1) == ConstantStep()
    assert small.update == UpdateSettings()
    assert small.forward == small.backward == Management()
    assert (small.parallel.tensor, small.parallel.pipeline, small.parallel.data) == (1, 1, 1)
    assert (small.words.factor_bits, small.words.sum_bits, small.words.weight_bits) == (16, 32, 32)
    assert small.run.checkpoint_every == Interval(seconds=300.0)


def test_the_job_of_the_design_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "paper.toml"
    path.write_text("""
        [model]
        preset = "mlp"
        sizes = [784, 256, 128, 10]
        activation = "sigmoid"
        loss = "softmax-cross-entropy"
        [data]
        name = "mnist"
        path = "~/data/mnist"
        [train]
        epochs = 30
        minibatch = 1
        microbatch = 1
        learning_rate = [[0, 0.01], [10, 0.005], [20, 0.0025]]
        seed = 1
        [device]
        preset = "rpu-baseline"
        [update]
        bit_length = 10
        noise_per = "sample"
        [parallel]
        tensor = 2
        tensor_split = "auto"
        pipeline = 2
        virtual_stages = 1
        data = 1
        expert = 1
        schedule = "gpipe"
        data_sync = "factors"
        average_every = 64
        placement = ["tensor", "pipeline", "data"]
        [run]
        arrays = "auto"
        accelerators_per_worker = 1
        checkpoint_every = "5 min"
    """)
    paper = load_job(path)
    assert paper.name == "paper"
    assert paper.network.weights == 235_146
    assert paper.data.path == "~/data/mnist"
    assert [paper.train.learning_rate_at(epoch) for epoch in (0, 9, 10, 19, 20, 29)] == [
        0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025,
    ]  # fmt: skip
    assert paper.parallel.placement == ("tensor", "pipeline", "data")


def test_tables_of_a_job_are_those_of_the_design_and_of_no_cluster() -> None:
    assert JOB_TABLES == (
        "model", "data", "train", "device", "algorithm", "update", "forward",
        "backward", "parallel", "conventional", "words", "evaluate", "run",
    )  # fmt: skip
    assert not {"accelerator", "network"} & set(JOB_TABLES)


def test_the_name_is_the_files_unless_it_says_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(write_toml(job()))
    assert load_job(path).name == "small"
    path.write_text(path.read_text().replace('name = "small"\n', "", 1))
    assert load_job(path).name == "mine"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\nb"])
def test_a_name_must_name_a_run_directory(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(Job, tables() | {"name": name}, "digits.toml")
    assert str(caught.value) == (
        f"digits.toml: [name]: {name!r} cannot name a run directory; write a plain word, such as digits"
    )


# --- layers and devices ---


def test_layers_take_what_they_leave_out_from_their_surroundings() -> None:
    model = layered(
        {"inputs": 64, "outputs": 32},
        {"name": "wide", "outputs": 24, "activation": "relu", "bias": "none", "tensor_split": "input"},
        {"outputs": 10},
        activation="tanh",
        bias="digital",
    )
    first, wide, last = job(model=model).network.layers
    assert [(la.name, la.inputs, la.outputs) for la in (first, wide, last)] == [
        ("dense1", 64, 32), ("wide", 32, 24), ("dense3", 24, 10),
    ]  # fmt: skip
    assert [la.activation for la in (first, wide, last)] == ["tanh", "relu", "identity"]
    assert [la.bias for la in (first, wide, last)] == ["digital", "none", "digital"]
    assert [la.tensor_split for la in (first, wide, last)] == [None, "input", None]


def test_layers_spelled_out_make_the_same_network_as_the_preset() -> None:
    assert job(model=layered(*LAYERS)).network == job().network


def test_a_layers_device_overrides_the_jobs_or_starts_from_its_own_preset() -> None:
    model = layered(
        {"inputs": 64, "outputs": 32, "device": {"dw_min": 0.01}},
        {"outputs": 24, "device": {"preset": "ideal"}},
        {"outputs": 20, "device": {"preset": "floating-point"}},
        {"outputs": 10},
    )
    mixed = job(model=model, device={"dw_min_std": 0.1})
    assert [mixed.device_of(i) for i in range(4)] == [
        device_from("rpu-baseline", {"dw_min_std": 0.1, "dw_min": 0.01}),
        device_from("ideal", {}),
        FloatingPoint(),
        device_from("rpu-baseline", {"dw_min_std": 0.1}),
    ]


def test_parameters_of_a_device_may_be_curves_and_switches(tmp_path: Path) -> None:
    curve = {"preset": "piecewise-step", "piecewise_up": [1, 0.5, 0.1], "piecewise_down": [0.1, 0.5, 1.0]}
    curved = job(device={**curve, "log_normal": True}, model=layered(LAYERS[0], {"outputs": 10, "device": curve}))
    expected = PiecewiseStep(piecewise_up=(1.0, 0.5, 0.1), piecewise_down=(0.1, 0.5, 1.0))
    assert curved.device_of(0) == dataclasses.replace(expected, log_normal=True)
    assert curved.device_of(1) == expected
    (tmp_path / "job.toml").write_text(write_toml(curved))
    assert load_job(tmp_path / "job.toml").device_of(0) == curved.device_of(0)
    assert refusal(device={"preset": "piecewise-step", "piecewise_up": [1.0]}) == (
        "[device]: piecewise_up = (1.0,): write a list of 2 to 12 factors, such as [1.0, 0.5]"
    )
    assert refusal(device={"log_normal": 0.5}) == "[device]: log_normal = 0.5: write true or false"


def test_parameters_of_a_device_may_be_whole_numbers() -> None:
    assert job(device={"w_max": 1}).device_of(0) == device_from("rpu-baseline", {"w_max": 1.0})


# --- training algorithms and unit cells ---


def test_an_algorithm_is_a_kind_with_its_settings_flat_in_the_table(tmp_path: Path) -> None:
    agad = job(algorithm={"kind": "agad", "chop_every": 20, "auto_scale": True, "fast_learning_rate": 0.5})
    assert agad.algorithm_of(0) == Agad(chop_every=20, auto_scale=True, fast_learning_rate=0.5)
    path = tmp_path / "agad.toml"
    path.write_text(write_toml(agad))
    assert load_job(path) == agad
    assert job().algorithm_of(0) == Sgd()
    changed = load_job(path, ["algorithm.chop_every=5"])
    assert changed.algorithm_of(1) == Agad(chop_every=5, auto_scale=True, fast_learning_rate=0.5)


def test_a_layer_may_be_trained_another_way_and_exact_weights_plainly() -> None:
    second = {"outputs": 10, "algorithm": {"kind": "mixed_precision"}}
    third = {"outputs": 10, "device": {"preset": "floating-point"}}
    layers = job(model=layered({"inputs": 64, "outputs": 32}, second, third), algorithm={"kind": "tiki_taka_v2"})
    assert [layers.algorithm_of(i) for i in range(3)] == [TikiTakaV2(), MixedPrecision(), Sgd()]
    # two planes of 12 bytes and a buffer; a plane and its digital matrix; float32
    assert [layers.bytes_per_weight(i) for i in range(3)] == [28, 16, 4]
    # a weight, the hidden one behind it, and eight lanes
    assert job(device={"preset": "reram-sb", "write_noise": 1.0, "stuck": 0.1}).bytes_per_weight(0) == 24


def test_the_plane_of_gradients_may_have_devices_of_its_own() -> None:
    own = {"outputs": 10, "device": {"dw_min": 0.005}}
    apart = job(model=layered({"inputs": 64, "outputs": 32}, own), device={"w_max": 0.7, "fast": {"dw_min": 0.002}})
    assert apart.fast_device_of(0) == ConstantStep(w_max=0.7, dw_min=0.002)
    assert apart.device_of(0) == ConstantStep(w_max=0.7)
    assert apart.fast_device_of(1) == apart.device_of(1) == ConstantStep(w_max=0.7, dw_min=0.005)


def test_several_devices_make_a_weight() -> None:
    assert job(device={"devices_per_weight": 3, "device_choice": "cyclic"}).algorithm_of(0) == VectorCell(
        devices=3, choice="cyclic"
    )
    assert job(device={"one_sided": True, "refresh_every": 7}).algorithm_of(1) == OneSided(refresh_every=7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"algorithm": {"kind": "tiki_taka_v3"}},
            '[algorithm]: kind = "tiki_taka_v3" is no algorithm; did you mean tiki_taka_v2?',
        ),
        (
            {"algorithm": {"kind": "agad", "tail_wait": 3}},
            '[algorithm]: kind = "agad" has no setting tail_wait; did you mean tail_weight?',
        ),
        (
            {"algorithm": {"kind": "agad"}, "device": {"devices_per_weight": 2}},
            '[device] has several devices per weight, which [algorithm] kind = "agad" does not train; '
            'write kind = "sgd", or devices_per_weight = 1 and one_sided = false',
        ),
        (
            {"algorithm": {"kind": "agad"}, "update": {"noise_per": "batch"}},
            '[update] noise_per = "batch" but [algorithm] kind = "agad" works sample by sample; write "sample"',
        ),
        (
            {"device": {"one_sided": True, "devices_per_weight": 2}},
            "[device]: one_sided = true is two devices per weight already; leave devices_per_weight out",
        ),
        (
            {"device": {"one_sided": True, "refresh_upper": 2.0}},
            "[device]: refresh_upper = 2.0: write a number of at least 0 and below 1, such as 0.1",
        ),
        (
            {"device": {"fast": {"preset": "floating-point"}}},
            "[device]: [device.fast] has exact weights; write a preset of devices with pulses",
        ),
    ],
)
def test_algorithms_and_cells_that_do_not_fit_are_refused(changes: Any, message: str) -> None:
    assert refusal(**changes) == message


# --- learning rate ---


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(1e-6, 10)), max_size=5), st.floats(1e-6, 10))
def test_the_rate_of_an_epoch_is_the_last_one_that_has_begun(steps: list[tuple[int, float]], first: float) -> None:
    begins = {0: first} | dict(sorted(steps))
    train = TrainSpec(epochs=60, learning_rate=tuple(begins.items()))
    for epoch in range(60):
        assert train.learning_rate_at(epoch) == begins[max(e for e in begins if e <= epoch)]


def test_one_rate_holds_for_all_epochs() -> None:
    assert job(train={"learning_rate": 1}).train.learning_rate_at(7) == 1.0


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (0, "0 is no learning rate; write one above 0, or [[0, 0.01], [10, 0.005]]"),
        (-0.1, "-0.1 is no learning rate; write one above 0, or [[0, 0.01], [10, 0.005]]"),
        (True, "True is no learning rate; write one above 0, or [[0, 0.01], [10, 0.005]]"),
        ("0.1", "'0.1' is no learning rate; write one above 0, or [[0, 0.01], [10, 0.005]]"),
        (float("inf"), "inf is no learning rate; write one above 0, or [[0, 0.01], [10, 0.005]]"),
        (float("nan"), "nan is no learning rate; write one above 0, or [[0, 0.01], [10, 0.005]]"),
        ([], "the schedule is empty; write [0, rate] first"),
        ([[1, 0.1]], "the schedule starts at epoch 1; write [0, rate] first"),
        ([0.1, 0.2], "0.1 is not [epoch, rate]; write [[0, 0.01], [10, 0.005]] or the like"),
        ([[0, 0.1, 2]], "[0, 0.1, 2] is not [epoch, rate]; write [[0, 0.01], [10, 0.005]] or the like"),
        ([[0.0, 0.1]], "[0.0, 0.1] is not [epoch, rate]; write [[0, 0.01], [10, 0.005]] or the like"),
        ([[0, "a"]], "'a' is no learning rate; write one above 0, or [[0, 0.01], [10, 0.005]]"),
        ([[0, 0.1], [5, 0.1], [5, 0.2]], "epoch 5 stands after epoch 5; write epochs in ascending order"),
    ],
)
def test_what_is_no_learning_rate(rate: Any, message: str) -> None:
    assert refusal(train={"learning_rate": rate}) == f"[train] learning_rate: {message}"


# --- messages ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"sizes": [64]}},
            "[model]: sizes = [64] makes no layer; write at least two, such as [64, 10]",
        ),
        ({"model": {"sizes": [64, 0]}}, "[model] sizes #2 = 0: input should be greater than or equal to 1"),
        ({"model": {"sizes": [64, 1.5]}}, "[model] sizes #2 = 1.5: input should be a valid integer"),
        ({"model": {"sizes": 64}}, "[model] sizes = 64: input should be an array"),
        (
            {"model": {"sizes": None}},
            '[model]: sizes is missing; write preset = "mlp" and sizes = [64, 10], or [[model.layer]] tables',
        ),
        (
            {"model": {"preset": None}},
            '[model]: preset is missing; write preset = "mlp" and sizes = [64, 10], or [[model.layer]] tables',
        ),
        (
            {"model": {"layer": LAYERS}},
            "[model]: preset with sizes and [[model.layer]] are two ways to say it; keep one of them",
        ),
        ({"model": layered()}, "[model]: the network has no layers; write at least one"),
        (
            {"model": layered({"outputs": 10})},
            "[model]: the first [[model.layer]] has no inputs; write the features of a sample",
        ),
        (
            {"model": layered(LAYERS[0], {"inputs": 31, "outputs": 10})},
            "[model]: layer dense2 takes 31 inputs but dense1 before it gives 32 outputs; "
            "write 32, or leave inputs out",
        ),
        (
            {"model": layered(LAYERS[0], {"name": "dense1", "outputs": 10})},
            "[model]: 2 layers are named dense1; give each its own name",
        ),
        (
            {"model": layered(LAYERS[0], {"output": 10})},
            '[model.layer #2] output: unknown key; did you mean "outputs"?',
        ),
        (
            {"model": layered(LAYERS[0], {"kind": "conv", "outputs": 10})},
            "[model.layer #2] kind = \"conv\": input should be 'dense', 'convolution', 'lstm', 'gru', 'transformer' or "
            "'logits'",
        ),
        (
            {"model": layered(LAYERS[0], {"outputs": 10, "device": {"dw_mn": 0.1}})},
            "[model.layer.device] of dense2: ConstantStep has no parameter dw_mn; did you mean dw_min?",
        ),
        (
            {"model": {"sizes": [10**7, 10**7, 10**7]}},
            "[model]: the network has 200,000,020,000,000 weights; at most 100,000,000,000,000 are taken",
        ),
        (
            {"model": {"activation": "gelu"}},
            "[model] activation = \"gelu\": input should be 'sigmoid', 'tanh', 'relu' or 'identity'",
        ),
        (
            {"data": {"name": "minst"}},
            "[data] name = \"minst\": input should be 'digits', 'mnist', 'parquet' or 'none'",
        ),
        ({"data": {"path": "x"}}, '[data]: path is for name = "mnist" or "parquet", not "digits"; remove it'),
        (
            {"data": {"name": "mnist", "path": "x", "test_fraction": 0.1}},
            '[data]: test_fraction is for name = "parquet", not "mnist"; remove it',
        ),
        (
            {"data": {"name": "mnist"}},
            '[data]: name = "mnist" needs path; write the directory with its IDX files',
        ),
        ({"data": {"name": "parquet"}}, '[data]: name = "parquet" needs path; write the file to train on'),
        (
            {"data": {"name": "parquet", "path": "x"}},
            '[data]: name = "parquet" needs test_path or test_fraction, neither written; write one of them',
        ),
        (
            {"data": {"name": "parquet", "path": "x", "test_path": "y", "test_fraction": 0.5}},
            '[data]: name = "parquet" needs test_path or test_fraction, both written; write one of them',
        ),
        (
            {"data": {"name": "parquet", "path": "x", "test_fraction": 1}},
            "[data] test_fraction = 1: input should be less than 1",
        ),
        (
            {"data": {"train_samples": 0}},
            "[data] train_samples = 0: input should be greater than or equal to 1",
        ),
        ({"train": {"epochs": 0}}, "[train] epochs = 0: input should be greater than or equal to 1"),
        ({"train": {"epochs": None}}, "[train] epochs: missing; write it"),
        ({"train": {"epochs": None, "epoch": 3}}, '[train] epoch: unknown key; did you mean "epochs"?'),
        (
            {"train": {"minibatch": 8, "microbatch": 3}},
            "[train]: microbatch = 3 does not divide minibatch = 8; write 2",
        ),
        (
            {"train": {"minibatch": 8, "microbatch": 16}},
            "[train]: microbatch = 16 does not divide minibatch = 8; write 8",
        ),
        ({"train": {"seed": -1}}, "[train] seed = -1: input should be greater than or equal to 0"),
        (
            {"train": {"seed": 2**63}},
            f"[train] seed = {2**63}: input should be less than or equal to {2**63 - 1}",
        ),
        ({"train": {"initial_scale": 0}}, "[train] initial_scale = 0: input should be greater than 0"),
        (
            {"train": {"initial_scale": float("inf")}},
            "[train] initial_scale = Infinity: input should be a finite number",
        ),
        (
            {"device": {"preset": "idael"}},
            '[device]: preset = "idael" is no device; did you mean ideal?',
        ),
        ({"device": {"dw_mn": 0.1}}, "[device]: ConstantStep has no parameter dw_mn; did you mean dw_min?"),
        ({"device": {"dw_min": "0.1"}}, '[device] dw_min = "0.1": input should be a valid number'),
        ({"device": {"dw_min": -1}}, "[device]: dw_min = -1.0: write a number above 0, such as 0.001"),
        ({"update": {"bitlength": 3}}, '[update] bitlength: unknown key; did you mean "bit_length"?'),
        ({"update": {"noise_per": "x"}}, "[update] noise_per = \"x\": input should be 'sample' or 'batch'"),
        (
            {"forward": {"noise_management": "max"}},
            "[forward] noise_management = \"max\": input should be 'none', 'abs_max', 'average_abs_max' or 'constant'",
        ),
        (
            {"backward": {"noise_managment": 1}},
            '[backward] noise_managment: unknown key; did you mean "noise_management"?',
        ),
        ({"parallel": {"tensor": 0}}, "[parallel] tensor = 0: input should be greater than or equal to 1"),
        ({"parallel": {"tensr": 2}}, '[parallel] tensr: unknown key; did you mean "tensor"?'),
        (
            {"parallel": {"schedule": "interleaved"}},
            '[parallel]: schedule = "interleaved" needs virtual_stages of at least 2; write them, or "1f1b"',
        ),
        (
            {"parallel": {"schedule": "async", "virtual_stages": 2}},
            '[parallel]: virtual_stages = 2 is for schedule = "interleaved", not "async"; write 1',
        ),
        (
            {"parallel": {"schedule": "x"}},
            "[parallel] schedule = \"x\": input should be 'gpipe', '1f1b', 'interleaved' or 'async'",
        ),
        (
            {"parallel": {"data_sync": "dense"}},
            "[parallel] data_sync = \"dense\": input should be 'factors', 'gradient' or 'average'",
        ),
        *(
            (
                {"parallel": {"data_sync": "gradient"}, **several},
                '[parallel] data_sync = "gradient" programs single devices with [algorithm] kind = "sgd", which '
                'dense1 does not have; write "factors" or "average"',
            )
            for several in (
                {"algorithm": {"kind": "tiki_taka"}},
                {"algorithm": {"kind": "mixed_precision"}},
                {"device": {"devices_per_weight": 2}},
                {"device": {"one_sided": True}},
            )
        ),
        (
            {"parallel": {"virtual_stages": 2}},
            '[parallel]: virtual_stages = 2 is for schedule = "interleaved", not "gpipe"; write 1',
        ),
        (
            {"parallel": {"average_every": 0}},
            "[parallel] average_every = 0: input should be greater than or equal to 1",
        ),
        (
            {"parallel": {"placement": ["data", "data", "tensor"]}},
            '[parallel] placement: ["data", "data", "tensor"] must name "tensor", "pipeline" and "data" '
            "once each, innermost axis first",
        ),
        ({"words": {"sum_bits": 65}}, "[words] sum_bits = 65: input should be less than or equal to 64"),
        ({"evaluate": {"every": 0}}, "[evaluate] every = 0: input should be greater than or equal to 1"),
        ({"run": {"arrays": "jax"}}, "[run] arrays = \"jax\": input should be 'auto', 'numpy' or 'cupy'"),
        (
            {"run": {"checkpoint_every": 5}},
            '[run] checkpoint_every: 5 is neither steps nor a time; write "200 steps" or "5 min"',
        ),
        (
            {"run": {"checkpoint_every": "0 steps"}},
            '[run] checkpoint_every: "0 steps" is neither steps nor a time; write "200 steps" or "5 min"',
        ),
        ({"trian": {"epochs": 5}}, '[trian]: unknown key; did you mean "train"?'),
    ],
)
def test_mistakes_give_one_line(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == message


@pytest.mark.parametrize("table", ["model", "data", "train"])
def test_the_three_tables_are_needed(table: str) -> None:
    left = {name: content for name, content in tables().items() if name != table}
    with pytest.raises(ConfigError) as caught:
        validated(Job, left, "digits.toml")
    assert str(caught.value) == f"digits.toml: [{table}]: missing; write it"


# --- loading ---


@pytest.mark.parametrize("name", shipped("job"))
def test_shipped_jobs_load_and_read_back_equal(name: str, tmp_path: Path) -> None:
    loaded = load_job(name)
    (tmp_path / "again.toml").write_text(write_toml(loaded))
    assert loaded.name == name
    assert load_job(tmp_path / "again.toml") == loaded


def test_shipped_jobs_are_what_they_say() -> None:
    paper = load_job("mnist_paper")
    assert paper.network.weights == 235_146
    assert paper.train.minibatch == 1
    assert [paper.train.learning_rate_at(epoch) for epoch in (0, 10, 29)] == [0.01, 0.005, 0.0025]
    assert 10**6 < load_job("mlp_wide").network.weights < 10**7
    assert load_job("mlp_1b").network.weights >= 10**9
    digits = load_job("digits").parallel
    assert digits.tensor * digits.pipeline * digits.data == 4


@pytest.mark.parametrize(
    ("name", "cluster", "accelerators"),
    [
        ("digits", "laptop", 4),
        ("mnist_paper", "paper_chip", 1),
        ("mnist_agad", "paper_chip", 1),
        ("mlp_wide", "ring8", 8),
        ("mlp_1b", "ring8", 8),
    ],
)
def test_shipped_jobs_fill_the_clusters_that_they_name(name: str, cluster: str, accelerators: int) -> None:
    loaded = load_job(name)
    # every degree is really used: no rank is left without tiles
    assert len(partition(loaded, load_cluster(cluster)).accelerators) == accelerators
    assert loaded.parallel.tensor * loaded.parallel.pipeline * loaded.parallel.data == accelerators


def test_the_main_job_shows_every_key() -> None:
    # its comments are where users learn the keys, so none may be missing; tables of presets are open
    written = tomllib.loads(shipped("job")["digits"].read_text(encoding="utf-8"))
    missing = []
    for table in JOB_TABLES:
        known = tomllib.loads(write_toml(load_job("digits"))).get(table, {})
        missing += [f"{table}.{key}" for key in known if key not in written.get(table, {})]
    assert missing == ["data.image_column", "data.label_column"]


def test_overrides_are_applied_in_order_before_anything_is_checked() -> None:
    sets = ["train.epochs=0", "train.epochs=3", "device.preset=ideal", "run.checkpoint_every=10 s"]
    changed = load_job("digits", sets)
    assert changed.train.epochs == 3
    assert changed.device == DeviceSpec(preset="ideal")
    assert changed.run.checkpoint_every == Interval(seconds=10.0)
    assert load_job("digits", ["train.minibatch=6", "train.microbatch=3"]).train.minibatch == 6


def test_an_override_reaches_a_layer_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "layers.toml"
    named = layered({"name": "first", "inputs": 64, "outputs": 32}, {"name": "second", "outputs": 10})
    path.write_text(write_toml(job(model=named)))
    changed = load_job(path, ["model.layer.second.device.dw_min=0.01", "model.layer.first.bias=none"])
    assert changed.device_of(1) == device_from("rpu-baseline", {"dw_min": 0.01})
    assert changed.network.layers[0].bias == "none"


def test_a_wrong_override_is_named(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(write_toml(job()))
    with pytest.raises(ConfigError) as caught:
        load_job(path, ["train.epoch=3"])
    assert str(caught.value) == (f'{path} with --set train.epoch=3: [train] epoch: unknown key; did you mean "epochs"?')


# --- round trips ---


@given(
    minibatch=st.integers(1, 12),
    rates=st.one_of(
        st.floats(1e-9, 10),
        st.lists(st.floats(1e-9, 10), min_size=1, max_size=4).map(
            lambda rates: [[2 * i, r] for i, r in enumerate(rates)]
        ),
    ),
    device=st.fixed_dictionaries({}, optional={"dw_min": st.floats(1e-6, 0.1), "w_max": st.floats(0.1, 2)}),
    placement=st.permutations(["tensor", "pipeline", "data"]),
    checkpoint=st.floats(0, allow_nan=False).map(lambda s: f"{s!r} s")
    | st.integers(1, 10**18 - 1).map(lambda n: f"{n} steps"),
)
def test_any_job_reads_back_equal(
    minibatch: int, rates: Any, device: dict[str, float], placement: list[str], checkpoint: str
) -> None:
    original = job(
        model=layered({"inputs": 64, "outputs": 32, "device": device}, {"outputs": 10, "bias": "digital"}),
        train={"minibatch": minibatch, "learning_rate": rates},
        device=device,
        parallel={"placement": placement},
        run={"checkpoint_every": checkpoint},
    )
    assert original.train.microbatch == minibatch
    again = validated(Job, tomllib.loads(write_toml(original)), "again")
    assert again == original
    assert [again.device_of(i) for i in range(2)] == [original.device_of(i) for i in range(2)]


def test_a_job_survives_pickling() -> None:
    original = job(device={"dw_min": 0.01}, model=layered(*LAYERS))
    assert original.network is original.network  # counted once
    again = pickle.loads(pickle.dumps(original))
    assert again == original
    assert again.device_of(0) == original.device_of(0)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ({"preset": "reram-sb"}, "the step of SoftBounds depends on its weight"),
        ({"stuck": 0.1}, "stuck = 0.1 is performed pulse by pulse"),
        ({"write_noise": 2.0}, "write_noise = 2.0 is performed pulse by pulse"),
    ],
)
def test_one_draw_of_noise_for_a_batch_is_for_plain_devices(device: dict[str, Any], said: str) -> None:
    assert refusal(device=device, update={"noise_per": "batch"}) == (
        f'[device] of dense1: noise_per = "batch", but {said}'
        f'{", which changes within a batch" if "depends" in said else ""}; write noise_per = "sample"'
    )


@pytest.mark.parametrize("kind", ["tiki_taka", "agad", "mixed_precision"])
def test_half_selected_pulses_of_single_lines_are_refused(kind: str) -> None:
    assert refusal(device={"half_select": 0.1}, algorithm={"kind": kind}) == (
        f'[device] of dense1: half_select = 0.1 is not modelled where kind = "{kind}" writes single lines; leave it '
        f'out, or write kind = "sgd"'
    )


def test_updates_without_pulses_are_for_single_devices() -> None:
    assert job(update={"pulses": "none"}).update.pulses == "none"
    assert refusal(update={"pulses": "none"}, algorithm={"kind": "tiki_taka"}) == (
        '[update] pulses = "none" trains single devices by [algorithm] kind = "sgd", which dense1 does not have; write '
        'pulses = "stochastic"'
    )
