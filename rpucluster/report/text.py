"""Tables for the terminal: the summary of a run, and a plan."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rpucluster.report.facts import count, groups, percent, quantity, setting, title

MOST_ROWS = 64
"""Rows of a table that are printed; the files have all of them."""


def print_summary(summary: Mapping[str, Any], step: Mapping[str, Any], console: Console) -> None:
    """Print a run's figures from summary.json, and from step.json where each accelerator's step goes."""
    console.print(Text(title(summary), style="bold"))
    console.print(Text(setting(summary), style="dim"))
    # two groups side by side fit 80 columns
    four = groups(summary)
    table = new_table(four[0].title, ">", four[1].title, ">")
    _fill(table, four[0].rows, four[1].rows)
    console.print(table)
    table = new_table(four[2].title, ">", four[3].title, ">")
    _fill(table, four[2].rows, four[3].rows)
    console.print(table)
    table = new_table(">accelerator", ">compute", ">exposed communication", ">idle", heading="Where the step goes")
    add_rows(
        table,
        (
            (
                str(row["accelerator"]),
                _share(row["compute_s"], step),
                _share(row["exposed_communication_s"], step),
                _share(row["idle_s"], step),
            )
            for row in step["accelerators"]
        ),
    )
    console.print(table)


def print_plan(plan: Mapping[str, Any], console: Console) -> None:
    """Print plan.json: the cut of every layer, what each accelerator holds in tiles and in buffers, and what each axis
    and link carries."""
    console.print(Text(title(plan), style="bold"))
    console.print(
        Text(
            f"tensor {plan['tensor']} x pipeline {plan['pipeline']} x data {plan['data']}, {plan['schedule']}; "
            f"{count(plan['accelerators'])} of {count(plan['accelerators_available'])} accelerators, "
            f"{count(plan['tiles'])} of {count(plan['tiles_available'])} tiles of "
            f"{plan['tile_rows']} x {plan['tile_cols']}, {percent(plan['fill'])} full; "
            f"{count(plan['weights'])} weights"
        )
    )
    console.print(
        Text(
            f"modelled step {quantity(plan['modelled_step_s'], 'time')}, "
            f"{quantity(plan['modelled_energy_per_step_J'], 'energy')}"
            f"{' ~' if plan['why_not_exact'] else ''}"
        )
    )
    console.print(_layers(plan))
    console.print(_accelerators(plan))
    console.print(_buffers(plan))
    if any(axis["bytes_per_step"] for axis in plan["axes"]):
        console.print(_axes(plan))
    if plan["links"]:
        console.print(_links(plan))
    if plan["why_not_exact"]:
        console.print(Text(f"~ not known to be exact: {plan['why_not_exact']}"))
    for warning in plan["warnings"]:
        console.print(Text(f"note: {warning}", style="yellow"))


def print_examination(found: Mapping[str, Any], console: Console) -> None:
    """Print what `doctor.examine` found, and for each missing package how to get it."""
    table = new_table("", "")
    table.show_header = False
    available = found["memory_available_B"]
    memory = quantity(found["memory_B"], "size")
    rows = [
        ("rpucluster", found["rpucluster"]),
        ("Python", found["python"]),
        ("system", found["system"]),
        *((name, version or "missing") for name, version in found["packages"].items()),
        ("CPU cores", str(found["cpu_cores"])),
        ("memory", memory if available is None else f"{memory}, {quantity(available, 'size')} available"),
        ("GPUs", ", ".join(f"{g['name']} ({quantity(g['memory_bytes'], 'size')})" for g in found["gpus"]) or "none"),
        ("kernel cache", found["kernel_cache"] + ("" if found["kernel_cache_writable"] else " (not writable)")),
        *((f"will use, {what}", name) for what, name in found["uses"].items()),
    ]
    add_rows(table, rows)
    console.print(table)
    for package in found["missing"]:
        need = "required for" if package["required"] else "optional, for"
        console.print(Text(f"{package['package']} is missing ({need} {package['for']}): {package['get']}"))
    console.print(Text("ready" if found["ok"] else "not ready: install what is required"))


def _layers(plan: Mapping[str, Any]) -> Table:
    table = new_table("layer", ">array", ">weights", "split", ">stage", ">tile grid", ">tiles", ">ranks")
    add_rows(
        table,
        (
            (
                la["name"],
                f"{_several(la)}{la['rows']} x {la['cols']}",
                count(la["weights"]),
                la["split"],
                str(la["stage"]),
                f"{la['tile_grid'][0]} x {la['tile_grid'][1]}",
                count(la["tiles"]),
                str(la["ranks"]),
            )
            for la in plan["layers"]
        ),
    )
    return table


def _several(of: Mapping[str, Any]) -> str:
    """How many arrays of a shape there are, where a layer has more than one: experts, groups of a convolution."""
    return f"{of['arrays']} of " if of["arrays"] > 1 else ""


def _accelerators(plan: Mapping[str, Any]) -> Table:
    holds: dict[int, list[str]] = {}
    for shard in plan["shards"]:
        (top, bottom), (left, right) = shard["rows"], shard["cols"]
        held = f"{_several(shard)}{shard['name']}[{top}:{bottom},{left}:{right}]"
        holds.setdefault(shard["accelerator"], []).append(held)
    table = new_table(">accelerator", "rep./stage/rank", "holds [rows, columns]", ">tiles", ">full", ">weights")
    add_rows(
        table,
        (
            (
                str(row["accelerator"]),
                f"{row['replica']}/{row['stage']}/{row['tensor_rank']}",
                "\n".join(holds.get(row["accelerator"], ())),
                f"{count(row['tiles'])} of {count(row['tiles_available'])}",
                percent(row["fill"], 0),
                count(row["weights"]),
            )
            for row in plan["by_accelerator"]
        ),
    )
    return table


def _buffers(plan: Mapping[str, Any]) -> Table:
    kinds = ("activations", "errors", "factors", "sums", "gradients")
    shown = [kind for kind in kinds if any(row[f"{kind}_elements"] for row in plan["buffers"])]
    table = new_table(">accelerator", ">in flight", *(f">{kind}" for kind in shown), ">at most", ">buffer")
    add_rows(
        table,
        (
            (
                str(row["accelerator"]),
                count(row["in_flight_microbatches"]),
                *(count(row[f"{kind}_elements"]) for kind in shown),
                quantity(row["peak_bytes"], "size"),
                quantity(row["buffer_bytes"], "size"),
            )
            for row in plan["buffers"]
        ),
    )
    return table


def _axes(plan: Mapping[str, Any]) -> Table:
    table = new_table("axis", ">size", "carries", ">bytes per step", ">busiest link", ">in use")
    rows: list[tuple[str, ...]] = []
    for axis in plan["axes"]:
        carried = axis["bytes_per_step"] or {"nothing": 0.0}
        for i, (parallelism, nbytes) in enumerate(carried.items()):
            name = ("", "") if i else (axis["axis"], count(axis["size"]))
            busiest = ("", "")
            if not i:
                busiest = quantity(axis["busiest_link_bytes"], "size"), percent(axis["busiest_link_utilisation"])
            rows.append((*name, parallelism, quantity(nbytes, "size"), *busiest))
    add_rows(table, rows)
    return table


def _links(plan: Mapping[str, Any]) -> Table:
    table = new_table("link", "axis", ">bytes per step", ">in use")
    add_rows(
        table,
        (
            (link["link"], link["axis"], quantity(link["bytes_per_step"], "size"), percent(link["utilisation"]))
            for link in plan["links"]
        ),
    )
    return table


def new_table(*columns: str, heading: str | None = None) -> Table:
    """A table whose columns are named; a leading ``>`` sets a column flush right."""
    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", title_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return table


def add_rows(table: Table, rows: Iterable[Sequence[str]]) -> None:
    """Fill a table with plain text, up to `MOST_ROWS` rows; the caption says how many more there are."""
    left_out = 0
    for i, row in enumerate(rows):
        if i < MOST_ROWS:
            # Text, since a name may hold what would be markup in a string
            table.add_row(*(Text(cell) for cell in row))
        else:
            left_out += 1
    if left_out:
        table.caption = f"and {left_out:,} more, in the files and with --json"
        table.caption_justify = "left"


def _fill(table: Table, left: Sequence[tuple[str, str]], right: Sequence[tuple[str, str]]) -> None:
    for a, b in zip_longest(left, right, fillvalue=("", "")):
        table.add_row(*(Text(cell) for cell in (*a, *b)))


def _share(seconds: float, step: Mapping[str, Any]) -> str:
    whole = step["modelled_step_s"]
    return percent(seconds / whole if whole else 0.0)
