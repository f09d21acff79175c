"""The second reading of the score: a discrete-event replay that gives every operation its modelled time.

What takes turns: the arrays of a layer shard, the digital units of an accelerator, and the links.  Operations
on the same arrays or digital units start in program order.  Transfers take links first come, first served by
the moment at which their dependencies are met, ties by id; one that waits for a link is not overtaken on its
other links.  Everything else overlaps as the dependencies allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from rpucluster.cluster import Accelerator, Cluster
from rpucluster.collective import CollectiveCost, Hold, cost, send_cost
from rpucluster.errors import InputError
from rpucluster.program import Collective, Digital, Op, Program, Read, Rewrite, Send, Update


class Energy(NamedTuple):
    """Joules of one operation, or of many, by what consumes them."""

    array: float = 0.0
    adc: float = 0.0
    update: float = 0.0
    digital: float = 0.0
    on_chip: float = 0.0
    links: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """When each operation of a program ran on a cluster, and what it consumed; lists go by operation id."""

    program: Program
    cluster: Cluster
    start_s: tuple[float, ...]
    """Modelled seconds since the program began."""
    finish_s: tuple[float, ...]
    energy_J: tuple[Energy, ...]
    causes: tuple[int, ...]
    """The operation whose end let this one start: the last dependency, the one before on the same arrays or
    digital units, or the transfer that had the link; -1 for a start at 0."""
    link_bytes: Mapping[int, float]
    """Bytes that crossed each link that was used, by the number of the link."""
    link_busy_s: Mapping[int, float]
    """Seconds that each of these links was sending: its bytes over its bandwidth."""

    @property
    def makespan_s(self) -> float:
        """When the last operation ends."""
        return max(self.finish_s, default=0.0)

    def critical_path(self) -> tuple[int, ...]:
        """The operations that fix the makespan, in order: each started when the one before let it."""
        if not self.finish_s:
            return ()
        op = self.finish_s.index(self.makespan_s)
        path = [op]
        while (op := self.causes[op]) >= 0:
            path.append(op)
        return tuple(reversed(path))


def replay(program: Program, cluster: Cluster) -> Timeline:
    """Time a program on a cluster.

    Deterministic, in O(n log n) of the operations.  Raises `InputError` when the program names accelerators
    that the cluster does not have.
    """
    if program.accelerators and program.accelerators[-1] >= cluster.accelerators:
        raise InputError(
            f"the program uses accelerator {program.accelerators[-1]} but {cluster.name} has "
            f"{cluster.accelerators}, numbered from 0; raise a [network.axis] size"
        )
    prices = _prices(program, cluster)
    waiting, followers = _order(program, cluster.accelerator)
    start, finish = [0.0] * len(program), [0.0] * len(program)
    ready, causes = [0.0] * len(program), [-1] * len(program)
    free: dict[int, tuple[float, int]] = {}  # link -> when it is free again, and which operation leaves it
    heap = [(0.0, op) for op, count in enumerate(waiting) if count == 0]  # ascending, thus a heap
    while heap:
        begin, op = heappop(heap)
        price = prices[op]
        for link, after, _ in price.holds:
            leaves, holder = free.get(link, (0.0, -1))
            if leaves - after > begin:
                begin, causes[op] = leaves - after, holder
        for link, _, until in price.holds:
            free[link] = (begin + until, op)
        start[op] = begin
        end = finish[op] = begin + price.seconds
        for follower in followers[op]:
            if end > ready[follower]:
                ready[follower], causes[follower] = end, op
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heappush(heap, (ready[follower], follower))
    link_bytes = _link_bytes(prices)
    network = cluster.network
    return Timeline(
        program=program,
        cluster=cluster,
        start_s=tuple(start),
        finish_s=tuple(finish),
        energy_J=tuple(price.energy for price in prices),
        causes=tuple(causes),
        link_bytes=link_bytes,
        link_busy_s={link: nbytes / network.axis_of(link).bandwidth for link, nbytes in link_bytes.items()},
    )


def _order(program: Program, chip: Accelerator) -> tuple[list[int], list[list[int]]]:
    """How many operations each one waits for and which wait for it, dependencies and turns together."""
    shards: dict[tuple[int, int], int] = {}
    for op in program.ops:
        if isinstance(op, Read | Update | Rewrite):
            shards[op.accelerator, op.layer] = max(op.tiles, shards.get((op.accelerator, op.layer), 0))
    held = dict.fromkeys(program.accelerators, 0)
    for (accelerator, _), tiles in shards.items():
        held[accelerator] += tiles
    # where all tiles may be active together the layers do not mind one another, else they take turns
    together = {accelerator for accelerator, tiles in held.items() if tiles <= chip.active_tiles}
    waiting = [0] * len(program)
    followers: list[list[int]] = [[] for _ in waiting]
    latest: dict[tuple[int, int], int] = {}
    for i, op in enumerate(program.ops):
        for dep in op.deps:
            followers[dep].append(i)
        waiting[i] = len(op.deps)
        if isinstance(op, Collective | Send):
            continue
        digital = isinstance(op, Digital)
        unit = -1 if digital else op.layer if op.accelerator in together else -2
        before = latest.get((op.accelerator, unit))
        if before is not None:
            followers[before].append(i)
            waiting[i] += 1
        latest[op.accelerator, unit] = i
    return waiting, followers


class _Price(NamedTuple):
    seconds: float
    energy: Energy
    holds: tuple[Hold, ...] = ()
    link_bytes: Mapping[int, float] | None = None


def _prices(program: Program, cluster: Cluster) -> list[_Price]:
    # most operations of a step repeat another but for their microbatch, so equal counts are priced once
    known: dict[object, _Price] = {}
    prices = []
    for op in program.ops:
        counts = _counts(op)
        price = known.get(counts)
        if price is None:
            price = known[counts] = _price(op, cluster)
        prices.append(price)
    return prices


def _counts(op: Op) -> tuple[object, ...]:
    """Everything that the price of an operation depends on."""
    match op:
        case Read():
            lines = (op.input_lines, op.output_lines)
            return (Read, op.direction, op.vectors, op.tiles, op.cells, lines, op.additions)
        case Digital():
            return (Digital, op.operations)
        case Update():
            return (Update, op.samples, op.tiles, op.cells, op.bit_length, op.pulsed, op.planes, op.alone)
        case Rewrite():
            return (Rewrite, op.kind, op.rows, op.tiles, op.cells, op.bit_length)
        case Collective():
            return (Collective, op.kind, op.members, op.elements, op.word_bits)
        case Send():
            return (Send, op.source, op.destination, op.elements, op.word_bits)


def _price(op: Op, cluster: Cluster) -> _Price:
    chip = cluster.accelerator
    match op:
        case Read():
            return _read(op, chip)
        case Digital():
            energy = Energy(digital=op.operations * chip.digital_energy)
            return _Price(op.operations / chip.digital_rate, energy)
        case Update():
            return _update(op, chip)
        case Rewrite():
            return _rewrite(op, chip)
        case Collective():
            return _sent(cost(op.kind, op.members, op.bytes, cluster.network))
        case Send():
            return _sent(send_cost(op.source, op.destination, op.bytes, cluster.network))


def _read(op: Read, chip: Accelerator) -> _Price:
    """Passes one after the other; on-chip transfers and additions stream beside them, the slowest counts."""
    moved = op.vectors * chip.pass_bytes(op.direction, op.input_lines, op.output_lines)
    additions = op.vectors * op.additions
    return _Price(
        max(
            op.vectors * chip.waves(op.tiles) * chip.pass_time(op.direction),
            moved / chip.on_chip_bandwidth,
            additions / chip.digital_rate,
        ),
        Energy(
            array=op.vectors * op.cells * chip.read_energy,
            adc=op.vectors * op.output_lines * chip.adc_energy,
            digital=additions * chip.digital_energy,
            on_chip=moved * chip.on_chip_energy,
        ),
    )


def _update(op: Update, chip: Accelerator) -> _Price:
    """Pulse cycles, then lines by themselves, whose digital work and transfers on the chip stream beside them."""
    # x and delta lie at the tiles from their passes, so pulse cycles move nothing on the chip
    slots = op.samples * chip.update_phases * op.bit_length if op.pulsed else 0
    seconds = slots * chip.pulse_width * chip.waves(op.tiles)
    pulsed = slots * op.cells * op.planes * chip.pulse_energy
    lines = op.alone
    if lines is None:
        return _Price(seconds, Energy(update=pulsed))
    line_slots = chip.update_phases * lines.slots
    analog = lines.passes_in_turn * chip.pass_time(lines.direction)
    analog += lines.writes_in_turn * line_slots * chip.pulse_width
    # our assumption (U): what is read crosses the chip at the width of the ADC, pulse counts at that of the DAC
    moved = chip.pass_bytes("forward", lines.written, lines.values)
    return _Price(
        seconds
        + max(
            analog * chip.waves(op.tiles),
            moved / chip.on_chip_bandwidth,
            lines.operations / chip.digital_rate,
        ),
        Energy(
            array=lines.values * chip.read_energy,
            adc=lines.values * chip.adc_energy,
            update=pulsed + line_slots * lines.written * chip.pulse_energy,
            digital=lines.operations * chip.digital_energy,
            on_chip=moved * chip.on_chip_energy,
        ),
    )


def _rewrite(op: Rewrite, chip: Accelerator) -> _Price:
    """Row by row: a backward pass reads a row out, a whole update programs one; each cell is reached once.

    Our assumptions (U): each cell is driven at the average activity, and its value crosses the chip at the
    width of the converters, ADC when read out and DAC when programmed.
    """
    if op.kind == "read_out":
        seconds = op.rows * chip.pass_time("backward")
        moved = chip.pass_bytes("backward", 0, op.cells)
        energy = Energy(
            array=op.cells * chip.read_energy,
            adc=op.cells * chip.adc_energy,
            on_chip=moved * chip.on_chip_energy,
        )
    else:
        slots = chip.update_phases * op.bit_length
        seconds = op.rows * slots * chip.pulse_width
        moved = chip.pass_bytes("forward", op.cells, 0)
        energy = Energy(
            update=slots * op.cells * chip.pulse_energy,
            on_chip=moved * chip.on_chip_energy,
        )
    return _Price(max(seconds * chip.waves(op.tiles), moved / chip.on_chip_bandwidth), energy)


def _sent(sending: CollectiveCost) -> _Price:
    energy = Energy(links=sending.energy_J)
    return _Price(sending.modelled_s, energy, sending.holds, sending.link_bytes)


def _link_bytes(prices: list[_Price]) -> dict[int, float]:
    # equal operations share a price: counting them first makes a long program of few prices quick
    times: dict[int, int] = {}
    by_id: dict[int, Mapping[int, float]] = {}
    for price in prices:
        if price.link_bytes:
            times[id(price)] = times.get(id(price), 0) + 1
            by_id[id(price)] = price.link_bytes
    total: dict[int, float] = {}
    for key, count in times.items():
        for link, nbytes in by_id[key].items():
            total[link] = total.get(link, 0.0) + count * nbytes
    return dict(sorted(total.items()))
