"""The replay where links are shared, tiles run short, layers stream, and where it is compiled; against closed forms."""

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpucluster.cluster import Accelerator, Cluster
from rpucluster.collective import cost
from rpucluster.program import Collective, Digital, Op, Program, Read, Send
from rpucluster.timeline import Timeline, arrange, replay
from rpucluster.topology import Axis, Faults, Network
from tests.ops import collective, digital, program, random_program, read, send

NS = 1e-9


def cluster(size: int = 4, *, chip: dict[str, Any] | None = None, queue: str = "arrival", **axis: Any) -> Cluster:
    """A ring of small chips: 1 us and 1 GB/s per hop; digital operations of 1 ns."""
    keys: dict[str, Any] = {
        "name": "board", "kind": "ring", "size": size, "bandwidth": "1 GB/s", "latency": "1 us", "contention": "fair",
    } | axis  # fmt: skip
    small = {"tile_rows": 16, "tile_cols": 16, "tiles": 64, "active_tiles": 64, "digital_rate": "1 Gop/s"}
    chips = Accelerator(**(small | {"queue": queue} | (chip or {})))
    return Cluster(name="small", accelerator=chips, network=Network(axis=(Axis(**keys),), queue=queue))


def spans(timeline: Timeline) -> list[tuple[float, float]]:
    """Start and finish of each operation in nanoseconds, to the picosecond."""
    times = zip(timeline.start_s, timeline.finish_s, strict=True)
    return [(round(start / NS, 3), round(finish / NS, 3)) for start, finish in times]


# --- shared links ---


def test_two_transfers_share_a_link_half_and_half() -> None:
    timeline = replay(program(send(0, 0, 1, 1000), send(1, 0, 1, 3000)), cluster())
    # both at half speed until the first has sent its 1000 bytes, then the other's last 2000 at full speed; latency 1 us
    assert spans(timeline) == [(0, 3000), (0, 5000)]


def test_a_late_transfer_takes_its_half_from_then_on() -> None:
    timeline = replay(program(send(0, 0, 1, 2000), digital(1, 0, 500), send(2, 0, 1, 600, [1])), cluster())
    # from 500 to 1700 both have half: 600 bytes each; then the first sends its last 900
    assert spans(timeline) == [(0, 3600), (0, 500), (500, 2700)]


def test_sharing_is_max_min_fair() -> None:
    """The textbook case: one flow over both links of a line and others over one of them each."""
    wide = cluster(4, kind="mesh")
    timeline = replay(
        program(
            send(0, 0, 2, 10_000),  # links 0-1 and 1-2
            send(1, 0, 1, 10_000),  # link 0-1
            send(2, 0, 1, 10_000),  # link 0-1: its three flows have a third each
            send(3, 1, 2, 30_000),  # link 1-2: what is left, two thirds, until the others end at 30 us
        ),
        wide,
    )
    assert spans(timeline) == [(0, 32_000), (0, 31_000), (0, 31_000), (0, 30_000 + 10_000 + 1000)]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.integers(0, 2**32))
def test_a_shared_link_works_until_it_has_sent_everything(sizes: list[int], seed: int) -> None:
    """Work is conserved: whatever sets off at 0 on one link ends when all its bytes have passed, smallest first."""
    random.Random(seed).shuffle(sizes)
    finish = replay(program(*(send(i, 0, 1, size) for i, size in enumerate(sizes))), cluster()).finish_s
    # processor sharing: when the k-th smallest ends, each of the n - k that are left has sent as much as it
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    done = 0.0
    for k, (op, before) in enumerate(zip(order, [None, *order], strict=False)):
        done += (len(sizes) - k) * (sizes[op] - (0 if before is None else sizes[before]))
        assert finish[op] / NS == pytest.approx(done + 1000)


def test_a_collective_alone_takes_its_time_on_shared_links_too() -> None:
    score = program(collective(0, "all_reduce", range(4), 4000))
    assert replay(score, cluster()).makespan_s == pytest.approx(replay(score, cluster(contention="fifo")).makespan_s)


# --- tiles that may be active ---


