"""Whether the nodes of a Ray cluster run the same software as this process, and see the same run directory."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rpucluster.errors import AcceleratorError

PACKAGES: Final = {
    "rpucluster": ("rpucluster",),
    "numpy": ("numpy",),
    "numba": ("numba",),
    "llvmlite": ("llvmlite",),
    "pyarrow": ("pyarrow",),
    "ray": ("ray",),
}
"""What decides over results, and whether processes understand each other, by the names of its distributions."""
CUPY: Final = {"cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")}
"""The same where arrays live on GPUs."""
_SOURCES: Final = "source files"
"""Of rpucluster: two checkouts may have the same version."""
_PATIENCE_S: Final = 60.0
"""How long a node may take to answer; a worker process of Ray starts in a few seconds."""


def survey(packages: Mapping[str, Sequence[str]], folder: str | None) -> dict[str, str]:
    """What a node has: versions by package, a digest of our own sources, and what it sees of a folder.

    It is sent to nodes by its code, so it works where rpucluster is missing or another one, and uses nothing from
    outside of itself.
    """
    import hashlib
    import importlib.util
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    found = {"Python": platform.python_version()}
    for package, distributions in packages.items():
        for distribution in distributions:
            try:
                found[package] = version(distribution)
                break
            except PackageNotFoundError:
                continue
    here = importlib.util.find_spec("rpucluster")
    if here is not None and here.origin is not None:
        root = Path(here.origin).parent
        digest = hashlib.sha256()
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
        found["source files"] = digest.hexdigest()[:12]
        named = os.environ.get("NUMBA_CACHE_DIR")
        cache = Path(named) if named else root / "kernels" / "__pycache__"
        there = next(parent for parent in (cache, *cache.parents) if parent.exists())
        if not os.access(there, os.W_OK):
            found["kernel cache"] = f"{cache} cannot be written"
    if folder is not None and Path(folder).is_dir():
        found["folder"] = folder
    return found


def compare(here: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What is worth telling of nodes, by name, that can take part; `here` is the survey of this process.

    Raises `AcceleratorError`, one line with the node and both versions, for the first that cannot.
    """
    notices = []
    for node, there in nodes.items():
        unlike = [key for key in (*PACKAGES, *CUPY, "Python", _SOURCES) if here.get(key) != there.get(key)]
        if "rpucluster" in unlike and _SOURCES in unlike:
            unlike.remove(_SOURCES)
        if unlike:
            told = ", ".join(f"{key} {_shown(there.get(key))} (here {_shown(here.get(key))})" for key in unlike)
            raise AcceleratorError(f"node {node} has {told}; install the same on every node, or leave that node out")
        if "folder" in here and "folder" not in there:
            raise AcceleratorError(
                f"node {node} does not see {here['folder']}, where its accelerators write their checkpoints; "
                f"name a directory with --out that all nodes share"
            )
        if "kernel cache" in there:
            notices.append(f"node {node}: {there['kernel cache']}, so each of its processes compiles kernels anew")
    return notices


def check_nodes(ray: Any, options: Mapping[str, Mapping[str, Any]], *, on_gpu: bool, folder: Path | None) -> list[str]:
    """Survey nodes by tasks with such options, each by the node's name; returns and raises what `compare` does."""
    packages = PACKAGES | (CUPY if on_gpu else {})
    place = None if folder is None else str(folder.resolve())
    task = ray.remote(survey)
    this_file = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(this_file)
    try:
        running = {node: task.options(**how).remote(packages, place) for node, how in options.items()}
    finally:
        ray.cloudpickle.unregister_pickle_by_value(this_file)
    found = {}
    for node, ref in running.items():
        try:
            found[node] = ray.get(ref, timeout=_PATIENCE_S)
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise AcceleratorError(f"node {node} could not be asked for its versions: {reason}") from None
    return compare(survey(packages, place), found)


def _shown(version: str | None) -> str:
    return version or "not installed"
