"""What a program that runs a job is told on the way, and how it may end the run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpucluster.coordinator.events import Progress
from rpucluster.errors import ConfigError
from rpucluster.runlog import EpochRow


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that a run calls; one that returns True ends it after a checkpoint, from which it can be resumed.

    An exception in one ends the run in the same way and is raised again then.  None of them changes a result.  After a
    process was lost, steps, epochs and checkpoints that are done again are told again.  Raises `ConfigError` where
    `every_steps` is below 1.
    """

    on_step: Callable[[Progress], bool | None] | None = None
    """After the steps that are performed together (at most 256), or after every `every_steps`-th since the start.

    Losses are taken at the same steps whoever looks, so `train_loss` is None in between, where Ray's accelerators may
    also be a little behind."""
    on_epoch: Callable[[EpochRow], bool | None] | None = None
    """After an epoch and its evaluation, with its row of metrics.parquet, which is written by then."""
    on_checkpoint: Callable[[Path], bool | None] | None = None
    """After a checkpoint is complete, with its folder; of those only the last two are kept."""
    every_steps: int | None = None

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise ConfigError(f"every_steps = {self.every_steps} of the callbacks is below 1; write 1 or more, or None")


class StoppedByCallbackError(Exception):
    """A run that a callback has ended; its checkpoint is written."""


class Caller:
    """Calls the callbacks of a run: `asked` once one wants it to end, `error` where that is by an exception."""

    def __init__(self, callbacks: Sequence[Callbacks]) -> None:
        self.asked = False
        self.error: Exception | None = None
        self.may_end = any(told.on_step or told.on_epoch for told in callbacks)
        """Whether a step or an epoch may be the last for one of them, so that none may follow before it was told."""
        self._callbacks = list(callbacks)

    def also(self, callbacks: Callbacks) -> None:
        """Call these too, which never ask for the end."""
        self._callbacks.append(callbacks)

    def before(self, first: int, stop: int) -> int:
        """Where steps from `first` up to `stop` are interrupted for `on_step`: the step after which, or `stop`."""
        every = [told.every_steps for told in self._callbacks if told.every_steps is not None and told.on_step]
        return min(stop, *((first // steps + 1) * steps for steps in every)) if every else stop

    def step(self, steps: int, now: Progress) -> None:
        """Tell that so many steps are done since the start; `now` has a loss where one was taken."""
        for told in self._callbacks:
            if now.train_loss is not None if told.every_steps is None else steps % told.every_steps == 0:
                self._call(told.on_step, now)

    def epoch(self, row: EpochRow) -> None:
        """Tell of an epoch."""
        for told in self._callbacks:
            self._call(told.on_epoch, row)

    def checkpoint(self, folder: Path) -> None:
        """Tell of a checkpoint."""
        for told in self._callbacks:
            self._call(told.on_checkpoint, folder)

    def _call(self, function: Callable[[Any], bool | None] | None, value: Any) -> None:
        if function is None or self.error is not None:
            return
        try:
            self.asked = bool(function(value)) or self.asked
        except Exception as error:  # whatever it is, a checkpoint comes first
            self.error, self.asked = error, True
