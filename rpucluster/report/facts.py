"""A run's headline figures as label and text, which the terminal and the page both show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rpucluster.units import format_count, format_quantity

MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Figures that belong together, under one heading."""

    title: str
    rows: tuple[tuple[str, str], ...]


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.9333 is ``"93.3 %"``."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f} %"


def quantity(value: float | None, dimension: str) -> str:
    """`units.format_quantity`, with a dash for a value that is not there."""
    return MISSING if value is None else format_quantity(value, dimension).replace(" u", " µ")


def count(value: float | None) -> str:
    """`units.format_count`, whole from 100 on, with a dash for a value that is not there."""
    return MISSING if value is None else format_count(round(value) if abs(value) >= 100 else value)


def decimal(value: float | None) -> str:
    """Four significant digits."""
    return MISSING if value is None else f"{value:.4g}"


def title(summary: Mapping[str, Any]) -> str:
    """What ran on what."""
    return f"{summary['job']} on {summary['cluster']}"


def setting(summary: Mapping[str, Any]) -> str:
    """How it was run, in one line."""
    versions = summary["versions"]
    return (
        f"executor {summary['executor']}, arrays {summary['arrays']}, seed {summary['seed']}, "
        f"rpucluster {versions['rpucluster']}, Python {versions['python']}, NumPy {versions['numpy']}"
    )


def groups(summary: Mapping[str, Any]) -> tuple[Group, ...]:
    """The figures of summary.json: what was learnt, what it cost the modelled machine, what it took this host."""
    s, counts = summary, summary["counts"]
    return (
        Group(
            title="Result",
            rows=(
                ("test accuracy", percent(s["test_accuracy"], 2)),
                ("test loss", decimal(s["test_loss"])),
                ("train accuracy, last epoch", percent(s["train_accuracy"], 2)),
                ("train loss, last epoch", decimal(s["train_loss"])),
                ("epochs", count(s["epochs"])),
                ("steps", count(s["steps"])),
                ("samples", count(s["samples"])),
                ("weights", count(s["weights"])),
            ),
        ),
        Group(
            title="Modelled machine",
            rows=(
                ("modelled step", quantity(s["modelled_step_s"], "time")),
                ("modelled training", quantity(s["modelled_s"], "time")),
                ("energy per step", quantity(s["modelled_energy_per_step_J"], "energy")),
                ("energy of training", quantity(s["modelled_energy_J"], "energy")),
                ("compute", percent(s["compute_fraction"])),
                ("exposed communication", percent(s["exposed_communication_fraction"])),
                ("idle", percent(s["idle_fraction"])),
                ("accelerators", f"{count(s['accelerators'])} of {count(s['accelerators_available'])}"),
                ("tiles", count(s["tiles"])),
            ),
        ),
        Group(
            title="Physics",
            rows=(
                ("vector passes", count(counts["passes"])),
                ("repeats by bound management", count(counts["repeats"])),
                ("update cycles", count(counts["update_cycles"])),
                ("pulse slots", count(counts["pulse_slots"])),
                ("coincidences", count(counts["coincidences"])),
                ("coincidences expected", count(counts["expected_coincidences"])),
            ),
        ),
        Group(
            title="This host",
            rows=(
                ("wall", quantity(s["wall_s"], "time")),
                ("of it starting", quantity(s["start_wall_s"], "time")),
                ("of it training", quantity(s["train_wall_s"], "time")),
                ("of it evaluating", quantity(s["evaluate_wall_s"], "time")),
                ("samples per wall second", count(s["samples_per_s"])),
            ),
        ),
    )
