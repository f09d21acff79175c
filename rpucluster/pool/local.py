"""What a pool of accelerators is, and the one in this process."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rpucluster.accelerator import Counters, Counts, Score, Spent, Steps
from rpucluster.checkpoint import WrittenFile
from rpucluster.cluster import Cluster
from rpucluster.job import Job
from rpucluster.plan import Plan
from rpucluster.pool.host import Host, Written
from rpucluster.program import Program


class Pool(ABC):
    """The accelerators of a plan, and the programs they know by name."""

    notices: tuple[str, ...] = ()
    """What is worth telling about where they live, a line each."""
    ahead: int = 0
    """How many runs of steps it takes before the score of the first need be asked for: 0 where nothing is gained."""

    def load(self, name: str, program: Program) -> None:
        """Give a program to every accelerator, once."""
        self._everywhere("load", name, program)

    @abstractmethod
    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        """Give a data set to every accelerator, once."""

    @abstractmethod
    def perform(self, name: str, data: str, steps: Steps) -> None:
        """Perform a program once for each step, in order; may return before the last ones are finished."""

    def take_score(self) -> Score:
        """The scores since the last time this was asked; waits for every step so far.

        Raises `AcceleratorError` if an accelerator was lost, or what an accelerator raised.
        """
        return self.ask_score()()

    def ask_score(self) -> Callable[[], Score]:
        """Have scores taken after the steps so far; what this returns waits for them as `take_score` does."""
        asked = self._ask("take_score")

        def score() -> Score:
            scores = {number: score for part in asked() for number, score in part.items()}
            # always in the same order, so that the sum does not depend on who hosts whom
            return sum((scores[number] for number in sorted(scores)), Score())

        return score

    def weights(self, layer: int, rows: tuple[int, int]) -> dict[int, Any]:
        """`Accelerator.weights` by accelerator, of those that hold some of these rows of the layer."""
        return {number: w for part in self._everywhere("weights", layer, rows) for number, w in part.items()}

    def counts(self) -> dict[int, Counts]:
        """`Accelerator.counts` by accelerator."""
        return self.ask_counts()()

    def ask_counts(self) -> Callable[[], dict[int, Counts]]:
        """Have counts taken after the steps so far; what this returns waits for them."""
        asked = self._ask("counts")
        return lambda: {number: c for part in asked() for number, c in part.items()}

    def spent(self) -> list[Spent]:
        """Where the time of each worker went while it performed steps."""
        return self._everywhere("spent")

    def save(self, folder: Path) -> dict[int, Counters]:
        """Have every accelerator write what it keeps into a folder, as far as possible while training goes on.

        Returns their counters; `saved` returns what was written.
        """
        return {number: c for part in self._everywhere("save", folder) for number, c in part.items()}

    def saved(self, wait: bool) -> Written | None:
        """The files that `save` has led to; None while one is still being written, unless this shall wait.

        Raises `RunError` where the system refused to write.
        """
        if not wait and any(self._aside("is_saving")):
            return None
        return [file for part in (self._everywhere if wait else self._aside)("saved") for file in part]

    def restore(self, files: Mapping[Path, WrittenFile], counters: Mapping[int, Counters]) -> None:
        """Continue from the files of a checkpoint, and from these counters.

        Raises `RunDirectoryError` where they are of another network.
        """
        self._everywhere("restore", files, counters)

    def take_weights(self, files: Mapping[Path, WrittenFile], replicas: int) -> None:
        """Start from the weights in the files of a checkpoint of so many replicas."""
        self._everywhere("take_weights", files, replicas)

    @abstractmethod
    def close(self) -> None:
        """Let the accelerators go."""

    @abstractmethod
    def _everywhere(self, method: str, *args: Any) -> list[Any]:
        """Call a method of every host and wait for the results."""

    def _aside(self, method: str) -> list[Any]:
        """Call a method of every host that may come in the middle of what was submitted, and wait for the results."""
        return self._everywhere(method)

    def _ask(self, method: str) -> Callable[[], list[Any]]:
        """Call a method of every host after what was submitted; what this returns waits for the results."""
        results = self._everywhere(method)
        return lambda: results


class LocalPool(Pool):
    """All accelerators in this process."""

    def __init__(self, job: Job, cluster: Cluster, plan: Plan) -> None:
        self._host = Host(0, dict.fromkeys(plan.accelerators, 0), job, cluster, plan)

    def set_data(self, name: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        self._host.set_data(name, x, y)

    def perform(self, name: str, data: str, steps: Steps) -> None:
        self._host.perform(name, data, steps)

    def close(self) -> None:
        self._host.release()

    def _everywhere(self, method: str, *args: Any) -> list[Any]:
        return [getattr(self._host, method)(*args)]
