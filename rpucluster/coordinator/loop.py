"""The epochs of a run on one pool, from wherever training stands."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rpucluster.accelerator import Score, Steps
from rpucluster.coordinator.callbacks import Caller, StoppedByCallbackError
from rpucluster.coordinator.events import Progress, Report
from rpucluster.coordinator.interrupts import Interrupts, RunInterrupted
from rpucluster.coordinator.position import Position
from rpucluster.coordinator.saver import Saver
from rpucluster.data import Dataset, epoch_order
from rpucluster.job import Job
from rpucluster.lowering import lower
from rpucluster.modelled import Modelled
from rpucluster.pool import Pool
from rpucluster.run_summary import WallTimes
from rpucluster.runlog import EpochRow, RunDirectory

_REPORT_EVERY = 1 << 32
"""Cells times samples after which progress is reported at the latest: a few seconds."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all attempts at a run share."""

    job: Job
    modelled: Modelled
    data: Dataset
    directory: RunDirectory
    report: Report
    caller: Caller
    told: Mapping[str, Any]
    """What manifests of checkpoints say besides."""
    began: float
    """On the clock of `time.perf_counter`."""
    earlier_wall_s: float
    """Of earlier processes."""

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of an epoch."""
        return len(self.data.train_y) // self.modelled.train.samples


class Loop:
    """Trains a pool, whose accelerators hold what belongs to a position, from there to the end."""

    def __init__(self, setting: Setting, pool: Pool, position: Position) -> None:
        self.setting, self.pool = setting, pool
        self.job, self.modelled, self.data = setting.job, setting.modelled, setting.data
        self.steps_per_epoch = setting.steps_per_epoch
        self.rows, self.score, self.epoch, self.step = (
            list(position.rows),
            position.score,
            position.epoch,
            position.step,
        )
        self.evaluations, self.averages, self.base = position.evaluations, position.averages, position.base
        self.times: WallTimes = replace(position.times)
        self.caller = setting.caller
        self.saver = Saver(
            setting.directory.checkpoints,
            self.job.run.checkpoint_every,
            pool,
            setting.told,
            complete=self.caller.checkpoint,
        )
        self._clock = time.perf_counter()
        pool.load("train", self.modelled.train)
        if self.modelled.average is not None:
            pool.load("average", self.modelled.average)
        self.evaluate_batches = list(_chunks(len(self.data.test_y), self.job.evaluate.batch))
        for size in {stop - start for start, stop in self.evaluate_batches}:
            pool.load(f"evaluate {size}", lower(self.modelled.plan, self.job, "evaluate", batch=size))
        pool.set_data("train", self.data.train_x, self.data.train_y)
        pool.set_data("test", self.data.test_x, self.data.test_y)

    @property
    def steps(self) -> int:
        """Training steps since the start."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def position(self) -> Position:
        """Where training stands."""
        return Position(
            epoch=self.epoch,
            step=self.step,
            steps=self.steps,
            samples=self.steps * self.modelled.train.samples,
            score=self.score,
            rows=tuple(self.rows),
            evaluations=self.evaluations,
            averages=self.averages,
            base=self.base,
            times=replace(self.times),
            wall_s=self.setting.earlier_wall_s + time.perf_counter() - self.setting.began,
        )

    def train(self) -> None:
        """Finish the epochs, and leave a checkpoint after the last.

        The first Ctrl-C ends training after the steps under way, with a checkpoint and `RunInterrupted`; a callback
        that asks for the end likewise, with `StoppedByCallbackError`.
        """
        with Interrupts(self._tell_stopping) as interrupts:
            while self.epoch < self.job.train.epochs:
                self._finish_epoch(interrupts)
                rate, score = self.job.train.learning_rate_at(self.epoch), self.score
                self.epoch, self.step, self.score = self.epoch + 1, 0, Score()
                last = self.epoch == self.job.train.epochs
                test = self._evaluate() if last or self.epoch % self.job.evaluate.every == 0 else None
                self._record(rate, score, test)
                if not last:
                    self._pause(interrupts)
            self.saver.save(self.position, wait=True)
            if self.caller.error is not None:
                raise StoppedByCallbackError

    def close(self) -> None:
        """Forget a checkpoint that is not complete; the pool is closed already."""
        self.saver.close()

    def _finish_epoch(self, interrupts: Interrupts) -> None:
        """Train to the end of the epoch.

        Scores are taken after the same steps whenever the run was interrupted or saved, so their sums have the same
        bits; what is pending in between belongs to the accelerators' counters.
        """
        job, batch, first = self.job, self.modelled.train.samples, self.step
        order = epoch_order(job.train.seed, self.epoch, len(self.data.train_y), job.train.shuffle)
        together = min(256, 4096 // batch, _REPORT_EVERY // (job.network.weights * batch))
        self._clock = began = time.perf_counter()
        for _, stop in _chunks(self.steps_per_epoch, max(1, together)):
            if stop <= self.step:
                continue
            while self.step < stop:
                here = self.steps - self.step  # at the start of the epoch
                until = self.caller.before(self.steps, self.saver.before(self.steps, here + stop)) - here
                self._perform(order, until)
                if until < stop:
                    self.caller.step(self.steps, self._progress())
                    self._pause(interrupts)
            score = self.pool.take_score()
            self.score += score
            self.times.train_wall_s += self._lap()
            pace = (stop - first) * batch / (time.perf_counter() - began)
            now = replace(
                self._progress(),
                train_loss=score.loss / score.samples,
                samples_per_s=pace,
                left_wall_s=(job.train.epochs * self.steps_per_epoch - self.steps) * batch / pace,
            )
            self.setting.report(now)
            self.caller.step(self.steps, now)
            if stop < self.steps_per_epoch:
                self._pause(interrupts)

    def _pause(self, interrupts: Interrupts) -> None:
        """Between runs of steps: complete checkpoints, begin those that are due, stop if that was asked for."""
        if self.caller.asked and not interrupts.asked:
            self._tell_stopping("a callback has ended the run; writing a checkpoint")
            self.saver.save(self.position, wait=True)
            raise StoppedByCallbackError
        if interrupts.asked:
            self.saver.save(self.position, wait=True)
            path = self.setting.directory.path
            raise RunInterrupted(
                f"interrupted after step {self.steps}; rpucluster run --resume {path} goes on from there"
            )
        if self.saver.due(self.steps):
            self._save()
        else:
            self.saver.poll()

    def _save(self) -> None:
        self.times.train_wall_s += self._lap()
        self.saver.save(self.position)
        self.times.checkpoint_wall_s += self._lap()

    def _lap(self) -> float:
        """Wall time since this was called last."""
        before, self._clock = self._clock, time.perf_counter()
        return self._clock - before

    def _perform(self, order: Any, stop: int) -> None:
        """Perform training steps of the epoch, averaging the replicas after every `average_every`-th and the last."""
        every, all_steps = self.job.parallel.average_every, self.job.train.epochs * self.steps_per_epoch
        batch = self.modelled.train.samples
        while self.step < stop:
            until = stop
            if self.modelled.average is not None:
                until = min(stop, self.step + every - self.steps % every)
            steps = Steps(
                first_sample=self.steps * batch,
                learning_rate=self.job.train.learning_rate_at(self.epoch),
                indices=order[self.step * batch : until * batch].reshape(-1, batch),
            )
            self.pool.perform("train", "train", steps)
            self.step = until
            if self.modelled.average is not None and (self.steps % every == 0 or self.steps == all_steps):
                self.pool.perform("average", "train", steps.part(0, 1))
                self.averages += 1

    def _evaluate(self) -> Score:
        self._lap()
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
        self.times.evaluate_wall_s += self._lap()
        return score

    def _record(self, rate: float, score: Score, test: Score | None) -> None:
        counts = self.pool.counts().values()
        seconds, joules = self.base.totals(self.modelled, self.steps, self.averages)
        self.rows.append(
            EpochRow(
                epoch=self.epoch,
                step=self.steps,
                samples=self.steps * self.modelled.train.samples,
                learning_rate=rate,
                train_loss=score.loss / score.samples,
                train_accuracy=score.hits / score.samples,
                test_loss=test.loss / test.samples if test else None,
                test_accuracy=test.hits / test.samples if test else None,
                modelled_s=seconds,
                modelled_energy_J=joules,
                wall_s=self.times.train_wall_s + self.times.evaluate_wall_s,
                coincidences=sum(c.pulses.coincidences for c in counts),
                pulse_slots=sum(c.pulses.slots for c in counts),
            )
        )
        self.setting.directory.write_epochs(self.rows)
        self.setting.report(
            Progress(
                phase="epoch",
                epoch=self.epoch,
                epochs=self.job.train.epochs,
                step=self.steps_per_epoch,
                steps=self.steps_per_epoch,
                train_loss=self.rows[-1].train_loss,
                test_accuracy=self.rows[-1].test_accuracy,
            )
        )
        self.caller.epoch(self.rows[-1])

    def _progress(self) -> Progress:
        """Where the epoch stands between its steps."""
        return Progress(
            phase="train",
            epoch=self.epoch + 1,
            epochs=self.job.train.epochs,
            step=self.step,
            steps=self.steps_per_epoch,
            test_accuracy=self.rows[-1].test_accuracy if self.rows else None,
            modelled_step_s=self.modelled.metrics.modelled_step_s,
        )

    def _tell_stopping(
        self, message: str = "finishing the steps under way and writing a checkpoint; Ctrl-C again stops at once"
    ) -> None:
        self.setting.report(
            Progress(
                phase="stopping",
                epoch=self.epoch + 1,
                epochs=self.job.train.epochs,
                step=self.step,
                steps=self.steps_per_epoch,
                message=message,
            )
        )


def _chunks(total: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, size):
        yield start, min(start + size, total)
