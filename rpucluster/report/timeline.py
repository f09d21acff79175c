"""The data of the page's timeline: every operation on every accelerator and link, as columns of numbers.

`timeline.js` draws them.  Times are whole picoseconds.  A *mark* is one bar: an operation on a lane of an accelerator
or a link; marks are sorted by row and start, and those of a row do not overlap.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rpucluster.report.colours import KIND_GROUPS, ink_on
from rpucluster.trace import TRACKS, Track, lanes

Row = Mapping[str, Any]
_TRACK_ORDER: tuple[Track, ...] = ("arrays", "digital", "communication")
_Mark = tuple[int, int, int, int, float]  # row, start, length, op, bytes


def timeline(events: Sequence[Row], spans: Sequence[Row]) -> dict[str, Any]:
    """The timeline of the rows of events.parquet and link_spans.parquet, in any order, as plain JSON values."""
    ops = {event["op"]: event for event in events}
    place = {op: i for i, op in enumerate(sorted(ops))}
    rows: list[dict[str, Any]] = []
    marks: list[_Mark] = []
    for accelerator, tracks in _by_accelerator(events).items():
        group, band = f"accelerator {accelerator}", len({row["group"] for row in rows}) % 2 == 0
        for track in _TRACK_ORDER:
            _add_lanes(
                [(_span(event), place[event["op"]], event["bytes"]) for event in tracks.get(track, ())],
                {"group": group, "label": track, "band": band, "link": False},
                rows,
                marks,
            )
    by_link: dict[str, list[tuple[tuple[int, int], int, float]]] = {}
    for span in spans:
        by_link.setdefault(span["link"], []).append((_span(span), place[span["op"]], 0.0))
    for link, uses in by_link.items():
        _add_lanes(uses, {"group": "link", "label": link, "band": False, "link": True}, rows, marks)
    marks.sort(key=lambda mark: mark[:4])
    kinds = sorted({event["kind"] for event in ops.values()})
    names, reasons = _Index(), _Index()
    ordered = [ops[op] for op in sorted(ops)]
    colours = {kind: colour for colour, group in KIND_GROUPS.values() for kind in group}
    return {
        "end": max((_span(event)[1] for event in ordered), default=0),
        "rows": rows,
        "kinds": [
            {"name": kind.replace("_", "-"), "colour": colours[kind], "ink": ink_on(colours[kind])} for kind in kinds
        ],
        "legend": [[name, colour] for name, (colour, group) in KIND_GROUPS.items() if not set(kinds).isdisjoint(group)],
        "ops": {
            "id": [event["op"] for event in ordered],
            "name": [names[event["label"]] for event in ordered],
            "kind": [kinds.index(event["kind"]) for event in ordered],
            "start": [_span(event)[0] for event in ordered],
            "length": [_span(event)[1] - _span(event)[0] for event in ordered],
            "energy": [float(f"{event['energy_J']:.4g}") for event in ordered],
            "critical": [int(event["critical"]) for event in ordered],
            "reason": [reasons[event["waited_for"]] for event in ordered],
            "cause": [-1 if event["waited_for_op"] is None else event["waited_for_op"] for event in ordered],
            "waited": [_picoseconds(event["waited_modelled_s"]) for event in ordered],
        },
        "names": list(names),
        "reasons": list(reasons),
        "marks": {
            name: [mark[column] for mark in marks] for column, name in enumerate(("row", "start", "length", "op"))
        }
        | {"bytes": [_short(mark[4]) for mark in marks]},
        "path": _path(ordered, marks, rows),
    }


class _Index(dict[str, int]):
    """Numbers words in the order in which they are first asked for."""

    def __missing__(self, word: str) -> int:
        self[word] = len(self)
        return self[word]


def _by_accelerator(events: Sequence[Row]) -> dict[int, dict[Track, list[Row]]]:
    found: dict[int, dict[Track, list[Row]]] = {}
    for event in events:
        found.setdefault(event["accelerator"], {}).setdefault(TRACKS[event["kind"]], []).append(event)
    return dict(sorted(found.items()))


def _add_lanes(
    uses: Sequence[tuple[tuple[int, int], int, float]],
    row: Mapping[str, Any],
    rows: list[dict[str, Any]],
    marks: list[_Mark],
) -> None:
    """Put (start and finish, operation, bytes) into as few rows as keep them from overlapping."""
    ordered = sorted(uses)
    top = len(rows)
    chosen = lanes(span for span, _, _ in ordered)
    for ((start, finish), op, nbytes), lane in zip(ordered, chosen, strict=True):
        marks.append((top + lane, start, finish - start, op, nbytes))
    rows.extend(dict(row) for _ in range(max(chosen, default=-1) + 1))


def _path(ordered: Sequence[Row], marks: Sequence[_Mark], rows: Sequence[Row]) -> list[int]:
    """The marks of the critical path in its order, each on the accelerator that the path comes from, if its operation
    takes part there.

    The path is followed back from its last operation by what each one waited for.
    """
    critical = {
        event["op"]: (place, event["waited_for_op"]) for place, event in enumerate(ordered) if event["critical"]
    }
    if not critical:
        return []
    # the last is the one that no other on the path waited for
    waited_for = {cause for _, cause in critical.values()}
    op: int | None = next(op for op in critical if op not in waited_for)
    path = []
    while op is not None:
        place, op = critical[op]
        path.append(place)
    path.reverse()
    wanted = set(path)
    by_place: dict[int, list[int]] = {}
    for mark, (_, _, _, place, _) in enumerate(marks):
        if place in wanted:
            by_place.setdefault(place, []).append(mark)
    chosen: list[int] = []
    group = ""
    for place in path:
        # an operation's marks come by row, accelerators before links
        mine = by_place[place]
        chosen.append(next((mark for mark in mine if rows[marks[mark][0]]["group"] == group), mine[0]))
        group = rows[marks[chosen[-1]][0]]["group"]
    return chosen


def _span(row: Row) -> tuple[int, int]:
    return _picoseconds(row["start_modelled_s"]), _picoseconds(row["end_modelled_s"])


def _picoseconds(seconds: float) -> int:
    return round(seconds * 1e12)


def _short(number: float) -> float | int:
    return int(number) if number == int(number) else number
