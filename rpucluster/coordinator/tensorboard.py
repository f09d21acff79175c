"""Scalars of a run for TensorBoard: the only import of tensorboardX, an optional package that writes event files."""

from pathlib import Path
from typing import Any

from rpucluster.coordinator.callbacks import Callbacks
from rpucluster.coordinator.events import Progress
from rpucluster.errors import MissingPackageError
from rpucluster.runlog import EpochRow


def event_writer() -> Any:
    """The class that writes event files.  Raises `MissingPackageError` where it is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise MissingPackageError(
            "scalars for TensorBoard need tensorboardX: "
            'pip install "rpucluster[tensorboard]", or leave --tensorboard out'
        ) from None
    return SummaryWriter


class Scalars:
    """Writes losses, accuracies, pace and modelled totals into event files in a folder, by training step.

    `start` is the step from which the run goes on: TensorBoard drops what an earlier process wrote beyond it.  Steps
    that are done again after a loss are written once.
    """

    def __init__(self, folder: Path, start: int) -> None:
        # files are named by the second, so those of a run that goes on at once need something more
        self._writer = event_writer()(str(folder), purge_step=start + 1, filename_suffix=f".step-{start}")
        self._step = self._epoch = 0

    def callbacks(self) -> Callbacks:
        """What the run must call."""
        return Callbacks(on_step=self._on_step, on_epoch=self._on_epoch)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _on_step(self, now: Progress) -> None:
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
            self._write(row.step, told)
            self._writer.flush()

    def _write(self, step: int, values: dict[str, float | None]) -> None:
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
