"""Collectives against textbook closed forms, against ASTRA-sim, and against the flow of their own blocks."""

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.collective import (
    Algorithm,
    CollectiveKind,
    Hold,
    Transfer,
    cost,
    default_algorithm,
    expand,
    send_cost,
)
from rpucluster.errors import InputError
from rpucluster.topology import Axis, AxisKind, Network

GB, US = 1e9, 1e-6
BANDWIDTH, LATENCY = 50 * GB, 0.5 * US
SIZES = (0.5, 1e3, 1e6, 1e9)


def network(*axes: tuple[AxisKind, int], **keys: Any) -> Network:
    defaults = {"bandwidth": "50 GB/s", "latency": "500 ns"}
    return Network(
        axis=tuple(
            Axis(name="xyz"[k], kind=kind, size=size, **(defaults | keys)) for k, (kind, size) in enumerate(axes)
        )
    )


def send(nbytes: float, hops: int = 1) -> float:
    return hops * LATENCY + nbytes / BANDWIDTH


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n", [2, 3, 4, 8, 13, 64])
class TestClosedForms:
    def check(
        self, kind: CollectiveKind, net: Network, size: float, algorithm: Algorithm, seconds: float, steps: int
    ) -> None:
        n = net.accelerators
        found = cost(kind, range(n), [size] * n, net)
        assert found.algorithm == algorithm
        assert found.modelled_s == pytest.approx(seconds, rel=1e-12)
        assert found.steps == steps

    def test_ring(self, n: int, size: float) -> None:
        net = network(("ring", n))
        self.check("all_reduce", net, size, "ring", 2 * (n - 1) * send(size / n), 2 * (n - 1))
        self.check("reduce_scatter", net, size, "ring", (n - 1) * send(size / n), n - 1)
        self.check("all_gather", net, size, "ring", (n - 1) * send(size), n - 1)

    def test_fully_connected(self, n: int, size: float) -> None:
        net = network(("fully_connected", n))
        self.check("all_reduce", net, size, "direct", 2 * send(size / n), 2)
        self.check("reduce_scatter", net, size, "direct", send(size / n), 1)
        self.check("all_gather", net, size, "direct", send(size), 1)

    def test_switch(self, n: int, size: float) -> None:
        net = network(("switch", n))
        if n & (n - 1):  # no power of two: a ring through the switch
            self.check("all_reduce", net, size, "ring", 2 * (n - 1) * send(size / n, 2), 2 * (n - 1))
            return
        rounds = n.bit_length() - 1
        halving = sum(send(size / 2**i, 2) for i in range(1, rounds + 1))
        self.check("all_reduce", net, size, "halving_doubling", 2 * halving, 2 * rounds)
        self.check("reduce_scatter", net, size, "halving_doubling", halving, rounds)
        doubling = sum(send(size * 2**i, 2) for i in range(rounds))
        self.check("all_gather", net, size, "halving_doubling", doubling, rounds)

    def test_bytes_are_conserved(self, n: int, size: float) -> None:
        # every algorithm here is bandwidth-optimal: all n - 1 foreign blocks reach each member exactly once
        kinds: dict[AxisKind, int] = {"ring": 1, "fully_connected": 1, "switch": 2}
        sent_by_each: dict[CollectiveKind, float] = {
            "all_reduce": 2 * (n - 1) / n * size,
            "reduce_scatter": (n - 1) / n * size,
            "all_gather": (n - 1) * size,
        }
        for kind, hops in kinds.items():
            net = network((kind, n))
            for collective, per_member in sent_by_each.items():
                found = cost(collective, range(n), [size] * n, net)
                assert sum(found.link_bytes.values()) == pytest.approx(n * hops * per_member)
                sent: dict[int | None, float] = {}
                for link, nbytes in found.link_bytes.items():
                    source = net.link(link).source
                    sent[source] = sent.get(source, 0.0) + nbytes
                for member in range(n):
                    assert sent[member] == pytest.approx(per_member)


ASTRA = Path(__file__).parents[1].parent / "shared" / "reference" / "astra_collectives.csv"


