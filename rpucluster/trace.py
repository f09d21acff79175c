"""Chrome trace events of a timed program, for ui.perfetto.dev and chrome://tracing.

The critical path is a process, then each accelerator is one, with its arrays, its digital units and its communication
as threads, then each axis of the network with its links as threads.  Viewers want slices of a thread not to overlap, so
what runs side by side (the arrays of two layers, two transfers) gets further lanes.
"""

import gzip
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from rpucluster.files import write_atomically
from rpucluster.program import Collective, Op, Rewrite, Send, kind_of
from rpucluster.timeline import LinkSpan, Timeline

Track = Literal["arrays", "digital", "communication"]

TRACKS: Mapping[str, Track] = {
    "forward": "arrays",
    "backward": "arrays",
    "update": "arrays",
    "read_out": "arrays",
    "program": "arrays",
    "activation": "digital",
    "loss": "digital",
    "derivative": "digital",
    "bias": "digital",
    "all_gather": "communication",
    "all_reduce": "communication",
    "send": "communication",
}
"""The part of an accelerator that an operation of each kind occupies."""

_TRACK_ORDER: tuple[Track, ...] = ("arrays", "digital", "communication")
_LANES_PER_TRACK = 1000  # thread ids of a track start at its multiple of this


def bytes_of(op: Op, accelerator: int) -> float:
    """Bytes that an accelerator contributes to a collective, or that a send carries; 0 for other operations."""
    match op:
        case Send():
            return op.bytes
        case Collective():
            return op.bytes[op.members.index(accelerator)]
        case _:
            return 0.0


def microbatch_of(op: Op) -> int | None:
    """The microbatch that an operation belongs to; None where it belongs to the whole minibatch."""
    microbatch = None if isinstance(op, Rewrite) else op.microbatch
    return None if microbatch is None or microbatch < 0 else microbatch


def lanes(spans: Iterable[tuple[float, float]]) -> list[int]:
    """Put (start, finish) spans into as few lanes as keep them from overlapping, first fit in the given order.

    Spans must come by ascending start; a span may begin where another ends.
    """
    free_from: list[float] = []
    chosen: list[int] = []
    for start, finish in spans:
        lane = next((i for i, free in enumerate(free_from) if free <= start), len(free_from))
        if lane == len(free_from):
            free_from.append(finish)
        else:
            free_from[lane] = finish
        chosen.append(lane)
    return chosen


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """The trace of a timeline.

    `ts` and `dur` are microseconds of modelled time, exact to the picosecond.  Slices of the critical path have the
    category ``critical`` besides their own.  Sends carry a flow from the source's slice over those of their links into
    the destination's; a counter of each axis says how many of its links are in use.  Equal input gives equal output, in
    the same order.
    """
    return _Trace(timeline).content()


def write_trace(path: Path, timeline: Timeline) -> None:
    """Write a trace, compressed with gzip; equal timelines give equal bytes.  Raises `RunError` where it cannot be."""
    text = json.dumps(chrome_trace(timeline), separators=(",", ":"), allow_nan=False)
    # no clock reading in the header, so that the file depends on its content alone
    write_atomically(path, gzip.compress(text.encode(), 6, mtime=0))