def test_layers_work_side_by_side_as_far_as_tiles_may_be_active() -> None:
    ops = [read(i, 0, layer=i, tiles=tiles) for i, tiles in enumerate((4, 3, 2, 1))]
    timeline = replay(program(*ops), cluster(chip={"active_tiles": 8}))
    # 4 + 3 fit 8; 2 more do not, and the one that needs only 1 does not overtake it
    assert spans(timeline) == [(0, 80), (0, 80), (80, 160), (80, 160)]
    assert timeline.reasons == ("start", "start", "tiles", "tiles")


# --- digital units and the network on the chip are shared by the layers of a chip ---


def test_additions_of_two_layers_queue_at_the_digital_units() -> None:
    ops = [read(0, 0, layer=0, additions=100), read(1, 0, layer=1, additions=100)]
    assert spans(replay(program(*ops), cluster())) == [(0, 100), (0, 200)]


def test_two_layers_queue_at_the_network_on_the_chip() -> None:
    ops = [read(0, 0, layer=0), read(1, 0, layer=1), read(2, 1, layer=0)]
    narrow = cluster(chip={"on_chip_bandwidth": "0.28 GB/s"})  # 28 bytes of a read take 100 ns
    assert spans(replay(program(*ops), narrow)) == [(0, 100), (0, 200), (0, 100)]


# --- what is slow ---


def test_everything_on_a_slow_accelerator_takes_longer_and_nothing_else() -> None:
    ops = (read(0, 0), read(1, 3, additions=100), digital(2, 3, 40, [1]), send(3, 3, 2, 1000, [2]), read(4, 2, [3]))
    slow = cluster().model_copy(update={"faults": Faults(slow_accelerators={"3": 1.5})})
    assert spans(replay(program(*ops), slow)) == [(0, 80), (0, 150), (150, 210), (210, 2210), (2210, 2290)]


# --- many links at once ---


def test_links_taken_as_one_change_nothing() -> None:
    """Groups that hold all links between their members, and sends that hold single ones of them, against the same
    program in which a send of nothing but its time breaks every set of links up."""
    draw = random.Random(random.randrange(2**32))
    ops: list[Op] = []
    for i in range(60):
        deps = sorted({draw.randrange(i) for _ in range(2)}) if i else []
        if draw.random() < 0.5:
            members = draw.choice([range(4), range(4, 8), range(8)])
            ops.append(collective(i, "all_reduce", members, draw.randrange(4000), deps))
        else:
            ops.append(send(i, draw.randrange(8), draw.randrange(8), draw.randrange(2000), deps))
    # a byte over each link once all is over: then no two links are held by the same prices
    pairs = [(a, b) for a in range(8) for b in range(8) if a != b]
    apart = [*ops, *(send(60 + i, a, b, 5000 + i, range(60)) for i, (a, b) in enumerate(pairs))]
    for contention in ("fifo", "fair"):
        machine = cluster(8, kind="fully_connected", contention=contention)
        assert replay(program(*apart), machine).finish_s[:60] == replay(program(*ops), machine).finish_s


# --- layers that stream ---


def chain(layers: int, vectors: int, operations: int) -> Program:
    """Forward through layers of one accelerator, each with its activation."""
    ops: list[Op] = []
    for layer in range(layers):
        ops.append(read(len(ops), 0, [len(ops) - 1] if ops else [], layer=layer, vectors=vectors))
        ops.append(digital(len(ops), 0, operations * vectors, [len(ops) - 1], vectors))
    return Program(ops=tuple(ops), accelerators=(0,), samples=vectors, microbatches=1, minibatch=vectors)


@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize("vectors", [1, 2, 7, 64])
def test_layers_that_stream_are_a_pipeline_of_vectors(layers: int, vectors: int) -> None:
    """The first vector passes all stages, then one leaves per 80 ns: the slowest stage."""
    operations = 8  # of 1 ns for each vector and layer
    score = chain(layers, vectors, operations)
    apart = replay(score, cluster()).makespan_s
    streamed = replay(score, cluster(chip={"layer_streaming": True})).makespan_s
    assert apart / NS == pytest.approx(layers * vectors * (80 + operations))
    assert streamed / NS == pytest.approx(layers * (80 + operations) + (vectors - 1) * 80)


def test_digital_units_that_are_too_slow_hold_up_a_stream() -> None:
    """One unit for all layers: it works without a gap from the first vector on."""
    layers, vectors, operations = 3, 16, 100
    timeline = replay(chain(layers, vectors, operations), cluster(chip={"layer_streaming": True}))
    assert timeline.makespan_s / NS >= 80 + layers * vectors * operations - 1e-6


