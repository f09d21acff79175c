"""`report.html` of a reproduced figure: tables and drawings on one self-contained page."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from rpucluster.experiments.cells import HEADS, SYSTEM_HEADS, cells, remarks, system_cells
from rpucluster.experiments.confidence import Confidence
from rpucluster.experiments.tables import Row
from rpucluster.report.page import header, note, page, section, table

_TITLES = {
    "fig2": "Stochastic update: pulse length and nonlinearity (Fig 2)",
    "fig3": "Nine stress tests (Fig 3)",
    "fig4": "Combined models (Fig 4)",
    "mnist": "MNIST: the criterion",
    "table2": "The system from the tile upward (Table 2)",
}


def render(
    figure: str, lead: str, rows: Mapping[str, Sequence[Row]], drawings: Sequence[Path], notes: Sequence[str]
) -> str:
    """The page as text: `rows` by the heading of their table, `drawings` as SVG files, remarks at the top."""
    body = [header(_TITLES[figure], lead)]
    if notes:
        items = "".join(f"<li>{escape(remark)}</li>" for remark in notes)
        body.append(f'<section class="warnings"><h2>Worth knowing</h2><ul>{items}</ul></section>')
    for drawing in drawings:
        # as an image, so that the names inside one drawing do not meet those of another
        data = base64.b64encode(drawing.read_bytes()).decode()
        image = f'<img alt="{escape(drawing.stem)}" style="max-width:100%" src="data:image/svg+xml;base64,{data}">'
        body.append(section(drawing.stem.replace("_", ", "), "", image))
    for heading, those in rows.items():
        if those:
            body.append(section(heading, "", _table(those)))
    marks = "".join(f"<li><b>{mark.value}</b> {escape(mark.meaning)}</li>" for mark in Confidence)
    body.append(section("How sure the references are", "", f'<ul class="chips">{marks}</ul>'))
    return page(_TITLES[figure], body)


def _table(rows: Sequence[Row]) -> str:
    system = rows[0].kind == "system"
    shown = (map(escape, (system_cells if system else cells)(row)) for row in rows)
    return (
        f'<div class="scroll">{table(SYSTEM_HEADS if system else HEADS, [tuple(line) for line in shown])}</div>'
        + "".join(map(note, remarks(rows)))
    )
