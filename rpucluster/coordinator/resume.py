"""From a checkpoint to what a run continues with: specs, position, counters, and whether it is the same experiment."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from rpucluster.accelerator import Counters
from rpucluster.checkpoint import MANIFEST, Checkpoint, complete, newest, open_checkpoint
from rpucluster.cluster import Cluster
from rpucluster.config import SpecT, apply_override, validated
from rpucluster.coordinator.experiment import differs, plan_digest
from rpucluster.coordinator.position import Position
from rpucluster.errors import ConfigError, RunDirectoryError
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.runlog import RunDirectory

AS_NEW = "--resume-as-new starts a new run from its weights"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run and the checkpoint of it to start from."""

    directory: RunDirectory
    checkpoint: Checkpoint

    @property
    def position(self) -> Position:
        """Where training stood."""
        return position_in(self.checkpoint)

    def specs(self, job_sets: Sequence[str] = (), cluster_sets: Sequence[str] = ()) -> tuple[Job, Cluster]:
        """What the run was made of, with overrides on top.  Raises `ConfigError`."""
        return self._spec(Job, "job", job_sets), self._spec(Cluster, "cluster", cluster_sets)

    @property
    def replicas(self) -> int:
        """How many replicas the weights are of."""
        return 1 + max((place.replica for file in self.checkpoint.files.values() for place in file.pieces), default=0)

    def _spec(self, kind: type[SpecT], name: str, sets: Sequence[str]) -> SpecT:
        origin = f"{name}.toml in {self.checkpoint.folder / MANIFEST}"
        try:
            tables = tomllib.loads(self.checkpoint.told[name])
        except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{origin}: {error}") from None
        for override in sets:
            apply_override(tables, override)
        return validated(kind, tables, f"{origin} with --set {' '.join(sets)}" if sets else origin)


def find(path: Path) -> Source:
    """The newest checkpoint of a run, or the one of that path.

    Raises `RunDirectoryError` where there is none, or it is damaged; the message then offers the newest that is not.
    """
    if (path / MANIFEST).exists():
        return Source(directory=RunDirectory(path.parent.parent), checkpoint=open_checkpoint(path))
    if not path.is_dir():
        if (kept := complete(path.parent)) and path.parent == RunDirectory(path.parent.parent).checkpoints:
            there = " and ".join(folder.name for folder in kept)
            raise RunDirectoryError(f"{path.parent.parent} has no checkpoint {path.name}; it has {there}")
        raise RunDirectoryError(f"there is no run directory {path}")
    directory = RunDirectory(path)
    return Source(directory=directory, checkpoint=newest(directory.checkpoints))


def position_in(checkpoint: Checkpoint) -> Position:
    """Where training stood.  Raises `RunDirectoryError` for a manifest of something else."""
    try:
        return Position.from_dict(checkpoint.told["position"])
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(checkpoint, error) from None


def counters_for(plan: Plan, checkpoint: Checkpoint) -> dict[int, Counters]:
    """What accelerators of a plan count on from; under another plan, the one that scores takes all of its replica."""
    last = plan.layers[-1]
    try:
        saved = TypeAdapter(dict[int, Counters]).validate_python(checkpoint.told["counters"])
        if checkpoint.told["plan"] == plan_digest(plan):
            return saved
        return {
            plan.accelerator(replica, last.stage, last.holders[0]): _sum(
                [c for c in saved.values() if c.replica == replica]
            )
            for replica in range(plan.data)
        }
    except (KeyError, ValueError, IndexError) as error:
        raise _foreign(checkpoint, error) from None


def require_same(checkpoint: Checkpoint, now: Mapping[str, Any], job: Job) -> None:
    """Raise `RunDirectoryError`, which names the key, where a job would not continue the experiment of a checkpoint."""
    told = checkpoint.told.get("experiment")
    found = differs(told if isinstance(told, dict) else {}, now)
    if found is not None:
        key, before, after = found
        raise RunDirectoryError(
            f"{checkpoint.folder}: {key} was {_shown(before)} and is {_shown(after)}, which is another experiment; "
            f"leave it as it was, or {AS_NEW}"
        )
    position = position_in(checkpoint)
    epochs = Source(directory=RunDirectory(checkpoint.folder), checkpoint=checkpoint).specs()[0].train.epochs
    if job.train.epochs == epochs:
        return
    finished = position.epoch == epochs
    averages = job.parallel.data_sync == "average" and job.parallel.data > 1
    as_if = epochs % job.evaluate.every == 0 and not (averages and position.steps % job.parallel.average_every)
    if job.train.epochs <= position.epoch or (finished and not as_if):
        why = "has come further" if job.train.epochs <= position.epoch else "treated its last epoch as the last"
        raise RunDirectoryError(
            f"{checkpoint.folder}: [train] epochs was {epochs} and is {job.train.epochs}, but the run {why}; "
            f"write {epochs}, or {AS_NEW}"
        )


def _foreign(checkpoint: Checkpoint, error: Exception) -> RunDirectoryError:
    reason = " ".join(str(error).split())[:200]
    return RunDirectoryError(f"{checkpoint.folder / MANIFEST}: not of a run of this version: {reason}")


def _sum(parts: Sequence[Counters]) -> Counters:
    return Counters(
        replica=parts[0].replica,
        reports=True,
        counts=tuple(sum(column) for column in zip(*(part.counts for part in parts), strict=True)),
        sums=tuple(sum(column) for column in zip(*(part.sums for part in parts), strict=True)),
        programmed_pulses=sum(part.programmed_pulses for part in parts),
    )


def _shown(value: Any) -> str:
    text = "not there" if value is None else repr(value).replace("'", '"')
    return text if len(text) <= 60 else text[:57] + "..."
