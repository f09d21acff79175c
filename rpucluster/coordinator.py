"""The training loop that reads the score twice: the pool performs the program, the timeline prices it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rpucluster.accelerator import Score, Steps
from rpucluster.cluster import Cluster
from rpucluster.config import write_toml
from rpucluster.data import Dataset, check_against, epoch_order, load_data
from rpucluster.errors import DataError, PlanError
from rpucluster.host_memory import check_memory
from rpucluster.job import Job
from rpucluster.kernels import warm_up
from rpucluster.lowering import lower
from rpucluster.modelled import Modelled, model
from rpucluster.plan_report import describe
from rpucluster.pool import LocalPool, Pool, RayPool
from rpucluster.run_summary import WallTimes, summary
from rpucluster.runlog import EpochRow, RunDirectory
from rpucluster.weights import WeightDigest, weight_bands

_REPORT_EVERY = 1 << 32
"""Cells times samples after which progress is reported at the latest: a few seconds."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands."""

    phase: Literal["start", "train", "epoch", "done"]
    """`epoch` ends an epoch and carries its losses and, where it was tested, its accuracy."""
    epoch: int
    epochs: int
    step: int
    steps: int
    train_loss: float | None = None
    test_accuracy: float | None = None
    samples_per_s: float | None = None
    modelled_step_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run."""

    directory: RunDirectory
    summary: dict[str, Any]


def run(
    job: Job,
    cluster: Cluster,
    *,
    executor: Literal["ray", "local"] = "ray",
    address: str | None = None,
    out: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Train the job on the cluster and leave a run directory.

    `executor` is where the accelerators live: in Ray actors (of the cluster at `address`, or of one started
    here) or in this process, with the same results.  Everything that the user may have written wrongly is
    checked before the run directory is made.  Raises the classes of `rpucluster.errors`.
    """
    began = time.perf_counter()
    _require_arrays(job)
    modelled = model(job, cluster)
    data = load_data(job.data)
    check_against(job.network, data)
    steps_per_epoch = len(data.train_y) // modelled.train.samples
    if steps_per_epoch == 0:
        raise DataError(
            f"[train] minibatch {job.train.minibatch} x [parallel] data {job.parallel.data} takes "
            f"{modelled.train.samples} samples a step but {data.name} has {len(data.train_y)} to train on; lower it"
        )
    check_memory(job, modelled.plan, executor)
    directory = RunDirectory.create(out, job.name)
    directory.write_specs(write_toml(job), write_toml(cluster))
    directory.write_plan(describe(job, cluster, modelled.plan, modelled.metrics, modelled.buffers))
    directory.write_timeline(modelled.timeline, modelled.metrics)
    directory.write_trace(modelled.timeline)
    report = progress if progress is not None else lambda _: None
    report(Progress(phase="start", epoch=0, epochs=job.train.epochs, step=0, steps=steps_per_epoch))
    warm_up(
        job.devices(), job.update.noise_per == "batch"
    )  # compiled once here, so that the actors find the kernels on disk
    rows: list[EpochRow] = []
    pool: Pool | None = None
    try:
        warmed = time.perf_counter()
        pool = (
            LocalPool(job, cluster, modelled.plan)
            if executor == "local"
            else RayPool(job, cluster, modelled.plan, address=address)
        )
        executor_start_wall_s = time.perf_counter() - warmed
        loop = _Loop(job, modelled, data, pool, directory, report, steps_per_epoch, rows)
        loop.times.start_wall_s, loop.times.executor_start_wall_s = time.perf_counter() - began, executor_start_wall_s
        loop.train()
        digest = loop.checkpoint()
        counts = pool.counts()
    except BaseException:
        if not rows:
            directory.discard()  # without an epoch there is nothing in it that anybody could want
        raise
    finally:
        if pool is not None:
            pool.close()
    told = summary(
        job,
        cluster,
        executor,
        modelled,
        last=rows[-1],
        averages=loop.averages,
        digest=digest,
        counts=counts,
        times=loop.times,
        wall_s=time.perf_counter() - began,
    )
    directory.write_summary(told)
    report(Progress(phase="done", epoch=job.train.epochs, epochs=job.train.epochs, step=0, steps=steps_per_epoch))
    return Run(directory=directory, summary=told)


def _require_arrays(job: Job) -> None:
    counted = next((layer for layer in job.network.layers if layer.kind != "dense"), None)
    if counted is not None:
        raise PlanError(
            f"layer {counted.name} of {job.name} is counted, not trained ({counted.kind}); only dense layers have "
            f"arrays: use plan, profile, project or search"
        )


