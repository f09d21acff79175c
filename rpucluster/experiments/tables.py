"""Results as rows, each with our value, its interval, and the reference beside it with how sure it is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rpucluster.experiments.confidence import NO_REFERENCE, Reference
from rpucluster.experiments.results import PanelResult, PointResult
from rpucluster.experiments.system import SystemRow
from rpucluster.experiments.threshold import Estimate, Threshold
from rpucluster.files import schema, write_table

FRACTION = "fraction"
"""Unit of a number that people read in percent."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of results.parquet."""

    figure: str
    panel: str
    kind: str
    """``"error"`` of a point, ``"threshold"`` of a panel, ``"system"`` quantity."""
    name: str
    """The point, the swept parameter, or the quantity."""
    unit: str
    parameter_value: float | None
    """Of the swept parameter at a point."""
    ours: float | None
    """None for a threshold that no point, or every point, exceeds; the note says which."""
    low: float | None
    """End of the 95 % interval of ours; of a computed quantity, ours."""
    high: float | None
    penalty: float | None
    """Error over the control's, runs paired by seed."""
    penalty_low: float | None
    penalty_high: float | None
    reference: str
    reference_value: float | None
    confidence: str
    """The mark of the reference: R, S, C, B+, B, B-, D or U."""
    reference_note: str
    note: str
    seeds: tuple[int, ...]
    errors: tuple[float, ...]
    """Of each seed, after the last epoch."""
    errors_by_epoch: tuple[tuple[float | None, ...], ...]
    epochs: int | None
    train_samples: int | None
    wall_s: float | None
    """Summed over the runs."""
    sha256: tuple[str, ...]
    """Of the settings of each run."""


_SCHEMA = schema(
    ("figure", pa.string(), "1"),
    ("panel", pa.string(), "1"),
    ("kind", pa.string(), "1"),
    ("name", pa.string(), "1"),
    ("unit", pa.string(), "1"),
    ("parameter_value", pa.float64(), "1"),
    ("ours", pa.float64(), "1"),
    ("low", pa.float64(), "1"),
    ("high", pa.float64(), "1"),
    ("penalty", pa.float64(), "1"),
    ("penalty_low", pa.float64(), "1"),
    ("penalty_high", pa.float64(), "1"),
    ("reference", pa.string(), "1"),
    ("reference_value", pa.float64(), "1"),
    ("confidence", pa.string(), "1"),
    ("reference_note", pa.string(), "1"),
    ("note", pa.string(), "1"),
    ("seeds", pa.list_(pa.int64()), "1"),
    ("errors", pa.list_(pa.float64()), "1"),
    ("errors_by_epoch", pa.list_(pa.list_(pa.float64())), "1"),
    ("epochs", pa.int64(), "1"),
    ("train_samples", pa.int64(), "1"),
    ("wall_s", pa.float64(), "s"),
    ("sha256", pa.list_(pa.string()), "1"),
)


def error_rows(result: PanelResult) -> list[Row]:
    """The control, every point that has runs, and the threshold of a panel."""
    rows = [_error(result, of) for of in (result.control, *result.points) if of.records]
    found = result.threshold
    if found is not None:
        rows.append(_threshold(result, found))
    return rows


def system_rows(rows: Sequence[SystemRow]) -> list[Row]:
    """The rows of the system table."""
    return [
        _row(
            figure="table2",
            panel=row.section,
            kind="system",
            name=row.quantity,
            unit=row.unit,
            reference=row.reference,
            ours=Estimate(value=row.ours, low=row.ours, high=row.ours, runs=1),
            note=row.formula,
        )
        for row in rows
    ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as Parquet; raises `RunError` where that cannot be done."""
    write_table(path, pa.Table.from_pylist([asdict(row) for row in rows], schema=_SCHEMA))


def _error(result: PanelResult, of: PointResult) -> Row:
    panel = result.panel
    return _row(
        figure=panel.figure,
        panel=panel.name,
        kind="error",
        name=of.point.label,
        unit=FRACTION,
        reference=of.point.reference,
        ours=of.error,
        penalty=None if of is result.control else result.penalty(of),
        parameter_value=of.point.value,
        note="swept value weakly recalled (B-)" if of.point.recalled and panel.swept else "",
        seeds=tuple(record.seed for record in of.records),
        errors=of.errors,
        errors_by_epoch=tuple(record.test_errors for record in of.records),
        epochs=of.records[0].epochs,
        train_samples=of.records[0].train_samples,
        wall_s=sum(record.wall_s for record in of.records),
        sha256=tuple(record.sha256 for record in of.records),
    )


def _threshold(result: PanelResult, found: Threshold) -> Row:
    panel = result.panel
    severe_is_low = panel.threshold_sign == ">="
    ends = (found.severe, found.mild) if severe_is_low else (found.mild, found.severe)
    outside = {"": "", "mild": "even the mildest point exceeds it", "severe": "no point exceeds it"}[found.beyond]
    return _row(
        figure=panel.figure,
        panel=panel.name,
        kind="threshold",
        name=panel.parameter,
        unit=FRACTION if panel.percent else "",
        reference=panel.threshold or NO_REFERENCE,
        ours=Estimate(value=found.value, low=ends[0], high=ends[1], runs=found.runs)
        if found.value is not None
        else None,
        note=outside or panel.note,
    )


def _row(*, ours: Estimate | None, reference: Reference, penalty: Estimate | None = None, **values: Any) -> Row:
    empty: dict[str, Any] = {
        "parameter_value": None,
        "seeds": (),
        "errors": (),
        "errors_by_epoch": (),
        "epochs": None,
        "train_samples": None,
        "wall_s": None,
        "sha256": (),
    }
    return Row(
        ours=ours.value if ours else None,
        low=ours.low if ours else None,
        high=ours.high if ours else None,
        penalty=penalty.value if penalty else None,
        penalty_low=penalty.low if penalty else None,
        penalty_high=penalty.high if penalty else None,
        reference=reference.text,
        reference_value=reference.value,
        confidence=reference.code.value,
        reference_note=reference.note,
        **(empty | values),
    )
