"""Links and routes of products of axes."""

import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpucluster.config import validated
from rpucluster.errors import ConfigError, InputError
from rpucluster.topology import Axis, AxisKind, Network

KINDS: tuple[AxisKind, ...] = ("ring", "fully_connected", "switch", "mesh")


def axis(name: str, kind: AxisKind, size: int) -> Axis:
    return Axis(name=name, kind=kind, size=size, bandwidth="50 GB/s", latency="500 ns")


def network(*axes: tuple[AxisKind, int]) -> Network:
    return Network(axis=tuple(axis("xyz"[k], kind, size) for k, (kind, size) in enumerate(axes)))


networks = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 4)), max_size=3).map(lambda axes: network(*axes))


def test_without_axes_there_is_one_accelerator_and_no_link() -> None:
    alone = Network()
    assert (alone.accelerators, list(alone.links), alone.coordinates(0), alone.route(0, 0)) == (1, [], (), ())


def test_numbers_count_the_innermost_axis_fastest() -> None:
    torus = network(("ring", 4), ("ring", 3), ("switch", 2))
    assert torus.accelerators == 24
    assert [torus.coordinates(a) for a in (0, 1, 4, 12, 23)] == [
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "size", "links"),
    [
        ("ring", 1, 0),
        ("ring", 2, 2),  # one connection, each way
        ("ring", 5, 10),  # n connections, each way
        ("mesh", 5, 8),  # n - 1
        ("fully_connected", 5, 20),  # n (n - 1)
        ("switch", 5, 10),  # up and down for each
        ("switch", 1, 0),
    ],
)
def test_number_of_links(kind: AxisKind, size: int, links: int) -> None:
    assert len(list(network((kind, size)).links)) == links
    # every line along an axis is a copy of it
    assert len(list(network((kind, size), ("ring", 3)).links)) == 3 * links + 6 * size


def test_link_names_tell_the_axis_and_the_place_on_the_others() -> None:
    assert [link.name for link in network(("ring", 3)).links] == [
        "x:0->1", "x:0->2", "x:1->2", "x:1->0", "x:2->0", "x:2->1",
    ]  # fmt: skip
    board = network(("ring", 4), ("switch", 2))
    assert [link.name for link in board.route(3, 4)] == [
        "x:3->0 (y=0)", "y:0->switch (x=0)", "y:switch->1 (x=0)",
    ]  # fmt: skip


@settings(max_examples=50)
@given(networks)
def test_links_have_their_own_numbers_and_names(net: Network) -> None:
    links = list(net.links)
    assert [net.link(link.number) for link in links] == links
    assert len({link.number for link in links}) == len({link.name for link in links}) == len(links)
    assert all(net.axis_of(link.number) is link.axis for link in links)


def shortest(net: Network) -> dict[tuple[int, int], int]:
    """Hops between all pairs by breadth-first search over the links, switches being places of their own."""
    edges: dict[object, set[object]] = {}
    for link in net.links:
        known = link.source if link.source is not None else link.target
        assert known is not None
        k = net.axis.index(link.axis)
        others = tuple(c for i, c in enumerate(net.coordinates(known)) if i != k)
        switch = (link.axis.name, others)
        source = switch if link.source is None else link.source
        edges.setdefault(source, set()).add(switch if link.target is None else link.target)
    hops: dict[tuple[int, int], int] = {}
    for start in range(net.accelerators):
        distance: dict[object, int] = {start: 0}
        queue: list[object] = [start]
        for here in queue:
            for there in edges.get(here, ()):
                if there not in distance:
                    distance[there] = distance[here] + 1
                    queue.append(there)
        hops |= {(start, end): distance[end] for end in range(net.accelerators)}
    return hops


@settings(max_examples=50)
@given(networks)
def test_routes_are_connected_shortest_and_as_long_as_the_way_back(net: Network) -> None:
    expected = shortest(net)
    for a, b in product(range(net.accelerators), repeat=2):
        route = net.route(a, b)
        assert len(route) == net.hops(a, b) == net.hops(b, a) == expected[a, b]
        ends = [a, *(end for link in route for end in (link.source, link.target)), b]
        # each link begins where the one before ended; two ends at a switch are both None
        assert all(ends[i] == ends[i + 1] for i in range(0, len(ends), 2))


def test_routes_go_axis_by_axis_and_break_ties_upwards() -> None:
    torus = network(("ring", 4), ("ring", 4))
    assert [link.name for link in torus.route(0, 10)] == [
        "x:0->1 (y=0)", "x:1->2 (y=0)", "y:0->1 (x=2)", "y:1->2 (x=2)",
    ]  # fmt: skip
    assert [link.name for link in torus.route(1, 0)] == ["x:1->0 (y=0)"]


def test_the_axes_that_a_group_spans() -> None:
    torus = network(("ring", 4), ("ring", 4), ("switch", 2))
    assert torus.crossed((0, 1, 3)) == (0,)
    assert torus.crossed((0, 16)) == (2,)
    assert torus.crossed((0, 5)) == (0, 1)
    assert torus.crossed((7,)) == ()


def test_thousands_of_accelerators_are_quick() -> None:
    net = network(("fully_connected", 64), ("ring", 16), ("switch", 16))  # 16,384; a million links
    begin = time.perf_counter()
    assert net.hops(0, net.accelerators - 1) == 1 + 1 + 2
    assert time.perf_counter() - begin < 0.1


def test_what_is_not_there_is_refused() -> None:
    ring = network(("mesh", 4))
    with pytest.raises(InputError, match="accelerator 4 does not exist: the network has 4, numbered from 0"):
        ring.route(0, 4)
    with pytest.raises(InputError, match="link 8 does not exist"):
        ring.link(8)
    with pytest.raises(InputError, match="link 1 does not exist on axis x"):
        ring.link(1)  # downwards from the lower end of a line


BOARD = {"name": "board", "kind": "ring", "size": 4, "bandwidth": "50 GB/s", "latency": "500 ns"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bandwith": "1 B/s"}, '[axis #1] bandwith: unknown key; did you mean "bandwidth"?'),
        ({"size": 0}, "[axis #1] size = 0: input should be greater than or equal to 1"),
        ({"size": 2.5}, "[axis #1] size = 2.5: input should be a valid integer"),
        (
            {"kind": "torus"},
            "[axis #1] kind = \"torus\": input should be 'ring', 'fully_connected', 'switch' or 'mesh'",
        ),
        (
            {"bandwidth": "50"},
            '[axis #1] bandwidth: "50" has no unit; write a string with a unit, such as "50 GB/s"',
        ),
        ({"latency": "inf s"}, "[axis #1] latency = Infinity: input should be less than inf"),
        ({"bandwidth": "0 B/s"}, "[axis #1] bandwidth = 0.0: input should be greater than 0"),
        (
            {"contention": "shared"},
            "[axis #1] contention = \"shared\": input should be 'fifo', 'fair' or 'none'",
        ),
        (
            {"name": "a.b"},
            "[axis #1] name = \"a.b\": string should match pattern '^[A-Za-z_][A-Za-z0-9_-]*$'",
        ),
    ],
)
def test_a_wrong_axis_is_told_in_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        validated(Network, {"axis": [BOARD | change]}, "c.toml")
    assert str(error.value) == f"c.toml: {message}"


def test_axes_must_have_different_names() -> None:
    with pytest.raises(ConfigError, match='axis name "board" is used 2 times; name each axis differently'):
        validated(Network, {"axis": [BOARD, BOARD]}, "c.toml")