@pytest.mark.skipif(not ASTRA.is_file(), reason="the ASTRA-sim reference times are not beside the repository")
def test_every_single_axis_row_of_astra_sim_without_chunks() -> None:
    """Its times hold 1 ns of endpoint delay per message and once at the start, and floors to whole ns."""
    kinds: dict[str, AxisKind] = {"Ring": "ring", "FullyConnected": "fully_connected", "Switch": "switch"}
    algorithms: dict[str, Algorithm] = {
        "ring": "ring",
        "direct": "direct",
        "halvingDoubling": "halving_doubling",
    }
    rows = 0
    with ASTRA.open() as file:
        for row in csv.DictReader(file):
            if row["topology"] not in kinds or row["chunks"] != "1" or row["collective"] == "all_to_all":
                continue
            rows += 1
            n, size = int(row["npus"]), float(row["size_bytes"])
            aware = row["backend"] == "aware"
            net = network(
                (kinds[row["topology"]], n),
                bandwidth=f"{row['bandwidth_GiBps_per_dim']} GiB/s",
                latency=f"{row['latency_ns_per_dim']} ns",
                forwarding="store_and_forward" if aware else "cut_through",
                contention="fifo" if aware else "none",
            )
            collective: CollectiveKind = row["collective"]  # type: ignore[assignment]
            found = cost(collective, range(n), [size] * n, net, algorithms[row["algorithm_per_dim"]])
            theirs = float(row["time_ns"]) * 1e-9
            slack = 3e-9 * (found.steps + 1) + 2e-3 * theirs  # delays and floors; its local memory
            assert abs(found.modelled_s - theirs) < slack, row
    assert rows > 400


def test_key_rows_of_astra_sim() -> None:
    """Microseconds as printed by it (GiB/s), to the endpoint delays that are not ours."""
    rows: tuple[tuple[AxisKind, int, int, float], ...] = (
        ("ring", 8, 2**20, 41.189),
        ("ring", 64, 2**30, 39441.151),
        ("fully_connected", 8, 2**30, 5001.405),
        ("switch", 8, 2**20, 40.183),
        ("switch", 64, 2**30, 39388.567),
    )
    for kind, n, size, expected in rows:
        found = cost("all_reduce", range(n), [size] * n, network((kind, n), bandwidth="50 GiB/s"))
        assert found.modelled_s == pytest.approx(expected * US, rel=2e-3)


members_and_blocks = st.integers(1, 9).flatmap(
    lambda n: st.tuples(st.permutations(range(n)), st.lists(st.integers(0, 5), min_size=n, max_size=n))
)


def play(members: Sequence[int], rounds: Sequence[Sequence[Transfer]]) -> dict[int, int]:
    """Play an all-gather whose block i has 2**i bytes: the bytes of a message then tell which blocks it holds."""
    holds = {member: 1 << i for i, member in enumerate(members)}
    for sends in rounds:
        before = dict(holds)
        for source, destination, nbytes in sends:
            blocks = int(nbytes)
            assert blocks & before[source] == blocks, "sent a block that it does not have"
            assert blocks & before[destination] == 0, "sent a block that is already there"
            holds[destination] |= blocks
    return holds


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
@pytest.mark.parametrize("n", [1, 2, 4, 8, 16])
def test_an_all_gather_brings_every_block_to_every_member_once(n: int, algorithm: Algorithm) -> None:
    members = [3 * i for i in reversed(range(n))]
    rounds = expand("all_gather", members, [2**i for i in range(n)], algorithm)
    assert play(members, rounds) == dict.fromkeys(members, 2**n - 1)


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_an_all_reduce_is_the_gather_after_its_mirror_image(algorithm: Algorithm) -> None:
    members = range(8)
    scatter = expand("reduce_scatter", members, [80.0] * 8, algorithm)
    gather = expand("all_gather", members, [10.0] * 8, algorithm)
    assert expand("all_reduce", members, [80.0] * 8, algorithm) == scatter + gather
    assert scatter == gather[::-1]


def by_hand(net: Network, rounds: Sequence[Sequence[Transfer]]) -> tuple[float, Counter[int]]:
    """Sum over rounds of the slowest single send, where no two sends of a round share a link."""
    seconds, on_link = 0.0, Counter[int]()
    for sends in rounds:
        links = Counter[int]()
        slowest = 0.0
        for source, destination, nbytes in sends:
            alone = send_cost(source, destination, nbytes, net)
            slowest = max(slowest, alone.modelled_s)
            links.update(alone.link_bytes.keys())
            for link, crossed in alone.link_bytes.items():
                on_link[link] += crossed  # type: ignore[assignment]
        assert max(links.values()) == 1
        seconds += slowest
    return seconds, on_link


