"""Quantities: what is written is what is read, and what is formatted reads back to its last shown digit."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpucluster.errors import UnitError
from rpucluster.units import format_count, format_quantity, parse_quantity

DIMENSIONS = ("time", "bandwidth", "size", "energy", "energy per byte", "power", "rate")


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("80 ns", "time", 80e-9),
        ("80ns", "time", 80e-9),
        ("  1.5 us ", "time", 1.5e-6),
        ("1.5 µs", "time", 1.5e-6),
        ("5 min", "time", 300.0),
        ("2 h", "time", 7200.0),
        ("1e-3 s", "time", 1e-3),
        (".5 ms", "time", 0.5e-3),
        ("0 s", "time", 0.0),
        ("inf s", "time", math.inf),
        ("50 GB/s", "bandwidth", 50e9),  # GB is 10^9
        ("400 Gb/s", "bandwidth", 50e9),  # a small b is a bit
        ("1 GiB/s", "bandwidth", 2.0**30),
        ("64 KiB", "size", 65536.0),
        ("8 kb", "size", 1000.0),
        ("2 KB", "size", 2000.0),
        ("2 kB", "size", 2000.0),
        ("23 pJ", "energy", 23e-12),
        ("80 pJ/B", "energy per byte", 80e-12),
        ("10 pJ/b", "energy per byte", 80e-12),
        ("5 W", "power", 5.0),
        ("2 MW", "power", 2e6),
        ("2 mW", "power", 2e-3),
        ("51.2 Gop/s", "rate", 51.2e9),
    ],
)
def test_quantities_are_read_into_si(text: str, dimension: str, value: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "dimension", "message"),
    [
        (80, "time", '80 is not a time; write a string with a unit, such as "80 ns"'),
        (True, "time", 'True is not a time; write a string with a unit, such as "80 ns"'),
        ("80", "time", '"80" has no unit; write a string with a unit, such as "80 ns"'),
        ("ns", "time", '"ns" is not a time; write a string with a unit, such as "80 ns"'),
        ("", "power", '"" is not a power; write a string with a unit, such as "5 W"'),
        ("nan s", "time", '"nan s" is not a time; write a string with a unit, such as "80 ns"'),
        ("-1 s", "time", '"-1 s" is negative; write a string with a unit, such as "80 ns"'),
        ("1e400 s", "time", '"1e400 s" is too large a number; write a string with a unit, such as "80 ns"'),
        (
            "50 GB",
            "bandwidth",
            '"50 GB": GB is not a unit of bandwidth; write a string with a unit, such as "50 GB/s"',
        ),
        ("5 m", "time", '"5 m": m is not a unit of time; write a string with a unit, such as "80 ns"'),
        (
            "1 KiJ",
            "energy",
            '"1 KiJ": KiJ is not a unit of energy; write a string with a unit, such as "23 pJ"',
        ),
        # a capital M is mega and a small m milli, so megaseconds are refused, not read as milliseconds
        ("1 Ms", "time", '"1 Ms": Ms is not a unit of time; write a string with a unit, such as "80 ns"'),
    ],
)
def test_what_is_no_quantity_is_refused_in_one_line(text: object, dimension: str, message: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_quantity(text, dimension)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (4.12e-5, "time", "41.2 us"),
        (80e-9, "time", "80 ns"),
        (0.0, "time", "0 s"),
        (math.inf, "bandwidth", "inf B/s"),
        (999.6e-9, "time", "1 us"),  # rounding carries into the next prefix
        (0.9995, "time", "1 s"),
        (1e-18, "time", "0.001 fs"),
        (7190.0, "time", "7190 s"),
        (7200.0, "time", "2 h"),
        (4.69e4, "time", "13 h"),
        (2.1e7, "energy", "21 MJ"),
        (50e9, "bandwidth", "50 GB/s"),
        (2.0**30, "size", "1.07 GB"),
        (-5e-9, "time", "-5 ns"),
    ],
)
def test_quantities_are_written_for_people(value: float, dimension: str, text: str) -> None:
    assert format_quantity(value, dimension) == text


@given(st.sampled_from(DIMENSIONS), st.floats(1e-14, 1e14), st.integers(1, 6))
def test_what_is_formatted_reads_back_to_half_its_last_digit(dimension: str, value: float, digits: int) -> None:
    text = format_quantity(value, dimension, digits)
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits))


@given(st.floats(1.1e-15, 0.99))
def test_a_time_below_a_second_shows_one_to_three_places_before_the_point(value: float) -> None:
    assert 1 <= float(format_quantity(value, "time").split()[0]) < 1000


@given(st.floats(0, allow_nan=False))
def test_every_si_value_reads_back_exactly_from_its_repr(value: float) -> None:
    # this is how resolved specs are written, and a run must be the same when it is read back
    assert parse_quantity(f"{value!r} s", "time") == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234, "1,234"),
        (9999, "9,999"),
        (0.25, "0.25"),
        (10_000, "10 k"),
        (1_234_567, "1.23 M"),
        (999_999, "1 M"),  # rounding carries into the next prefix
        (-1_234_567, "-1.23 M"),
        (1e12, "1 T"),
        (1e16, "10000 T"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_counts_are_written_for_people(value: float, text: str) -> None:
    assert format_count(value) == text


@given(st.integers(0, 10**15))
def test_a_count_keeps_its_size(value: float) -> None:
    match = re.fullmatch(r"([\d.,]+)(?: ([kMGT]))?", format_count(value))
    assert match
    number, scale = match[1], {None: 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[match[2]]
    assert float(number.replace(",", "")) * scale == pytest.approx(value, rel=0.0051)
