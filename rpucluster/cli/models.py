"""The commands that only model: plan, profile, collective."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rpucluster.cli.shared import AsJson, ClusterName, JobName, Sets, console, load, print_json, require_cluster
from rpucluster.errors import ConfigError


def plan(job: JobName, cluster: ClusterName = None, sets: Sets = None, as_json: AsJson = False) -> None:
    """Show which tiles sit on which accelerator and what a step costs, before anything is allocated."""
    the_job, the_cluster = load(job, cluster, sets or ())

    from rpucluster.projection.planned import plan_report
    from rpucluster.report.text import print_plan

    found = plan_report(the_job, the_cluster)
    if as_json:
        print_json(found)
    else:
        print_plan(found, console(sys.stdout))


def profile(
    target: Annotated[
        str, typer.Argument(metavar="RUN|JOB", help="The directory of a finished run, or a job with --cluster.")
    ],
    cluster: ClusterName = None,
    sets: Sets = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--what-if",
            metavar="SECTION.KEY=VALUE",
            help="Replay with a key changed, all else equal; x2 and /2 scale what is there; repeatable.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave the tables as Parquet there, and the trace.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="PAGE", help="Write a self-contained page with an interactive timeline.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show where a modelled step goes, its critical path, what holds it up and what would relieve it."""
    from rpucluster.files import check_file, check_folder, write_atomically
    from rpucluster.profile.step import profile as examine
    from rpucluster.profile.step import specs_of_run
    from rpucluster.report.profile_text import print_profile
    from rpucluster.timeline import NOTHING_COUNTED
    from rpucluster.trace import write_trace

    if out is not None:
        check_folder(out)
    if html is not None:
        check_file(html)
    if Path(target).is_dir():
        if cluster is not None or sets:
            raise ConfigError(f"{target} is a run, which has its own files; change their keys with --what-if")
        the_job, the_cluster, counted = specs_of_run(Path(target))
    else:
        (the_job, the_cluster), counted = load(target, cluster, sets or ()), NOTHING_COUNTED
    found = examine(the_job, the_cluster, what_if or (), counted)
    if out is not None:
        from rpucluster.profile.tables import write_tables

        write_tables(out, found.content)
        write_trace(out / "trace.json.gz", found.timeline)
    if html is not None:
        from rpucluster.report.profile_html import render_profile

        write_atomically(html, render_profile(found.content, found.events, found.link_spans).encode())
    if as_json:
        print_json(found.content)
    else:
        print_profile(found.content, console(sys.stdout))


def collective(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="all_reduce, all_gather, reduce_scatter, all_to_all, broadcast or send."),
    ],
    cluster: ClusterName = None,
    sizes: Annotated[
        str | None,
        typer.Option("--bytes", metavar="SIZES", help="A size, 64MiB, or a sweep; 1KiB:1GiB:x4 if not given."),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option("--shard-bytes", metavar="SIZES", help="The same of the share of one accelerator."),
    ] = None,
    algorithm: Annotated[
        str,
        typer.Option(
            metavar="A[,B]",
            help="ring, direct, halving_doubling, tree or auto: one per axis, innermost first, or one for all.",
        ),
    ] = "auto",
    over: Annotated[
        str | None, typer.Option(metavar="AXES", help="Only along these axes, e.g. board,rack; all if not given.")
    ] = None,
    chunks: Annotated[
        int | None, typer.Option(help="Into how many chunks the payload is split; the cluster's by default.")
    ] = None,
    active_chunks: Annotated[
        int | None, typer.Option(help="Chunks under way at once on each axis; the cluster's by default.")
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Time a collective on a modelled network: the table of the usual collective benchmark."""
    name = require_cluster(cluster)

    from rpucluster.cluster import CLUSTER_TABLES, load_cluster
    from rpucluster.collective_table import SIZES, kind_named, measure, members_over, parse_algorithms, parse_sizes
    from rpucluster.config import split_overrides
    from rpucluster.report.collectives import print_collectives

    the_cluster = load_cluster(name, split_overrides(sets or (), {"cluster": CLUSTER_TABLES})["cluster"])
    if sizes is not None and shards is not None:
        raise ConfigError("--bytes and --shard-bytes say the same; write one of them")
    rows = measure(
        kind_named(kind),
        the_cluster.network,
        parse_sizes(sizes or SIZES) if shards is None else parse_sizes(shards, "--shard-bytes"),
        members=members_over(the_cluster.network, over),
        algorithm=parse_algorithms(algorithm),
        chunks=the_cluster.network.chunks if chunks is None else chunks,
        active_chunks=the_cluster.network.active_chunks if active_chunks is None else active_chunks,
        shards=shards is not None,
    )
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_collectives(rows, the_cluster.name, console(sys.stdout))
