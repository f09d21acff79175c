"""The GPU kernels: CUDA sources compiled by CuPy, behind the `Kernels` interface.

The sources use integer operations and + - * / sqrt only, and are compiled without fused multiply-add, so that an
update has the bits of the CPU's.  What launches them is passed in, so that tests can run the same sources and the
same code around them on the CPU.
"""

from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any

import numpy as np

from rpucluster import elementary, layers, rng
from rpucluster.arrays import to_host
from rpucluster.devices import LANE_BLOCK, LANE_UNIT, Law
from rpucluster.kernels import cuda_launch, cuda_read, cuda_update, read_rule, transfer, update_rule
from rpucluster.kernels.base import FIXED_BITS, FIXED_LIMIT, Tiling, UpdateTotals
from rpucluster.kernels.cuda_digital import CudaDigital
from rpucluster.kernels.cuda_launch import (
    COINCIDENCES,
    EXPECTED,
    REPEATS,
    SLOTS,
    THREADS,
    Functions,
    Launch,
    Place,
    alone,
    check,
    parts,
    perform,
)
from rpucluster.kernels.cuda_step import CudaStep, graphs
from rpucluster.kernels.read_rule import ReadRule, ReadTotals, Scaling, pack_read
from rpucluster.kernels.transfer import FlushRule, TransferRule, TransferState, pack_transfer
from rpucluster.kernels.update_rule import UpdateRule, pack_update

_READ_NUMBERS = (
    "SCALING", "WORST_CASE", "IN_STOCHASTIC", "OUT_STOCHASTIC", "IN_STEP", "OUT_STEP", "LIMIT", "OUT_NOISE",
    "OUT_POWER", "WEIGHT_POWER", "IN_NOISE", "SCALE", "DECAY", "RISE", "WORST", "WIRE", "BASELINE",
)  # fmt: skip
_ELEMENTARY = ("EXP", "EXP_MIN", "EXP_MAX", "INVERSE_LN2", "LN2_HIGH", "LN2_LOW", "ROUNDER")
_READ_ROUNDS = ("INPUT_ROUNDING", "INPUT_NOISE", "OUTPUT_ROUNDING")

OPTIONS = ("--std=c++14", "--fmad=false")
SOURCES = ("random.cu", "update.cu", "read.cu", "step.cu", "digital.cu", "laws.cu", "transfer.cu")
_CLOCK = (
    "CLOCK_SAMPLE", "CLOCK_PLACE", "CLOCK_X", "CLOCK_Y", "CLOCK_INDICES", "CLOCK_BATCH", "CLOCK_FEATURES",
)  # fmt: skip
_RULE = (
    "IS_GENERAL", "LAW_NUMBER", "LANE_NUMBER", "ADDITIVE", "HALF_SELECT", "WRITE_NOISE", "LIFETIME", "LIFETIME_DTOD",
    "REST", "REST_DTOD", "DIFFUSION", "DIFFUSION_DTOD",
)  # fmt: skip
_INDICES = (
    "COLUMN_READ_KEY", "CHOPPER_KEY", "COLUMNS", "BUFFERED", "FORGET", "CHOP_EVERY", "CHOP_RANDOM", "DYNAMIC_REFERENCE",
    "THRESHOLD", "MOMENTUM", "MEMORY", "READ_NOISE", "OUTPUT_STEP", "OUTPUT_LIMIT", "PULSE_UNIT",
)  # fmt: skip


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
    lines += [f"#define {name} {getattr(cuda_launch, name)}" for name in _CLOCK]
    lines += [f"#define {name} {getattr(cuda_read, name)}" for name in ("PRODUCT_LINES", "PRODUCT_SLICE")]
    lines += [f"#define FIXED_LIMIT {FIXED_LIMIT}f", f"#define FIXED_MOST {int(FIXED_LIMIT) << FIXED_BITS}ll"]
    lines += [f"#define FIXED_SCALE {2.0**FIXED_BITS}", f"#define FIXED_UNIT {2.0**-FIXED_BITS!r}"]
    lines += [f"#define {name} {getattr(update_rule, name)}" for name in _RULE]
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


@cache
def functions_of(cupy: ModuleType) -> Functions:
    """The kernels by name, compiled for the current GPU at the first use (CuPy keeps them on disk)."""
    return cache(cupy.RawModule(code=source(), options=OPTIONS).get_function)


def cuda_kernels(cupy: ModuleType) -> "CudaKernels":
    """The kernels behind the interface."""
    return CudaKernels(cupy, functions_of(cupy))


def cuda_digital(cupy: ModuleType) -> CudaDigital:
    """The digital units."""
    return CudaDigital(cupy, functions_of(cupy))


def cuda_step(cupy: ModuleType) -> CudaStep:
    """What performs tapes, with graphs."""
    return CudaStep(cupy, functions_of(cupy), graphs(cupy))


