"""The specification: each operation once, in NumPy, written to be read.  The fast kernels are held to it.

Everything is float32 with one rounding per written operation, so that updates agree bit for bit with the compiled
kernels; reads agree up to the order in which a product is summed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.devices import Cells
from rpucluster.errors import NumericalError
from rpucluster.kernels.base import (
    BATCH_ROUND,
    D_KEY,
    FIXED_BITS,
    FIXED_LIMIT,
    NOISE_KEY,
    REPLAY_KEY,
    X_KEY,
    ReadRule,
    ReadTotals,
    Tiling,
    UpdateRule,
    UpdateTotals,
    input_message,
    lines_of,
    overflow_message,
)
from rpucluster.rng import Float32, Key, UInt32, block_normals, normals, philox

F32 = np.float32
SLOTS = np.uint32(0x7FFFFFFF)


class ReferenceKernels:
    """The specification behind the `Kernels` interface."""

    name = "reference"

    def pulsed_update(
        self, weights: Any, cells: Cells, tiling: Tiling, keys: Any, x: Any, d: Any,
        lr: float, first_sample: int, rule: UpdateRule,
    ) -> UpdateTotals:  # fmt: skip
        """Fire the pulse trains of a batch, tile after tile."""
        _require_finite(x, d)
        slots, coincidences, expected, cycles = 0, 0, 0.0, 0
        for (offset, rows, cols, row0, col0), key in zip(tiling.table.tolist(), keys, strict=True):
            of_tile = slice(offset, offset + rows * cols)
            tile = Cells(*(array[of_tile].reshape(rows, cols) for array in cells))
            counts = _update_tile(
                weights[of_tile].reshape(rows, cols), tile, [(int(k[0]), int(k[1])) for k in key],
                x[:, col0 : col0 + cols], d[:, row0 : row0 + rows], lr, first_sample, rule,
            )  # fmt: skip
            slots += counts.slots
            coincidences += counts.coincidences
            expected += counts.expected
            cycles += counts.cycles
        return UpdateTotals(slots, coincidences, expected, cycles)

    def exact_update(self, weights: Any, tiling: Tiling, x: Any, d: Any, lr: float) -> UpdateTotals:
        """``w -= (lr * d) x``, one sample after the other."""
        _require_finite(x, d)
        for offset, rows, cols, row0, col0 in tiling.table.tolist():
            w = weights[offset : offset + rows * cols].reshape(rows, cols)
            for b in range(len(x)):
                w -= (F32(lr) * d[b, row0 : row0 + rows])[:, None] * x[b, col0 : col0 + cols]
        return UpdateTotals(0, 0, 0.0, tiling.tiles * len(x))

    def read(
        self, weights: Any, tiling: Tiling, keys: Any, lines: Any, first_sample: int, rule: ReadRule, backward: bool
    ) -> ReadTotals:
        """Analog products, summed over tiles in fixed point."""
        _require_finite(lines)
        count_in, start_in, count_out, start_out = lines_of(backward)
        sums = np.zeros((len(lines), tiling.cols if backward else tiling.rows), np.int64)
        repeats = 0
        for tile, key in zip(tiling.table, keys, strict=True):
            w = weights[tile[0] : tile[0] + tile[1] * tile[2]].reshape(tile[1], tile[2])
            into = slice(tile[start_out], tile[start_out] + tile[count_out])
            for b in range(len(lines)):
                values = lines[b, tile[start_in] : tile[start_in] + tile[count_in]]
                y, rounds = _read_tile(
                    w.T if backward else w, values, (int(key[0]), int(key[1])), first_sample + b, rule
                )
                sums[b, into] += _to_fixed(y)
                repeats += rounds
        _require_in_range(sums)
        return ReadTotals(sums, tiling.tiles * len(lines), repeats)

    def exact_read(self, weights: Any, tiling: Tiling, lines: Any, backward: bool) -> ReadTotals:
        """Products without converters or noise, summed over tiles in fixed point."""
        _require_finite(lines)
        count_in, start_in, count_out, start_out = lines_of(backward)
        sums = np.zeros((len(lines), tiling.cols if backward else tiling.rows), np.int64)
        for tile in tiling.table:
            w = weights[tile[0] : tile[0] + tile[1] * tile[2]].reshape(tile[1], tile[2])
            values = lines[:, tile[start_in] : tile[start_in] + tile[count_in]]
            sums[:, tile[start_out] : tile[start_out] + tile[count_out]] += _to_fixed(values @ (w if backward else w.T))
        _require_in_range(sums)
        return ReadTotals(sums, tiling.tiles * len(lines), 0)


def gains(x_peak: F32, d_peak: F32, lr: float, rule: UpdateRule) -> tuple[int, F32, F32]:
    """Slots to use and the gains that turn x and d into firing probabilities.

    gain = sqrt(lr / (dw_min BL)) for both, so that the mean change is lr x d (Gokmen and Vlasov 2016, restated
    in aihwkit's generator).  Dynamic bit length uses ceil(lr x_peak d_peak / dw_min) slots if that is fewer.
    Update management multiplies the gain of d by sqrt(x_peak / d_peak) and divides that of x by it; where even
    the longest train cannot deliver the largest change, d is clipped and x is not.
    """
    bits, zero = rule.bit_length, F32(0)
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        wanted = ((F32(lr) * x_peak) * d_peak) / F32(rule.dw_min)
        if x_peak == 0 or d_peak == 0 or F32(lr) == 0:
            return (0 if rule.dynamic_bit_length else bits), zero, zero
        if rule.dynamic_bit_length and wanted < F32(bits):
            bits = max(1, int(np.ceil(wanted)))
        gain = np.sqrt(F32(lr) / (F32(rule.dw_min) * F32(bits)))
        if not rule.update_management:
            return bits, gain, gain
        if wanted > F32(rule.bit_length):
            d_peak = d_peak * (F32(rule.bit_length) / wanted)
        return bits, gain * np.sqrt(d_peak / x_peak), gain * np.sqrt(x_peak / d_peak)


def pulse_trains(values: Float32, gain: F32, bits: int, key: Key, sample: int) -> tuple[UInt32, float]:
    """Train of each line, a word whose bit n says that slot n fires and bit 31 that the value is negative.

    Slot n of a line fires if word n of the line's part of the stream is below p * 2^32, p = min(|value| gain, 1).
    Also returns the sum of the probabilities, as used.
    """
    lines = np.arange(len(values))
    p = np.zeros(len(values), F32)
    active = values != 0
    with np.errstate(over="ignore"):
        p[active] = np.minimum(np.abs(values[active]) * gain, F32(1))
    limit = np.ceil(p.astype(np.float64) * 2.0**32).astype(np.uint64)
    train = np.where((values < 0) & (p > 0), np.uint32(1 << 31), np.uint32(0))
    for slot in range(bits):
        words = philox((lines * 8 + slot // 4, sample & 0xFFFFFFFF, sample >> 32, 0), key)
        train |= (words[slot % 4] < limit).astype(np.uint32) << np.uint32(slot)
    return train, float(limit.sum()) * 2.0**-32


def _update_tile(
    w: Float32, cells: Cells, keys: list[Key], x: Float32, d: Float32, lr: float, first_sample: int, rule: UpdateRule
) -> UpdateTotals:
    samples = len(x)
    x_trains, d_trains = np.zeros(x.shape, np.uint32), np.zeros(d.shape, np.uint32)
    slots, expected = 0, 0.0
    for b in range(samples):
        bits, gain_x, gain_d = gains(np.abs(x[b]).max(), np.abs(d[b]).max(), lr, rule)
        slots += bits
        if gain_x > 0:
            x_trains[b], x_sum = pulse_trains(x[b], gain_x, bits, keys[X_KEY], first_sample + b)
            d_trains[b], d_sum = pulse_trains(d[b], gain_d, bits, keys[D_KEY], first_sample + b)
            expected += bits * x_sum * d_sum
    counts = np.bitwise_count(x_trains[:, None, :] & d_trains[:, :, None] & SLOTS).astype(np.int64)  # (B, rows, cols)
    lowers = (x_trains[:, None, :] ^ d_trains[:, :, None]) <= SLOTS  # equal signs lower the weight
    if rule.noise_per_batch:
        _apply_batch(w, cells, keys, counts, lowers, first_sample, rule)
    else:
        for b in range(samples):
            _apply_sample(w, cells, keys, counts[b], lowers[b], first_sample + b, rule)
    return UpdateTotals(slots, int(counts.sum()), expected, samples)


def _apply_sample(
    w: Float32, cells: Cells, keys: list[Key], counts: NDArray[Any], lowers: NDArray[Any], sample: int, rule: UpdateRule
) -> None:
    """Change the cells that had coincidences: n pulses are one draw, n + std sqrt(n) z steps, then the clip.

    Where a clip between two of the pulses is possible, they are replayed one by one, which keeps the law exact.
    """
    std = F32(rule.dw_min_std)
    for i in range(len(w)):
        hit = np.flatnonzero(counts[i])  # in column order: the k-th hit takes normal k
        n, down = counts[i, hit].astype(F32), lowers[i, hit]
        step = np.where(down, cells.step_down[i, hit], cells.step_up[i, hit])
        low, high, old = cells.lower[i, hit], cells.upper[i, hit], w[i, hit]
        z = normals(keys[NOISE_KEY], len(hit), sample, round=i) if std > 0 else F32(0)
        amount = step * (n + (std * np.sqrt(n)) * z)
        w[i, hit] = np.minimum(np.maximum(np.where(down, old - amount, old + amount), low), high)
        ahead, behind = (n * step) * F32(rule.reach_ahead), (n * step) * F32(rule.reach_behind)
        near = np.where(down, (old - ahead < low) | (old + behind > high), (old + ahead > high) | (old - behind < low))
        again = np.flatnonzero(near & (n > 1))
        w[i, hit[again]] = _replay(
            old[again], n[again], down[again], step[again], low[again], high[again],
            std, keys[REPLAY_KEY], sample, i * w.shape[1] + hit[again],
        )  # fmt: skip


def _apply_batch(
    w: Float32,
    cells: Cells,
    keys: list[Key],
    counts: NDArray[Any],
    lowers: NDArray[Any],
    first_sample: int,
    rule: UpdateRule,
) -> None:
    """Change each cell by all its pulses of the batch at once, with one draw; near a bound, pulse by pulse."""
    std, ahead, behind = F32(rule.dw_min_std), F32(rule.reach_ahead), F32(rule.reach_behind)
    n_up, n_down = (counts * ~lowers).sum(0), (counts * lowers).sum(0)
    up, down = n_up.astype(F32) * cells.step_up, n_down.astype(F32) * cells.step_down
    z = np.zeros(w.shape, F32)
    if std > 0:
        z = normals(keys[NOISE_KEY], w.size, first_sample, round=BATCH_ROUND).reshape(w.shape)
    noise = std * np.sqrt(up * cells.step_up + down * cells.step_down)
    new = np.minimum(np.maximum(w + ((up - down) + noise * z), cells.lower), cells.upper)
    near = (w + (up * ahead + down * behind) > cells.upper) | (w - (down * ahead + up * behind) < cells.lower)
    again = near & (n_up + n_down > 1)
    here = w[again]
    for b in range(len(counts)):
        falls = lowers[b][again]
        here = _replay(
            here, counts[b][again], falls, np.where(falls, cells.step_down[again], cells.step_up[again]),
            cells.lower[again], cells.upper[again], std, keys[REPLAY_KEY], first_sample + b, np.flatnonzero(again),
        )  # fmt: skip
    new[again] = here
    w[:] = np.where(n_up + n_down > 0, new, w)


def _replay(
    w: Float32,
    n: NDArray[Any],
    lowers: NDArray[Any],
    step: Float32,
    low: Float32,
    high: Float32,
    std: F32,
    key: Key,
    sample: int,
    cell: NDArray[Any],
) -> Float32:
    """Weights after n pulses one by one, clipped after each; pulse m of a cell takes normal 32 * cell + m."""
    for m in range(int(n.max(initial=0))):
        z = np.zeros(len(w), F32)
        if std > 0:
            z = block_normals(philox((cell * 8 + m // 4, sample & 0xFFFFFFFF, sample >> 32, 0), key))[m % 4]
        amount = step * (F32(1) + std * z)
        moved = np.minimum(np.maximum(np.where(lowers, w - amount, w + amount), low), high)
        w = np.where(n > m, moved, w)
    return w


def _read_tile(w: Float32, values: Float32, key: Key, sample: int, rule: ReadRule) -> tuple[Float32, int]:
    """One vector through one tile: scale, DAC, product, noise, ADC, and again with inputs halved if it clips.

    The order and the steps are aihwkit's: DAC step 1 / levels, ADC step bound / levels, both round half to even.
    """
    scale = np.abs(values).max() if rule.abs_max else F32(1)
    if scale == 0:
        return np.zeros(len(w), F32), 0
    for repeat in range(rule.rounds + 1):
        factor = scale * F32(2.0**repeat)
        v = values / factor
        if rule.input_levels:
            v = np.rint(v / F32(rule.input_step)) * F32(rule.input_step)
        y = w @ np.clip(v, F32(-1), F32(1))
        if rule.read_noise > 0:
            y = y + F32(rule.read_noise) * normals(key, len(y), sample, round=repeat)
        step = F32(rule.output_step or 1.0)
        if rule.output_levels:
            y = np.rint(y / step)
        limit = F32(rule.limit)
        saturated = bool((np.abs(y) > limit).any())
        y = np.clip(y, -limit, limit) * step
        if not saturated or repeat == rule.rounds:
            break
    with np.errstate(over="ignore"):
        return y * factor, repeat


def _to_fixed(y: Float32) -> NDArray[np.int64]:
    if not bool((np.abs(y) < FIXED_LIMIT).all()):
        raise NumericalError(overflow_message())
    return np.rint(y.astype(np.float64) * 2.0**FIXED_BITS).astype(np.int64)


def _require_in_range(sums: NDArray[np.int64]) -> None:
    if bool((np.abs(sums) >= int(FIXED_LIMIT) << FIXED_BITS).any()):
        raise NumericalError(overflow_message())


def _require_finite(*arrays: Any) -> None:
    if not all(bool(np.isfinite(array).all()) for array in arrays):
        raise NumericalError(input_message())
