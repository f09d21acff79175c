"""The specification behind the `Kernels` interface: plain loops over tiles and samples, written to be read.

The operations on one tile stand in `reference_update` and `reference_read`; the fast kernels are held to them.
"""

from typing import Any

import numpy as np

from rpucluster.devices import Int16, draw_lanes
from rpucluster.errors import NumericalError
from rpucluster.kernels.base import DEVICE_KEY, Tiling, UpdateTotals, input_message, lines_of
from rpucluster.kernels.read_rule import ReadRule, ReadTotals
from rpucluster.kernels.reference_law import relax_tile
from rpucluster.kernels.reference_read import read_tile, require_in_range, scale_of, to_fixed
from rpucluster.kernels.reference_transfer import columns_of, flush_tile, switches, transfer_tile
from rpucluster.kernels.reference_update import update_tile
from rpucluster.kernels.transfer import CHOPPER_KEY, FlushRule, TransferRule, TransferState
from rpucluster.kernels.update_rule import UpdateRule
from rpucluster.rng import Key

F32 = np.float32


class ReferenceKernels:
    """The specification behind the `Kernels` interface."""

    name = "reference"

    def large_read(self, tiling: Tiling, samples: int) -> bool:
        """Every read is a call of its own."""
        return True

    def large_update(self, tiling: Tiling, samples: int) -> bool:
        """Every update is a call of its own."""
        return True

    def draw_lanes(self, out: Any, tiling: Tiling, keys: Any, lanes: int, first: int) -> None:
        """Lanes of the shard's cells from number ``first`` on."""
        stop = first + len(out) // lanes
        for (offset, rows, cols, _, _), key in zip(tiling.table.tolist(), keys, strict=True):
            start, end = max(offset, first), min(offset + rows * cols, stop)
            if start < end:
                drawn = draw_lanes(tuple(key[DEVICE_KEY]), np.arange(start - offset, end - offset), lanes)
                out[(start - first) * lanes : (end - first) * lanes] = drawn.T.reshape(-1)

    def put_uniform(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, device: Any, origin: tuple[int, int], key: Any,
        scale: float,
    ) -> bool:  # fmt: skip
        """Left to array operations."""
        return False

    def pulsed_update(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, x: Any, d: Any,
        lr: float, first_sample: int, rule: UpdateRule, hidden: Any = None,
    ) -> UpdateTotals:  # fmt: skip
        """Fire the pulse trains of a batch, tile after tile."""
        _require_finite(x, d)
        slots, coincidences, expected, cycles = 0, 0, 0.0, 0
        for (offset, rows, cols, row0, col0), key in zip(tiling.table.tolist(), keys, strict=True):
            counts = update_tile(
                weights[offset : offset + rows * cols].reshape(rows, cols),
                _lanes_of(lanes, offset, rows, cols, key, rule.device.lanes), _pairs(key),
                x[:, col0 : col0 + cols], d[:, row0 : row0 + rows], lr, first_sample, rule,
                _cells_of(hidden, offset, rows, cols),
            )  # fmt: skip
            slots += counts.slots
            coincidences += counts.coincidences
            expected += counts.expected
            cycles += counts.cycles
        return UpdateTotals(slots, coincidences, expected, cycles)

    def relax(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, first_sample: int, rule: UpdateRule,
        hidden: Any = None,
    ) -> None:  # fmt: skip
        """Let the time of an update pass, tile after tile."""
        for (offset, rows, cols, _, _), key in zip(tiling.table.tolist(), keys, strict=True):
            relax_tile(
                weights[offset : offset + rows * cols].reshape(rows, cols), _cells_of(hidden, offset, rows, cols),
                _lanes_of(lanes, offset, rows, cols, key, rule.device.lanes), _pairs(key), first_sample, rule,
            )  # fmt: skip

    def exact_update(self, weights: Any, tiling: Tiling, x: Any, d: Any, lr: float) -> UpdateTotals:
        """``w -= (lr * d) x``, one sample after the other."""
        _require_finite(x, d)
        for offset, rows, cols, row0, col0 in tiling.table.tolist():
            w = weights[offset : offset + rows * cols].reshape(rows, cols)
            for b in range(len(x)):
                w -= (F32(lr) * d[b, row0 : row0 + rows])[:, None] * x[b, col0 : col0 + cols]
        return UpdateTotals(0, 0, 0.0, tiling.tiles * len(x))

    def transfer(
        self, fast: Any, slow: Any, lanes: Any, tiling: Tiling, keys: Any, column_keys: Any, gains: Any,
        state: TransferState, sample: int, start: int, rule: TransferRule, hidden: Any = None,
    ) -> int:  # fmt: skip
        """Transfer columns of every tile, then change the signs that are due."""
        pulses = 0
        for t, (offset, rows, cols, _, col0) in enumerate(tiling.table.tolist()):

            def of_tile(array: Any, offset: int = offset, rows: int = rows, cols: int = cols) -> Any:
                return array[offset : offset + rows * cols].reshape(rows, cols) if len(array) else array

            lines = slice(col0, col0 + cols)
            mine = TransferState(
                of_tile(state.buffer),
                of_tile(state.mean),
                of_tile(state.reference),
                state.choppers[lines],
                state.ages[lines],
            )
            pulses += transfer_tile(
                of_tile(fast), of_tile(slow),
                _lanes_of(lanes, offset, rows, cols, keys[t], rule.update.device.lanes), _pairs(keys[t]),
                _pairs(column_keys[t]), gains[t], mine, sample, start, rule, _cells_of(hidden, offset, rows, cols),
            )  # fmt: skip
        for (_, _, cols, row0, col0), key in zip(tiling.table.tolist(), column_keys, strict=True):
            if row0 != 0 or not (rule.chop_every or rule.dynamic_reference):
                continue
            for j in columns_of(start, rule.columns, cols):
                switch = switches(int(state.ages[col0 + j]), _pairs(key)[CHOPPER_KEY], sample, (j - start) % cols, rule)
                state.ages[col0 + j] = 0 if switch else state.ages[col0 + j] + 1
                if switch:
                    state.choppers[col0 + j] = -state.choppers[col0 + j]
        return pulses

    def flush(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, held: Any, sample: int, rule: FlushRule,
        hidden: Any = None,
    ) -> int:  # fmt: skip
        """Fire the whole pulses of a digital matrix, tile after tile."""
        pulses = 0
        for (offset, rows, cols, _, _), key in zip(tiling.table.tolist(), keys, strict=True):
            pulses += flush_tile(
                weights[offset : offset + rows * cols].reshape(rows, cols),
                _lanes_of(lanes, offset, rows, cols, key, rule.update.device.lanes), _pairs(key),
                held[offset : offset + rows * cols].reshape(rows, cols), sample, rule,
                _cells_of(hidden, offset, rows, cols),
            )  # fmt: skip
        return pulses

    def read(
        self, weights: Any, tiling: Tiling, keys: Any, averages: Any, lines: Any, first_sample: int, rule: ReadRule,
        backward: bool, learn: bool,
    ) -> ReadTotals:  # fmt: skip
        """Analog products, summed over tiles in fixed point."""
        _require_finite(lines)
        count_in, start_in, count_out, start_out = lines_of(backward)
        sums = np.zeros((len(lines), tiling.cols if backward else tiling.rows), np.int64)
        repeats = 0
        for t, (tile, key) in enumerate(zip(tiling.table, keys, strict=True)):
            w = weights[tile[0] : tile[0] + tile[1] * tile[2]].reshape(tile[1], tile[2])
            into = slice(tile[start_out], tile[start_out] + tile[count_out])
            average = averages[t]
            for b in range(len(lines)):
                values = lines[b, tile[start_in] : tile[start_in] + tile[count_in]]
                scale, later = scale_of(values, average, rule)
                average = later if learn else average
                y, rounds = read_tile(
                    w.T if backward else w, values, scale, (int(key[0]), int(key[1])), first_sample + b, rule
                )
                sums[b, into] += to_fixed(y)
                repeats += rounds
            averages[t] = average
        require_in_range(sums)
        return ReadTotals(sums, tiling.tiles * len(lines), repeats)

    def exact_read(self, weights: Any, tiling: Tiling, lines: Any, backward: bool) -> ReadTotals:
        """Products without converters or noise, summed over tiles in fixed point."""
        _require_finite(lines)
        count_in, start_in, count_out, start_out = lines_of(backward)
        sums = np.zeros((len(lines), tiling.cols if backward else tiling.rows), np.int64)
        for tile in tiling.table:
            w = weights[tile[0] : tile[0] + tile[1] * tile[2]].reshape(tile[1], tile[2])
            values = lines[:, tile[start_in] : tile[start_in] + tile[count_in]]
            sums[:, tile[start_out] : tile[start_out] + tile[count_out]] += to_fixed(values @ (w if backward else w.T))
        require_in_range(sums)
        return ReadTotals(sums, tiling.tiles * len(lines), 0)


def _lanes_of(lanes: Any, offset: int, rows: int, cols: int, key: Any, each: int) -> Int16:
    """Lanes (lanes, rows, cols) of a tile, from the stored ones or drawn anew."""
    size = rows * cols
    if len(lanes):
        found: Int16 = lanes[offset * each : (offset + size) * each].reshape(size, each).T
    else:
        found = draw_lanes(tuple(key[DEVICE_KEY]), np.arange(size), each)
    return found.reshape(each, rows, cols)


def _cells_of(array: Any, offset: int, rows: int, cols: int) -> Any:
    """The part (rows, cols) of a tile in an array of the cells, or None where there is none."""
    return None if array is None or len(array) == 0 else array[offset : offset + rows * cols].reshape(rows, cols)


def _pairs(keys: Any) -> list[Key]:
    return [(int(k[0]), int(k[1])) for k in keys]


def _require_finite(*arrays: Any) -> None:
    if not all(bool(np.isfinite(array).all()) for array in arrays):
        raise NumericalError(input_message())
