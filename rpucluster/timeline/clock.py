"""`replay(program, cluster)`: a program against the clock of a cluster.

What takes turns in program order: the arrays of a layer shard and, where they are fewer than an accelerator holds, the
tiles that may be active at once.  First come, first served, by the moment at which an operation has all that it depends
on, ties by id: the digital units, the network on the chip and the links; one that waits for a link is not overtaken on
its other links.  With ``queue = "program"`` in ``[network]`` or ``[accelerator]`` links or digital units take of what
waits for them what comes first in the program.  On an axis with ``contention = "fair"`` transfers share the bandwidth,
max-min.  Everything else overlaps as the dependencies allow.
"""

import math
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from rpucluster.cluster import Cluster
from rpucluster.errors import InputError
from rpucluster.program import Program
from rpucluster.timeline import events
from rpucluster.timeline.link_demands import demands_on_links
from rpucluster.timeline.machine_code import compiled_play
from rpucluster.timeline.order import Arranged, Order, arrange
from rpucluster.timeline.prices import NOTHING_COUNTED, Counted, Price, price_of
from rpucluster.timeline.state import START, Demands, Machine, State
from rpucluster.timeline.timeline import REASONS, Timeline

_Columns = TypeVar("_Columns", Order, Demands, Machine)
INTERPRETED_OPERATIONS = 20_000
"""Programs of more are replayed by compiled code, with the same results."""
_LEASE = 4096
"""Events between two looks at the clock of the host, where there is a deadline: up to some tenths of a second where
hundreds of transfers share links."""


def replay(
    program: Program | Arranged, cluster: Cluster, *, counted: Counted = NOTHING_COUNTED, compiled: bool | None = None
) -> Timeline:
    """Time a program on a cluster.

    Deterministic, in O(n log n) of the operations.  A program that is replayed again and again may be given as
    `arrange` makes it.  `counted` is what depends on the data, from a real run.  `compiled` says whether to use
    compiled code; None is what suits the length of the program.  Raises `InputError` when the program names
    accelerators that the cluster does not have.
    """
    arranged = program if isinstance(program, Arranged) else arrange(program)
    program = arranged.program
    if program.accelerators and program.accelerators[-1] >= cluster.accelerators:
        raise InputError(
            f"the program uses accelerator {program.accelerators[-1]} but {cluster.name} has "
            f"{cluster.accelerators}, numbered from 0; raise a [network.axis] size"
        )
    prices = tuple(price_of(op, cluster, counted) for op in arranged.examples)
    order = arranged.order
    slowdowns = cluster.faults.slowdowns
    slow = [slowdowns.get(accelerator, 1.0) for accelerator in program.accelerators]
    state = play(order, prices, arranged.held, slow, cluster, compiled=compiled)
    start, finish, cause, reason = (np.asarray(column).tolist() for column in state[:4])
    return Timeline(
        program=program,
        cluster=cluster,
        start_s=tuple(start),
        finish_s=tuple(finish),
        causes=tuple(cause),
        reasons=tuple(map(REASONS.__getitem__, reason)),
        prices=prices,
        price=tuple(order.price.tolist()),
    )


def play(
    order: Order,
    prices: Sequence[Price],
    held: Sequence[int],
    slow: Sequence[float],
    cluster: Cluster,
    *,
    compiled: bool | None = None,
    deadline: float = math.inf,
) -> State:
    """Let the events of a program happen, given as its order and prices; the first columns of the state say when.

    `held` are the tiles of the shards at each place, `slow` how many times longer everything takes there.
    Raises `TimeoutError` where that has not ended when `time.perf_counter` comes to `deadline`.
    """
    demands, machine = _numbers(prices, held, slow, cluster)
    if compiled is None:
        # transfers that share links are all looked at whenever one of them begins or ends
        work = len(order.place) * (20 if len(demands.share_link) else 1)
        compiled = work > INTERPRETED_OPERATIONS
    state = _state(order, machine, compiled)
    columns = (order, demands, machine) if compiled else (_lists(order), _lists(demands), _lists(machine))
    perform = compiled_play if compiled else events.play
    if deadline < math.inf:
        began = time.perf_counter()
        perform(*columns, state)  # without a lease nothing happens yet, but code is compiled where there is none
        deadline += time.perf_counter() - began
    while True:
        state.lease[0] = _LEASE if deadline < math.inf else len(state.times) * _LEASE
        perform(*columns, state)
        if state.size[0] == 0:
            return state
        if time.perf_counter() > deadline:
            raise TimeoutError("a replay takes longer than it may")


