"""One experiment, whatever the plan and the executor: the weights agree bit for bit.

All imperfections are on.  Each case trains an epoch and compares the digest of the weights with that of one
accelerator that does everything.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpucluster.coordinator import run
from rpucluster.job import Job
from tests.specs import make_cluster, make_job

PLANS = {
    "tensor 2, outputs": {"tensor": 2, "tensor_split": "output"},
    "tensor 2, inputs": {"tensor": 2, "tensor_split": "input"},
    "tensor 3, auto": {"tensor": 3},
    "pipeline 2": {"pipeline": 2},
    "pipeline 3, 1f1b": {"pipeline": 3, "schedule": "1f1b"},
    "tensor 2 x pipeline 2": {"tensor": 2, "pipeline": 2},
    "tensor 2 (inputs) x pipeline 2, 1f1b": {
        "tensor": 2,
        "pipeline": 2,
        "tensor_split": "input",
        "schedule": "1f1b",
    },
}


def trained(folder: Path, job: Job, executor: str = "local", accelerators: int = 4) -> dict[str, Any]:
    found = run(job, make_cluster(accelerators), executor=executor, out=folder / "run")  # type: ignore[arg-type]
    return found.summary


@cache
def of_one_accelerator(folder: Path, noise_per: str, bias: str) -> dict[str, Any]:
    job = make_job(update={"noise_per": noise_per}, model={"bias": bias})
    return trained(folder / f"one {noise_per} {bias}", job, accelerators=4)


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("same-math")


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
@pytest.mark.parametrize("bias", ["column", "digital"])
@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_does_not_change_the_experiment(
    plan: str, noise_per: str, bias: str, tmp_path: Path, session_folder: Path
) -> None:
    job = make_job(parallel=PLANS[plan], update={"noise_per": noise_per}, model={"bias": bias})
    found = trained(tmp_path, job)
    expected = of_one_accelerator(session_folder, noise_per, bias)
    assert found["accelerators"] > expected["accelerators"] == 1
    for key in ("weights_sha256", "train_loss", "test_loss", "test_accuracy"):
        assert found[key] == expected[key], key


ALGORITHMS: dict[str, dict[str, Any]] = {
    "tiki_taka": {"algorithm": {"kind": "tiki_taka", "gamma": 0.5, "transfer_every": 3}},
    "tiki_taka_v2": {"algorithm": {"kind": "tiki_taka_v2", "transfer_columns": 2, "read_noise": 0.1}},
    "chopped_tiki_taka_v2": {"algorithm": {"kind": "chopped_tiki_taka_v2", "chop_every": 2, "transfer_rate": 3.0}},
    "agad": {
        "algorithm": {"kind": "agad", "chop_every": 2, "auto_scale": True, "fast_learning_rate": 0.5},
        "device": {"fast": {"dw_min": 0.004}},
    },
    "mixed_precision": {"algorithm": {"kind": "mixed_precision", "flush_every": 3}},
    "three devices": {"device": {"devices_per_weight": 3, "device_choice": "cyclic"}},
    "one-sided pairs": {"device": {"one_sided": True, "refresh_every": 3, "refresh_upper": 0.1, "refresh_lower": 0.0}},
    # so few pairs are refreshed that some shards have none: the noise of the next ones must not tell
    "pairs written with noise": {
        "device": {
            "one_sided": True,
            "write_noise": 1.0,
            "refresh_every": 2,
            "refresh_upper": 0.25,
            "refresh_lower": 0.0,
        }
    },
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_plan_does_not_change_an_algorithm(algorithm: str, tmp_path: Path) -> None:
    """Pointers, signs, buffers and scales belong to tiles, wherever these are."""
    plans: list[dict[str, Any]] = [
        {},
        {"tensor": 2, "tensor_split": "output"},
        {"tensor": 2, "tensor_split": "input", "pipeline": 2, "schedule": "1f1b"},
    ]
    found = [
        trained(tmp_path / str(i), make_job(parallel=plan, **ALGORITHMS[algorithm])) for i, plan in enumerate(plans)
    ]
    digests = {summary["weights_sha256"] for summary in found}
    assert len(digests) == 1
    assert digests != {trained(tmp_path / "plain", make_job())["weights_sha256"]}
    for key in ("coincidences", "line_passes", "line_slots", "line_pulses"):
        assert len({summary["counts"][key] for summary in found}) == 1, key


def test_algorithms_see_the_same_factors_on_replicas_as_on_one_accelerator(tmp_path: Path) -> None:
    """Replicas that share factors share transfers too: signs, pointers and the noise of their reads."""
    same: dict[str, Any] = {
        "device": {"preset": "ideal"},
        "algorithm": {"kind": "chopped_tiki_taka_v2", "chop_every": 2, "transfer_rate": 3.0, "transfer_every": 3},
    }
    apart = make_job(train={"minibatch": 8, "microbatch": 4}, parallel={"data": 2}, **same)
    alone = make_job(train={"minibatch": 16, "microbatch": 4}, **same)
    found, expected = trained(tmp_path / "apart", apart), trained(tmp_path / "alone", alone)
    assert found["weights_sha256"] == expected["weights_sha256"]


@pytest.mark.parametrize("tensor", [1, 2])
def test_interleaving_does_not_change_the_experiment(tensor: int, tmp_path: Path) -> None:
    """Six layers in 2 x 3, 3 x 2 and 1 x 6 runs: updates come after the last backward, as under the other schedules."""
    six = {"sizes": [64, 24, 20, 18, 20, 17, 10]}
    train = {"minibatch": 12, "microbatch": 2}
    expected = trained(tmp_path / "one", make_job(model=six, train=train))
    for pipeline, chunks in ((2, 3), (3, 2), (1, 6)):
        parallel = {"tensor": tensor, "pipeline": pipeline, "virtual_stages": chunks, "schedule": "interleaved"}
        found = trained(tmp_path / f"{pipeline}", make_job(model=six, train=train, parallel=parallel), accelerators=6)
        assert found["accelerators"] == tensor * pipeline
        for key in ("weights_sha256", "train_loss", "test_loss"):
            assert found[key] == expected[key]


@pytest.mark.parametrize("noise_per", ["sample", "batch"])
def test_ray_does_not_change_the_experiment(noise_per: str, tmp_path: Path, session_folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    job = make_job(parallel={"tensor": 2, "pipeline": 2}, update={"noise_per": noise_per})
    found = trained(tmp_path, job, executor="ray")
    assert found["accelerators"] == 4
    expected = of_one_accelerator(session_folder, noise_per, "column")
    assert found["weights_sha256"] == expected["weights_sha256"]
    assert found["test_loss"] == expected["test_loss"]


def test_two_accelerators_in_a_worker_do_not_change_the_experiment(tmp_path: Path, session_folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    job = make_job(parallel={"tensor": 2, "pipeline": 2}, run={"accelerators_per_worker": 2})
    expected = of_one_accelerator(session_folder, "sample", "column")
    assert trained(tmp_path, job, executor="ray")["weights_sha256"] == expected["weights_sha256"]


@pytest.mark.parametrize("plan", [{"data": 2}, {"data": 4}, {"data": 2, "tensor": 2}, {"data": 2, "pipeline": 2}])
@pytest.mark.parametrize("noise_per", ["sample", "batch"])
@pytest.mark.parametrize("device", ["ideal", "floating-point"])
def test_factors_of_replicas_are_one_accelerator_with_the_global_minibatch(
    plan: dict[str, int], noise_per: str, device: str, tmp_path: Path
) -> None:
    """Without device spread and step noise all replicas are alike; reads stay noisy, keyed by global sample.
    Equal microbatch, so that products have the same shapes."""
    same = {"device": {"preset": device}, "update": {"noise_per": noise_per}}
    apart = make_job(train={"minibatch": 16 // plan["data"], "microbatch": 4}, parallel=plan, **same)
    alone = make_job(train={"minibatch": 16, "microbatch": 4}, **same)
    found, expected = trained(tmp_path / "apart", apart), trained(tmp_path / "alone", alone)
    assert found["weights_sha256"] == expected["weights_sha256"]
    assert found["samples"] == expected["samples"]


def test_replicas_that_share_factors_agree_with_each_other(tmp_path: Path) -> None:
    job = make_job(parallel={"data": 2}, device={"preset": "ideal"})
    result = run(job, make_cluster(), executor="local", out=tmp_path / "run")
    weights, _ = result.directory.read_checkpoint()
    for layer in range(3):
        np.testing.assert_array_equal(weights[0, layer], weights[1, layer])


def test_replicas_are_different_silicon(tmp_path: Path) -> None:
    """With spreads and step noise the same factors move the weights of two replicas apart."""
    result = run(make_job(parallel={"data": 2}), make_cluster(), executor="local", out=tmp_path / "run")
    weights, _ = result.directory.read_checkpoint()
    assert not np.array_equal(weights[0, 0], weights[1, 0])


def test_averaging_leaves_replicas_within_a_step_of_each_other(tmp_path: Path) -> None:
    """Write-verify programs each device to within half its step of the mean, unless its bound is nearer."""
    job = make_job(
        parallel={"data": 2, "data_sync": "average", "average_every": 1},
        device={"preset": "ideal", "w_max": 100.0, "w_min": -100.0},
    )
    result = run(job, make_cluster(), executor="local", out=tmp_path / "run")
    weights, _ = result.directory.read_checkpoint()
    for layer in range(3):
        apart = np.abs(weights[0, layer] - weights[1, layer])
        assert apart.max() <= 0.001 * 1.001
        assert apart.max() > 0


def test_exact_devices_average_exactly(tmp_path: Path) -> None:
    """Averaging every step at equal start weights is the mean of the replicas' updates: SGD at half the rate
    with the global minibatch, to rounding."""
    common: dict[str, Any] = {"device": {"preset": "floating-point"}}
    average = {"data": 2, "data_sync": "average", "average_every": 1}
    apart = make_job(train={"minibatch": 4, "microbatch": 4, "learning_rate": 0.02}, parallel=average, **common)
    alone = make_job(train={"minibatch": 8, "microbatch": 4, "learning_rate": 0.01}, **common)
    first = run(apart, make_cluster(), executor="local", out=tmp_path / "apart").directory.read_checkpoint()[0]
    other = run(alone, make_cluster(), executor="local", out=tmp_path / "alone").directory.read_checkpoint()[0]
    for layer in range(3):
        np.testing.assert_array_equal(first[0, layer], first[1, layer])
        np.testing.assert_allclose(first[0, layer], other[0, layer], rtol=1e-4, atol=1e-6)


def test_another_seed_is_another_experiment(tmp_path: Path, session_folder: Path) -> None:
    found = trained(tmp_path, make_job(train={"seed": 8}))
    assert found["weights_sha256"] != of_one_accelerator(session_folder, "sample", "column")["weights_sha256"]
