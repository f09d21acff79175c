"""What moves weights between planes: the arguments of the kernels' ``transfer`` and ``flush``.

A *transfer* reads columns of one plane, each as a pass with a single input line on, adds what was read to a digital
buffer, and fires whole pulses out of the buffer onto the same columns of another plane.  A *flush* fires whole pulses
out of a digital matrix, row by row.  Both act on each tile by itself.
"""

from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from rpucluster.kernels.read_rule import ReadRule
from rpucluster.kernels.update_rule import UpdateRule

COLUMN_READ_KEY, CHOPPER_KEY = range(2)
"""Index into the column keys of a transfer, uint32 (tiles, 2, 2); those of choppers agree along a column of tiles."""
COLUMNS, BUFFERED, FORGET, CHOP_EVERY, CHOP_RANDOM, DYNAMIC_REFERENCE, TRANSFER_INTS = range(7)
"""Index into the integers of a packed transfer rule, and how many there are."""
THRESHOLD, MOMENTUM, MEMORY, READ_NOISE, OUTPUT_STEP, OUTPUT_LIMIT, PULSE_UNIT, TRANSFER_FLOATS = range(8)
"""Index into the floats of a packed transfer rule, and how many there are."""
ALL_WORDS: Final = 1 << 32


class TransferRule(NamedTuple):
    """How columns go from one plane to another; numbers that do not change during a run."""

    update: UpdateRule
    """Of the plane that is written: its device, and the slots of a transfer."""
    read: ReadRule
    """Of the plane that is read; only noise and output converter matter, since one line is fully on."""
    columns: int
    """Columns of each tile that one transfer takes, each at most once."""
    buffered: bool
    """Whether a digital buffer stands between; without it, what was read is fired as a stochastic train."""
    threshold: float
    """Contents of the buffer, in weight units, that one pulse stands for."""
    momentum: float
    """Share of what was in the buffer (or, not forgetting, of what was fired) that stays there after pulses."""
    forget: bool
    """Whether pulses empty the buffer, or take only what they carry."""
    chop_every: int
    """Reads of a column between two changes of its sign; 0 for no choppers."""
    chop_random: bool
    """Changes of sign have probability 1 / chop_every at each read instead."""
    dynamic_reference: bool
    """Readings count from the running mean of the sign before."""
    memory: float
    """Weight of a new reading in the running mean."""


class FlushRule(NamedTuple):
    """How a digital matrix goes to a plane."""

    update: UpdateRule
    threshold: float
    """Contents, in weight units, that one pulse stands for."""


class TransferState(NamedTuple):
    """Arrays that transfers change, on the device of the weights; float32 but for the last, empty where not used."""

    buffer: Any
    """(cells,) in weight units."""
    mean: Any
    """(cells,): running mean of the readings since the last change of sign."""
    reference: Any
    """(cells,): that mean when the sign last changed."""
    choppers: Any
    """(cols,): the sign, +1 or -1, under which each column is now updated; never empty."""
    ages: Any
    """int32 (cols,): reads since it last changed; never empty."""


@cache
def pack_transfer(rule: TransferRule) -> tuple[Any, Any]:
    """The rule as compiled kernels take it, beside its packed update rule."""
    ints, floats = np.zeros(TRANSFER_INTS, np.int64), np.zeros(TRANSFER_FLOATS, np.float32)
    ints[COLUMNS], ints[BUFFERED], ints[FORGET] = rule.columns, rule.buffered, rule.forget
    ints[CHOP_EVERY], ints[CHOP_RANDOM] = rule.chop_every, rule.chop_random
    ints[DYNAMIC_REFERENCE] = rule.dynamic_reference
    floats[THRESHOLD], floats[MOMENTUM], floats[MEMORY] = rule.threshold, rule.momentum, rule.memory
    floats[READ_NOISE], floats[OUTPUT_STEP] = rule.read.read_noise, rule.read.output_step
    floats[OUTPUT_LIMIT], floats[PULSE_UNIT] = rule.read.limit, pulse_unit(rule.update)
    return ints, floats


def pulse_unit(rule: UpdateRule) -> float:
    """The wanted change of a cell whose line fires in every slot of a train."""
    return rule.device.granularity * rule.bit_length
