"""Scalars of a run for TensorBoard: the only import of tensorboardX, an optional package that writes event files."""

import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rpucluster.coordinator.callbacks import Callbacks
from rpucluster.coordinator.events import Progress, Report
from rpucluster.errors import MissingPackageError, RunError
from rpucluster.runlog import EpochRow


def require_tensorboardx() -> None:
    """Raise `MissingPackageError` where the package that writes event files is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            "scalars for TensorBoard need tensorboardX: "
            'pip install "rpucluster[tensorboard]", or leave --tensorboard out'
        ) from None


class Scalars:
    """Writes losses, accuracies, pace and modelled totals into an event file in a folder, by training step.

    `start` is the step from which the run goes on: TensorBoard drops what an earlier process wrote beyond it.  Steps
    that are done again after a loss are written once.  Raises `RunError` where nothing can be written; where the system
    refuses later, `tell` is told once and the run goes on without scalars.
    """

    def __init__(self, folder: Path, start: int, tell: Report) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        self._folder, self._tell = folder, tell
        self._now: Progress | None = None
        self._step = self._epoch = 0
        self._records: Any = None
        try:
            folder.mkdir(exist_ok=True)
            self._records = _records(folder, start)
            self._add(0, file_version="brain.Event:2")
            self._add(start + 1, session_log=SessionLog(status=SessionLog.START))
            self._records.flush()
        except OSError as error:
            self.close()
            raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None

    def callbacks(self) -> Callbacks:
        """What the run must call."""
        return Callbacks(on_step=self._on_step, on_epoch=self._on_epoch)

    def close(self) -> None:
        """Write what is left, if that can be done."""
        if self._records is not None:
            with suppress(OSError):
                self._records.close()
            self._records = None

    def _on_step(self, now: Progress) -> None:
        self._now = now
        step = (now.epoch - 1) * now.steps + now.step
        if step > self._step:
            self._step = step
            self._write(step, {"train/loss": now.train_loss, "wall/samples_per_s": now.samples_per_s})

    def _on_epoch(self, row: EpochRow) -> None:
        if row.epoch > self._epoch:
            self._epoch = row.epoch
            told = {
                "epoch/train_loss": row.train_loss,
                "epoch/train_accuracy": row.train_accuracy,
                "epoch/test_loss": row.test_loss,
                "epoch/test_accuracy": row.test_accuracy,
                "epoch/learning_rate": row.learning_rate,
                "modelled/seconds": row.modelled_s,
                "modelled/energy_J": row.modelled_energy_J,
            }
            self._write(row.step, told, flush=True)

    def _write(self, step: int, values: Mapping[str, float | None], flush: bool = False) -> None:
        from tensorboardX.summary import scalar

        if self._records is None:
            return
        try:
            for name, value in values.items():
                if value is not None:
                    self._add(step, summary=scalar(name, value))
            if flush:
                self._records.flush()
        except OSError as error:
            self.close()
            if self._now is not None:
                told = (
                    f"no scalars for TensorBoard from step {step} on: {self._folder}: cannot be written: "
                    f"{error.strerror or error}; the run goes on"
                )
                self._tell(replace(self._now, message=told))

    def _add(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), step=step, **what).SerializeToString())


def _records(folder: Path, start: int) -> Any:
    """An event file that this thread writes: the package's SummaryWriter has one of its own, and where that fails the
    run would wait for it for ever."""
    from tensorboardX.record_writer import RecordWriter

    # files are named by the second, so those of a run that goes on at once need something more
    return RecordWriter(str(folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.step-{start}"))