class _Loop:
    """The epochs of one run, and what they have shown so far."""

    def __init__(
        self,
        job: Job,
        modelled: Modelled,
        data: Dataset,
        pool: Pool,
        directory: RunDirectory,
        report: Callable[[Progress], None],
        steps_per_epoch: int,
        rows: list[EpochRow],
    ) -> None:
        self.job, self.modelled, self.data, self.pool = job, modelled, data, pool
        self.directory, self.report, self.steps_per_epoch = directory, report, steps_per_epoch
        self.rows = rows
        self.evaluations = 0
        self.averages = 0
        self.times = WallTimes()
        self._last_checkpoint = time.perf_counter()
        pool.load("train", modelled.train)
        if modelled.average is not None:
            pool.load("average", modelled.average)
        self.evaluate_batches = _evaluate_batches(job, len(data.test_y))
        for size in {stop - start for start, stop in self.evaluate_batches}:
            pool.load(f"evaluate {size}", lower(modelled.plan, job, "evaluate", batch=size))
        pool.set_data("train", data.train_x, data.train_y)
        pool.set_data("test", data.test_x, data.test_y)

    def train(self) -> None:
        epochs, checkpoint_every = self.job.train.epochs, self.job.run.checkpoint_every
        for epoch in range(epochs):
            began = time.perf_counter()
            score = self._epoch(epoch, began)
            self.times.train_wall_s += time.perf_counter() - began
            last = epoch == epochs - 1
            test = self._evaluate(epoch) if last or (epoch + 1) % self.job.evaluate.every == 0 else None
            self._record(epoch, score, test)
            if not last and time.perf_counter() - self._last_checkpoint >= checkpoint_every:
                self.checkpoint()

    def _epoch(self, epoch: int, began: float) -> Score:
        job, batch = self.job, self.modelled.train.samples
        order = epoch_order(job.train.seed, epoch, len(self.data.train_y), job.train.shuffle)
        rate = job.train.learning_rate_at(epoch)
        total = Score()
        together = min(256, 4096 // batch, _REPORT_EVERY // (job.network.weights * batch))
        for start, stop in _chunks(self.steps_per_epoch, max(1, together)):
            steps = Steps(
                first_sample=(epoch * self.steps_per_epoch + start) * batch,
                learning_rate=rate,
                indices=order[start * batch : stop * batch].reshape(-1, batch),
            )
            self._perform(steps, epoch * self.steps_per_epoch + start)
            score = self.pool.take_score()
            total += score
            self.report(
                Progress(
                    phase="train",
                    epoch=epoch + 1,
                    epochs=job.train.epochs,
                    step=stop,
                    steps=self.steps_per_epoch,
                    train_loss=score.loss / score.samples,
                    test_accuracy=self.rows[-1].test_accuracy if self.rows else None,
                    samples_per_s=stop * batch / (time.perf_counter() - began),
                    modelled_step_s=self.modelled.metrics.modelled_step_s,
                )
            )
        return total

    def _perform(self, steps: Steps, done: int) -> None:
        """Perform training steps, averaging the replicas after every `average_every`-th and after the last."""
        if self.modelled.average is None:
            self.pool.perform("train", "train", steps)
            return
        every, all_steps = self.job.parallel.average_every, self.job.train.epochs * self.steps_per_epoch
        start = 0
        while start < len(steps):
            stop = min(start + every - (done + start) % every, len(steps))
            self.pool.perform("train", "train", steps.part(start, stop))
            if (done + stop) % every == 0 or done + stop == all_steps:
                self.pool.perform("average", "train", steps.part(start, start + 1))
                self.averages += 1
            start = stop

    def _evaluate(self, epoch: int) -> Score:
        began = time.perf_counter()
        samples = len(self.data.test_y)
        for start, stop in self.evaluate_batches:
            steps = Steps(
                first_sample=self.evaluations * samples + start,
                learning_rate=0.0,
                indices=np.arange(start, stop).reshape(1, -1),
            )
            self.pool.perform(f"evaluate {stop - start}", "test", steps)
        score = self.pool.take_score()
        self.evaluations += 1
        self.times.evaluate_wall_s += time.perf_counter() - began
        return score

    def _record(self, epoch: int, score: Score, test: Score | None) -> None:
        counts = self.pool.counts().values()
        steps = (epoch + 1) * self.steps_per_epoch
        self.rows.append(
            EpochRow(
                epoch=epoch + 1,
                step=steps,
                samples=steps * self.modelled.train.samples,
                learning_rate=self.job.train.learning_rate_at(epoch),
                train_loss=score.loss / score.samples,
                train_accuracy=score.hits / score.samples,
                test_loss=test.loss / test.samples if test else None,
                test_accuracy=test.hits / test.samples if test else None,
                modelled_s=self.modelled.seconds(steps, self.averages),
                modelled_energy_J=self.modelled.joules(steps, self.averages),
                wall_s=self.times.train_wall_s + self.times.evaluate_wall_s,
                coincidences=sum(c.pulses.coincidences for c in counts),
                pulse_slots=sum(c.pulses.slots for c in counts),
            )
        )
        self.directory.write_epochs(self.rows)
        self.report(
            Progress(
                phase="epoch",
                epoch=epoch + 1,
                epochs=self.job.train.epochs,
                step=self.steps_per_epoch,
                steps=self.steps_per_epoch,
                train_loss=self.rows[-1].train_loss,
                test_accuracy=self.rows[-1].test_accuracy,
            )
        )

    def checkpoint(self) -> str:
        """Write the weights of every replica, and how far training has come; returns `weights_sha256`."""
        names = {layer.layer: layer.name for layer in self.modelled.plan.layers}
        state = {
            "job": self.job.name,
            "seed": self.job.train.seed,
            "epoch": len(self.rows),
            "step": self.rows[-1].step,
            "samples": self.rows[-1].samples,
            "evaluations": self.evaluations,
            "layers": names,
        }
        digest = WeightDigest()
        self.directory.write_checkpoint(digest.over(weight_bands(self.pool, self.modelled.plan)), state)
        self._last_checkpoint = time.perf_counter()
        return digest.hexdigest()


def _evaluate_batches(job: Job, samples: int) -> list[tuple[int, int]]:
    return list(_chunks(samples, job.evaluate.batch))


def _chunks(total: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, size):
        yield start, min(start + size, total)
