"""Prices of collectives against textbook closed forms, by themselves and against reference times."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.collective import ALGORITHMS, Algorithm, CollectiveKind, Hold, cost, send_cost
from rpucluster.collective.moves import legal
from rpucluster.errors import InputError
from rpucluster.topology import Axis, AxisKind, Faults, Network
from tests import astra
from tests.networks import network

GB, US = 1e9, 1e-6
BANDWIDTH, LATENCY = 50 * GB, 0.5 * US
SIZES = (0.5, 1e3, 1e6, 1e9)
KINDS: tuple[CollectiveKind, ...] = get_args(CollectiveKind)


def send(nbytes: float, hops: int = 1) -> float:
    return hops * LATENCY + nbytes / BANDWIDTH


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n", [2, 3, 4, 8, 13, 64])
class TestClosedForms:
    """The usual alpha-beta forms, from the reference's table and Thakur, Rabenseifner & Gropp 2005."""

    def check(
        self, kind: CollectiveKind, net: Network, size: float, algorithm: Algorithm, seconds: float, steps: int
    ) -> None:
        n = net.accelerators
        found = cost(kind, range(n), [size] * n, net, algorithm)
        assert found.algorithm == algorithm
        assert found.modelled_s == pytest.approx(seconds, rel=1e-12)
        assert found.steps == steps
        endless = net.model_copy(update={"axis": (net.axis[0].model_copy(update={"bandwidth": math.inf}),)})
        endless.__dict__.pop("_layout", None)
        bare = cost(kind, range(n), [size] * n, endless, algorithm)
        assert found.latency_s == pytest.approx(bare.modelled_s, rel=1e-12)
        assert found.latency_s + found.transfer_s == pytest.approx(found.modelled_s, rel=1e-15)

    def test_ring(self, n: int, size: float) -> None:
        for kind, hops in (("ring", 1), ("fully_connected", 1), ("switch", 2)):
            net = network((kind, n))  # type: ignore[arg-type]
            self.check("all_reduce", net, size, "ring", 2 * (n - 1) * send(size / n, hops), 2 * (n - 1))
            self.check("reduce_scatter", net, size, "ring", (n - 1) * send(size / n, hops), n - 1)
            self.check("all_gather", net, size, "ring", (n - 1) * send(size, hops), n - 1)
            self.check("all_to_all", net, size, "ring", n * (n - 1) / 2 * send(size / n, hops), n * (n - 1) // 2)
            self.check("broadcast", net, size, "ring", (n - 1) * send(size, hops), n - 1)

    def test_fully_connected_direct(self, n: int, size: float) -> None:
        net = network(("fully_connected", n))
        self.check("all_reduce", net, size, "direct", 2 * send(size / n), 2)
        self.check("reduce_scatter", net, size, "direct", send(size / n), 1)
        self.check("all_gather", net, size, "direct", send(size), 1)
        self.check("all_to_all", net, size, "direct", send(size / n), 1)
        self.check("broadcast", net, size, "direct", send(size), 1)

    def test_direct_through_a_switch_queues_at_its_ports(self, n: int, size: float) -> None:
        flows = network(("switch", n))
        self.check("all_to_all", flows, size, "direct", 2 * LATENCY + (n - 1) * size / n / BANDWIDTH, 1)
        # the closed form of ASTRA-sim's congestion-aware backend: n - 1 messages up, and the last one down
        stores = network(("switch", n), forwarding="store_and_forward")
        self.check("all_to_all", stores, size, "direct", 2 * LATENCY + n * size / n / BANDWIDTH, 1)

    def test_direct_on_a_ring_shares_its_links(self, n: int, size: float) -> None:
        # upwards, 1 message comes over each link from the neighbour, 2 from the next, ..., floor(n/2) in all
        half = n // 2
        seconds = half * LATENCY + half * (half + 1) / 2 * size / BANDWIDTH
        self.check("all_gather", network(("ring", n)), size, "direct", seconds, 1)

    def test_halving_doubling(self, n: int, size: float) -> None:
        if n & (n - 1):
            with pytest.raises(InputError, match=f"needs a power of two of members, not {n}; use ring"):
                cost("all_reduce", range(n), [size] * n, network(("switch", n)), "halving_doubling")
            return
        rounds = n.bit_length() - 1
        net = network(("switch", n))
        halving = sum(send(size / 2**i, 2) for i in range(1, rounds + 1))
        self.check("all_reduce", net, size, "halving_doubling", 2 * halving, 2 * rounds)
        self.check("reduce_scatter", net, size, "halving_doubling", halving, rounds)
        doubling = sum(send(size * 2**i, 2) for i in range(rounds))
        self.check("all_gather", net, size, "halving_doubling", doubling, rounds)
        # van de Geijn's broadcast: a binomial scatter, then the gather
        self.check("broadcast", net, size, "halving_doubling", 2 * halving, 2 * rounds)

    def test_tree(self, n: int, size: float) -> None:
        depth = math.floor(math.log2(n))
        net = network(("fully_connected", n))
        self.check("all_reduce", net, size, "tree", 2 * depth * send(size), 2 * depth)
        self.check("broadcast", net, size, "tree", depth * send(size), depth)
        # through a switch two children share the port of their parent; a lone last one has it for itself
        alone = int(n & (n - 1) == 0)
        shared = (2 * depth - alone) * size / BANDWIDTH + depth * 2 * LATENCY
        self.check("broadcast", network(("switch", n)), size, "tree", shared, depth)


@given(
    st.sampled_from([(2, 2), (4, 2), (3, 5), (8, 8), (2, 3, 4)]),
    st.floats(1, 1e9),
    st.lists(st.tuples(st.floats(1, 400), st.floats(0, 5)), min_size=3, max_size=3),
)
def test_a_hierarchical_all_reduce_is_scatters_an_all_reduce_and_gathers(
    shape: tuple[int, ...], size: float, links: list[tuple[float, float]]
) -> None:
    """Over rings of n0, n1, ...: 2 (n_k - 1) (L_k + S / (n_0 ... n_k B_k)) along each, one after the other."""
    axes = tuple(
        Axis(name="xyz"[k], kind="ring", size=n, bandwidth=f"{b!r} GB/s", latency=f"{latency!r} us")
        for k, (n, (b, latency)) in enumerate(zip(shape, links, strict=False))
    )
    net = Network(axis=axes)
    expected = sum(
        2 * (n - 1) * (latency * US + size / math.prod(shape[: k + 1]) / (b * GB))
        for k, (n, (b, latency)) in enumerate(zip(shape, links, strict=False))
    )
    n = net.accelerators
    found = cost("all_reduce", range(n), [size] * n, net, ["ring"] * len(shape))
    assert found.modelled_s == pytest.approx(expected, rel=1e-12)
    assert found.algorithm == ",".join(["ring"] * len(shape))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "net",
    [
        network(("ring", 8)),
        network(("switch", 16)),
        network(("switch", 6), forwarding="store_and_forward"),
        network(("fully_connected", 4)),
        network(("mesh", 5)),
        network(("ring", 4), ("switch", 4)),
        network(("ring", 3), ("mesh", 2), ("fully_connected", 2)),
        network(("ring", 8)).with_faults(Faults(failed_links=("x:3->4",), slow_links={"x:0->1": 3.0})),
    ],
)
def test_auto_takes_the_cheapest(kind: CollectiveKind, net: Network) -> None:
    members = range(net.accelerators)
    crossed = [axis.size for axis in net.axis]
    for size in (1.0, 1e4, 1e8):
        sizes = [size] * len(members)
        best = cost(kind, members, sizes, net)
        for algorithm in legal(kind, len(members)):
            assert best.modelled_s <= cost(kind, members, sizes, net, algorithm).modelled_s * (1 + 1e-9)
        if len(crossed) > 1:
            each = ["ring" if kind == "all_gather" else "direct"] * len(crossed)
            assert best.modelled_s <= cost(kind, members, sizes, net, each).modelled_s * (1 + 1e-9)  # type: ignore[arg-type]
        named = tuple(best.algorithm.split(","))
        again = cost(kind, members, sizes, net, named if len(named) > 1 else named[0])  # type: ignore[arg-type]
        assert again.modelled_s == best.modelled_s


