"""The table of a projection for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from rpucluster.report.swept import NOT_ENOUGH, enough, format_swept, label_of, short_names
from rpucluster.report.text import add_rows, new_table
from rpucluster.units import format_count, format_quantity

Row = Mapping[str, Any]


def print_projection(rows: Sequence[Row], units: Mapping[str, str | None], console: Console) -> None:
    """Print one line per point that fits, then what is wrong with the others and what is not exact.

    `units` are those of the swept keys, None for plain numbers and words.  What all rows share is said once, above.
    """
    fitting = [row for row in rows if "error" not in row]
    columns, shared = _machine(fitting, units)
    if shared:
        console.print(Text(shared))
    names = {key: name for key, name in short_names(units).items() if key not in ("weights", "accelerators")}
    columns = {
        **{names[key].replace(".", ".\n"): [format_swept(row[key], units[key]) for row in fitting] for key in names},
        **columns,
        **_step(fitting),
    }
    table = new_table(*(f">{head}" for head in columns))
    # so that the usual columns fit 80 characters, and more of them too
    table.padding = (0, 0 if len(columns) > 8 and console.width < 100 else 1, 0, 0)
    add_rows(table, list(zip(*columns.values(), strict=True)))
    console.print(table)
    if any(row.get("threshold") and row["threshold_B_per_s"] is None for row in fitting):
        console.print(Text(NOT_ENOUGH))
    for why in dict.fromkeys(row["why_not_exact"] for row in fitting if not row["exact"]):
        console.print(Text(f"~ not known to be exact: {why}"))
    for row in rows:
        if "error" in row:
            console.print(Text(f"{label_of(row, units)}: {row['error']}"))


def _machine(rows: Sequence[Row], units: Mapping[str, str | None]) -> tuple[dict[str, list[str]], str]:
    """Columns that say what the network and the machine are, and in words those that are the same in many rows."""
    found = {
        "weights": [format_count(row["weights"]) for row in rows],
        "accelerators": [f"{row['accelerators']:,}" for row in rows],
        "TxPxD": [f"{row['tensor']}x{row['pipeline']}x{row['data']}" for row in rows],
    }
    alike = [name for name, cells in found.items() if len(rows) > 1 and len(set(cells)) == 1 and name not in units]
    shared = ", ".join(f"{name} {found[name][0]}" for name in alike)
    return {name.replace("accelerators", "accele-\nrators"): found[name] for name in found if name not in alike}, shared


def _step(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Columns that say what a step takes, and the training."""
    thresholds = any("threshold" in row for row in rows)
    return {
        "modelled\nstep": [
            format_quantity(row["modelled_step_s"], "time") + ("" if row["exact"] else " ~") for row in rows
        ],
        "samples\nper s": ["-" if row["samples_per_s"] is None else format_count(row["samples_per_s"]) for row in rows],
        "energy\nper step": [format_quantity(row["modelled_energy_J"], "energy") for row in rows],
        "exposed\ncomm.": [f"{100 * row['communication_fraction']:.1f} %" for row in rows],
        **({"enough\nbandwidth": [enough(row["threshold_B_per_s"]) for row in rows]} if thresholds else {}),
        "training": [
            "-" if row["modelled_train_s"] is None else format_quantity(row["modelled_train_s"], "time") for row in rows
        ],
    }
