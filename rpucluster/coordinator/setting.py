"""What all attempts at a run share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rpucluster.coordinator.callbacks import Caller
from rpucluster.coordinator.events import Report
from rpucluster.data import Dataset
from rpucluster.job import Job
from rpucluster.modelled import Modelled
from rpucluster.runlog import RunDirectory


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A run, as far as it does not change on the way."""

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