class CudaKernels:
    """Kernels for arrays of ``xp``; ``function`` gives the launcher of a kernel by name."""

    name = "cuda"

    def __init__(self, xp: Any, function: Functions) -> None:
        self._xp = xp
        self._function = function
        self._floats = cache(lambda rule: xp.asarray(pack_update(rule)[1]))
        self._numbers = cache(lambda rule: cuda_read.numbers_of(xp, pack_read(rule)))
        self._transfer = cache(lambda rule: [xp.asarray(array) for array in pack_transfer(rule)])

    def large_read(self, tiling: Tiling, samples: int) -> bool:
        """Every read belongs to the list of launches of its step."""
        return False

    def large_update(self, tiling: Tiling, samples: int) -> bool:
        """Every update of a plain device belongs to that list."""
        return False

    def draw_lanes(self, out: Any, tiling: Tiling, keys: Any, lanes: int, first: int) -> None:
        """Lanes of the shard's cells from number ``first`` on."""
        count = len(out) // lanes
        self._launch("update_lanes", (parts(len(out) // LANE_BLOCK, THREADS),), (THREADS,), (
            tiling.table, keys, np.int32(tiling.tiles), np.int32(lanes // LANE_BLOCK), np.int64(first),
            np.int64(count), out,
        ))  # fmt: skip

    def put_uniform(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, device: Any, origin: tuple[int, int], key: Any,
        scale: float,
    ) -> bool:  # fmt: skip
        """Left to array operations."""
        return False

    def pulsed_update(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, x: Any, d: Any,
        lr: float, first_sample: int, rule: UpdateRule, hidden: Any = None,
    ) -> UpdateTotals:  # fmt: skip
        """Fire the pulse trains of a batch."""
        place = alone(self._xp, first_sample, lr)
        packed = pack_update(rule)
        self._perform(
            cuda_update.pulsed_update(
                self._xp.empty, place, weights, _hidden(hidden, weights), lanes, tiling, keys, x, d, *packed,
                self._floats(rule),
            ),
            place,
        )  # fmt: skip
        counts, expected = to_host(place.shared.counts), float(place.shared.sums[EXPECTED])
        return UpdateTotals(int(counts[SLOTS]), int(counts[COINCIDENCES]), expected, tiling.tiles * len(x))

    def relax(
        self, weights: Any, lanes: Any, tiling: Tiling, keys: Any, first_sample: int, rule: UpdateRule,
        hidden: Any = None,
    ) -> None:  # fmt: skip
        """Let the time of an update pass."""
        place = alone(self._xp, first_sample)
        launch = cuda_update.relax(place, weights, _hidden(hidden, weights), lanes, tiling, keys, self._floats(rule))
        perform(self._function, [launch])

    def exact_update(self, weights: Any, tiling: Tiling, x: Any, d: Any, lr: float) -> UpdateTotals:
        """``w -= (lr * d) x``, one sample after the other."""
        place = alone(self._xp, 0, lr)
        self._perform(cuda_update.exact_update(self._xp.empty, place, weights, tiling, x, d), place)
        return UpdateTotals(0, 0, 0.0, tiling.tiles * len(x))

    def transfer(
        self, fast: Any, slow: Any, lanes: Any, tiling: Tiling, keys: Any, column_keys: Any, gains: Any,
        state: TransferState, sample: int, start: int, rule: TransferRule, hidden: Any = None,
    ) -> int:  # fmt: skip
        """Transfer columns of every tile."""
        xp, table = self._xp, tiling.table
        packed = self._transfer(rule)
        counts, pulses = xp.empty((tiling.tiles, tiling.tile_rows, rule.columns), "i4"), xp.zeros(1, "u8")
        self._launch("transfer_columns", (tiling.tiles, parts(tiling.tile_rows, THREADS)), (THREADS,), (
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
        self._launch("flush_rows", (tiling.tiles, parts(32 * tiling.tile_rows, THREADS)), (32, 4), (
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
        place, sums = alone(self._xp, first_sample), self._sums(tiling, lines, backward)
        self._perform(
            cuda_read.read(
                self._xp.empty, place, weights, tiling, keys, averages, lines, sums, self._numbers(rule),
                exact=False, backward=backward, learn=learn,
            ),
            place,
        )  # fmt: skip
        return ReadTotals(sums, tiling.tiles * len(lines), int(place.shared.counts[REPEATS]))

    def exact_read(self, weights: Any, tiling: Tiling, lines: Any, backward: bool) -> ReadTotals:
        """Products without converters or noise, summed over tiles in fixed point."""
        place, sums = alone(self._xp, 0), self._sums(tiling, lines, backward)
        self._perform(
            cuda_read.read(
                self._xp.empty, place, weights, tiling, place.shared.whole, place.shared.whole, lines, sums,
                self._numbers(ReadRule()), exact=True, backward=backward, learn=False,
            ),
            place,
        )  # fmt: skip
        return ReadTotals(sums, tiling.tiles * len(lines), 0)

    def _sums(self, tiling: Tiling, lines: Any, backward: bool) -> Any:
        return self._xp.empty((len(lines), tiling.cols if backward else tiling.rows), "i8")

    def _launch(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        self._function(name)(grid, block, arguments)

    def _perform(self, launches: list[Launch], place: Place) -> None:
        perform(self._function, launches)
        check(place.shared.status)


def _hidden(hidden: Any, weights: Any) -> Any:
    """What pulses move; any pointer where that is the weights."""
    return weights if hidden is None or len(hidden) == 0 else hidden
