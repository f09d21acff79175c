"""The event loop as compiled code: the functions of `rpucluster.timeline.events`, unchanged."""

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

from rpucluster.timeline import events

_IN_ORDER = (
    events.push,
    events.pop,
    events.notify,
    events.streams,
    events.compute,
    events.issue,
    events.held_up,
    events.line_up,
    events.wait_for_link,
    events.begin_transfer,
    events.serve_link,
    events.work,
    events.serve_digital,
    events.transfer,
    events.advance,
    events.share,
    events.end_flows,
    events.play,
)
"""Each after those that it calls."""


@cache
def compiled_play() -> Callable[..., None]:
    """`events.play` for arrays; compiled at the first call on a machine and kept on disk."""
    from numba import njit  # takes half a second, which short programs need not wait for

    compile_it: Any = njit(cache=True, nogil=True, error_model="numpy")
    # copies, so that the compiled functions call one another and the interpreted ones do too
    space: dict[str, Any] = dict(vars(events))
    for function in _IN_ORDER:
        copy = FunctionType(function.__code__, space, function.__name__)
        space[function.__name__] = compile_it(copy)
    play: Callable[..., None] = space["play"]
    return play
