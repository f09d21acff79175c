"""How often something is done, in training steps or in time: ``"200 steps"``, ``"5 min"``."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from rpucluster.errors import UnitError
from rpucluster.units import parse_quantity

_STEPS = re.compile(r"\s*(\d{1,18})\s*steps?\s*")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number of training steps, or else of seconds of wall time."""

    steps: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.seconds!r} s" if self.steps is None else f"{self.steps} steps"


def parse_interval(value: Any) -> Interval:
    """Read an interval.  Raises ValueError, one line, for anything else."""
    if isinstance(value, Interval):
        return value
    steps = _STEPS.fullmatch(value) if isinstance(value, str) else None
    if steps is not None and int(steps[1]) > 0:
        return Interval(steps=int(steps[1]))
    try:
        return Interval(seconds=parse_quantity(value, "time"))
    except UnitError:
        shown = f'"{value}"' if isinstance(value, str) else repr(value)
        raise ValueError(f'{shown} is neither steps nor a time; write "200 steps" or "5 min"') from None


IntervalField = Annotated[Interval, PlainValidator(parse_interval), PlainSerializer(str, return_type=str)]
"""An `Interval` as a key of a TOML file."""
