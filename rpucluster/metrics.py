"""What a timeline says in numbers: where the step goes, for each accelerator, link and component."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import Any

from rpucluster.axis_traffic import AxisUse, axis_traffic, parallelism_of
from rpucluster.program import Collective, Send, kind_of
from rpucluster.timeline import Energy, Timeline

Spans = list[tuple[float, float]]
_Draw = tuple[float, float, float]  # start, finish, watts


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorUse:
    """Where the step of one accelerator goes; the three add up to the makespan."""

    accelerator: int
    compute_s: float
    """Arrays or digital units work."""
    exposed_communication_s: float
    """Nothing computes while a transfer that it takes part in is under way."""
    idle_s: float
    """The rest; waiting for a link is part of it."""
    energy_J: float
    """Of its operations, of its share of the collectives and sends that it takes part in, and while it is idle."""
    mean_power_W: float
    """Its energy over the makespan."""
    peak_power_W: float
    """The most that it draws at any moment, each operation drawing its energy evenly over its time; operations that
    take no time are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUse:
    """What one link carried."""

    link: int
    name: str
    axis: str
    bytes: float
    busy_s: float
    """Seconds of sending: bytes over bandwidth."""
    utilisation: float
    """Busy over makespan; above 1 only on an axis without contention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The summary of one performance of a program; shares are of the makespan, averaged over the accelerators
    that take part."""

    modelled_step_s: float
    accelerators: tuple[AcceleratorUse, ...]
    compute_fraction: float
    exposed_communication_fraction: float
    idle_fraction: float
    links: tuple[LinkUse, ...]
    """Those that carried anything, by number."""
    axes: tuple[AxisUse, ...]
    """What each axis of the network carried, innermost first."""
    link_bytes: float
    """Bytes summed over the links: a message counts once for each hop."""
    energy_J: float
    energy_by_component_J: Mapping[str, float]
    """array, adc, update, digital, on_chip, links, idle; the last is what the accelerators that take part
    draw while they do not compute."""
    critical_path_s: Mapping[str, float]
    """Seconds of the critical path by kind of operation (forward, backward, update, send, or the `kind` that
    the operation itself carries), longest first; they add up to the step."""

    @property
    def bubble(self) -> float:
        """The idle share of the step, averaged over the accelerators that take part."""
        return self.idle_fraction

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with units in the names of the keys."""
        return {
            "modelled_step_s": self.modelled_step_s,
            "compute_fraction": self.compute_fraction,
            "exposed_communication_fraction": self.exposed_communication_fraction,
            "idle_fraction": self.idle_fraction,
            "bubble": self.bubble,
            "energy_J": self.energy_J,
            "energy_by_component_J": dict(self.energy_by_component_J),
            "critical_path_s": dict(self.critical_path_s),
            "link_bytes": self.link_bytes,
            "accelerators": [
                {
                    "accelerator": use.accelerator,
                    "compute_s": use.compute_s,
                    "exposed_communication_s": use.exposed_communication_s,
                    "idle_s": use.idle_s,
                    "energy_J": use.energy_J,
                    "mean_power_W": use.mean_power_W,
                    "peak_power_W": use.peak_power_W,
                }
                for use in self.accelerators
            ],
            "links": [
                {
                    "link": use.name,
                    "axis": use.axis,
                    "link_bytes": use.bytes,
                    "busy_s": use.busy_s,
                    "utilisation": use.utilisation,
                }
                for use in self.links
            ],
        }


def summarise(timeline: Timeline) -> Metrics:
    """Sum a timeline up, in O(n log n) of its operations."""
    makespan = timeline.makespan_s
    uses = _accelerators(timeline)
    components = Energy(*(math.fsum(column) for column in zip(*timeline.energy_J, strict=True)))
    idle_power = timeline.cluster.accelerator.idle_power
    by_component = components._asdict() | {"idle": idle_power * sum(makespan - use.compute_s for use in uses)}
    links = _links(timeline)
    whole = makespan * len(uses) or math.inf  # of nothing, every share is 0
    return Metrics(
        modelled_step_s=makespan,
        accelerators=uses,
        compute_fraction=math.fsum(use.compute_s for use in uses) / whole,
        exposed_communication_fraction=math.fsum(use.exposed_communication_s for use in uses) / whole,
        idle_fraction=math.fsum(use.idle_s for use in uses) / whole,
        links=links,
        axes=_axes(timeline),
        link_bytes=math.fsum(use.bytes for use in links),
        energy_J=math.fsum(by_component.values()),
        energy_by_component_J=by_component,
        critical_path_s=_critical(timeline),
    )


def _accelerators(timeline: Timeline) -> tuple[AcceleratorUse, ...]:
    compute: dict[int, Spans] = {a: [] for a in timeline.program.accelerators}
    communication: dict[int, Spans] = {a: [] for a in timeline.program.accelerators}
    draws: dict[int, list[_Draw]] = {a: [] for a in timeline.program.accelerators}
    joules: dict[int, list[float]] = {a: [] for a in timeline.program.accelerators}
    for op, start, finish, energy in zip(
        timeline.program, timeline.start_s, timeline.finish_s, timeline.energy_J, strict=True
    ):
        share = math.fsum(energy) / len(op.accelerators)
        spans = communication if isinstance(op, Collective | Send) else compute
        for accelerator in op.accelerators:
            joules[accelerator].append(share)
            if finish > start:
                spans[accelerator].append((start, finish))
                draws[accelerator].append((start, finish, share / (finish - start)))
    makespan, idle_power = timeline.makespan_s, timeline.cluster.accelerator.idle_power
    uses = []
    for accelerator in timeline.program.accelerators:
        busy = union(compute[accelerator])
        computing = math.fsum(finish - start for start, finish in busy)
        exposed = _outside(union(communication[accelerator]), busy)
        spent = math.fsum(joules[accelerator]) + idle_power * (makespan - computing)
        if idle_power:
            gaps = pairwise([0.0, *(moment for span in busy for moment in span), makespan])
            draws[accelerator] += [(start, finish, idle_power) for start, finish in islice(gaps, 0, None, 2)]
        uses.append(
            AcceleratorUse(
                accelerator=accelerator,
                compute_s=computing,
                exposed_communication_s=exposed,
                # what rounding leaves over in a step without a gap is not idleness
                idle_s=max(0.0, makespan - computing - exposed),
                energy_J=spent,
                mean_power_W=spent / makespan if makespan else 0.0,
                peak_power_W=_peak(draws[accelerator]),
            )
        )
    return tuple(uses)


def _peak(draws: list[_Draw]) -> float:
    """The largest sum of what draws at the same moment; one may begin where another ends."""
    changes = [(start, 1, watts) for start, finish, watts in draws if finish > start]
    changes += [(finish, 0, -watts) for start, finish, watts in draws if finish > start]
    peak = drawn = 0.0
    for _, _, watts in sorted(changes):
        drawn += watts
        peak = max(peak, drawn)
    return peak


def union(spans: Spans) -> Spans:
    """The same moments as spans that do not touch, ascending."""
    merged: Spans = []
    for start, finish in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(finish, merged[-1][1]))
        else:
            merged.append((start, finish))
    return merged


def _outside(spans: Spans, others: Spans) -> float:
    """Seconds of the one in which none of the others is; both as `union` gives them."""
    starts = [start for start, _ in others]
    total = []
    for start, finish in spans:
        at = start
        for i in range(max(0, bisect_right(starts, start) - 1), len(others)):
            if others[i][0] >= finish:
                break
            total.append(max(0.0, others[i][0] - at))
            at = max(at, others[i][1])
        total.append(max(0.0, finish - at))
    return math.fsum(total)


def _links(timeline: Timeline) -> tuple[LinkUse, ...]:
    makespan = timeline.makespan_s
    uses = []
    for number, nbytes in timeline.link_bytes.items():
        link, busy = timeline.cluster.network.link(number), timeline.link_busy_s[number]
        uses.append(
            LinkUse(
                link=number,
                name=link.name,
                axis=link.axis.name,
                bytes=nbytes,
                busy_s=busy,
                utilisation=busy / makespan if makespan else 0.0,
            )
        )
    return tuple(uses)


def _axes(timeline: Timeline) -> tuple[AxisUse, ...]:
    times = Counter(
        (parallelism_of(op), price)
        for op, price in zip(timeline.program, timeline.price, strict=True)
        if isinstance(op, Collective | Send)
    )
    transfers = [
        (parallelism, sending, count, count)
        for (parallelism, price), count in times.items()
        if (sending := timeline.prices[price].sending)
    ]
    return axis_traffic(transfers, timeline.cluster.network, timeline.makespan_s)


def seconds_on_path(timeline: Timeline) -> dict[int, float]:
    """By operation of the critical path, in its order: from its start to the start of the next, the last to its end.

    They add up to the makespan.  A transfer that waits for one of its later links may begin before the transfer that
    holds that link; it then counts from the start of that one.
    """
    path = timeline.critical_path()
    starts = list(accumulate((timeline.start_s[op] for op in path), max))
    ends = [*starts[1:], timeline.makespan_s]
    return {op: end - start for op, start, end in zip(path, starts, ends, strict=False)}


def _critical(timeline: Timeline) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for op, on_path in seconds_on_path(timeline).items():
        kind = kind_of(timeline.program.ops[op])
        seconds[kind] = seconds.get(kind, 0.0) + on_path
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))