@pytest.mark.parametrize("forwarding", ["cut_through", "store_and_forward"])
@pytest.mark.parametrize(("kind", "n"), [("ring", 5), ("ring", 8), ("fully_connected", 6), ("switch", 8)])
@pytest.mark.parametrize("collective", get_args(CollectiveKind))
def test_the_cost_is_that_of_its_expansion(collective: CollectiveKind, kind: AxisKind, n: int, forwarding: str) -> None:
    net = network((kind, n), forwarding=forwarding)
    blocks = [0.0, 7e5, *range(1000, 1000 * (n - 1), 1000)] if collective == "all_gather" else [1e6] * n
    found = cost(collective, range(n), blocks, net)
    algorithm = default_algorithm(range(n), net)
    seconds, on_link = by_hand(net, expand(collective, range(n), blocks, algorithm))
    assert found.modelled_s == pytest.approx(seconds, rel=1e-12)
    assert found.link_bytes == pytest.approx(on_link)
    assert found.energy_J == pytest.approx(sum(on_link.values()) * 40e-12)


@given(members_and_blocks)
def test_uneven_gathers_deliver_the_same_bytes_by_every_algorithm(
    case: tuple[list[int], list[int]],
) -> None:
    members, blocks = case
    n = len(members)
    for algorithm in get_args(Algorithm):
        if algorithm == "halving_doubling" and n & (n - 1):
            continue
        received = Counter[int]()
        for sends in expand("all_gather", members, blocks, algorithm):
            for _, destination, nbytes in sends:
                received[destination] += nbytes  # type: ignore[assignment]
        assert received == Counter(
            {m: sum(blocks) - own for m, own in zip(members, blocks, strict=True) if sum(blocks) > own}
        )


def test_an_uneven_ring_gather_goes_at_the_pace_of_the_largest_block() -> None:
    # every block moves in every round, so each of the 3 rounds lasts as long as the 1 MB block
    found = cost("all_gather", range(4), [1e3, 1e6, 0.0, 5e5], network(("ring", 4)))
    assert found.modelled_s == pytest.approx(3 * send(1e6))
    # the block of member 1 visits all others and ends before it would come home
    lone = cost("all_gather", range(4), [0.0, 1e6, 0.0, 0.0], network(("ring", 4)))
    assert lone.modelled_s == pytest.approx(3 * send(1e6))
    assert sum(lone.link_bytes.values()) == 3e6


@pytest.mark.parametrize("kind", get_args(AxisKind))
def test_nobody_to_talk_to_or_nothing_to_say_costs_nothing(kind: AxisKind) -> None:
    net = network((kind, 4))
    for found in (
        cost("all_reduce", [2], [1e9], net),
        cost("all_gather", range(4), [0.0] * 4, net),
        send_cost(1, 1, 1e9, net),
        send_cost(0, 1, 0.0, net),
    ):
        assert (found.modelled_s, found.steps, found.energy_J) == (0.0, 0, 0.0)
        assert not found.link_bytes
        assert found.holds == ()


def test_sends_pay_each_hop_and_the_narrowest_axis() -> None:
    fast = Axis(name="fast", kind="ring", size=6, bandwidth="100 GB/s", latency="100 ns")
    slow = Axis(name="slow", kind="switch", size=2, bandwidth="10 GB/s", latency="1 us")
    net = Network(axis=(fast, slow))
    # 2 hops round the ring, then up to the switch and down
    assert send_cost(0, 8, 1e6, net).modelled_s == pytest.approx(2 * 0.1 * US + 2 * US + 1e6 / 10e9)
    assert send_cost(0, 8, 1e6, net).energy_J == pytest.approx(4e6 * 40e-12)
    stores = Network(axis=(fast, slow.model_copy(update={"forwarding": "store_and_forward"})))
    # the switch axis waits for the whole message before each of its two hops
    assert send_cost(0, 8, 1e6, stores).modelled_s == pytest.approx(
        2 * 0.1 * US + 1e6 / 100e9 + 2 * (1 * US + 1e6 / 10e9)
    )


