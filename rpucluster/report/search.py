"""What a search found, for the terminal and as Parquet."""

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from rpucluster.files import write_table
from rpucluster.report.text import add_rows, new_table
from rpucluster.search.found import Found, Search
from rpucluster.search.space import Candidate
from rpucluster.units import format_quantity

_WORDS: Final = {"schedule": "interleaved", "recompute": "recompute"}
"""The longest word below some headings."""


def print_search(found: Search, top: int, console: Console) -> None:
    """Print the best plans, one a row, and how sure it is that there is no better one."""
    conventional = found.found[0].candidate.recompute is not None
    table = new_table(
        ">TxPxD", ">accele-\nrators", ">micro-\nbatch", "schedule", "recompute" if conventional else "data\nsync",
        "axes", ">modelled\nstep", ">energy\nper step", ">exposed\ncomm.",
    )  # fmt: skip
    # so that it fits 80 characters, where words may go on a line of their own
    table.padding = (0, 0 if console.width < 100 else 1, 0, 0)
    for column in table.columns:
        column.no_wrap = column.justify == "right"
        if column.header in _WORDS:
            column.min_width = len(_WORDS[column.header])
    add_rows(table, (_cells(each) for each in found.found[:top]))
    console.print(table)
    shared = (
        "; +seq: tensor ranks share sequences" if any(_shares(each.candidate) for each in found.found[:top]) else ""
    )
    console.print(Text(f"T tensor, P pipeline, D data; axes from the innermost out{shared}"))
    counts = f"{found.plans:,} legal plans: {found.plans - found.fitting:,} do not fit, {found.bounded:,} ruled out by "
    counts += f"a bound, {found.timed:,} " + (
        "priced in full" if conventional else f"replayed, {found.refused:,} refused"
    )
    counts += f"; {found.wall_s:.1f} s"
    console.print(Text(counts))
    if found.unseen:
        console.print(
            Text(
                f"not proved: {found.unseen:,} plans were not looked at, since time ran out; raise --budget-s, "
                f"or hold what you know with --keep"
            )
        )
    else:
        console.print(Text(_proved(found)))
    for why in dict.fromkeys(each.why_not_exact for each in found.found[:top]):
        if why is not None:
            console.print(Text(f"~ not known to be exact: {why}"))


def _proved(found: Search) -> str:
    """How good the best one is known to be."""
    but = f"perhaps one of the {found.vague:,} that lie across the network's axes, of whose transfers no bound knows"
    if found.unsettled_s is None and found.unsettled_J is None:
        if found.vague:
            return f"not proved: no other plan is better, but {but}; raise --budget-s for more"
        return "proved: no other of these plans is better"
    least = (
        format_quantity(found.unsettled_s, "time")
        if found.unsettled_s is not None
        else format_quantity(found.unsettled_J or 0.0, "energy")
    )
    return (
        f"not proved: replays or time ran out; no other plan takes less than {least}, {100 * found.gap:.0f} % below "
        f"the first{f', but {but}' * bool(found.vague)}; raise --budget-s or --replays for more"
    )


def _cells(found: Found) -> tuple[str, ...]:
    row, plan = found.row, found.candidate
    chunks = f" x{plan.virtual_stages}" if plan.virtual_stages > 1 else ""
    return (
        f"{plan.tensor}x{plan.pipeline}x{plan.data}",
        f"{plan.accelerators:,}",
        f"{plan.microbatch}/{plan.minibatch}",
        plan.schedule + chunks,
        f"{plan.recompute}{' +seq' * _shares(plan)}" if plan.recompute else row["data_sync"] or "-",
        "".join(kind[0].upper() for kind in plan.placement),
        format_quantity(found.modelled_s, "time") + ("" if found.why_not_exact is None else " ~"),
        format_quantity(found.energy_J, "energy"),
        f"{100 * row['communication_fraction']:.1f} %",
    )


def _shares(plan: Candidate) -> bool:
    return bool(plan.sequence_parallel) and plan.tensor > 1


def write_search(path: Path, found: Search) -> None:
    """Write all rows as Parquet, best first, with units in the metadata of the fields."""
    from rpucluster.report.projection_page import as_table

    write_table(path, as_table([each.row for each in found.found], {}))
