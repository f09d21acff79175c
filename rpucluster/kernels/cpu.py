"""The fast CPU kernels: Numba-compiled functions behind the `Kernels` interface."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.devices import ConstantStep, Device
from rpucluster.errors import NumericalError
from rpucluster.kernels import cpu_cells, cpu_general, cpu_initial, cpu_read, cpu_transfer, cpu_update
from rpucluster.kernels.base import ROWS, Tiling, UpdateTotals, input_message, overflow_message
from rpucluster.kernels.cpu_threads import Threads
from rpucluster.kernels.read_rule import ReadRule, ReadTotals, pack_read
from rpucluster.kernels.transfer import FlushRule, TransferRule, TransferState, pack_transfer
from rpucluster.kernels.update_rule import CONSTANTS, UPDATE_FLOATS, UpdateRule, pack_update
from rpucluster.rng import Float32

PROBLEMS = {cpu_read.OUT_OF_RANGE: overflow_message(), cpu_read.NOT_FINITE: input_message()}


class NumbaKernels:
    """Compiled kernels on one thread, or large updates and reads on several, with the same results.

    The first call of each in a process loads it from disk, or compiles it.
    """

    name = "numba"

    def __init__(self, threads: int = 1) -> None:
        self._threads = Threads(threads)
        self._packed: dict[int, tuple[Any, Any]] = {}

    def _arrays(self, rule: Any, pack: Any) -> Any:
        """The arrays of a rule, found by its identity: to hash it takes a microsecond."""
        known = self._packed.get(id(rule))
        if known is None or known[0] is not rule:
            known = self._packed[id(rule)] = (rule, pack(rule))
            if isinstance(rule, UpdateRule):
                cpu_update.load(*known[1])
        return known[1]

    def large_read(self, tiling: Tiling, samples: int) -> bool:
        """Whether several threads share a read."""
        return self._threads.share_read(tiling, samples)

    def large_update(self, tiling: Tiling, samples: int) -> bool:
        """Whether several threads share an update."""
        return self._threads.share_update(tiling, samples)

    def draw_lanes(self, out: Any, tiling: Tiling, keys: Any, lanes: int, first: int) -> None:
        """Lanes of the shard's cells from number ``first`` on."""
        cpu_cells.draw_lanes(out, tiling.table, keys, lanes, first)

    def put_uniform(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, device: Device, origin: tuple[int, int], key: Any,
        scale: float,
    ) -> bool:  # fmt: skip
        """Initial weights, of plain devices and exact weights."""
        if device.pulsed and not (isinstance(device, ConstantStep) and device.plain):
            return False
        floats = np.zeros(UPDATE_FLOATS, np.float32)
        if isinstance(device, ConstantStep):
            constants = device.constants()
            floats[CONSTANTS : CONSTANTS + len(constants)] = constants

        def part(start: int, stop: int) -> None:
            cpu_initial.put_uniform(
                weights, lanes, tiling.table, keys, device.pulsed, floats, *key, *origin, np.float32(scale), start, stop
            )

        self._threads.in_parts(part, int(tiling.table[:, ROWS].sum()), 1)
        return True

    def pulsed_update(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, x: Any, d: Any,
        lr: float, first_sample: int, rule: UpdateRule, hidden: Any = None,
    ) -> UpdateTotals:  # fmt: skip
        """Fire the pulse trains of a batch."""
        update: Any = self._threads.pulsed_update if self.large_update(tiling, len(x)) else cpu_update.pulsed_update
        slots, coincidences, expected, finite = update(
            weights, _cells(hidden), lanes, tiling.table, keys, *self._arrays(rule, pack_update), _mutable(x),
            _mutable(d), np.float32(lr), first_sample,
        )  # fmt: skip
        if not finite:
            raise NumericalError(input_message())
        return UpdateTotals(slots, coincidences, expected, tiling.tiles * len(x))

    def relax(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, first_sample: int, rule: UpdateRule,
        hidden: Any = None,
    ) -> None:  # fmt: skip
        """Let the time of an update pass."""
        rules = self._arrays(rule, pack_update)
        cpu_general.relax(weights, _cells(hidden), lanes, tiling.table, keys, *rules, first_sample)

    def exact_update(self, weights: Any, tiling: Tiling, x: Any, d: Any, lr: float) -> UpdateTotals:
        """``w -= (lr * d) x``, one sample after the other."""
        if not cpu_update.exact_update(weights, tiling.table, _mutable(x), _mutable(d), np.float32(lr)):
            raise NumericalError(input_message())
        return UpdateTotals(0, 0, 0.0, tiling.tiles * len(x))

    def transfer(
        self, fast: Any, slow: Any, lanes: Any, tiling: Tiling, keys: Any, column_keys: Any, gains: Any,
        state: TransferState, sample: int, start: int, rule: TransferRule, hidden: Any = None,
    ) -> int:  # fmt: skip
        """Transfer columns of every tile."""
        pulses: int = cpu_transfer.transfer_columns(
            fast, slow, _cells(hidden), lanes, tiling.table, keys, column_keys, *self._arrays(rule.update, pack_update),
            *pack_transfer(rule), gains, *state, sample, start,
        )  # fmt: skip
        return pulses

    def flush(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, held: Any, sample: int, rule: FlushRule,
        hidden: Any = None,
    ) -> int:  # fmt: skip
        """Fire the whole pulses of a digital matrix."""
        pulses: int = cpu_transfer.flush_rows(
            weights, _cells(hidden), lanes, tiling.table, keys, *self._arrays(rule.update, pack_update), held,
            np.float32(rule.threshold), sample,
        )  # fmt: skip
        return pulses

    def read(
        self, weights: Any, tiling: Tiling, keys: Any, averages: Any, lines: Any, first_sample: int, rule: ReadRule,
        backward: bool, learn: bool,
    ) -> ReadTotals:  # fmt: skip
        """Analog products, summed over tiles in fixed point."""
        lines = _mutable(lines)
        sums = np.zeros((len(lines), tiling.cols if backward else tiling.rows), np.int64)
        read: Any = self._threads.read if self.large_read(tiling, len(lines)) else cpu_read.read
        repeats, end = read(
            weights,
            tiling.table,
            keys,
            averages,
            *self._arrays(rule, pack_read),
            lines,
            sums,
            first_sample,
            backward,
            learn,
        )
        _check(end)
        return ReadTotals(sums, tiling.tiles * len(lines), repeats)

    def exact_read(self, weights: Any, tiling: Tiling, lines: Any, backward: bool) -> ReadTotals:
        """Products without converters or noise, summed over tiles in fixed point."""
        sums = np.zeros((len(lines), tiling.cols if backward else tiling.rows), np.int64)
        _check(cpu_read.exact_read(weights, tiling.table, _mutable(lines), sums, backward))
        return ReadTotals(sums, tiling.tiles * len(lines), 0)


def from_fixed(sums: NDArray[np.int64]) -> Float32:
    """Fixed-point sums int64 as float32 of the same shape.  Raises `NumericalError` beyond 2^22."""
    flat = sums.reshape(-1)
    values = np.empty(flat.size, np.float32)
    if not cpu_read.from_fixed(_mutable(flat), values):
        raise NumericalError(overflow_message())
    return values.reshape(sums.shape)


def _mutable(array: Any) -> Any:
    """The array in the one form that the kernels are compiled for; what Ray delivers is read-only."""
    return array if array.flags.writeable else array.copy()


_NO_CELLS = np.empty(0, np.float32)


def _cells(hidden: Any) -> Any:
    """The hidden weights in the form that the kernels are compiled for, also where there are none."""
    return _NO_CELLS if hidden is None else hidden


def _check(end: int) -> None:
    if end != cpu_read.FINE:
        raise NumericalError(PROBLEMS[end])
