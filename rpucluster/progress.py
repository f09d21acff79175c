"""What a run shows while it goes on: a bar on a terminal, one line per finished epoch anywhere else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

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

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, now: Progress) -> None:
        """Show where the run stands."""
        if now.phase == "epoch":
            self._tell(now)
        if now.message is not None:
            self._console.print(now.message, highlight=False, soft_wrap=True, markup=False)
        self._move(now)

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

    def _tell(self, epoch: Progress) -> None:
        if self._quiet:
            return
        words = [f"epoch {epoch.epoch}/{epoch.epochs}"]
        if epoch.train_loss is not None:
            words.append(f"loss {epoch.train_loss:.4f}")
        if epoch.test_accuracy is not None:
            words.append(f"test accuracy {100 * epoch.test_accuracy:.2f} %")
        self._console.print(", ".join(words), highlight=False, soft_wrap=True)


@contextmanager
def counting(label: str, console: Console, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that is counted: what is given is called with how much is done and how much there is at most."""
    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}"),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, most: bar.update(task, completed=done, total=most)
