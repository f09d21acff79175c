"""The commands that perform a job and look at what it left."""

import contextlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rpucluster.cli.shared import AsJson, ClusterName, Sets, console, load, print_json, split_sets
from rpucluster.errors import ConfigError

if TYPE_CHECKING:
    from rpucluster.cluster import Cluster
    from rpucluster.coordinator import Source
    from rpucluster.job import Job


class Executor(StrEnum):
    """Where the accelerators of a run live."""

    RAY = "ray"
    LOCAL = "local"


def run(
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="A job file, or the name of a shipped one; none with --resume.")
    ] = None,
    cluster: ClusterName = None,
    executor: Annotated[
        Executor, typer.Option(help="Accelerators as Ray actors, or all in this process; equal results.")
    ] = Executor.RAY,
    address: Annotated[
        str | None,
        typer.Option(help="An existing Ray cluster, auto or HOST:PORT, to run on instead of starting one here."),
    ] = None,
    node_placement: Annotated[
        str | None, typer.Option(metavar="spread|pack", help="Short for --set run.node_placement=pack.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set train.seed=N.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run directory; runs/<job>-<n> if not given.")
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(metavar="INTERVAL", help='Short for --set run.checkpoint_every="200 steps" or "5 min".'),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Continue this run, or one of its checkpoints; --set may change its plan."),
    ] = None,
    resume_as_new: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Start a new run, which may differ in anything, from the weights of this one."
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars for TensorBoard into DIR/tensorboard.")
    ] = False,
    sets: Sets = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Train a job on a modelled cluster and leave a run directory with a report."""
    overrides = [
        *(sets or ()),
        *([] if seed is None else [f"train.seed={seed}"]),
        *([] if node_placement is None else [f"run.node_placement={node_placement}"]),
        *([] if checkpoint_every is None else [f"run.checkpoint_every={checkpoint_every}"]),
    ]
    source, (the_job, the_cluster) = _source(job, cluster, overrides, resume, resume_as_new, out)

    from rpucluster import coordinator
    from rpucluster.progress import Display
    from rpucluster.report.html import write_report
    from rpucluster.report.text import print_summary

    # whatever prints while the accelerators work, Ray for one, must not get between the results
    with contextlib.redirect_stdout(sys.stderr):
        with Display(console(sys.stderr), quiet=quiet) as display:
            done = coordinator.run(
                the_job,
                the_cluster,
                executor=executor.value,
                address=address,
                out=out,
                progress=display,
                tensorboard=tensorboard,
                resume=source,
                as_new=resume_as_new is not None,
            )
        report_path = write_report(done.directory)
    places = {"run_directory": str(done.directory.path), "report": str(report_path)}
    if as_json:
        print_json({**done.directory.read_summary(), **places})
        return
    print_summary(done.directory.read_summary(), done.directory.read_step(), console(sys.stdout))
    typer.echo(f"run directory  {places['run_directory']}\nreport         {places['report']}")


def _source(
    job: str | None,
    cluster: str | None,
    sets: list[str],
    resume: Path | None,
    as_new: Path | None,
    out: Path | None,
) -> "tuple[Source | None, tuple[Job, Cluster]]":
    """The run to go on from, and the specs: those of that run where no files are named."""
    if resume is not None and as_new is not None:
        raise ConfigError("--resume continues a run and --resume-as-new starts another one; write one of them")
    path = as_new if resume is None else resume
    if path is None:
        if job is None:
            raise ConfigError("JOB is missing; name a job file, or a run to continue with --resume")
        return None, load(job, cluster, sets)
    if resume is not None and out is not None:
        raise ConfigError(f"--resume goes on in {resume}; leave --out out, or write --resume-as-new {resume}")

    from rpucluster.cluster import load_cluster
    from rpucluster.coordinator import find
    from rpucluster.job import load_job

    found = find(path)
    by_kind = split_sets(sets)
    the_job, the_cluster = found.specs(by_kind["job"], by_kind["cluster"])
    if job is not None:
        the_job = load_job(job, by_kind["job"])
    if cluster is not None:
        the_cluster = load_cluster(cluster, by_kind["cluster"])
    return found, (the_job, the_cluster)


def watch(
    directory: Annotated[
        Path, typer.Argument(metavar="RUN", help="The directory of a run that another process performs.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show how far a run in another terminal has come, until it ends; --json says it once."""
    from dataclasses import asdict

    from rpucluster.coordinator import read_status
    from rpucluster.files import is_held
    from rpucluster.progress import Display
    from rpucluster.watch import watch as follow

    if as_json:
        status = asdict(read_status(directory))
        print_json({**status, "running": is_held(directory)})
        return
    with Display(console(sys.stdout)) as display:
        last = follow(directory, display)
    if last.phase == "done":
        typer.echo(f"done; rpucluster report {directory} shows the results")
        return
    typer.echo(f"no process works on {directory}; rpucluster run --resume {directory} goes on")


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
        print_json({**found.read_summary(), "run_directory": str(found.path), "report": str(path)})
        return
    print_summary(found.read_summary(), found.read_step(), console(sys.stdout))
    typer.echo(f"report  {path}")
