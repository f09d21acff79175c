"""Rows of a tape on a GPU: recorded once as a list of launches, replayed for every step.

The list never changes, so after the first step it is captured in a CUDA graph and launched as one.  The host writes the
clock before and reads counts and status after a number of steps, and nothing in between.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from rpucluster.arrays import address, to_host
from rpucluster.kernels import cuda_digital, cuda_launch, cuda_read, cuda_update, step
from rpucluster.kernels.base import COLS, ROWS, Tiling
from rpucluster.kernels.cuda_launch import Functions, Launch, Place, spread
from rpucluster.kernels.update_rule import DIFFUSION, LIFETIME
from rpucluster.layers import IDENTITY

Run = Callable[[], None]
Capture = Callable[[Run], Run]
"""From what launches a step to what launches it at once."""
_ALIGNED = 256  # bytes, as arrays of CuPy start


def graphs(cupy: Any) -> Capture:
    """Captures launches in a CUDA graph."""

    def capture(run: Run) -> Run:
        stream = cupy.cuda.Stream()  # the default stream cannot be captured
        with stream:
            stream.begin_capture()
            run()
            graph = stream.end_capture()

        def launch() -> None:
            graph.launch()  # on the current stream, behind what the host has copied

        return launch

    return capture


class CudaStep:
    """Performs tapes on arrays of ``xp``; `prepare` is a `rpucluster.kernels.step.Prepare`."""

    def __init__(self, xp: Any, functions: Functions, capture: Capture) -> None:
        self._xp, self._functions, self._capture = xp, functions, capture
        self._exact = cuda_read.exact_numbers(xp)

    def prepare(
        self, tape: Any, start: int, stop: int, memory: step.Memory, floats: Any, fixed: Any, done: Any
    ) -> "Recording":
        """Record rows start to stop."""
        rows = [(r, [int(number) for number in tape[r]]) for r in range(start, stop)]
        shared = cuda_launch.shared(self._xp)
        recorder = _Recorder(self._xp, memory, floats, fixed, shared, self._exact)
        scratch = recorder.scratch
        for number, row in rows:  # to learn how much memory the largest row needs
            recorder.launches(number, row)
        scratch.allocate()
        launches = [launch for number, row in rows for launch in recorder.launches(number, row)]
        return Recording(
            self._xp, self._functions, self._capture, launches, shared, memory, [row for _, row in rows], done
        )


class Recording:
    """A list of launches, and what one step of it counts beforehand."""

    def __init__(
        self, xp: Any, functions: Functions, capture: Capture, launches: list[Launch], shared: cuda_launch.Shared,
        memory: step.Memory, rows: list[list[int]], done: Any,
    ) -> None:  # fmt: skip
        self._xp, self._shared, self._memory, self._done = xp, shared, memory, done
        self._capture = capture
        last = Launch("step_next", (1,), (1,), (shared.clock,))

        def run() -> None:
            cuda_launch.perform(functions, [*launches, last])

        self._run: Run = run
        self._launched = False
        self._graph: Run | None = None
        self._counts, self._vectors = np.zeros(step.COUNTS, np.int64), np.zeros_like(done)
        for row in rows:
            self._count(row)

    def __call__(self, feed: step.Feed, first: int, last: int) -> tuple[int, int]:
        """Perform steps first to last of a feed; returns how it ended, and at which row of the tape."""
        if first == last:
            return 0, 0
        self._set_clock(feed, first)
        for _ in range(first, last):
            self._step()
        found = cuda_launch.parts_of(to_host(self._shared.whole))
        status = int(found.status[0])
        if status:
            return status & 3, status >> 2
        steps, counts, sums = last - first, self._memory.counts, self._memory.sums
        counts += steps * self._counts
        self._done += steps * self._vectors
        for into, place in _COUNTED:
            counts[into] += int(found.counts[place])
        sums[step.EXPECTED] += found.sums[cuda_launch.EXPECTED]
        sums[step.LOSS] += found.sums[cuda_launch.LOSS]
        return 0, 0

    def _step(self) -> None:
        if not self._launched:  # kernels that were never launched are not loaded yet, and could not be captured
            self._launched = True
            self._run()
            return
        if self._graph is None:
            self._graph = self._capture(self._run)
        self._graph()

    def _set_clock(self, feed: step.Feed, first: int) -> None:
        host = cuda_launch.parts_of(np.zeros(self._shared.whole.size, np.int64))
        batch = feed.indices.shape[1]
        host.clock[cuda_launch.CLOCK_SAMPLE] = feed.first_sample + first * batch
        host.clock[cuda_launch.CLOCK_PLACE] = first * batch
        host.clock[cuda_launch.CLOCK_BATCH] = batch
        host.clock[cuda_launch.CLOCK_FEATURES] = feed.x.shape[1]
        for place, array in zip(_ADDRESSES, (feed.x, feed.y, feed.indices), strict=True):
            host.clock[place] = address(array)
        host.rate[:] = feed.learning_rate
        self._shared.whole[:] = self._xp.asarray(host.whole)

    def _count(self, row: list[int]) -> None:
        """What shapes alone say of a row."""
        place = self._memory.shards[row[step.SLOT]]
        vectors = row[step.ROWS] * int(place[step.TILE_STOP] - place[step.TILE])
        if row[step.CODE] == step.READ:
            self._counts[step.PASSES] += vectors
        if row[step.CODE] == step.UPDATE:
            self._counts[step.CYCLES] += vectors
        if row[step.CODE] in (step.READ, step.UPDATE):
            self._vectors[row[step.OPERATION]] += vectors
        if row[step.CODE] == step.SCORE and row[step.MODE]:
            self._counts[step.SCORED] += row[step.ROWS]


class _Scratch:
    """Memory that a row uses and the next one may overwrite."""

    def __init__(self, xp: Any) -> None:
        self._xp, self._memory = xp, xp.empty(0, "u1")
        self._used = self._needed = 0

    def restart(self) -> None:
        """For the next row."""
        self._used = 0

    def allocate(self) -> None:
        """Make what the largest row has asked for."""
        self._memory = self._xp.empty(self._needed, "u1")

    def take(self, shape: Any, dtype: str) -> Any:
        """An array, not filled; of size 0 where there is no memory yet."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start, self._used = self._used, self._used + -(-size // _ALIGNED) * _ALIGNED
        self._needed = max(self._needed, self._used)
        if size == 0:
            return self._xp.empty(shape, dtype)
        if self._used > self._memory.size:
            return self._xp.empty(0 if np.ndim(shape) == 0 else (*shape[:-1], 0), dtype)
        return self._memory[start : start + size].view(dtype).reshape(shape)


