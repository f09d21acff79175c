"""What a run shows while it goes on: a bar on a terminal, one line per finished epoch anywhere else."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from rpucluster.coordinator import Progress
from rpucluster.units import format_count, format_quantity


class Display:
    """Shows the `Progress` values that it is called with on a console; a context manager around the run."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None
        self._trained: Progress | None = None
        self._told = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, now: Progress) -> None:
        """Show where the run stands."""
        # the test accuracy of an epoch arrives with its evaluation or with the first news of the next epoch
        if now.phase == "evaluate" and now.test_accuracy is not None:
            self._tell(now, now.test_accuracy)
        if now.phase == "train":
            if self._trained is not None and now.epoch > self._trained.epoch:
                self._tell(self._trained, now.test_accuracy)
            self._trained = now
        self._move(now)

    def finished(self, summary: dict[str, Any]) -> None:
        """Show the last epoch, whose accuracy only the summary has."""
        if self._trained is not None:
            self._tell(self._trained, summary["test_accuracy"], summary["train_loss"])

    def _move(self, now: Progress) -> None:
        total = now.epochs * now.steps
        if self._task is None:
            self._task = self._bar.add_task("starting", total=total, figures="")
        if now.phase == "train":
            figures = [f"step {now.step:,}/{now.steps:,}"]
            if now.train_loss is not None:
                figures.append(f"loss {now.train_loss:.4f}")
            if now.samples_per_s is not None:
                figures.append(f"{format_count(now.samples_per_s)} samples/s")
            if now.modelled_step_s is not None:
                figures.append(f"modelled step {format_quantity(now.modelled_step_s, 'time')}")
            self._bar.update(
                self._task,
                completed=(now.epoch - 1) * now.steps + now.step,
                description=f"epoch {now.epoch}/{now.epochs}",
                figures="  ".join(figures),
            )
        elif now.phase == "evaluate":
            self._bar.update(self._task, figures="evaluating")

    def _tell(self, epoch: Progress, accuracy: float | None, loss: float | None = None) -> None:
        if epoch.epoch <= self._told or self._quiet:
            return
        self._told = epoch.epoch
        words = [f"epoch {epoch.epoch}/{epoch.epochs}"]
        loss = epoch.train_loss if loss is None else loss
        if loss is not None:
            words.append(f"loss {loss:.4f}")
        if accuracy is not None:
            words.append(f"test accuracy {100 * accuracy:.2f} %")
        self._console.print(", ".join(words), highlight=False, soft_wrap=True)
