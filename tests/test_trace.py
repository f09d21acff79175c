"""The trace follows the trace-event format, and holds every operation, link and wait of the timeline.

The format is that of Google's "Trace Event Format" document: required keys by phase, microseconds, metadata first.
"""

import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.cluster import Cluster
from rpucluster.program import Op, Send, kind_of
from rpucluster.timeline import Timeline, replay
from rpucluster.topology import Network
from rpucluster.trace import TRACKS, chrome_trace, lanes
from tests import run_fixtures
from tests.ops import collective, digital, program, read, send
from tests.specs import make_cluster

KEYS = {
    "X": {"name", "cat", "ts", "dur", "args"},
    "M": {"name", "args"},
    "C": {"name", "ts", "args"},
    "s": {"name", "cat", "id", "ts"},
    "t": {"name", "cat", "id", "ts"},
    "f": {"name", "cat", "id", "ts", "bp"},
}
METADATA = {"process_name": str, "process_sort_index": int, "thread_name": str, "thread_sort_index": int}


def check_format(trace: dict[str, Any]) -> None:
    """Everything that the format asks for, and viewers stumble over."""
    assert json.loads(json.dumps(trace, allow_nan=False)) == trace
    assert trace["displayTimeUnit"] in ("ms", "ns")
    events = trace["traceEvents"]
    named: set[tuple[int, int]] = set()
    threads: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    flows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        assert set(event) == KEYS[event["ph"]] | {"ph", "pid", "tid"}
        assert type(event["pid"]) is type(event["tid"]) is int
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            (value,) = event["args"].values()
            assert isinstance(value, METADATA[event["name"]])
            named.add((event["pid"], event["tid"]))
            continue
        assert isinstance(event["ts"], float)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            threads[event["pid"], event["tid"]].append(event)
        elif event["ph"] == "C":
            assert all(isinstance(value, int) and value >= 0 for value in event["args"].values())
        else:
            flows[event["id"]].append(event)
    phases = [event["ph"] for event in events]
    assert "M" not in phases[phases.count("M") :]  # metadata first
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times)
    assert set(threads) <= named
    for slices in threads.values():  # of a thread lie side by side, which is the simplest way to nest
        ends = [(round(e["ts"] * 1e6), round((e["ts"] + e["dur"]) * 1e6)) for e in slices]
        assert all(before[1] <= after[0] for before, after in pairwise(ends))
    for flow in flows.values():  # one tail, one head, and all on a slice that is under way
        assert [event["ph"] for event in flow] == ["s", *"t" * (len(flow) - 2), "f"]
        for event in flow:
            around = threads[event["pid"], event["tid"]]
            assert any(e["ts"] <= event["ts"] <= e["ts"] + e["dur"] and e["dur"] > 0 for e in around)


@pytest.fixture(scope="module")
def timed() -> Timeline:
    return run_fixtures.timeline(microbatches=4)


@pytest.fixture(scope="module")
def trace(timed: Timeline) -> dict[str, Any]:
    return chrome_trace(timed)


def of_phase(trace: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


def processes(trace: dict[str, Any]) -> dict[int, str]:
    """Names by pid, in the order in which viewers show them."""
    order = {e["pid"]: e["args"]["sort_index"] for e in of_phase(trace, "M") if e["name"] == "process_sort_index"}
    names = {e["pid"]: e["args"]["name"] for e in of_phase(trace, "M") if e["name"] == "process_name"}
    return dict(sorted(names.items(), key=lambda item: order[item[0]]))


def slices_of(trace: dict[str, Any], process: str) -> list[dict[str, Any]]:
    pids = {pid for pid, name in processes(trace).items() if name.startswith(process)}
    return [event for event in of_phase(trace, "X") if event["pid"] in pids]


def test_a_real_step_follows_the_format(trace: dict[str, Any]) -> None:
    check_format(trace)
    assert len(of_phase(trace, "s")) > 8


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 500)), max_size=25),
    st.sampled_from(["fifo", "fair", "none"]),
    st.sampled_from(["ring", "switch", "mesh"]),
)
def test_any_program_follows_the_format(cases: list[tuple[int, int, int]], contention: str, kind: str) -> None:
    """Also where transfers share a link, take no time, or pass over several links."""
    ops: list[Op] = []
    for accelerator, what, size in cases:
        deps = [len(ops) - 1] if size % 3 and ops else []
        match what:
            case 0:
                ops.append(digital(len(ops), accelerator, size, deps))
            case 1:
                ops.append(read(len(ops), accelerator, deps, layer=size % 2))
            case 2:
                ops.append(send(len(ops), accelerator, (accelerator + 1 + size % 3) % 4, size, deps))
            case _:
                ops.append(collective(len(ops), "all_gather", [0, 1, 3], size, deps))
    check_format(chrome_trace(replay(program(*ops), machine(kind, contention))))


def machine(kind: str, contention: str) -> Cluster:
    cluster = make_cluster(4, kind=kind, bandwidth="1 GB/s", latency="100 ns", tile=16)
    axis = cluster.network.axis[0].model_copy(update={"contention": contention})
    return cluster.model_copy(update={"network": cluster.network.model_copy(update={"axis": (axis,)})})