def test_a_stream_ends_at_the_edge_of_its_accelerator() -> None:
    score = program(read(0, 0, vectors=4), send(1, 0, 1, 10, [0]), read(2, 1, [1], vectors=4))
    timeline = replay(score, cluster(chip={"layer_streaming": True}))
    assert spans(timeline) == [(0, 320), (320, 1330), (1330, 1650)]


# --- queues in the order of the program ---


def test_a_link_takes_what_stands_first_in_the_program_though_it_came_last() -> None:
    """A send of 600 ns is under way from 100 on when three more come, the first in the program last."""
    score = program(
        digital(0, 1, 100),
        digital(1, 1, 200),  # until 300
        digital(2, 1, 200),  # until 500
        send(3, 1, 2, 1000, [2]),
        send(4, 1, 2, 400, [1]),
        send(5, 1, 2, 600, [0]),
        send(6, 1, 2, 200, [0]),
    )
    first_come = replay(score, cluster(contention="fifo"))
    in_order = replay(score, cluster(contention="fifo", queue="program"))
    assert [spans(first_come)[i] for i in (5, 6, 4, 3)] == [(100, 1700), (700, 1900), (900, 2300), (1300, 3300)]
    assert [spans(in_order)[i] for i in (5, 3, 4, 6)] == [(100, 1700), (700, 2700), (1700, 3100), (2100, 3300)]


def test_digital_units_do_first_what_stands_first_in_the_program() -> None:
    score = program(
        digital(0, 0, 300),
        read(1, 0),  # until 80
        digital(2, 0, 50, [1]),
        digital(3, 1, 20),
        digital(4, 0, 70, [3]),
    )
    assert spans(replay(score, cluster()))[2:] == [(370, 420), (0, 20), (300, 370)]
    assert spans(replay(score, cluster(queue="program")))[2:] == [(300, 350), (0, 20), (350, 420)]


def test_a_microbatch_leaves_a_stage_before_the_sums_of_later_ones() -> None:
    """Two stages of two ranks: sums of every microbatch come at once, and their links also bring them to stage 2."""
    ops: list[Op] = []
    count = 6
    for _ in range(count):
        summed = collective(len(ops), "all_reduce", [0, 1], 1000)
        ops += [summed, send(len(ops) + 1, 0, 1, 500, [summed.id]), digital(len(ops) + 2, 1, 4000, [summed.id + 1])]
    score = program(*ops)
    late = replay(score, cluster(2, kind="fully_connected", contention="fifo"))
    early = replay(score, cluster(2, kind="fully_connected", contention="fifo", queue="program"))
    sums, sent = late.finish_s[0], 1500 * NS
    # first come: all sums, then all sends; the last stage begins when the sums are all done
    assert late.start_s[2] == pytest.approx(count * sums + sent)
    assert early.start_s[2] == pytest.approx(sums + sent)
    assert early.makespan_s < late.makespan_s


# --- the compiled loop ---


