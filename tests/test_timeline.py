"""The replay: exact logs of small programs, queues, turns, energy, and the path that fixes the makespan."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.cluster import Accelerator, Cluster
from rpucluster.collective import cost
from rpucluster.errors import InputError
from rpucluster.program import Collective, Digital, Lines, Op, Program, Read, Rewrite, Send, Update
from rpucluster.timeline import Energy, Timeline, replay
from rpucluster.topology import Axis, Network
from tests.ops import collective, digital, program, read, send

NS = 1e-9


def cluster(size: int = 4, *, chip: dict[str, Any] | None = None, **axis: Any) -> Cluster:
    """A board of small chips: 1 us and 1 GB/s per hop, so that a byte takes a nanosecond."""
    keys: dict[str, Any] = {
        "name": "board",
        "kind": "ring",
        "size": size,
        "bandwidth": "1 GB/s",
        "latency": "1 us",
    } | axis
    small: dict[str, Any] = {
        "tile_rows": 16,
        "tile_cols": 16,
        "tiles": 64,
        "active_tiles": 8,
        "digital_rate": "1 Gop/s",
    }
    return Cluster(
        name="small", accelerator=Accelerator(**(small | (chip or {}))), network=Network(axis=(Axis(**keys),))
    )


def log(timeline: Timeline) -> list[tuple[int, int]]:
    """Start and finish of each operation in whole nanoseconds."""
    return [
        (round(start / NS), round(finish / NS))
        for start, finish in zip(timeline.start_s, timeline.finish_s, strict=True)
    ]


def test_nothing_takes_no_time() -> None:
    timeline = replay(program(), cluster())
    assert (timeline.makespan_s, timeline.critical_path()) == (0.0, ())


def test_a_step_of_every_kind_of_operation() -> None:
    rewrite: dict[str, Any] = {"layer": 0, "rows": 16, "tiles": 1, "cells": 256, "bit_length": 10}
    timeline = replay(
        program(
            read(0, 0, vectors=2),  # 2 x 80 ns
            digital(1, 0, 32, [0]),  # 32 operations at 1 Gop/s
            send(2, 0, 1, 100, [1]),  # 1 us + 100 ns
            Update(
                id=3, accelerator=1, layer=0, samples=3, tiles=1, cells=256, lines=32, bit_length=10, deps=(2,)
            ),  # 3 samples x 2 phases x 10 slots of 1 ns
            Rewrite(id=4, accelerator=1, kind="read_out", deps=(3,), **rewrite),  # 16 rows x 80 ns
            collective(5, "all_reduce", [0, 1], 100, [4]),  # 2 rounds of 1 us + 50 ns
            Rewrite(id=6, accelerator=1, kind="program", deps=(5,), **rewrite),  # 16 rows x 20 ns
        ),
        cluster(),
    )
    assert log(timeline) == [
        (0, 160), (160, 192), (192, 1292), (1292, 1352), (1352, 2632), (2632, 4732), (4732, 5052),
    ]  # fmt: skip
    assert timeline.critical_path() == (0, 1, 2, 3, 4, 5, 6)


def test_what_shares_arrays_goes_in_program_order_and_digital_units_serve_who_is_ready() -> None:
    timeline = replay(
        program(
            read(0, 0),
            read(1, 0),  # the same layer: after 0
            read(2, 0, layer=1),  # another layer: at once
            digital(3, 0, 50, [1]),
            digital(4, 0, 10),  # has no dependency, so it does not wait for 3
            read(5, 1),  # another accelerator
            digital(6, 0, 20, [2]),
            digital(7, 0, 20, [2]),  # ready like 6: after it, by id
        ),
        cluster(),
    )
    assert log(timeline) == [
        (0, 80), (80, 160), (0, 80), (160, 210), (0, 10), (0, 80), (80, 100), (100, 120),
    ]  # fmt: skip
    assert timeline.causes == (-1, 0, -1, 1, -1, -1, 2, 6)
    assert timeline.reasons == (
        "start", "arrays", "start", "dependency", "start", "start", "dependency", "digital",
    )  # fmt: skip


def test_layers_take_turns_where_not_all_tiles_may_be_active() -> None:
    ops = [read(0, 0, layer=0, tiles=5), read(1, 0, layer=1, tiles=4), read(2, 0, layer=0, tiles=5)]
    assert log(replay(program(*ops), cluster(chip={"active_tiles": 9}))) == [(0, 80), (0, 80), (80, 160)]
    assert log(replay(program(*ops), cluster(chip={"active_tiles": 8}))) == [(0, 80), (80, 160), (160, 240)]


def test_more_tiles_than_may_be_active_work_in_waves() -> None:
    update = Update(id=1, accelerator=0, layer=0, samples=1, tiles=17, cells=17 * 256, lines=0, bit_length=10)
    timeline = replay(program(read(0, 0, tiles=17, vectors=2), update), cluster())
    # 17 tiles, 8 at once: three waves of 80 ns per vector, three of 20 ns per update
    assert log(timeline) == [(0, 480), (480, 540)]


def test_lines_that_an_algorithm_reads_and_writes_follow_the_pulses() -> None:
    """Three columns of 16 values of each of two tiles at 80 ns a read and 1 slot in both polarities a write."""
    alone = Lines(
        direction="forward", passes=6, passes_in_turn=3, values=96, writes=6, writes_in_turn=3, written=96, slots=1,
        operations=100,
    )  # fmt: skip
    plain = Update(id=0, accelerator=0, layer=0, samples=3, tiles=2, cells=512, lines=64, bit_length=10)
    machine = cluster()
    chip = machine.accelerator
    more = replay(program(replace(plain, alone=alone)), machine)
    less = replay(program(plain), machine)
    assert log(less) == [(0, 60)]
    assert log(more) == [(0, 60 + 240 + 6)]
    assert log(replay(program(replace(plain, alone=replace(alone, operations=1000))), machine)) == [(0, 60 + 1000)]
    energy, before = more.energy_J[0], less.energy_J[0]
    assert energy.array == pytest.approx(96 * chip.read_energy)
    assert energy.adc == pytest.approx(96 * chip.adc_energy)
    assert energy.digital == pytest.approx(100 * chip.digital_energy)
    assert energy.update - before.update == pytest.approx(2 * 96 * chip.pulse_energy)
    assert energy.on_chip == pytest.approx(96 * (5 + 9) / 8 * chip.on_chip_energy)
    # pulses of a sample reach every device of a cell, in the same time
    both = replay(program(replace(plain, planes=2)), machine)
    assert log(both) == log(less)
    assert both.energy_J[0].update == pytest.approx(2 * before.update)
    # without pulse trains there is nothing but the lines
    assert log(replay(program(replace(plain, pulsed=False, alone=alone)), machine)) == [(0, 246)]


@pytest.mark.parametrize(
    ("chip", "keys", "nanoseconds"),
    [
        ({}, {}, 80),
        ({"on_chip_bandwidth": "0.1 GB/s"}, {}, 280),  # 16 lines of 5 + 9 bits are 28 bytes
        ({}, {"additions": 100}, 100),  # at 1 Gop/s
        ({"adc_lines": 16, "conversion_time": "6 ns"}, {}, 96),
    ],
)
def test_the_slowest_stream_of_a_read_counts(chip: dict[str, Any], keys: dict[str, Any], nanoseconds: int) -> None:
    assert log(replay(program(read(0, 0, **keys)), cluster(chip=chip))) == [(0, nanoseconds)]


def test_transfers_on_one_link_queue_by_the_time_they_are_ready() -> None:
    timeline = replay(
        program(
            digital(0, 0, 300),
            digital(1, 0, 100, [0]),
            send(2, 0, 1, 500, [1]),  # ready at 400
            send(3, 0, 1, 500, [0]),  # ready at 300: goes first
            send(4, 0, 1, 200, [1]),  # ready at 400 like 2: follows it, by id
            send(5, 1, 0, 500, [0]),  # the other direction has a link of its own
            send(6, 0, 3, 500, [0]),  # and so has the other neighbour
        ),
        cluster(),
    )
    # a send takes its link for its bytes; its latency of 1 us passes beside the next
    assert log(timeline) == [
        (0, 300), (300, 400), (800, 2300), (300, 1800), (1300, 2500), (300, 1800), (300, 1800),
    ]  # fmt: skip
    assert timeline.causes[2:5] == (3, 0, 2)
    assert timeline.critical_path() == (0, 3, 2, 4)
    assert timeline.link_bytes == {0: 1200.0, 1: 500.0, 2 * 1 + 1: 500.0}
    assert timeline.link_busy_s == pytest.approx({0: 1200 * NS, 1: 500 * NS, 3: 500 * NS})


def test_without_contention_every_transfer_sees_the_full_link() -> None:
    timeline = replay(program(send(0, 0, 1, 500), send(1, 0, 1, 500)), cluster(contention="none"))
    assert log(timeline) == [(0, 1500), (0, 1500)]


def test_a_collective_waits_for_all_its_links_and_holds_them_all() -> None:
    timeline = replay(
        program(
            send(0, 2, 3, 5000),  # holds one link of the ring until 5000
            collective(1, "all_reduce", [0, 1, 2, 3], 4000),  # direct: 2 rounds of 2 hops and 3 messages on a link
            send(2, 0, 1, 100),  # its link lies idle, but the collective was there before
        ),
        cluster(),
    )
    assert log(timeline) == [(0, 6000), (5000, 15000), (15000, 16100)]
    assert timeline.critical_path() == (0, 1, 2)


def test_collectives_on_other_links_run_side_by_side() -> None:
    timeline = replay(
        program(collective(0, "all_reduce", [0, 1], 100), collective(1, "all_reduce", [2, 3], 100)), cluster()
    )
    assert log(timeline) == [(0, 2100), (0, 2100)]


def test_communication_overlaps_computing() -> None:
    timeline = replay(program(read(0, 0), send(1, 0, 1, 10, [0]), read(2, 0), read(3, 1, [1])), cluster())
    assert log(timeline) == [(0, 80), (80, 1090), (80, 160), (1090, 1170)]


def test_endless_bandwidth_without_latency_takes_no_time() -> None:
    ideal = cluster(bandwidth="inf GB/s", latency="0 s")
    timeline = replay(
        program(read(0, 0), send(1, 0, 2, 10**9, [0]), collective(2, "all_reduce", range(4), 10**9, [1])), ideal
    )
    assert log(timeline) == [(0, 80), (80, 80), (80, 80)]
    assert sum(timeline.link_bytes.values()) == pytest.approx(2e9 + 6e9)


def test_energy_follows_the_counts() -> None:
    machine = cluster(
        chip={
            "read_energy": "1 fJ",
            "adc_energy": "1 pJ",
            "pulse_energy": "2 fJ",
            "digital_energy": "3 pJ",
            "on_chip_energy": "4 pJ/B",
        },
        energy_per_byte="5 pJ/B",
    )
    rewrite: dict[str, Any] = {"accelerator": 0, "layer": 0, "rows": 16, "tiles": 1, "cells": 256, "bit_length": 7}
    ops = (
        read(0, 0, vectors=3, additions=10),
        digital(1, 0, 20),
        Update(id=2, accelerator=0, layer=0, samples=4, tiles=1, cells=256, lines=32, bit_length=7),
        Rewrite(id=3, kind="read_out", **rewrite),
        Rewrite(id=4, kind="program", **rewrite),
        send(5, 0, 2, 100),
    )
    expected = [
        Energy(array=3 * 256e-15, adc=3 * 16e-12, digital=3 * 10 * 3e-12, on_chip=3 * 28 * 4e-12),
        Energy(digital=20 * 3e-12),
        Energy(update=4 * 256 * 2 * 7 * 2e-15),
        Energy(array=256e-15, adc=256e-12, on_chip=256 * 9 / 8 * 4e-12),  # each cell once, 9 bits of it
        Energy(update=256 * 2 * 7 * 2e-15, on_chip=256 * 5 / 8 * 4e-12),
        Energy(links=2 * 100 * 5e-12),  # two hops
    ]
    for found, energy in zip(replay(program(*ops), machine).energy_J, expected, strict=True):
        assert found == pytest.approx(energy)


def test_a_full_pass_of_the_paper_chip_costs_5_watts_per_active_tile() -> None:
    """The all-in check: one vector through 50 tiles, and one activation for each of their outputs."""
    machine = Cluster(name="paper", accelerator=Accelerator(), network=Network())
    n, tiles = 4096, 50
    full = read(0, 0, tiles=tiles, cells=tiles * n * n, input_lines=tiles * n, output_lines=tiles * n)
    timeline = replay(program(full, digital(1, 0, tiles * n)), machine)
    assert timeline.finish_s[0] == pytest.approx(80 * NS)
    # the digital units take as long for what one pass delivers: a stream of passes keeps them just busy
    assert timeline.finish_s[1] - timeline.start_s[1] == pytest.approx(80 * NS)
    joules = sum(sum(energy) for energy in timeline.energy_J)
    assert joules == pytest.approx(tiles * 5.0 * 80 * NS)
    operations = 2 * full.cells  # a multiplication and an addition for each cell
    assert operations / joules / 1e9 == pytest.approx(84_000, rel=2e-3)  # GigaOps/s/W [paper, abstract]
    assert operations / (80 * NS) / 1e12 == pytest.approx(20_970, rel=1e-3)  # TeraOps/s


def test_accelerators_that_are_not_there_are_refused() -> None:
    with pytest.raises(InputError, match="the program uses accelerator 4 but small has 4, numbered from 0"):
        replay(program(read(0, 4)), cluster())


@st.composite
def programs(draw: st.DrawFn) -> Program:
    ops: list[Op] = []
    for i in range(draw(st.integers(1, 25))):
        deps = draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set()
        a, b = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        match draw(st.integers(0, 3)):
            case 0:
                ops.append(read(i, a, sorted(deps), layer=b, tiles=1 + b))
            case 1:
                ops.append(digital(i, a, 100 * b, sorted(deps)))
            case 2:
                ops.append(send(i, a, b, draw(st.integers(0, 2000)), sorted(deps)))
            case _:
                ops.append(collective(i, "all_reduce", sorted({a, b}), 1000, sorted(deps)))
    return program(*ops)


@given(programs(), st.sampled_from(["fifo", "none"]), st.sampled_from([4, 64]))
def test_any_program_keeps_the_rules(score: Program, contention: str, active: int) -> None:
    machine = cluster(contention=contention, chip={"active_tiles": active})
    timeline = replay(score, machine)
    assert log(replay(score, machine)) == log(timeline)  # deterministic
    ready = [max((timeline.finish_s[dep] for dep in op.deps), default=0.0) for op in score]
    for op, start in zip(score, timeline.start_s, strict=True):
        assert start >= ready[op.id]
    # units and links serve one at a time: intervals of what shares one do not overlap
    turns: dict[object, list[int]] = {}
    for op in score:
        if isinstance(op, Read | Digital):
            turns.setdefault((op.accelerator, type(op), getattr(op, "layer", 0)), []).append(op.id)
    for ids in turns.values():
        if isinstance(score.ops[ids[0]], Digital):
            ids.sort(key=lambda op: (timeline.start_s[op], timeline.finish_s[op]))
        for before, after in pairwise(ids):
            assert timeline.start_s[after] >= timeline.finish_s[before] - 1e-15
    if contention == "fifo":
        for op in score:
            if isinstance(op, Collective):
                links = set(cost(op.kind, op.members, op.bytes, machine.network).link_bytes)
                for other in score:
                    if (
                        isinstance(other, Collective)
                        and other.id != op.id
                        and links & set(cost(other.kind, other.members, other.bytes, machine.network).link_bytes)
                    ):
                        apart = timeline.start_s[other.id] >= timeline.finish_s[op.id] - 1e-15
                        assert apart or timeline.start_s[op.id] >= timeline.finish_s[other.id] - 1e-15
    # the critical path starts at 0, ends at the makespan and has no gap
    path = timeline.critical_path()
    assert timeline.start_s[path[0]] == 0.0
    assert timeline.finish_s[path[-1]] == timeline.makespan_s
    assert len(set(path)) == len(path)
    for before, after in pairwise(path):
        assert timeline.start_s[after] <= timeline.finish_s[before] + 1e-15
        if not isinstance(score.ops[after], Collective | Send):
            assert timeline.start_s[after] == timeline.finish_s[before]


def test_a_transfer_sets_off_before_the_one_that_it_waits_for_on_its_way() -> None:
    """On a ring of links of 1 us, 53 bytes from 1 to 3 wait until an all-reduce of 2 and 3 has left their second link,
    and so set off at 2 us; 1000 bytes from 0 to 2 reach their second link, from 1 to 2, as these leave it."""
    machine = cluster(contention="fifo")
    timeline = replay(
        program(collective(0, "all_reduce", [2, 3], 1000), send(1, 1, 3, 53), send(2, 0, 2, 1000)), machine
    )
    assert timeline.start_s == pytest.approx((0.0, 2000 * NS, 1053 * NS))
    assert timeline.critical_path() == (0, 1, 2)
