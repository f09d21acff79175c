"""How the periphery of a tile is set: converters, management of reads, pulse trains of updates."""

import math
from dataclasses import dataclass
from typing import Literal

from rpucluster.devices import Device, PulsedDevice
from rpucluster.kernels import MAX_BIT_LENGTH

Tolerances = Literal["stored", "recomputed", "auto"]
"""Whether the numbers that cells' tolerances are made of lie in memory or are made anew where a pulse falls."""


def stored_lanes(choice: Tolerances, device: Device) -> int:
    """Lanes of a cell that lie in memory; with "auto" all, since that was measured faster.  No value depends on it."""
    return device.lanes if isinstance(device, PulsedDevice) and choice != "recomputed" else 0


def bytes_per_cell(choice: Tolerances, device: Device) -> int:
    """Bytes kept of a cell: a float32 weight, and two for each lane that is stored."""
    return 4 + 2 * stored_lanes(choice, device)


@dataclass(frozen=True, kw_only=True)
class Converters:
    """DAC, ADC and noise of one read direction; inputs are scaled to [-1, 1] and clipped there.

    Defaults are the 2016 paper's.  Raises ValueError for a value out of range.
    """

    input_bits: int = 5
    """DAC resolution with sign, so 2^bits - 2 steps over [-1, 1]; 0 does not quantise.  Restated by Haensch et
    al. (2019); the convention of the steps is aihwkit's."""
    output_bits: int = 9
    """ADC resolution with sign, 2^bits - 2 steps over both bounds; 0 does not quantise.  Restated by Haensch et
    al. (2019)."""
    output_bound: float = 12.0
    """Largest output before it saturates, in units of weight times input; ``inf`` for none, which needs
    output_bits 0.  Read as aihwkit's default, recalled from the paper."""
    read_noise: float = 0.06
    """Standard deviation of the analog noise of each output, in the same units.  Restated by Haensch et al."""

    def __post_init__(self) -> None:
        for name in ("input_bits", "output_bits"):
            bits = getattr(self, name)
            if isinstance(bits, bool) or not isinstance(bits, int) or not (bits == 0 or 2 <= bits <= 16):
                raise ValueError(f"{name} = {bits}: write 0 for no quantisation, or 2 to 16")
        if not self.output_bound > 0:
            raise ValueError(f"output_bound = {self.output_bound}: write a number above 0, such as 12.0, or inf")
        if self.output_bits and math.isinf(self.output_bound):
            raise ValueError(f"output_bound = inf with output_bits = {self.output_bits}: write output_bits = 0")
        if not 0 <= self.read_noise < math.inf:
            raise ValueError(f"read_noise = {self.read_noise}: write a number of at least 0, such as 0.06")


@dataclass(frozen=True, kw_only=True)
class Management:
    """Digital scaling around the reads of one direction.  Raises ValueError for an unknown choice."""

    noise_management: Literal["none", "abs_max"] = "none"
    """With "abs_max" divide the slice of the vector that a tile sees by its largest magnitude and multiply the
    output by it; a slice of zeros then gives exact zeros.  US patent 10325007, aihwkit."""
    bound_management: Literal["none", "iterative"] = "none"
    """With "iterative" repeat the read of a tile with inputs halved while an output saturates, at most ten times
    and never to less than two bits of input.  aihwkit."""

    def __post_init__(self) -> None:
        if self.noise_management not in ("none", "abs_max"):
            raise ValueError(f'noise_management = "{self.noise_management}": write "none" or "abs_max"')
        if self.bound_management not in ("none", "iterative"):
            raise ValueError(f'bound_management = "{self.bound_management}": write "none" or "iterative"')


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """How the pulse trains of an update are made.  Raises ValueError for a value out of range."""

    bit_length: int = 10
    """Slots of a pulse train, 1 to 31; the most that are used if ``dynamic_bit_length``.  10 in the paper's
    experiments (recalled)."""
    noise_per: Literal["sample", "batch"] = "sample"
    """With "sample" draw step noise per cell and sample; "batch" one draw per cell and update, equal in law and
    faster for large batches, for devices whose step does not depend on the weight."""
    update_management: bool = False
    """Share the gain between x and delta so that their peak probabilities agree.  US patent 10783432, aihwkit."""
    dynamic_bit_length: bool = False
    """Use only as many slots as the largest change of the sample needs.  aihwkit, later than the paper."""

    def __post_init__(self) -> None:
        bits = self.bit_length
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MAX_BIT_LENGTH:
            raise ValueError(f"bit_length = {bits}: write 1 to {MAX_BIT_LENGTH}")
        if self.noise_per not in ("sample", "batch"):
            raise ValueError(f'noise_per = "{self.noise_per}": write "sample" or "batch"')
