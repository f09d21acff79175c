"""The CUDA sources compiled by g++ and launched on NumPy arrays, so that they can be tested without a GPU."""

import ctypes
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rpucluster.kernels.cuda import source
from rpucluster.kernels.cuda_launch import Functions, Launcher

KERNEL = r'extern "C" __global__ void (?:__launch_bounds__\(\w+\) )?(\w+)\('
"""A kernel in the source, with its name."""
HAVE_COMPILER = shutil.which("g++") is not None


def cuda_functions_on_cpu(folder: Path) -> Functions:
    """The kernels by name, as C++ built in ``folder``."""
    code = source()
    names = re.findall(KERNEL, code)
    launchers = "\n".join(
        f'extern "C" void launch_{name}(unsigned* grid, unsigned* block, void** arguments) '
        f"{{ launch({name}, grid, block, arguments); }}"
        for name in names
    )
    shim = (Path(__file__).parent / "cuda_on_cpu.hpp").read_text(encoding="utf-8")
    (folder / "kernels.cpp").write_text("\n".join([shim, code, launchers]), encoding="utf-8")
    library = folder / "kernels.so"
    # as with --fmad=false, nothing may be fused; a checked longjmp would refuse to change stacks
    command = ["g++", "-O1", "-std=c++17", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-shared", "-fPIC", "-w"]
    subprocess.run([*command, str(folder / "kernels.cpp"), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    return cache(lambda name: _launcher(loaded, name))


def _launcher(library: ctypes.CDLL, name: str) -> Launcher:
    function = getattr(library, f"launch_{name}")

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        values = [
            np.uint64(argument.ctypes.data) if isinstance(argument, np.ndarray) else argument for argument in arguments
        ]
        held = [np.array([value]) for value in values]
        pointers = (ctypes.c_void_p * len(held))(*(array.ctypes.data for array in held))
        sizes = [(ctypes.c_uint * 2)(*size, *([1] * (2 - len(size)))) for size in (grid, block)]
        function(*sizes, pointers)

    return launch
