"""How an analog read is made: the numbers of one direction, and the form in which compiled kernels take them.

The read of one vector x by one tile, with its scale s (see `Scaling`) and repeat n of bound management:

    v = clip(DAC(x / s)) + input noise          y = w v - voltage drop + noise of the weights and the output
    result = s ADC(y), clipped to +-output_bound

Random numbers come from the stream of the read's direction and purpose, at the sample, number i for line i, with a
word of the counter that says what they are for and belongs to repeat n: n for the noise of outputs, and n added to
`INPUT_ROUNDING`, `INPUT_NOISE` or `OUTPUT_ROUNDING`.
"""

import math
from enum import IntEnum
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

INPUT_ROUNDING, INPUT_NOISE, OUTPUT_ROUNDING = 0x100, 0x200, 0x300
"""Counter words of repeat 0; a read is repeated far less than 256 times."""

SCALING, ROUNDS, WORST_CASE, IN_STOCHASTIC, OUT_STOCHASTIC, READ_INTS = range(6)
"""Index into the integers of a packed read rule, and how many there are."""
(
    IN_STEP, OUT_STEP, LIMIT, OUT_NOISE, OUT_POWER, WEIGHT_POWER, IN_NOISE, SCALE, DECAY, RISE, WORST, WIRE, BASELINE,
    READ_FLOATS,
) = range(14)  # fmt: skip
"""Index into the floats of a packed read rule, and how many there are."""

SUM_BITS: Final = 24
"""Worst-case bound management adds magnitudes in units of 2^-24 of the scale, so that their order does not matter."""
SUM_LIMIT: Final = 2.0**20
"""Magnitude, in units of the scale, that it takes larger ones for: the sum of 2^17 lines fits 64 bits."""


class Scaling(IntEnum):
    """Noise management: what inputs are divided by and outputs multiplied with."""

    NONE = 0
    """1."""
    ABS_MAX = 1
    """The largest magnitude of the slice of the vector that a tile sees; zeros give exact zeros."""
    AVERAGE = 2
    """A running average of that, kept by each tile: after a sample decay * before + (1 - decay) * its own, used for
    the next; the first sample that is not 0 takes, and leaves, its own."""
    CONSTANT = 3


class ReadRule(NamedTuple):
    """Converters and management of one read direction; numbers that do not change during a run."""

    input_levels: int = 0
    """DAC codes on each side of 0: 2^(bits - 1) - 1; 0 means no quantisation."""
    output_levels: int = 0
    """ADC codes on each side of 0; 0 means no quantisation."""
    output_bound: float = math.inf
    read_noise: float = 0.0
    """Standard deviation of the noise of each output."""
    scaling: Scaling = Scaling.NONE
    rounds: int = 0
    """Bound management: at most this many repeats while an output saturates; 0 is none.  Each halves the inputs."""
    worst_case: bool = False
    """Repeat only once, with inputs so small that no output of weights up to ``assumed_weight`` can saturate."""
    input_stochastic: bool = False
    """The DAC rounds up with the probability that keeps the mean."""
    output_stochastic: bool = False
    """The same of the ADC."""
    input_noise: float = 0.0
    """Standard deviation of what is added to each input behind the DAC."""
    weight_noise: float = 0.0
    """Standard deviation of what is added to each weight anew in each read: as one normal per output of standard
    deviation weight_noise * |v|, which has the same law."""
    scale: float = 1.0
    """The constant of `Scaling.CONSTANT`."""
    decay: float = 0.0
    """Of `Scaling.AVERAGE`."""
    assumed_weight: float = 0.6
    wire: float = 0.0
    """Resistance of an output line from one cell to the next, times the conductance of weight 1; 0 is no drop."""
    baseline: float = 0.0
    """Conductance of both devices of a pair at weight 0, in units of that of weight 1."""

    @property
    def input_step(self) -> float:
        """Distance of DAC codes, of inputs in [-1, 1]; 0 without quantisation."""
        return 1 / self.input_levels if self.input_levels else 0.0

    @property
    def output_step(self) -> float:
        """Distance of ADC codes; 0 without quantisation."""
        return self.output_bound / self.output_levels if self.output_levels else 0.0

    @property
    def limit(self) -> float:
        """Where outputs saturate: in codes, or without quantisation in the units of the output."""
        return self.output_levels or self.output_bound

    @property
    def worst(self) -> float:
        """What a sum of magnitudes is multiplied with, to become the least scale at which no output saturates.

        |w v| <= assumed_weight * sum |x| / s, which is the bound at s = assumed_weight * sum |x| / output_bound.
        """
        return self.assumed_weight / self.output_bound


class ReadTotals(NamedTuple):
    """Result of a read."""

    sums: Any
    """int64 (B, lines out) in units of 2^-40, on the arrays' device."""
    passes: int
    """Tile-samples, without repeats."""
    repeats: int


@cache
def pack_read(rule: ReadRule) -> tuple[Any, Any]:
    """The rule as compiled kernels take it, int64 and float32 arrays on the host; made once for each rule."""
    ints, floats = np.zeros(READ_INTS, np.int64), np.zeros(READ_FLOATS, np.float32)
    ints[SCALING], ints[ROUNDS], ints[WORST_CASE] = rule.scaling, rule.rounds, rule.worst_case
    ints[IN_STOCHASTIC], ints[OUT_STOCHASTIC] = rule.input_stochastic, rule.output_stochastic
    floats[IN_STEP], floats[OUT_STEP], floats[LIMIT] = rule.input_step, rule.output_step, rule.limit
    floats[OUT_NOISE], floats[IN_NOISE] = rule.read_noise, rule.input_noise
    floats[OUT_POWER] = np.float32(rule.read_noise) * np.float32(rule.read_noise)
    floats[WEIGHT_POWER] = np.float32(rule.weight_noise) * np.float32(rule.weight_noise)
    floats[SCALE], floats[DECAY], floats[RISE] = rule.scale, rule.decay, 1 - rule.decay
    floats[WORST], floats[WIRE], floats[BASELINE] = rule.worst, rule.wire, rule.baseline
    return ints, floats
