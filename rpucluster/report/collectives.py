"""The table of the collective benchmark for the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from rpucluster.collective_table import Row
from rpucluster.report.text import add_rows, new_table
from rpucluster.units import format_quantity


def print_collectives(rows: Sequence[Row], cluster: str, console: Console) -> None:
    """Print one row per size: time, algorithm bandwidth and bus bandwidth."""
    first = rows[0]
    chunks = f", {first.chunks} chunks, {first.active_chunks} active" if first.chunks > 1 else ""
    what = f"{first.kind} among {first.accelerators} accelerators of {cluster}{chunks}"
    console.print(Text(what, style="bold"))
    table = new_table(">size", "algorithm", ">modelled time", ">algbw GB/s", ">busbw GB/s")
    add_rows(
        table,
        (
            (
                _size(row.bytes),
                row.algorithm,
                format_quantity(row.modelled_s, "time", digits=4),
                _bandwidth(row.algbw_Bps),
                _bandwidth(row.busbw_Bps),
            )
            for row in rows
        ),
    )
    console.print(table)


def _size(nbytes: float) -> str:
    """As it was written, if that was whole: 64 KiB, or 5 MB."""
    for power, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if nbytes >= 1 << power and nbytes % (1 << power) == 0:
            return f"{nbytes / (1 << power):.0f} {name}"
    return format_quantity(nbytes, "size", digits=4)


def _bandwidth(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f}"
