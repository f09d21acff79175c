"""Quantities with units: read at the edge of the program, plain SI floats inside, written for people.

GB is 10^9 bytes and GiB 2^30; a small b is a bit, a capital B a byte.
"""

import math
import re
from collections.abc import Iterable
from decimal import Decimal

from rpucluster.errors import UnitError

_PREFIX = {
    "": 1.0, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3,
    "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip
_SMALL = ("f", "p", "n", "u", "µ", "m", "")
_LARGE = ("", "k", "K", "M", "G", "T", "P")
_BINARY = ("Ki", "Mi", "Gi", "Ti")
_BYTES = _LARGE + _BINARY

# dimension -> ((base unit, its size in SI, prefixes it takes), ...); the first is what formatting uses
_UNITS: dict[str, tuple[tuple[str, float, tuple[str, ...]], ...]] = {
    "time": (("s", 1.0, _SMALL), ("min", 60.0, ("",)), ("h", 3600.0, ("",))),
    "bandwidth": (("B/s", 1.0, _BYTES), ("b/s", 0.125, _LARGE)),
    "size": (("B", 1.0, _BYTES), ("b", 0.125, _LARGE)),
    "energy": (("J", 1.0, (*_SMALL, "k", "M", "G", "T")),),
    "energy per byte": (("J/B", 1.0, _SMALL), ("J/b", 8.0, _SMALL)),
    "power": (("W", 1.0, (*_SMALL, "k", "M")),),
    "rate": (("op/s", 1.0, _LARGE),),
    "floating-point rate": (("FLOP/s", 1.0, _LARGE),),
}
BASE_UNITS = {dimension: units[0][0] for dimension, units in _UNITS.items()}
"""What quantities of a dimension are counted in."""
_EXAMPLE = {
    "time": "80 ns",
    "bandwidth": "50 GB/s",
    "size": "64 KiB",
    "energy": "23 pJ",
    "energy per byte": "80 pJ/B",
    "power": "5 W",
    "rate": "51.2 Gop/s",
    "floating-point rate": "312 TFLOP/s",
}
_LONG_S = 7200.0
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|inf)\s*([^\s\d].*?)?\s*$")


def parse_quantity(text: object, dimension: str) -> float:
    """Read a quantity such as ``"80 ns"`` or ``"400 Gb/s"`` into SI.

    ``dimension`` is one of time (s), bandwidth (B/s), size (B), energy (J), energy per byte (J/B), power (W),
    rate (op/s) and floating-point rate (FLOP/s).  Zero and ``inf`` still need their unit.  Raises `UnitError` for
    anything else, negative numbers included.
    """
    hint = f'write a string with a unit, such as "{_EXAMPLE[dimension]}"'
    if not isinstance(text, str):
        raise UnitError(f"{text!r} is not a {dimension}; {hint}")
    match = _QUANTITY.match(text)
    if match is None:
        raise UnitError(f'"{text}" is not a {dimension}; {hint}')
    number, unit = Decimal(match[1]), match[2]
    if math.isinf(number) and match[1] != "inf":
        raise UnitError(f'"{text}" is too large a number; {hint}')
    if unit is None:
        raise UnitError(f'"{text}" has no unit; {hint}')
    for base, size, prefixes in _UNITS[dimension]:
        for prefix in prefixes:
            if unit == prefix + base:
                if number < 0:
                    raise UnitError(f'"{text}" is negative; {hint}')
                if number.is_infinite():
                    return math.inf
                # in decimal, so that "500 ns" is the float 5e-07 and not its neighbour
                return float(number * Decimal(str(_PREFIX[prefix])) * Decimal(str(size)))
    raise UnitError(f'"{text}": {unit} is not a unit of {dimension}; {hint}')


def format_quantity(value: float, dimension: str, digits: int = 3) -> str:
    """Write an SI value for people: ``format_quantity(4.12e-5, "time")`` is ``"41.2 us"``, 7200 s are ``"2 h"``."""
    if dimension == "time" and _LONG_S <= abs(value) < math.inf:
        return f"{_round(value / 3600, digits)} h"
    base, _, prefixes = _UNITS[dimension][0]
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {base}"
    text, prefix = _scaled(value, [p for p in prefixes if p not in ("µ", "K", *_BINARY)], digits)
    return f"{text} {prefix}{base}"


def format_count(value: float, digits: int = 3) -> str:
    """Write a count for people: 1234567 is ``"1.23 M"``, whole numbers below 10,000 are exact."""
    if not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() else _round(value, digits)
    text, prefix = _scaled(value, ["k", "M", "G", "T"], digits)
    return f"{text} {prefix}"


def _scaled(value: float, prefixes: Iterable[str], digits: int) -> tuple[str, str]:
    """Digits and prefix: the largest that leaves 1 or more before the point once rounded, or the smallest."""
    rising = sorted(prefixes, key=_PREFIX.__getitem__)
    for prefix in reversed(rising):
        text = _round(value / _PREFIX[prefix], digits)
        if abs(float(text)) >= 1:
            return text, prefix
    return text, rising[0]


def _round(value: float, digits: int) -> str:
    text = f"{value:.{digits}g}"
    return f"{float(text):g}" if "e" in text else text
