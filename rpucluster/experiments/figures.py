"""Figures as PNG and SVG: error by epoch, and error against a swept parameter, beside the reference and its mark."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rpucluster.experiments.confidence import Confidence, Reference
from rpucluster.experiments.points import PENALTY
from rpucluster.experiments.results import PanelResult, PointResult
from rpucluster.report.drawing import CURVES, LOOK, write_drawing

OURS, CONTROL, REFERENCE = "#0072b2", "#2b3440", "#d55e00"
_SHARED = ("ours, mean of the runs (dots)", "floating point", "0.3 % above it")


def draw(folder: Path, name: str, results: Sequence[PanelResult], note: str) -> list[Path]:
    """Draw the panels that have runs: ``NAME_curves`` by epoch, and ``NAME`` against the swept parameter.

    `note` stands under the figure.  Returns the files, .png and .svg of each; raises `RunError` where they cannot be
    written.
    """
    there = [result for result in results if any(point.records for point in result.points)]
    swept = [result for result in there if result.panel.swept]
    files = []
    with mpl.rc_context(LOOK | {"axes.titlelocation": "left"}):
        if swept:
            figure = _grid(swept, _sweep, note, columns=3, width=4.3)
            handles = {label: h for h, label in zip(*figure.axes[0].get_legend_handles_labels(), strict=True)}
            shared = [label for label in _SHARED if label in handles]
            figure.legend([handles[label] for label in shared], shared, loc="outside upper center", ncols=len(shared))
            files += write_drawing(folder / name, figure)
        if there:
            files += write_drawing(folder / f"{name}_curves", _grid(there, _by_epoch, note, columns=2, width=7.0))
    return files


def _grid(
    results: Sequence[PanelResult],
    draw_panel: Callable[[Axes, PanelResult], None],
    note: str,
    *,
    columns: int,
    width: float,
) -> Figure:
    columns = min(columns, len(results))
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(width * columns + 0.2, 3.3 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, result in zip(axes, results, strict=False):
        draw_panel(axis, result)
        axis.set_title(f"{result.panel.name}  {result.panel.title}")
    for axis in axes[len(results) :]:
        axis.set_visible(False)
    figure.supxlabel(textwrap.fill(note, int(17 * width * columns)), fontsize=7.5, color="#5b6775")
    return figure


def _sweep(axis: Axes, result: PanelResult) -> None:
    """Error of each point against the parameter, every run a dot."""
    panel = result.panel
    known = [point for point in result.points if point.records]
    factor, unit = (100, " %") if panel.percent else (1, "")
    for point in known:
        x = [factor * (point.point.value or 0.0)] * len(point.errors)
        axis.plot(x, [100 * e for e in point.errors], ".", color=OURS, alpha=0.45, markersize=4)
    axis.plot(
        [factor * (point.point.value or 0.0) for point in known],
        [100 * _mean(point) for point in known],
        "o-", color=OURS, markersize=4, linewidth=1.3, label=_SHARED[0],
    )  # fmt: skip
    _control_lines(axis, result)
    marks = []
    found = result.threshold
    if found is not None and found.value is not None:
        value = factor * found.value
        marks.append(axis.axvline(value, color=OURS, linestyle="--", linewidth=1, label=f"ours: {value:.3g}{unit}"))
        if found.mild is not None and found.severe is not None:
            axis.axvspan(factor * found.mild, factor * found.severe, color=OURS, alpha=0.12, linewidth=0)
    if panel.threshold is not None and panel.threshold.value is not None:
        at, told = factor * panel.threshold.value, _told(panel.threshold)
        marks.append(axis.axvline(at, color=REFERENCE, linestyle=":", linewidth=1.6, label=told))
    points = [point for point in (*known, result.control) if point.records]
    _error_axis(axis, points, [error for point in points for error in point.errors])
    if panel.scale == "log":
        axis.set_xscale("log")
        swept = [factor * (point.point.value or 0.0) for point in known]
        axis.set_xticks(swept, [f"{value:g}" for value in swept])
        axis.set_xticks([], minor=True)
    axis.set_xlabel(panel.parameter + (" (%)" if panel.percent else ""))
    axis.legend(handles=marks, loc="best", title="0.3 % threshold", alignment="left")


def _by_epoch(axis: Axes, result: PanelResult) -> None:
    """Mean test error after each epoch, a curve a point; a triangle marks a reference for the last epoch."""
    known = [point for point in result.points if point.records]
    if result.control.records:
        _curve(axis, result.control, CONTROL, 2.0)
    for i, point in enumerate(known):
        _curve(axis, point, CURVES[i % len(CURVES)], 1.2)
    _control_lines(axis, result, label=False)
    points = [point for point in (*known, result.control) if point.records]
    _error_axis(axis, points, [error for p in points for error in (*p.errors, *p.curve) if error is not None])
    axis.set_xlabel("epoch")
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))


def _curve(axis: Axes, point: PointResult, colour: str, width: float) -> None:
    tested = [(epoch, 100 * error) for epoch, error in enumerate(point.curve, start=1) if error is not None]
    reference = point.point.reference
    label = point.point.label
    if reference.code is not Confidence.UNKNOWN:
        label += f"\n  {_told(reference)}"
    axis.plot(*zip(*tested, strict=True), color=colour, linewidth=width, label=label)
    if reference.value is not None:
        axis.plot([len(point.curve)], [100 * reference.value], "<", color=colour, markersize=6, clip_on=False)


def _control_lines(axis: Axes, result: PanelResult, label: bool = True) -> None:
    if not result.control.records:
        return
    mean = _mean(result.control)
    for above, style, name in ((0.0, "-", _SHARED[1]), (PENALTY, "--", _SHARED[2])):
        axis.axhline(100 * (mean + above), color=CONTROL, linewidth=1, linestyle=style, label=name if label else None)


def _error_axis(axis: Axes, points: Sequence[PointResult], errors: Iterable[float]) -> None:
    """Logarithmic, since runs that fail stand beside differences of tenths of a percent; fits these errors."""
    references = [point.point.reference.value for point in points]
    shown = [100 * error for error in (*errors, *references) if error]
    low, high = min(shown, default=1.0), max(shown, default=100.0)
    axis.set_yscale("log")
    axis.set_ylim(0.85 * low, min(110.0, 1.15 * high))
    finer = (1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 3, 3.5, 4, 5, 6, 8) if high < 3 * low else (1, 1.5, 2, 3, 5)
    ticks = [t * 10.0**d for d in range(-2, 3) for t in finer if 0.85 * low <= t * 10.0**d <= 1.15 * high]
    thinned = ticks if len(ticks) <= 8 else ticks[:: math.ceil(len(ticks) / 8)]
    axis.set_yticks(thinned, [f"{tick:g}" for tick in thinned])
    axis.minorticks_off()
    axis.set_ylabel("test error (%)")


def _told(reference: Reference) -> str:
    return f"{reference.code.short}: {reference.text} [{reference.code.value}]"


def _mean(point: PointResult) -> float:
    return sum(point.errors) / len(point.errors)
