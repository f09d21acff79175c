"""Pulse trains of the lines of a vector on the CPU, compiled by Numba."""

from typing import Any, NamedTuple

import numpy as np

from rpucluster.kernels.cpu_fire import fire_eight, list_sixteen
from rpucluster.kernels.cpu_random import (
    borrowing,
    compiled,
    float_bits,
    inlined,
)
from rpucluster.kernels.cpu_simd import keep

SLOTS = np.uint32(0x7FFFFFFF)
"""The slots of a train's word; the bit above is the sign."""
COLUMN, COUNT_AT, COUNT, SIGN = np.uint32((1 << 20) - 1), np.uint32(20), np.uint32(31), np.uint32(1 << 31)
"""Parts of a hit, a uint32: its column, its number of coincidences, which starts at bit COUNT_AT, and a sign."""
INFINITY_BITS = np.int32(0x7F800000)

_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_0 = np.int64(0)
_ZERO, _ONE = np.float32(0), np.float32(1)
_U0 = np.uint64(0)


@borrowing
def peak_bits(values: Any) -> Any:
    """Bits of the largest magnitude of a float32 (n,); as integers they compare like the numbers do.

    At or above those of infinity if anything is not finite.
    """
    peak = np.int32(0)
    for j in range(len(values)):
        peak = max(peak, float_bits(values[j]) & _MAGNITUDE)
    return peak


@inlined
def gains(x_peak: Any, d_peak: Any, lr: Any, dw_min: Any, bit_length: int, management: bool, dynamic: bool) -> Any:
    """Slots to use and the gains of x and d: as `reference.gains`, operation by operation."""
    wanted = ((lr * x_peak) * d_peak) / dw_min
    quiet = x_peak == _ZERO or d_peak == _ZERO or lr == _ZERO
    bits = bit_length
    if dynamic and wanted < np.float32(bit_length):
        bits = 0 if quiet else max(1, int(np.ceil(wanted)))
    gain_x = _ZERO
    gain_d = _ZERO
    if not quiet:
        gain_x = np.float32(np.sqrt(lr / (dw_min * np.float32(bits))))
        gain_d = gain_x
        if management:
            peak = d_peak
            if wanted > np.float32(bit_length):
                peak = d_peak * (np.float32(bit_length) / wanted)
            gain_d = gain_d * np.float32(np.sqrt(x_peak / peak))
            gain_x = gain_x * np.float32(np.sqrt(peak / x_peak))
    return bits, gain_x, gain_d


class Lines(NamedTuple):
    """The lines of a vector that can fire, one after the other; room for 32 more than there are."""

    lines: Any  # uint32: their numbers
    chances: Any  # float32: the probability that a slot fires, with the sign of the line
    words: Any  # uint32: their trains
    sums: Any  # uint64 (8,): what adds up to the sum of the limits below which a word fires


@compiled
def new_lines(most: int) -> Any:
    """Room for so many lines."""
    room = most + 32
    parts = np.empty((3, room), np.uint32)  # one array, since each costs as much as twenty hits
    return Lines(parts[0], parts[1].view(np.float32), parts[2], np.empty(8, np.uint64))


@borrowing
def make_trains(
    values: Any, first: int, stop: int, gain: Any, bits: int, k0: Any, k1: Any, sample: int, found: Any
) -> Any:
    """Pulse trains of those of the lines from ``first`` to ``stop`` that fire at all, into ``found``, `Lines`.

    Returns how many there are and the sum of the limits of all of them.
    """
    lines, words = found.lines, found.words
    count = _0
    for j in range(first, stop, 16):
        count += list_sixteen(values, np.uint64(j), stop - j, gain, lines, found.chances, np.uint64(count))
    found.chances[count : count + 8] = _ZERO  # what the surplus lanes of a register hold cannot fire
    found.sums[:] = _U0
    low, high = np.uint64(sample) & _MASK, np.uint64(sample) >> _32
    key0, key1 = np.uint64(k0), np.uint64(k1)
    for a in range(0, count, 8):
        for block in range((bits + 3) // 4):
            fire_eight(words, lines, found.chances, np.uint64(a), np.uint64(block), low, high, key0, key1, found.sums)
    used = (np.uint32(1) << np.uint32(bits)) - np.uint32(1)
    for a in range(count):
        words[a] &= used | SIGN
    words[count : count + 16] = 0
    active = _0
    for a in range(0, count, 16):  # in place: what is written has been read
        keep(lines, np.uint64(active), lines, words, np.uint64(a), SLOTS)
        active += keep(words, np.uint64(active), words, words, np.uint64(a), SLOTS)
    return active, found.sums.sum()


@borrowing
def spread_trains(values: Any, gain: Any, bits: int, evenly: bool, found: Any) -> Any:
    """As `make_trains`, but not drawn: a line fires in its first k slots, or in k that are spread ``evenly``."""
    count, total, whole = _0, _U0, np.float32(bits)
    for j in range(len(values)):
        p = min(abs(values[j]) * gain, _ONE) if values[j] != _ZERO else _ZERO
        p = np.rint(p * whole) / whole
        total += np.uint64(np.ceil(np.float64(p) * 4294967296.0))
        k, before, word = np.int64(np.rint(p * whole)), _0, np.uint32(0)
        for slot in range(bits):
            now = (2 * (slot + 1) * k + bits) // (2 * bits)
            fires = now > before if evenly else slot < k
            word |= np.uint32(fires) << np.uint32(slot)
            before = now
        if k > 0:
            found.lines[count] = np.uint32(j)
            found.words[count] = word | SIGN if values[j] < _ZERO else word
            count += 1
    return count, total


@borrowing
def signs(values: Any, gain: Any, even: int, words: Any) -> None:
    """The words of trains without pulses: signs, which half-selected pulses of the other line take over.

    Of trains that are spread over ``even`` slots, unless that is 0, those with less than half a pulse have none.
    """
    for j in range(len(values)):
        p = min(abs(values[j]) * gain, _ONE)
        fires = np.rint(p * np.float32(even)) > _ZERO if even > 0 else p > _ZERO
        words[j] = SIGN if values[j] < _ZERO and fires else np.uint32(0)
