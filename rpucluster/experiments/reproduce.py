"""Reproduce figures of the paper: make the runs that are missing, then tables, drawings and a page of all there are.

OUT/runs/*.json           one finished run each; runs are found again by their settings, whoever made them
OUT/FIGURE/               results.parquet, FIGURE.png and .svg, FIGURE_curves.png and .svg, report.html
OUT/choice.json           the number of epochs that a budget of hours chose, for later calls
"""

from dataclasses import dataclass
from pathlib import Path

from rpucluster.cluster import CLUSTER_TABLES, load_cluster
from rpucluster.config import split_overrides
from rpucluster.experiments.bar import Bar
from rpucluster.experiments.catalogue import panels_of
from rpucluster.experiments.executors import Failed, Finished
from rpucluster.experiments.figures import draw
from rpucluster.experiments.page import render
from rpucluster.experiments.points import Panel
from rpucluster.experiments.records import Records
from rpucluster.experiments.request import SYSTEM, Request
from rpucluster.experiments.results import panel_result
from rpucluster.experiments.system import system_table
from rpucluster.experiments.tables import Row, error_rows, system_rows, write_rows
from rpucluster.experiments.trials import Budget
from rpucluster.experiments.work import Work
from rpucluster.files import write_atomically
from rpucluster.job import JOB_TABLES

CONVENTION = (
    "throughput counts two operations per cross-point and forward pass of full arrays, the periphery hidden behind them"
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was found for one figure."""

    lead: str
    """The budget, or what the figure was computed from."""
    rows: dict[str, list[Row]]
    """By the heading of their table."""
    notes: tuple[str, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What was found, and what is left to do."""

    budget: Budget
    figures: dict[str, Figure]
    made: int
    """Runs that this call made."""
    left: int
    """Runs that a complete reproduction still needs."""
    failures: tuple[str, ...]


def reproduce(request: Request, bar: Bar) -> Reproduction:
    """Make the missing runs and write what all runs show.

    Raises `InputError` for what the user wrote wrongly, before anything starts; a failed run is told in the result
    and tried again by the next call.
    """
    panels = panels_of(request.figures, request.only)
    records = Records(request.out / "runs")
    work = Work(request, panels, records)
    made, failures, left = 0, [], 0
    if panels:
        missing = work.missing(work.budget)
        known = len(work.trials(work.budget)) - len(missing)
        bar.say(work.budget.text)
        bar.expect(len(missing), sum(trial.job.train.epochs for trial in missing), known)
        if estimate := work.estimate(missing):
            bar.say(estimate)
        for event in work.run(missing):
            if isinstance(event, Finished):
                records.add(event.record)  # before it is told
                made += 1
            elif isinstance(event, Failed):
                failures.append(f"{event.trial.label}, seed {event.trial.seed}: {event.reason}")
            bar(event)
        left = len(work.missing(work.budget))
    figures = {name: _system(request) if name == SYSTEM else _report(work, name) for name in request.figures}
    return Reproduction(
        budget=work.budget, figures=figures, made=made, left=left, failures=tuple(failures)
    )  # fmt: skip


def _report(work: Work, figure: str) -> Figure:
    """Write the files of a trained figure and give what they show."""
    folder = work.request.out / figure
    folder.mkdir(parents=True, exist_ok=True)
    there = panels_of((figure,))
    results = [panel_result(panel, work.finished(panel)) for panel in there if panel in work.panels]
    budget = work.budget
    notes = [] if budget.is_the_papers else [budget.text]
    missing = sum(work.records.find(sha256) is None for sha256 in work.hashes(figure))
    if missing:
        notes.append(f"{missing} runs of this figure are still missing; the same command makes them")
    notes += [f"{r.panel.name}: {r.panel.note}" for r in results if r.panel.note]
    rows = {_heading(result.panel): error_rows(result) for result in results}
    drawings = draw(folder, figure, results, f"{budget.text}. References are marked by how sure they are.")
    return _written(folder, figure, budget.text, rows, drawings, notes)


def _heading(panel: Panel) -> str:
    swept = f", by {panel.parameter}" if panel.swept else ""
    return f"{panel.name}: {panel.title}{swept}"


def _system(request: Request) -> Figure:
    """Write the files of the system table and give its rows."""
    folder = request.out / SYSTEM
    folder.mkdir(parents=True, exist_ok=True)
    sets = split_overrides(request.sets, {"job": JOB_TABLES, "cluster": CLUSTER_TABLES})
    cluster = load_cluster(request.cluster, sets["cluster"])
    rows: dict[str, list[Row]] = {}
    for row in system_rows(system_table(cluster.accelerator)):
        rows.setdefault(row.panel, []).append(row)
    return _written(folder, SYSTEM, f"computed from the cluster {cluster.name}; {CONVENTION}", rows, [], [])


def _written(
    folder: Path, figure: str, lead: str, rows: dict[str, list[Row]], drawings: list[Path], notes: list[str]
) -> Figure:
    table, page = folder / "results.parquet", folder / "report.html"
    write_rows(table, [row for those in rows.values() for row in those])
    svg = [path for path in drawings if path.suffix == ".svg"]
    write_atomically(page, render(figure, lead, rows, svg, notes).encode())
    return Figure(lead=lead, rows=rows, notes=tuple(notes), files=(table, *drawings, page))
