"""The GPU kernels: CUDA sources compiled by CuPy, behind the `Kernels` interface.

The sources use integer operations and + - * / sqrt only, and are compiled without fused multiply-add, so that an
update has the bits of the CPU's.  What launches them is passed in, so that tests can run the same sources and the
same code around them on the CPU.
"""

from collections.abc import Callable
from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any

import numpy as np

from rpucluster import elementary, layers, rng
from rpucluster.devices import LANE_BLOCK, LANE_UNIT, Law
from rpucluster.errors import NumericalError
from rpucluster.kernels import base, read_rule, transfer
from rpucluster.kernels.base import (
    FIXED_BITS,
    FIXED_LIMIT,
    Tiling,
    UpdateRule,
    UpdateTotals,
    input_message,
    overflow_message,
    pack_update,
)
from rpucluster.kernels.cuda_digital import CudaDigital
from rpucluster.kernels.read_rule import ReadRule, ReadTotals, Scaling, pack_read
from rpucluster.kernels.transfer import FlushRule, TransferRule, TransferState, pack_transfer

_READ_NUMBERS = (
    "SCALING", "WORST_CASE", "IN_STOCHASTIC", "OUT_STOCHASTIC", "IN_STEP", "OUT_STEP", "LIMIT", "OUT_NOISE",
    "OUT_POWER", "WEIGHT_POWER", "IN_NOISE", "SCALE", "DECAY", "RISE", "WORST", "WIRE", "BASELINE",
)  # fmt: skip
_ELEMENTARY = ("EXP", "EXP_MIN", "EXP_MAX", "INVERSE_LN2", "LN2_HIGH", "LN2_LOW", "ROUNDER")
_READ_ROUNDS = ("INPUT_ROUNDING", "INPUT_NOISE", "OUTPUT_ROUNDING")

OPTIONS = ("--std=c++14", "--fmad=false")
SOURCES = ("random.cu", "update.cu", "read.cu", "digital.cu", "laws.cu", "transfer.cu")
_RULE = (
    "IS_GENERAL", "LAW_NUMBER", "LANE_NUMBER", "ADDITIVE", "HALF_SELECT", "WRITE_NOISE", "LIFETIME", "LIFETIME_DTOD",
    "REST", "REST_DTOD", "DIFFUSION", "DIFFUSION_DTOD",
)  # fmt: skip
_INDICES = (
    "COLUMN_READ_KEY", "CHOPPER_KEY", "COLUMNS", "BUFFERED", "FORGET", "CHOP_EVERY", "CHOP_RANDOM", "DYNAMIC_REFERENCE",
    "THRESHOLD", "MOMENTUM", "MEMORY", "READ_NOISE", "OUTPUT_STEP", "OUTPUT_LIMIT", "PULSE_UNIT",
)  # fmt: skip
_THREADS = 128
_MOST_BLOCKS = 65_535  # in the second direction of a grid

Launcher = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]
"""Called with grid, block and arguments, as CuPy's kernels are."""


def source() -> str:
    """The CUDA program: constants of `rpucluster.rng`, then the sources."""
    constants = {
        "LN2_HIGH": rng.LN2_HIGH,
        "LN2_LOW": rng.LN2_LOW,
        "EIGHTH_TURN": rng.EIGHTH_TURN,
        "LANE_UNIT": LANE_UNIT,
    }
    for name, values in (("LOG", rng.LOG), ("SIN", rng.SIN), ("COS", rng.COS)):
        constants |= {f"{name}{power}": value for power, value in enumerate(values)}
    # nine digits name a float32 exactly
    lines = [f"#define {name} ({np.float32(value):.9g}f)" for name, value in constants.items()]
    lines += _named(
        "ELEMENTARY",
        elementary,
        ("EXP", "EXP_MIN", "EXP_MAX", "INVERSE_LN2", "LN2_HIGH", "LN2_LOW", "ROUNDER", "ATANH", "SPLITTER", "SMALLEST"),
    )
    lines += _named("LAYERS", layers, ("TANH", "TANH_LIMIT", "SIGMOID_LOWEST"))
    lines += [f"#define LAYERS_{name} {getattr(layers, name)}" for name in ("SIGMOID", "TANH_CODE", "RELU")]
    lines += [f"#define READ_{name} {getattr(read_rule, name)}" for name in _READ_NUMBERS]
    lines += [f"#define {name} {getattr(read_rule, name)}" for name in _READ_ROUNDS]
    lines += [f"#define SCALING_{kind.name} {kind.value}" for kind in Scaling]
    lines += [f"#define SUM_SCALE {2.0**read_rule.SUM_BITS}f", f"#define SUM_LIMIT {read_rule.SUM_LIMIT}f"]
    lines += [f"#define {name} {getattr(transfer, name)}" for name in _INDICES]
    lines += [f"#define {name} {getattr(base, name)}" for name in _RULE]
    lines += [f"#define LAW_{law.name} {law.value}" for law in Law]
    folder = resources.files(__package__)
    return "\n".join([*lines, *((folder / name).read_text(encoding="utf-8") for name in SOURCES)])


