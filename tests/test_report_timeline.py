"""The timeline's data holds every operation of every accelerator and link, and the critical path without a gap."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.profile.step import profile
from rpucluster.report.colours import KIND_GROUPS
from rpucluster.report.timeline import timeline
from rpucluster.step_rows import event_rows, span_rows
from rpucluster.timeline import Timeline
from tests import run_fixtures
from tests.specs import make_cluster, make_job

Data = dict[str, Any]


@pytest.fixture(scope="module")
def timed() -> Timeline:
    return run_fixtures.timeline(4)


@pytest.fixture(scope="module")
def data(timed: Timeline) -> Data:
    return timeline(event_rows(timed), span_rows(timed))


def marks_of(data: Data) -> list[tuple[Data, int, int, int]]:
    """Of each mark its row, start, end and operation, by id."""
    columns = (data["marks"][name] for name in ("row", "start", "length", "op"))
    return [
        (data["rows"][row], start, start + length, data["ops"]["id"][op])
        for row, start, length, op in zip(*columns, strict=True)
    ]


def test_every_operation_is_drawn_on_each_of_its_accelerators(data: Data, timed: Timeline) -> None:
    drawn = sorted((row["group"], start, end, op) for row, start, end, op in marks_of(data) if not row["link"])
    assert drawn == sorted(
        (f"accelerator {a}", round(timed.start_s[op.id] * 1e12), round(timed.finish_s[op.id] * 1e12), op.id)
        for op in timed.program
        for a in op.accelerators
    )
    assert data["end"] == round(timed.makespan_s * 1e12)


def test_every_use_of_a_link_is_drawn_beneath_the_accelerators(data: Data, timed: Timeline) -> None:
    network = timed.cluster.network
    drawn = sorted((row["label"], start, end, op) for row, start, end, op in marks_of(data) if row["link"])
    assert drawn == sorted(
        (network.link(span.link).name, round(span.begin_s * 1e12), round(span.end_s * 1e12), span.op)
        for span in timed.link_spans()
    )
    links = [row["link"] for row in data["rows"]]
    assert links == sorted(links)


def test_marks_are_sorted_and_do_not_overlap(data: Data) -> None:
    """What the drawing relies on: a row is a range of marks, whose starts and ends both ascend."""
    marks = list(zip(data["marks"]["row"], data["marks"]["start"], data["marks"]["length"], strict=True))
    for before, after in pairwise(marks):
        assert before[0] < after[0] or (before[0] == after[0] and before[1] + before[2] <= after[1])
    assert set(data["marks"]["row"]) == set(range(len(data["rows"])))


def test_the_path_is_the_critical_one_and_stays_on_an_accelerator_while_it_can(data: Data, timed: Timeline) -> None:
    marks = marks_of(data)
    assert [marks[mark][3] for mark in data["path"]] == list(timed.critical_path())
    for before, after in pairwise(data["path"]):
        here, there = marks[before][0]["group"], marks[after][0]["group"]
        takes_part = timed.program.ops[marks[after][3]].accelerators
        assert here == there or here not in {f"accelerator {a}" for a in takes_part}


@given(st.integers(1, 4), st.sampled_from(["gpipe", "1f1b"]), st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2)]))
def test_the_path_of_any_plan_begins_at_0_and_has_no_gap(
    microbatches: int, schedule: str, plan: tuple[int, int]
) -> None:
    tensor, pipeline = plan
    job = make_job(
        parallel={"tensor": tensor, "pipeline": pipeline, "schedule": schedule if pipeline > 1 else "gpipe"},
        train={"minibatch": 12, "microbatch": 12 // microbatches},
    )
    found = profile(job, make_cluster(4))
    data = timeline(found.events, found.link_spans)
    marks = marks_of(data)
    spans = [marks[mark][1:3] for mark in data["path"]]
    assert spans[0][0] == 0
    assert spans[-1][1] == data["end"]
    # each begins while the one before is under way, or when that ends: digital units are passed on before a read's end
    assert all(before[0] <= after[0] <= before[1] + 1 for before, after in pairwise(spans))


def test_words_stand_once_and_operations_point_to_them(data: Data, timed: Timeline) -> None:
    assert len(set(data["names"])) == len(data["names"])
    assert [data["names"][name] for name in data["ops"]["name"]] == [op.label for op in timed.program]
    assert data["ops"]["cause"] == list(timed.causes)
    colours = {colour for colour, _ in KIND_GROUPS.values()}
    assert {kind["colour"] for kind in data["kinds"]} <= colours
    assert {colour for _, colour in data["legend"]} == {kind["colour"] for kind in data["kinds"]}
