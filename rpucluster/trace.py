"""Chrome trace events of a timed program, for ui.perfetto.dev and chrome://tracing.

One process per accelerator; its arrays, its digital units and its communication are threads of their own.
Viewers want slices of a thread not to overlap, so operations that run side by side (the arrays of two layers,
two transfers) get further lanes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rpucluster.program import Collective, Op, Rewrite, Send, kind_of

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


def chrome_trace(ops: Sequence[Op], start: Sequence[float], finish: Sequence[float]) -> dict[str, Any]:
    """The trace of operations that start and finish at the given modelled seconds.

    `ts` and `dur` are microseconds of modelled time, exact to the picosecond.  Sends carry a flow arrow from
    the source's slice into the destination's.  Equal input gives equal output, in the same order.
    """
    spans = [(_picoseconds(a), _picoseconds(b)) for a, b in zip(start, finish, strict=True)]
    by_track: dict[tuple[int, Track], list[int]] = {}
    for i in sorted(range(len(ops)), key=lambda i: (spans[i], i)):
        for accelerator in ops[i].accelerators:
            by_track.setdefault((accelerator, TRACKS[kind_of(ops[i])]), []).append(i)
    threads: dict[tuple[int, int], str] = {}
    slices: list[dict[str, Any]] = []
    arrows: list[dict[str, Any]] = []
    for (accelerator, track), indices in sorted(by_track.items()):
        for i, lane in zip(indices, lanes(spans[i] for i in indices), strict=True):
            pid, tid = _process(accelerator), _LANES_PER_TRACK * _TRACK_ORDER.index(track) + lane + 1
            threads[pid, tid] = track if lane == 0 else f"{track} {lane + 1}"
            slices.append(_slice(i, ops[i], accelerator, spans[i], pid, tid))
            arrow = _arrow(i, ops[i], accelerator, spans[i], pid, tid)
            if arrow is not None:
                arrows.append(arrow)
    events = sorted(slices + arrows, key=lambda event: (event["ts"], event["pid"], event["tid"]))
    return {
        "displayTimeUnit": "ns",
        "otherData": {"clock": "modelled"},
        "traceEvents": [*_names(threads), *events],
    }


def _slice(i: int, op: Op, accelerator: int, span: tuple[int, int], pid: int, tid: int) -> dict[str, Any]:
    kind = kind_of(op)
    args: dict[str, Any] = {"op": i, "layer": op.layer}
    if microbatch_of(op) is not None:
        args["microbatch"] = microbatch_of(op)
    if TRACKS[kind] == "communication":
        args["bytes"] = bytes_of(op, accelerator)
    return {
        "ph": "X",
        "name": op.label,
        "cat": kind,
        "pid": pid,
        "tid": tid,
        "ts": span[0] / 1e6,
        "dur": (span[1] - span[0]) / 1e6,
        "args": args,
    }


def _arrow(i: int, op: Op, accelerator: int, span: tuple[int, int], pid: int, tid: int) -> dict[str, Any] | None:
    # an arrow hangs on the slice around its instant, so there is none without a slice of some length
    if not isinstance(op, Send) or span[0] == span[1]:
        return None
    event = {"name": "send", "cat": "send", "id": i, "pid": pid, "tid": tid}
    if accelerator == op.source:
        return {"ph": "s", "ts": span[0] / 1e6, **event}
    return {"ph": "f", "bp": "e", "ts": (span[0] + span[1]) // 2 / 1e6, **event}


def _names(threads: Mapping[tuple[int, int], str]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for pid in sorted({pid for pid, _ in threads}):
        accelerator = pid - _process(0)
        events.append(_metadata("process_name", pid, {"name": f"accelerator {accelerator}"}))
        events.append(_metadata("process_sort_index", pid, {"sort_index": accelerator}))
    for (pid, tid), name in sorted(threads.items()):
        events.append(_metadata("thread_name", pid, {"name": name}, tid))
        events.append(_metadata("thread_sort_index", pid, {"sort_index": tid}, tid))
    return events


def _metadata(name: str, pid: int, args: dict[str, Any], tid: int = 0) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}


def _process(accelerator: int) -> int:
    # viewers keep process 0 for the idle process of an operating system
    return accelerator + 1


def _picoseconds(seconds: float) -> int:
    return round(seconds * 1e12)
