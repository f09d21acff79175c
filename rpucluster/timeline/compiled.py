"""The event loop as machine code: the functions that `rpucluster.timeline.events` plays with, unchanged."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

import numpy as np

from rpucluster.timeline import events, order, signals, state, transfers

_IN_ORDER: Final = (
    signals.push,
    signals.pop,
    signals.notify,
    events.compute,
    events.issue,
    transfers.held_up,
    transfers.line_up,
    transfers.wait_for_link,
    transfers.begin_transfer,
    transfers.serve_link,
    transfers.transfer,
    transfers.advance,
    transfers.share,
    transfers.end_flows,
    events.work,
    events.serve_digital,
    events.play,
)
"""Each after those that it calls."""
_MODULES: Final[tuple[ModuleType, ...]] = (state, signals, transfers, events)
ARGUMENTS: Final = (order.Order, state.Demands, state.Machine, state.State)
"""What `events.play` takes: named tuples of arrays."""
NAME: Final = "rpucluster_play"
"""Of the function in the machine code."""
_ARRAY: Final = ", ptr, ptr, i64, i64, ptr, i64, i64"
"""How an array of one dimension is passed: two objects, which may be null, elements, their bytes, and where they lie;
elements and bytes again."""


def fingerprint() -> str:
    """What the machine code is made from: the functions and the versions of what compiles them."""
    here = Path(__file__)
    files = [here, *(here.with_name(f"{module.__name__.rpartition('.')[2]}.py") for module in (*_MODULES, order))]
    texts = [path.read_text(encoding="utf-8") for path in files] + [version("numba"), version("llvmlite")]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def compiled(dtypes: tuple[str, ...], machine: Any) -> bytes:
    """The event loop for arrays of these types, in the order of the columns of `ARGUMENTS`, as an object file; empty
    where this version of Numba passes arrays in another way than is known here.

    `machine` is llvmlite's target machine.  Takes some ten seconds.
    """
    import llvmlite.binding as untyped_llvm
    import numba as untyped_numba  # slow to load, and of no use once there is machine code

    llvm: Any = untyped_llvm
    numba: Any = untyped_numba
    # what Python would call takes more than half of the time to compile
    play = numba_play(no_cpython_wrapper=True, no_cfunc_wrapper=True)
    left = iter(dtypes)
    signature = tuple(
        numba.types.NamedTuple([numba.typeof(np.empty(0, next(left))) for _ in columns._fields], columns)
        for columns in ARGUMENTS
    )
    play.compile(signature)
    module = llvm.parse_assembly(play.inspect_llvm(signature))
    found = known(module, len(dtypes))
    if found is None:
        return b""
    found.name = NAME
    return bytes(machine.emit_object(module))


def numba_play(**options: bool) -> Any:
    """The event loop as a function of Numba."""
    import numba as untyped_numba

    numba: Any = untyped_numba
    # Nothing is allocated, and the caller keeps the arrays.  Counting references to them, some sixty at each call and
    # at each return, took three quarters of a replay.
    compile_it = numba.njit(error_model="numpy", nogil=True, _nrt=False, **options)
    # copies, so that the compiled functions call one another and the interpreted ones do too
    space: dict[str, Any] = {}
    for module in _MODULES:
        space |= vars(module)
    for function in _IN_ORDER:
        space[function.__name__] = compile_it(FunctionType(function.__code__, space, function.__name__))
    return space["play"]


def known(module: Any, arrays: int) -> Any:
    """The one function of a module that others may call, of llvmlite, if it takes so many arrays as it is called here
    and needs nothing from outside; else None."""
    found = [f for f in module.functions if not f.is_declaration and f.linkage.name == "external"]
    outside = [f for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    if len(found) != 1 or outside or str(found[0].global_value_type) != f"i32 (ptr, ptr{_ARRAY * arrays})":
        return None
    return found[0]
