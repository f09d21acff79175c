"""The weight update of one tile, each operation once, in NumPy.

Everything is float32 with one rounding per written operation, so that the compiled kernels have the same bits.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpucluster.devices import Cells, Int16
from rpucluster.kernels.base import D_KEY, NOISE_KEY, REPLAY_KEY, X_KEY, UpdateTotals
from rpucluster.kernels.reference_law import fire_cells
from rpucluster.kernels.update_rule import UpdateRule
from rpucluster.rng import Float32, Key, UInt32, block_normals, normals, philox

F32 = np.float32
SLOTS = np.uint32(0x7FFFFFFF)


def gains(x_peak: F32, d_peak: F32, lr: float, rule: UpdateRule) -> tuple[int, F32, F32]:
    """Slots to use and the gains that turn x and d into firing probabilities.

    gain = sqrt(lr / (g BL)) for both, g the device's granularity, so that the mean change is lr x d (Gokmen and
    Vlasov 2016, restated in aihwkit's generator).  Dynamic bit length uses ceil(lr x_peak d_peak / g) slots
    if that is fewer.
    Update management multiplies the gain of d by sqrt(x_peak / d_peak) and divides that of x by it; where even
    the longest train cannot deliver the largest change, d is clipped and x is not.
    """
    bits, zero = rule.bit_length, F32(0)
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        wanted = ((F32(lr) * x_peak) * d_peak) / F32(rule.device.granularity)
        if x_peak == 0 or d_peak == 0 or F32(lr) == 0:
            return (0 if rule.dynamic_bit_length else bits), zero, zero
        if rule.dynamic_bit_length and wanted < F32(bits):
            bits = max(1, int(np.ceil(wanted)))
        gain = np.sqrt(F32(lr) / (F32(rule.device.granularity) * F32(bits)))
        if not rule.update_management:
            return bits, gain, gain
        if wanted > F32(rule.bit_length):
            d_peak = d_peak * (F32(rule.bit_length) / wanted)
        return bits, gain * np.sqrt(d_peak / x_peak), gain * np.sqrt(x_peak / d_peak)


DRAWN, LEADING, EVEN = range(3)
"""How the slots are chosen in which a line fires."""


def pulse_trains(
    values: Float32, gain: F32, bits: int, key: Key, sample: int, spread: int = DRAWN
) -> tuple[UInt32, float]:
    """Train of each line, a word whose bit n says that slot n fires and bit 31 that the value is negative.

    Slot n of a line fires if word n of the line's part of the stream is below p * 2^32, p = min(|value| gain, 1).
    A line that is not `DRAWN` fires k = round(p * bits) times: in the first k slots, or in k spread evenly, so that the
    two kinds have round(k_x k_d / bits) coincidences.  Also returns the sum of the probabilities, as used.
    """
    lines = np.arange(len(values))
    p = np.zeros(len(values), F32)
    active = values != 0
    with np.errstate(over="ignore"):
        p[active] = np.minimum(np.abs(values[active]) * gain, F32(1))
    if spread:
        p = np.rint(p * F32(bits)) / F32(bits)
    limit = np.ceil(p.astype(np.float64) * 2.0**32).astype(np.uint64)
    train = np.where((values < 0) & (p > 0), np.uint32(1 << 31), np.uint32(0))
    for slot in range(0 if spread else bits):
        words = philox((lines * 8 + slot // 4, sample & 0xFFFFFFFF, sample >> 32, 0), key)
        train |= (words[slot % 4] < limit).astype(np.uint32) << np.uint32(slot)
    for slot in range(bits if spread else 0):
        k = np.rint(p * F32(bits)).astype(np.int64)
        fires = slot < k if spread == LEADING else _evenly(slot + 1, k, bits) > _evenly(slot, k, bits)
        train |= fires.astype(np.uint32) << np.uint32(slot)
    return train, float(limit.sum()) * 2.0**-32


def _evenly(slots: int, k: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """How often lines that fire k times in ``bits`` slots, spread evenly, do so in the first ``slots``, halves up."""
    fired: NDArray[np.int64] = (2 * slots * k + bits) // (2 * bits)
    return fired


def update_tile(
    w: Float32, lanes: Int16, keys: list[Key], x: Float32, d: Float32, lr: float, first_sample: int, rule: UpdateRule,
    hidden: Float32 | None = None,
) -> UpdateTotals:  # fmt: skip
    """Update the weights (rows, cols) of one tile by x (B, cols) and d (B, rows); lanes are (lanes, rows, cols)."""
    cells = rule.device.cells(lanes)
    samples = len(x)
    x_trains, d_trains = np.zeros(x.shape, np.uint32), np.zeros(d.shape, np.uint32)
    slots, expected = 0, 0.0
    for b in range(samples):
        bits, gain_x, gain_d = gains(np.abs(x[b]).max(), np.abs(d[b]).max(), lr, rule)
        slots += bits
        if gain_x > 0:
            kinds = (LEADING, EVEN) if rule.deterministic else (DRAWN, DRAWN)
            x_trains[b], x_sum = pulse_trains(x[b], gain_x, bits, keys[X_KEY], first_sample + b, kinds[0])
            d_trains[b], d_sum = pulse_trains(d[b], gain_d, bits, keys[D_KEY], first_sample + b, kinds[1])
            expected += bits * x_sum * d_sum
    counts = np.bitwise_count(x_trains[:, None, :] & d_trains[:, :, None] & SLOTS).astype(np.int64)  # (B, rows, cols)
    lowers = (x_trains[:, None, :] ^ d_trains[:, :, None]) <= SLOTS  # equal signs lower the weight
    # slots in which one line of a cell fires and the other does not
    alone = np.bitwise_count((x_trains[:, None, :] ^ d_trains[:, :, None]) & SLOTS).astype(np.int64)
    if rule.raise_only:
        counts[lowers] = alone[lowers] = 0
    if rule.noise_per_batch:
        _apply_batch(w, cells, keys, counts, lowers, first_sample, rule)
    else:
        for b in range(samples):
            apply_sample(w, cells, keys, counts[b], lowers[b], first_sample + b, rule, hidden, alone[b])
    return UpdateTotals(slots, int(counts.sum()), expected, samples)


def apply_sample(
    w: Float32, cells: Cells, keys: list[Key], counts: NDArray[Any], lowers: NDArray[Any], sample: int,
    rule: UpdateRule, hidden: Float32 | None = None, alone: NDArray[Any] | None = None,
) -> None:  # fmt: skip
    """Change the cells that had coincidences: n pulses are one draw, n + std sqrt(n) z steps, then the clip.

    Where a clip between two of the pulses is possible, they are replayed one by one, which keeps the law exact.  On a
    device that is not plain, `reference_law` fires them.
    """
    if not rule.device.plain:
        fire_cells(w, hidden, cells, keys, counts, lowers, alone, sample, rule)
        return
    for i in range(len(w)):
        hit = np.flatnonzero(counts[i])  # in column order: the k-th hit takes normal k
        z = normals(keys[NOISE_KEY], len(hit), sample, round=i) if rule.device.dw_min_std > 0 else np.zeros(1, F32)
        of_hits = Cells(*(array[i, hit] for array in cells))
        cell = i * w.shape[1] + hit
        w[i, hit] = pulse(w[i, hit], counts[i, hit], lowers[i, hit], of_hits, z, keys[REPLAY_KEY], sample, cell, rule)


def pulse(
    old: Float32,
    counts: NDArray[Any],
    lowers: NDArray[Any],
    cells: Cells,
    z: Float32,
    replay_key: Key,
    sample: int,
    cell: NDArray[Any],
    rule: UpdateRule,
) -> Float32:
    """The weights of some cells after ``counts`` pulses each; all arrays are (hits,), z their normals."""
    std, n = F32(rule.device.dw_min_std), counts.astype(F32)
    step, low, high = np.where(lowers, cells.down, cells.up), cells.lower, cells.upper
    amount = step * (n + (std * np.sqrt(n)) * z)
    new: Float32 = np.minimum(np.maximum(np.where(lowers, old - amount, old + amount), low), high)
    ahead, behind = (n * step) * F32(rule.reach_ahead), (n * step) * F32(rule.reach_behind)
    near = np.where(lowers, (old - ahead < low) | (old + behind > high), (old + ahead > high) | (old - behind < low))
    again = np.flatnonzero(near & (n > 1))
    new[again] = _replay(
        old[again], n[again], lowers[again], step[again], low[again], high[again], std, replay_key, sample, cell[again]
    )
    return new


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
    std, ahead, behind = F32(rule.device.dw_min_std), F32(rule.reach_ahead), F32(rule.reach_behind)
    n_up, n_down = (counts * ~lowers).sum(0), (counts * lowers).sum(0)
    up, down = n_up.astype(F32) * cells.up, n_down.astype(F32) * cells.down
    z = np.zeros(w.shape, F32)
    for i in range(len(w) if std > 0 else 0):
        hit = np.flatnonzero(n_up[i] + n_down[i])  # in column order: the k-th hit takes normal k
        z[i, hit] = normals(keys[NOISE_KEY], len(hit), first_sample, round=i)
    noise = std * np.sqrt(up * cells.up + down * cells.down)
    new = np.minimum(np.maximum(w + ((up - down) + noise * z), cells.lower), cells.upper)
    near = (w + (up * ahead + down * behind) > cells.upper) | (w - (down * ahead + up * behind) < cells.lower)
    again = near & (n_up + n_down > 1)
    here = w[again]
    for b in range(len(counts)):
        falls = lowers[b][again]
        here = _replay(
            here, counts[b][again], falls, np.where(falls, cells.down[again], cells.up[again]),
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
