"""Rows of results as cells of text, which the terminal and the page both show."""

from collections.abc import Sequence

from rpucluster.experiments.points import PENALTY
from rpucluster.experiments.tables import FRACTION, Row
from rpucluster.report.facts import MISSING

HEADS = ("", ">ours", ">95 % interval", ">over control", ">reference", "sure")
OUTSIDE = "outside"
"""The end of an interval that lies beyond the swept values."""
SYSTEM_HEADS = ("", ">ours", "unit", ">reference", "sure")


def cells(row: Row) -> tuple[str, ...]:
    """A row under `HEADS`; with percent where the unit is a fraction."""
    name = f"{100 * PENALTY:g} % threshold" if row.kind == "threshold" else row.name
    ours = row.note if row.ours is None else number(row.ours, row.unit, row.kind)
    interval = penalty = MISSING
    if row.low is not None or row.high is not None:
        interval = " to ".join(OUTSIDE if end is None else _bare(end, row) for end in (row.low, row.high))
    if row.penalty is not None:
        penalty = f"{100 * row.penalty:+.2f} %"
        if row.penalty_low is not None and row.penalty_high is not None:
            penalty += f" ({100 * row.penalty_low:+.2f} to {100 * row.penalty_high:+.2f})"
    return name, ours, interval, penalty, row.reference, row.confidence


def system_cells(row: Row) -> tuple[str, ...]:
    """A row of the system table under `SYSTEM_HEADS`."""
    return row.name, number(row.ours or 0.0, "", "system"), row.unit, row.reference, row.confidence


def remarks(rows: Sequence[Row]) -> list[str]:
    """What the references of a table rest on, without repeats."""
    return list(dict.fromkeys(f"{row.name}: {row.reference_note}" for row in rows if row.reference_note))


def number(value: float, unit: str, kind: str) -> str:
    """A value as people read it: errors with two digits in percent, others with three significant ones."""
    if unit == FRACTION:
        return f"{100 * value:.2f} %" if kind == "error" else f"{100 * value:.3g} %"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _bare(value: float, row: Row) -> str:
    return number(value, row.unit, row.kind).removesuffix(" %")
