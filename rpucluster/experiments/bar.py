"""What a reproduction shows while it goes on: a bar on a terminal, one line per finished run anywhere else."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rpucluster.experiments.executors import Advanced, Event, Failed, Finished, Started


class Bar:
    """Shows the events that it is called with; a context manager around the runs."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("runs", total=None, figures="")
        self._epochs: dict[str, int] = {}
        self._runs = self._ended = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.stop()

    def expect(self, runs: int, epochs: int, known: int) -> None:
        """Before the first run: how many are to come, of how many epochs in all, and how many were there already."""
        self._runs = runs
        self._bar.update(self._task, total=epochs, figures=f"0/{runs}")
        self.say(f"{known} runs are there already, {runs} to come")

    def say(self, sentence: str) -> None:
        """Print a line of its own."""
        if not self._quiet:
            self._console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        """Show what became of a trial."""
        trial, name = event.trial, f"{event.trial.label}, seed {event.trial.seed}"
        done = self._epochs.get(trial.sha256, 0)
        match event:
            case Started():
                return
            case Advanced():
                self._epochs[trial.sha256] = event.epochs
                self._bar.advance(self._task, event.epochs - done)
                return
            case Finished():
                wall = f"{event.record.wall_s:.0f} s"
                line = f"{name}: {100 * event.record.test_error:.2f} % error, {wall}"
            case Failed():
                line = f"{name}: failed: {event.reason}"
        self._ended += 1
        self._bar.advance(self._task, trial.job.train.epochs - done)
        self._bar.update(self._task, figures=f"{self._ended}/{self._runs}")
        self.say(f"[{self._ended}/{self._runs}] {line}")
