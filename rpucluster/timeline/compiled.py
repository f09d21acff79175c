"""The event loop as compiled code: the functions that `rpucluster.timeline.events` plays with, unchanged."""

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

from rpucluster.timeline import events, signals, state, transfers

_IN_ORDER = (
    signals.push,
    signals.pop,
    signals.notify,
    events.compute,
    events.issue,
    transfers.held_up,
    transfers.line_up,
    transfers.wait_for_link,
    transfers.begin_transfer,
    transfers.serve_link,
    transfers.transfer,
    transfers.advance,
    transfers.share,
    transfers.end_flows,
    events.work,
    events.serve_digital,
    events.play,
)
"""Each after those that it calls."""


@cache
def compiled_play() -> Callable[..., None]:
    """`events.play` for arrays; compiled at the first call on a machine and kept on disk."""
    from numba import njit  # takes half a second, which short programs need not wait for

    # Nothing is allocated, and the caller keeps the arrays.  Counting references to them, some sixty at each call and
    # at each return, took three quarters of a replay.
    options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
    compile_it: Any = njit(**options)
    # copies, so that the compiled functions call one another and the interpreted ones do too
    space: dict[str, Any] = vars(state) | vars(signals) | vars(transfers) | vars(events)
    for function in _IN_ORDER:
        copy = FunctionType(function.__code__, space, function.__name__)
        space[function.__name__] = compile_it(copy)
    play: Callable[..., None] = space["play"]
    return play
