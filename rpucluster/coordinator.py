"""The training loop that reads the score twice: the pool performs the program, the timeline prices it."""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rpucluster import __version__
from rpucluster.accelerator import Counts, Score, Steps
from rpucluster.arrays import array_module
from rpucluster.cluster import Cluster
from rpucluster.config import write_toml
from rpucluster.data import Dataset, check_against, epoch_order, load_data
from rpucluster.errors import CapacityError, DataError
from rpucluster.job import Job
from rpucluster.kernels import warm_up
from rpucluster.lowering import lower
from rpucluster.metrics import Metrics, summarise
from rpucluster.partitioner import Plan, partition
from rpucluster.plan_report import describe
from rpucluster.pool import LocalPool, Pool, RayPool
from rpucluster.program import Program, Read
from rpucluster.runlog import EpochRow, RunDirectory
from rpucluster.tile import ReadCount
from rpucluster.timeline import Timeline, replay
from rpucluster.weights import WeightDigest, weight_bands

_REPORT_EVERY = 1 << 32
"""Cells times samples after which progress is reported at the latest: a few seconds."""
BYTES_PER_WORKER = 150 << 20
"""Host memory of a Ray actor before it holds any array (measured: 95 to 130 MB private)."""


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


@dataclass(frozen=True, kw_only=True)
class Modelled:
    """The second reading of a job: what its steps cost on the modelled machine."""

    plan: Plan
    train: Program
    timeline: Timeline
    metrics: Metrics
    average: Program | None
    average_metrics: Metrics | None

    def seconds(self, steps: int, averages: int) -> float:
        """Modelled time of that many training steps and averagings, one after the other."""
        extra = self.average_metrics.modelled_step_s if self.average_metrics else 0.0
        return steps * self.metrics.modelled_step_s + averages * extra

    def joules(self, steps: int, averages: int) -> float:
        """Modelled energy of that many training steps and averagings."""
        extra = self.average_metrics.energy_J if self.average_metrics else 0.0
        return steps * self.metrics.energy_J + averages * extra


def model(job: Job, cluster: Cluster) -> Modelled:
    """Plan, lower and replay a job without any array.  Raises what `partition` raises."""
    plan = partition(job, cluster)
    train = lower(plan, job)
    timeline = replay(train, cluster)
    averaging = job.parallel.data > 1 and job.parallel.data_sync == "average"
    average = lower(plan, job, "average") if averaging else None
    return Modelled(
        plan=plan,
        train=train,
        timeline=timeline,
        metrics=summarise(timeline),
        average=average,
        average_metrics=summarise(replay(average, cluster)) if average else None,
    )


def plan_report(job: Job, cluster: Cluster) -> dict[str, Any]:
    """What `plan` prints: where every tile goes and what a step moves, before anything is allocated."""
    modelled = model(job, cluster)
    return describe(job, cluster, modelled.plan, modelled.metrics)


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
    modelled = model(job, cluster)
    data = load_data(job.data)
    check_against(job.network, data)
    steps_per_epoch = len(data.train_y) // modelled.train.samples
    if steps_per_epoch == 0:
        raise DataError(
            f"[train] minibatch {job.train.minibatch} x [parallel] data {job.parallel.data} takes "
            f"{modelled.train.samples} samples a step but {data.name} has {len(data.train_y)} to train on; lower it"
        )
    _check_memory(job, modelled.plan, executor)
    directory = RunDirectory.create(out, job.name)
    directory.write_specs(write_toml(job), write_toml(cluster))
    directory.write_plan(describe(job, cluster, modelled.plan, modelled.metrics))
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
        loop.started_wall_s, loop.executor_start_wall_s = time.perf_counter() - began, executor_start_wall_s
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
    summary = _summary(job, cluster, executor, modelled, loop, digest, counts, time.perf_counter() - began)
    directory.write_summary(summary)
    report(Progress(phase="done", epoch=job.train.epochs, epochs=job.train.epochs, step=0, steps=steps_per_epoch))
    return Run(directory=directory, summary=summary)


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
        self.started_wall_s = self.executor_start_wall_s = self.train_wall_s = self.evaluate_wall_s = 0.0
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
            self.train_wall_s += time.perf_counter() - began
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
        self.evaluate_wall_s += time.perf_counter() - began
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
                wall_s=self.train_wall_s + self.evaluate_wall_s,
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


