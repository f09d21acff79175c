"""Threads that wait for calls, and how work is cut into turns for them."""

from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.kernels.cpu_turns import CUTS


class Helper:
    """A call that a waiting thread makes unless its time is over."""

    def __init__(self, part: Callable[[], Any]) -> None:
        self._part = part
        self._open, self._busy = Lock(), Lock()
        self._busy.acquire()
        self._found: Any = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        if self._open.acquire(blocking=False):
            try:
                self._found = self._part()
            except BaseException as error:  # for the caller
                self._error = error
            finally:
                self._busy.release()

    def close(self) -> bool:
        """No call begins from now on; whether one has begun."""
        return not self._open.acquire(blocking=False)

    def wait(self) -> None:
        """Wait for the end of a call that has begun."""
        self._busy.acquire()

    def result(self) -> Any:
        """What the call returned, or its error."""
        if self._error is not None:
            raise self._error
        return self._found


@cache
def waiting(threads: int) -> SimpleQueue[Callable[[], None]]:
    """What threads take calls from, one fewer than take part; all grids of a process share them."""
    calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def serve() -> None:
        while True:
            calls.get()()

    for number in range(threads - 1):
        Thread(target=serve, name=f"rpucluster_{number}", daemon=True).start()
    return calls


@cache
def equal_cuts(size: int, whole: int, ranges: int) -> list[int]:
    """Where so many ranges, or fewer, start and the last ends, at multiples of ``whole``; none is empty."""
    units = -(-size // whole)
    return sorted({min(units * i // ranges * whole, size) for i in range(ranges + 1)})


@cache
def falling_cuts(size: int, threads: int) -> list[int]:
    """Where ranges start and the last ends: large ones first, so that there are few, then small ones, so that threads
    end together."""
    cuts, least = [0], -(-size // (32 * threads))
    while cuts[-1] < size:
        left = size - cuts[-1]
        cuts.append(cuts[-1] + min(left, max(least, left // (2 * threads))))
    return cuts


def as_turns(cuts: list[int]) -> NDArray[np.int64]:
    """Turns of which none is taken."""
    return np.array([*[0] * CUTS, *cuts])
