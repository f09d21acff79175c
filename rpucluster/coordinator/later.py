"""What waits for results that were asked for."""

from collections import deque
from collections.abc import Callable


class Later:
    """Does things in their order, each once something else follows it: the last `ahead` are left for later."""

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._waiting: deque[Callable[[], None]] = deque()

    def do(self, something: Callable[[], None]) -> None:
        """Have something done that may have to wait for results."""
        self._waiting.append(something)
        self._go_on(self._ahead)

    def settle(self) -> None:
        """Do all that is left."""
        self._go_on(0)

    def _go_on(self, left: int) -> None:
        while len(self._waiting) > left:
            self._waiting.popleft()()
