"""Files written whole or not at all, and read back with one-line errors: bytes, JSON, Parquet with units."""

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rpucluster.errors import RunDirectoryError, RunError

_LARGEST_TEXT: Final = 1 << 30
"""Bytes of a text that is read: a manifest takes less than 1 KiB for each accelerator and layer."""


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there whole or not at all; `content` is the bytes, or what writes them.

    Raises `RunError` where the system refuses (no space, no permission); nothing is left behind then.
    """
    if path.is_dir():
        raise RunError(f"{path}: cannot be written: Is a directory")
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


def check_file(path: Path) -> None:
    """Refuse a place where a file cannot be written, before work is done for it.  Raises `RunDirectoryError`."""
    parent = path.parent
    if path.is_dir():
        raise RunDirectoryError(f"{path}: cannot be written: it is a directory; name a file in it")
    if not parent.is_dir():
        raise RunDirectoryError(f"{path}: cannot be written: there is no directory {parent}; make it first")
    if not os.access(parent, os.W_OK):
        raise RunDirectoryError(f"{path}: cannot be written: no permission in {parent}; name another place")


def check_folder(folder: Path) -> None:
    """Refuse a place where a folder of results cannot be made, and a run directory, some of whose files they would
    replace.  Raises `RunDirectoryError`."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "no permission" if there.is_dir() else "it is a file"
        raise RunDirectoryError(f"{folder}: cannot be made: {there}: {why}; name another one with --out")
    if (folder / "job.toml").exists() and (folder / "cluster.toml").exists():
        raise RunDirectoryError(
            f"{folder} is a run directory, whose files would be replaced; name another one with --out"
        )


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder meanwhile; the system forgets it when this process ends.

    Raises `RunDirectoryError` where another one does.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RunDirectoryError(f"{folder}: another process is writing into this run; stop it first") from None
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether some process is in `held`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `json_bytes`; raises `RunError` as `write_atomically` does."""
    write_atomically(path, json_bytes(content))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """A JSON object with its keys in the given order.

    NumPy numbers become plain ones, and what is not a finite number becomes null, which JSON can hold.
    """
    return f"{json.dumps(_plain(content), indent=2, allow_nan=False)}\n".encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `RunDirectoryError` where it is missing or no such thing."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error) from None
    if not isinstance(content, dict):
        raise RunDirectoryError(f"{path}: cannot be read: not a JSON object")
    return content


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object beside the SHA-256 of its content; raises `RunError` as `write_atomically` does."""
    write_atomically(path, f"{json.dumps({'sha256': _seal(content), 'content': content})}\n".encode())


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote; raises `RunDirectoryError` where it is missing, damaged or something else."""
    outside = read_json(path)
    content = outside.get("content")
    if set(outside) != {"sha256", "content"} or not isinstance(content, dict):
        raise RunDirectoryError(f"{path}: not a file of rpucluster: it has no content with a sha256")
    if outside["sha256"] != _seal(content):
        raise RunDirectoryError(f"{path}: damaged: its content does not match its sha256")
    return content


def file_digest(path: Path) -> str:
    """The SHA-256 of a file; raises `RunDirectoryError` where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


def read_text(path: Path) -> str:
    """Read a UTF-8 file; raises `RunDirectoryError` where that cannot be done."""
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise RunDirectoryError(f"{path}: cannot be read: {path.stat().st_size} bytes are too many for a text")
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


def _seal(content: Mapping[str, Any]) -> str:
    """The same for content that was read back as for that which was written."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
