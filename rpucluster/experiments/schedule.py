"""In which order trials run, and what fits into a given time."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rpucluster.experiments.points import NEAR, PAPER_EPOCHS
from rpucluster.experiments.records import Record
from rpucluster.experiments.trials import Budget, Trial, perform

SHORTER = (PAPER_EPOCHS, 20, 10)
"""Epochs that a budget of hours chooses from."""
_PROBE_SAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What trials take on this machine."""

    sample_wall_s: float
    """Of training on one sample, with its share of everything else."""
    source: str
    """Where that is from, in words."""

    def wall_s(self, epochs: int, train_samples: int) -> float:
        """Of one trial."""
        return epochs * train_samples * self.sample_wall_s


def ordered(trials: Iterable[Trial]) -> list[Trial]:
    """Every run once, in the order that gives most first: by priority, within it all points' first seeds first.

    Panels share runs of equal settings; such a run has the most urgent priority of them.
    """
    first: dict[str, Trial] = {}
    for trial in trials:
        known = first.setdefault(trial.sha256, trial)
        if trial.priority < known.priority:
            first[trial.sha256] = dataclasses.replace(known, priority=trial.priority)
    return sorted(first.values(), key=lambda trial: (trial.priority, trial.seed % 100))


def recorded(records: Iterable[Record], trial: Trial) -> Cost | None:
    """The cost of training from the finished runs that are as long as this one; None without any."""
    alike = [r for r in records if r.epochs == trial.job.train.epochs and r.train_samples >= images(trial) / 2]
    if not alike:
        return None
    each = [record.wall_s / (record.epochs * record.train_samples) for record in alike]
    return Cost(sample_wall_s=statistics.median(each), source=f"the median of {len(alike)} finished runs")


def tried(trial: Trial) -> Cost:
    """The cost of training from a short run."""
    data = trial.job.data.model_copy(update={"train_samples": _PROBE_SAMPLES, "test_samples": None})
    train = trial.job.train.model_copy(update={"epochs": 1})
    short = dataclasses.replace(trial, job=trial.job.model_copy(update={"data": data, "train": train}))
    perform(short)  # compiles, and reads the data into the page cache
    record = perform(short)
    return Cost(sample_wall_s=record.train_wall_s / record.train_samples, source=f"{_PROBE_SAMPLES:,} samples tried")


def images(trial: Trial) -> int:
    """Training images of an epoch as far as the job tells: of MNIST, where it does not limit them."""
    return trial.job.data.train_samples or 60_000 - (trial.job.data.validation or 0)


def choose_epochs(count: Callable[[Budget], Sequence[Trial]], budget: Budget, cost: Cost, samples: int, seconds: float,
                  jobs: int) -> int:  # fmt: skip
    """The most epochs with which the runs up to those nearest the thresholds fit into `seconds`.

    `count` gives the runs that are still to be made with a budget, in order.  The fewest, where none fits: points
    are then left out from the end of the order.
    """
    for epochs in SHORTER:
        left = [t for t in count(dataclasses.replace(budget, epochs=epochs)) if t.priority <= NEAR]
        if len(left) * cost.wall_s(epochs, samples) <= seconds * jobs:
            return epochs
    return SHORTER[-1]


def until(trials: Iterable[Trial], deadline: float | None, expected_s: Callable[[Trial], float]) -> Iterator[Trial]:
    """Those trials that would end before `deadline` (of `time.monotonic`) when they are asked for."""
    for trial in trials:
        if deadline is None or time.monotonic() + expected_s(trial) <= deadline:
            yield trial
