"""The command that models jobs on machines of other sizes: project."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rpucluster.cli.shared import AsJson, ClusterName, JobName, Sets, console, print_json, require_cluster


class Scaled(StrEnum):
    """The kind of parallelism that grows with the accelerators."""

    DATA = "data"
    PIPELINE = "pipeline"
    TENSOR = "tensor"


def project(
    job: JobName,
    cluster: ClusterName = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="KEY=LOW:HIGH:xSTEP",
            help="Any key that --set takes, or weights or accelerators, over a range or a list A,B,C; several are "
            "combined.",
        ),
    ] = None,
    scale: Annotated[Scaled, typer.Option(help="What grows with accelerators.")] = Scaled.DATA,
    weak: Annotated[
        bool, typer.Option("--weak", help="Let the global batch grow with the accelerators; else it stays.")
    ] = False,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples to train on in all; the job's epochs if not given.")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Find the network.axis.NAME.bandwidth with which exposed communication is below 10 % of the step.",
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="Replay every microbatch of every stage; else long steps are taken from short ones."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave the rows as Parquet, plots and a page there.")
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Project a job onto machines and models of other sizes: step, energy, scaling and what holds it up."""
    from rpucluster.files import check_folder
    from rpucluster.projection.rows import Projection
    from rpucluster.projection.rows import project as perform
    from rpucluster.projection.scaling import Scaling
    from rpucluster.projection.sweep import parse_sweep
    from rpucluster.report.projection_text import print_projection

    name = require_cluster(cluster)
    if out is not None:
        check_folder(out)
    projection = Projection(
        sweeps=tuple(parse_sweep(text) for text in sweep or ()),
        scaling=Scaling(degree=scale.value, weak=weak),
        samples=samples,
        threshold=threshold,
        whole=whole,
    )
    rows = perform(job, name, projection, sets or ())
    units = {each.key: each.unit for each in projection.sweeps}
    if out is not None:
        from rpucluster.report.projection_page import write_projection

        write_projection(out, f"{job} on {name}", rows, units, [f"--set {each}" for each in sets or ()])
    if as_json:
        print_json(rows)
    else:
        print_projection(rows, units, console(sys.stdout))
