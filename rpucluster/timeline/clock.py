"""`replay(program, cluster)`: a program against the clock of a cluster.

What takes turns in program order: the arrays of a layer shard and, where they are fewer than an accelerator holds, the
tiles that may be active at once.  First come, first served, by the moment at which an operation has all that it depends
on, ties by id: the digital units, the network on the chip and the links; one that waits for a link is not overtaken on
its other links.  On an axis with ``contention = "fair"`` transfers share the
bandwidth, max-min.  Everything else overlaps as the dependencies allow.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.errors import InputError
from rpucluster.program import Program
from rpucluster.timeline import events
from rpucluster.timeline.compiled import compiled_play
from rpucluster.timeline.events import Demands, Machine, State
from rpucluster.timeline.order import Arranged, Order, arrange
from rpucluster.timeline.prices import Price, Repeats, price_of
from rpucluster.timeline.timeline import REASONS, Timeline

_Columns = TypeVar("_Columns", Order, Demands, Machine)
INTERPRETED_OPERATIONS = 20_000
"""Programs of more are replayed by compiled code, with the same results; loading it takes half a second."""


def replay(
    program: Program | Arranged, cluster: Cluster, *, repeats: Repeats = (0.0, 0.0), compiled: bool | None = None
) -> Timeline:
    """Time a program on a cluster.

    Deterministic, in O(n log n) of the operations.  A program that is replayed again and again may be given as
    `arrange` makes it.  `repeats` are further passes per vector, forward and backward, that bound management asked for
    in a real run.  `compiled` says whether to use compiled code; None is what suits the length of the program.  Raises
    `InputError` when the program names accelerators that the cluster does not have.
    """
    arranged = program if isinstance(program, Arranged) else arrange(program)
    program = arranged.program
    if program.accelerators and program.accelerators[-1] >= cluster.accelerators:
        raise InputError(
            f"the program uses accelerator {program.accelerators[-1]} but {cluster.name} has "
            f"{cluster.accelerators}, numbered from 0; raise a [network.axis] size"
        )
    prices = tuple(price_of(op, cluster, repeats) for op in arranged.examples)
    order = arranged.order
    demands, machine = _numbers(prices, arranged, cluster)
    if compiled is None:
        compiled = len(program) > INTERPRETED_OPERATIONS
    state = _state(order, machine, compiled)
    if compiled:
        compiled_play()(order, demands, machine, state)
    else:
        events.play(_lists(order), _lists(demands), _lists(machine), state)
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


def _numbers(prices: tuple[Price, ...], arranged: Arranged, cluster: Cluster) -> tuple[Demands, Machine]:
    network, chip = cluster.network, cluster.accelerator
    links: dict[int, int] = {}
    holds, shares, rates = [], [], []
    fair = any(wire.contention == "fair" for wire in network.wires)
    for price in prices:
        holds.append([(links.setdefault(link, len(links)), begin, end) for link, begin, end in price.holds])
        shared = [
            (links.setdefault(link, len(links)), nbytes / price.transfer_s)
            for link, nbytes in (price.link_bytes or {}).items()
            if fair and price.transfer_s > 0 and network.axis_of(link).contention == "fair"
        ]
        shares.append(shared)
        rates.append(max((rate for _, rate in shared), default=0.0))
    hold_link, hold_begin, hold_end = _columns(holds, 3)
    share_link, share_rate = _columns(shares, 2)
    demands = Demands(
        seconds=np.array([price.seconds for price in prices]),
        analog=np.array([price.analog_s for price in prices]),
        lead=np.array([price.lead_s for price in prices]),
        on_chip=np.array([price.on_chip_s for price in prices]),
        digital=np.array([price.digital_s for price in prices]),
        transfer=np.array([price.transfer_s for price in prices]),
        hold_first=_firsts(holds),
        hold_link=hold_link.astype(np.int64),
        hold_begin=hold_begin,
        hold_end=hold_end,
        share_first=_firsts(shares),
        share_link=share_link.astype(np.int64),
        share_rate=share_rate,
        top_rate=np.array(rates),
    )
    machine = Machine(
        active=np.array([chip.active_tiles if tiles > chip.active_tiles else 0 for tiles in arranged.held], np.int64),
        slow=np.array([cluster.faults.slowdowns.get(a, 1.0) for a in arranged.program.accelerators]),
        streaming=np.array([chip.layer_streaming]),
        capacity=np.array(network.bandwidths_of(links), np.float64),
    )
    return demands, machine


def _columns(rows: Sequence[Sequence[tuple[float, ...]]], width: int) -> NDArray[np.float64]:
    """The rows of all lists, one after the other, by column."""
    return np.array([row for part in rows for row in part], np.float64).reshape(-1, width).T


def _firsts(rows: Sequence[Sequence[object]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, rows)]).astype(np.int64)


def _state(order: Order, machine: Machine, arrays: bool) -> State:
    n, places, links = len(order.place), len(machine.active), len(machine.capacity)

    def numbers(count: int, value: float | int) -> Any:
        return np.full(count, value) if arrays else [value] * count

    return State(
        start=numbers(n, 0.0),
        finish=numbers(n, 0.0),
        cause=numbers(n, -1),
        reason=numbers(n, events.START),
        ready=numbers(n, 0.0),
        waiting=order.waiting.copy() if arrays else order.waiting.tolist(),
        bound=numbers(n, 0.0),
        bound_by=numbers(n, -1),
        # of each operation one event at a time, and one for each change of those that share links
        times=numbers(3 * n + 1, 0.0),
        codes=numbers(3 * n + 1, 0),
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
        left=numbers(links, 0.0),
        claims=numbers(links, 0.0),
    )


def _lists(arrays: _Columns) -> _Columns:
    return type(arrays)(*(column.tolist() for column in arrays))
