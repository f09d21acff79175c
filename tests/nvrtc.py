"""NVIDIA's run-time compiler from pip, which needs neither a GPU nor a driver."""

import ctypes
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Compiled:
    """What a compilation gave; ``ptx`` is empty where it failed."""

    ok: bool
    ptx: str
    log: str


def compile_cuda(code: str, options: tuple[str, ...]) -> Compiled:
    """Compile a CUDA program to PTX as CuPy's RawModule would."""
    library, program = _library(), ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None) == 0
    try:
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        result = library.nvrtcCompileProgram(program, len(options), arguments)
        log = _text(program, library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog)
        ptx = _text(program, library.nvrtcGetPTXSize, library.nvrtcGetPTX) if result == 0 else ""
        return Compiled(ok=result == 0, ptx=ptx, log=log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


@cache
def _library() -> ctypes.CDLL:
    files = metadata.files("nvidia-cuda-nvrtc") or []
    found = [file for file in files if file.name.startswith("libnvrtc.so")]
    return ctypes.CDLL(str(Path(str(found[0].locate()))))


def _text(program: ctypes.c_void_p, size_of: Any, text_of: Any) -> str:
    size = ctypes.c_size_t()
    assert size_of(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert text_of(program, buffer) == 0
    return buffer.value.decode()
