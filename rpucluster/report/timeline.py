"""The timeline of the modelled step: every operation of every accelerator, and the critical path through them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from rpucluster.report.charts import figure_of, more
from rpucluster.report.colours import KIND_GROUPS
from rpucluster.report.facts import quantity
from rpucluster.trace import TRACKS, lanes

MOST_EVENTS = 6000
MOST_ACCELERATORS = 32
"""What is drawn at most; the caption says when there is more."""

Event = Mapping[str, Any]
"""One row of events.parquet."""

_Line = tuple[list[float | None], list[float | None]]
_LANE, _GAP = 1.0, 0.55  # heights of a lane and of the gap between accelerators, on the timeline's y axis
_ROOMY = 8  # accelerators up to which every lane has its name and some height
_SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def timeline(events: Sequence[Event]) -> tuple[go.Figure, str]:
    """The modelled step by accelerator, and what of it is left out, if anything (a sentence or nothing).

    Each accelerator has lanes for its arrays, its digital units and its communication; a black line follows
    the critical path.
    """
    shown, left_out = _shown(events)
    end = max((e["end_modelled_s"] for e in shown), default=0.0)
    scale, unit = next(((s, u) for s, u in _SCALES if end >= s), _SCALES[-1])
    place, ticks, bands, depth = _rows(shown)
    crowded = len({e["accelerator"] for e in shown}) > _ROOMY
    figure = figure_of(round(100 + (11 if crowded else 21) * depth))
    for name, (colour, kinds) in KIND_GROUPS.items():
        chosen = [i for i, e in enumerate(shown) if e["kind"] in kinds]
        if chosen:
            figure.add_bar(
                orientation="h",
                name=name,
                base=[shown[i]["start_modelled_s"] / scale for i in chosen],
                x=[_length(shown[i]) / scale for i in chosen],
                y=[place[i] for i in chosen],
                width=0.86 * _LANE,
                marker={
                    "color": colour,
                    # a white edge parts neighbours, but would swallow a bar of hardly a pixel
                    "line": {
                        "width": 0.6,
                        "color": ["#ffffff" if _length(shown[i]) > 0.004 * end else colour for i in chosen],
                    },
                },
                customdata=[_hover(shown[i]) for i in chosen],
                hovertemplate="%{customdata}<extra></extra>",
            )
    for (xs, ys), legend, width in zip(_critical_path(shown, place, scale), (True, False), (2.5, 0.7), strict=True):
        if xs:
            figure.add_scatter(
                x=xs,
                y=ys,
                name="critical path",
                legendgroup="critical path",
                showlegend=legend,
                mode="lines",
                line={"color": "#10151c", "width": width},
                hoverinfo="skip",
            )
    for top, bottom in bands:
        figure.add_hrect(y0=top, y1=bottom, fillcolor="#f3f5f8", line_width=0, layer="below")
    figure.update_layout(barmode="overlay", bargap=0, hovermode="closest")
    figure.update_xaxes(title=f"modelled time since the step began ({unit})", rangemode="tozero")
    figure.update_yaxes(
        range=[depth, -_GAP / 2],
        tickmode="array",
        tickvals=[y for y, _ in ticks],
        ticktext=[text for _, text in ticks],
        showgrid=False,
        zeroline=False,
        fixedrange=True,
    )
    return figure, left_out


def _shown(events: Sequence[Event]) -> tuple[list[Event], str]:
    """What the timeline draws, by start, and a sentence about the rest."""
    accelerators = sorted({e["accelerator"] for e in events})
    first = set(accelerators[:MOST_ACCELERATORS])
    mine = sorted(
        (e for e in events if e["accelerator"] in first),
        key=lambda e: (e["start_modelled_s"], e["end_modelled_s"], e["op"], e["accelerator"]),
    )
    notes = [
        note
        for note in (
            more(len(accelerators), MOST_ACCELERATORS, "accelerators"),
            more(len(mine), MOST_EVENTS, "operations of these, in the order of their start"),
        )
        if note
    ]
    return mine[:MOST_EVENTS], "; ".join(notes)


def _rows(
    events: Sequence[Event],
) -> tuple[list[float], list[tuple[float, str]], list[tuple[float, float]], float]:
    """Where each event is drawn, the axis labels, the bands behind every other accelerator, and the depth."""
    groups: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, event in enumerate(events):
        groups[event["accelerator"]][TRACKS[event["kind"]]].append(i)
    place, depth = [0.0] * len(events), 0.0
    ticks: list[tuple[float, str]] = []
    bands: list[tuple[float, float]] = []
    for number, accelerator in enumerate(sorted(groups)):
        top = depth
        tracks = groups[accelerator]
        for track in (track for track in ("arrays", "digital", "communication") if track in tracks):
            chosen = lanes((events[i]["start_modelled_s"], events[i]["end_modelled_s"]) for i in tracks[track])
            for i, lane in zip(tracks[track], chosen, strict=True):
                place[i] = depth + (lane + 0.5) * _LANE
            used = (max(chosen) + 1) * _LANE
            if len(groups) <= _ROOMY:
                head = f"<b>accelerator {accelerator}</b>  " if depth == top else ""
                ticks.append((depth + used / 2, f"{head}{track}"))
            depth += used
        if len(groups) > _ROOMY:
            ticks.append(((top + depth) / 2, f"accelerator {accelerator}"))
        if number % 2 == 0:
            bands.append((top - _GAP / 2, depth + _GAP / 2))
        depth += _GAP
    return place, ticks, bands, depth - _GAP / 2


def _critical_path(events: Sequence[Event], place: Sequence[float], scale: float) -> tuple[_Line, _Line]:
    """Lines along the critical operations, and those that lead from each to the next.

    An operation of several accelerators is drawn where the path comes from, if that accelerator takes part.
    """
    by_op: dict[int, dict[int, int]] = defaultdict(dict)
    for i, event in enumerate(events):
        if event["critical"]:
            by_op[event["op"]][event["accelerator"]] = i
    along: _Line = ([], [])
    between: _Line = ([], [])
    here: int | None = None
    for rows in by_op.values():
        here = here if here in rows else min(rows)
        event, y = events[rows[here]], place[rows[here]] + 0.43 * _LANE
        span = [event["start_modelled_s"] / scale, event["end_modelled_s"] / scale]
        if along[0]:
            between[0].extend((along[0][-2], span[0], None))
            between[1].extend((along[1][-2], y, None))
        along[0].extend((*span, None))  # None lifts the pen
        along[1].extend((y, y, None))
    return along, between


def _length(event: Event) -> float:
    return float(event["end_modelled_s"] - event["start_modelled_s"])


def _hover(event: Event) -> str:
    lines = [
        f"<b>{escape(event['label'])}</b>",
        f"accelerator {event['accelerator']}, {escape(event['kind'])}",
        f"starts at {quantity(event['start_modelled_s'], 'time')}, takes {quantity(_length(event), 'time')}",
        f"energy {quantity(event['energy_J'], 'energy')}",
    ]
    if event["bytes"]:
        lines.append(f"carries {quantity(event['bytes'], 'size')}")
    if event["critical"]:
        lines.append("on the critical path")
    return "<br>".join(lines)
