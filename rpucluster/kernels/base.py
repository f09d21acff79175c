"""What the three kernel sets have in common: their arguments, results and fixed-point sums.

The cells of a shard are flat and tile-major: tile t is ``[offset, offset + rows * cols)`` of one float32 buffer,
in C order (rows, cols).  The tile table has a row ``(offset, rows, cols, row0, col0)`` of int64 for each tile,
``row0`` and ``col0`` being its place within the shard.  So one call serves all tiles of a shard.
"""

import math
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from rpucluster.devices import LAW_CONSTANTS, Device, PulsedDevice
from rpucluster.errors import NumericalError
from rpucluster.kernels.read_rule import ReadRule, ReadTotals

if TYPE_CHECKING:  # the rules of transfers are made of those that stand here
    from rpucluster.kernels.transfer import FlushRule, TransferRule, TransferState

OFFSET, ROWS, COLS, ROW0, COL0 = range(5)
"""Columns of the tile table."""
X_KEY, D_KEY, NOISE_KEY, REPLAY_KEY, DEVICE_KEY, RELAXATION_KEY, PROGRAM_KEY, UPDATE_KEYS = range(8)
"""Index into the keys of an update, uint32 (tiles, UPDATE_KEYS, 2), and how many there are."""

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
FIXED_BITS: Final = 40
"""Sums over tiles are int64 in units of 2^-40."""
FIXED_LIMIT: Final = 2.0**22
"""A tile's output or a sum over tiles of this size or more is an error: the next sum could leave int64."""


class Tiling(NamedTuple):
    """The tiles of a shard."""

    table: Any
    """The tile table, int64 (tiles, 5), on the device of the weights; the last tile is the lower right one."""
    tiles: int
    rows: int
    """Rows of the shard."""
    cols: int
    tile_rows: int
    """Rows of its largest tile."""
    tile_cols: int


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
        name = next(name for name in names if getattr(device, name))
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


class UpdateTotals(NamedTuple):
    """What an update counted, summed over tiles and samples."""

    slots: int
    coincidences: int
    expected: float
    """Sum of bit length * p * q over cells and samples."""
    cycles: int
    """Tile-samples."""


class Kernels(Protocol):
    """One set of kernels.  Weights, lanes, lines and results are arrays of one device; shapes as above.

    ``lanes`` holds the lanes of each cell one after the other, flat int16, or nothing: then kernels make the lanes
    of the cells that they change anew from the tile's DEVICE key.  ``hidden``, float32 like the weights that are
    written, is what pulses move on a device with write noise, and empty or None on others.

    All raise `NumericalError` where an input is not
    finite, or a sum leaves the fixed-point range.
    """

    name: str

    def large_read(self, tiling: Tiling, samples: int) -> bool:
        """Whether a read of so many vectors is more than one call of compiled code; shapes alone decide."""
        ...

    def large_update(self, tiling: Tiling, samples: int) -> bool:
        """Whether an update by so many samples is more than one call of compiled code."""
        ...

    def draw_lanes(self, out: Any, tiling: Tiling, keys: Any, lanes: int, first: int) -> None:
        """Fill flat int16 ``out`` with the lanes of the shard's cells from number ``first`` on."""
        ...

    def put_uniform(
        self,
        weights: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        device: Device,
        origin: tuple[int, int],
        key: Any,
        scale: float,
    ) -> bool:
        """Set weights to ``scale`` times `rng.init_uniform` of ``key``, clipped to what cells can hold; False, and
        nothing done, where these kernels have no way of their own for the device.

        ``origin`` is the first row and column of the shard in its layer.
        """
        ...  # fmt: skip

    def pulsed_update(
        self,
        weights: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        x: Any,
        d: Any,
        lr: float,
        first_sample: int,
        rule: UpdateRule,
        hidden: Any = None,
    ) -> UpdateTotals:
        """Fire the pulse trains of a batch: x float32 (B, cols), d float32 (B, rows); weights change in place."""
        ...  # fmt: skip

    def relax(
        self,
        weights: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        first_sample: int,
        rule: UpdateRule,
        hidden: Any = None,
    ) -> None:
        """What the time of an update operation, of which this is the first sample, does to all cells."""
        ...  # fmt: skip

    def exact_update(self, weights: Any, tiling: Tiling, x: Any, d: Any, lr: float) -> UpdateTotals:
        """``w -= (lr * d) x`` for one sample after the other, in float32."""
        ...

    def transfer(
        self,
        fast: Any,
        slow: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        column_keys: Any,
        gains: Any,
        state: "TransferState",
        sample: int,
        start: int,
        rule: "TransferRule",
        hidden: Any = None,
    ) -> int:
        """Columns of each tile, from ``start`` on and around, from the plane ``fast`` to ``slow``; returns the pulses.

        ``lanes`` and ``keys`` belong to the plane that is written, ``gains`` is float32 (tiles,), ``sample`` numbers
        the random numbers.
        """
        ...  # fmt: skip

    def flush(
        self,
        weights: Any,
        lanes: Any,
        tiling: Tiling,
        keys: Any,
        held: Any,
        sample: int,
        rule: "FlushRule",
        hidden: Any = None,
    ) -> int:
        """Whole pulses out of the digital matrix ``held``, float32 like the weights; returns how many."""
        ...

    def read(
        self,
        weights: Any,
        tiling: Tiling,
        keys: Any,
        averages: Any,
        lines: Any,
        first_sample: int,
        rule: ReadRule,
        backward: bool,
        learn: bool,
    ) -> ReadTotals:
        """Analog product: lines float32 (B, cols), or (B, rows) backward; keys uint32 (tiles, 2).

        ``averages`` float32 (tiles,) are the running averages of `Scaling.AVERAGE` in this direction, 0 where there
        is none yet; they go on with each sample if ``learn``.
        """
        ...  # fmt: skip

    def exact_read(self, weights: Any, tiling: Tiling, lines: Any, backward: bool) -> ReadTotals:
        """Product without converters, bounds or noise; the sums over tiles are still fixed point."""
        ...


def from_fixed(sums: Any) -> Any:
    """Fixed-point sums int64 as float32 of the same shape.  Raises `NumericalError` beyond 2^22."""
    values = sums * 2.0**-FIXED_BITS
    if not bool((abs(values) < FIXED_LIMIT).all()):
        raise NumericalError(overflow_message())
    return values.astype(np.float32)


def overflow_message() -> str:
    """What to say of a sum that fixed point cannot hold."""
    return (
        f"an output is not finite or has reached 2^{round(math.log2(FIXED_LIMIT))}; "
        "lower the learning rate or the weights, or set a finite output_bound"
    )


def input_message() -> str:
    """What to say of an input that is not a number."""
    return "an input or error signal is not finite; lower the learning rate"


def lines_of(backward: bool) -> tuple[int, int, int, int]:
    """Columns of the tile table of (input count, input start, output count, output start)."""
    return (ROWS, ROW0, COLS, COL0) if backward else (COLS, COL0, ROWS, ROW0)
