"""What is swept: `parse_sweep` reads ``KEY=LOW:HIGH:xSTEP`` and ``KEY=A,B,C``, `points` combines several."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from rpucluster.errors import ConfigError, UnitError
from rpucluster.units import BASE_UNITS, parse_quantity

MOST_POINTS: Final = 10_000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COMMA = re.compile(r",(?![^\[]*\])")
Value = int | float | str


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The values that one key takes in turn."""

    key: str
    values: tuple[Value, ...]
    """Numbers, in SI where they are quantities, or words."""
    unit: str | None
    """Of quantities."""

    def written(self, value: Value) -> str:
        """A value as an override writes it."""
        return f"{value!r} {self.unit}" if self.unit is not None else str(value)


def parse_sweep(text: str, option: str = "--sweep") -> Sweep:
    """Read a sweep, of which LOW is always the first value and HIGH the last if the steps meet it.

    Raises `ConfigError`.
    """
    key, equals, values = (part.strip() for part in text.partition("="))
    hint = f"{option} {text}: write KEY=LOW:HIGH:xSTEP, such as accelerators=256:4096:x2, or KEY=A,B,C"
    if not (key and equals and values):
        raise ConfigError(hint)
    low, *rest = values.split(":")
    if rest and not values.startswith("["):
        step = _number(rest[1][1:]) if len(rest) == 2 and rest[1].startswith("x") else None
        (first, last), unit = _alike([low, rest[0]], text, option)
        if step is None or isinstance(first, str) or isinstance(last, str):
            raise ConfigError(hint)
        return Sweep(key=key, values=_rising(first, last, step, f"{option} {text}"), unit=unit)
    found, unit = _alike([value.strip() for value in _COMMA.split(values)], text, option)
    return Sweep(key=key, values=tuple(found), unit=unit)


def points(sweeps: Sequence[Sweep]) -> list[Mapping[str, Value]]:
    """All combinations, the last sweep varying fastest.  Raises `ConfigError` for a key that is swept twice."""
    keys = [sweep.key for sweep in sweeps]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"--sweep {key}: it is swept twice; write all its values in one --sweep")
    count = math.prod(len(sweep.values) for sweep in sweeps)
    if count > MOST_POINTS:
        raise ConfigError(f"the sweeps make {count:,} rows, more than {MOST_POINTS:,}; take larger steps")
    return [dict(zip(keys, values, strict=True)) for values in product(*(sweep.values for sweep in sweeps))]


def _alike(texts: Sequence[str], text: str, option: str) -> tuple[list[Value], str | None]:
    """Numbers if all are, quantities of one dimension if all are, or else words."""
    numbers = [_number(each) for each in texts]
    if all(number is not None for number in numbers):
        return [number for number in numbers if number is not None], None
    for dimension, unit in BASE_UNITS.items():
        try:
            return [parse_quantity(each.strip("\"'"), dimension) for each in texts], unit
        except UnitError:
            continue
    if any(not each for each in texts):
        raise ConfigError(f"{option} {text}: there is an empty value; write each between two commas")
    return list(texts), None


def _number(text: str) -> int | float | None:
    if not _NUMBER.fullmatch(text.strip()):
        return None
    value = float(text)
    return int(value) if value.is_integer() and value < 2**53 and "." not in text else value


def _rising(first: float, last: float, step: float, where: str) -> tuple[Value, ...]:
    if not (1 < step < math.inf and 0 < first <= last < math.inf):
        raise ConfigError(f"{where}: values must rise from more than 0 by a factor of more than 1")
    values: list[Value] = []
    whole = isinstance(first, int)
    while (value := first * step ** len(values)) <= last * (1 + 1e-9):
        values.append(round(value) if whole and abs(value - round(value)) < 1e-9 * value else value)
        if len(values) > MOST_POINTS:
            raise ConfigError(f"{where}: more than {MOST_POINTS:,} values; take a larger step")
    return tuple(values)
