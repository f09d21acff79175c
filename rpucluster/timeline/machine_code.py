"""The compiled event loop of replays, kept on disk from one process to the next: `compiled_play`.

Numba keeps what it compiles too, but must be loaded to find it, which takes ten times as long as a replay: here it is
loaded where there is something to compile, and llvmlite alone loads what is there, in a few milliseconds.
"""

import ctypes
import hashlib
import logging
import os
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from rpucluster.errors import RunError
from rpucluster.files import write_atomically
from rpucluster.timeline.compiled import NAME, compiled, fingerprint, numba_play
from rpucluster.timeline.order import Order
from rpucluster.timeline.state import Demands, Machine, State

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_ARRAY = (_POINTER, _POINTER, _NUMBER, _NUMBER, _POINTER, _NUMBER, _NUMBER)


def compiled_play(order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """`events.play` for arrays; compiled at the first call on a machine, which a line on stderr tells."""
    arrays = list(chain(order, demands, machine, state))
    numbers: list[int | None] = []
    for array in arrays:
        if not array.flags.c_contiguous or array.ndim != 1:
            raise ValueError("columns are arrays of one dimension without gaps")
        numbers += (None, None, array.size, array.itemsize, array.ctypes.data, array.size, array.itemsize)
    loaded = _loaded(tuple(array.dtype.str for array in arrays))
    if loaded is None:
        _numba_play()(order, demands, machine, state)
        return
    result, error = _POINTER(), _POINTER()
    ended = loaded(ctypes.byref(result), ctypes.byref(error), *numbers)
    if ended > 0:
        raise RuntimeError("the compiled event loop ended with an error")


@cache
def _numba_play() -> Callable[..., None]:
    """The event loop as Numba calls and keeps it: slower to load, but with every version of it."""
    play: Callable[..., None] = numba_play(cache=True)
    return play


@cache
def _loaded(dtypes: tuple[str, ...]) -> Callable[..., int] | None:
    import llvmlite.binding as untyped_llvm

    llvm: Any = untyped_llvm
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3, jit=True)
    key = "\0".join([fingerprint(), machine.triple, cpu, features, *dtypes])
    code = kept(hashlib.sha256(key.encode()).hexdigest()[:16], lambda: compiled(dtypes, machine))
    if not code:
        return None
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(NAME)
    function = ctypes.CFUNCTYPE(ctypes.c_int32, _POINTER, _POINTER, *(_ARRAY * len(dtypes)))(address)
    return lambda *numbers: engine and function(*numbers)  # which keeps the machine code where it is


def kept(key: str, make: Callable[[], bytes]) -> bytes:
    """Machine code from disk, or made and left there.  A file that is not what was written counts for nothing."""
    folders = _folders()
    for folder in folders:
        try:
            content = (folder / f"event_loop.{key}.o").read_bytes()
        except OSError:
            continue
        if content[:32] == hashlib.sha256(content[32:]).digest():
            return content[32:]
    log = logging.getLogger(__name__)  # without handlers, which are the program's, warnings go to stderr
    log.warning("rpucluster: compiling the event loop for this machine, once, about 10 s")
    code = make()
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / f"event_loop.{key}.o", hashlib.sha256(code).digest() + code)
        except (OSError, RunError):
            continue
        return code
    log.warning(
        "rpucluster: it cannot be kept, so that every start compiles: %s cannot be written; set NUMBA_CACHE_DIR",
        " and ".join(map(str, folders)),
    )
    return code


def _folders() -> list[Path]:
    """Where machine code may be kept: where Numba is told to, or beside this file, or in the user's cache."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named:
        return [Path(named)]
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [Path(__file__).parent / "__pycache__", users / "rpucluster"]