def _named(prefix: str, module: Any, names: tuple[str, ...]) -> list[str]:
    """Numbers of a module as float32 constants, those of a tuple with their index."""
    found: dict[str, float] = {}
    for name in names:
        value = getattr(module, name)
        found |= {f"{name}{i}": v for i, v in enumerate(value)} if isinstance(value, tuple) else {name: value}
    return [f"#define {prefix}_{name} ({np.float32(value):.8e}f)" for name, value in found.items()]


def cuda_kernels(cupy: ModuleType) -> "CudaKernels":
    """The kernels, compiled for the current GPU at their first launch (CuPy keeps them on disk)."""
    module = cupy.RawModule(code=source(), options=OPTIONS)
    return CudaKernels(cupy, cache(module.get_function))


def cuda_digital(cupy: ModuleType) -> CudaDigital:
    """The digital units, likewise."""
    return CudaDigital(cupy, cache(cupy.RawModule(code=source(), options=OPTIONS).get_function))


class CudaKernels:
    """Kernels for arrays of ``xp``; ``function`` gives the launcher of a kernel by name."""

    name = "cuda"

    def __init__(self, xp: Any, function: Callable[[str], Launcher]) -> None:
        self._xp = xp
        self._function = function
        self._floats = cache(lambda rule: xp.asarray(pack_update(rule)[1]))
        self._read_numbers = cache(lambda rule: tuple(xp.asarray(numbers) for numbers in pack_read(rule)))
        self._transfer = cache(lambda rule: [xp.asarray(array) for array in pack_transfer(rule)])

    def large_read(self, tiling: Tiling, samples: int) -> bool:
        """Every read is a call of its own."""
        return True

    def large_update(self, tiling: Tiling, samples: int) -> bool:
        """Every update is a call of its own."""
        return True

    def draw_lanes(self, out: Any, tiling: Tiling, keys: Any, lanes: int, first: int) -> None:
        """Lanes of the shard's cells from number ``first`` on."""
        count = len(out) // lanes
        self._launch("update_lanes", (_parts(len(out) // LANE_BLOCK, _THREADS),), (_THREADS,), (
            tiling.table, keys, np.int32(tiling.tiles), np.int32(lanes // LANE_BLOCK), np.int64(first),
            np.int64(count), out,
        ))  # fmt: skip

    def pulsed_update(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, x: Any, d: Any,
        lr: float, first_sample: int, rule: UpdateRule, hidden: Any = None,
    ) -> UpdateTotals:  # fmt: skip
        """Fire the pulse trains of a batch."""
        xp, samples, table = self._xp, np.int32(len(x)), tiling.table
        each = tiling.tiles * len(x)
        slots, status = xp.zeros(each, "i4"), xp.zeros(1, "i4")
        gains, totals = xp.zeros((2, each), "f4"), xp.zeros((2, each), "u8")
        coincidences = xp.zeros(1, "u8")
        self._launch("update_gains", (each,), (32,), (
            table, x, d, samples, np.int32(tiling.cols), np.int32(tiling.rows), np.float32(lr),
            np.float32(rule.device.granularity), np.int32(rule.bit_length), np.int32(rule.update_management),
            np.int32(rule.dynamic_bit_length), slots, gains[0], gains[1], status,
        ))  # fmt: skip
        words = []
        sides = ((x, tiling.cols, tiling.tile_cols), (d, tiling.rows, tiling.tile_rows))
        for is_d, (values, lines, padded) in enumerate(sides):
            words.append(xp.empty((each, padded), "u4"))
            self._launch("update_trains", (each, _parts(padded, _THREADS)), (_THREADS,), (
                table, keys, values, samples, np.int32(lines), np.int32(is_d), np.int32(padded), slots, gains[is_d],
                np.int64(first_sample), words[is_d], totals[is_d], status, np.int32(rule.deterministic),
            ))  # fmt: skip
        name = "update_per_batch" if rule.noise_per_batch else "update_per_sample"
        planes: tuple[Any, ...] = (weights,)
        if not rule.device.plain:
            name, planes = "laws_per_sample", (weights, _hidden(hidden, weights))
        # a warp for each row
        self._launch(name, (tiling.tiles, _parts(32 * tiling.tile_rows, _THREADS)), (32, 4), (
            *planes, lanes, np.int32(len(lanes) > 0), table, keys, self._floats(rule), *words, samples,
            np.int32(tiling.tile_rows), np.int32(tiling.tile_cols), np.int64(first_sample), np.int32(rule.raise_only),
            coincidences, status,
        ))  # fmt: skip
        if int(status[0]):
            raise NumericalError(input_message())
        expected = slots * (totals[0] * 2.0**-32) * (totals[1] * 2.0**-32)
        return UpdateTotals(int(slots.sum()), int(coincidences[0]), float(expected.sum()), each)

    def relax(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, first_sample: int, rule: UpdateRule,
        hidden: Any = None,
    ) -> None:  # fmt: skip
        """Let the time of an update pass."""
        grid = (tiling.tiles, _parts(tiling.tile_rows * tiling.tile_cols, _THREADS))
        self._launch("laws_relax", grid, (_THREADS,), (
            weights, _hidden(hidden, weights), lanes, np.int32(len(lanes) > 0), tiling.table, keys, self._floats(rule),
            np.int64(first_sample),
        ))  # fmt: skip

    def exact_update(self, weights: Any, tiling: Tiling, x: Any, d: Any, lr: float) -> UpdateTotals:
        """``w -= (lr * d) x``, one sample after the other."""
        if not bool(self._xp.isfinite(x).all() & self._xp.isfinite(d).all()):
            raise NumericalError(input_message())
        grid = (tiling.tiles, _parts(tiling.tile_rows * tiling.tile_cols, _THREADS))
        self._launch("update_exact", grid, (_THREADS,), (
            weights, tiling.table, x, d, np.int32(len(x)), np.int32(tiling.cols), np.int32(tiling.rows),
            np.float32(lr),
        ))  # fmt: skip
        return UpdateTotals(0, 0, 0.0, tiling.tiles * len(x))

    def transfer(
        self, fast: Any, slow: Any, lanes: Any, tiling: Tiling, keys: Any, column_keys: Any, gains: Any,
        state: TransferState, sample: int, start: int, rule: TransferRule, hidden: Any = None,
    ) -> int:  # fmt: skip
        """Transfer columns of every tile."""
        xp, table = self._xp, tiling.table
        packed = self._transfer(rule)
        counts, pulses = xp.empty((tiling.tiles, tiling.tile_rows, rule.columns), "i4"), xp.zeros(1, "u8")
        self._launch("transfer_columns", (tiling.tiles, _parts(tiling.tile_rows, _THREADS)), (_THREADS,), (
            fast, slow, _hidden(hidden, slow), lanes, np.int32(len(lanes) > 0), table, keys, column_keys,
            self._floats(rule.update), *packed, np.int32(rule.update.bit_length), gains, *state, np.int64(sample),
            np.int64(start), np.int32(tiling.tile_rows), counts, pulses,
        ))  # fmt: skip
        if rule.chop_every or rule.dynamic_reference:
            self._launch("transfer_switch", (tiling.tiles,), (32,), (
                table, column_keys, *packed, np.int64(sample), np.int64(start), state.choppers, state.ages,
            ))  # fmt: skip
        return int(pulses[0])

    def flush(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, held: Any, sample: int, rule: FlushRule,
        hidden: Any = None,
    ) -> int:  # fmt: skip
        """Fire the whole pulses of a digital matrix."""
        pulses = self._xp.zeros(1, "u8")
        self._launch("flush_rows", (tiling.tiles, _parts(32 * tiling.tile_rows, _THREADS)), (32, 4), (
            weights, _hidden(hidden, weights), lanes, np.int32(len(lanes) > 0), tiling.table, keys,
            self._floats(rule.update), held, np.float32(rule.threshold), np.int32(rule.update.bit_length),
            np.int64(sample), pulses,
        ))  # fmt: skip
        return int(pulses[0])

    def read(
        self, weights: Any, tiling: Tiling, keys: Any, averages: Any, lines: Any, first_sample: int, rule: ReadRule,
        backward: bool, learn: bool,
    ) -> ReadTotals:  # fmt: skip
        """Analog products, summed over tiles in fixed point."""
        xp, table, samples, back = self._xp, tiling.table, np.int32(len(lines)), np.int32(backward)
        each, first = tiling.tiles * len(lines), np.int64(first_sample)
        (width, padded_in), (out, padded_out) = _lines(tiling, backward)
        numbers = self._read_numbers(rule)
        scale, noise = xp.empty((2, each), "f4")
        v, y = xp.empty((each, padded_in), "f4"), xp.empty((each, padded_out), "f4")
        pending, saturated, status = xp.empty(each, "i4"), xp.empty(each, "i4"), xp.zeros(1, "i4")
        repeats, sums = xp.zeros(1, "u8"), xp.zeros((len(lines), out), "i8")
        self._launch("read_scales", (each,), (32,), (
            table, lines, samples, np.int32(width), back, *numbers, scale, pending, saturated, status,
        ))  # fmt: skip
        if rule.scaling is Scaling.AVERAGE:
            self._launch("read_averages", (_parts(tiling.tiles, 32),), (32,), (
                np.int32(tiling.tiles), samples, np.int32(learn), numbers[1], averages, scale, pending, status,
            ))  # fmt: skip
        for repeat in range(rule.rounds + 1):
            self._launch("read_convert", (each,), (32,), (
                table, keys, lines, samples, np.int32(width), np.int32(padded_in), back, *numbers, first,
                np.int32(repeat), scale, pending, saturated, repeats, v, noise, status,
            ))  # fmt: skip
            self._launch("read_product", (each, _parts(padded_out, 128 if backward else 4)), (32, 4), (
                weights, table, keys, v, noise, samples, np.int32(padded_in), np.int32(padded_out), back, *numbers,
                first, np.int32(repeat), pending, saturated, y, status,
            ))  # fmt: skip
            self._launch("read_add", (each, _parts(padded_out, _THREADS)), (_THREADS,), (
                table, samples, np.int32(out), np.int32(padded_out), back, np.int32(repeat == rule.rounds), y, scale,
                pending, saturated, sums, status,
            ))  # fmt: skip
        self._check(status, sums)
        return ReadTotals(sums, each, int(repeats[0]))

    def exact_read(self, weights: Any, tiling: Tiling, lines: Any, backward: bool) -> ReadTotals:
        """Products without converters or noise, summed over tiles in fixed point."""
        each = tiling.tiles * len(lines)
        (width, _), (out, padded_out) = _lines(tiling, backward)
        sums, status = self._xp.zeros((len(lines), out), "i8"), self._xp.zeros(1, "i4")
        if not bool(self._xp.isfinite(lines).all()):
            raise NumericalError(input_message())
        self._launch("read_exact", (each, _parts(padded_out, 128 if backward else 4)), (32, 4), (
            weights, tiling.table, lines, np.int32(len(lines)), np.int32(width), np.int32(out), np.int32(backward),
            sums, status,
        ))  # fmt: skip
        self._check(status, sums)
        return ReadTotals(sums, each, 0)

    def _launch(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        self._function(name)(grid, block, arguments)

    def _check(self, status: Any, sums: Any) -> None:
        end = int(status[0])
        if end == 2:
            raise NumericalError(input_message())
        if end or bool((abs(sums) >= int(FIXED_LIMIT) << FIXED_BITS).any()):
            raise NumericalError(overflow_message())


def _hidden(hidden: Any, weights: Any) -> Any:
    """What pulses move; any pointer where that is the weights."""
    return weights if hidden is None or len(hidden) == 0 else hidden


def _parts(count: int, size: int) -> int:
    """Blocks of so many threads for a number of lines or cells; the kernels of cells take several each."""
    return min(-(-count // size), _MOST_BLOCKS)


def _lines(tiling: Tiling, backward: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """(lines of the shard, of its largest tile) of the inputs and of the outputs."""
    rows, cols = (tiling.rows, tiling.tile_rows), (tiling.cols, tiling.tile_cols)
    return (rows, cols) if backward else (cols, rows)
