"""NumPy or CuPy, chosen once and then decided by the arrays themselves: the only file that imports CuPy.

CuPy without a GPU, without a driver or not installed at all is met here and nowhere else.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rpucluster.errors import MissingPackageError

ArrayChoice = Literal["auto", "numpy", "cupy"]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU that CuPy can use."""

    index: int
    name: str
    memory_bytes: int
    """Total device memory."""
    free_bytes: int
    """Device memory that is free now."""


def array_module(name: ArrayChoice = "auto") -> ModuleType:
    """The array module that a job asks for; "auto" is CuPy where CuPy and a GPU are there, NumPy elsewhere.

    Raises MissingPackageError if CuPy is asked for and cannot run here, ValueError for another name.
    """
    if name not in ("auto", "numpy", "cupy"):
        raise ValueError(f'arrays = "{name}" is not known; write "auto", "numpy" or "cupy"')
    if name == "numpy":
        return np
    cupy = _cupy()
    if cupy is not None and _gpu_count(cupy) > 0:
        return cupy
    if name == "auto":
        return np
    if cupy is None:
        raise MissingPackageError(
            'arrays = "cupy" needs CuPy, which is not installed; pip install "rpucluster[gpu]" or write "numpy"'
        )
    raise MissingPackageError(
        'arrays = "cupy": CuPy is installed but finds no NVIDIA GPU or driver; install the driver or write "numpy"'
    )


def namespace(*arrays: Any) -> ModuleType:
    """The module that all these arrays belong to.

    Raises TypeError if host and device arrays are mixed or something is not an array.
    """
    kinds = {type(array).__module__.partition(".")[0] for array in arrays}
    if kinds == {"numpy"}:
        return np
    if kinds == {"cupy"}:
        return array_module("cupy")
    if kinds == {"numpy", "cupy"}:
        raise TypeError(
            "arrays of the host (numpy) and of the GPU (cupy) are mixed; move one with cupy.asarray or to_host"
        )
    raise TypeError(f"expected numpy or cupy arrays, not {', '.join(sorted(type(a).__name__ for a in arrays))}")


def aligned_empty(xp: ModuleType, count: int, dtype: str) -> Any:
    """A flat array, not filled, that starts where a line of the host's caches does.

    NumPy's own start anywhere; a loop whose vectors all lie across two lines takes up to a sixth longer.
    """
    if xp is not np:
        return xp.empty(count, dtype)
    size = count * np.dtype(dtype).itemsize
    memory = np.empty(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype)


_CACHE_LINE = 64  # bytes


def to_host(array: Any) -> NDArray[Any]:
    """The array as a NumPy array: itself if it is one, a copy if it lives on the GPU."""
    if isinstance(array, np.ndarray):
        return array
    return np.asarray(array.get())


def address(array: Any) -> int:
    """Where the array's numbers lie, on its device."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def gpu_report() -> list[Gpu]:
    """The GPUs that CuPy can use, none if there is no CuPy, driver or GPU; never raises."""
    cupy = _cupy()
    if cupy is None:
        return []
    gpus = []
    for index in range(_gpu_count(cupy)):
        try:
            properties = cupy.cuda.runtime.getDeviceProperties(index)
            with cupy.cuda.Device(index) as device:
                free, total = device.mem_info
            name = properties["name"]
            name = name.decode() if isinstance(name, bytes) else str(name)
            gpus.append(Gpu(index=index, name=name, memory_bytes=int(total), free_bytes=int(free)))
        except Exception:  # a GPU that cannot be asked is no GPU for us, whatever the driver raises
            continue
    return gpus


def _cupy() -> ModuleType | None:
    try:
        import cupy
    except Exception:  # besides ImportError: broken CUDA libraries raise anything from OSError to RuntimeError
        return None
    module: ModuleType = cupy
    return module


def _gpu_count(cupy: ModuleType) -> int:
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except Exception:  # CUDARuntimeError where there is no driver; its class differs between CuPy versions
        return 0
