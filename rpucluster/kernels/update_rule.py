"""How a pulsed update is made, and the same as the arrays that compiled kernels take."""

from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from rpucluster.devices import LAW_CONSTANTS, PulsedDevice

BIT_LENGTH, PER_BATCH, MANAGEMENT, DYNAMIC, LAW, LANES, RAISE_ONLY, GENERAL, DETERMINISTIC, UPDATE_INTS = range(10)
"""Index into the integers of a packed update rule, and how many there are; `GENERAL` says that a device
is not plain."""
DW_MIN, STD, AHEAD, BEHIND = range(4)
"""Index into the floats of a packed update rule; all that are not plain follow."""
IS_GENERAL, LAW_NUMBER, LANE_NUMBER, ADDITIVE, HALF_SELECT, WRITE_NOISE = range(4, 10)
"""Of devices that are not plain: 1, their `Law`, their lanes, whether step noise stays that of the full step, the share
of a coincidence by which a pulse on one line alone moves a cell, and the write noise in weight units."""
LIFETIME, LIFETIME_DTOD, REST, REST_DTOD, DIFFUSION, DIFFUSION_DTOD = range(10, 16)
"""What time does to a cell; two arrays follow: `SPREAD` and `CONSTANTS`."""
SPREAD: Final = 16
"""First of 32 floats: the standard deviation of n pulses, std * sqrt(n)."""
CONSTANTS: Final = 48
"""First of the constants of the device's law."""
UPDATE_FLOATS: Final = CONSTANTS + LAW_CONSTANTS
"""How many floats a packed update rule has."""

MAX_BIT_LENGTH: Final = 31
"""A pulse train is a 32-bit word: bit n is slot n, bit 31 the sign."""


class UpdateRule(NamedTuple):
    """How a pulsed update is made; numbers that do not change during a run."""

    bit_length: int
    """Slots of a pulse train, 1 to 31; with ``dynamic_bit_length`` the most that are used."""
    noise_per_batch: bool
    """One draw of step noise per cell and batch rather than per cell and sample."""
    update_management: bool
    """Share the gain between x and d so that both have the same peak probability."""
    dynamic_bit_length: bool
    """Use only as many slots as the largest wanted change needs."""
    device: PulsedDevice
    raise_only: bool = False
    """Pulses that would lower a weight do nothing: one device of a pair of which each is only raised."""
    deterministic: bool = False
    """Trains of x and d are evenly spread rather than drawn."""

    @property
    def reach_ahead(self) -> float:
        """How far one pulse may move a weight its own way, in steps: 1 plus six standard deviations."""
        return 1 + 6 * self.device.dw_min_std

    @property
    def reach_behind(self) -> float:
        """How far one pulse may move a weight the other way, in steps, because its noise exceeds its step."""
        return max(6 * self.device.dw_min_std - 1, 0.0)


def require_batch_noise(device: Any) -> None:
    """Raise ValueError, one line, for a device whose pulses of a batch are more than one draw of noise."""
    if not device.pulsed or device.plain:
        return
    why = f"the step of {type(device).__name__} depends on its weight, which changes within a batch"
    if not device.step_depends_on_weight:
        names = ("log_normal", "stuck", "half_select", "write_noise", "lifetime", "diffusion")
        name = next((name for name in names if getattr(device, name)), "fold")
        why = f"{name} = {getattr(device, name)} is performed pulse by pulse"
    raise ValueError(f'noise_per = "batch", but {why}; write noise_per = "sample"')


@cache
def pack_update(rule: UpdateRule) -> tuple[Any, Any]:
    """The rule as compiled kernels take it, int64 and float32 arrays on the host; made once for each rule."""
    device: Any = rule.device
    ints, floats = np.zeros(UPDATE_INTS, np.int64), np.zeros(UPDATE_FLOATS, np.float32)
    ints[BIT_LENGTH], ints[PER_BATCH] = rule.bit_length, rule.noise_per_batch
    ints[MANAGEMENT], ints[DYNAMIC] = rule.update_management, rule.dynamic_bit_length
    ints[LAW], ints[LANES], ints[RAISE_ONLY] = device.law, device.lanes, rule.raise_only
    ints[DETERMINISTIC] = rule.deterministic
    ints[GENERAL] = floats[IS_GENERAL] = not device.plain
    floats[LAW_NUMBER], floats[LANE_NUMBER] = device.law, device.lanes
    floats[ADDITIVE] = getattr(device, "additive_noise", False)
    floats[HALF_SELECT], floats[WRITE_NOISE] = device.half_select, device.write_noise * device.dw_min
    floats[LIFETIME], floats[LIFETIME_DTOD] = device.lifetime, device.lifetime_dtod
    floats[REST], floats[REST_DTOD] = device.reset_level, device.reset_level_dtod
    floats[DIFFUSION], floats[DIFFUSION_DTOD] = device.diffusion, device.diffusion_dtod
    floats[DW_MIN], floats[STD] = device.granularity, device.dw_min_std
    floats[AHEAD], floats[BEHIND] = rule.reach_ahead, rule.reach_behind
    floats[SPREAD:CONSTANTS] = np.float32(device.dw_min_std) * np.sqrt(np.arange(32, dtype=np.float32))
    constants = device.constants()
    floats[CONSTANTS : CONSTANTS + len(constants)] = constants
    return ints, floats
