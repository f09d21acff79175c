"""Rows of ASTRA-sim's collective times, and the same collectives on our network, by the functions of the command."""

import csv
from pathlib import Path

from rpucluster.cluster import Cluster
from rpucluster.collective_table import kind_named, measure, members_over, parse_algorithms, parse_sizes
from rpucluster.config import validated

FILE = Path(__file__).parents[2] / "shared" / "reference" / "astra_collectives.csv"
_KINDS = {"Ring": "ring", "FullyConnected": "fully_connected", "Switch": "switch"}
ALGORITHMS = {"ring": "ring", "direct": "direct", "halvingDoubling": "halving_doubling"}

Row = dict[str, str]


def rows(path: Path = FILE) -> list[Row]:
    """All rows of the file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def modelled_s(row: Row, *, plain: bool = False) -> float:
    """What `rpucluster collective` says of the collective and the machine of a row."""
    cluster = cluster_of(row, plain=plain)
    (found,) = measure(
        kind_named(row["collective"]),
        cluster.network,
        parse_sizes(f"{row['size_bytes']}B"),
        members=members_over(cluster.network, None),
        algorithm=parse_algorithms(",".join(ALGORITHMS[name] for name in row["algorithm_per_dim"].split("x"))),
        chunks=int(row["chunks"]),
        active_chunks=int(row["active_chunks"]),
        # of an all-gather the file has the shard, of the others what the benchmark calls the size
        shards=row["collective"] == "all_gather",
    )
    return found.modelled_s


def cluster_of(row: Row, *, plain: bool = False) -> Cluster:
    """The machine of a row; a plain one has neither endpoint delays nor ticks."""
    aware = row["backend"] == "aware"
    columns = ("topology", "size_per_dim", "bandwidth_GiBps_per_dim", "latency_ns_per_dim")
    axes = [
        {
            "name": f"axis{k}",
            "kind": _KINDS[kind],
            "size": int(size),
            "bandwidth": f"{bandwidth} GiB/s",
            "latency": f"{latency} ns",
            "forwarding": "store_and_forward" if aware else "cut_through",
            "contention": "fifo" if aware else "none",
        }
        for k, (kind, size, bandwidth, latency) in enumerate(
            zip(*(row[column].split("x") for column in columns), strict=True)
        )
    ]
    # its runs had endpoint delays of 1 ns, and its clock counts whole nanoseconds
    network = {"axis": axes} if plain else {"endpoint_delay": "1 ns", "tick": "1 ns", "axis": axes}
    return validated(Cluster, {"name": row["topology"], "accelerator": {}, "network": network}, "row")
