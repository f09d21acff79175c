"""Checkpoints: every replica's weights and the counters to go on from, in one folder that is never half new.

`weights.parquet` has one row per band, which is some rows of a replica's layer, with the digest of its values;
`state.json` lists the same bands, so that the two files are known to belong together, beside the state that was
handed in.  Bands are written as they come, so that a network is never held twice.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rpucluster.errors import RunDirectoryError, RunError
from rpucluster.files import read_json, schema, unreadable, write_atomically, write_json

FloatArray = npt.NDArray[np.float32]


class Band(NamedTuple):
    """Consecutive rows of a replica's layer."""

    replica: int
    layer: int
    row: int
    """The first of them."""
    values: FloatArray
    """Effective weights, float32 (rows, in), the bias as last column."""


_ROW = schema(
    ("replica", pa.int64(), "1"),
    ("layer", pa.int64(), "1"),
    ("row", pa.int64(), "1"),
    ("rows", pa.int64(), "1"),
    ("cols", pa.int64(), "1"),
    ("values", pa.large_binary(), "1"),
    ("sha256", pa.string(), "1"),
)


def write_checkpoint(folder: Path, bands: Iterable[Band], state: Mapping[str, Any]) -> None:
    """Put a new checkpoint in place of the old one; after a crash at any moment a good one is there.

    The bands of a layer come in the order of their rows.  `state` is anything that JSON can hold.  Raises `RunError`
    where the system refuses.
    """
    new, previous = _new(folder), _previous(folder)
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        listing: list[list[Any]] = []
        write_atomically(new / "weights.parquet", lambda stream: listing.extend(_write_rows(stream, bands)))
        write_json(new / "state.json", {"weights": listing, "state": state})
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        new.rename(folder)
        shutil.rmtree(previous, ignore_errors=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def read_checkpoint(folder: Path) -> tuple[dict[tuple[int, int], FloatArray], dict[str, Any]]:
    """The weights by (replica, layer) and the state of the last complete checkpoint.

    Raises `RunDirectoryError` where there is none, or where the weights are not those that were written.
    """
    # a crash between the two renames of `write_checkpoint` leaves the good one under its second name
    here = folder if folder.is_dir() else _previous(folder)
    if not here.is_dir():
        raise RunDirectoryError(f"{folder}: there is no checkpoint")
    saved = read_json(here / "state.json")
    bands: dict[tuple[int, int], list[FloatArray]] = {}
    listing: list[list[Any]] = []
    for row in _read_rows(here / "weights.parquet"):
        shape = (row["rows"], row["cols"])
        digest = hashlib.sha256(row["values"]).hexdigest()
        if digest != row["sha256"] or len(row["values"]) != 4 * shape[0] * shape[1]:
            raise RunDirectoryError(
                f"{here / 'weights.parquet'}: the weights of replica {row['replica']}, layer {row['layer']} are "
                f"damaged: they do not match their sha256; restore the file or train again"
            )
        values = np.frombuffer(row["values"], dtype="<f4").reshape(shape)
        bands.setdefault((row["replica"], row["layer"]), []).append(values)
        listing.append([row["replica"], row["layer"], row["row"], *shape, digest])
    if listing != saved.get("weights") or "state" not in saved:
        raise RunDirectoryError(f"{here}: weights.parquet and state.json are not of the same checkpoint")
    weights: dict[tuple[int, int], FloatArray] = {}
    for key in sorted(bands):
        weights[key] = np.concatenate(bands.pop(key), dtype=np.float32)  # a copy: owned and writable
    return weights, dict(saved["state"])


def _new(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.new")


def _previous(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.previous")


def _write_rows(stream: BinaryIO, bands: Iterable[Band]) -> list[list[Any]]:
    """Write a row group per band as they come; returns what `state.json` lists of them."""
    listing: list[list[Any]] = []
    with pq.ParquetWriter(stream, _ROW, compression="zstd") as writer:
        for replica, layer, row, values in bands:
            content = np.ascontiguousarray(values, dtype="<f4").tobytes()
            described = [replica, layer, row, *values.shape, hashlib.sha256(content).hexdigest()]
            columns = [*described[:5], content, described[5]]
            writer.write_table(
                pa.Table.from_arrays([pa.array([c], f.type) for c, f in zip(columns, _ROW, strict=True)], schema=_ROW)
            )
            listing.append(described)
    return listing


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            for i in range(file.num_row_groups):
                yield from file.read_row_group(i, columns=_ROW.names).cast(_ROW).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise unreadable(path, error) from None
