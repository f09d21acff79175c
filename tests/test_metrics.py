"""The summary of a timeline: where the step goes, on programs whose answer is known."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.cluster import Accelerator, Cluster
from rpucluster.metrics import summarise
from rpucluster.program import Op, Program, Read
from rpucluster.timeline import Timeline, replay
from rpucluster.topology import Axis, Network
from tests.ops import collective, digital, program, send

NS = 1e-9


def cluster(size: int = 4, *, chip: dict[str, Any] | None = None, **axis: Any) -> Cluster:
    """1 us and 1 GB/s per hop; digital operations of 1 ns, so that a program can be written in nanoseconds."""
    keys: dict[str, Any] = {
        "name": "board",
        "kind": "ring",
        "size": size,
        "bandwidth": "1 GB/s",
        "latency": "1 us",
    } | axis
    return Cluster(
        name="small",
        accelerator=Accelerator(**({"digital_rate": "1 Gop/s"} | (chip or {}))),
        network=Network(axis=(Axis(**keys),)),
    )


def gpipe(stages: int, microbatches: int, *, transfers: bool) -> Program:
    """Forward of all microbatches through equal stages, then backward; a read of 80 ns per stage."""
    ops: list[Op] = []

    def read(stage: int, microbatch: int, forward: bool, deps: Sequence[int]) -> int:
        ops.append(
            Read(
                id=len(ops),
                accelerator=stage,
                direction="forward" if forward else "backward",
                layer=stage,
                microbatch=microbatch,
                vectors=1,
                tiles=1,
                cells=256,
                input_lines=16,
                output_lines=16,
                additions=0,
                deps=tuple(deps),
            )
        )
        return len(ops) - 1

    for forward in (True, False):
        for microbatch in range(microbatches):
            before: list[int] = []
            order = range(stages) if forward else reversed(range(stages))
            for stage in order:
                if transfers and before:
                    ops.append(send(len(ops), stage - 1 if forward else stage + 1, stage, 100, before))
                    before = [len(ops) - 1]
                before = [read(stage, microbatch, forward, before)]
    return program(*ops)


@pytest.mark.parametrize("p", [1, 2, 4, 8])
@pytest.mark.parametrize("m", [1, 2, 4, 16])
def test_the_bubble_of_gpipe(p: int, m: int) -> None:
    """(p-1)/(m+p-1) of each pass through a pipeline of p equal stages stays empty (Huang et al. 2019)."""
    metrics = summarise(replay(gpipe(p, m, transfers=False), cluster(8)))
    assert metrics.bubble == pytest.approx((p - 1) / (m + p - 1), rel=1e-12, abs=1e-15)
    assert metrics.modelled_step_s == pytest.approx(2 * (m + p - 1) * 80 * NS)
    for use in metrics.accelerators:  # every stage works equally long
        assert use.compute_s == pytest.approx(2 * m * 80 * NS)


def test_endless_bandwidth_without_latency_leaves_no_exposed_communication() -> None:
    ideal = cluster(8, bandwidth="inf GB/s", latency="0 s")
    with_transfers = summarise(replay(gpipe(4, 8, transfers=True), ideal))
    without = summarise(replay(gpipe(4, 8, transfers=False), ideal))
    assert with_transfers.exposed_communication_fraction == 0.0
    assert with_transfers.modelled_step_s == without.modelled_step_s
    assert with_transfers.bubble == without.bubble
    assert with_transfers.link_bytes == 2 * 3 * 8 * 100
    real = summarise(replay(gpipe(4, 8, transfers=True), cluster(8)))
    # 1.1 us transfers beside 80 ns reads: most of what is not hidden or idle
    assert real.exposed_communication_fraction > 0.4


def test_computing_hides_communication() -> None:
    # 0 sends from 100 to 1600 ns; it computes until 100 and from 100 to 700; 1 computes from 1600 to 1700
    metrics = summarise(
        replay(
            program(digital(0, 0, 100), send(1, 0, 1, 500, [0]), digital(2, 0, 600), digital(3, 1, 100, [1])), cluster()
        )
    )
    here, there = metrics.accelerators
    assert (here.compute_s, here.exposed_communication_s, here.idle_s) == pytest.approx((700 * NS, 900 * NS, 100 * NS))
    assert (there.compute_s, there.exposed_communication_s, there.idle_s) == pytest.approx(
        (100 * NS, 1500 * NS, 100 * NS)
    )
    assert metrics.compute_fraction == pytest.approx(800 / 3400)
    assert metrics.exposed_communication_fraction == pytest.approx(2400 / 3400)
    assert metrics.idle_fraction == metrics.bubble == pytest.approx(200 / 3400)
    # the path: 100 ns of work, the transfer, 100 ns of work
    assert metrics.critical_path_s == pytest.approx({"send": 1500 * NS, "activation": 200 * NS})
    assert list(metrics.critical_path_s) == ["send", "activation"]


def test_work_side_by_side_counts_once() -> None:
    metrics = summarise(replay(program(digital(0, 0, 100), digital(1, 0, 50), digital(2, 1, 30)), cluster()))
    assert [use.compute_s for use in metrics.accelerators] == pytest.approx([150 * NS, 30 * NS])
    overlapping = program(
        send(0, 0, 1, 100), send(1, 0, 3, 600), collective(2, "all_gather", [1, 2], 100), send(3, 0, 1, 100, [0])
    )
    use = summarise(replay(overlapping, cluster())).accelerators[0]
    assert use.exposed_communication_s == pytest.approx(2200 * NS)  # 0-1100, 0-1600, 1100-2200


def test_links_say_what_they_carried() -> None:
    metrics = summarise(replay(program(send(0, 0, 1, 300), collective(1, "all_gather", [1, 2], 200)), cluster()))
    assert [(use.name, use.axis, use.bytes) for use in metrics.links] == [
        ("board:0->1", "board", 300), ("board:1->2", "board", 200), ("board:2->1", "board", 200),
    ]  # fmt: skip
    assert metrics.modelled_step_s == pytest.approx(1300 * NS)
    assert [use.utilisation for use in metrics.links] == pytest.approx([300 / 1300, 200 / 1300, 200 / 1300])
    assert metrics.link_bytes == 700


def test_idle_power_is_drawn_while_nothing_computes() -> None:
    chip = {"idle_power": "2 W", "digital_energy": "10 pJ"}
    metrics = summarise(replay(program(digital(0, 0, 100), digital(1, 1, 300)), cluster(chip=chip)))
    parts = metrics.energy_by_component_J
    assert parts["idle"] == pytest.approx(2 * 200 * NS)  # accelerator 0, after its 100 ns
    assert parts["digital"] == pytest.approx(400 * 10e-12)
    assert set(parts) == {"array", "adc", "update", "digital", "on_chip", "links", "idle"}
    assert metrics.energy_J == pytest.approx(sum(parts.values()))


def test_of_nothing_everything_is_zero() -> None:
    for score in (program(), program(digital(0, 0, 0))):
        metrics = summarise(replay(score, cluster()))
        assert (metrics.modelled_step_s, metrics.bubble, metrics.compute_fraction) == (0.0, 0.0, 0.0)
        assert metrics.energy_J == 0.0


def test_the_dictionary_is_plain_json_with_units_in_its_keys() -> None:
    metrics = summarise(replay(gpipe(3, 2, transfers=True), cluster()))
    plain = metrics.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["modelled_step_s"] == metrics.modelled_step_s
    assert plain["accelerators"][1]["idle_s"] == metrics.accelerators[1].idle_s
    assert plain["links"][0] == {
        "link": "board:0->1",
        "axis": "board",
        "link_bytes": 200.0,
        "busy_s": pytest.approx(200 * NS),
        "utilisation": pytest.approx(200 * NS / metrics.modelled_step_s),
    }
    assert set(plain["critical_path_s"]) == {"forward", "backward", "send"}


spans = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 40), st.integers(0, 15)), max_size=30)


@given(spans)
def test_any_intervals_are_told_apart_moment_by_moment(
    cases: list[tuple[int, bool, int, int]],
) -> None:
    """Against counting whole nanoseconds one by one."""
    ops: list[Op] = []
    for accelerator, computes, _, _ in cases:
        ops.append(
            digital(len(ops), accelerator, 0)
            if computes
            else collective(len(ops), "all_gather", sorted({accelerator, (accelerator + 1) % 4}), 0)
        )
    timeline: Timeline = replace(
        replay(program(*ops), cluster()),
        start_s=tuple(float(start) for _, _, start, _ in cases),
        finish_s=tuple(float(start + length) for _, _, start, length in cases),
    )
    metrics = summarise(timeline)
    makespan = int(timeline.makespan_s)
    for use in metrics.accelerators:
        computing, communicating = set[int](), set[int]()
        for op, (_, computes, start, length) in zip(ops, cases, strict=True):
            if use.accelerator in op.accelerators:
                (computing if computes else communicating).update(range(start, start + length))
        assert use.compute_s == len(computing)
        assert use.exposed_communication_s == len(communicating - computing)
        assert use.idle_s == makespan - len(computing | communicating)
