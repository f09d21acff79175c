"""When a run writes its checkpoints, and what it writes into them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rpucluster.checkpoint import abandon, begin, finish
from rpucluster.coordinator.position import Position
from rpucluster.job.interval import Interval
from rpucluster.pool import Pool


class Saver:
    """Writes the checkpoints of one pool into a folder; `told` goes into each manifest as it is.

    `save` has accelerators copy what they keep; the files are written while training goes on, and `poll` completes the
    checkpoint once they are there, and call `complete` with its folder.  Both raise `RunError` where the system refuses
    to write.
    """

    def __init__(
        self, root: Path, every: Interval, pool: Pool, told: Mapping[str, Any], complete: Callable[[Path], None]
    ) -> None:
        self._root, self._every, self._pool, self._told, self._complete = root, every, pool, told, complete
        self._last = time.perf_counter()
        self._new: tuple[Path, Mapping[str, Any]] | None = None

    def due(self, steps: int) -> bool:
        """Whether there should be a checkpoint after so many steps since the start."""
        if self._every.steps is not None:
            return steps % self._every.steps == 0
        return time.perf_counter() - self._last >= (self._every.seconds or 0.0)

    def before(self, first: int, stop: int) -> int:
        """Where steps from `first` up to `stop` are interrupted for a checkpoint: the step after which, or `stop`."""
        every = self._every.steps
        return stop if every is None else min(stop, (first // every + 1) * every)

    def save(self, position: Position, wait: bool = False) -> None:
        """Begin a checkpoint; complete it at once if this shall wait."""
        self.poll(wait=True)
        new = begin(self._root, position.steps)
        self._new = new, {}
        counters = {str(number): asdict(found) for number, found in self._pool.save(new).items()}
        self._new = new, {**self._told, "position": position.to_dict(), "counters": counters}
        self._last = time.perf_counter()
        self.poll(wait)

    def poll(self, wait: bool = False) -> None:
        """Complete the checkpoint that was begun, if its files are there, or once they are if this shall wait."""
        if self._new is None:
            return
        written = self._pool.saved(wait)
        if written is not None:
            new, told = self._new
            folder = finish(new, written, told)
            self._new = None
            self._complete(folder)

    def close(self) -> None:
        """Remove what is not complete; nobody may be writing any more."""
        if self._new is not None:
            abandon(self._new[0])
            self._new = None
