"""The Chrome trace holds every operation once per accelerator, in slices that viewers can draw."""

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.program import Send, kind_of
from rpucluster.trace import TRACKS, chrome_trace, lanes
from tests.run_fixtures import timeline


@pytest.fixture(scope="module")
def trace() -> dict[str, Any]:
    timed = timeline(microbatches=4)
    return chrome_trace(timed.program.ops, timed.start_s, timed.finish_s)


def of_phase(trace: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


def test_every_operation_is_a_slice_on_each_of_its_accelerators(trace: dict[str, Any]) -> None:
    timed = timeline(microbatches=4)
    slices = of_phase(trace, "X")
    expected = {
        (op.id, accelerator + 1): (timed.start_s[op.id] * 1e6, timed.finish_s[op.id] * 1e6)
        for op in timed.program
        for accelerator in op.accelerators
    }
    assert len(slices) == len(expected)
    for event in slices:
        start, finish = expected[event["args"]["op"], event["pid"]]
        op = timed.program.ops[event["args"]["op"]]
        # microseconds, to the picosecond
        assert event["ts"] == pytest.approx(start, abs=1e-6)
        assert event["ts"] + event["dur"] == pytest.approx(finish, abs=2e-6)
        assert (event["name"], event["cat"]) == (op.label, kind_of(op))


def test_slices_of_a_thread_do_not_overlap(trace: dict[str, Any]) -> None:
    threads: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in of_phase(trace, "X"):
        start = round(event["ts"] * 1e6)
        threads[event["pid"], event["tid"]].append((start, start + round(event["dur"] * 1e6)))
    assert len(threads) > 8  # this step has transfers side by side, so some tracks need a second lane
    for spans in threads.values():
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_thread_keeps_to_one_track_and_has_a_name(trace: dict[str, Any]) -> None:
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in of_phase(trace, "M") if e["name"] == "thread_name"}
    for event in of_phase(trace, "X"):
        assert names[event["pid"], event["tid"]].split()[0] == TRACKS[event["cat"]]
    processes = {e["pid"]: e["args"] for e in of_phase(trace, "M") if e["name"] == "process_name"}
    assert processes == {n + 1: {"name": f"accelerator {n}"} for n in range(4)}
    order = {e["pid"]: e["args"]["sort_index"] for e in of_phase(trace, "M") if e["name"] == "process_sort_index"}
    assert order == {n + 1: n for n in range(4)}


def test_each_send_has_one_arrow_from_its_source_into_its_destination(trace: dict[str, Any]) -> None:
    sends = [op for op in timeline(microbatches=4).program if isinstance(op, Send)]
    tails = {event["id"]: event for event in of_phase(trace, "s")}
    heads = {event["id"]: event for event in of_phase(trace, "f")}
    assert set(tails) == set(heads) == {op.id for op in sends}
    slices = {(event["args"]["op"], event["pid"]): event for event in of_phase(trace, "X")}
    for op in sends:
        for event, accelerator in ((tails[op.id], op.source), (heads[op.id], op.destination)):
            around = slices[op.id, accelerator + 1]
            assert (event["pid"], event["tid"]) == (around["pid"], around["tid"])
            assert around["ts"] <= event["ts"] < around["ts"] + around["dur"]
        assert heads[op.id]["bp"] == "e"
        assert tails[op.id]["ts"] <= heads[op.id]["ts"]


def test_events_are_ordered_the_same_way_every_time(trace: dict[str, Any]) -> None:
    timed = timeline(microbatches=4)
    again = chrome_trace(timed.program.ops, timed.start_s, timed.finish_s)
    assert json.dumps(again) == json.dumps(trace)
    timed_events = [event for event in trace["traceEvents"] if event["ph"] != "M"]
    keys = [(event["ts"], event["pid"], event["tid"]) for event in timed_events]
    assert keys == sorted(keys)


def test_instant_sends_get_no_arrow() -> None:
    ops = (Send(id=0, source=0, destination=1, elements=4, word_bits=16, payload="activation", layer=0, microbatch=0),)
    events = chrome_trace(ops, [1e-6], [1e-6])["traceEvents"]
    assert [event["ph"] for event in events if event["ph"] != "M"] == ["X", "X"]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10)), max_size=40))
def test_lanes_are_as_few_as_can_be(spans: list[tuple[int, int]]) -> None:
    """First fit by start is optimal: it opens a lane only while all the others are taken."""
    ordered = sorted((start, start + length) for start, length in spans if length)
    chosen = lanes(ordered)
    for lane in set(chosen):
        mine = [span for span, i in zip(ordered, chosen, strict=True) if i == lane]
        assert all(before[1] <= after[0] for before, after in pairwise(mine))
    together = max((sum(a <= start < b for a, b in ordered) for start, _ in ordered), default=0)
    assert max(chosen, default=-1) + 1 == together
