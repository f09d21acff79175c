"""One training run of an experiment: its job and cluster, and a hash of everything that its result depends on."""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpucluster import __version__, coordinator
from rpucluster.cluster import CLUSTER_TABLES, Cluster, load_cluster
from rpucluster.config import split_overrides
from rpucluster.experiments.points import PAPER_EPOCHS, Panel, Point
from rpucluster.experiments.records import Record
from rpucluster.experiments.settings import BASE_JOB
from rpucluster.job import JOB_TABLES, Job, load_job

PHYSICS = 1
"""Raise it when a default or a kernel changes what a run of the same settings gives, other than by chance: runs of
before then no longer count."""
RATES = (0.01, 0.005, 0.0025)
"""Of the first, second and last third of the epochs (S/C)."""
_HOST = ("data.path", "run.")
"""Settings that say where data lie and how this host computes, which are no part of an experiment."""
QUICK_EPOCHS, QUICK_TRAIN, QUICK_TEST = 3, 10_000, 2_000
"""Epochs and images of a quick run, which shows that everything works and which way effects go.  Too few
for the rates to fall: errors end near 17 % instead of 2 %."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how often every point is trained."""

    epochs: int = PAPER_EPOCHS
    seeds: int = 3
    train_samples: int | None = None
    """Only the first so many training images; None is all."""
    test_samples: int | None = None
    rates: tuple[float, ...] = RATES
    """Learning rates, each for an equal part of the epochs."""
    changes: tuple[str, ...] = ()
    """``section.key=value`` that the user sets for every run."""

    @property
    def is_the_papers(self) -> bool:
        """Whether runs are as long as the paper's, and nothing else of them was changed."""
        return dataclasses.replace(self, seeds=Budget.seeds) == Budget()

    @property
    def text(self) -> str:
        """The budget in one sentence."""
        train = "all training images" if self.train_samples is None else f"{self.train_samples:,} training images"
        test = "" if self.test_samples is None else f", {self.test_samples:,} test images"
        changes = f", with {' '.join(self.changes)}" if self.changes else ""
        own = "the paper's budget" if self.is_the_papers else f"NOT the paper's budget of {PAPER_EPOCHS} epochs of all"
        return f"{self.epochs} epochs of {train}{test}, {self.seeds} seeds a point{changes}: {own}"

    @property
    def sets(self) -> tuple[str, ...]:
        """The budget as settings; the schedule of rates keeps its shape."""
        starts = {round(i * self.epochs / len(self.rates)): rate for i, rate in enumerate(self.rates)}
        sets = [f"train.epochs={self.epochs}", f"train.learning_rate={json.dumps(list(starts.items()))}"]
        if self.train_samples is not None:
            sets.append(f"data.train_samples={self.train_samples}")
        if self.test_samples is not None:
            sets.append(f"data.test_samples={self.test_samples}")
        return tuple(sets)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One run: a point with a seed."""

    label: str
    """``"fig3.A 0.01"``; where several panels share the run, of the first."""
    seed: int
    priority: int
    sets: tuple[str, ...]
    """How the experiment differs from the base job and cluster."""
    job: Job
    cluster: Cluster
    sha256: str


def trials_of(
    panel: Panel, point: Point, budget: Budget, cluster: str, sets: Sequence[str], data_sha256: str
) -> list[Trial]:
    """The runs of one point, a seed each.  Raises `ConfigError` for settings that do not fit."""
    every = (*budget.sets, *point.sets, *sets)
    # one core a run, and nothing on disk before the end
    host = ("run.arrays=numpy", 'run.checkpoint_every="inf s"')
    parts = split_overrides((*host, *every), {"job": JOB_TABLES, "cluster": CLUSTER_TABLES})
    base, machine = load_job(BASE_JOB, parts["job"]), load_cluster(cluster, parts["cluster"])
    trials = []
    for seed in range(panel.first_seed, panel.first_seed + budget.seeds):
        job = base.model_copy(update={"train": base.train.model_copy(update={"seed": seed})})
        trials.append(
            Trial(
                label=f"{panel.id} {point.label}",
                seed=seed,
                priority=point.priority,
                sets=tuple(item for item in every if not item.startswith(_HOST)),
                job=job,
                cluster=machine,
                sha256=settings_sha256(job, machine, data_sha256),
            )
        )
    return trials


def settings_sha256(job: Job, cluster: Cluster, data_sha256: str) -> str:
    """Hash of everything that a run's result depends on: `PHYSICS`, the data, and what differs from the defaults.

    A setting that a later version adds so leaves finished runs valid.  Devices count with their parameters, not by
    the name of their preset.  What cannot change a result is left out: names, where the data lie, how the host
    computes, and the modelled machine but for its tiles and converters.
    """
    described = job.model_dump(mode="json", exclude_defaults=True, exclude={"name", "device", "run", "words"})
    described["physics"] = PHYSICS
    described["data"].pop("path")
    described["data_sha256"] = data_sha256
    described["devices"] = [
        {"kind": type(device).__name__} | _changed(device)
        for device in map(job.device_of, range(len(job.network.layers)))
    ]
    described["tiles"] = cluster.accelerator.model_dump(
        mode="json", exclude_defaults=True, include={"tile_rows", "tile_cols", "forward", "backward"}
    )
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _changed(device: Any) -> dict[str, Any]:
    """The parameters of a device that are not its model's defaults."""
    values = {field.name: (getattr(device, field.name), field.default) for field in dataclasses.fields(device)}
    return {name: value for name, (value, default) in values.items() if value != default}


def perform(trial: Trial, tell: Callable[[int], None] = lambda _: None) -> Record:
    """Train one trial in this process; `tell` hears how many epochs are done.

    Raises what `coordinator.run` raises.  Nothing is left on disk.
    """

    def progress(now: coordinator.Progress) -> None:
        if now.phase == "epoch":
            tell(now.epoch)

    with tempfile.TemporaryDirectory(prefix="rpucluster-") as folder:
        done = coordinator.run(trial.job, trial.cluster, executor="local", out=Path(folder) / "run", progress=progress)
        rows = done.directory.read_epochs()
    return Record(
        label=trial.label,
        seed=trial.seed,
        sha256=trial.sha256,
        sets=trial.sets,
        epochs=trial.job.train.epochs,
        train_samples=rows[-1].samples // rows[-1].epoch,
        test_errors=tuple(None if row.test_accuracy is None else 1 - row.test_accuracy for row in rows),
        train_losses=tuple(row.train_loss for row in rows),
        wall_s=done.summary["wall_s"],
        train_wall_s=done.summary["train_wall_s"],
        version=__version__,
    )
