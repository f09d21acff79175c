"""Transfers in the event loop of a replay: on links that they hold, wait for or share.

Like all of the event loop, interpreted over lists and compiled over arrays: nothing but numbers, indices and functions,
and no new arrays.
"""

from rpucluster.timeline.order import Order
from rpucluster.timeline.signals import notify, push
from rpucluster.timeline.state import LINK_BUSY, NEGLIGIBLE, Demands, Machine, State


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