def test_a_send_holds_each_link_only_while_it_passes() -> None:
    net = network(("mesh", 3), forwarding="cut_through")
    links = [link.number for link in net.route(0, 2)]
    expected = (Hold(links[0], 0.0, 1 * US), Hold(links[1], 0.5 * US, 1.5 * US))
    for found, hold in zip(send_cost(0, 2, 50e3, net).holds, expected, strict=True):
        assert found == pytest.approx(hold)
    stored = network(("mesh", 3), forwarding="store_and_forward")
    expected = (Hold(links[0], 0.0, 1 * US), Hold(links[1], 1.5 * US, 2.5 * US))
    for found, hold in zip(send_cost(0, 2, 50e3, stored).holds, expected, strict=True):
        assert found == pytest.approx(hold)
    assert send_cost(0, 2, 50e3, network(("mesh", 3), contention="none")).holds == ()


def test_a_collective_holds_all_its_links_from_start_to_end() -> None:
    found = cost("all_reduce", range(4), [1e6] * 4, network(("ring", 4)))
    assert {hold.link for hold in found.holds} == set(found.link_bytes)
    assert {(hold.begin, hold.end) for hold in found.holds} == {(0.0, found.modelled_s)}


def test_messages_of_a_round_that_share_a_link_wait_for_one_another() -> None:
    # a ring of members 0, 2, 1, 3 on a line: 0->2, 2->1, 1->3, 3->0 all cross between 1 and 2, two each way
    line, order = network(("mesh", 4)), [0, 2, 1, 3]
    found = cost("all_gather", order, [1e6] * 4, line)
    # slowest is 3->0: three hops, and a wait for 2->1 on their common link
    assert found.modelled_s == pytest.approx(3 * (send(1e6, 3) + 1e6 / BANDWIDTH))
    free = cost("all_gather", order, [1e6] * 4, network(("mesh", 4), contention="none"))
    assert free.modelled_s == pytest.approx(3 * send(1e6, 3))


def test_direct_through_a_stored_switch_queues_at_its_ports() -> None:
    # the closed form of ASTRA-sim's congestion-aware backend for n - 1 messages through one port:
    # (n - 1) m/B + L on the way up, m/B + L on the way down
    net = network(("switch", 8), forwarding="store_and_forward")
    found = cost("all_gather", range(8), [1e6] * 8, net, "direct")
    assert found.modelled_s == pytest.approx(7 * 1e6 / BANDWIDTH + 1e6 / BANDWIDTH + 2 * LATENCY)


def test_a_group_over_several_axes_runs_one_flat_ring() -> None:
    torus = network(("ring", 4), ("fully_connected", 2))
    found = cost("all_reduce", range(8), [8e6] * 8, torus)
    assert found.algorithm == "ring"
    # the slowest neighbours, 3 -> 4 and 7 -> 0, go one hop on each axis
    assert found.modelled_s == pytest.approx(14 * send(1e6, 2))
    # and a group along one axis of it runs the algorithm of that axis
    assert cost("all_reduce", [1, 5], [8e6] * 2, torus).algorithm == "direct"


@pytest.mark.parametrize("kind", get_args(AxisKind))
def test_without_latency_and_with_endless_bandwidth_nothing_takes_time(kind: AxisKind) -> None:
    net = network((kind, 4), bandwidth="inf GB/s", latency="0 s")
    found = cost("all_reduce", range(4), [1e9] * 4, net)
    assert found.modelled_s == 0.0
    assert found.holds == send_cost(0, 2, 1e9, net).holds == ()
    assert sum(found.link_bytes.values()) > 0
    late = network((kind, 4), bandwidth="inf GB/s")
    assert math.isfinite(cost("all_reduce", range(4), [1e9] * 4, late).modelled_s)


@pytest.mark.parametrize(
    ("kind", "members", "sizes", "algorithm", "message"),
    [
        ("all_reduce", [0, 1, 1], [1, 1, 1], "ring", r"all_reduce among \[0, 1, 1\]: name each member once"),
        ("all_reduce", [], [], "ring", "name each member once, and at least one"),
        ("all_gather", [0, 1], [1], "ring", "give a size of 0 or more to each of 2"),
        ("all_gather", [0, 1], [1, -1], "ring", "give a size of 0 or more to each of 2"),
        ("all_reduce", [0, 1], [1, 2], "ring", "every member must give the same"),
        ("all_reduce", [0, 1, 2], [1, 1, 1], "halving_doubling", "needs a power of two of members, not 3"),
        ("all_reduce", [0, 4], [1, 1], "auto", "accelerator 4 does not exist"),
    ],
)
def test_what_cannot_be_is_refused(
    kind: CollectiveKind, members: list[int], sizes: list[float], algorithm: Algorithm, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        cost(kind, members, sizes, network(("ring", 4)), algorithm)
