"""The commands: parse, call, print, exit code.

What takes long to import is imported inside the commands, so that ``--help`` and a misspelt option answer at once.
"""

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rpucluster import __version__
from rpucluster.errors import ConfigError, RpuclusterError, RunError

if TYPE_CHECKING:
    from rich.console import Console

    from rpucluster.cluster import Cluster
    from rpucluster.job import Job

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes of a process that a signal ends, as shells report them."""

# typer brings its own click in newer versions and uses the public one in older ones; its BadParameter is of
# the family in both
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class Executor(StrEnum):
    """Where the accelerators of a run live."""

    RAY = "ray"
    LOCAL = "local"


class Reproducible(StrEnum):
    """What of the paper can be reproduced."""

    FIG2 = "fig2"
    FIG3 = "fig3"
    FIG4 = "fig4"
    MNIST = "mnist"
    TABLE2 = "table2"
    ALL = "all"


JobName = Annotated[str, typer.Argument(metavar="JOB", help="A job file, or the name of a shipped one.")]
ClusterName = Annotated[
    str | None,
    typer.Option("--cluster", metavar="CLUSTER", help="A cluster file, or the name of a shipped one; required."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Change a key of either file, e.g. train.epochs=5; repeatable."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]

app = typer.Typer(
    name="rpucluster",
    help="Simulate clusters of analog (RPU) accelerators: real training math, modelled time and energy.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show_version:
        typer.echo(f"rpucluster {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def run(
    job: JobName,
    cluster: ClusterName = None,
    executor: Annotated[
        Executor, typer.Option(help="Accelerators as Ray actors, or all in this process; equal results.")
    ] = Executor.RAY,
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster to run on instead of starting one here.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set train.seed=N.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run directory; runs/<job>-<n> if not given.")
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Train a job on a modelled cluster and leave a run directory with a report."""
    overrides = [*(sets or ()), *([] if seed is None else [f"train.seed={seed}"])]
    the_job, the_cluster = _load(job, cluster, overrides)

    from rpucluster import coordinator
    from rpucluster.progress import Display
    from rpucluster.report.html import write_report
    from rpucluster.report.text import print_summary

    # whatever prints while the accelerators work must not get between the JSON
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        with Display(_console(sys.stderr), quiet=quiet) as display:
            done = coordinator.run(
                the_job, the_cluster, executor=executor.value, address=address, out=out, progress=display
            )
        report_path = write_report(done.directory)
    places = {"run_directory": str(done.directory.path), "report": str(report_path)}
    if as_json:
        _print_json({**done.directory.read_summary(), **places})
        return
    print_summary(done.directory.read_summary(), done.directory.read_step(), _console(sys.stdout))
    typer.echo(f"run directory  {places['run_directory']}\nreport         {places['report']}")


@app.command()
def plan(job: JobName, cluster: ClusterName = None, sets: Sets = None, as_json: AsJson = False) -> None:
    """Show which tiles sit on which accelerator and what a step costs, before anything is allocated."""
    the_job, the_cluster = _load(job, cluster, sets or ())

    from rpucluster.modelled import plan_report
    from rpucluster.report.text import print_plan

    found = plan_report(the_job, the_cluster)
    if as_json:
        _print_json(found)
    else:
        print_plan(found, _console(sys.stdout))


@app.command()
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
    from rpucluster.files import write_atomically
    from rpucluster.profile.step import profile as examine
    from rpucluster.profile.step import specs_of_run
    from rpucluster.report.profile_text import print_profile
    from rpucluster.timeline import NOTHING_COUNTED
    from rpucluster.trace import write_trace

    if Path(target).is_dir():
        if cluster is not None or sets:
            raise ConfigError(f"{target} is a run, which has its own files; change their keys with --what-if")
        the_job, the_cluster, counted = specs_of_run(Path(target))
    else:
        (the_job, the_cluster), counted = _load(target, cluster, sets or ()), NOTHING_COUNTED
    found = examine(the_job, the_cluster, what_if or (), counted)
    if out is not None:
        from rpucluster.profile.tables import write_tables

        write_tables(out, found.content)
        write_trace(out / "trace.json.gz", found.timeline)
    if html is not None:
        from rpucluster.report.profile_html import render_profile

        write_atomically(html, render_profile(found.content, found.events, found.link_spans).encode())
    if as_json:
        _print_json(found.content)
    else:
        print_profile(found.content, _console(sys.stdout))


