"""The table of a projection for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from rpucluster.report.text import add_rows, new_table
from rpucluster.units import format_count, format_quantity

_ALWAYS = ("weights", "accelerators")


def print_projection(rows: Sequence[Mapping[str, Any]], swept: Sequence[str], console: Console) -> None:
    """Print one line per point that fits, then what is wrong with the others and what is not exact."""
    keys = [key for key in swept if key not in _ALWAYS]
    fitting = [row for row in rows if "error" not in row]
    thresholds = any("threshold" in row for row in fitting)
    heads = (
        ">weights",
        ">accele-\nrators",
        ">TxPxD",
        ">modelled\nstep",
        ">samples\nper s",
        ">energy\nper step",
        ">exposed\ncomm.",
    )
    more = (">enough\nbandwidth",) if thresholds else ()
    table = new_table(*(">" + key.replace(".", ".\n") for key in keys), *heads, *more, ">training")
    table.padding = (0, 1, 0, 0)  # so that the usual columns fit 80 characters
    add_rows(
        table,
        (
            (
                *(_value(row[key]) for key in keys),
                format_count(row["weights"]),
                f"{row['accelerators']:,}",
                f"{row['tensor']}x{row['pipeline']}x{row['data']}",
                format_quantity(row["modelled_step_s"], "time") + ("" if row["exact"] else " ~"),
                "-" if row["samples_per_s"] is None else format_count(row["samples_per_s"]),
                format_quantity(row["modelled_energy_J"], "energy"),
                f"{100 * row['communication_fraction']:.1f} %",
                *((_enough(row["threshold_B_per_s"]),) if thresholds else ()),
                "-" if row["modelled_train_s"] is None else format_quantity(row["modelled_train_s"], "time"),
            )
            for row in fitting
        ),
    )
    console.print(table)
    for why in dict.fromkeys(row["why_not_exact"] for row in fitting if not row["exact"]):
        console.print(Text(f"~ not known to be exact: {why}"))
    for row in rows:
        if "error" in row:
            point = ", ".join(f"{key} = {_value(row[key])}" for key in swept)
            console.print(Text(f"{point}: {row['error']}"))


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _enough(bandwidth: float | None) -> str:
    return "none" if bandwidth is None else format_quantity(bandwidth, "bandwidth")
