"""The events to come, and what operations tell those that follow them.

Like all of the event loop, interpreted over lists and compiled over arrays: nothing but numbers, indices and functions,
and no new arrays.
"""

from rpucluster.timeline.order import STREAMS, TURN, Order
from rpucluster.timeline.state import ARRAYS_BUSY, DEPENDENCY, STREAM, Demands, Machine, State


def push(state: State, time: float, code: int) -> None:
    """Add an event."""
    times, codes = state.times, state.codes
    i = state.size[0]
    state.size[0] = i + 1
    while i > 0:
        above = (i - 1) >> 1
        if times[above] < time or (times[above] == time and codes[above] < code):
            break
        times[i], codes[i] = times[above], codes[above]
        i = above
    times[i], codes[i] = time, code


def pop(state: State) -> tuple[float, int]:
    """Take the earliest event, of equals the one with the smallest code."""
    times, codes = state.times, state.codes
    first = (times[0], codes[0])
    size = state.size[0] - 1
    state.size[0] = size
    time, code = times[size], codes[size]
    i, below = 0, 1
    while below < size:
        other = below + 1
        if other < size and (
            times[other] < times[below] or (times[other] == times[below] and codes[other] < codes[below])
        ):
            below = other
        if time < times[below] or (time == times[below] and code < codes[below]):
            break
        times[i], codes[i] = times[below], codes[below]
        i = below
        below = 2 * i + 1
    times[i], codes[i] = time, code
    return first


def notify(op: int, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Tell those that follow an operation when it ends, or gives its first vector."""
    end = state.finish[op]
    for edge in range(order.first[op], order.first[op + 1]):
        follower, why = order.follower[edge], order.why[edge]
        at = end
        reason = ARRAYS_BUSY if why == TURN else DEPENDENCY
        if why == STREAMS and machine.streaming[0]:
            alone = demands.seconds[order.price[op]] * machine.slow[order.place[op]]
            at = min(end, state.start[op] + alone / order.vectors[op])
            reason = STREAM
            if end > state.bound[follower]:
                state.bound[follower], state.bound_by[follower] = end, op
        if at > state.ready[follower]:
            state.ready[follower], state.cause[follower], state.reason[follower] = at, op, reason
        state.waiting[follower] -= 1
        if state.waiting[follower] == 0:
            push(state, state.ready[follower], len(order.place) + 1 + follower)