def test_auto_for_some_of_the_axes() -> None:
    net = network(("ring", 4), ("switch", 8))
    sizes = [1e6] * 32
    found = cost("all_reduce", range(32), sizes, net, ["ring", "auto"])
    each = {name: cost("all_reduce", range(32), sizes, net, ["ring", name]) for name in ALGORITHMS}
    best = min(each, key=lambda name: each[name].modelled_s)
    assert (found.algorithm, found.modelled_s) == (f"ring,{best}", each[best].modelled_s)


def test_what_suits_the_axis_wins_a_tie() -> None:
    # between two members, every algorithm is one exchange
    for kind, suiting in (("ring", "ring"), ("fully_connected", "direct"), ("switch", "halving_doubling")):
        assert cost("all_gather", range(2), [1e6] * 2, network((kind, 2))).algorithm == suiting  # type: ignore[arg-type]


@pytest.mark.skipif(not astra.FILE.is_file(), reason="the ASTRA-sim reference times are not in ../shared/reference")
def test_times_of_astra_sim() -> None:
    """A third of the rows, through the functions of the command; what is left is its local memory."""
    errors = sorted(abs(astra.modelled_s(row) * 1e9 / float(row["time_ns"]) - 1) for row in astra.rows()[::3])
    assert len(errors) > 700
    assert errors[len(errors) // 2] < 1e-9
    assert errors[-1] < 2e-3


def test_key_rows_of_astra_sim() -> None:
    """Microseconds as printed by it (GiB/s), which hold 1 ns of endpoint delay per message."""
    rows: tuple[tuple[AxisKind, int, int, Algorithm, float], ...] = (
        ("ring", 8, 2**20, "ring", 41.189),
        ("ring", 64, 2**30, "ring", 39441.151),
        ("fully_connected", 8, 2**30, "direct", 5001.405),
        ("switch", 8, 2**20, "halving_doubling", 40.183),
        ("switch", 64, 2**30, "halving_doubling", 39388.567),
    )
    for kind, n, size, algorithm, expected in rows:
        net = network((kind, n), bandwidth="50 GiB/s", endpoint_delay="1 ns")
        found = cost("all_reduce", range(n), [size] * n, net, algorithm)
        assert found.modelled_s == pytest.approx(expected * US, rel=5e-4)


def test_endpoint_delays_count_for_each_message_and_once_at_the_start() -> None:
    net = network(("fully_connected", 8), endpoint_delay="3 us")
    # reduce-scatter and all-gather, one message each
    assert cost("all_reduce", range(8), [8e6] * 8, net, "direct").modelled_s == pytest.approx(2 * send(1e6) + 9 * US)
    assert send_cost(0, 1, 1e6, net).modelled_s == pytest.approx(send(1e6) + 3 * US)
    assert send_cost(0, 1, 1e6, net).latency_s == pytest.approx(3.5 * US)


def test_efficiency_and_slow_links_divide_bandwidth() -> None:
    half = network(("ring", 8), efficiency=0.5)
    slow = network(("ring", 8)).with_faults(Faults(slow_links={"x:5->6": 2.0}))
    for net in (half, slow):  # every round waits for its slowest message
        assert cost("all_gather", range(8), [1e6] * 8, net, "ring").modelled_s == pytest.approx(7 * send(2e6))
    assert send_cost(0, 1, 1e6, half).modelled_s == pytest.approx(send(2e6))
    assert send_cost(0, 1, 1e6, slow).modelled_s == pytest.approx(send(1e6))
    assert send_cost(4, 6, 1e6, slow).modelled_s == pytest.approx(send(2e6, 2))


def test_a_tick_rounds_serialization_down() -> None:
    net = network(("ring", 4), tick="1 us")
    assert send_cost(0, 1, 149e3, net).modelled_s == pytest.approx(2.5 * US)  # 2.98 us
    assert send_cost(0, 1, 150e3, net).modelled_s == pytest.approx(3.5 * US)
    assert cost("all_gather", range(4), [149e3] * 4, net, "ring").modelled_s == pytest.approx(3 * 2.5 * US)


@pytest.mark.parametrize("kind", get_args(AxisKind))
def test_nobody_to_talk_to_or_nothing_to_say_costs_nothing(kind: AxisKind) -> None:
    net = network((kind, 4), endpoint_delay="1 us")
    for found in (
        cost("all_reduce", [2], [1e9], net),
        cost("all_gather", range(4), [0.0] * 4, net),
        send_cost(1, 1, 1e9, net),
        send_cost(0, 1, 0.0, net),
    ):
        assert (found.modelled_s, found.latency_s, found.steps, found.energy_J) == (0.0, 0.0, 0, 0.0)
        assert not found.link_bytes
        assert found.holds == ()


def test_sends_pay_each_hop_and_the_narrowest_axis() -> None:
    fast = Axis(name="fast", kind="ring", size=6, bandwidth="100 GB/s", latency="100 ns")
    slow = Axis(name="slow", kind="switch", size=2, bandwidth="10 GB/s", latency="1 us")
    net = Network(axis=(fast, slow))
    # 2 hops round the ring, then up to the switch and down
    assert send_cost(0, 8, 1e6, net).modelled_s == pytest.approx(2 * 0.1 * US + 2 * US + 1e6 / 10e9)
    assert send_cost(0, 8, 1e6, net).latency_s == pytest.approx(2.2 * US)
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
    for contention in ("fair", "none"):
        assert send_cost(0, 2, 50e3, network(("mesh", 3), contention=contention)).holds == ()


def test_a_collective_holds_all_its_links_from_start_to_end() -> None:
    found = cost("all_reduce", range(4), [1e6] * 4, network(("ring", 4)))
    assert {hold.link for hold in found.holds} == set(found.link_bytes)
    assert {(hold.begin, hold.end) for hold in found.holds} == {(0.0, found.modelled_s)}
    assert cost("all_reduce", range(4), [1e6] * 4, network(("ring", 4), contention="fair")).holds == ()


def test_messages_of_a_round_that_share_a_link_wait_for_one_another() -> None:
    # a ring of members 0, 2, 1, 3 on a line: 0->2, 2->1, 1->3, 3->0 all cross between 1 and 2, two each way
    order = [0, 2, 1, 3]
    for contention in ("fifo", "fair"):
        found = cost("all_gather", order, [1e6] * 4, network(("mesh", 4), contention=contention), "ring")
        # slowest is 3->0: three hops, and a wait for 2->1 on their common link
        assert found.modelled_s == pytest.approx(3 * (send(1e6, 3) + 1e6 / BANDWIDTH))
    free = cost("all_gather", order, [1e6] * 4, network(("mesh", 4), contention="none"), "ring")
    assert free.modelled_s == pytest.approx(3 * send(1e6, 3))


def test_a_group_over_several_axes_goes_flat_or_by_axes() -> None:
    torus = network(("ring", 4), ("fully_connected", 2))
    flat = cost("all_reduce", range(8), [8e6] * 8, torus, "ring")
    # the slowest neighbours, 3 -> 4 and 7 -> 0, go one hop on each axis
    assert flat.modelled_s == pytest.approx(14 * send(1e6, 2))
    by_axes = cost("all_reduce", range(8), [8e6] * 8, torus, ["direct", "direct"])
    # along the ring, 2 hops and 3 messages on a link, there and back; between, one message each way
    assert by_axes.modelled_s == pytest.approx(2 * send(6e6, 2) + 2 * send(1e6))
    # flat, all 7 messages go at once, two in turn on the links between, of which one crosses the ring: 6 on its links
    assert cost("all_reduce", range(8), [8e6] * 8, torus).modelled_s == pytest.approx(2 * send(6e6, 3))
    # a group along one axis of it needs no others
    assert cost("all_reduce", [1, 5], [8e6] * 2, torus).algorithm == "direct"
    # and members that are no product of places run one flat collective
    assert "," not in cost("all_reduce", [0, 1, 6], [8e6] * 3, torus).algorithm


def test_members_in_another_order_cost_the_same_on_a_switch() -> None:
    net = network(("switch", 9))
    for algorithm in ALGORITHMS:
        orders: Sequence[Sequence[int]] = ([0, 1, 2, 3], [8, 2, 5, 1])
        times = {cost("all_reduce", members, [1e6] * 4, net, algorithm).modelled_s for members in orders}
        assert len(times) == 1


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
        ("all_reduce", [0, 1, 1], [1, 1, 1], "ring", r"members \[0, 1, 1\]: name each member once"),
        ("all_reduce", [], [], "ring", "name each member once, and at least one"),
        ("all_gather", [0, 1], [1], "ring", "give a size of 0 or more to each of 2"),
        ("all_gather", [0, 1], [1, -1], "ring", "give a size of 0 or more to each of 2"),
        ("all_gather", [0, 1], [1, math.nan], "ring", "give a size of 0 or more to each of 2"),
        ("all_reduce", [0, 1], [1, 2], "ring", "every member must give the same"),
        ("all_reduce", [0, 1, 2], [1, 1, 1], "halving_doubling", "needs a power of two of members, not 3"),
        ("all_gather", [0, 1, 2], [1, 1, 1], "tree", "all_gather has no algorithm tree; write ring, direct"),
        ("all_reduce", [0, 1, 2], [1, 1, 1], ["ring", "ring"], r"2 algorithms \(ring, ring\) for a group over 1 axes"),
        ("all_reduce", [0, 4], [1, 1], "auto", "accelerator 4 does not exist"),
        ("all_reduce", [-1, 0], [1, 1], "auto", "accelerator -1 does not exist"),
    ],
)
def test_what_cannot_be_is_refused(
    kind: CollectiveKind, members: list[int], sizes: list[float], algorithm: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        cost(kind, members, sizes, network(("ring", 4)), algorithm)
