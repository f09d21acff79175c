"""What stands around a tile when it is read: converters, noise, wires, and the digital scaling of a read."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from rpucluster.kernels import ReadRule, Scaling

Rounding = Literal["nearest", "stochastic"]

BOUND_ROUNDS: Final = 10
"""Bound management repeats a read at most so often: inputs halved ten times reach bounds 1000 times as wide."""


@dataclass(frozen=True, kw_only=True)
class Converters:
    """DAC, ADC, noise and wires of one read direction; inputs are scaled to [-1, 1] and clipped there.

    Defaults are the 2016 paper's.  Raises ValueError for a value out of range.
    """

    input_bits: int = 5
    """DAC resolution with sign, so 2^bits - 2 steps over [-1, 1]; 0 does not quantise.  Restated by Haensch et
    al. (2019); the convention of the steps is aihwkit's."""
    input_rounding: Rounding = "nearest"
    """With "nearest" half to even; "stochastic" is up or down at random so that the mean is kept, for which Gokmen et
    al. (2018) found 5 bits to do for recurrent networks that else need 7."""
    input_noise: float = 0.0
    """Standard deviation of the analog noise of each input, behind its DAC and in units of the scaled input.
    aihwkit's inp_noise."""
    output_bits: int = 9
    """ADC resolution with sign, 2^bits - 2 steps over both bounds; 0 does not quantise.  Restated by Haensch et
    al. (2019)."""
    output_rounding: Rounding = "nearest"
    """As ``input_rounding``.  aihwkit's out_sto_round."""
    output_bound: float = 12.0
    """Largest output before it saturates, in units of weight times input; ``inf`` for none, which needs
    output_bits 0.  Read as aihwkit's default, recalled from the paper."""
    read_noise: float = 0.06
    """Standard deviation of the analog noise of each output, in the same units.  Restated by Haensch et al."""
    weight_read_noise: float = 0.0
    """Standard deviation of the noise of each weight, anew in each read: an output gets that times the length of the
    vector of inputs.  aihwkit's w_noise of type ADDITIVE_CONSTANT."""
    wire_resistance: float = 0.0
    """Resistance of an output line from one cell to the next, in units of a device's mean resistance; 0 for no voltage
    drop.  The paper's 0.144 ohm and 24 Mohm make 6e-9.  First order: `kernels.reference_read.voltage_drop`."""
    mean_conductance: float = 0.386
    """Conductance of the mean device, in units of that of weight 1: with g+ - g- = 0.6 at the largest weight and
    devices of a ratio of 8 between their largest and smallest conductance, 0.6 (8 + 1) / (8 - 1) / 2."""
    baseline_conductance: float = 0.086
    """Conductance of both devices of a pair at weight 0, in the same units: 0.6 / (8 - 1)."""

    def __post_init__(self) -> None:
        for direction in ("input", "output"):
            bits = getattr(self, f"{direction}_bits")
            if isinstance(bits, bool) or not isinstance(bits, int) or not (bits == 0 or 2 <= bits <= 16):
                raise ValueError(f"{direction}_bits = {bits}: write 0 for no quantisation, or 2 to 16")
            rounding = getattr(self, f"{direction}_rounding")
            if rounding not in ("nearest", "stochastic"):
                raise ValueError(f'{direction}_rounding = "{rounding}": write "nearest" or "stochastic"')
            if rounding == "stochastic" and not bits:
                raise ValueError(f'{direction}_rounding = "stochastic" with {direction}_bits = 0: write 2 to 16 bits')
        if not self.output_bound > 0:
            raise ValueError(f"output_bound = {self.output_bound}: write a number above 0, such as 12.0, or inf")
        if self.output_bits and math.isinf(self.output_bound):
            raise ValueError(f"output_bound = inf with output_bits = {self.output_bits}: write output_bits = 0")
        for name, example in _EXAMPLES.items():
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: write a number of at least 0, such as {example}")
        if not 0 < self.mean_conductance < math.inf:
            raise ValueError(f"mean_conductance = {self.mean_conductance}: write a number above 0, such as 0.386")


