"""Links and routes of products of axes."""

import math
import re
import time
from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpucluster.config import validated
from rpucluster.errors import ConfigError, InputError
from rpucluster.topology import Axis, AxisKind, Faults, Link, Network

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


def shortest(net: Network, links: Iterable[Link]) -> dict[tuple[int, int], int]:
    """Hops between all pairs by breadth-first search over the links, switches being places of their own."""
    edges: dict[object, set[object]] = {}
    for link in links:
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
        hops |= {(start, end): distance[end] for end in range(net.accelerators) if end in distance}
    return hops


@settings(max_examples=50)
@given(networks)
def test_routes_are_connected_shortest_and_as_long_as_the_way_back(net: Network) -> None:
    expected = shortest(net, net.links)
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


@settings(max_examples=30)
@given(networks)
def test_legs_are_the_way_divided_by_axes(net: Network) -> None:
    for a, b in product(range(net.accelerators), repeat=2):
        legs = net.legs(a, b)
        assert sum((links for _, links in legs), ()) == net.path(a, b)
        assert [k for k, _ in legs] == list(net.crossed((a, b)))
        assert all(net.axis_of(link) is net.axis[k] for k, links in legs for link in links)


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


WIRE = {"bandwidth": "50 GB/s", "latency": "500 ns"}
Ends = tuple[int | str, int | str]


def written_out(accelerators: int, *ends: Ends, **keys: object) -> Network:
    links = [{"from": a, "to": b, **WIRE, **keys} for a, b in ends]
    return Network.model_validate({"accelerators": accelerators, "link": links})


graphs = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(
            st.tuples(*[st.integers(0, n - 1) | st.sampled_from(["leaf0", "leaf1"])] * 2).filter(
                lambda ends: ends[0] != ends[1]
            ),
            min_size=1,
            max_size=9,
            unique_by=lambda ends: frozenset(ends),
        ),
    )
)


@given(graphs, st.booleans())
def test_ways_over_written_out_links_are_of_fewest_links(graph: tuple[int, list[Ends]], both_ways: bool) -> None:
    """By relaxation of all links, as often as there are places (Bellman 1958, Ford 1956)."""
    n, ends = graph
    net = written_out(n, *ends, both_ways=both_ways)
    arcs = [*ends, *(arc[::-1] for arc in ends if both_ways)]
    for source in range(n):
        hops: dict[int | str, float] = {source: 0}
        for _ in range(n + 2):
            for a, b in arcs:
                hops[b] = min(hops.get(b, math.inf), hops.get(a, math.inf) + 1)
        for target in range(n):
            if hops.get(target, math.inf) == math.inf:
                with pytest.raises(InputError, match=f"there is no way from accelerator {source} to {target}"):
                    net.path(source, target)
            else:
                assert net.hops(source, target) == hops[target]


def test_written_out_links_have_names_and_numbers() -> None:
    net = written_out(3, (0, "leaf0"), (1, "leaf0"), ("leaf0", 2))
    assert [link.name for link in net.links] == [
        "0->leaf0", "leaf0->0", "1->leaf0", "leaf0->1", "leaf0->2", "2->leaf0",
    ]  # fmt: skip
    assert [(link.source, link.target) for link in net.route(0, 2)] == [(0, None), (None, 2)]
    assert net.coordinates(2) == (2,)
    assert [net.link(link.number) for link in net.links] == list(net.links)
    with pytest.raises(InputError, match="link 6 does not exist"):
        net.link(6)


def test_of_several_shortest_ways_the_one_whose_links_come_first() -> None:
    square = [(0, 1), (1, 3), (0, 2), (2, 3)]
    assert [link.name for link in written_out(4, *square).route(0, 3)] == ["0->1", "1->3"]
    assert [link.name for link in written_out(4, *square[2:], *square[:2]).route(0, 3)] == ["0->2", "2->3"]


def test_a_ring_goes_the_other_way_round_a_failed_link() -> None:
    ring = network(("ring", 8)).with_faults(Faults(failed_links=("x:3->4",)))
    assert [link.name for link in ring.route(3, 4)] == [
        "x:3->2", "x:2->1", "x:1->0", "x:0->7", "x:7->6", "x:6->5", "x:5->4",
    ]  # fmt: skip
    assert [link.name for link in ring.route(4, 3)] == ["x:4->3"]  # that direction works
    assert ring.hops(1, 5) == 4  # the other way round is as short
    assert network(("ring", 8)).hops(3, 4) == 1  # and the network that it was made of is whole


def test_all_connected_go_through_a_third() -> None:
    board = network(("fully_connected", 4)).with_faults(Faults(failed_links=("x:0->3",)))
    assert [link.name for link in board.route(0, 3)] == ["x:0->1", "x:1->3"]