def test_every_operation_is_a_slice_on_each_of_its_accelerators(trace: dict[str, Any], timed: Timeline) -> None:
    names = processes(trace)
    slices = slices_of(trace, "accelerator")
    expected = {
        (op.id, f"accelerator {accelerator}"): (timed.start_s[op.id] * 1e6, timed.finish_s[op.id] * 1e6)
        for op in timed.program
        for accelerator in op.accelerators
    }
    assert len(slices) == len(expected)
    path = set(timed.critical_path())
    for event in slices:
        start, finish = expected[event["args"]["op"], names[event["pid"]]]
        op = timed.program.ops[event["args"]["op"]]
        # microseconds, to the picosecond
        assert event["ts"] == pytest.approx(start, abs=1e-6)
        assert event["ts"] + event["dur"] == pytest.approx(finish, abs=2e-6)
        assert event["name"] == op.label
        assert event["cat"] == (f"{kind_of(op)},critical" if op.id in path else kind_of(op))
        assert event["args"].get("waited_for_op", -1) == timed.causes[op.id]


def test_a_thread_keeps_to_one_track_and_has_a_name(trace: dict[str, Any]) -> None:
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in of_phase(trace, "M") if e["name"] == "thread_name"}
    for event in slices_of(trace, "accelerator"):
        assert names[event["pid"], event["tid"]].split()[0] == TRACKS[event["cat"].removesuffix(",critical")]
    assert list(processes(trace).values()) == [
        "critical path", *(f"accelerator {n}" for n in range(4)), "links of board",
    ]  # fmt: skip


def test_the_critical_path_stands_end_to_end(trace: dict[str, Any], timed: Timeline) -> None:
    slices = slices_of(trace, "critical path")
    assert [event["args"]["op"] for event in slices] == list(timed.critical_path())
    assert slices[0]["ts"] == 0
    for before, after in pairwise(slices):
        assert after["ts"] == pytest.approx(before["ts"] + before["dur"], abs=1e-6)
    assert slices[-1]["ts"] + slices[-1]["dur"] == pytest.approx(timed.makespan_s * 1e6, abs=1e-6)


def test_links_show_who_uses_them(trace: dict[str, Any], timed: Timeline) -> None:
    network = timed.cluster.network
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in of_phase(trace, "M") if e["name"] == "thread_name"}
    shown = sorted(
        (threads[e["pid"], e["tid"]].split(",")[0], e["args"]["op"], round(e["ts"] * 1e6))
        for e in slices_of(trace, "links")
    )
    spans = timed.link_spans()
    assert shown == sorted((network.link(s.link).name, s.op, round(s.begin_s * 1e12)) for s in spans)
    assert len({link for link, _, _ in shown}) > 4
    counts = of_phase(trace, "C")
    for before, after in pairwise(counts):
        middle = (before["ts"] + after["ts"]) / 2 / 1e6
        assert before["args"]["links"] == sum(span.begin_s < middle < span.end_s for span in spans)
    assert counts[-1]["args"]["links"] == 0


def test_each_send_flows_from_its_source_over_its_links_into_its_destination(timed: Timeline) -> None:
    """On a ring, where the way between opposite corners has two links."""
    trace = chrome_trace(replay(timed.program, machine("ring", "fifo")))
    sends = {op.id: op for op in timed.program if isinstance(op, Send)}
    flows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] in "stf":
            flows[event["id"]].append(event)
    names = processes(trace)
    assert set(flows) == set(sends)
    for op, flow in flows.items():
        assert [names[event["pid"]] for event in flow] == [
            f"accelerator {sends[op].source}", "links of board", "links of board",
            f"accelerator {sends[op].destination}",
        ]  # fmt: skip
        assert [event["ts"] for event in flow] == sorted(event["ts"] for event in flow)
    check_format(trace)


def test_equal_timelines_give_equal_traces(trace: dict[str, Any]) -> None:
    assert json.dumps(chrome_trace(run_fixtures.timeline(microbatches=4))) == json.dumps(trace)


def test_instant_sends_get_no_arrow(timed: Timeline) -> None:
    op = Send(id=0, source=0, destination=1, elements=4, word_bits=16, payload="activation", layer=0, microbatch=0)
    instant = replace(replay(program(op), timed.cluster), start_s=(1e-6,), finish_s=(1e-6,))
    trace = chrome_trace(instant)
    assert [event["dur"] for event in slices_of(trace, "accelerator")] == [0, 0]
    assert not [event for event in trace["traceEvents"] if event["ph"] in "sf"]


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


def test_links_that_are_written_out_share_a_process() -> None:
    ends = [(0, "leaf"), (1, "leaf"), (2, "leaf")]
    wires = [{"from": a, "to": b, "bandwidth": "1 GB/s", "latency": "1 us"} for a, b in ends]
    network = Network.model_validate({"accelerators": 3, "link": wires})
    cluster = machine("ring", "fifo").model_copy(update={"network": network})
    written = chrome_trace(replay(program(send(0, 0, 1, 500), send(1, 2, 1, 500)), cluster))
    check_format(written)
    on_links = {event["pid"] for event in slices_of(written, "links")}
    assert len(on_links) == 1
    threads = [e["args"]["name"] for e in of_phase(written, "M") if e["name"] == "thread_name" and e["pid"] in on_links]
    assert sorted(threads) == ["0->leaf", "2->leaf", "leaf->1"]
