"""Checkpoints: every replica's weights and the counters to go on from, in one folder that is never half new.

`weights.parquet` has one row per replica and layer with the digest of its values; `state.json` lists the same
rows, so that the two files are known to belong together, beside the state that was handed in.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rpucluster.errors import RunDirectoryError, RunError
from rpucluster.files import read_json, schema, unreadable, write_atomically, write_json

FloatArray = npt.NDArray[np.float32]
Weights = Mapping[tuple[int, int], FloatArray]
"""(replica, layer) -> the layer's effective weights, float32 (out, in), the bias as last column."""

_ROW = schema(
    ("replica", pa.int64(), "1"),
    ("layer", pa.int64(), "1"),
    ("rows", pa.int64(), "1"),
    ("cols", pa.int64(), "1"),
    ("values", pa.large_binary(), "1"),
    ("sha256", pa.string(), "1"),
)


def write_checkpoint(folder: Path, weights: Weights, state: Mapping[str, Any]) -> None:
    """Put a new checkpoint in place of the old one; after a crash at any moment a good one is there.

    `state` is anything that JSON can hold.  Raises `RunError` where the system refuses.
    """
    new, previous = _new(folder), _previous(folder)
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        write_atomically(new / "weights.parquet", lambda stream: _write_rows(stream, weights))
        listing = [[*key, *array.shape, _sha256(array)] for key, array in sorted(weights.items())]
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
    weights: dict[tuple[int, int], FloatArray] = {}
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
        weights[row["replica"], row["layer"]] = values.astype(np.float32)  # a copy: owned and writable
        listing.append([row["replica"], row["layer"], *shape, digest])
    if listing != saved.get("weights") or "state" not in saved:
        raise RunDirectoryError(f"{here}: weights.parquet and state.json are not of the same checkpoint")
    return weights, dict(saved["state"])


def _new(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.new")


def _previous(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.previous")


def _write_rows(stream: BinaryIO, weights: Weights) -> None:
    # a row group per array, so that a large network is never copied as a whole
    with pq.ParquetWriter(stream, _ROW, compression="zstd") as writer:
        for (replica, layer), array in sorted(weights.items()):
            row = {
                "replica": replica,
                "layer": layer,
                "rows": array.shape[0],
                "cols": array.shape[1],
                "values": _value_bytes(array),
                "sha256": _sha256(array),
            }
            writer.write_table(pa.Table.from_pylist([row], _ROW))


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            for i in range(file.num_row_groups):
                yield from file.read_row_group(i, columns=_ROW.names).cast(_ROW).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise unreadable(path, error) from None


def _value_bytes(array: FloatArray) -> bytes:
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


def _sha256(array: FloatArray) -> str:
    return hashlib.sha256(_value_bytes(array)).hexdigest()
