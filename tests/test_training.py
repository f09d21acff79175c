"""Whole trainings against a plain one: the floating-point preset is NumPy SGD, and learning happens."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from rpucluster.coordinator import run
from rpucluster.data import epoch_order, load_data
from rpucluster.job import Job
from rpucluster.rng import init_uniform
from tests.specs import make_cluster, make_job


def plain_sgd(job: Job) -> tuple[list[np.ndarray], float]:
    """The weights, bias column included, and the mean loss of the last epoch, in float64 and without any tile."""
    data = load_data(job.data)
    x_all, y_all, batch = data.train_x.astype(np.float64), data.train_y, job.train.minibatch
    scale = job.train.initial_scale
    weights = [
        scale / np.sqrt(la.inputs + 1) * init_uniform(job.train.seed, i, la.rows, la.cols).astype(np.float64)
        for i, la in enumerate(job.network.layers)
    ]
    losses: list[float] = []
    for epoch in range(job.train.epochs):
        losses = []
        order = epoch_order(job.train.seed, epoch, len(y_all), job.train.shuffle)
        rate = job.train.learning_rate_at(epoch)
        for start in range(0, len(order) - batch + 1, batch):
            rows = order[start : start + batch]
            inputs, a = [], x_all[rows]
            for i, w in enumerate(weights):
                inputs.append(np.hstack([a, np.ones((batch, 1))]))
                y = inputs[-1] @ w.T
                a = y if i == len(weights) - 1 else np.tanh(y)
            p = np.exp(a) / np.exp(a).sum(1, keepdims=True)
            losses.append(-np.log(p[np.arange(batch), y_all[rows]]).mean())
            delta = p - np.eye(10)[y_all[rows]]
            deltas = [delta]
            for i in range(len(weights) - 1, 0, -1):
                back = deltas[0] @ weights[i][:, :-1]
                deltas.insert(0, back * (1 - inputs[i][:, :-1] ** 2))
            for w, d, x in zip(weights, deltas, inputs, strict=True):
                w -= rate * d.T @ x
    return weights, float(np.mean(losses))


@pytest.mark.parametrize("parallel", [{}, {"tensor": 2, "pipeline": 2}, {"tensor": 3, "schedule": "1f1b"}])
def test_the_floating_point_preset_is_plain_sgd(parallel: dict[str, object], tmp_path: Path) -> None:
    """To rounding: after three epochs of float32 arithmetic and 2^-40 sums."""
    rates = [[0, 0.02], [2, 0.01]]
    job = make_job(device={"preset": "floating-point"}, train={"epochs": 3, "learning_rate": rates}, parallel=parallel)
    expected, loss = plain_sgd(job)
    result = run(job, make_cluster(), executor="local", out=tmp_path / "run")
    found, _ = result.directory.read_checkpoint()
    for layer, weights in enumerate(expected):
        np.testing.assert_allclose(found[0, layer], weights, rtol=2e-4, atol=2e-6)
    assert result.summary["train_loss"] == pytest.approx(loss, rel=1e-4)


def test_the_rpu_baseline_learns(tmp_path: Path) -> None:
    """From a tenth by chance to at least 70 % of the test samples after 8 epochs of 800 samples."""
    job = make_job(
        data={"train_samples": 800, "test_samples": 360},
        train={"epochs": 8, "learning_rate": 0.05},
        update={"bit_length": 31},
    )
    result = run(job, make_cluster(), executor="local", out=tmp_path / "run")
    assert result.summary["test_accuracy"] > 0.7
    losses = [row.train_loss for row in result.directory.read_epochs()]
    assert losses[-1] < losses[0] / 2


def test_a_run_can_be_read_back(tmp_path: Path) -> None:
    """The specs that a run leaves describe the same experiment, and its weights are those of the summary."""
    from rpucluster.cluster import load_cluster
    from rpucluster.job import load_job

    job, cluster = make_job(parallel={"tensor": 2}), make_cluster()
    first = run(job, cluster, executor="local", out=tmp_path / "first")
    folder = first.directory.path
    assert load_job(folder / "job.toml") == job
    assert load_cluster(folder / "cluster.toml") == cluster
    weights, state = first.directory.read_checkpoint()
    content = b"".join(array.tobytes() for (replica, _), array in sorted(weights.items()) if replica == 0)
    assert hashlib.sha256(content).hexdigest() == first.summary["weights_sha256"]
    assert state["samples"] == first.summary["samples"] == 64
    again = run(
        load_job(folder / "job.toml"), load_cluster(folder / "cluster.toml"), executor="local", out=tmp_path / "b"
    )
    assert again.summary["weights_sha256"] == first.summary["weights_sha256"]
    assert again.summary["modelled_step_s"] == first.summary["modelled_step_s"]
