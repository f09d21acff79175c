"""`status.json`: where a run stands, for whoever watches it from another process."""

import math
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rpucluster.coordinator.events import Progress, Report
from rpucluster.errors import RunDirectoryError
from rpucluster.files import read_sealed, write_sealed

_NAME: Final = "status.json"
_EVERY_S: Final = 1.0
"""Between two writings while nothing but the step changes."""


class StatusFile:
    """Writes what it is called with into a run directory, at most once a second, and passes all of it on to `report`.

    Threads take turns.  Raises `RunError` where the system refuses to write.
    """

    def __init__(self, folder: Path, report: Report) -> None:
        self._path, self._report = folder / _NAME, report
        self._phase, self._written = "", 0.0
        self._turn = threading.Lock()

    def __call__(self, now: Progress) -> None:
        """Write it down and pass it on."""
        with self._turn:
            self._write(now)
            self._report(now)

    def _write(self, now: Progress) -> None:
        if now.phase != "train" or now.phase != self._phase or time.monotonic() - self._written >= _EVERY_S:
            write_sealed(self._path, {key: None if _endless(value) else value for key, value in asdict(now).items()})
            self._phase, self._written = now.phase, time.monotonic()


def _endless(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)  # a loss, which JSON has no number for


def read_status(folder: Path) -> Progress:
    """Where the run in a folder stands, or stood when its process ended.

    Raises `RunDirectoryError` where there is no such run, or its status cannot be read.
    """
    if not folder.is_dir():
        raise RunDirectoryError(f"there is no run directory {folder}")
    path = folder / _NAME
    if not path.exists():
        raise RunDirectoryError(f"{folder} has no {_NAME}: it is no run, or not yet")
    content: dict[str, Any] = read_sealed(path)
    try:
        return Progress(**content)
    except TypeError as error:
        raise RunDirectoryError(f"{path}: not of a run of this version: {error}") from None
