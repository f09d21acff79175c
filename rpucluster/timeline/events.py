"""The event loop of a replay.

These functions, with those of `signals` and `transfers`, are interpreted over lists for short programs and compiled
over arrays for long ones (`rpucluster.timeline.compiled`), so they use nothing but numbers, indices and each other, and
make no arrays.
"""

from rpucluster.timeline.order import DIGITAL, TRANSFER, Order
from rpucluster.timeline.signals import notify, pop, push
from rpucluster.timeline.state import DIGITAL_BUSY, STREAM, TILES_BUSY, Demands, Machine, State
from rpucluster.timeline.transfers import advance, end_flows, line_up, serve_link, share, transfer


def compute(op: int, now: float, order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Start an operation on an accelerator."""
    price, place = order.price[op], order.place[op]
    slow = machine.slow[place]
    # what passes vector by vector takes its turns between those of others, so only its end can be late
    in_turn = order.works_with[op] == DIGITAL and not (machine.streaming[0] and order.vectors[op] > 1)
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


def play(order: Order, demands: Demands, machine: Machine, state: State) -> None:
    """Let everything happen, or what `State.lease` allows; the outcome stands in the state once nothing is left."""
    n = len(order.place)
    if state.lease[1] == 0:
        state.lease[1] = 1
        for op in range(n):
            if state.waiting[op] == 0:
                push(state, 0.0, n + 1 + op)
    while state.size[0] > 0 and state.lease[0] > 0:
        state.lease[0] -= 1
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
            elif (
                order.works_with[op] == DIGITAL
                and machine.in_order[1]
                and not (machine.streaming[0] and order.vectors[op] > 1)
            ):
                work(op, now, order, demands, machine, state)
            elif order.works_with[op] == DIGITAL or machine.active[place] == 0:
                compute(op, now, order, demands, machine, state)
            else:
                state.armed[op] = 1
                issue(place, now, -1, order, demands, machine, state)
