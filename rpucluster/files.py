"""Files written whole or not at all, and read back with one-line errors: bytes, JSON, Parquet with units."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rpucluster.errors import RunDirectoryError, RunError


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there whole or not at all; `content` is the bytes, or what writes them.

    Raises `RunError` where the system refuses (no space, no permission); nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            if isinstance(content, bytes):
                stream.write(content)
            else:
                content(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its keys in the given order; raises `RunError` as `write_atomically` does.

    NumPy numbers become plain ones, and what is not a finite number becomes null, which JSON can hold.
    """
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `RunDirectoryError` where it is missing or no such thing."""
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise unreadable(path, error) from None
    if not isinstance(content, dict):
        raise RunDirectoryError(f"{path}: cannot be read: not a JSON object")
    return content


def read_text(path: Path) -> str:
    """Read a UTF-8 file; raises `RunDirectoryError` where that cannot be done."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None


def schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    """A schema from (name, type, unit); a unit of "1" says that there is none."""
    return pa.schema([pa.field(name, kind, metadata={"unit": unit}) for name, kind, unit in columns])


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file; raises `RunError` as `write_atomically` does."""
    write_atomically(path, lambda stream: pq.write_table(table, stream, compression="zstd"))


def read_rows(path: Path, expected: pa.Schema) -> list[dict[str, Any]]:
    """Read the expected columns of a Parquet file; raises `RunDirectoryError` where that cannot be done."""
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).select(expected.names).cast(expected).to_pylist()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise unreadable(path, error) from None
    return rows


def unreadable(path: Path, error: Exception) -> RunDirectoryError:
    """The one-line error for a file that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return RunDirectoryError(f"{path}: cannot be read: {' '.join(reason.split())}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
