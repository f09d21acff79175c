"""A profile as Parquet files, with the units of the columns in their field metadata."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from rpucluster.errors import RunDirectoryError
from rpucluster.files import schema, write_table
from rpucluster.profile.breakdown import WORK
from rpucluster.timeline import Energy

_Column = tuple[str, pa.DataType, str]


def _whole(*names: str) -> list[_Column]:
    return [(name, pa.int64(), "1") for name in names]


def _text(*names: str) -> list[_Column]:
    return [(name, pa.string(), "1") for name in names]


def _number(unit: str, *names: str) -> list[_Column]:
    return [(name, pa.float64(), unit) for name in names]


_SUMS = [
    *_number("s", *(f"{work}_s" for work in WORK), "critical_s"),
    *_number("J", *(f"energy_{part}_J" for part in Energy._fields)),
]
_SCHEMAS = {
    "critical_path": schema(
        *_whole("op"),
        *_text("label", "kind"),
        ("accelerators", pa.list_(pa.int64()), "1"),
        *_whole("layer", "microbatch"),
        *_number("s", "start_s", "duration_s", "on_path_s", "waited_s"),
        *_text("waited_for"),
        *_whole("waited_for_op"),
    ),
    "layers": schema(*_whole("accelerator", "layer"), *_text("name"), *_SUMS),
    "accelerators": schema(
        *_whole("accelerator"),
        *_number("s", "compute_s", "exposed_communication_s", "idle_s", "idle_before_s", "idle_after_s"),
        *_number("J", "energy_J"),
        *_number("W", "mean_power_W", "peak_power_W"),
        *_SUMS,
    ),
    "resources": schema(
        *_whole("accelerator"),
        *_text("resource"),
        *_whole("layer", "tiles"),
        *_number("s", "busy_s"),
        *_number("1", "utilisation"),
    ),
    "links": schema(
        *_text("link", "axis"), *_number("B", "link_bytes"), *_number("s", "busy_s"), *_number("1", "utilisation")
    ),
    "exposed_communication": schema(
        *_text("kind", "payload", "axes"),
        *_whole("operations"),
        *_number("s", "duration_s", "waited_s", "exposed_s"),
        *_number("1", "exposed_fraction"),
    ),
    "bottlenecks": schema(
        *_text("name", "resource", "why"),
        ("changes", pa.list_(pa.string()), "1"),
        *_number("s", "before_s", "after_s"),
        *_whole("samples_before", "samples_after"),
        *_number("1", "gain"),
    ),
}
"""The files, by stem, and their columns."""


def write_tables(directory: Path, profile: Mapping[str, Any]) -> list[Path]:
    """Write each table of a profile as a Parquet file into a directory, which is made; the paths written.

    layers.parquet has a row per accelerator and layer, bottlenecks.parquet also what was replayed and gained nothing.
    Raises `RunDirectoryError` where the directory cannot be made, `RunError` where a file cannot be written.
    """
    rows = {name: profile[name] for name in _SCHEMAS} | {
        "layers": profile["accelerators_by_layer"],
        "bottlenecks": [*profile["bottlenecks"], *profile["no_bottlenecks"]],
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{directory}: cannot be made: {error.strerror}; name another one with --out") from None
    paths = []
    for name, columns in _SCHEMAS.items():
        paths.append(directory / f"{name}.parquet")
        write_table(paths[-1], pa.Table.from_pylist([dict(row) for row in rows[name]], columns))
    return paths
