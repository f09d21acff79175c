"""What all drawings share: their look, the colours of curves, and how they are written."""

import io
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from rpucluster.files import write_atomically

CURVES: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#7f5539")
"""Colours that stay apart for colour-blind eyes (after Okabe and Ito)."""
LOOK: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8ee",
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "legend.edgecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "rpucluster",  # so that the same rows make the same file
}
"""Settings of matplotlib, for ``matplotlib.rc_context``."""


def write_drawing(stem: Path, figure: Figure) -> list[Path]:
    """Write a figure as ``STEM.png`` and ``STEM.svg``.

    Returns both files; raises `RunError` where they cannot be written.
    """
    files = []
    for kind, metadata in (("png", None), ("svg", {"Date": None})):
        content = io.BytesIO()
        figure.savefig(content, format=kind, dpi=150, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{kind}")
        write_atomically(path, content.getvalue())
        files.append(path)
    return files
