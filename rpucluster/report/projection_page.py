"""What `project --out` leaves: the rows as Parquet, drawings, and one self-contained page."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from rpucluster.errors import RunError
from rpucluster.files import write_atomically, write_table
from rpucluster.report.page import header, note, page, section, table
from rpucluster.report.projection_plots import MOST_BARS, MOST_CURVES, PARTS, draw
from rpucluster.report.swept import NOT_ENOUGH, enough, label_of
from rpucluster.units import format_count, format_quantity

_UNITS: Final = (("_B_per_s", "B/s"), ("_per_s", "1/s"), ("_s", "s"), ("_J", "J"), ("_bytes", "B"))
_WORDS: Final = ("why_not_exact", "error")
_LEADS: Final = {
    "scaling": "Both axes logarithmic; dots are the points of the sweep.",
    "breakdown": "The mean over the accelerators: what each does at every moment, or the first of these where several.",
    "threshold": "The bandwidth, all else equal, with which an accelerator waits for transfers a tenth of the step.",
}

Row = Mapping[str, Any]


def write_projection(
    folder: Path, heading: str, rows: Sequence[Row], units: Mapping[str, str | None], notes: Sequence[str] = ()
) -> None:
    """Write ``projection.parquet``, the drawings as PNG and SVG, and ``report.html`` into a folder, made if need be.

    `units` are those of the swept keys, None for plain numbers and words.  Raises `RunError` where that is refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror or error}") from None
    write_table(folder / "projection.parquet", as_table(rows, units))
    fitting = [row for row in rows if "error" not in row]
    drawings = [path for path in draw(folder, fitting, units) if path.suffix == ".svg"]
    write_atomically(folder / "report.html", _page(heading, rows, units, drawings, notes).encode())


def as_table(rows: Sequence[Row], units: Mapping[str, str | None]) -> pa.Table:
    """All rows with all their columns, None where a row has no such, and units in the metadata of the fields."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    # a column of words in which nothing is said has the type of words all the same
    kinds = [field.with_type(pa.string()) if field.name in _WORDS else field for field in found.schema]
    fields = [field.with_metadata({"unit": units.get(field.name) or _unit(field)}) for field in kinds]
    return found.cast(pa.schema(fields))


def _unit(field: pa.Field) -> str:
    if pa.types.is_string(field.type) or pa.types.is_boolean(field.type):
        return ""
    return next((unit for ending, unit in _UNITS if field.name.endswith(ending)), "1")


def _page(
    heading: str,
    rows: Sequence[Row],
    units: Mapping[str, str | None],
    drawings: Sequence[Path],
    notes: Sequence[str],
) -> str:
    fitting = [row for row in rows if "error" not in row]
    remarks = [*notes]
    remarks += [f"~: {why}" for why in dict.fromkeys(row["why_not_exact"] for row in fitting if not row["exact"])]
    remarks += [f"{label_of(row, units)}: {row['error']}" for row in rows if "error" in row]
    if len(fitting) > MOST_BARS:
        remarks.append(f"drawings show the first {MOST_BARS} rows as bars, and {MOST_CURVES} curves at most")
    body = [header(heading, f"{len(fitting):,} rows; projection.parquet has them with all columns and units")]
    if any(row.get("threshold") and row["threshold_B_per_s"] is None for row in fitting):
        remarks.append(NOT_ENOUGH)
    if remarks:
        items = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
        body.append(f'<section class="warnings"><h2>Worth knowing</h2><ul>{items}</ul></section>')
    for drawing in drawings:
        # as an image, so that the names inside one drawing do not meet those of another
        data = base64.b64encode(drawing.read_bytes()).decode()
        image = f'<img alt="{escape(drawing.stem)}" style="max-width:100%" src="data:image/svg+xml;base64,{data}">'
        body.append(section(drawing.stem.capitalize(), _LEADS[drawing.stem], image))
    body.append(section("Rows", "", f'<div class="scroll">{_rows(fitting, units)}</div>' + note(_meaning())))
    return page(heading, body)


def _rows(rows: Sequence[Row], units: Mapping[str, str | None]) -> str:
    parts = [column for column in PARTS if any(column in row for row in rows)]
    thresholds = any("threshold" in row for row in rows)
    heads = (
        "point", ">weights", ">accelerators", ">T x P x D", ">modelled step", ">samples/s", ">energy/step", ">training",
        *((">enough bandwidth",) if thresholds else ()), *(f">{PARTS[column][0]}" for column in parts),
    )  # fmt: skip
    return table(heads, [tuple(map(escape, (*_cells(row, units), *_shares(row, parts)))) for row in rows])


def _cells(row: Row, units: Mapping[str, str | None]) -> tuple[str, ...]:
    return (
        label_of(row, units),
        format_count(row["weights"]),
        f"{row['accelerators']:,}",
        f"{row['tensor']} x {row['pipeline']} x {row['data']}",
        format_quantity(row["modelled_step_s"], "time") + ("" if row["exact"] else " ~"),
        "-" if row["samples_per_s"] is None else format_count(row["samples_per_s"]),
        format_quantity(row["modelled_energy_J"], "energy"),
        "-" if row["modelled_train_s"] is None else format_quantity(row["modelled_train_s"], "time"),
        *((enough(row["threshold_B_per_s"]),) if "threshold" in row else ()),
    )


def _shares(row: Row, parts: Sequence[str]) -> list[str]:
    step = row["modelled_step_s"] or 1.0
    return [f"{100 * (row.get(column) or 0.0) / step:.1f} %" for column in parts]


def _meaning() -> str:
    return "T x P x D: tensor, pipeline and data parallelism; energy is that of all accelerators in one step"
