"""Large updates and reads on several threads: one compiled call for each part, without the interpreter lock.

Parts are rows of tiles, or samples, which do not depend on each other, so that results are those of one thread.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from rpucluster.kernels import cpu_read, cpu_update
from rpucluster.kernels.base import ROWS, Tiling

UPDATE_CELLS, READ_CELLS = 1 << 22, 1 << 23
"""Cells times samples from which a call is shared; to wake threads takes as long as a tenth of that.  Measured."""
READ_SAMPLES = 8
"""Samples of a part of a read at least: as many as go through the product together."""


class Threads:
    """So many threads, the caller among them."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def share_read(self, tiling: Tiling, samples: int) -> bool:
        """Whether a read of so many vectors is shared; shapes alone decide."""
        large = tiling.rows * tiling.cols * samples >= READ_CELLS
        return self._threads > 1 and large and samples >= 2 * READ_SAMPLES

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
        slots, expected = np.zeros(len(table), np.int64), np.zeros(len(table))

        def part(start: int, stop: int) -> int:
            coincidences: int = cpu_update.update_part(
                weights, hidden, lanes, table, keys, ints, floats, x, d, lr, first_sample, start, stop, slots, expected
            )
            return coincidences

        coincidences = sum(self.in_parts(part, int(table[:, ROWS].sum()), 1))
        return int(slots.sum()), coincidences, cpu_update.in_turn(expected), True

    def read(
        self, weights: Any, table: Any, keys: Any, averages: Any, ints: Any, floats: Any, lines: Any, sums: Any,
        first_sample: int, backward: bool, learn: bool,
    ) -> tuple[int, int]:  # fmt: skip
        """As `cpu_read.read`."""
        scales = np.empty((len(lines), len(table)), np.float32)
        end = cpu_read.find_scales(table, averages, ints, floats, lines, backward, learn, scales)
        if end != cpu_read.FINE:
            return 0, end

        def part(start: int, stop: int) -> tuple[int, int]:
            some = slice(start, stop)
            found: tuple[int, int] = cpu_read.read_scaled(
                weights, table, keys, ints, floats, lines[some], sums[some], first_sample + start, backward,
                scales[some],
            )  # fmt: skip
            return found

        found = self.in_parts(part, len(lines), READ_SAMPLES)
        return sum(repeats for repeats, _ in found), max(end for _, end in found)

    def in_parts(self, part: Callable[[int, int], Any], size: int, whole: int) -> list[Any]:
        """What ``part`` returns for as many ranges as there are threads, in multiples of ``whole``."""
        units = -(-size // whole)
        cuts = [min(units * i // self._threads * whole, size) for i in range(self._threads + 1)]
        ranges = [(start, stop) for start, stop in pairwise(cuts) if start < stop]
        waiting = [_pool(self._threads).submit(part, *some) for some in ranges[1:]]
        try:
            first = part(*ranges[0])
        finally:
            others = [one.result() for one in waiting]  # nothing goes on when an error leaves
        return [first, *others]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work, one fewer than take part; all grids of a process share them."""
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="rpucluster")
