"""Chunks under way: against simulations of every message, and against closed forms of pipelines."""

import random
from typing import get_args

import pytest

from rpucluster.collective import Algorithm, CollectiveKind, cost
from rpucluster.collective.moves import legal
from rpucluster.topology import AxisKind, Network
from tests.networks import messages_s, network

GB, US = 1e9, 1e-6


def seconds(
    kind: CollectiveKind, net: Network, size: float, algorithms: list[Algorithm], chunks: int, active: int
) -> float:
    n = net.accelerators
    return cost(kind, range(n), [size] * n, net, algorithms, chunks=chunks, active_chunks=active).modelled_s


def cases(axes: int, count: int, seed: int) -> list[tuple[CollectiveKind, Network, float, list[Algorithm], int, int]]:
    """Random collectives on axes where every member sees the same, with and without contention."""
    draw = random.Random(seed)
    found = []
    while len(found) < count:
        kind: CollectiveKind = draw.choice(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
        kinds: list[AxisKind] = [draw.choice(["ring", "switch", "fully_connected"]) for _ in range(axes)]
        shape = [draw.choice([2, 3, 4, 8] if axes == 1 else [2, 3, 4]) for _ in kinds]
        algorithms: list[Algorithm] = []
        for axis, n in zip(kinds, shape, strict=True):
            able = set(legal("reduce_scatter" if kind == "all_reduce" else kind, n))
            if axis == "ring":
                able = {"ring"}  # others make messages of several hops meet, where a representative is not exact
            algorithms.append(draw.choice(sorted(able)))
        net = network(
            *zip(kinds, shape, strict=True),
            bandwidth=f"{draw.uniform(1, 100)!r} GB/s",
            latency=f"{draw.uniform(0, 3)!r} us",
            endpoint_delay=f"{draw.choice([0.0, 0.1])} us",
            forwarding=draw.choice(["cut_through", "store_and_forward"]),
            contention=draw.choice(["fifo", "none"]),
        )
        chunks = draw.choice([1, 2, 4, 7])
        found.append((kind, net, 10 ** draw.uniform(2, 7), algorithms, chunks, draw.choice([1, 2, 3, 8])))
    return found


@pytest.mark.parametrize("case", range(120))
def test_a_representative_member_sees_what_all_messages_make_together(case: int) -> None:
    kind, net, size, algorithms, chunks, active = cases(1, 120, 1)[case]
    expected = messages_s(kind, net, size, algorithms, chunks, active)
    assert seconds(kind, net, size, algorithms, chunks, active) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", range(60))
def test_over_two_axes_too(case: int) -> None:
    kind, net, size, algorithms, chunks, active = cases(2, 60, 2)[case]
    expected = messages_s(kind, net, size, algorithms, chunks, active)
    assert seconds(kind, net, size, algorithms, chunks, active) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("chunks", "active", "latency"), [(5, 3, "500 ns"), (7, 2, "0 s"), (9, 9, "40 us"), (3, 1, "1 us")]
)
@pytest.mark.parametrize("forwarding", ["cut_through", "store_and_forward"])
@pytest.mark.parametrize("kind", ["ring", "switch"])
def test_many_rounds_that_repeat_are_skipped_exactly(
    kind: AxisKind, forwarding: str, chunks: int, active: int, latency: str
) -> None:
    net = network((kind, 24), latency=latency, forwarding=forwarding, endpoint_delay="10 ns")
    expected = messages_s("all_reduce", net, 24e6, ["ring"], chunks, active)
    assert seconds("all_reduce", net, 24e6, ["ring"], chunks, active) == pytest.approx(expected, rel=1e-9)


def test_one_at_a_time_takes_as_often_as_long() -> None:
    net = network(("ring", 8))
    one = seconds("all_reduce", net, 1e6, ["ring"], 1, 1)
    assert seconds("all_reduce", net, 5e6, ["ring"], 5, 1) == pytest.approx(5 * one)


def test_without_contention_as_many_go_at_once_as_may() -> None:
    net = network(("switch", 8), contention="none")
    one = seconds("all_reduce", net, 1e6, ["halving_doubling"], 1, 1)
    assert seconds("all_reduce", net, 7e6, ["halving_doubling"], 7, 3) == pytest.approx(3 * one)


def test_a_chain_of_chunks_is_a_pipeline() -> None:
    """n - 1 hops for the first chunk, and one chunk's serialization for each of the others."""
    n, chunks, chunk = 6, 10, 1e6
    net = network(("ring", n))
    found = seconds("broadcast", net, chunks * chunk, ["ring"], chunks, chunks)
    assert found == pytest.approx((n - 1) * (0.5 * US + chunk / (50 * GB)) + (chunks - 1) * chunk / (50 * GB))


def test_a_tree_of_chunks_is_a_pipeline() -> None:
    """Down a tree of fully connected members no two levels share a link."""
    chunks, chunk = 10, 1e6
    net = network(("fully_connected", 15))
    found = seconds("broadcast", net, chunks * chunk, ["tree"], chunks, chunks)
    assert found == pytest.approx(3 * (0.5 * US + chunk / (50 * GB)) + (chunks - 1) * chunk / (50 * GB))


def test_chunks_over_two_axes_work_on_both_at_once() -> None:
    """A flow shop of two machines: of equal chunks, the slower axis is always busy but for the first and last."""
    net = network(("fully_connected", 2), ("fully_connected", 2), contention="none", latency="0 s")
    chunks, part = 8, 1e6 / 2 / (50 * GB)
    # a reduce-scatter of one chunk takes part on the first axis, then half of that on the second; both queues of an
    # axis take a chunk each, so that the first axis works chunks / 2 times
    assert seconds("reduce_scatter", net, chunks * 1e6, ["direct"] * 2, chunks, 1) == pytest.approx(
        chunks / 2 * part + part / 2
    )
    # an all-reduce has one queue out (part, then the turn: twice part / 2) and one back (part)
    assert seconds("all_reduce", net, chunks * 1e6, ["direct"] * 2, chunks, 1) == pytest.approx((chunks + 2) * part)


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "broadcast"])
@pytest.mark.parametrize("axis", get_args(AxisKind))
def test_chunks_move_the_same_bytes(kind: CollectiveKind, axis: AxisKind) -> None:
    net = network((axis, 4), ("switch", 4))
    whole = cost(kind, range(16), [1e6] * 16, net, ["ring", "ring"])
    chunked = cost(kind, range(16), [1e6] * 16, net, ["ring", "ring"], chunks=8, active_chunks=4)
    assert chunked.link_bytes == whole.link_bytes
    # chunks win what the axes do at once, and never more than the busiest link can carry
    assert max(net.bandwidth_of(link) * chunked.modelled_s >= b for link, b in chunked.link_bytes.items())
    assert chunked.latency_s <= chunked.modelled_s


def test_irregular_groups_are_chunked_on_their_busiest_links() -> None:
    """On a line, the ring's way back passes every link: messages of three hops, one on each link and direction."""
    net = network(("mesh", 4))
    one = seconds("all_gather", net, 1e6, ["ring"], 1, 1)
    assert seconds("all_gather", net, 4e6, ["ring"], 4, 1) == pytest.approx(4 * one)
    together = seconds("all_gather", net, 4e6, ["ring"], 4, 4)
    # 3 rounds of 4 chunks occupy a link for 240 us, and the last chunk has its latency to go
    assert 3 * 4 * 20 * US < together < 4 * one
