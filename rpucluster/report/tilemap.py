"""The tile map: every layer's grid of tiles, coloured by the accelerator that holds them, as inline SVG.

A shard is a rectangle of whole tiles, so a layer of thousands of tiles is still a handful of rectangles.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rpucluster.report.colours import accelerator_colour, ink_on
from rpucluster.report.facts import count, percent

MOST_LAYERS = 40
MOST_REPLICAS = 4
MOST_ACCELERATORS = 64
"""What is drawn at most; the page says when there is more."""

_WIDTH, _HEIGHT, _TILE, _LEAST = 330.0, 220.0, 30.0, 14.0  # pixels: the map, its tiles at most, a side at least
_GRID_FROM = 5.0  # pixels a tile needs before lines between tiles help


def tile_map(plan: Mapping[str, Any]) -> str:
    """The section's HTML: a legend of accelerators with how full they are, then one map per layer and replica."""
    accelerators = [row["accelerator"] for row in plan["by_accelerator"]]
    colours = {a: accelerator_colour(i) for i, a in enumerate(accelerators)}
    shards: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for shard in plan["shards"]:
        shards.setdefault((shard["layer"], shard["replica"]), []).append(shard)
    maps = [
        _layer(layer, [shards.get((layer["layer"], r), []) for r in range(min(plan["data"], MOST_REPLICAS))], colours)
        for layer in plan["layers"][:MOST_LAYERS]
    ]
    left_out = [
        text
        for text in (
            _more(len(accelerators), MOST_ACCELERATORS, "accelerators in the legend"),
            _more(len(plan["layers"]), MOST_LAYERS, "layers"),
            _more(plan["data"], MOST_REPLICAS, "replicas, which are cut in the same way"),
        )
        if text
    ]
    note = f'<p class="note">{escape("; ".join(left_out))}.</p>' if left_out else ""
    return f'{_legend(plan, colours)}<div class="maps">{"".join(maps)}</div>{note}'


def _legend(plan: Mapping[str, Any], colours: Mapping[int, str]) -> str:
    chips = []
    for row in plan["by_accelerator"][:MOST_ACCELERATORS]:
        used = row["tiles"] / row["tiles_available"]
        chips.append(
            f'<li><i style="background:{colours[row["accelerator"]]}"></i><b>accelerator {row["accelerator"]}</b> '
            f'<span class="bar"><span style="width:{100 * used:.1f}%"></span></span> '
            f"{count(row['tiles'])} of {count(row['tiles_available'])} tiles, {percent(row['fill'], 0)} full</li>"
        )
    return f'<ul class="chips">{"".join(chips)}</ul>'


def _layer(
    layer: Mapping[str, Any], replicas: Sequence[Sequence[Mapping[str, Any]]], colours: Mapping[int, str]
) -> str:
    rows, cols = layer["tile_grid"]
    drawings = []
    for replica, blocks in enumerate(replicas):
        caption = f'<figcaption class="replica">replica {replica}</figcaption>' if len(replicas) > 1 else ""
        drawings.append(f"{_svg(rows, cols, blocks, colours)}{caption}")
    facts = (
        f"{layer['rows']:,} × {layer['cols']:,} array, {rows:,} × {cols:,} tiles, "
        f"{layer['split']} split, stage {layer['stage']}"
    )
    return (
        f"<figure><figcaption><b>{escape(layer['name'])}</b><br>{escape(facts)}</figcaption>"
        f"{''.join(drawings)}</figure>"
    )


def _svg(rows: int, cols: int, blocks: Sequence[Mapping[str, Any]], colours: Mapping[int, str]) -> str:
    # tiles are square unless that would make the map a hair's breadth
    side = min(_WIDTH / cols, _HEIGHT / rows, _TILE)
    wide, high = max(side, _LEAST / cols), max(side, _LEAST / rows)
    parts = [_block(block, wide, high, colours) for block in blocks]
    if side >= _GRID_FROM:
        lines = [f"M{c * wide:.2f} 0V{rows * high:.2f}" for c in range(1, cols)]
        lines += [f"M0 {r * high:.2f}H{cols * wide:.2f}" for r in range(1, rows)]
        parts.append(f'<path class="grid" d="{"".join(lines)}"/>')
    # block edges lie above the grid, labels above all
    parts += [_edge(block, wide, high) for block in blocks] + [_label(block, wide, high, colours) for block in blocks]
    width, height = cols * wide, rows * high
    return (
        f'<svg role="img" viewBox="-1 -1 {width + 2:.2f} {height + 2:.2f}" '
        f'width="{width + 2:.0f}" height="{height + 2:.0f}">{"".join(parts)}</svg>'
    )


def _box(block: Mapping[str, Any], wide: float, high: float) -> tuple[float, float, float, float]:
    (top, bottom), (left, right) = block["tile_rows"], block["tile_cols"]
    return left * wide, top * high, (right - left) * wide, (bottom - top) * high


def _block(block: Mapping[str, Any], wide: float, high: float, colours: Mapping[int, str]) -> str:
    x, y, width, height = _box(block, wide, high)
    (top, bottom), (left, right) = block["rows"], block["cols"]
    text = (
        f"{block['name']} on accelerator {block['accelerator']}: {count(block['tiles'])} tiles, "
        f"rows {top} to {bottom - 1}, columns {left} to {right - 1}, {count(block['weights'])} weights"
    )
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" '
        f'fill="{colours[block["accelerator"]]}"><title>{escape(text)}</title></rect>'
    )


def _edge(block: Mapping[str, Any], wide: float, high: float) -> str:
    x, y, width, height = _box(block, wide, high)
    return f'<rect class="edge" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"/>'


def _label(block: Mapping[str, Any], wide: float, high: float, colours: Mapping[int, str]) -> str:
    x, y, width, height = _box(block, wide, high)
    text = str(block["accelerator"])
    across, along = 12.0, 7.0 * len(text) + 4  # pixels the number takes
    if width >= along and height >= across:
        turn = ""
    elif width >= across and height >= along:
        turn = f' transform="rotate(-90 {x + width / 2:.2f} {y + height / 2:.2f})"'
    else:
        return ""
    return (
        f'<text x="{x + width / 2:.2f}" y="{y + height / 2:.2f}"{turn} '
        f'fill="{ink_on(colours[block["accelerator"]])}">{text}</text>'
    )


def _more(there: int, drawn: int, what: str) -> str:
    return f"showing the first {drawn} of {there:,} {what}" if there > drawn else ""
