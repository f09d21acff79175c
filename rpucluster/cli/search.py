"""The command that looks for the best plan: search."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rpucluster.cli.shared import AsJson, ClusterName, JobName, Sets, console, load, print_json


class By(StrEnum):
    """What the best plan has least of."""

    TIME = "time"
    ENERGY = "energy"
    PARETO = "pareto"


def search(
    job: JobName,
    cluster: ClusterName = None,
    by: Annotated[
        By, typer.Option(help="Least time or energy of a step, or the front of both with the accelerators used.")
    ] = By.TIME,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="KEY[,KEY]",
            help="What stays as the job has it: tensor, pipeline, data, microbatch, schedule, placement, of RPUs "
            "data_sync, of GPUs recompute, sequence_parallel.",
        ),
    ] = None,
    replays: Annotated[int, typer.Option(min=1, help="Plans that are replayed at most; of RPUs.")] = 200,
    budget_s: Annotated[
        float,
        typer.Option("--budget-s", min=0, help="Host seconds to take, about."),
    ] = 10.0,
    top: Annotated[int, typer.Option(min=1, help="Rows that are shown.")] = 10,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Leave all rows as Parquet there.")] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Look for the best way to spread a job over a cluster: every legal plan is bounded, the promising are timed."""
    the_job, the_cluster = load(job, cluster, sets or ())

    from rpucluster.files import check_file
    from rpucluster.progress import counting
    from rpucluster.report.search import print_search, write_search
    from rpucluster.search.search import search as look

    if out is not None:
        check_file(out)
    kept = [word.strip() for word in keep.split(",")] if keep else []
    with counting("plans timed", console(sys.stderr), quiet=as_json) as step:
        found = look(the_job, the_cluster, by=by.value, keep=kept, replays=replays, budget_s=budget_s, progress=step)  # type: ignore[arg-type]
    if out is not None:
        write_search(out, found)
    if as_json:
        print_json(
            {
                "plans": found.plans,
                "plans_evaluated": found.bounded + found.timed,
                "plans_fitting": found.fitting,
                "plans_bounded": found.bounded,
                "plans_alike": found.alike,
                "plans_replayed": found.timed,
                "plans_refused": found.refused,
                "plans_not_looked_at": found.unseen,
                "plans_without_bounds_of_transfers": found.vague,
                "unsettled_s": found.unsettled_s,
                "unsettled_J": found.unsettled_J,
                "gap": found.gap,
                "wall_s": found.wall_s,
                "rows": [each.row for each in found.found],
            }
        )
    else:
        print_search(found, top, console(sys.stdout))
