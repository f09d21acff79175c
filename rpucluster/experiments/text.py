"""Results on the terminal, and as plain JSON values."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from rpucluster.experiments.cells import HEADS, SYSTEM_HEADS, cells, remarks, system_cells
from rpucluster.experiments.reproduce import Figure, Reproduction
from rpucluster.report.text import add_rows, new_table


def print_figure(name: str, figure: Figure, console: Console) -> None:
    """Print what was found for a figure: its tables, remarks and files."""
    console.print(Text(f"{name}: {figure.lead}", style="bold"))
    for heading, rows in figure.rows.items():
        if rows:
            system = rows[0].kind == "system"
            table = new_table(*(SYSTEM_HEADS if system else HEADS), heading=heading)
            add_rows(table, map(system_cells if system else cells, rows))
            console.print(table)
            for remark in remarks(rows):
                console.print(Text(remark, style="dim"))
    for remark in figure.notes:
        console.print(Text(f"note: {remark}", style="yellow"))
    for path in figure.files:
        console.print(Text(str(path)), soft_wrap=True)


def summary(done: Reproduction) -> dict[str, Any]:
    """Everything that was found as plain JSON values."""
    return {
        "budget": asdict(done.budget) | {"text": done.budget.text, "is_the_papers": done.budget.is_the_papers},
        "runs_made": done.made,
        "runs_left": done.left,
        "failures": list(done.failures),
        "figures": {
            name: {
                "about": figure.lead,
                "notes": list(figure.notes),
                "rows": [asdict(row) for rows in figure.rows.values() for row in rows],
                "files": [str(path) for path in figure.files],
            }
            for name, figure in done.figures.items()
        },
    }
