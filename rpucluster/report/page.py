"""The frame of a page: one self-contained HTML file in which nothing that is put in can begin a tag or a script."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

TIMELINE_LEAD = (
    "What each accelerator does, and when, on the modelled machine, and below it each link; operations of the critical "
    "path are underlined in black. Drag to move, double-click or hold Ctrl and turn the wheel to zoom, point at an "
    "operation to see what it is and what it waited for."
)
"""What pages say above a timeline."""


def page(
    name: str,
    body: Iterable[str],
    figures: Mapping[str, go.Figure] | None = None,
    timeline: Mapping[str, Any] | None = None,
) -> str:
    """A whole page of HTML parts.

    `figures` are drawn by Plotly into the elements of their names, `timeline` (see `report.timeline`) by our own
    script into the element ``timeline``.
    """
    css, script, drawing = (_file(file) for file in ("page.css", "page.js", "timeline.js"))
    scripts = []
    if figures is not None:
        content = "{" + ",".join(f"{json.dumps(name)}:{figure.to_json()}" for name, figure in figures.items()) + "}"
        scripts += [_data("figures", content), _script(get_plotlyjs()), _script(script)]
    if timeline is not None:
        content = json.dumps(timeline, separators=(",", ":"), allow_nan=False)
        scripts += [_data("timeline-data", content), _script(drawing)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)} · rpucluster</title>\n<style>\n{css}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(body)}\n</main>\n{''.join(scripts)}</body>\n</html>\n"
    )


def timeline_place() -> str:
    """Where the timeline of a page is drawn."""
    return '<div id="timeline"><noscript>The timeline needs JavaScript.</noscript></div>'


def header(heading: str, lead: str) -> str:
    """The top of a page, of plain text."""
    return f'<header><h1>{escape(heading)}</h1><p class="setting">{escape(lead)}</p></header>'


def cards(entries: Iterable[tuple[str, str, str]]) -> str:
    """Headline figures as (name, value, remark), of plain text."""
    inner = "".join(
        f'<div class="card"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(remark)}</small></div>'
        for name, value, remark in entries
    )
    return f'<div class="cards">{inner}</div>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], last_is_number: bool = False) -> str:
    """A table of HTML cells; a leading ``>`` in a head sets its column flush right."""
    right = {i for i, head in enumerate(heads) if head.startswith(">")}

    def cells(tag: str, values: Sequence[str]) -> str:
        flush = right | ({len(values) - 1} if last_is_number else set())
        return "".join(
            f'<{tag} class="number">{value}</{tag}>' if i in flush else f"<{tag}>{value}</{tag}>"
            for i, value in enumerate(values)
        )

    head = f"<thead><tr>{cells('th', [escape(h.removeprefix('>')) for h in heads])}</tr></thead>" if heads else ""
    lines = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table>{head}<tbody>{lines}</tbody></table>"


def section(heading: str, lead: str, content: str) -> str:
    """A section with plain heading and lead around HTML."""
    lead = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(heading)}</h2>{lead}{content}</section>"


def note(sentence: str) -> str:
    """A remark of plain text below something; nothing for an empty one."""
    return f'<p class="note">{escape(sentence[:1].upper() + sentence[1:])}.</p>' if sentence else ""


def _file(name: str) -> str:
    return (resources.files("rpucluster.report") / name).read_text(encoding="utf-8")


def _script(code: str) -> str:
    return f"<script>\n{code}\n</script>\n"


def _data(name: str, content: str) -> str:
    """JSON for a script to read; a script element ends at the first closing tag, whatever string it stands in."""
    safe = content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{name}">{safe}</script>\n'