_EXAMPLES = {
    "read_noise": "0.06",
    "input_noise": "0.01",
    "weight_read_noise": "0.01",
    "wire_resistance": "6e-9",
    "baseline_conductance": "0.086",
}


@dataclass(frozen=True, kw_only=True)
class Management:
    """Digital scaling around the reads of one direction.  Raises ValueError for a value out of range."""

    noise_management: Literal["none", "abs_max", "average_abs_max", "constant"] = "none"
    """What inputs are divided by and outputs multiplied with.  "abs_max": the largest magnitude of the slice of the
    vector that a tile sees; a slice of zeros then gives exact zeros (US patent 10325007, aihwkit).  "average_abs_max":
    a running average of that over the samples before, which each tile keeps; evaluating leaves it as it is (aihwkit's
    AVERAGE_ABS_MAX).  "constant": ``scale``."""
    scale: float = 1.0
    """The scale of noise_management "constant"; for errors that shrink, say 0.1."""
    average_decay: float = 0.99
    """Share of the average that noise_management "average_abs_max" keeps from one sample to the next, from 0 up to,
    without, 1; aihwkit's 1 - nm_decay."""
    bound_management: Literal["none", "iterative", "worst_case"] = "none"
    """While an output of a tile saturates, its read is repeated.  "iterative": with inputs halved, at most ten times
    and never to less than two bits of input (aihwkit).  "worst_case": once, with inputs so small that weights up to
    ``assumed_weight`` cannot saturate an output (US patent 12169534; aihwkit's ITERATIVE_WORST_CASE)."""
    assumed_weight: float = 0.6
    """Largest weight that bound_management "worst_case" reckons with."""

    def __post_init__(self) -> None:
        if self.noise_management not in ("none", "abs_max", "average_abs_max", "constant"):
            raise ValueError(
                f'noise_management = "{self.noise_management}": write "none", "abs_max", "average_abs_max" or '
                '"constant"'
            )
        if self.bound_management not in ("none", "iterative", "worst_case"):
            raise ValueError(f'bound_management = "{self.bound_management}": write "none", "iterative" or "worst_case"')
        for name, example in (("scale", "0.1"), ("assumed_weight", "0.6")):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: write a number above 0, such as {example}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay = {self.average_decay}: write 0 to below 1, such as 0.99")


def read_rule(converters: Converters, management: Management) -> ReadRule:
    """The numbers of a read direction as kernels take them."""
    bits = converters.input_bits
    most = min(BOUND_ROUNDS, bits - 2) if bits else BOUND_ROUNDS
    return ReadRule(
        input_levels=_levels(bits),
        output_levels=_levels(converters.output_bits),
        output_bound=converters.output_bound,
        read_noise=converters.read_noise,
        scaling=_SCALINGS[management.noise_management],
        rounds={"none": 0, "iterative": most, "worst_case": 1}[management.bound_management],
        worst_case=management.bound_management == "worst_case",
        input_stochastic=converters.input_rounding == "stochastic",
        output_stochastic=converters.output_rounding == "stochastic",
        input_noise=converters.input_noise,
        weight_noise=converters.weight_read_noise,
        scale=management.scale,
        decay=management.average_decay,
        assumed_weight=management.assumed_weight,
        wire=converters.wire_resistance / converters.mean_conductance,
        baseline=converters.baseline_conductance,
    )


_SCALINGS = {
    "none": Scaling.NONE,
    "abs_max": Scaling.ABS_MAX,
    "average_abs_max": Scaling.AVERAGE,
    "constant": Scaling.CONSTANT,
}


def _levels(bits: int) -> int:
    """Codes on each side of 0 of a converter whose resolution includes the sign."""
    return (1 << bits - 1) - 1 if bits else 0
