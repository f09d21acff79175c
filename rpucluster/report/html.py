"""`report.html`: a finished run as one self-contained page, written into its run directory.

Everything on the page comes from the run's files, and a file may hold any text: what is put into the page is
escaped, and what is put into its script is JSON in which no tag can begin.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rpucluster.files import write_atomically
from rpucluster.report import charts
from rpucluster.report.facts import count, groups, percent, quantity, setting, title
from rpucluster.report.page import TIMELINE_LEAD, cards, header, note, page, section, table, timeline_place
from rpucluster.report.tilemap import tile_map
from rpucluster.report.timeline import timeline
from rpucluster.runlog import RunDirectory

MOST_LINKS = 200
"""Links in the table, the busiest first; links.parquet has all of them."""


def write_report(run: RunDirectory) -> Path:
    """Write `report.html` into a finished run's directory and return its path.

    The page needs no network.  Raises `RunDirectoryError` where a file of the run cannot be read.
    """
    path = run.path / "report.html"
    write_atomically(path, render(run).encode())
    return path


def render(run: RunDirectory) -> str:
    """The page as text."""
    summary, plan, step = run.read_summary(), run.read_plan(), run.read_step()
    loss, accuracy = charts.learning_curves(run.read_epochs())
    shares, shares_note = charts.step_shares(step)
    figures = {
        "loss": loss,
        "accuracy": accuracy,
        "shares": shares,
        "energy": charts.energy(step["energy_by_component_J"]),
    }
    job_toml, cluster_toml = run.read_specs()
    body = (
        header(title(summary), setting(summary)),
        _cards(summary),
        _warnings(plan["warnings"]),
        section(
            "Learning",
            "Loss and accuracy by epoch. Training figures are those of the samples as they were trained on.",
            f'<div class="two">{_chart("loss")}{_chart("accuracy")}</div>',
        ),
        section(
            "One modelled training step",
            TIMELINE_LEAD,
            timeline_place() + note(_critical_path(step)),
        ),
        section(
            "Where the step goes",
            "Communication is exposed while an accelerator takes part in it and computes nothing.",
            f'<div class="two"><div><h3>By accelerator</h3>{_chart("shares")}{note(shares_note)}</div>'
            f"<div><h3>Energy by component</h3>{_chart('energy')}</div></div>",
        ),
        section("Links", "What each link carries in one modelled step.", _links(run.read_links())),
        section(
            "Tile map",
            "Each layer's array is cut into tiles; the colour and number say which accelerator holds them.",
            tile_map(plan),
        ),
        section("All figures", "", _groups(summary)),
        section(
            "The experiment",
            "Both files as resolved, every default written out.",
            f"<details><summary>job.toml</summary><pre>{escape(job_toml)}</pre></details>"
            f"<details><summary>cluster.toml</summary><pre>{escape(cluster_toml)}</pre></details>",
        ),
        f"<footer>Modelled figures are of the simulated machine, wall figures of the computer that simulated it. "
        f"Weights SHA-256 <code>{escape(str(summary['weights_sha256'])[:16])}…</code></footer>",
    )
    return page(title(summary), body, figures, timeline(run.read_events(), run.read_link_spans()))


def _cards(summary: Mapping[str, Any]) -> str:
    s = summary
    epochs = f"{count(s['epochs'])} epoch{'s' * (s['epochs'] != 1)}"
    entries = (
        ("test accuracy", percent(s["test_accuracy"], 2), f"after {epochs}"),
        ("modelled step", quantity(s["modelled_step_s"], "time"), f"{count(s['steps'])} steps"),
        ("modelled training", quantity(s["modelled_s"], "time"), f"{percent(s['compute_fraction'], 0)} compute"),
        (
            "modelled energy",
            quantity(s["modelled_energy_J"], "energy"),
            f"{quantity(s['modelled_energy_per_step_J'], 'energy')} a step",
        ),
        (
            "accelerators",
            f"{count(s['accelerators'])} of {count(s['accelerators_available'])}",
            f"{count(s['weights'])} weights on {count(s['tiles'])} tiles",
        ),
        ("wall", quantity(s["wall_s"], "time"), f"{count(s['samples_per_s'])} samples per wall second"),
    )
    return cards(entries)


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<section class="warnings"><h2>Worth knowing about this plan</h2><ul>{items}</ul></section>'


def _critical_path(step: Mapping[str, Any]) -> str:
    whole = step["modelled_step_s"]
    kinds = [
        f"{percent(seconds / whole)} {kind.replace('_', '-')}"
        for kind, seconds in step["critical_path_s"].items()
        if whole and seconds >= 0.0005 * whole
    ]
    return f"the critical path is {', '.join(kinds)}" if kinds else ""


def _links(links: Sequence[Mapping[str, Any]]) -> str:
    if not links:
        return '<p class="note">Nothing travels between accelerators in this step.</p>'
    busiest = sorted(links, key=lambda link: -link["bytes"])
    rows = (
        (
            escape(link["link"]),
            escape(link["axis"]),
            escape(quantity(link["bytes"], "size")),
            escape(quantity(link["busy_modelled_s"], "time")),
            f'<span class="bar"><span style="width:{100 * min(link["utilisation"], 1):.1f}%"></span></span>'
            f"{escape(percent(link['utilisation']))}",
        )
        for link in busiest[:MOST_LINKS]
    )
    more = f"showing the {MOST_LINKS} busiest of {len(links):,}" if len(links) > MOST_LINKS else ""
    shown = table(("link", "axis", ">bytes per step", ">busy", "in use"), rows)
    return f'<div class="scroll">{shown}</div>{note(more)}'


def _groups(summary: Mapping[str, Any]) -> str:
    tables = (
        f"<div><h3>{escape(group.title)}</h3>"
        + table((), ((escape(name), escape(value)) for name, value in group.rows), last_is_number=True)
        + "</div>"
        for group in groups(summary)
    )
    return f'<div class="four">{"".join(tables)}</div>'


def _chart(name: str) -> str:
    return f'<div class="chart" id="{name}"></div>'
