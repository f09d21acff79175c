"""Large updates and reads on several threads: compiled calls without the interpreter lock that take turns at the work.

A turn is a range of rows or samples, which do not depend on each other, so that results are those of one thread.  Who
comes late, or not at all, finds less left to do: nobody waits for a thread that has not begun.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from rpucluster.kernels import cpu_lines, cpu_read, cpu_tile_trains, cpu_update
from rpucluster.kernels.base import COLS, ROWS, Tiling
from rpucluster.kernels.cpu_helpers import Helper, as_turns, equal_cuts, falling_cuts, waiting
from rpucluster.kernels.cpu_turns import FOUND, all_done

UPDATE_CELLS, READ_CELLS = 1 << 22, 1 << 23
"""Cells times samples from which a call is shared; to wake threads takes as long as a tenth of that.  Measured."""
TRAIN_SAMPLES = 64
"""Samples from which threads make the trains of a large tile's columns together; for fewer, each makes all."""
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
        known = np.zeros((len(table), cpu_tile_trains.KNOWN, len(x)), np.int64)
        fixed = weights, hidden, lanes, table, keys, ints, floats
        if len(x) >= TRAIN_SAMPLES and _by_lines(table, len(x)):
            finite = bool(cpu_update.finite(x, d))
            tiles = range(len(table)) if finite else ()
            coincidences = sum(self._update_tile(*fixed, x, d, lr, first_sample, t, known[t]) for t in tiles)
        else:
            turns = as_turns(falling_cuts(int(table[:, ROWS].sum()), self._threads))
            found = self.on_all(partial(cpu_update.update_part, *fixed, x, d, lr, first_sample, turns, known), turns)
            finite, coincidences = all(found), int(turns[FOUND])
        if not finite:
            return 0, 0, 0.0, False
        slots, expected = cpu_tile_trains.totals(known)
        return slots, coincidences, expected, True

    def _update_tile(
        self, weights: Any, hidden: Any, lanes: Any, table: Any, keys: Any, ints: Any, floats: Any, x: Any, d: Any,
        lr: Any, first_sample: int, t: int, known: Any,
    ) -> int:  # fmt: skip
        """Update one large tile, the trains of whose columns are made once; returns the coincidences."""
        trains = cpu_tile_trains.new_trains(table, t, ints, floats, len(x))

        def columns(start: int, stop: int) -> tuple[int, int, Any]:
            singles = cpu_tile_trains.columns_apart(
                table, keys, t, ints, floats, x, d, lr, first_sample, trains, start, stop, known
            )
            return start, stop, singles

        pieces, before = [np.zeros(32, np.uint32)], 32
        for start, stop, singles in self.in_parts(columns, len(x), 1, 4):
            trains.starts[start:stop] += before
            pieces.append(singles)
            before += len(singles)
        pieces.append(pieces[0])  # registers reach beyond the end
        trains = trains._replace(singles=np.concatenate(pieces))
        turns = as_turns(falling_cuts(int(table[t, ROWS]), self._threads))
        part = partial(
            cpu_update.update_tile, weights, hidden, lanes, table, keys, ints, floats, d, first_sample, t, trains,
            turns, known,
        )  # fmt: skip
        self.on_all(part, turns)
        return int(turns[FOUND])

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
        cuts = equal_cuts(int(table[t, COLS if backward else ROWS]), cpu_lines.LINES_TOGETHER, self._threads)
        repeats, repeat, again, end = 0, 0, len(lines), cpu_read.FINE
        while again > 0 and end == cpu_read.FINE:
            turns = as_turns(cuts)
            part = partial(
                cpu_lines.read_lines, weights, table, keys, t, ints, floats, lines, sums, first_sample, backward,
                factors, repeat, results, turns, said,
            )  # fmt: skip
            self.on_all(part, turns)
            again, end = cpu_lines.next_round(
                table, t, ints, floats, lines, sums, backward, factors, repeat, results, said
            )
            repeats, repeat = repeats + again, repeat + 1
        return repeats, end

    def in_parts(self, part: Callable[[int, int], Any], size: int, whole: int, each: int = 1) -> list[Any]:
        """What ``part`` returns for ``each`` ranges for each thread, in multiples of ``whole``, in any order."""
        ranges = iter(list(pairwise(equal_cuts(size, whole, each * self._threads))))

        def turns() -> list[Any]:
            return [part(start, stop) for start, stop in ranges]  # which threads share: each range is given out once

        return [one for found in self.on_all(turns) for one in found]

    def on_all(self, part: Callable[[], Any], turns: Any = None) -> list[Any]:
        """What ``part`` returns on each thread that calls it before the caller has finished its own call.

        Where ``part`` takes these ``turns``, calls of others that are about to return are not waited for, nor is what
        they return.
        """
        helpers = [Helper(part) for _ in range(self._threads - 1)]
        for helper in helpers:
            waiting(self._threads).put(helper)
        try:
            found = [part()]
        finally:
            begun = [helper for helper in helpers if helper.close()]
            if begun and turns is not None and all_done(turns):
                begun = []
            for helper in begun:
                helper.wait()  # nothing goes on when an error leaves
        return found + [helper.result() for helper in begun]


def _by_lines(table: Any, samples: int) -> bool:
    """Whether tiles are so large that threads share the output lines of each, and not the samples.

    To read half of the samples takes more than half of the time where a tile does not stay in a cache.
    """
    cells: int = (table[:, ROWS] * table[:, COLS]).sum()
    return cells * samples >= READ_CELLS * len(table)
