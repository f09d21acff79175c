"""How a tile keeps its cells and how the pulse trains of its updates are made."""

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
    """Bytes kept of a cell: a float32 weight, another that is hidden with write noise, two for each stored lane."""
    return 4 + 4 * ("hidden" in device.persistent) + 2 * stored_lanes(choice, device)


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """How the pulse trains of an update are made.  Raises ValueError for a value out of range."""

    bit_length: int = 10
    """Slots of a pulse train, 1 to 31; the most that are used if ``dynamic_bit_length``.  10 in the paper's
    experiments (recalled)."""
    noise_per: Literal["sample", "batch"] = "sample"
    """With "sample" draw step noise per cell and sample; "batch" one draw per cell and update, equal in law and
    faster for large batches, for devices whose step does not depend on the weight."""
    pulses: Literal["stochastic", "deterministic", "none"] = "stochastic"
    """How lines fire.  With "stochastic" each slot of a line fires with the probability p, |value| times the gain and
    at most 1 (Gokmen and Vlasov 2016).

    With "deterministic" a line fires in round(p L) of its L slots, placed so that a cell has round(k_x k_d / L)
    coincidences of lines that fire k_x and k_d times; small signals are rounded away.  aihwkit: DeterministicImplicit
    with a resolution of 1 / L.

    With "none" ``w -= lr d x`` exactly, one sample after the other, and at the end of the minibatch come decay,
    diffusion and the clip of the device; for the algorithm sgd on single devices.  Modelled time and energy stay those
    of ``bit_length`` slots.  aihwkit: NoneWithDevice.
    """
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
        if self.pulses not in ("stochastic", "deterministic", "none"):
            raise ValueError(f'pulses = "{self.pulses}": write "stochastic", "deterministic" or "none"')
