"""What this machine has, what rpucluster will use of it, and how to get what is missing."""

import importlib.util
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rpucluster import __version__
from rpucluster.arrays import gpu_report

_REQUIRED = (
    "numpy",
    "numba",
    "matplotlib",
    "pyarrow",
    "pydantic",
    "plotly",
    "rich",
    "scikit-learn",
    "threadpoolctl",
    "tomli-w",
    "typer",
)
_GET_GPU = 'pip install "rpucluster[gpu]"'


def examine() -> dict[str, Any]:
    """Versions, processor, memory, GPUs, and what will be used, as plain values; ``ok`` sums it up.

    Keys that end in ``_B`` are bytes; ``missing`` says what each missing package is for and how to get it.
    """
    gpus = [asdict(gpu) for gpu in gpu_report()]
    has_cupy = importlib.util.find_spec("cupy") is not None
    packages: dict[str, str | None] = {name: _version(name) for name in (*_REQUIRED, "ray")}
    packages["cupy"] = _cupy_version() if has_cupy else None
    missing = [
        {"package": name, "required": True, "for": "running at all", "get": f'pip install "{name}"'}
        for name in _REQUIRED
        if packages[name] is None
    ]
    if packages["ray"] is None:
        missing.append(_optional("ray", "--executor ray; --executor local works without it", "pip install ray"))
    if not has_cupy:
        missing.append(_optional("cupy", "arrays on a CUDA GPU; NumPy works without it", _GET_GPU))
    on_gpu = has_cupy and bool(gpus)
    cache, writable = _kernel_cache()
    return {
        "ok": not any(package["required"] for package in missing),
        "rpucluster": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": packages,
        "cpu_cores": _cores(),
        **_memory(),
        "gpus": gpus,
        "kernel_cache": cache,
        "kernel_cache_writable": writable,
        "uses": {
            "executor": "ray" if packages["ray"] else "local",
            "arrays": "cupy" if on_gpu else "numpy",
            "kernels": "cuda" if on_gpu else "numba",
        },
        "missing": missing,
    }


def _optional(package: str, purpose: str, get: str) -> dict[str, Any]:
    return {"package": package, "required": False, "for": purpose, "get": get}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cupy_version() -> str:
    # the distribution's name says which CUDA it is for
    names = ("cupy-cuda12x", "cupy-cuda13x", "cupy-cuda11x", "cupy")
    return next((f"{found} ({name})" for name in names if (found := _version(name))), "unknown version")


def _cores() -> int:
    # a container may hold this process to fewer cores than the machine has
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _memory() -> dict[str, int | None]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = None
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    return {"memory_B": pages, "memory_available_B": available}


def _kernel_cache() -> tuple[str, bool]:
    """Where Numba keeps compiled kernels, and whether it may write there; without it every start compiles."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(named) if named else Path(__file__).parent / "kernels" / "__pycache__"
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return str(folder), os.access(there, os.W_OK)
