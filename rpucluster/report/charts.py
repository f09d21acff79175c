"""The page's charts as Plotly figures: learning curves, where the step and its energy go."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from rpucluster.report.colours import COMPUTE, EXPOSED, IDLE, TEST, TRAIN
from rpucluster.report.facts import percent, quantity
from rpucluster.runlog import EpochRow

MOST_BARS = 64
"""Accelerators that are drawn at most; the caption says when there are more."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def learning_curves(rows: Sequence[EpochRow]) -> tuple[go.Figure, go.Figure]:
    """Loss and accuracy by epoch, for training and test."""
    loss, accuracy = figure_of(320), figure_of(320)
    mode = "lines+markers" if len(rows) <= 60 else "lines"
    curves = (
        (loss, "train", TRAIN, "circle", [(r.epoch, r.train_loss) for r in rows]),
        (loss, "test", TEST, "square", [(r.epoch, r.test_loss) for r in rows]),
        (accuracy, "train", TRAIN, "circle", [(r.epoch, r.train_accuracy) for r in rows]),
        (accuracy, "test", TEST, "square", [(r.epoch, r.test_accuracy) for r in rows]),
    )
    for figure, name, colour, symbol, points in curves:
        known = [(x, y) for x, y in points if y is not None]
        digits = ".2%" if figure is accuracy else ".4f"
        figure.add_scatter(
            x=[x for x, _ in known],
            y=[y for _, y in known],
            name=name,
            mode=mode,
            line={"color": colour, "width": 2},
            marker={"symbol": symbol, "size": 6},
            hovertemplate=f"epoch %{{x}}: %{{y:{digits}}}<extra>{name}</extra>",
        )
    for figure in (loss, accuracy):
        figure.update_xaxes(title="epoch", tickformat="d", rangemode="nonnegative")
        if len(rows) <= 10:
            figure.update_xaxes(dtick=1)
    loss.update_yaxes(title="cross-entropy per sample (nats)", rangemode="tozero")
    accuracy.update_yaxes(title="accuracy", tickformat=".0%")
    return loss, accuracy


def step_shares(step: Mapping[str, Any]) -> tuple[go.Figure, str]:
    """Compute, exposed communication and idle of each accelerator in percent of the step, and what is left out."""
    every = step["accelerators"]
    rows, whole = every[:MOST_BARS], step["modelled_step_s"]
    figure = figure_of(110 + (26 if len(rows) <= 16 else 15) * len(rows))
    names = [f"accelerator {row['accelerator']}" for row in rows]
    for name, key, colour in (
        ("compute", "compute_s", COMPUTE),
        ("exposed communication", "exposed_communication_s", EXPOSED),
        ("idle", "idle_s", IDLE),
    ):
        shares = [row[key] / whole if whole else 0.0 for row in rows]
        figure.add_bar(
            orientation="h",
            name=name,
            y=names,
            x=shares,
            width=0.7,
            marker_color=colour,
            text=[percent(share, 0) if share >= 0.06 and len(rows) <= 16 else "" for share in shares],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            customdata=[quantity(row[key], "time") for row in rows],
            hovertemplate="%{y}: %{customdata}, %{x:.1%}<extra>" + name + "</extra>",
        )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="share of the modelled step", tickformat=".0%", range=[0, 1], dtick=0.25)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure, more(len(every), MOST_BARS, "accelerators")


def energy(parts: Mapping[str, float]) -> go.Figure:
    """Modelled energy of a step by component, the largest first."""
    rows = sorted(((name, joules) for name, joules in parts.items() if joules > 0), key=lambda row: -row[1])
    total = sum(joules for _, joules in rows)
    figure = figure_of(110 + 30 * max(len(rows), 2))
    figure.add_bar(
        orientation="h",
        y=[escape(name.replace("_", " ").replace("adc", "ADC")) for name, _ in rows],
        x=[joules / total for _, joules in rows],
        width=0.7,
        marker_color=COMPUTE,
        text=[f"{quantity(joules, 'energy')} · {percent(joules / total)}" for _, joules in rows],
        textposition="auto",
        cliponaxis=False,
        hovertemplate="%{y}: %{text}<extra></extra>",
        showlegend=False,
    )
    figure.update_layout(margin_t=10)
    figure.update_xaxes(title="share of the modelled energy of a step", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def figure_of(height: int) -> go.Figure:
    """An empty figure in the page's style, that many pixels high."""
    axis = {
        "gridcolor": "#e4e8ee",
        "zerolinecolor": "#c3cad4",
        "linecolor": "#c3cad4",
        "ticks": "outside",
        "tickcolor": "#c3cad4",
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 56, "r": 16, "t": 36, "b": 48},
            "font": {"family": _FONT, "size": 13, "color": "#2b3440"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "bottom",
                "traceorder": "normal",
            },
            "hoverlabel": {"align": "left", "font": {"family": _FONT, "size": 12}},
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def more(there: int, drawn: int, what: str) -> str:
    """What a caption says where less is drawn than there is, or nothing."""
    return f"showing the first {drawn:,} of {there:,} {what}" if there > drawn else ""