@pytest.mark.parametrize("contention", ["fifo", "fair", "none"])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("queue", ["arrival", "program"])
def test_compiled_and_interpreted_replays_agree_to_the_last_bit(contention: str, streaming: bool, queue: str) -> None:
    for seed in range(20):
        score = arrange(random_program(random.randrange(2**32), 200))
        chip = {"active_tiles": 6, "layer_streaming": streaming}
        machine = cluster(contention=contention, chip=chip, queue=queue)
        compiled, interpreted = (replay(score, machine, compiled=way) for way in (True, False))
        assert compiled.start_s == interpreted.start_s, seed
        assert compiled.finish_s == interpreted.finish_s
        assert compiled.causes == interpreted.causes
        assert compiled.reasons == interpreted.reasons


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["fifo", "fair", "none"]),
    st.booleans(),
    st.sampled_from([4, 64]),
    st.sampled_from(["arrival", "program"]),
)
def test_what_holds_of_any_program(seed: int, contention: str, streaming: bool, active: int, queue: str) -> None:
    score = random_program(seed, 60)
    chip = {"active_tiles": active, "layer_streaming": streaming}
    machine = cluster(contention=contention, chip=chip, queue=queue)
    timeline = replay(score, machine)
    start, finish = timeline.start_s, timeline.finish_s
    # no more tiles at once than may be active
    changes: list[tuple[float, int, int]] = []
    for op in score:
        assert finish[op.id] >= start[op.id]
        for dep in op.deps:
            both = isinstance(op, Read | Digital) and isinstance(score.ops[dep], Read | Digital)
            assert (finish if both and streaming else start)[op.id] >= (start if both and streaming else finish)[dep]
            assert finish[op.id] >= finish[dep] * (1 - 1e-12)
        if isinstance(op, Read) and op.accelerator == 0:
            changes += [(start[op.id], 1, op.tiles), (finish[op.id], 0, -op.tiles)]
    held = 0
    for _, _, tiles in sorted(changes):
        held += tiles
        assert held <= active
    # bytes are conserved, whatever the order
    assert timeline.link_bytes == pytest.approx(replay(score, cluster(contention="none")).link_bytes)
    # what holds a link holds it alone
    if contention == "fifo":
        by_link: dict[int, list[tuple[float, float]]] = {}
        for span in timeline.link_spans():
            if span.end_s > span.begin_s:
                by_link.setdefault(span.link, []).append((span.begin_s, span.end_s))
        for times in by_link.values():
            for before, after in pairwise(sorted(times)):
                assert after[0] >= before[1] - 1e-15
    # the path that fixes the makespan has no gap
    path = timeline.critical_path()
    assert start[path[0]] == 0.0
    assert finish[path[-1]] == timeline.makespan_s
    for before, after in pairwise(path):
        assert start[after] <= finish[before] + 1e-15
    assert all(isinstance(score.ops[op], Collective | Send) for op, why in enumerate(timeline.reasons) if why == "link")


def faster(machine: dict[str, Any], chip: dict[str, Any], draw: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same cluster with one thing better."""
    change = draw.choice([{"bandwidth": "2 GB/s"}, {"latency": "0.5 us"}, {"forward_time": "40 ns"}])
    return (machine, chip | change) if "forward_time" in change else (machine | change, chip)


def test_where_the_order_is_fixed_a_faster_machine_is_never_slower() -> None:
    """No contention, tiles for all and nothing for the digital units: only dependencies and turns are left, so a finish
    is a maximum of sums of durations."""
    for _ in range(200):
        draw = random.Random(random.randrange(2**32))
        ops = random_program(draw.randrange(2**32), 80).ops
        quiet = [
            digital(op.id, op.accelerator, 0, op.deps) if isinstance(op, Digital)
            else read(op.id, op.accelerator, op.deps, layer=op.layer) if isinstance(op, Read)
            else op
            for op in ops
        ]  # fmt: skip
        score = arrange(Program(ops=tuple(quiet), accelerators=(0, 1, 2, 3), samples=4, microbatches=1, minibatch=4))
        before = ({"contention": "none"}, {"on_chip_bandwidth": "1e9 GB/s"})
        after = faster(*before, draw)
        slow = replay(score, cluster(chip=before[1], **before[0]))
        fast = replay(score, cluster(chip=after[1], **after[0]))
        assert all(b <= a * (1 + 1e-12) for a, b in zip(slow.finish_s, fast.finish_s, strict=True))


def test_collectives_of_a_program_are_split_as_the_network_says() -> None:
    """The outer axis has a fourth of the bandwidth and of the bytes: one chunk keeps the two axes busy in turn, several
    follow one another through them."""
    axes = [
        {"name": name, "kind": "ring", "size": 4, "bandwidth": bandwidth, "latency": "1 ns"}
        for name, bandwidth in (("a", "1 GB/s"), ("b", "0.25 GB/s"))
    ]
    machine = Cluster(name="torus", accelerator=Accelerator(), network=Network.model_validate({"axis": axes}))
    score = program(collective(0, "all_reduce", range(16), 10**6))
    split = machine.model_copy(update={"network": machine.network.model_copy(update={"chunks": 8, "active_chunks": 2})})
    network = machine.network
    alone = cost("all_reduce", range(16), [1e6] * 16, network, chunks=8, active_chunks=2).modelled_s
    assert replay(score, split).makespan_s == alone < 0.75 * replay(score, machine).makespan_s
