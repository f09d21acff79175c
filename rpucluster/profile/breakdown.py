"""Where the seconds and joules of a timeline go: by accelerator and layer, on its resources, and exposed."""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from rpucluster.metrics import Spans, union
from rpucluster.program import Collective, Digital, Op, Read, Rewrite, Send, Update, kind_of
from rpucluster.timeline import Energy, Timeline
from rpucluster.waits import wait_of

WORK = ("forward", "backward", "digital", "update", "communication")
"""What the operations of a layer do, in the order of the tables."""


def work_of(op: Op) -> str:
    """Which of `WORK` an operation belongs to; weights that are read out or programmed count as update."""
    match op:
        case Read():
            return op.direction
        case Digital():
            return "digital"
        case Update() | Rewrite():
            return "update"
        case Collective() | Send():
            return "communication"


@dataclass(kw_only=True)
class Sums:
    """Seconds by `WORK`, joules by component, and seconds on the critical path, of some operations."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(WORK, 0.0))
    critical_s: float = 0.0
    energy: list[float] = field(default_factory=lambda: [0.0] * len(Energy._fields))

    def add(self, work: str, seconds: float, critical_s: float, energy: Energy, share: float) -> None:
        """Count one operation, of which `share` is ours."""
        self.seconds[work] += seconds
        self.critical_s += critical_s
        for i, joules in enumerate(energy):
            self.energy[i] += share * joules

    def to_dict(self) -> dict[str, float]:
        """Plain values, with units in the names."""
        return (
            {f"{work}_s": seconds for work, seconds in self.seconds.items()}
            | {"critical_s": self.critical_s}
            | {f"energy_{name}_J": joules for name, joules in zip(Energy._fields, self.energy, strict=True)}
        )


def by_accelerator_and_layer(timeline: Timeline, on_path: dict[int, float]) -> dict[tuple[int, int], Sums]:
    """Sums over the operations of each accelerator and layer.

    A collective or send takes its whole time on each accelerator that takes part; its energy and its seconds on the
    critical path are shared evenly, so that these add up.
    """
    sums: dict[tuple[int, int], Sums] = defaultdict(Sums)
    for op, start, finish, energy in zip(
        timeline.program, timeline.start_s, timeline.finish_s, timeline.energy_J, strict=True
    ):
        work, share = work_of(op), 1 / len(op.accelerators)
        critical = on_path.get(op.id, 0.0) * share
        for accelerator in op.accelerators:
            sums[accelerator, op.layer].add(work, finish - start, critical, energy, share)
    return dict(sorted(sums.items()))


def added(parts: list[Sums]) -> Sums:
    """The sum of sums."""
    whole = Sums()
    for part in parts:
        for work, seconds in part.seconds.items():
            whole.seconds[work] += seconds
        whole.critical_s += part.critical_s
        whole.energy = [a + b for a, b in zip(whole.energy, part.energy, strict=True)]
    return whole


def idle_parts(timeline: Timeline) -> dict[int, tuple[float, float]]:
    """By accelerator: seconds before its first operation, and after its last."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for op, start, finish in zip(timeline.program, timeline.start_s, timeline.finish_s, strict=True):
        for accelerator in op.accelerators:
            first[accelerator] = min(start, first.get(accelerator, math.inf))
            last[accelerator] = max(finish, last.get(accelerator, 0.0))
    return {a: (first[a], timeline.makespan_s - last[a]) for a in timeline.program.accelerators}


def resources(timeline: Timeline) -> list[dict[str, Any]]:
    """How long each tile group (the arrays of one layer on one accelerator) and each set of digital units is busy.

    Rows of `accelerator`, `resource` (``"tiles"`` or ``"digital_units"``), `layer` (None for digital units), `tiles`,
    `busy_s`, `utilisation` (of the makespan).
    """
    spans: dict[tuple[int, int], Spans] = defaultdict(list)
    tiles: dict[tuple[int, int], int] = defaultdict(int)
    for op, start, finish in zip(timeline.program, timeline.start_s, timeline.finish_s, strict=True):
        if isinstance(op, Read | Update | Rewrite):
            spans[op.accelerator, op.layer].append((start, finish))
            tiles[op.accelerator, op.layer] = max(op.tiles, tiles[op.accelerator, op.layer])
        elif isinstance(op, Digital):
            spans[op.accelerator, -1].append((start, finish))
    makespan = timeline.makespan_s
    rows = []
    for (accelerator, layer), mine in sorted(spans.items()):
        busy = math.fsum(finish - start for start, finish in union(mine))
        rows.append(
            {
                "accelerator": accelerator,
                "resource": "tiles" if layer >= 0 else "digital_units",
                "layer": layer if layer >= 0 else None,
                "tiles": tiles[accelerator, layer] if layer >= 0 else None,
                "busy_s": busy,
                "utilisation": busy / makespan if makespan else 0.0,
            }
        )
    return rows