@app.command()
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
    name = _require(cluster)

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
        _print_json([asdict(row) for row in rows])
    else:
        print_collectives(rows, the_cluster.name, _console(sys.stdout))


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    as_json: AsJson = False,
) -> None:
    """Show the summary of a finished run again and write its report.html anew."""
    from rpucluster.report.html import write_report
    from rpucluster.report.text import print_summary
    from rpucluster.runlog import RunDirectory

    found = RunDirectory.open(directory)
    path = write_report(found)
    if as_json:
        _print_json({**found.read_summary(), "run_directory": str(found.path), "report": str(path)})
        return
    print_summary(found.read_summary(), found.read_step(), _console(sys.stdout))
    typer.echo(f"report  {path}")


@app.command()
def reproduce(
    what: Annotated[Reproducible, typer.Argument(metavar="FIGURE", help="fig2, fig3, fig4, mnist, table2 or all.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes instead of hours: few images, epochs, points and seeds.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="MNIST's four IDX files; data/mnist if not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Runs and results; reproduce or reproduce-quick if not given.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PANEL", help="Only this panel, such as A or fig3.A; repeatable.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each point; 3 if not given.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each run; 30, as in the paper, if not given.")] = None,
    budget_hours: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS",
            help="Start no run that would not end by then, the most telling first, with fewer epochs where even "
            "those do not fit; a later call continues.  0 only reports what is there.",
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at once, one core each; all cores if not given.")] = None,
    executor: Annotated[Executor, typer.Option(help="Runs as Ray tasks, or as processes of this machine.")] = (
        Executor.RAY
    ),
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster to run on instead of starting one here.")
    ] = None,
    cluster: Annotated[str, typer.Option(metavar="CLUSTER", help="The machine whose tiles are used.")] = "paper_chip",
    sets: Sets = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Run the paper's experiments, or continue them, and put the results beside its values."""
    from rpucluster.experiments.bar import Bar
    from rpucluster.experiments.reproduce import reproduce as perform
    from rpucluster.experiments.request import ALL, Request
    from rpucluster.experiments.text import print_figure, summary

    request = Request(
        figures=ALL if what is Reproducible.ALL else (what.value,),
        out=out or Path("reproduce-quick" if quick else "reproduce"),
        data=data,
        quick=quick,
        only=tuple(only or ()),
        cluster=cluster,
        sets=tuple(sets or ()),
        seeds=seeds,
        epochs=epochs,
        hours=budget_hours,
        jobs=jobs if jobs is not None else os.cpu_count() or 1,
        executor=executor.value,
        address=address,
    )
    with (
        contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(),
        Bar(_console(sys.stderr), quiet=quiet) as bar,
    ):
        done = perform(request, bar)
    if as_json:
        _print_json(summary(done))
    else:
        for name, figure in done.figures.items():
            print_figure(name, figure, _console(sys.stdout))
    if done.failures:
        more = f" and {len(done.failures) - 1} more" if len(done.failures) > 1 else ""
        raise RunError(f"{done.failures[0]}{more}; the same command tries again")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has, what will be used, and how to get what is missing."""
    from rpucluster.doctor import examine
    from rpucluster.report.text import print_examination

    found = examine()
    if as_json:
        _print_json(found)
    else:
        print_examination(found, _console(sys.stdout))
    if not found["ok"]:
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit code.

    What the user can mend ends in one line on standard error and never in a traceback.
    """
    command = typer.main.get_command(app)
    try:
        # typer's own main would print usage errors in several lines
        with command.make_context("rpucluster", list(sys.argv[1:] if arguments is None else arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except RpuclusterError as error:
        return _fail(str(error), error.exit_code)
    except _UsageError as error:
        return _fail(f"{_usage_message(error)}; try rpucluster --help", 2)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # whoever read our output has gone; the interpreter must not try to flush to it once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return 0


def _load(job: str, cluster: str | None, sets: Sequence[str]) -> "tuple[Job, Cluster]":
    name = _require(cluster)

    from rpucluster.cluster import CLUSTER_TABLES, load_cluster
    from rpucluster.config import split_overrides
    from rpucluster.job import JOB_TABLES, load_job

    overrides = split_overrides(sets, {"job": JOB_TABLES, "cluster": CLUSTER_TABLES})
    return load_job(job, overrides["job"]), load_cluster(name, overrides["cluster"])


def _require(cluster: str | None) -> str:
    from rpucluster.config import shipped

    if cluster is None:
        names = ", ".join(shipped("cluster"))
        raise ConfigError(f"--cluster is missing; name a cluster file or one of the shipped {names}")
    return cluster


def _console(stream: Any) -> "Console":
    from rich.console import Console

    return Console(file=stream)


def _print_json(content: dict[str, Any] | list[dict[str, Any]]) -> None:
    typer.echo(json.dumps(content, indent=2))


def _fail(message: str, code: int) -> int:
    print(f"rpucluster: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _usage_message(error: Exception) -> str:
    message: str = error.format_message() if hasattr(error, "format_message") else str(error)
    return message[:1].lower() + message[1:].rstrip(".")
