"""Turns at lines that threads share, compiled by Numba: an int64 array that says which are taken and which are done."""

from typing import Any

import numpy as np

from rpucluster.kernels.cpu_random import borrowing
from rpucluster.kernels.cpu_simd import add_shared

NEXT, DONE, FOUND, CUTS = range(4)
"""Parts of turns: the next one, lines that are done, the sum of what was found there; then the line where each turn
starts and at last where all end."""

_NEXT, _DONE, _FOUND = np.uint64(NEXT), np.uint64(DONE), np.uint64(FOUND)
_0, _1 = np.int64(0), np.int64(1)
_LOOKS = 4000
"""Looks at what others have done, before to sleep is cheaper: about 30 microseconds."""


@borrowing
def take(turns: Any) -> Any:
    """First line and stop of a turn that nobody else gets; both 0 where none is left."""
    at = add_shared(turns, _NEXT, _1) + CUTS
    if at + 1 >= len(turns):
        return _0, _0
    return turns[at], turns[at + 1]


@borrowing
def finish(turns: Any, lines: int, found: int) -> None:
    """Say that so many lines are done, and what was found."""
    add_shared(turns, _FOUND, np.int64(found))
    add_shared(turns, _DONE, np.int64(lines))


@borrowing
def all_done(turns: Any) -> bool:
    """Whether all lines are done, now or very soon."""
    look = 0
    while look < _LOOKS and add_shared(turns, _DONE, _0) < turns[-1]:
        look += 1
    return look < _LOOKS
