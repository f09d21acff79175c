"""The event loop of a replay.

These functions are interpreted over lists for short programs and compiled over arrays for long ones
(`rpucluster.timeline.compiled`), so they use nothing but numbers, indices and each other.
"""

from typing import Any, NamedTuple

from rpucluster.timeline.order import DIGITAL, STREAMS, TRANSFER, TURN, Order

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


def streams(op: int, order: Order, machine: Machine) -> bool:
    """Whether an operation passes vector by vector."""
    return bool(machine.streaming[0]) and order.vectors[op] > 1


def compute(op: int, now: float, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Start an operation on an accelerator."""
    price, place = order.price[op], order.place[op]
    slow = machine.slow[place]
    # what passes vector by vector takes its turns between those of others, so only its end can be late
    in_turn = order.works_with[op] == DIGITAL and not streams(op, order, machine)
    if in_turn and state.digital_free[place] > now:
        now = state.digital_free[place]
        state.cause[op], state.reason[op] = state.digital_last[place], DIGITAL_BUSY
    end = now + demands.analog[price] * slow
    streams_from = now + demands.lead[price] * slow
    if demands.on_chip[price] > 0:
        state.on_chip_free[place] = max(state.on_chip_free[place], streams_from) + demands.on_chip[price] * slow
        end = max(end, state.on_chip_free[place])
    if demands.digital[price] > 0:
        state.digital_free[place] = max(state.digital_free[place], streams_from) + demands.digital[price] * slow
        state.digital_last[place] = op
        end = max(end, state.digital_free[place])
    last = state.bound[op] + demands.seconds[price] * slow / order.vectors[op]
    if state.bound_by[op] >= 0 and last > end:
        end = last
        state.cause[op], state.reason[op] = state.bound_by[op], STREAM
    state.start[op], state.finish[op] = now, end
    notify(op, order, demands, machine, state)


def issue(place: int, now: float, why: int, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Start, in program order, what can make its tiles active on an accelerator where their number is limited; `why`
    is the operation that has just let tiles go, or -1."""
    limit = machine.active[place]
    op = state.head[place]
    while op >= 0 and state.armed[op] and min(order.tiles[op], limit) <= state.idle[place]:
        if state.ready[op] < now:
            state.cause[op], state.reason[op] = why, TILES_BUSY
        state.idle[place] -= min(order.tiles[op], limit)
        compute(op, now, order, demands, machine, state)
        push(state, state.finish[op], op)
        if why < 0:  # those behind it waited for what it waited for
            why = state.cause[op]
        op = order.issued_next[op]
        state.head[place] = op


def transfer(op: int, now: float, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Start a transfer as soon as its links can be had one after the other."""
    if machine.in_order[0]:
        entry = held_up(op, now, order, demands, state)
        if entry >= 0:
            wait_for_link(op, entry, now, order, demands, state)
        else:
            begin_transfer(op, now, order, demands, machine, state)
        return
    price = order.price[op]
    begin = now
    for i in range(demands.hold_first[price], demands.hold_first[price + 1]):
        leaves = state.link_free[demands.hold_link[i]] - demands.hold_begin[i]
        if leaves > begin:
            begin = leaves
            state.cause[op], state.reason[op] = state.link_last[demands.hold_link[i]], LINK_BUSY
    begin_transfer(op, begin, order, demands, machine, state)


def held_up(op: int, now: float, order: Order, demands: Demands, state: State) -> int:
    """Which of the links that a transfer asks for keeps it longest, as an entry of `Demands.hold_link`; -1 for none.

    A link for which something waits that comes earlier in the program is not to be had either.
    """
    price = order.price[op]
    entry, latest = -1, now
    for i in range(demands.hold_first[price], demands.hold_first[price + 1]):
        link = demands.hold_link[i]
        leaves = state.link_free[link] - demands.hold_begin[i]
        if leaves > latest or (entry < 0 and 0 <= state.queue_head[link] < op):
            entry, latest = i, max(latest, leaves)
    return entry


def wait_for_link(op: int, entry: int, now: float, order: Order, demands: Demands, state: State) -> None:
    """Put a transfer in the queue of a link, given as an entry of `Demands.hold_link`."""
    link = demands.hold_link[entry]
    line_up(op, link, max(now, state.link_free[link] - demands.hold_begin[entry]), order, state)


def line_up(op: int, queue: int, at: float, order: Order, state: State) -> None:
    """Put an operation in a queue, in the order of the program, which is looked at again at a time, if it is first."""
    tail = state.queue_tail[queue]
    if state.queue_head[queue] < 0:
        state.queue_head[queue] = state.queue_tail[queue] = op
        state.queue_next[op] = -1
    elif tail < op:
        state.queue_next[tail] = state.queue_tail[queue] = op
        state.queue_next[op] = -1
    elif op < state.queue_head[queue]:
        state.queue_next[op] = state.queue_head[queue]
        state.queue_head[queue] = op
    else:
        before = state.queue_head[queue]
        while state.queue_next[before] < op:
            before = state.queue_next[before]
        state.queue_next[op] = state.queue_next[before]
        state.queue_next[before] = op
    if state.queue_head[queue] == op and (state.wake[queue] < 0 or at < state.wake[queue]):
        state.wake[queue] = at
        push(state, at, 3 * len(order.place) + 1 + queue)


def serve_link(link: int, now: float, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Start what waits for a link as far as it can, in the order of the program; what waits for another link more goes
    there."""
    while state.queue_head[link] >= 0:
        op = state.queue_head[link]
        state.queue_head[link] = state.queue_next[op]
        entry = held_up(op, now, order, demands, state)
        if entry < 0:
            state.cause[op], state.reason[op] = state.link_last[link], LINK_BUSY
            begin_transfer(op, now, order, demands, machine, state)
        else:
            wait_for_link(op, entry, now, order, demands, state)
            if demands.hold_link[entry] == link:
                return


def work(op: int, now: float, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Let an operation have the digital units, or wait for them in the order of the program."""
    place = order.place[op]
    queue = len(machine.capacity) + place
    free, first = state.digital_free[place], state.queue_head[queue]
    if free > now or 0 <= first < op:
        line_up(op, queue, max(now, free), order, state)
    else:
        compute(op, now, order, demands, machine, state)


def serve_digital(place: int, now: float, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Give the digital units to what waits for them and stands first in the program."""
    queue = len(machine.capacity) + place
    while state.queue_head[queue] >= 0:
        op = state.queue_head[queue]
        state.queue_head[queue] = state.queue_next[op]
        if state.digital_free[place] > now:  # a read has begun to add sums up
            line_up(op, queue, state.digital_free[place], order, state)
            return
        state.cause[op], state.reason[op] = state.digital_last[place], DIGITAL_BUSY
        compute(op, now, order, demands, machine, state)


def begin_transfer(op: int, begin: float, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Start a transfer that has its links."""
    price = order.price[op]
    for i in range(demands.hold_first[price], demands.hold_first[price + 1]):
        state.link_free[demands.hold_link[i]] = begin + demands.hold_end[i]
        state.link_last[demands.hold_link[i]] = op
    state.start[op] = begin
    if demands.share_first[price] < demands.share_first[price + 1] and demands.transfer[price] > 0:
        state.remaining[op] = demands.transfer[price]
        push(state, begin, 2 * len(order.place) + 1 + op)
    else:
        state.finish[op] = begin + demands.seconds[price]
        notify(op, order, demands, machine, state)


def advance(now: float, state: State) -> None:
    """Follow the transfers that share links until now."""
    for i in range(state.count[0]):
        op = state.flows[i]
        state.remaining[op] -= (now - state.clock[0]) * state.speed[op]
    state.clock[0] = now


def share(order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Give the transfers under way their max-min fair rates, by progressive filling (Bertsekas & Gallager, Data
    Networks, 1992, section 6.5.2), and note when the next one ends."""
    count = state.count[0]
    for i in range(count):
        op = state.flows[i]
        state.speed[op] = -1.0
        price = order.price[op]
        for e in range(demands.share_first[price], demands.share_first[price + 1]):
            state.left[demands.share_link[e]] = machine.capacity[demands.share_link[e]]
    settled = 0
    while settled < count:
        for cleared in (True, False):
            for i in range(count):
                op = state.flows[i]
                price = order.price[op]
                if state.speed[op] < 0:
                    for e in range(demands.share_first[price], demands.share_first[price + 1]):
                        link = demands.share_link[e]
                        claim = demands.share_rate[e] / demands.top_rate[price]
                        state.claims[link] = 0.0 if cleared else state.claims[link] + claim
        level = 1e300
        for i in range(count):
            op = state.flows[i]
            price = order.price[op]
            if state.speed[op] < 0:
                level = min(level, demands.top_rate[price])
                for e in range(demands.share_first[price], demands.share_first[price + 1]):
                    link = demands.share_link[e]
                    level = min(level, state.left[link] / state.claims[link])
        enough = level * (1 + NEGLIGIBLE)
        for i in range(count):
            op = state.flows[i]
            price = order.price[op]
            state.fresh[op] = 0
            if state.speed[op] < 0:
                full = demands.top_rate[price] <= enough
                for e in range(demands.share_first[price], demands.share_first[price + 1]):
                    link = demands.share_link[e]
                    full = full or state.left[link] / state.claims[link] <= enough
                if full:
                    state.fresh[op] = 1
                    settled += 1
        for i in range(count):
            op = state.flows[i]
            price = order.price[op]
            if state.fresh[op] == 1:
                state.speed[op] = level / demands.top_rate[price]
                for e in range(demands.share_first[price], demands.share_first[price + 1]):
                    state.left[demands.share_link[e]] -= state.speed[op] * demands.share_rate[e]
    soonest = 1e300
    for i in range(count):
        op = state.flows[i]
        soonest = min(soonest, state.clock[0] + max(state.remaining[op], 0.0) / state.speed[op])
    state.clock[1] = soonest
    if count > 0:
        push(state, soonest, len(order.place))


def end_flows(now: float, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """End the transfers that have shared links for long enough."""
    advance(now, state)
    soonest = 1e300
    for i in range(state.count[0]):
        op = state.flows[i]
        soonest = min(soonest, state.remaining[op] / state.speed[op])
    kept = ended = 0
    for i in range(state.count[0]):
        op = state.flows[i]
        price = order.price[op]
        whole = demands.transfer[price]
        if state.remaining[op] / state.speed[op] <= soonest + NEGLIGIBLE * whole:
            state.finish[op] = now + demands.seconds[price] - whole
            state.ended[ended] = op
            ended += 1
        else:
            state.flows[kept] = op
            kept += 1
    state.count[0] = kept
    for i in range(ended):
        notify(state.ended[i], order, demands, machine, state)
    share(order, demands, machine, state)


def play(order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Let everything happen; the outcome stands in the state."""
    n = len(order.place)
    for op in range(n):
        if state.waiting[op] == 0:
            push(state, 0.0, n + 1 + op)
    while state.size[0] > 0:
        now, code = pop(state)
        if code < n:  # an operation lets its tiles go
            place = order.place[code]
            state.idle[place] += min(order.tiles[code], machine.active[place])
            issue(place, now, code, order, demands, machine, state)
        elif code == n:
            if now == state.clock[1]:  # else others have come or gone since
                end_flows(now, order, demands, machine, state)
        elif code > 3 * n:
            queue, links = code - 3 * n - 1, len(machine.capacity)
            if now == state.wake[queue]:  # else it was looked at earlier
                state.wake[queue] = -1.0
                if queue < links:
                    serve_link(queue, now, order, demands, machine, state)
                else:
                    serve_digital(queue - links, now, order, demands, machine, state)
        elif code > 2 * n:
            advance(now, state)
            state.flows[state.count[0]] = code - 2 * n - 1
            state.count[0] += 1
            share(order, demands, machine, state)
        else:
            op = code - n - 1
            place = order.place[op]
            if order.works_with[op] == TRANSFER:
                transfer(op, now, order, demands, machine, state)
            elif order.works_with[op] == DIGITAL and machine.in_order[1] and not streams(op, order, machine):
                work(op, now, order, demands, machine, state)
            elif order.works_with[op] == DIGITAL or machine.active[place] == 0:
                compute(op, now, order, demands, machine, state)
            else:
                state.armed[op] = 1
                issue(place, now, -1, order, demands, machine, state)
