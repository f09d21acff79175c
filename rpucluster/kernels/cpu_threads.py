"""Large updates and reads on several threads: compiled calls without the interpreter lock that take turns at the work.

A turn is a range of rows or samples, which do not depend on each other, so that results are those of one thread.  Who
comes late, or not at all, finds less left to do: nobody waits for a thread that has not begun.
"""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.kernels import cpu_lines, cpu_read, cpu_update
from rpucluster.kernels.base import COLS, ROWS, Tiling

UPDATE_CELLS, READ_CELLS = 1 << 22, 1 << 23
"""Cells times samples from which a call is shared; to wake threads takes as long as a tenth of that.  Measured."""
READ_SAMPLES = 8
"""Samples of a turn of a read at least: as many as go through the product together."""


class Threads:
    """So many threads, the caller among them."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def share_read(self, tiling: Tiling, samples: int) -> bool:
        """Whether a read of so many vectors is shared; shapes alone decide."""
        large = tiling.rows * tiling.cols * samples >= READ_CELLS
        return self._threads > 1 and large and (samples >= 2 * READ_SAMPLES or _by_lines(tiling.table, samples))

    def share_update(self, tiling: Tiling, samples: int) -> bool:
        """Whether an update by so many samples is shared."""
        return self._threads > 1 and tiling.rows * tiling.cols * samples >= UPDATE_CELLS

    def pulsed_update(
        self, weights: Any, hidden: Any, lanes: Any, table: Any, keys: Any, ints: Any, floats: Any, x: Any, d: Any,
        lr: Any, first_sample: int,
    ) -> tuple[int, int, float, bool]:  # fmt: skip
        """As `cpu_update.pulsed_update`."""
        if not cpu_update.finite(x, d):
            return 0, 0, 0.0, False
        known = np.zeros((len(table), 3, len(x)), np.int64)
        turns = _falling_turns(int(table[:, ROWS].sum()), self._threads).copy()

        def part() -> int:
            coincidences: int = cpu_update.update_part(
                weights, hidden, lanes, table, keys, ints, floats, x, d, lr, first_sample, turns, known
            )
            return coincidences

        coincidences = sum(self.on_all(part))
        slots, expected = cpu_update.totals(known)
        return slots, coincidences, expected, True

    def read(
        self, weights: Any, table: Any, keys: Any, averages: Any, ints: Any, floats: Any, lines: Any, sums: Any,
        first_sample: int, backward: bool, learn: bool,
    ) -> tuple[int, int]:  # fmt: skip
        """As `cpu_read.read`."""
        scales = np.empty((len(lines), len(table)), np.float32)
        end = cpu_read.find_scales(table, averages, ints, floats, lines, backward, learn, scales)
        if end != cpu_read.FINE:
            return 0, end

        if _by_lines(table, len(lines)):
            repeats = 0
            for t in range(len(table)):
                more, end = self._read_tile(
                    weights, table, keys, t, ints, floats, lines, sums, first_sample, backward, scales[:, t].copy()
                )
                repeats += more
                if end != cpu_read.FINE:
                    break
            return repeats, end

        def part(start: int, stop: int) -> tuple[int, int]:
            some = slice(start, stop)
            found: tuple[int, int] = cpu_read.read_scaled(
                weights, table, keys, ints, floats, lines[some], sums[some], first_sample + start, backward,
                scales[some],
            )  # fmt: skip
            return found

        found = self.in_parts(part, len(lines), READ_SAMPLES)
        return sum(repeats for repeats, _ in found), max(end for _, end in found)

    def _read_tile(
        self, weights: Any, table: Any, keys: Any, t: int, ints: Any, floats: Any, lines: Any, sums: Any,
        first_sample: int, backward: bool, factors: Any,
    ) -> tuple[int, int]:  # fmt: skip
        """Add the reads of a tile with given scales; returns repeats and how it ended."""
        results = cpu_lines.new_results(table, t, len(lines), backward)
        said = np.zeros((2, len(lines)), np.uint8)
        cuts = _equal_cuts(int(table[t, COLS if backward else ROWS]), cpu_lines.LINES_TOGETHER, self._threads)
        repeats, repeat, again, end = 0, 0, len(lines), cpu_read.FINE
        while again > 0 and end == cpu_read.FINE:
            turns, number = np.array([0, *cuts]), repeat

            def part() -> None:
                cpu_lines.read_lines(
                    weights, table, keys, t, ints, floats, lines, sums, first_sample, backward, factors, number,
                    results, turns, said,
                )  # fmt: skip

            self.on_all(part)
            again, end = cpu_lines.next_round(
                table, t, ints, floats, lines, sums, backward, factors, repeat, results, said
            )
            repeats, repeat = repeats + again, repeat + 1
        return repeats, end

    def in_parts(self, part: Callable[[int, int], Any], size: int, whole: int) -> list[Any]:
        """What ``part`` returns for as many ranges as there are threads, in multiples of ``whole``."""
        ranges = pairwise(_equal_cuts(size, whole, self._threads))

        def turns() -> list[Any]:
            return [part(start, stop) for start, stop in ranges]  # which threads share: each range is given out once

        return [one for found in self.on_all(turns) for one in found]

    def on_all(self, part: Callable[[], Any]) -> list[Any]:
        """What ``part`` returns on each thread that calls it before the caller has finished its own call."""
        helpers = [_Helper(part) for _ in range(self._threads - 1)]
        for helper in helpers:
            _waiting(self._threads).put(helper)
        try:
            found = [part()]
        finally:
            begun = [helper for helper in helpers if helper.end()]  # nothing goes on when an error leaves
        return found + [helper.result() for helper in begun]


class _Helper:
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

    def end(self) -> bool:
        """No call begins from now on, and one that has begun has ended; whether there was one."""
        if self._open.acquire(blocking=False):
            return False
        self._busy.acquire()
        return True

    def result(self) -> Any:
        """What the call returned, or its error."""
        if self._error is not None:
            raise self._error
        return self._found


@cache
def _waiting(threads: int) -> SimpleQueue[Callable[[], None]]:
    """What threads take calls from, one fewer than take part; all grids of a process share them."""
    calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def serve() -> None:
        while True:
            calls.get()()

    for number in range(threads - 1):
        Thread(target=serve, name=f"rpucluster_{number}", daemon=True).start()
    return calls


def _by_lines(table: Any, samples: int) -> bool:
    """Whether tiles are so large that threads share the output lines of each, and not the samples.

    To read half of the samples takes more than half of the time where the tile does not stay in a cache."""
    cells: int = (table[:, ROWS] * table[:, COLS]).sum()
    return cells * samples >= READ_CELLS * len(table)


@cache
def _equal_cuts(size: int, whole: int, threads: int) -> list[int]:
    """Where as many ranges as there are threads start and the last ends, at multiples of ``whole``; none is empty."""
    units = -(-size // whole)
    return sorted({min(units * i // threads * whole, size) for i in range(threads + 1)})


@cache
def _falling_turns(size: int, threads: int) -> NDArray[np.int64]:
    """Turns at ``size`` lines, as compiled functions take them: large ones first, so that there are few, then small
    ones, so that threads end together."""
    cuts, least = [0], -(-size // (32 * threads))
    while cuts[-1] < size:
        left = size - cuts[-1]
        cuts.append(cuts[-1] + min(left, max(least, left // (2 * threads))))
    return np.array([0, *cuts])
