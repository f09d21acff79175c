"""The asynchronous pipeline in the real math: what it equals where it must, and that nothing but the job decides it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpucluster.coordinator import run
from rpucluster.job import Job
from tests.specs import make_cluster, make_job

PAIR: dict[str, Any] = {"devices_per_weight": 2, "device_choice": "cyclic"}
FADING: dict[str, Any] = {"lifetime": 200.0, "diffusion": 0.001}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "digital bias": {"model": {"bias": "digital"}},
    "batch noise": {"update": {"noise_per": "batch"}},
    "cyclic devices": {"device": PAIR},
    "fading devices": {"device": FADING},
    "dense gradients": {"parallel": {"data_sync": "gradient"}},
    "mixed precision": {"algorithm": {"kind": "mixed_precision", "flush_every": 3}},
}


def trained(folder: Path, job: Job, executor: Any = "local", accelerators: int = 8) -> dict[str, Any]:
    return run(job, make_cluster(accelerators), executor=executor, out=folder / "run").summary


def asynchronous(minibatch: int, microbatch: int, kind: str = "plain", **parallel: Any) -> Job:
    return of_kind(kind, {"minibatch": minibatch, "microbatch": microbatch}, schedule="async", **parallel)


def of_kind(kind: str, train: dict[str, int], **parallel: Any) -> Job:
    tables = KINDS[kind]
    return make_job(**(tables | {"train": train, "parallel": tables.get("parallel", {}) | parallel}))


@pytest.mark.parametrize("kind", KINDS)
def test_one_stage_that_updates_after_each_microbatch_trains_in_minibatches_of_its_size(
    kind: str, tmp_path: Path
) -> None:
    """Bit for bit: without a pipeline nothing goes forward before an update that came back before it."""
    found = trained(tmp_path / "async", asynchronous(16, 4, kind))
    expected = trained(tmp_path / "small", of_kind(kind, {"minibatch": 4, "microbatch": 4}))
    assert found["weights_sha256"] == expected["weights_sha256"]
    assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-12)
    assert found["counts"] == expected["counts"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pipeline", [1, 3])
def test_one_microbatch_is_the_synchronous_step(kind: str, pipeline: int, tmp_path: Path) -> None:
    """Whatever the number of stages: the pipeline drains at the end of a minibatch, so nothing is under way twice."""
    found = trained(tmp_path / "async", asynchronous(8, 8, kind, pipeline=pipeline))
    synchronous = of_kind(kind, {"minibatch": 8, "microbatch": 8}, schedule="gpipe", pipeline=pipeline)
    assert found["weights_sha256"] == trained(tmp_path / "gpipe", synchronous)["weights_sha256"]


def test_stages_are_part_of_the_asynchronous_experiment_and_nothing_else_is(tmp_path: Path) -> None:
    """More stages see older weights; splits of tensors and the executor change nothing."""
    one, two, three = (
        trained(tmp_path / f"pipeline{p}", asynchronous(16, 4, pipeline=p))["weights_sha256"] for p in (1, 2, 3)
    )
    assert len({one, two, three}) == 3
    for name, parallel in {
        "outputs": {"tensor": 2, "tensor_split": "output"},
        "inputs": {"tensor": 2, "tensor_split": "input"},
        "three": {"tensor": 3},
    }.items():
        found = trained(tmp_path / name, asynchronous(16, 4, pipeline=2, **parallel))
        assert found["weights_sha256"] == two, name


@pytest.mark.parametrize("parallel", [{"tensor": 2, "pipeline": 2}, {"pipeline": 2, "data": 2}])
def test_ray_does_not_change_the_asynchronous_experiment(parallel: dict[str, int], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    job = asynchronous(8, 4, **parallel)
    job = job.model_copy(update={"run": job.run.model_copy(update={"accelerators_per_worker": 2})})
    found, expected = trained(tmp_path / "ray", job, executor="ray"), trained(tmp_path / "local", job)
    assert found["weights_sha256"] == expected["weights_sha256"]
    assert found["test_loss"] == expected["test_loss"]


@pytest.mark.parametrize("device", ["ideal", "floating-point"])
def test_asynchronous_replicas_that_share_factors_stay_alike(device: str, tmp_path: Path) -> None:
    """Every replica fires the microbatches of all, so alike devices keep alike weights; a single microbatch of each is
    the synchronous step."""
    shared: dict[str, Any] = {"device": {"preset": device}}
    job = make_job(parallel={"schedule": "async", "data": 2, "pipeline": 2}, **shared)
    weights, _ = run(job, make_cluster(), executor="local", out=tmp_path / "run").directory.read_checkpoint()
    for layer in range(3):
        np.testing.assert_array_equal(weights[0, layer], weights[1, layer])
    whole = {"train": {"minibatch": 8, "microbatch": 8}}
    found, expected = (
        trained(tmp_path / name, make_job(parallel={"schedule": name, "data": 2, "pipeline": 2}, **whole, **shared))
        for name in ("async", "1f1b")
    )
    assert found["weights_sha256"] == expected["weights_sha256"]


def test_asynchronous_factors_of_exact_devices_are_the_sum_over_replicas(tmp_path: Path) -> None:
    """One stage: with exact devices, microbatch 4 on each of two replicas is one step on the 8 samples, to rounding.

    The samples are those of two minibatches of 16: of each the first replica takes the first half."""
    exact: dict[str, Any] = {"device": {"preset": "floating-point"}}
    one_epoch = {"epochs": 1, "shuffle": False, "learning_rate": 0.05}
    apart = make_job(
        train={"minibatch": 8, "microbatch": 4, **one_epoch},
        data={"train_samples": 16},
        parallel={"schedule": "async", "data": 2},
        forward={"noise_management": "none", "bound_management": "none"},
        backward={"noise_management": "none"},
        **exact,
    )
    first = run(apart, make_cluster(), executor="local", out=tmp_path / "apart").directory.read_checkpoint()[0]
    expected = _two_steps(tmp_path, exact)
    for layer in range(3):
        np.testing.assert_allclose(first[0, layer], expected[layer], rtol=1e-4, atol=1e-6)


def _two_steps(folder: Path, exact: dict[str, Any]) -> list[Any]:
    """Plain gradient descent in float64 on samples 0..3 with 8..11, then 4..7 with 12..15."""
    from rpucluster.data import load_data
    from rpucluster.rng import init_uniform

    job = make_job(data={"train_samples": 16}, **exact)
    data = load_data(job.data)
    weights = [
        (init_uniform(7, i, la.rows, la.cols) / np.sqrt(la.inputs + 1)).astype(np.float64)
        for i, la in enumerate(job.network.layers)
    ]
    for rows in ([*range(4), *range(8, 12)], [*range(4, 8), *range(12, 16)]):
        x, y = data.train_x[rows].astype(np.float64), data.train_y[rows]
        inputs = []
        for i, w in enumerate(weights):
            inputs.append(np.hstack([x, np.ones((len(x), 1))]))
            x = inputs[-1] @ w.T
            x = np.tanh(x) if i < len(weights) - 1 else x
        delta = np.exp(x - x.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(len(y)), y] -= 1
        steps = []
        for i in reversed(range(len(weights))):
            steps.append((i, 0.05 * delta.T @ inputs[i]))
            if i:
                delta = (delta @ weights[i])[:, :-1] * (1 - inputs[i][:, :-1] ** 2)
        for i, change in steps:
            weights[i] -= change
    return weights
