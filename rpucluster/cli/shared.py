"""What several commands take and do."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rpucluster.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from rpucluster.cluster import Cluster
    from rpucluster.config import Kind
    from rpucluster.job import Job

JobName = Annotated[str, typer.Argument(metavar="JOB", help="A job file, or the name of a shipped one.")]
ClusterName = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="CLUSTER",
        help="A cluster file, or the name of a shipped one; needed unless a run is named.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Change a key of either file, e.g. train.epochs=5; repeatable."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]


def load(job: str, cluster: str | None, sets: Sequence[str]) -> "tuple[Job, Cluster]":
    name = require_cluster(cluster)

    from rpucluster.cluster import load_cluster
    from rpucluster.job import load_job

    overrides = split_sets(sets)
    return load_job(job, overrides["job"]), load_cluster(name, overrides["cluster"])


def split_sets(sets: Sequence[str]) -> "dict[Kind, list[str]]":
    from rpucluster.cluster import CLUSTER_TABLES
    from rpucluster.config import split_overrides
    from rpucluster.job import JOB_TABLES

    return split_overrides(sets, {"job": JOB_TABLES, "cluster": CLUSTER_TABLES})


def require_cluster(cluster: str | None) -> str:
    from rpucluster.config import shipped

    if cluster is None:
        names = ", ".join(shipped("cluster"))
        raise ConfigError(f"--cluster is missing; name a cluster file or one of the shipped {names}")
    return cluster


def console(stream: Any) -> "Console":
    from rich.console import Console

    return Console(file=stream)


def print_json(content: dict[str, Any] | list[dict[str, Any]]) -> None:
    typer.echo(json.dumps(content, indent=2))