class _Recorder:
    """From rows of a tape to launches."""

    def __init__(
        self, xp: Any, memory: step.Memory, floats: Any, fixed: Any, shared: cuda_launch.Shared,
        exact: cuda_read.Numbers,
    ) -> None:  # fmt: skip
        self.scratch = _Scratch(xp)
        self._memory, self._floats, self._fixed, self._shared, self._exact = memory, floats, fixed, shared, exact
        self._reads = [
            [cuda_read.numbers_of(xp, packed) for packed in zip(ints, floats, strict=True)]
            for ints, floats in zip(memory.read_ints, memory.read_floats, strict=True)
        ]
        self._updates = [xp.asarray(floats) for floats in memory.update_floats]
        self._tilings = [_tiling(memory, slot) for slot in range(len(memory.shards))]

    def launches(self, number: int, row: list[int]) -> list[Launch]:
        """Those of one row."""
        self.scratch.restart()
        place = Place(self._shared, np.int64(row[step.SAMPLE]), np.int32(4 * number))
        status = self._shared.status
        shard, function = self._memory.shards[row[step.SLOT]], int(self._memory.shards[row[step.SLOT], step.FUNCTION])
        match row[step.CODE]:
            case step.LOAD:
                out = self._window(self._floats, row, step.B)
                return spread(
                    "step_load", out.size, self._shared.clock, place.sample, np.int64(row[step.MODE]),
                    *cuda_launch.shape(out), out, cuda_launch.stride(out), status,
                )  # fmt: skip
            case step.COPY:
                given, out = self._window(self._floats, row, step.A), self._window(self._floats, row, step.B)
                return spread(
                    "step_copy", out.size, given, cuda_launch.stride(given), *cuda_launch.shape(out), out,
                    cuda_launch.stride(out), status,
                )  # fmt: skip
            case step.READ:
                return self._read(row, place)
            case step.ACTIVATE | step.ERROR:
                sums, out = self._window(self._fixed, row, step.A), self._window(self._floats, row, step.B)
                bias, activates = int(shard[step.BIAS_START]), row[step.CODE] == step.ACTIVATE
                biases = self._memory.biases[bias:] if activates and bias >= 0 else None
                return cuda_digital.activate(place, function if activates else IDENTITY, sums, biases, out)
            case step.SCORE:
                logits, out = self._window(self._floats, row, step.A), self._window(self._floats, row, step.B)
                return cuda_digital.score(self.scratch.take, place, logits, None, out, bool(row[step.MODE]))
            case step.DERIVE:
                return cuda_digital.derive(function, *(self._window(self._floats, row, w) for w in _ALL))
            case step.UPDATE:
                return self._update(row, place)
            case _:
                errors = self._window(self._floats, row, step.A)
                return spread(
                    "step_bias", row[step.WIDTH], errors, cuda_launch.stride(errors), *cuda_launch.shape(errors),
                    self._shared.rate, self._memory.biases[int(shard[step.BIAS_START]) :], status,
                )  # fmt: skip

    def _read(self, row: list[int], place: Place) -> list[Launch]:
        memory, slot, mode = self._memory, row[step.SLOT], row[step.MODE]
        shard, tiling, back = memory.shards[slot], self._tilings[slot], mode == step.BACKWARD
        first, stop = int(shard[step.TILE]), int(shard[step.TILE_STOP])
        pulsed = bool(shard[step.PULSED])
        lines = self._vectors(self._floats, row, step.A, tiling.rows if back else tiling.cols)
        sums = self._vectors(self._fixed, row, step.B, tiling.cols if back else tiling.rows)
        return cuda_read.read(
            self.scratch.take, place, self._weights(slot), tiling, memory.read_keys[mode, first:stop],
            memory.averages[int(back), first:stop], lines, sums, self._reads[slot][back] if pulsed else self._exact,
            exact=not pulsed, backward=back, learn=mode != step.EVALUATE,
        )  # fmt: skip

    def _update(self, row: list[int], place: Place) -> list[Launch]:
        memory, slot = self._memory, row[step.SLOT]
        shard, tiling, weights = memory.shards[slot], self._tilings[slot], self._weights(slot)
        x = self._vectors(self._floats, row, step.A, tiling.cols)
        d = self._vectors(self._floats, row, step.B, tiling.rows)
        take = self.scratch.take
        if not shard[step.PULSED]:
            return cuda_update.exact_update(take, place, weights, tiling, x, d)
        lanes = memory.lanes[int(shard[step.LANE]) : int(shard[step.LANE_STOP])]
        keys = memory.update_keys[int(shard[step.TILE]) : int(shard[step.TILE_STOP])]
        ints, floats, on_device = memory.update_ints[slot], memory.update_floats[slot], self._updates[slot]
        found = cuda_update.pulsed_update(
            take, place, weights, weights, lanes, tiling, keys, x, d, ints, floats, on_device
        )
        if floats[LIFETIME] > 0 or floats[DIFFUSION] > 0:
            found.append(cuda_update.relax(place, weights, weights, lanes, tiling, keys, on_device))
        return found

    def _weights(self, slot: int) -> Any:
        shard = self._memory.shards[slot]
        return self._memory.weights[int(shard[step.CELL]) : int(shard[step.CELL_STOP])]

    def _vectors(self, arena: Any, row: list[int], window: int, width: int) -> Any:
        """All vectors of a window that is whole."""
        start, count = row[window + step.START], row[step.ROWS]
        return arena[start : start + count * width].reshape(count, width)

    def _window(self, arena: Any, row: list[int], window: int) -> Any:
        """A window as a view (vectors, width)."""
        start, apart, first = (row[window + part] for part in (step.START, step.STRIDE, step.FIRST))
        whole = arena[start : start + row[step.ROWS] * apart].reshape(row[step.ROWS], apart)
        return whole[:, first : first + row[step.WIDTH]]


def _tiling(memory: step.Memory, slot: int) -> Tiling:
    shard = memory.shards[slot]
    table = memory.table[int(shard[step.TILE]) : int(shard[step.TILE_STOP])]
    sizes = to_host(table)
    return Tiling(
        table=table,
        tiles=len(sizes),
        rows=int(shard[step.LINES_OUT]),
        cols=int(shard[step.LINES_IN]),
        tile_rows=int(sizes[:, ROWS].max()),
        tile_cols=int(sizes[:, COLS].max()),
    )


_ALL = (step.A, step.B, step.C)
_ADDRESSES = (cuda_launch.CLOCK_X, cuda_launch.CLOCK_Y, cuda_launch.CLOCK_INDICES)
_COUNTED = (
    (step.REPEATS, cuda_launch.REPEATS),
    (step.SLOTS, cuda_launch.SLOTS),
    (step.COINCIDENCES, cuda_launch.COINCIDENCES),
    (step.HITS, cuda_launch.HITS),
)
"""What is counted on the device, and where it is counted on the host."""
