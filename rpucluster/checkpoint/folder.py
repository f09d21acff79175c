"""The folder of a run's checkpoints: written under another name and renamed, checked before anything is read."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rpucluster.checkpoint.pieces import WrittenFile
from rpucluster.errors import RunDirectoryError, RunError
from rpucluster.files import file_digest, read_sealed, write_sealed

FORMAT: Final = 1
"""Of manifests; raised when an older program could not read a newer checkpoint or the other way round."""
MANIFEST: Final = "manifest.json"
KEPT: Final = 2
"""Complete checkpoints that stay."""
_NAME = re.compile(r"step-(\d{12})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint whose files are those that were written."""

    folder: Path
    files: Mapping[Path, WrittenFile]
    told: Mapping[str, Any]
    """What was handed in when it was written."""


def begin(root: Path, step: int) -> Path:
    """Make the folder that the files of a checkpoint after so many steps are written into.

    Raises `RunError` where the system refuses.
    """
    folder = root / f".step-{step:012d}.new"
    try:
        root.mkdir(exist_ok=True)
        for left in root.glob(".step-*"):  # of a process that was killed
            shutil.rmtree(left)
        folder.mkdir()
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return folder


def abandon(new: Path) -> None:
    """Remove what `begin` has made."""
    shutil.rmtree(new, ignore_errors=True)


def finish(new: Path, files: Iterable[WrittenFile], told: Mapping[str, Any]) -> Path:
    """Write the manifest and give the folder its name; of the checkpoints that are now there, the last two stay.

    `told` is anything that JSON can hold.  Raises `RunError` where the system refuses or a file is not there.
    """
    written = sorted(files, key=lambda file: file.name)
    for file in written:
        path = new / file.name
        if not path.is_file() or path.stat().st_size != file.bytes:
            raise RunError(
                f"{path}: written by an accelerator but not seen here; put the run directory where all nodes reach it"
            )
    content = {"format": FORMAT, "files": [file.to_dict() for file in written], "told": told}
    write_sealed(new / MANIFEST, content)
    folder = new.with_name(new.name.removeprefix(".").removesuffix(".new"))
    replaced = new.with_name(f".{folder.name}.old")
    try:
        _sync(new)
        if folder.exists():  # a run that went back and came to this step again
            folder.rename(replaced)
        new.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        there = complete(folder.parent)
        here = there.index(folder)
        for other in there[:here] + there[here + KEPT :]:  # newer ones are of a course that was given up
            shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return folder


def complete(root: Path) -> list[Path]:
    """The folders that have the name of a complete checkpoint, newest first."""
    try:
        return sorted((path for path in root.iterdir() if _NAME.fullmatch(path.name)), reverse=True)
    except OSError:
        return []


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check a checkpoint: its manifest, and size and SHA-256 of each of its files.

    Raises `RunDirectoryError`, which says what is wrong with it.
    """
    if not folder.is_dir():
        raise RunDirectoryError(f"{folder}: there is no checkpoint")
    files, told = _manifest(folder)
    for path, file in files.items():
        try:
            size = path.stat().st_size
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be read: {error.strerror or error}") from None
        same = size == file.bytes and file_digest(path) == file.sha256
        if not same:
            what = "its content does not match its sha256" if size == file.bytes else f"{size} of {file.bytes} bytes"
            raise RunDirectoryError(f"{path}: damaged: {what}")
    return Checkpoint(folder=folder, files=files, told=told)


def newest_good(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and why newer ones are not."""
    refused: list[str] = []
    for folder in complete(root):
        try:
            return open_checkpoint(folder), refused
        except RunDirectoryError as error:
            refused.append(str(error))
    return None, refused


def newest(root: Path) -> Checkpoint:
    """The newest checkpoint.

    Raises `RunDirectoryError` where there is none, or it is not whole; then the message offers the newest that is.
    """
    found, refused = newest_good(root)
    if found is None:
        raise RunDirectoryError(f"{refused[0]}; there is no other" if refused else f"{root}: there is no checkpoint")
    if refused:
        raise RunDirectoryError(f"{refused[0]}; the newest good one is {found.folder}, which can be named instead")
    return found


def _manifest(folder: Path) -> tuple[dict[Path, WrittenFile], Mapping[str, Any]]:
    path = folder / MANIFEST
    if not path.is_file():
        raise RunDirectoryError(f"{folder}: not a whole checkpoint: it has no {MANIFEST}")
    manifest = read_sealed(path)
    try:
        if manifest["format"] != FORMAT:
            raise RunDirectoryError(
                f"{path}: checkpoint format {manifest['format']}, this version of rpucluster reads {FORMAT}"
            )
        files = [WrittenFile.from_dict(file) for file in manifest["files"]]
        told: Mapping[str, Any] = manifest["told"]
        if not isinstance(told, dict):
            raise ValueError("told is no table")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunDirectoryError(f"{path}: not a manifest of rpucluster: {reason}") from None
    return {folder / file.name: file for file in files}, told


def _sync(folder: Path) -> None:
    """Put the entries of a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
