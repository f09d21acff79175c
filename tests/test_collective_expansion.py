"""The single sends of every algorithm: who ends with what, what crosses the links, and the closed forms beside them."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import product
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpucluster.collective import Algorithm, CollectiveKind, Send, cost, expand, send_cost
from rpucluster.collective.moves import legal
from rpucluster.collective.routed import Routes, Transfer
from rpucluster.topology import AxisKind, Connection, Faults, Network
from tests.networks import network

KINDS: tuple[CollectiveKind, ...] = get_args(CollectiveKind)
AXES: tuple[AxisKind, ...] = get_args(AxisKind)


def play(
    kind: CollectiveKind, members: Sequence[int], rounds: Sequence[Sequence[Send]]
) -> dict[int, dict[int, set[int]]]:
    """Play the rounds: for each member and block, whose contributions it holds.

    A member can send what it holds when the round begins, adds only contributions that it lacks, and is not sent
    what it has.
    """
    n = len(members)
    holds: dict[int, dict[int, set[int]]] = {}
    for i, member in enumerate(members):
        match kind:
            case "all_gather":
                holds[member] = {i: {i}}
            case "all_to_all":
                holds[member] = {i * n + j: {i} for j in range(n)}
            case "broadcast":
                holds[member] = {b: {0} for b in range(n)} if i == 0 else {}
            case _:
                holds[member] = {b: {i} for b in range(n)}
    for sends in rounds:
        before = {member: {b: set(whose) for b, whose in blocks.items()} for member, blocks in holds.items()}
        for s in sends:
            for block in s.blocks:
                given, has = before[s.source][block], holds[s.destination].get(block, set())
                if s.adds:
                    assert not given & has, "added a contribution twice"
                    holds[s.destination][block] = given | has
                else:
                    # a broadcast by scatter and gather sends the first member's parts back to it
                    assert given != has or kind == "broadcast", "sent a block that is already there"
                    holds[s.destination][block] = set(given)
    return holds


def check(kind: CollectiveKind, members: Sequence[int], rounds: Sequence[Sequence[Send]]) -> None:
    n = len(members)
    holds = play(kind, members, rounds)
    everyone = set(range(n))
    for i, member in enumerate(members):
        match kind:
            case "all_reduce":
                assert holds[member] == dict.fromkeys(range(n), everyone)
            case "reduce_scatter":
                assert holds[member][i] == everyone
            case "all_gather":
                assert holds[member] == {b: {b} for b in range(n)}
            case "all_to_all":
                assert {o * n + i for o in range(n)} <= set(holds[member])
            case "broadcast":
                assert set(holds[member]) == everyone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 16])
def test_everybody_ends_with_what_they_should(kind: CollectiveKind, n: int) -> None:
    net = network(("ring", 3 * n))
    members = [3 * i for i in reversed(range(n))]
    for algorithm in legal(kind, n):
        rounds = expand(kind, members, [60.0] * n, net, algorithm)
        check(kind, members, rounds)
        assert len(rounds) == cost(kind, members, [60.0] * n, net, algorithm).steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3), (4, 2), (4, 4), (2, 2, 2), (3, 2, 2)])
def test_hierarchical_ones_too(kind: CollectiveKind, shape: tuple[int, ...]) -> None:
    net = network(*(("switch", n) for n in shape))  # type: ignore[arg-type]
    n = math.prod(shape)
    for algorithms in product(*(legal("reduce_scatter" if kind == "all_reduce" else kind, m) for m in shape)):
        check(kind, range(n), expand(kind, range(n), [60.0] * n, net, algorithms))


def test_hierarchical_on_part_of_the_machine() -> None:
    net = network(("ring", 4), ("mesh", 3), ("switch", 5))
    # places 1 and 3 on the ring, 2 and 1 (in this order) on the line, 0, 4, 2 on the switch
    members = [r + 4 * m + 12 * s for s in (0, 4, 2) for m in (2, 1) for r in (1, 3)]
    for kind in KINDS:
        rounds = expand(kind, members, [60.0] * 12, net, ["ring", "direct", "direct"])
        check(kind, members, rounds)


members_and_blocks = st.integers(1, 9).flatmap(
    lambda n: st.tuples(st.permutations(range(n)), st.lists(st.integers(0, 5), min_size=n, max_size=n))
)


@given(members_and_blocks)
def test_uneven_gathers_deliver_the_same_bytes_by_every_algorithm(case: tuple[list[int], list[int]]) -> None:
    members, blocks = case
    n = len(members)
    for algorithm in legal("all_gather", n):
        received = Counter[int]()
        for sends in expand("all_gather", members, blocks, network(("mesh", 9)), algorithm):
            for s in sends:
                received[s.destination] += int(s.bytes)
                assert s.bytes == sum(blocks[b] for b in s.blocks)
        assert received == Counter(
            {m: sum(blocks) - own for m, own in zip(members, blocks, strict=True) if sum(blocks) > own}
        )


def by_hand(net: Network, rounds: Sequence[Sequence[Send]]) -> tuple[float, float, dict[int, float], int]:
    """Sum over rounds of the slowest single send, of the slowest latency, bytes of links, most sends on one at once."""
    seconds, latency, most = 0.0, 0.0, 0
    on_link: dict[int, float] = defaultdict(float)
    for sends in rounds:
        at_once = Counter[int]()
        alone = [send_cost(s.source, s.destination, s.bytes, net) for s in sends]
        for price in alone:
            at_once.update(price.link_bytes.keys())
            for link, nbytes in price.link_bytes.items():
                on_link[link] += nbytes
        seconds += max(price.modelled_s for price in alone)
        latency += max(price.latency_s for price in alone)
        most = max(most, *at_once.values())
    return seconds, latency, on_link, most


networks = st.lists(
    st.tuples(
        st.sampled_from(AXES),
        st.integers(2, 5),
        st.floats(1, 400),
        st.floats(0, 5),
        st.sampled_from(["cut_through", "store_and_forward"]),
    ),
    min_size=1,
    max_size=2,
).map(
    lambda axes: Network.model_validate(
        {
            "axis": [
                {
                    "name": "xy"[k],
                    "kind": kind,
                    "size": size,
                    "bandwidth": f"{bandwidth!r} GB/s",
                    "latency": f"{latency!r} us",
                    "forwarding": forwarding,
                    "contention": "none",
                }
                for k, (kind, size, bandwidth, latency, forwarding) in enumerate(axes)
            ]
        }
    )
)


@settings(max_examples=150)
@given(networks, st.sampled_from(KINDS), st.floats(1, 1e9), st.data())
def test_the_cost_is_that_of_the_single_sends_where_nothing_contends(
    net: Network, kind: CollectiveKind, size: float, data: st.DataObject
) -> None:
    """Flat and by axes, on any axes: seconds, latency and the bytes of every link."""
    n = net.accelerators
    flat = data.draw(st.booleans()) or len(net.axis) == 1
    if flat:
        algorithms: Sequence[Algorithm] = [data.draw(st.sampled_from(legal(kind, n)))]
    else:
        inner = legal("reduce_scatter" if kind == "all_reduce" else kind, net.axis[0].size)
        algorithms = [data.draw(st.sampled_from(able)) for able in (inner, legal(kind, net.axis[1].size))]
    found = cost(kind, range(n), [size] * n, net, algorithms)
    seconds, latency, on_link, _ = by_hand(net, expand(kind, range(n), [size] * n, net, algorithms))
    assert found.modelled_s == pytest.approx(seconds, rel=1e-9)
    assert found.latency_s == pytest.approx(latency, rel=1e-9)
    assert found.link_bytes == pytest.approx(dict(on_link), rel=1e-9)
    assert found.energy_J == pytest.approx(sum(on_link.values()) * 40e-12)


@pytest.mark.parametrize("forwarding", ["cut_through", "store_and_forward"])
@pytest.mark.parametrize(
    ("kind", "n", "algorithm"),
    [("ring", 5, "ring"), ("fully_connected", 6, "direct"), ("switch", 8, "halving_doubling"), ("switch", 5, "ring")],
)
@pytest.mark.parametrize("collective", ["all_reduce", "all_gather", "reduce_scatter"])
def test_these_contend_for_nothing_anyway(
    collective: CollectiveKind, kind: AxisKind, n: int, algorithm: Algorithm, forwarding: str
) -> None:
    net = network((kind, n), forwarding=forwarding)
    blocks = [0.0, 7e5, *range(1000, 1000 * (n - 1), 1000)] if collective == "all_gather" else [1e6] * n
    seconds, _, on_link, most = by_hand(net, expand(collective, range(n), blocks, net, algorithm))
    found = cost(collective, range(n), blocks, net, algorithm)
    assert most == 1
    assert found.modelled_s == pytest.approx(seconds, rel=1e-12)
    assert found.link_bytes == pytest.approx(dict(on_link))


@settings(max_examples=200)
@given(
    st.sampled_from(AXES),
    st.integers(2, 12),
    st.sampled_from(KINDS),
    st.sampled_from(["cut_through", "store_and_forward"]),
    st.floats(1, 1e8),
    st.data(),
)
def test_closed_forms_hold_where_messages_share_links(
    kind: AxisKind, size: int, collective: CollectiveKind, forwarding: str, nbytes: float, data: st.DataObject
) -> None:
    """A slow-down by 1 of some link changes nothing but that every message is looked at by itself."""
    net = network((kind, size), forwarding=forwarding)
    one_by_one = net.with_faults(Faults(slow_links={next(net.links).name: 1.0}))
    n = data.draw(st.integers(2, size))
    first = data.draw(st.integers(0, size - 1 if kind == "ring" else size - n))
    members = [(first + i) % size for i in range(n)]
    algorithm = data.draw(st.sampled_from(legal(collective, n)))
    found, routed = (cost(collective, members, [nbytes] * n, each, algorithm) for each in (net, one_by_one))
    assert found.modelled_s == pytest.approx(routed.modelled_s, rel=1e-9)
    assert found.latency_s == pytest.approx(routed.latency_s, rel=1e-9)
    assert found.link_bytes == pytest.approx(routed.link_bytes, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 4), (8, 2)])
def test_by_axes_the_lines_do_not_touch(kind: CollectiveKind, shape: tuple[int, int]) -> None:
    net = network(("ring", shape[0]), ("switch", shape[1]))
    one_by_one = net.with_faults(Faults(slow_links={next(net.links).name: 1.0}))
    n = net.accelerators
    for algorithms in (("ring", "ring"), ("direct", "direct")):
        found, routed = (cost(kind, range(n), [1e6] * n, each, algorithms) for each in (net, one_by_one))
        assert found.modelled_s == pytest.approx(routed.modelled_s, rel=1e-9)
        assert found.link_bytes == pytest.approx(routed.link_bytes)


@settings(max_examples=100)
@given(networks, st.sampled_from(["fifo", "none"]), st.integers(0, 2**32 - 1), st.sampled_from(["0 s", "1 us"]))
def test_many_messages_at_once_cost_what_they_do_one_by_one(
    net: Network, contention: str, seed: int, tick: str
) -> None:
    axes = [{**axis.model_dump(mode="json"), "contention": contention} for axis in net.axis]
    net = Network.model_validate({"axis": axes, "tick": tick})
    draw, n = random.Random(seed), net.accelerators
    pairs = [draw.sample(range(n), 2) for _ in range(40)]
    sends = [Transfer(a, b, draw.choice([1e3, draw.uniform(1, 1e8)])) for a, b in pairs]
    one_by_one = net.with_faults(Faults(slow_links={next(net.links).name: 1.0}))
    at_once, routed = (Routes(each).round(3, sends) for each in (net, one_by_one))
    assert at_once.seconds == pytest.approx(routed.seconds, rel=1e-9)
    assert at_once.latency_s == pytest.approx(routed.latency_s, rel=1e-9)
    (one,), (other,) = at_once.hops, routed.hops
    assert one.service_s == pytest.approx(other.service_s, rel=1e-9)
    if one.server != other.server:  # the busiest link, or as busy a one
        busy = Routes(net).loads(sends)
        assert isinstance(one.server, int)
        assert isinstance(other.server, int)
        assert busy[one.server] / net.bandwidth_of(one.server) == pytest.approx(
            busy[other.server] / net.bandwidth_of(other.server)
        )


def test_an_uneven_ring_gather_goes_at_the_pace_of_the_largest_block() -> None:
    net = network(("ring", 4))
    # every block moves in every round, so each of the 3 rounds lasts as long as the 1 MB block
    found = cost("all_gather", range(4), [1e3, 1e6, 0.0, 5e5], net, "ring")
    assert found.modelled_s == pytest.approx(3 * (0.5e-6 + 20e-6))
    # the block of member 1 visits all others and ends before it would come home
    lone = cost("all_gather", range(4), [0.0, 1e6, 0.0, 0.0], net, "ring")
    assert lone.modelled_s == pytest.approx(3 * (0.5e-6 + 20e-6))
    assert sum(lone.link_bytes.values()) == 3e6


def test_collectives_go_around_a_failed_link() -> None:
    ring = network(("ring", 8)).with_faults(Faults(failed_links=("x:3->4",)))
    # the message from 3 to 4 goes the other way round, seven hops, whose links the descending way leaves free
    found = cost("all_gather", range(8), [1e6] * 8, ring, "ring")
    assert found.modelled_s == pytest.approx(7 * (7 * 0.5e-6 + 20e-6))
    broken = next(link.number for link in network(("ring", 8)).links if link.name == "x:3->4")
    assert broken not in found.link_bytes
    check("all_gather", range(8), expand("all_gather", range(8), [1e6] * 8, ring, "ring"))


def test_collectives_over_written_out_links() -> None:
    """Two leaves of two, joined by a spine: what a fat tree is, as links."""
    ends = [(0, "leaf0"), (1, "leaf0"), (2, "leaf1"), (3, "leaf1"), ("leaf0", "spine"), ("leaf1", "spine")]
    wires = [{"from": a, "to": b, "bandwidth": "50 GB/s", "latency": "500 ns"} for a, b in ends]
    net = Network.model_validate({"accelerators": 4, "link": wires})
    assert isinstance(net.axis_of(0), Connection)
    # in a ring, 1 -> 2 and 3 -> 0 climb to the spine: four hops, no link twice
    found = cost("all_reduce", range(4), [4e6] * 4, net, "ring")
    assert found.modelled_s == pytest.approx(6 * (4 * 0.5e-6 + 20e-6))
    seconds, _, on_link, most = by_hand(net, expand("all_reduce", range(4), [4e6] * 4, net, "ring"))
    assert (found.modelled_s, most) == (pytest.approx(seconds), 1)
    assert found.link_bytes == pytest.approx(dict(on_link))
    # all at once, a leaf sends its 2 x 2 messages through one link to the spine: 4 x 20 us
    direct = cost("all_to_all", range(4), [4e6] * 4, net, "direct")
    assert direct.modelled_s == pytest.approx(4 * 0.5e-6 + 80e-6)
