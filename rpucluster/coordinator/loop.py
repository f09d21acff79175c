"""The epochs of a run on one pool, from wherever training stands."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from rpucluster.accelerator import Score, Steps
from rpucluster.coordinator.callbacks import StoppedByCallbackError
from rpucluster.coordinator.events import Progress
from rpucluster.coordinator.interrupts import Interrupts, RunInterrupted
from rpucluster.coordinator.later import Later
from rpucluster.coordinator.position import Position
from rpucluster.coordinator.saver import Saver
from rpucluster.coordinator.setting import Setting
from rpucluster.data import epoch_order
from rpucluster.lowering import lower
from rpucluster.pool import Pool
from rpucluster.run_summary import WallTimes
from rpucluster.runlog import EpochRow

_REPORT_EVERY = 1 << 32
"""Cells times samples after which progress is reported at the latest: a few seconds."""


class Loop:
    """Trains a pool, whose accelerators hold what belongs to a position, from there to the end.

    The next steps are sent before the scores of the last ones are looked at, as far as the pool takes work ahead, so
    that accelerators do not wait for what is told and written here.  Where callbacks may end the run, they do wait.
    """

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
        self._paced = (0, 0.0)  # samples of this epoch that were told, and the seconds that they took
        self._later = Later(0 if self.caller.may_end else pool.ahead)
        pool.load("train", self.modelled.train)
        if self.modelled.average is not None:
            pool.load("average", self.modelled.average)
        self._test_batches = list(_batches(len(self.data.test_y), self.job.evaluate.batch))
        for batches in self._test_batches:
            size = batches.shape[1]
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
            self._lap()
            while self.epoch < self.job.train.epochs:
                self._finish_epoch(interrupts)
                self._end_epoch()
                if self.epoch < self.job.train.epochs:
                    self._pause(interrupts)
            self._save(wait=True)
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
        job, batch = self.job, self.modelled.train.samples
        order = epoch_order(job.train.seed, self.epoch, len(self.data.train_y), job.train.shuffle)
        together = min(256, 4096 // batch, _REPORT_EVERY // (job.network.weights * batch))
        for _, stop in _chunks(self.steps_per_epoch, max(1, together)):
            first = self.step
            if stop <= first:
                continue
            while self.step < stop:
                here = self.steps - self.step  # at the start of the epoch
                until = self.caller.before(self.steps, self.saver.before(self.steps, here + stop)) - here
                self._perform(order, until)
                if until < stop:
                    self.caller.step(self.steps, self._progress())
                    self._pause(interrupts)
            self._tell_steps(stop - first)
            if stop < self.steps_per_epoch:
                self._pause(interrupts)

    def _tell_steps(self, count: int) -> None:
        """Add up and tell what was scored since this was done last, in `count` steps of this process."""
        asked, now, steps = self.pool.ask_score(), self._progress(), self.steps
        left = self.job.train.epochs * self.steps_per_epoch - steps
        batch = self.modelled.train.samples

        def tell() -> None:
            score = asked()
            self.score += score
            self._add_trained(count * batch)
            pace = self._paced[0] / self._paced[1]
            told = replace(
                now,
                train_loss=score.loss / score.samples,
                test_accuracy=self.rows[-1].test_accuracy if self.rows else None,
                samples_per_s=pace,
                left_wall_s=left * batch / pace,
            )
            self.setting.report(told)
            self.caller.step(steps, told)

        self._later.do(tell)

    def _pause(self, interrupts: Interrupts) -> None:
        """Between runs of steps: complete checkpoints, begin those that are due, stop if that was asked for."""
        if self.caller.asked and not interrupts.asked:
            self._tell_stopping("a callback has ended the run; writing a checkpoint")
            self._save(wait=True)
            raise StoppedByCallbackError
        if interrupts.asked:
            self._save(wait=True)
            path = self.setting.directory.path
            raise RunInterrupted(
                f"interrupted after step {self.steps}; rpucluster run --resume {path} goes on from there"
            )
        if self.saver.due(self.steps):
            self._save()
        else:
            self.saver.poll()

    def _save(self, wait: bool = False) -> None:
        self._later.settle()
        self._add_trained()
        self.saver.save(self.position, wait)
        self.times.checkpoint_wall_s += self._lap()

    def _add_trained(self, samples: int = 0) -> None:
        took = self._lap()
        self.times.train_wall_s += took
        self._paced = (self._paced[0] + samples, self._paced[1] + took)

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

    def _end_epoch(self) -> None:
        """Test the weights, where that is due, and record the epoch."""
        rate = self.job.train.learning_rate_at(self.epoch)
        self.epoch, self.step = self.epoch + 1, 0
        due = self.epoch == self.job.train.epochs or self.epoch % self.job.evaluate.every == 0
        tested = self._evaluate() if due else Score
        counted = self.pool.ask_counts()
        epoch, steps = self.epoch, self.steps
        seconds, joules = self.base.totals(self.modelled, steps, self.averages)

        def record() -> None:
            test, counts = tested(), counted().values()
            self.times.evaluate_wall_s += self._lap()
            score, self.score, self._paced = self.score, Score(), (0, 0.0)
            row = EpochRow(
                epoch=epoch,
                step=steps,
                samples=steps * self.modelled.train.samples,
                learning_rate=rate,
                train_loss=score.loss / score.samples,
                train_accuracy=score.hits / score.samples,
                test_loss=test.loss / test.samples if due else None,
                test_accuracy=test.hits / test.samples if due else None,
                modelled_s=seconds,
                modelled_energy_J=joules,
                wall_s=self.times.train_wall_s + self.times.evaluate_wall_s,
                coincidences=sum(c.pulses.coincidences for c in counts),
                pulse_slots=sum(c.pulses.slots for c in counts),
            )
            self.rows.append(row)
            self.setting.directory.write_epochs(self.rows)
            self.setting.report(
                Progress(
                    phase="epoch",
                    epoch=epoch,
                    epochs=self.job.train.epochs,
                    step=self.steps_per_epoch,
                    steps=self.steps_per_epoch,
                    train_loss=row.train_loss,
                    test_accuracy=row.test_accuracy,
                )
            )
            self.caller.epoch(row)

        self._later.do(record)

    def _evaluate(self) -> Callable[[], Score]:
        """Test the weights as they are after the steps so far; what this returns waits for the score."""
        first = self.evaluations * len(self.data.test_y)
        for batches in self._test_batches:
            steps = Steps(first_sample=first, learning_rate=0.0, indices=batches)
            self.pool.perform(f"evaluate {batches.shape[1]}", "test", steps)
            first += batches.size
        self.evaluations += 1
        return self.pool.ask_score()

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
        self.setting.report(replace(self._progress(), phase="stopping", message=message))


def _batches(total: int, size: int) -> Iterator[Any]:
    """Rows of a data set in batches, shape (batches, batch): the whole ones, then the rest as one of its own."""
    whole = total - total % size
    for part in (np.arange(whole).reshape(-1, size), np.arange(whole, total).reshape(1, -1)):
        if part.size:
            yield part


def _chunks(total: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, size):
        yield start, min(start + size, total)
