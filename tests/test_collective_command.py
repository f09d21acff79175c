"""`rpucluster collective`: sizes, groups, the conventions of the benchmark, and what is told about wrong options."""

import csv
import json
from pathlib import Path

import pytest
from rich.console import Console

from rpucluster import cli
from rpucluster.cluster import load_cluster
from rpucluster.collective import cost, send_cost
from rpucluster.collective_table import KINDS, bus_factor, measure, members_over, parse_sizes
from rpucluster.report.collectives import print_collectives
from tests.networks import network

Captured = pytest.CaptureFixture[str]
REFERENCE = Path(__file__).parents[2] / "shared" / "reference"


def rows(capsys: Captured, *arguments: str) -> list[dict[str, object]]:
    assert cli.main(["collective", *arguments, "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def fails(capsys: Captured, *arguments: str) -> str:
    assert cli.main(["collective", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("4KiB", [4096]),
        ("1 MB", [1e6]),
        ("1000", [1000]),
        ("1KiB:16KiB:x4", [1024, 4096, 16384]),
        ("1KiB:15KiB:x4", [1024, 4096]),
        ("1MB:8MB:x2", [1e6, 2e6, 4e6, 8e6]),
        ("8B:8B:x2", [8]),
    ],
)
def test_sizes(text: str, sizes: list[float]) -> None:
    assert parse_sizes(text) == sizes


def test_the_default_is_a_sweep_from_a_kibibyte_to_a_gibibyte(capsys: Captured) -> None:
    found = rows(capsys, "all_reduce", "--cluster", "ring8")
    assert [row["bytes"] for row in found] == [2**i for i in range(10, 31, 2)]
    assert list(found[0]) == [
        "kind", "algorithm", "bytes", "chunks", "active_chunks", "accelerators", "modelled_s", "algbw_Bps", "busbw_Bps",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_bandwidths_are_those_of_the_benchmark(kind: str, capsys: Captured) -> None:
    (row,) = rows(capsys, kind, "--cluster", "torus4x4", "--bytes", "16MiB")
    size, n, net = 2.0**24, 16, load_cluster("torus4x4").network
    if kind == "send":
        expected = send_cost(0, 1, size, net).modelled_s
    else:
        block = size / n if kind == "all_gather" else size
        expected = cost(kind, range(n), [block] * n, net).modelled_s  # type: ignore[arg-type]
    assert row["modelled_s"] == expected
    assert row["algbw_Bps"] == pytest.approx(size / expected)
    factor = {"all_reduce": 30 / 16, "broadcast": 1, "send": 1}.get(kind, 15 / 16)
    assert row["busbw_Bps"] == pytest.approx(factor * size / expected)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the factors of nccl-tests are not in ../shared/reference")
def test_bus_factors_are_those_of_nccl_tests() -> None:
    names = {"alltoall": "all_to_all", "sendrecv": "send"}
    with (REFERENCE / "nccl_busbw.csv").open(encoding="utf-8") as file:
        found = {row[0]: row[2] for row in csv.reader(file)}
    checked = 0
    for theirs, formula in found.items():
        kind = names.get(theirs, theirs)
        if kind in KINDS:
            for n in (2, 3, 8):
                value = eval(formula.replace("2(", "2*("), {"n": n})
                assert bus_factor(kind, n) == pytest.approx(value)
            checked += 1
    assert checked == len(KINDS)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the fits to NCCL's times are not in ../shared/reference")
@pytest.mark.parametrize(("cluster", "device"), [("dgx_a100", "a100_dgx"), ("dgx_h100", "h100_dgx")])
def test_a_node_is_as_fast_as_nccl_was_measured(cluster: str, device: str) -> None:
    """Within a seventh of alpha + 1.75 S / bus bandwidth, as far as the fit goes: 2 kB to 64 MiB."""
    with (REFERENCE / "nccl_alphabeta_fit.csv").open(encoding="utf-8") as file:
        (fit,) = (
            row
            for row in csv.DictReader(file)
            if (row["device"], row["collective"], row["num_workers"]) == (device, "all_reduce", "8")
            and row["devices_per_node"] == "8"
        )
    net = load_cluster(cluster).network
    for row in measure("all_reduce", net, parse_sizes("2KiB:64MiB:x2"), members=members_over(net, "node")):
        theirs = float(fit["alpha_us"]) * 1e-6 + 1.75 * row.bytes / (float(fit["busbw_GBps"]) * 1e9)
        assert row.modelled_s == pytest.approx(theirs, rel=1 / 7)


def test_a_ring_reaches_the_bus_bandwidth_of_its_links(capsys: Captured) -> None:
    """That is what the factor is for: large messages show the bandwidth of a link, 50 GB/s."""
    for kind in ("all_reduce", "all_gather", "reduce_scatter"):
        (row,) = rows(capsys, kind, "--cluster", "ring8", "--bytes", "64GiB", "--algorithm", "ring")
        assert row["busbw_Bps"] == pytest.approx(50e9, rel=1e-4)


def test_shards(capsys: Captured) -> None:
    for kind in ("all_gather", "reduce_scatter", "all_to_all"):
        whole = rows(capsys, kind, "--cluster", "ring8", "--bytes", "8MiB:32MiB:x2")
        assert rows(capsys, kind, "--cluster", "ring8", "--shard-bytes", "1MiB:4MiB:x2") == whole


def test_groups_over_axes() -> None:
    net = network(("ring", 4), ("mesh", 2), ("switch", 3))
    assert members_over(net, None) == range(24)
    assert members_over(net, "x") == (0, 1, 2, 3)
    assert members_over(net, "z") == (0, 8, 16)
    assert members_over(net, "z,x") == tuple(x + 8 * z for z in range(3) for x in range(4))


def test_over_one_axis_the_other_does_not_matter(capsys: Captured) -> None:
    (row,) = rows(capsys, "all_reduce", "--cluster", "torus4x4", "--over", "rack", "--bytes", "1MB")
    # a ring of four links of 25 GB/s and 1 us: direct, two hops and three messages on a link, twice
    assert row["accelerators"] == 4
    assert row["modelled_s"] == pytest.approx(2 * (2e-6 + 0.75e6 / 25e9))


def test_chunks_and_algorithms_are_passed_on(capsys: Captured) -> None:
    options = ("--chunks", "8", "--active-chunks", "4", "--algorithm", "ring,direct", "--bytes", "8MB")
    (row,) = rows(capsys, "all_reduce", "--cluster", "torus4x4", *options)
    assert (row["chunks"], row["active_chunks"], row["algorithm"]) == (8, 4, "ring,direct")
    net = load_cluster("torus4x4").network
    expected = cost("all_reduce", range(16), [8e6] * 16, net, ["ring", "direct"], chunks=8, active_chunks=4)
    assert row["modelled_s"] == expected.modelled_s


def test_what_is_set_counts(capsys: Captured) -> None:
    one = ("all_gather", "--cluster", "ring8", "--bytes", "8MB", "--algorithm", "ring")
    (found,) = rows(capsys, *one, "--set", "network.axis.board.efficiency=0.5", "--set", "network.endpoint_delay=1 us")
    assert found["modelled_s"] == pytest.approx(7 * (1.5e-6 + 1e6 / 25e9) + 1e-6)
    (found,) = rows(capsys, *one, "--set", 'faults.failed_links=["board:3->4"]')
    assert found["modelled_s"] == pytest.approx(7 * (7 * 0.5e-6 + 1e6 / 50e9))


def test_a_chunked_send_streams_through_a_switch_that_stores() -> None:
    net = network(("switch", 2), forwarding="store_and_forward")
    whole, chunked = (
        measure("send", net, [1e6], members=(0, 1), chunks=c, active_chunks=c)[0].modelled_s for c in (1, 10)
    )
    assert whole == pytest.approx(2 * (0.5e-6 + 20e-6))
    assert chunked == pytest.approx(2 * 0.5e-6 + 11 * 2e-6)


def test_the_table(capsys: Captured) -> None:
    found = measure("all_gather", network(("ring", 4)), [4096, 1e6], members=range(4), algorithm=("ring",))
    print_collectives(found, "small", Console(width=80))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == ["all_gather", "among", "4", "accelerators", "of", "small"]
    # 3 hops of 500 ns and of 1 KiB, and of 250 kB
    assert lines[3] == ["4", "KiB", "ring", "1.561", "us", "2.62", "1.97"]
    assert lines[4] == ["1", "MB", "ring", "16.5", "us", "60.61", "45.45"]


def test_nothing_takes_no_time(capsys: Captured) -> None:
    free = ("--set", "network.axis.board.bandwidth=inf GB/s", "--set", "network.axis.board.latency=0 s")
    (row,) = rows(capsys, "all_reduce", "--cluster", "ring8", "--bytes", "1MB", *free)
    assert (row["modelled_s"], row["algbw_Bps"], row["busbw_Bps"]) == (0.0, None, None)
    assert cli.main(["collective", "all_reduce", "--cluster", "ring8", "--bytes", "1MB", *free]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all_reduce"], "--cluster is missing; name a cluster file or one of the shipped"),
        (["allreduce", "--cluster", "ring8"], "no collective is called 'allreduce'; did you mean \"all_reduce\"?"),
        (["all_reduce", "--cluster", "paper_chip"], "all_reduce among 1 accelerator: it takes two"),
        (["all_reduce", "--cluster", "ring8", "--over", "rack"], "no axis 'rack'; its axes are board"),
        (["all_reduce", "--cluster", "ring8", "--bytes", "1XB"], "XB is not a unit of size"),
        (["all_reduce", "--cluster", "ring8", "--bytes", "1KiB:1MiB:4"], "write a size such as 4KiB, or a sweep"),
        (["all_reduce", "--cluster", "ring8", "--bytes", "1MiB:1KiB:x4"], "the sizes must rise"),
        (["all_reduce", "--cluster", "ring8", "--bytes", "1KiB:1GiB:x1"], "the sizes must rise"),
        (["all_reduce", "--cluster", "ring8", "--bytes", "1B:1TiB:x1.001"], "more than 1000 sizes"),
        (["all_reduce", "--cluster", "ring8", "--bytes", "0B"], "--bytes 0B: write a size of more than 0 bytes"),
        (["all_reduce", "--cluster", "ring8", "--bytes", "inf B"], "write a size of more than 0 bytes"),
        (["all_reduce", "--cluster", "ring8", "--shard-bytes", "1KiB"], "all_reduce has no shards; write --bytes"),
        (["all_gather", "--cluster", "ring8", "--bytes", "8", "--shard-bytes", "1"], "write one of them"),
        (["all_reduce", "--cluster", "ring8", "--algorithm", "rings"], "no algorithm is called 'rings'"),
        (["all_gather", "--cluster", "ring8", "--algorithm", "tree"], "all_gather has no algorithm tree"),
        (["all_reduce", "--cluster", "ring8", "--algorithm", "ring,ring"], "write one for each axis that it spans"),
        (["send", "--cluster", "ring8", "--algorithm", "ring"], "send has no algorithms"),
        (["all_reduce", "--cluster", "ring8", "--chunks", "0"], "0 chunks, 1 of them active: both must be 1 or more"),
        (
            ["all_reduce", "--cluster", "ring8", "--set", "netwrk.x=1"],
            "unknown section netwrk",
        ),
        (
            ["send", "--cluster", "ring8", "--set", 'faults.failed_links=["board:0->1", "board:0->7"]'],
            "there is no way from accelerator 0 to 1",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(arguments: list[str], message: str, capsys: Captured) -> None:
    assert message in fails(capsys, *arguments)
