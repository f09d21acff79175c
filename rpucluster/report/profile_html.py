"""A profile as one self-contained page: the bottlenecks in words, the timeline, and where the step goes."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from rpucluster.report.facts import percent, quantity, title
from rpucluster.report.page import TIMELINE_LEAD, cards, header, note, page, section, table, timeline_place
from rpucluster.report.profile_text import bottleneck_lines, change_of, members, waited_for
from rpucluster.report.timeline import timeline

MOST_ROWS = 100
"""Rows of a table; the Parquet files have all of them."""
_WORK = ("forward", "backward", "digital", "update", "communication")

Row = Mapping[str, Any]


def render_profile(profile: Row, events: Sequence[Row], spans: Sequence[Row]) -> str:
    """The page as text: plain values of `profile.step.profile`, and the rows of its timeline (`step_rows`)."""
    step = profile["modelled_step_s"]
    lead = f"{profile['operations']:,} operations for {profile['samples']} samples"
    body = (
        header(f"{title(profile)}: one modelled step", lead),
        _cards(profile),
        section("What holds it up", "Each change was replayed, with everything else as it is.", _words(profile)),
        section(
            "The step",
            TIMELINE_LEAD,
            timeline_place()
            + note(_path(profile))
            + f"<details><summary>The critical path, operation by operation</summary>{_path_rows(profile)}</details>",
        ),
        section(
            "Where the step goes",
            "Seconds are added over the operations of an accelerator or a layer; the path is the critical one.",
            f"<h3>By accelerator</h3>{_accelerators(profile)}<h3>By layer</h3>{_layers(profile)}",
        ),
        section(
            "Energy",
            "By component; of collectives and sends, an even share of each who takes part.",
            f"<h3>By accelerator</h3>{_energy(profile['accelerators'], 'accelerator')}"
            f"<h3>By layer</h3>{_energy(profile['layers'], 'name')}",
        ),
        section(
            "Exposed communication",
            "While a transfer is under way and nothing computes; the mean over the accelerators.",
            _exposed(profile),
        ),
        section(
            "Links, tile groups and digital units",
            "How much of the step each is in use, the busiest first.",
            _busiest(
                ("link", "axis", ">bytes", ">busy", ">in use"),
                (
                    (escape(row["link"]), escape(row["axis"]), quantity(row["link_bytes"], "size"), *_use(row))
                    for row in sorted(profile["links"], key=lambda row: -row["busy_s"])
                ),
            )
            + _busiest((">accelerator", "resource", ">tiles", ">busy", ">in use"), _resources(profile)),
        ),
        "<footer>All figures are of the simulated machine.</footer>",
    )
    return page(f"{title(profile)}, {quantity(step, 'time')} a step", body, timeline=timeline(events, spans))


def _cards(profile: Row) -> str:
    p = profile
    return cards(
        (
            ("modelled step", quantity(p["modelled_step_s"], "time"), f"{p['samples']} samples"),
            ("compute", percent(p["compute_fraction"]), "mean over the accelerators"),
            ("exposed communication", percent(p["exposed_communication_fraction"]), "nothing computes meanwhile"),
            ("bubble", percent(p["bubble"]), "neither of the two"),
            ("energy", quantity(p["energy_J"], "energy"), "a step"),
            (
                "peak power",
                quantity(max((row["peak_power_W"] for row in p["accelerators"]), default=0.0), "power"),
                "of an accelerator",
            ),
        )
    )


def _words(profile: Row) -> str:
    items = "".join(
        f"<p><b>{escape(head)}</b></p><p class='lead'>{escape(why)}</p>" for head, why in bottleneck_lines(profile)
    )
    asked = "".join(
        f"<p><b>what if {escape(' '.join(answer['changes']))}:</b> {escape(change_of(answer))}</p>"
        for answer in profile["what_if"]
    )
    return items + asked


def _path(profile: Row) -> str:
    step = profile["modelled_step_s"]
    kinds = [
        f"{percent(seconds / step)} {kind.replace('_', '-')}"
        for kind, seconds in profile["critical_path_s"].items()
        if step and seconds >= 0.0005 * step
    ]
    return f"the critical path is {', '.join(kinds)}" if kinds else ""


def _accelerators(profile: Row) -> str:
    step = profile["modelled_step_s"]
    heads = (">accelerator", ">compute", ">exposed", ">idle", ">energy", ">power", ">peak")
    return _busiest(
        (*heads, *(f">{work}" for work in _WORK), ">path"),
        (
            (
                str(row["accelerator"]),
                *(_share(row[key], step) for key in ("compute_s", "exposed_communication_s", "idle_s")),
                quantity(row["energy_J"], "energy"),
                quantity(row["mean_power_W"], "power"),
                quantity(row["peak_power_W"], "power"),
                *(quantity(row[f"{work}_s"], "time") for work in _WORK),
                _share(row["critical_s"], step),
            )
            for row in profile["accelerators"]
        ),
    )


def _layers(profile: Row) -> str:
    step = profile["modelled_step_s"]
    return _busiest(
        ("layer", *(f">{work}" for work in _WORK), ">path"),
        (
            (
                escape(row["name"]),
                *(quantity(row[f"{work}_s"], "time") for work in _WORK),
                _share(row["critical_s"], step),
            )
            for row in profile["layers"]
        ),
    )


def _energy(rows: Sequence[Row], name: str) -> str:
    parts = ("array", "adc", "update", "digital", "on_chip", "links")
    heads = (name.replace("name", "layer"), *(f">{part.replace('_', '-')}" for part in parts))
    return _busiest(
        heads,
        ((escape(str(row[name])), *(quantity(row[f"energy_{part}_J"], "energy") for part in parts)) for row in rows),
    )


def _path_rows(profile: Row) -> str:
    return _busiest(
        (">operation", ">start", ">takes", "what", "accelerators", "began after"),
        (
            (
                str(row["op"]),
                quantity(row["start_s"], "time"),
                quantity(row["duration_s"], "time"),
                escape(row["label"]),
                members(row["accelerators"]),
                waited_for(row),
            )
            for row in profile["critical_path"]
        ),
    )


def _exposed(profile: Row) -> str:
    if not profile["exposed_communication"]:
        return '<p class="note">Nothing travels between accelerators in this step.</p>'
    return _busiest(
        ("transfer", "payload", "axes", ">number", ">waited for links", ">exposed", ">of the step"),
        (
            (
                row["kind"].replace("_", "-"),
                row["payload"].replace("_", " "),
                escape(row["axes"]),
                f"{row['operations']:,}",
                quantity(row["waited_s"], "time"),
                quantity(row["exposed_s"], "time"),
                percent(row["exposed_fraction"]),
            )
            for row in profile["exposed_communication"]
        ),
    )


def _resources(profile: Row) -> Iterable[Sequence[str]]:
    names = {row["layer"]: row["name"] for row in profile["layers"]}
    for row in sorted(profile["resources"], key=lambda row: -row["utilisation"]):
        what = "digital units" if row["layer"] is None else f"tiles of {names[row['layer']]}"
        tiles = "" if row["tiles"] is None else f"{row['tiles']:,}"
        yield str(row["accelerator"]), escape(what), tiles, *_use(row)


def _use(row: Row) -> tuple[str, str]:
    return quantity(row["busy_s"], "time"), percent(row["utilisation"])


def _busiest(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    every = list(rows)
    more = f"showing {MOST_ROWS} of {len(every):,}" if len(every) > MOST_ROWS else ""
    return f'<div class="scroll">{table(heads, every[:MOST_ROWS])}</div>{note(more)}'


def _share(seconds: float, step: float) -> str:
    return percent(seconds / step if step else 0.0)