LINKS = "links"
"""What stands for an axis where the links of a network are written out one by one."""


class Crossed:
    """The axes of the network that each transfer of a timeline puts bytes on, by name, innermost first."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._by_price: dict[int, tuple[str, ...]] = {}

    def __call__(self, op: int) -> tuple[str, ...]:
        """Of the transfer of that id; none where it puts nothing on any link."""
        price, network = self._timeline.price[op], self._timeline.cluster.network
        if price not in self._by_price:
            sending = self._timeline.prices[price].sending
            links = sorted(sending.link_bytes) if sending else []
            names = (network.axis_of(link).name if network.axis else LINKS for link in links)
            self._by_price[price] = tuple(dict.fromkeys(names))
        return self._by_price[price]


def exposed(timeline: Timeline) -> list[dict[str, Any]]:
    """Exposed communication by kind, payload and axes, the longest first.

    Where several transfers of an accelerator are under way at once and nothing computes, the moment is shared evenly
    among them, so `exposed_s`, the mean over the accelerators, adds up to the exposed communication of the step.
    """
    compute: dict[int, Spans] = {a: [] for a in timeline.program.accelerators}
    transfers: dict[int, list[tuple[float, float, int]]] = {a: [] for a in timeline.program.accelerators}
    keys: dict[int, tuple[str, str, str]] = {}
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    crossed = Crossed(timeline)
    for op, start, finish in zip(timeline.program, timeline.start_s, timeline.finish_s, strict=True):
        if not isinstance(op, Collective | Send):
            if finish > start:
                compute[op.accelerator].append((start, finish))
            continue
        key = keys[op.id] = kind_of(op), op.payload, " x ".join(crossed(op.id))
        row = rows.setdefault(key, {"operations": 0, "duration_s": 0.0, "waited_s": 0.0, "exposed_s": 0.0})
        row["operations"] += 1
        row["duration_s"] += finish - start
        wait = wait_of(timeline, op.id)
        row["waited_s"] += wait.seconds if wait.reason == "link" else 0.0
        if finish > start:
            for accelerator in op.accelerators:
                transfers[accelerator].append((start, finish, op.id))
    accelerators = timeline.program.accelerators
    for accelerator in accelerators:
        for op_id, seconds in _alone(transfers[accelerator], union(compute[accelerator])).items():
            rows[keys[op_id]]["exposed_s"] += seconds / len(accelerators)
    makespan = timeline.makespan_s or math.inf
    return [
        {"kind": kind, "payload": payload, "axes": axes, **row, "exposed_fraction": row["exposed_s"] / makespan}
        for (kind, payload, axes), row in sorted(rows.items(), key=lambda item: -item[1]["exposed_s"])
    ]


def _alone(transfers: list[tuple[float, float, int]], busy: Spans) -> dict[int, float]:
    """Seconds of each transfer in which nothing computes, moments with several shared among them."""
    changes = [(start, 1, op) for start, _, op in transfers] + [(finish, -1, op) for _, finish, op in transfers]
    changes += [(start, 0, -1) for start, _ in busy] + [(finish, 0, -2) for _, finish in busy]
    under_way: set[int] = set()
    computing = False
    shares: dict[int, float] = defaultdict(float)
    before = 0.0
    for moment, change, op in sorted(changes):
        if moment > before and under_way and not computing:
            each = (moment - before) / len(under_way)
            for mine in under_way:
                shares[mine] += each
        before = moment
        if change == 0:
            computing = op == -1
        elif change == 1:
            under_way.add(op)
        else:
            under_way.discard(op)
    return shares
