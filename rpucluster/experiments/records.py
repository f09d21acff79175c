"""Finished runs on disk: one small file each, written whole, found again by the hash of its settings."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpucluster.errors import RunDirectoryError
from rpucluster.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one run leaves."""

    label: str
    seed: int
    sha256: str
    """Of the settings, see `rpucluster.experiments.trials.settings_sha256`."""
    sets: tuple[str, ...]
    """How the settings differ from the base job and cluster."""
    epochs: int
    train_samples: int
    """In an epoch."""
    test_errors: tuple[float | None, ...]
    """Fraction of 1 after each epoch; None where it was not tested."""
    train_losses: tuple[float, ...]
    wall_s: float
    train_wall_s: float
    version: str

    @property
    def test_error(self) -> float:
        """After the last epoch, which is always tested."""
        error = self.test_errors[-1]
        if error is None:
            raise ValueError(f"the run {self.label} was not tested after its last epoch")
        return error

    @property
    def epoch_wall_s(self) -> float:
        """Wall time of an epoch with its share of everything else."""
        return self.wall_s / self.epochs


class Records:
    """The finished runs in one directory, which may hold those of many settings."""

    def __init__(self, folder: Path) -> None:
        """Read what is there.  Raises `RunDirectoryError` for a file that is no record, or a place that is no
        directory or cannot be made one."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(
                f"{folder}: cannot be made a directory: {error.strerror}; name another one with --out"
            ) from None
        self._known = {record.sha256: record for record in map(_read, sorted(folder.glob("*.json")))}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._known.values())

    def find(self, sha256: str) -> Record | None:
        """The finished run of these settings, or None."""
        return self._known.get(sha256)

    def add(self, record: Record) -> None:
        """Keep a finished run.  Raises `RunError` where it cannot be written."""
        words = re.sub(r"[^a-z0-9.]+", "-", record.label.lower()).strip("-")
        name = f"{words}-seed{record.seed}-{record.sha256[:12]}.json"
        write_json(self.folder / name, dataclasses.asdict(record))
        self._known[record.sha256] = record


def _read(path: Path) -> Record:
    content = read_json(path)
    fields: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    try:
        return Record(**fields)
    except TypeError as error:
        raise RunDirectoryError(f"{path}: not a record of a run: {error}; move it away") from None