def _summary(
    job: Job,
    cluster: Cluster,
    executor: str,
    modelled: Modelled,
    loop: _Loop,
    digest: str,
    counts: dict[int, Counts],
    wall_s: float,
) -> dict[str, Any]:
    last, metrics, plan = loop.rows[-1], modelled.metrics, modelled.plan
    pulses = [c.pulses for c in counts.values()]
    reads = [c.reads for c in counts.values()]
    return {
        "job": job.name,
        "cluster": cluster.name,
        "executor": executor,
        "seed": job.train.seed,
        "arrays": array_module(job.run.arrays).__name__,
        "test_accuracy": last.test_accuracy,
        "test_loss": last.test_loss,
        "train_loss": last.train_loss,
        "train_accuracy": last.train_accuracy,
        "weights": job.network.weights,
        "weights_sha256": digest,
        "accelerators": len(plan.accelerators),
        "accelerators_available": cluster.accelerators,
        "tiles": sum(shard.block.tiles for shard in plan.shards()),
        "steps": last.step,
        "samples": last.samples,
        "epochs": last.epoch,
        "modelled_step_s": metrics.modelled_step_s,
        "modelled_s": last.modelled_s,
        "modelled_energy_J": last.modelled_energy_J,
        "modelled_energy_per_step_J": metrics.energy_J,
        "wall_s": wall_s,
        "start_wall_s": loop.started_wall_s,
        "executor_start_wall_s": loop.executor_start_wall_s,
        "train_wall_s": loop.train_wall_s,
        "evaluate_wall_s": loop.evaluate_wall_s,
        "samples_per_s": last.samples / loop.train_wall_s,
        "compute_fraction": metrics.compute_fraction,
        "exposed_communication_fraction": metrics.exposed_communication_fraction,
        "idle_fraction": metrics.idle_fraction,
        "bubble": metrics.bubble,
        "counts": {
            "passes": sum(r.passes for r in reads),
            "repeats": sum(r.repeats for r in reads),
            **_repeats_per_pass(job, modelled, last.step, reads),
            "update_cycles": sum(p.cycles for p in pulses),
            "pulse_slots": sum(p.slots for p in pulses),
            "coincidences": sum(p.coincidences for p in pulses),
            "expected_coincidences": sum(p.expected_coincidences for p in pulses),
            "line_passes": sum(p.line_passes for p in pulses),
            "line_slots": sum(p.line_slots for p in pulses),
            "line_pulses": sum(p.line_pulses for p in pulses),
            "averages": loop.averages,
        },
        "versions": {
            "rpucluster": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def _repeats_per_pass(job: Job, modelled: Modelled, steps: int, reads: list[ReadCount]) -> dict[str, float]:
    """Mean repeats by bound management of a forward and of a backward pass of a tile, evaluation included.

    Repeats are counted without their direction.  Where only one direction manages its bounds they are all its own;
    where both do, we assume that both repeat equally often.
    """
    backward = steps * sum(
        op.vectors * op.tiles for op in modelled.train if isinstance(op, Read) and op.direction == "backward"
    )
    forward = sum(r.passes for r in reads) - backward
    passes = {"forward": forward, "backward": backward}
    managed = [way for way in passes if getattr(job, way).bound_management != "none"]
    rate = sum(r.repeats for r in reads) / (sum(passes[way] for way in managed) or 1)
    return {f"repeats_per_{way}_pass": rate if way in managed else 0.0 for way in passes}


def _evaluate_batches(job: Job, samples: int) -> list[tuple[int, int]]:
    return list(_chunks(samples, job.evaluate.batch))


def _chunks(total: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, size):
        yield start, min(start + size, total)


def _check_memory(job: Job, plan: Plan, executor: str) -> None:
    """Refuse a run whose arrays cannot fit this machine's memory."""
    if sys.platform != "linux" or array_module(job.run.arrays) is not np:
        return
    cells = sum(shard.block.cells for shard in plan.shards())
    workers = -(-len(plan.accelerators) // job.run.accelerators_per_worker) if executor == "ray" else 0
    arrays = sum(shard.block.cells * job.bytes_per_weight(shard.layer) for shard in plan.shards())
    needed = arrays + workers * BYTES_PER_WORKER
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise CapacityError(
            f"the arrays of {cells:,} cross-points in {workers} worker processes need {needed / 2**30:,.1f} GiB of "
            f"memory but this machine has {available / 2**30:,.1f} GiB; lower [model] sizes, write [run] "
            f'tolerances = "recomputed", raise accelerators_per_worker, or use plan, which needs no arrays'
        )
