"""Drawings of a projection as PNG and SVG: scaling, where the step goes, and the bandwidth that is enough."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rpucluster.report.drawing import CURVES, LOOK, write_drawing
from rpucluster.report.swept import label_of

MOST_CURVES, MOST_BARS, MOST_TICKS = 8, 40, 6
PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "forward_s": ("forward", "#0072b2"),
    "backward_s": ("backward", "#e69f00"),
    "recompute_s": ("recompute", "#b8a800"),
    "update_s": ("update", "#cc79a7"),
    "digital_s": ("digital", "#009e73"),
    "exposed_communication_s": ("exposed communication", "#d55e00"),
    "bubble_s": ("bubble", "#d9dde3"),
}
"""Columns of a step's parts, their names and colours."""
_SCALED: Final = {
    "modelled_step_s": "modelled step (s)",
    "samples_per_s": "samples per second",
    "modelled_energy_J": "energy of a step (J)",
}

Row = Mapping[str, Any]


def draw(folder: Path, rows: Sequence[Row], units: Mapping[str, str | None]) -> list[Path]:
    """Draw the rows that fit; `units` by swept key, None for plain numbers and words.

    Returns the files, .png and .svg of each: ``breakdown``, ``scaling`` where a number is swept, ``threshold`` where
    rows have one.  Raises `RunError` where they cannot be written.
    """
    numeric = [key for key in units if all(isinstance(row[key], int | float) for row in rows)]
    files: list[Path] = []
    with mpl.rc_context(LOOK):
        if numeric and len({row[numeric[0]] for row in rows}) > 1:
            files += write_drawing(folder / "scaling", _scaling(rows, numeric[0], units))
        files += write_drawing(folder / "breakdown", _breakdown(rows, units))
        if any(row.get("threshold_B_per_s") for row in rows):
            files += write_drawing(folder / "threshold", _threshold(rows, numeric, units))
    return files


def _scaling(rows: Sequence[Row], key: str, units: Mapping[str, str | None]) -> Figure:
    figure = Figure(figsize=(4.0 * len(_SCALED), 3.6), layout="constrained")
    others = {other: unit for other, unit in units.items() if other != key}
    for axis, (column, name) in zip(figure.subplots(1, len(_SCALED)), _SCALED.items(), strict=True):
        for colour, (label, those) in zip(CURVES, _grouped(rows, others).items(), strict=False):
            there = sorted((row[key], row[column]) for row in those if row[column])
            axis.plot(*zip(*there, strict=True), "o-", color=colour, markersize=4, label=label)
        first = min(rows, key=lambda row: row[key])
        if key == "accelerators" and column == "samples_per_s" and first[column] and not others:
            ends = [first[key], max(row[key] for row in rows)]
            axis.plot(ends, [first[column] * x / ends[0] for x in ends], ":", color="#2b3440", label="in proportion")
        _both_logarithmic(axis, key, units[key], rows)
        axis.set_ylabel(name)
    if others or key == "accelerators":
        _legend(figure)
    return figure


def _breakdown(rows: Sequence[Row], units: Mapping[str, str | None]) -> Figure:
    shown = rows[:MOST_BARS]
    figure = Figure(figsize=(8.0, 1.3 + 0.28 * len(shown)), layout="constrained")
    axis = figure.subplots()
    left = [0.0] * len(shown)
    for column, (name, colour) in PARTS.items():
        if not any(column in row for row in shown):
            continue
        widths = [100 * (row.get(column) or 0.0) / (row["modelled_step_s"] or 1.0) for row in shown]
        axis.barh(range(len(shown)), widths, left=left, color=colour, label=name)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.set_yticks(range(len(shown)), [label_of(row, units) for row in shown])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of the modelled step (%)")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure


def _threshold(rows: Sequence[Row], numeric: Sequence[str], units: Mapping[str, str | None]) -> Figure:
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axis = figure.subplots()
    there = [row for row in rows if row.get("threshold_B_per_s")]
    if numeric and len({row[numeric[0]] for row in there}) > 1:
        key = numeric[0]
        others = {other: unit for other, unit in units.items() if other != key}
        for colour, (label, those) in zip(CURVES, _grouped(there, others).items(), strict=False):
            points = sorted((row[key], row["threshold_B_per_s"]) for row in those)
            axis.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=label)
        _both_logarithmic(axis, key, units[key], there)
        if others:
            _legend(figure)
    else:
        axis.barh(range(len(there)), [row["threshold_B_per_s"] for row in there], color=CURVES[0])
        axis.set_yticks(range(len(there)), [label_of(row, units) for row in there])
        axis.set_xscale("log")
        axis.invert_yaxis()
    named = f"{there[0]['threshold']} that is enough (B/s)"
    (axis.set_ylabel if axis.get_yscale() == "log" else axis.set_xlabel)(named)
    return figure


def _legend(figure: Figure) -> None:
    """Names of curves beside the axes, which they would cover."""
    named = {
        label: line
        for axis in figure.axes
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }  # fmt: skip
    figure.legend(named.values(), named.keys(), loc="outside right upper")


def _grouped(rows: Iterable[Row], others: Mapping[str, str | None]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(label_of(row, others) if others else "modelled", []).append(row)
    return dict(list(groups.items())[:MOST_CURVES])


def _both_logarithmic(axis: Axes, key: str, unit: str | None, rows: Iterable[Row]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    values = sorted({row[key] for row in rows})
    if len(values) <= MOST_TICKS:
        axis.set_xticks(values, [f"{value:,}" if isinstance(value, int) else f"{value:.4g}" for value in values])
        axis.xaxis.minorticks_off()
    axis.set_xlabel(f"{key} ({unit})" if unit else key)
