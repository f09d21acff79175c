"""What the event loop of a replay reads and changes, as columns of numbers."""

from typing import Any, NamedTuple

START, DEPENDENCY, STREAM, ARRAYS_BUSY, TILES_BUSY, DIGITAL_BUSY, LINK_BUSY = range(7)
"""Why an operation did not run earlier, in the order of `rpucluster.timeline.timeline.REASONS`."""
NEGLIGIBLE = 1e-12
"""Shares of a transfer or of a bandwidth that are rounding."""

Numbers = Any
"""A list or an array."""


class Demands(NamedTuple):
    """What operations take, by price; columns as in `rpucluster.timeline.prices.Price`."""

    seconds: Numbers
    analog: Numbers
    lead: Numbers
    on_chip: Numbers
    digital: Numbers
    transfer: Numbers
    hold_first: Numbers
    """Where its links start in the next three; one more entry than prices."""
    hold_link: Numbers
    hold_begin: Numbers
    hold_end: Numbers
    share_first: Numbers
    """Where its shared links start in the next two; one more entry than prices."""
    share_link: Numbers
    share_rate: Numbers
    """Bytes per second that it puts on the link at full speed."""
    top_rate: Numbers
    """The largest of these, by price."""


class Machine(NamedTuple):
    """What operations share; links are numbered from 0 as far as any is used."""

    active: Numbers
    """Tiles that may be active at once, by place; 0 where that is no limit."""
    slow: Numbers
    """How many times longer everything takes, by place."""
    streaming: Numbers
    """Of one entry: whether layers pass vectors on one by one."""
    capacity: Numbers
    """Bytes per second, by link."""
    in_order: Numbers
    """Whether what waits is served in the order of the program instead of its arrival: by links, by digital units."""


class State(NamedTuple):
    """What changes while events happen; the first four are the outcome, by operation."""

    start: Numbers
    finish: Numbers
    cause: Numbers
    reason: Numbers
    ready: Numbers
    """When the last of those that it follows let it start, by operation."""
    waiting: Numbers
    """How many it still follows."""
    bound: Numbers
    """When the last vector reaches it from another that streams, and who that is."""
    bound_by: Numbers
    times: Numbers
    """The events to come, a heap by time and code."""
    codes: Numbers
    size: Numbers
    on_chip_free: Numbers
    """When they are done with what they have, by place."""
    digital_free: Numbers
    digital_last: Numbers
    idle: Numbers
    """Tiles that may still become active, by place."""
    head: Numbers
    """Which operation may next make tiles active, by place, and whether all that it follows has ended."""
    armed: Numbers
    link_free: Numbers
    link_last: Numbers
    flows: Numbers
    """The transfers that share links now."""
    count: Numbers
    clock: Numbers
    """Until when they have been followed, and when the next will end."""
    remaining: Numbers
    """Seconds at full speed, by operation."""
    speed: Numbers
    fresh: Numbers
    """Whether its rate has just been found."""
    ended: Numbers
    queue_head: Numbers
    """What waits for each link, and behind the links for the digital units of each place: the first and the last in the
    order of the program, and by operation the next."""
    queue_tail: Numbers
    queue_next: Numbers
    wake: Numbers
    """When the first of them is looked at, by queue; below 0 where none waits."""
    left: Numbers
    """Bandwidth that is not yet given away, and the claims on it, by link."""
    claims: Numbers
    lease: Numbers
    """How many events may still happen before the loop pauses, and whether it has begun."""