class _Trace:
    """One trace under construction."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline, self._ops = timeline, timeline.program.ops
        self._spans = [
            (_picoseconds(a), _picoseconds(b)) for a, b in zip(timeline.start_s, timeline.finish_s, strict=True)
        ]
        self._path = timeline.critical_path()
        self._critical = set(self._path)
        self._events: list[dict[str, Any]] = []
        self._processes: dict[int, str] = {}
        self._threads: dict[tuple[int, int], str] = {}
        # viewers keep process 0 for the idle process of an operating system
        self._critical_process = 1
        self._first_accelerator = 2
        self._first_axis = self._first_accelerator + max(timeline.program.accelerators, default=-1) + 1

    def content(self) -> dict[str, Any]:
        self._add_path()
        self._add_accelerators()
        self._add_links()
        events = sorted(self._events, key=lambda event: (event["ts"], event["pid"], event["tid"]))
        return {
            "displayTimeUnit": "ns",
            "otherData": {"clock": "modelled"},
            "traceEvents": [*self._names(), *events],
        }

    def _add_path(self) -> None:
        """Each operation of the path from its start to that of the next, so that they stand end to end."""
        if not self._path:
            return
        starts = [self._spans[op][0] for op in self._path]
        before = 0
        for op, end in zip(self._path, [*starts[1:], self._end()], strict=True):
            if end > before:
                self._slice(op, (before, end), self._critical_process, 1, self._facts(op))
                before = end
        self._processes[self._critical_process] = "critical path"
        self._threads[self._critical_process, 1] = "operations"

    def _add_accelerators(self) -> None:
        by_track: dict[tuple[int, Track], list[int]] = {}
        for op in sorted(range(len(self._ops)), key=lambda op: (self._spans[op], op)):
            for accelerator in self._ops[op].accelerators:
                by_track.setdefault((accelerator, TRACKS[kind_of(self._ops[op])]), []).append(op)
        for (accelerator, track), mine in sorted(by_track.items()):
            pid = self._first_accelerator + accelerator
            self._processes[pid] = f"accelerator {accelerator}"
            for op, lane in zip(mine, lanes(self._spans[op] for op in mine), strict=True):
                tid = _LANES_PER_TRACK * _TRACK_ORDER.index(track) + lane + 1
                self._threads[pid, tid] = track if lane == 0 else f"{track} {lane + 1}"
                facts = self._facts(op)
                if track == "communication":
                    facts["bytes"] = bytes_of(self._ops[op], accelerator)
                self._slice(op, self._spans[op], pid, tid, facts)
                self._end_of_arrow(op, accelerator, pid, tid)

    def _add_links(self) -> None:
        network, by_link = self._timeline.cluster.network, dict[int, list[LinkSpan]]()
        for span in sorted(self._timeline.link_spans(), key=lambda span: (span.link, span.begin_s, span.op)):
            by_link.setdefault(span.link, []).append(span)
        changes: dict[int, dict[int, int]] = {}
        pids: dict[str, int] = {}
        for link, uses in by_link.items():
            described = network.link(link)
            name = f"links of {described.axis.name}" if described.axis in network.axis else "links"
            pid = pids.setdefault(name, self._first_axis + len(pids))
            self._processes[pid] = name
            spans = [(_picoseconds(use.begin_s), _picoseconds(use.end_s)) for use in uses]
            for use, (begin, end), lane in zip(uses, spans, lanes(spans), strict=True):
                tid = _LANES_PER_TRACK * link + lane + 1
                self._threads[pid, tid] = described.name if lane == 0 else f"{described.name}, {lane + 1}"
                self._slice(use.op, (begin, end), pid, tid, self._facts(use.op))
                if isinstance(self._ops[use.op], Send) and end > begin:
                    self._arrow("t", use.op, begin, pid, tid)
                for moment, change in ((begin, 1), (end, -1)):
                    at = changes.setdefault(pid, {})
                    at[moment] = at.get(moment, 0) + change
        for pid, at in changes.items():
            used = 0
            for moment, change in sorted(at.items()):
                used += change
                counter = {"ph": "C", "name": "links in use", "pid": pid, "tid": 0, "ts": moment / 1e6}
                self._events.append({**counter, "args": {"links": used}})

    def _facts(self, op: int) -> dict[str, Any]:
        this, cause = self._ops[op], self._timeline.causes[op]
        facts: dict[str, Any] = {"op": op, "layer": this.layer}
        if microbatch_of(this) is not None:
            facts["microbatch"] = microbatch_of(this)
        facts["energy_J"] = math.fsum(self._timeline.energy_J[op])
        if cause >= 0:
            facts |= {"waited_for": self._timeline.reasons[op], "waited_for_op": cause}
        return facts

    def _slice(self, op: int, span: tuple[int, int], pid: int, tid: int, facts: dict[str, Any]) -> None:
        kind = kind_of(self._ops[op])
        self._events.append(
            {
                "ph": "X",
                "name": self._ops[op].label,
                "cat": f"{kind},critical" if op in self._critical else kind,
                "pid": pid,
                "tid": tid,
                "ts": span[0] / 1e6,
                "dur": (span[1] - span[0]) / 1e6,
                "args": facts,
            }
        )

    def _end_of_arrow(self, op: int, accelerator: int, pid: int, tid: int) -> None:
        this, (start, end) = self._ops[op], self._spans[op]
        # an arrow hangs on the slice around its instant, so there is none without a slice of some length
        if not isinstance(this, Send) or start == end:
            return
        if accelerator == this.source:
            self._arrow("s", op, start, pid, tid)
        else:
            self._arrow("f", op, end - 1, pid, tid)

    def _arrow(self, phase: Literal["s", "t", "f"], op: int, moment: int, pid: int, tid: int) -> None:
        event = {"ph": phase, "name": "send", "cat": "send", "id": op, "pid": pid, "tid": tid, "ts": moment / 1e6}
        self._events.append(event | ({"bp": "e"} if phase == "f" else {}))

    def _names(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        for pid, name in sorted(self._processes.items()):
            events.append(_metadata("process_name", pid, {"name": name}))
            events.append(_metadata("process_sort_index", pid, {"sort_index": pid}))
        for (pid, tid), name in sorted(self._threads.items()):
            events.append(_metadata("thread_name", pid, {"name": name}, tid))
            events.append(_metadata("thread_sort_index", pid, {"sort_index": tid}, tid))
        return events

    def _end(self) -> int:
        return max((end for _, end in self._spans), default=0)


def _metadata(name: str, pid: int, args: dict[str, Any], tid: int = 0) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}


def _picoseconds(seconds: float) -> int:
    return round(seconds * 1e12)
