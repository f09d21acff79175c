"""Ctrl-C: the first asks, the second stops."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class RunInterrupted(KeyboardInterrupt):
    """A run that was asked to stop and left a checkpoint; the message says how to go on."""


class Interrupts:
    """While this context is entered, the first Ctrl-C only sets `asked`; the next one raises KeyboardInterrupt.

    `tell` is called at the first, in a thread of its own: the signal may have come in the middle of an import or of a
    line that is being written, where nothing of the kind can be begun again.  Threads other than the main one get no
    signals, so nothing changes there.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self.asked = False
        self._telling = threading.Thread(target=tell, daemon=True)
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if self._telling.ident is not None:
            self._telling.join()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._telling.start()
