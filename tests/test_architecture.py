"""The structure of the package: imports go down the floors, optional packages stay in their one file."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import rpucluster

PACKAGE = Path(rpucluster.__file__).parent

FLOORS = {
    "errors": 0,
    "units": 1,
    "arrays": 1,
    "rng": 1,
    "elementary": 1,
    "files": 1,
    "config": 2,
    "devices": 2,
    "model": 2,
    "data": 2,
    "layers": 2,
    "kernels": 3,
    "topology": 3,
    "settings": 4,
    "tile_counts": 4,
    "tile_layout": 4,
    "periphery": 4,
    "processor": 4,
    "algorithms": 4,
    "schedule": 4,
    "tile": 5,
    "cluster": 5,
    "job": 5,
    "collective": 5,
    "plan": 6,
    "conventional": 6,
    "stages": 6,
    "proposals": 6,
    "partitioner": 7,
    "collective_table": 6,
    "program": 7,
    "holdings": 7,
    "lowering": 8,
    "calls": 8,
    "checkpoint": 8,
    "tape": 8,
    "buffers": 8,
    "interpreter": 9,
    "exchange": 9,
    "tallies": 9,
    "axis_traffic": 9,
    "timeline": 9,
    "payloads": 10,
    "metrics": 10,
    "waits": 10,
    "trace": 10,
    "shard_state": 10,
    "accelerator": 11,
    "hosting": 10,
    "plan_report": 11,
    "step_rows": 11,
    "host_memory": 11,
    "runlog": 12,
    "pool": 12,
    "modelled": 12,
    "weights": 13,
    "run_summary": 13,
    "coordinator": 14,
    "profile": 14,
    "projection": 14,
    "search": 15,
    "report": 16,
    "progress": 16,
    "doctor": 16,
    "experiments": 17,
    "watch": 17,
    "cli": 18,
    "__main__": 19,
}
"""Where each file or folder of the package lives; docs/design.md shows the same table."""

IN_ONE_FILE = {"cupy": "arrays.py", "ray": "ray_session.py", "tensorboardX": "tensorboard.py"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """The floor's unit that a source file belongs to: a module, or the folder it lies in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Every module that a source file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path.name}: relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    unit = unit_of(path)
    if unit == "__init__":
        return
    known = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in sources()}
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "rpucluster" or len(parts) < 2 or parts[1] not in known or parts[1] == unit:
            continue
        assert FLOORS[parts[1]] < FLOORS[unit], f"{unit} (floor {FLOORS[unit]}) imports {parts[1]}"


def test_every_unit_has_a_floor() -> None:
    assert {unit_of(path) for path in sources()} - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("package", IN_ONE_FILE)
def test_optional_packages_are_imported_in_one_file(package: str) -> None:
    users = {path.name for path in sources() if any(name.split(".")[0] == package for name in imports_of(path))}
    assert users == {IN_ONE_FILE[package]}


@pytest.mark.parametrize(
    "module", ["rpucluster.pool", "rpucluster.kernels", "rpucluster.tile", "rpucluster.coordinator"]
)
def test_importing_needs_neither_ray_nor_cupy(module: str) -> None:
    """So the in-process pool runs where they are not installed."""
    code = f"import sys; sys.modules['ray'] = None; sys.modules['cupy'] = None; import {module}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_importable() -> None:
    module = importlib.import_module("rpucluster")
    assert sorted(module.__all__) == module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_the_design_document_shows_these_floors() -> None:
    text = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ") and "`" in line]
    shown = {
        name.strip("` ").removesuffix(".py").strip("/"): int(cells[1])
        for cells in rows
        if cells[1].strip().isdigit()
        for name in cells[2].split(",")
    }
    assert shown == {name: floor for name, floor in FLOORS.items() if name != "__main__"}
