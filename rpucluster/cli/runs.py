"""The commands that perform a job and look at what it left."""

import contextlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rpucluster.cli.shared import AsJson, ClusterName, JobName, Sets, console, load, print_json


class Executor(StrEnum):
    """Where the accelerators of a run live."""

    RAY = "ray"
    LOCAL = "local"


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
    the_job, the_cluster = load(job, cluster, overrides)

    from rpucluster import coordinator
    from rpucluster.progress import Display
    from rpucluster.report.html import write_report
    from rpucluster.report.text import print_summary

    # whatever prints while the accelerators work must not get between the JSON
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        with Display(console(sys.stderr), quiet=quiet) as display:
            done = coordinator.run(
                the_job, the_cluster, executor=executor.value, address=address, out=out, progress=display
            )
        report_path = write_report(done.directory)
    places = {"run_directory": str(done.directory.path), "report": str(report_path)}
    if as_json:
        print_json({**done.directory.read_summary(), **places})
        return
    print_summary(done.directory.read_summary(), done.directory.read_step(), console(sys.stdout))
    typer.echo(f"run directory  {places['run_directory']}\nreport         {places['report']}")


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
