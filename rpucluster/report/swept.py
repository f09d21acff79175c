"""What was swept, in words: short names of keys, and their values with units."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from rpucluster.units import BASE_UNITS, format_quantity

_DIMENSIONS: Final = {unit: dimension for dimension, unit in BASE_UNITS.items()}
_DIGITS: Final = 6
"""So that values of a sweep that differ are told apart."""

NOT_ENOUGH: Final = "where no bandwidth is enough, latencies or other transfers hold the step up"


def short_names(keys: Collection[str]) -> dict[str, str]:
    """For each dotted key its last words, as many as tell it from the others."""
    return {key: _shortest(key, [other for other in keys if other != key]) for key in keys}


def _shortest(key: str, others: Collection[str]) -> str:
    words = key.split(".")
    names = (".".join(words[-count:]) for count in range(1, len(words)))
    return next((name for name in names if not any(f".{other}".endswith(f".{name}") for other in others)), key)


def format_swept(value: Any, unit: str | None) -> str:
    """A value in SI with its unit; None for plain numbers and words."""
    if unit in _DIMENSIONS and isinstance(value, int | float):
        return format_quantity(value, _DIMENSIONS[unit], _DIGITS)
    text = f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    return f"{text} {unit}" if unit else text


def label_of(row: Mapping[str, Any], units: Mapping[str, str | None]) -> str:
    """The swept values of a row in words; `units` by swept key."""
    names = short_names(units)
    return ", ".join(f"{names[key]} {format_swept(row[key], unit)}" for key, unit in units.items()) or "the job"


def enough(bandwidth: float | None) -> str:
    """The bandwidth with which communication stops being the bottleneck; "none" where there is no such."""
    return "none" if bandwidth is None else format_quantity(bandwidth, "bandwidth")
