"""Kernels of the pulsed update and the analog read: a NumPy specification, a CPU and a GPU implementation."""

from collections.abc import Callable, Iterable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rpucluster.devices import ConstantStep, Device, PulsedDevice
from rpucluster.kernels.base import COL0 as COL0
from rpucluster.kernels.base import COLS as COLS
from rpucluster.kernels.base import FIXED_BITS as FIXED_BITS
from rpucluster.kernels.base import FIXED_LIMIT as FIXED_LIMIT
from rpucluster.kernels.base import OFFSET as OFFSET
from rpucluster.kernels.base import ROW0 as ROW0
from rpucluster.kernels.base import ROWS as ROWS
from rpucluster.kernels.base import UPDATE_KEYS as UPDATE_KEYS
from rpucluster.kernels.base import Kernels as Kernels
from rpucluster.kernels.base import Tiling as Tiling
from rpucluster.kernels.base import UpdateTotals as UpdateTotals
from rpucluster.kernels.base import from_fixed as plain_from_fixed
from rpucluster.kernels.program import program as program
from rpucluster.kernels.read_rule import READ_FLOATS as READ_FLOATS
from rpucluster.kernels.read_rule import READ_INTS as READ_INTS
from rpucluster.kernels.read_rule import ReadRule as ReadRule
from rpucluster.kernels.read_rule import ReadTotals as ReadTotals
from rpucluster.kernels.read_rule import Scaling as Scaling
from rpucluster.kernels.read_rule import pack_read as pack_read
from rpucluster.kernels.step import Prepare
from rpucluster.kernels.transfer import FlushRule as FlushRule
from rpucluster.kernels.transfer import TransferRule as TransferRule
from rpucluster.kernels.transfer import TransferState as TransferState
from rpucluster.kernels.update_rule import MAX_BIT_LENGTH as MAX_BIT_LENGTH
from rpucluster.kernels.update_rule import UPDATE_FLOATS as UPDATE_FLOATS
from rpucluster.kernels.update_rule import UPDATE_INTS as UPDATE_INTS
from rpucluster.kernels.update_rule import UpdateRule as UpdateRule
from rpucluster.kernels.update_rule import pack_update as pack_update
from rpucluster.kernels.update_rule import require_batch_noise as require_batch_noise

if TYPE_CHECKING:
    from rpucluster.kernels.digital import Digital

KernelChoice = Literal["auto", "reference", "numba", "cuda"]


def for_module(xp: ModuleType, name: KernelChoice = "auto", threads: int = 1) -> Kernels:
    """The kernels for arrays of a module; "auto" is "numba" for NumPy and "cuda" for CuPy.

    ``threads`` share what is large, which changes no result; only "numba" has them.

    Raises ValueError for an unknown name or kernels that do not work on such arrays.
    """
    fitting = ("reference", "numba") if xp is np else ("cuda",)
    chosen = fitting[-1] if name == "auto" else name
    if chosen not in fitting:
        raise ValueError(f'kernels = "{name}" does not work on {xp.__name__} arrays; write {" or ".join(fitting)}')
    # imported where they are chosen: Numba takes a second, CuPy may not be there
    if chosen == "reference":
        from rpucluster.kernels.reference import ReferenceKernels

        return ReferenceKernels()
    if chosen == "numba":
        from rpucluster.kernels.cpu import NumbaKernels

        return NumbaKernels(threads)
    from rpucluster.kernels.cuda import cuda_kernels

    return cuda_kernels(xp)


def from_fixed(sums: Any) -> Any:
    """Fixed-point sums int64 as float32 of the same shape.  Raises `NumericalError` beyond 2^22."""
    if not isinstance(sums, np.ndarray):
        return plain_from_fixed(sums)
    return _host_from_fixed()(sums)


@cache
def _host_from_fixed() -> Callable[[Any], Any]:
    from rpucluster.kernels import cpu

    return cpu.from_fixed


def digital_units(xp: ModuleType) -> "Digital":
    """What computes activations, losses and their derivatives on windows of arrays of a module."""
    if xp is np:
        from rpucluster.kernels.digital import HostDigital

        return HostDigital()
    from rpucluster.kernels.cuda import cuda_digital

    return cuda_digital(xp)


def step_performer(xp: ModuleType) -> Prepare:
    """What performs tapes on arrays of a module: compiled code, or recorded launches."""
    if xp is np:
        from rpucluster.kernels import cpu_step

        return cpu_step.prepare
    from rpucluster.kernels.cuda import cuda_step

    return cuda_step(xp).prepare


def problem_message(end: int) -> str:
    """What to say of how a compiled read, update or conversion ended."""
    from rpucluster.kernels import cpu

    return cpu.PROBLEMS[end]


def warm_up(devices: Iterable[Device] = (), noise_per_batch: bool = False, xp: ModuleType = np) -> None:
    """Load or compile every kernel that jobs with such devices need, so that worker processes find them ready."""
    kernels = for_module(xp)
    one = xp.ones(1, "f4")
    tiling = Tiling(table=xp.asarray([[0, 1, 1, 0, 0]], "i8"), tiles=1, rows=1, cols=1, tile_rows=1, tile_cols=1)
    keys: Any = xp.zeros((1, UPDATE_KEYS, 2), "u4")
    line = xp.ones((1, 1), "f4")
    read = ReadRule(1, 1, 1.0, 1.0, Scaling.ABS_MAX)
    averages = xp.zeros(1, "f4")
    lanes = xp.empty(4, "i2")
    kernels.draw_lanes(lanes, tiling, keys, 4, 0)
    rule = UpdateRule(1, False, True, True, ConstantStep())
    kernels.pulsed_update(one.copy(), lanes, tiling, keys, line, line, 1.0, 0, rule)
    kernels.exact_update(one.copy(), tiling, line, line, 1.0)
    for backward in (False, True):
        kernels.read(one, tiling, keys[:, 0], averages, line, 0, read, backward, True)
        sums = kernels.exact_read(one, tiling, line, backward).sums
    from_fixed(sums)
    if xp is np:
        from rpucluster.kernels import cpu_step, cpu_update

        for device in {device for device in devices if isinstance(device, PulsedDevice)}:
            cpu_update.load(*pack_update(rule._replace(device=device, noise_per_batch=noise_per_batch)))
        cpu_step.warm_up()