def test_another_axis_helps_where_a_switch_port_is_dead() -> None:
    net = network(("switch", 2), ("ring", 3))
    broken = net.with_faults(Faults(failed_links=("x:0->switch (y=0)",)))
    assert [link.name for link in broken.route(0, 1)] == [
        "y:0->1 (x=0)", "x:0->switch (y=1)", "x:switch->1 (y=1)", "y:1->0 (x=1)",
    ]  # fmt: skip
    alone = network(("switch", 2)).with_faults(Faults(failed_links=("x:0->switch",)))
    with pytest.raises(InputError, match=r"no way from accelerator 0 to 1; add a .*, or mend one of .* failed_links"):
        alone.path(0, 1)


@settings(max_examples=60)
@given(networks, st.data())
def test_ways_around_failures_are_shortest_among_the_links_that_work(net: Network, data: st.DataObject) -> None:
    names = [link.name for link in net.links]
    failed = data.draw(st.lists(st.sampled_from(names), max_size=4, unique=True)) if names else []
    broken = net.with_faults(Faults(failed_links=tuple(failed)))
    working = [link for link in net.links if link.name not in failed]
    expected = shortest(net, working)
    for a, b in product(range(net.accelerators), repeat=2):
        if (a, b) not in expected:
            with pytest.raises(InputError, match="there is no way"):
                broken.path(a, b)
            continue
        route = broken.route(a, b)
        assert not {link.name for link in route} & set(failed)
        assert len(route) == expected[a, b]


def test_slow_links_are_slow_by_their_factor() -> None:
    net = network(("ring", 4), ("mesh", 2)).with_faults(Faults(slow_links={"x:0->1 (y=1)": 2.5}))
    slow = {link.name for link in net.links if net.bandwidth_of(link.number) != 50e9}
    assert slow == {"x:0->1 (y=1)"}
    assert net.bandwidth_of(net.path(4, 5)[0]) == 20e9


def test_efficiency_is_part_of_the_bandwidth() -> None:
    net = written_out(2, (0, 1), efficiency=0.8)
    assert net.bandwidth_of(0) == pytest.approx(40e9)


@settings(max_examples=50)
@given(networks)
def test_every_link_is_found_by_its_name(net: Network) -> None:
    slow = {link.name: 2.0 for link in net.links}
    halved = net.with_faults(Faults(slow_links=slow))
    numbers = [link.number for link in net.links]
    assert all(halved.bandwidth_of(number) == 25e9 for number in numbers)
    assert halved.bandwidths_of(numbers).tolist() == [25e9] * len(numbers)
    assert net.bandwidths_of(numbers).tolist() == [50e9] * len(numbers)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("x:0->9", "names are such as"),
        ("x:switch->switch", "names are such as"),
        ("y:0->1 (y=0)", "did you mean"),
        ("nothing", 'names are such as "x:0->1 (y=0)"'),
        ("x:0->1", 'did you mean "x:0->1 (y=0)"'),
        ("x:0->1 (y=7)", "did you mean"),
    ],
)
def test_faults_of_links_that_are_not_there(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"there is no link .*{re.escape(hint)}"):
        network(("ring", 4), ("ring", 4)).with_faults(Faults(failed_links=(name,)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"axis": [BOARD], "link": [{"from": 0, "to": 1, **WIRE}]}, "file: there are axes and links; write"),
        (
            {"axis": [BOARD], "accelerators": 5},
            "[accelerators]: 5, but the axes make 4; leave it out, or change a size",
        ),
        ({"accelerators": 3}, "3 accelerators, but nothing joins them; write [[network.link]] tables"),
        ({"accelerators": 2, "link": [{"from": 0, "to": 2, **WIRE}]}, "link 0->2 names accelerator 2, but there are 2"),
        (
            {"accelerators": 2, "link": [{"from": 0, "to": 1, **WIRE}, {"from": 1, "to": 0, **WIRE}]},
            'link "0->1" is used 2 times; name each link differently',
        ),
        (
            {"accelerators": 2, "link": [{"from": -1, "to": 1, **WIRE}]},
            "[link #1] from: -1 is neither an accelerator nor a switch; write a number or a name",
        ),
        ({"accelerators": 2, "link": [{"to": 1, **WIRE}]}, "[link #1] from: missing; write it"),
        (
            {"accelerators": 2, "link": [{"from": 0, "to": 1, "both_way": True, **WIRE}]},
            '[link #1] both_way: unknown key; did you mean "both_ways"?',
        ),
        (
            {"axis": [BOARD | {"efficiency": 1.5}]},
            "[axis #1] efficiency = 1.5: input should be less than or equal to 1",
        ),
        ({"endpoint_delay": "-1 ns"}, '[endpoint_delay]: "-1 ns" is negative'),
    ],
)
def test_a_wrong_network_is_told_in_one_line(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        validated(Network, table, "c.toml")
    assert message.removeprefix("file: ") in str(error.value)
    assert "\n" not in str(error.value)
