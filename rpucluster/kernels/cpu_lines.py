"""The read of one large tile by threads that take turns at its output lines, compiled by Numba.

A sample repeats when any of its outputs saturates, which a thread that makes some of them cannot know.  So each adds
what it has made, and `next_round` takes back what was added for samples that repeat: integers, so that nothing is left.
"""

from typing import Any

import numpy as np

from rpucluster.kernels.base import COLS, OFFSET, ROWS
from rpucluster.kernels.cpu_apart import apart
from rpucluster.kernels.cpu_backward import backward_product, packed_size
from rpucluster.kernels.cpu_convert import convert_inputs, convert_outputs, worst_case
from rpucluster.kernels.cpu_forward import forward_product, paired_size
from rpucluster.kernels.cpu_product import padded_lines, padded_samples
from rpucluster.kernels.cpu_random import borrowing, compiled, types
from rpucluster.kernels.cpu_read import FINE, OUT_OF_RANGE, SAMPLES_TOGETHER, add_fixed, lines_of, take_fixed
from rpucluster.kernels.cpu_turns import finish, take
from rpucluster.kernels.cpu_wire import add_drops
from rpucluster.kernels.read_rule import ROUNDS, WIRE, WORST_CASE

SATURATED, OUTSIDE = range(2)
"""What can be said of a sample: an output has saturated, a sum has left its range."""
LINES_TOGETHER = 32
"""A turn starts at a multiple of so many lines."""

_ZERO, _TWO = np.float32(0), np.float32(2)
_0 = np.int64(0)


@compiled
def new_results(table: Any, t: int, samples: int, backward: bool) -> Any:
    """Room for the outputs of a tile, float32 (samples and two more, padded lines)."""
    _, _, _, out = lines_of(table, t, backward)
    return np.empty((padded_samples(samples), padded_lines(out)), np.float32)


_I, _I8, _F4 = types.int64, types.int64[::1], types.float32[::1]
_SIGNALS, _SUMS = types.float32[:, ::1], types.int64[:, ::1]


@apart(
    compiled, types.void, _F4, types.int64[:, ::1], types.uint32[:, ::1], _I, _I8, _F4, _SIGNALS, _SUMS, _I,
    types.boolean, _F4, _I, _SIGNALS, _I8, types.uint8[:, ::1], needs=(forward_product, backward_product),
)  # fmt: skip
def read_lines(
    weights: Any,
    table: Any,
    keys: Any,
    t: int,
    ints: Any,
    floats: Any,
    lines: Any,
    sums: Any,
    first_sample: int,
    backward: bool,
    factors: Any,
    repeat: int,
    results: Any,
    turns: Any,
    said: Any,
) -> None:
    """Read a tile for the samples whose factor, float32 (B,), is above zero: the output lines whose turn it is.

    ``turns`` start at multiples of `LINES_TOGETHER`.  Leaves the outputs in ``results``, sample after sample,
    adds them to ``sums`` and sets what can be said, uint8 (2, B), of their samples.
    """
    top, bottom = take(turns)
    if top >= bottom:
        return
    rows, cols, start, key = table[t, ROWS], table[t, COLS], table[t, OFFSET], keys[t]
    first_in, into, first_out, out = lines_of(table, t, backward)
    samples, together = len(lines), min(len(lines), SAMPLES_TOGETHER)
    wide_in, wide_out = padded_lines(into), results.shape[1]
    flat = results.reshape(-1)
    v = np.zeros(padded_samples(together) * wide_in, np.float32)
    z = np.zeros(max(wide_in, wide_out) + 32, np.float32)
    scratch = np.empty(packed_size(into, out, cols, together) if backward else paired_size(into, together), np.float32)
    who = np.empty(together, np.int64)
    done = _0
    while top < bottom:
        b, at = _0, top
        while b < samples:
            count = _0
            while b < samples and count < together:
                if factors[b] > _ZERO:
                    who[count] = b
                    count += 1
                b += 1
            for k in range(count):
                sent, sample = v[k * wide_in : (k + 1) * wide_in], first_sample + who[k]
                values = lines[who[k], first_in : first_in + into]
                convert_inputs(values, factors[who[k]], ints, floats, sent, z, key, sample, repeat)
            y, wide = flat[at:], bottom - top
            if backward:
                backward_product(weights, start + top, rows, wide, cols, v, wide_in, y, wide_out, count, scratch)
                if floats[WIRE] > _ZERO:
                    add_drops(weights, start + top, rows, wide, cols, floats, True, v, wide_in, y, wide_out, count)
            else:
                below = start + top * cols
                forward_product(weights, below, wide, cols, v, wide_in, y, wide_out, count, scratch)
                if floats[WIRE] > _ZERO:
                    add_drops(weights, below, wide, cols, cols, floats, False, v, wide_in, y, wide_out, count)
            for k in range(count):
                result, sent = y[k * wide_out : k * wide_out + wide], v[k * wide_in : k * wide_in + into]
                sample, place = first_sample + who[k], who[k]
                if convert_outputs(result, top, sent, ints, floats, z, key, sample, repeat):
                    said[SATURATED, place] = 1
                if not add_fixed(result, factors[place], sums[place, first_out + top : first_out + bottom]):
                    said[OUTSIDE, place] = 1
            at += count * wide_out
        done += bottom - top
        top, bottom = take(turns)
    finish(turns, done, _0)


@borrowing
def next_round(
    table: Any,
    t: int,
    ints: Any,
    floats: Any,
    lines: Any,
    sums: Any,
    backward: bool,
    factors: Any,
    repeat: int,
    results: Any,
    said: Any,
) -> Any:
    """Set the factors of samples that are done to zero and of others to those of the next round; clears ``said``.

    Returns how many samples repeat, and how the round ended.
    """
    first_in, into, first_out, out = lines_of(table, t, backward)
    again = place = _0
    for b in range(len(lines)):
        factor = factors[b]
        if factor > _ZERO:
            factors[b] = _ZERO
            if said[SATURATED, b] != 0 and repeat < ints[ROUNDS]:
                take_fixed(results[place, :out], factor, sums[b, first_out : first_out + out])
                factors[b] = factor * _TWO
                if ints[WORST_CASE] != 0:
                    factors[b] = worst_case(lines[b, first_in : first_in + into], factor, floats)
                again += 1
            elif said[OUTSIDE, b] != 0:
                return again, OUT_OF_RANGE
            place += 1
        said[SATURATED, b] = said[OUTSIDE, b] = 0
    return again, FINE
