"""A run that another process performs, watched through its `status.json`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rpucluster.coordinator import Progress, read_status
from rpucluster.files import is_held

_LOOK_EVERY_S: Final = 0.5


def watch(folder: Path, show: Callable[[Progress], None]) -> Progress:
    """Call `show` with whatever changes until the run is done or no process works on it; returns where it stood last.

    Raises `RunDirectoryError` where there is no such run, or its status cannot be read.
    """
    shown: Progress | None = None
    while True:
        alive = is_held(folder) if folder.is_dir() else False
        now = read_status(folder)  # after the look: what the run wrote before it ended is seen
        if now != shown:
            show(now)
            shown = now
        if not alive or now.phase == "done":
            return now
        time.sleep(_LOOK_EVERY_S)
