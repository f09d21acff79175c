"""The commands around everything: the paper's experiments, and what this machine has."""

import contextlib
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rpucluster.cli.runs import Executor
from rpucluster.cli.shared import AsJson, Sets, console, print_json
from rpucluster.errors import RunError


class Reproducible(StrEnum):
    """What of the paper can be reproduced."""

    FIG2 = "fig2"
    FIG3 = "fig3"
    FIG4 = "fig4"
    MNIST = "mnist"
    TABLE2 = "table2"
    ALL = "all"


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
        Bar(console(sys.stderr), quiet=quiet) as bar,
    ):
        done = perform(request, bar)
    if as_json:
        print_json(summary(done))
    else:
        for name, figure in done.figures.items():
            print_figure(name, figure, console(sys.stdout))
    if done.failures:
        more = f" and {len(done.failures) - 1} more" if len(done.failures) > 1 else ""
        raise RunError(f"{done.failures[0]}{more}; the same command tries again")


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has, what will be used, and how to get what is missing."""
    from rpucluster.doctor import examine
    from rpucluster.report.text import print_examination

    found = examine()
    if as_json:
        print_json(found)
    else:
        print_examination(found, console(sys.stdout))
    if not found["ok"]:
        raise typer.Exit(1)