def _numbers(
    prices: Sequence[Price], held: Sequence[int], slow: Sequence[float], cluster: Cluster
) -> tuple[Demands, Machine]:
    chip = cluster.accelerator
    links = demands_on_links([price.sending for price in prices], cluster.network)
    demands = Demands(
        seconds=np.array([price.seconds for price in prices]),
        analog=np.array([price.analog_s for price in prices]),
        lead=np.array([price.lead_s for price in prices]),
        on_chip=np.array([price.on_chip_s for price in prices]),
        digital=np.array([price.digital_s for price in prices]),
        transfer=np.array([price.sending.transfer_s if price.sending else 0.0 for price in prices]),
        hold_first=links.hold_first,
        hold_link=links.hold_link,
        hold_begin=links.hold_begin,
        hold_end=links.hold_end,
        share_first=links.share_first,
        share_link=links.share_link,
        share_rate=links.share_rate,
        top_rate=links.top_rate,
    )
    machine = Machine(
        active=np.array([chip.active_tiles if tiles > chip.active_tiles else 0 for tiles in held], np.int64),
        slow=np.array(slow, np.float64),
        streaming=np.array([chip.layer_streaming]),
        capacity=links.capacity,
        in_order=np.array([cluster.network.queue == "program", chip.queue == "program"]),
    )
    return demands, machine


def _state(order: Order, machine: Machine, arrays: bool) -> State:
    n, places, links = len(order.place), len(machine.active), len(machine.capacity)

    def numbers(count: int, value: float | int) -> Any:
        if not arrays:
            return [value] * count
        # zeros take no memory until something is written
        return np.full(count, value) if value else np.zeros(count, type(value))

    return State(
        start=numbers(n, 0.0),
        finish=numbers(n, 0.0),
        cause=numbers(n, -1),
        reason=numbers(n, START),
        ready=numbers(n, 0.0),
        waiting=order.waiting.copy() if arrays else order.waiting.tolist(),
        bound=numbers(n, 0.0),
        bound_by=numbers(n, -1),
        # of each operation one event at a time, and one for each change of those that share links; of each transfer
        # that comes to the head of a queue one more, and of each queue
        times=numbers(4 * n + 1 + links + places, 0.0),
        codes=numbers(4 * n + 1 + links + places, 0),
        size=numbers(1, 0),
        on_chip_free=numbers(places, 0.0),
        digital_free=numbers(places, 0.0),
        digital_last=numbers(places, -1),
        idle=machine.active.copy() if arrays else machine.active.tolist(),
        head=order.issued_first.copy() if arrays else order.issued_first.tolist(),
        armed=numbers(n, 0),
        link_free=numbers(links, 0.0),
        link_last=numbers(links, -1),
        flows=numbers(n, 0),
        count=numbers(1, 0),
        clock=numbers(2, 0.0),
        remaining=numbers(n, 0.0),
        speed=numbers(n, 0.0),
        fresh=numbers(n, 0),
        ended=numbers(n, 0),
        queue_head=numbers(links + places, -1),
        queue_tail=numbers(links + places, -1),
        queue_next=numbers(n, -1),
        wake=numbers(links + places, -1.0),
        left=numbers(links, 0.0),
        claims=numbers(links, 0.0),
        lease=numbers(2, 0),
    )


def _lists(arrays: _Columns) -> _Columns:
    return type(arrays)(*(column.tolist() for column in arrays))
