"""Integers, durations and sizes, in both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.units import (
    INT64_MAX,
    INT64_MIN,
    format_duration,
    format_size,
    friendly_bytes,
    parse_duration,
    parse_integer,
    parse_size,
    quote,
)

INT64 = st.integers(INT64_MIN, INT64_MAX)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("-0", 0),
        ("42", 42),
        ("+42", 42),
        ("-1", -1),
        ("0x1F", 31),
        ("0X_1f", 31),
        ("-0o17", -15),
        ("0O17", 15),
        ("0b101", 5),
        ("0B1", 1),
        ("017", 15),
        ("0_7", 7),
        ("00", 0),
        ("1_000_000", 1_000_000),
        ("9223372036854775807", INT64_MAX),
        ("-9223372036854775808", INT64_MIN),
        ("0x7fffffffffffffff", INT64_MAX),
    ],
)
def test_integers_are_read(text: str, expected: int) -> None:
    """Signs, prefixes, leading-zero octal and `_` between digits are accepted (O3)."""
    assert parse_integer(text) == expected


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "abc", "1.5", "1k", "08", "_1", "1_", "1__0", "0x", "--1", "+-1", "1\n", "\u0661", "0b2"]
)
def test_words_that_are_no_integers_are_parse_errors(text: str) -> None:
    """What Go refuses is refused with its words (O9)."""
    with pytest.raises(ValueError, match=r"^parse error$"):
        parse_integer(text)


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "-9223372036854775809", "99999999999999999999", "9" * 5000, "0x8000000000000000"]
)
def test_integers_beyond_64_bits_are_out_of_range(text: str) -> None:
    """64 bits are the range, and a word of any length is answered, not converted (O3, O9)."""
    with pytest.raises(ValueError, match=r"^value out of range$"):
        parse_integer(text)


@given(INT64)
def test_every_integer_reads_back(value: int) -> None:
    """Decimal, hexadecimal, octal and binary forms of an integer are the same integer (O3)."""
    assert [parse_integer(form) for form in (str(value), f"{value:#x}", f"{value:#o}", f"{value:#b}")] == [value] * 4


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("0", 0),
        ("+0", 0),
        ("0s", 0),
        ("1ns", 1),
        ("1us", 1_000),
        ("1\u00b5s", 1_000),
        ("1\u03bcs", 1_000),
        ("1ms", 1_000_000),
        ("30s", 30_000_000_000),
        ("2h45m", 9_900_000_000_000),
        ("1.5h", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("-1s", -1_000_000_000),
        ("+1m", 60_000_000_000),
        ("1h1h", 7_200_000_000_000),
        ("0.3333333333333333333h", 1_199_999_999_999),
        ("1.9ns", 1),
        ("9223372036854775807ns", INT64_MAX),
        ("-9223372036854775808ns", INT64_MIN),
        ("00000000000000000000001s", 1_000_000_000),
    ],
)
def test_durations_are_read(text: str, expected_ns: int) -> None:
    """Sequences of number and unit with sign and fractions are accepted, and a bare 0 (O4)."""
    assert parse_duration(text) == expected_ns


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("foo", 'time: invalid duration "foo"'),
        (".s", 'time: invalid duration ".s"'),
        (" 1s", 'time: invalid duration " 1s"'),
        ("10", 'time: missing unit in duration "10"'),
        ("1s5", 'time: missing unit in duration "1s5"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1L0m", 'time: unknown unit "L" in duration "1L0m"'),
        ("1s ", 'time: unknown unit "s " in duration "1s "'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("2562048h", 'time: invalid duration "2562048h"'),
    ],
)
def test_bad_durations_say_why(text: str, reason: str) -> None:
    """The reasons are Go's texts (O153)."""
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == reason


def test_a_duration_of_any_length_is_answered() -> None:
    """Thousands of digits are refused, not converted (O4)."""
    with pytest.raises(ValueError, match="invalid duration"):
        parse_duration("9" * 5000 + "s")


@pytest.mark.parametrize(
    ("value_ns", "expected"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5\u00b5s"),
        (100_000_000, "100ms"),
        (1_500_000_000, "1.5s"),
        (120_000_000_000, "2m0s"),
        (3_600_000_000_000, "1h0m0s"),
        (9_900_000_000_000, "2h45m0s"),
        (2_592_000_000_000_000, "720h0m0s"),
        (-1_000_000_000, "-1s"),
        (60_000_000_001, "1m0.000000001s"),
    ],
)
def test_durations_print_as_in_go(value_ns: int, expected: str) -> None:
    """The printed form is Go's (O4)."""
    assert format_duration(value_ns) == expected


@given(INT64)
def test_every_duration_reads_back(value_ns: int) -> None:
    """What is printed reads back as the same duration (O4)."""
    assert parse_duration(format_duration(value_ns)) == value_ns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("-1", -1),
        ("500", 500),
        ("1k", 1000),
        ("1K", 1000),
        ("1KB", 1024),
        ("1kb", 1024),
        ("1ki", 1024),
        ("1KiB", 1024),
        ("64MB", 64 << 20),
        ("64mib", 64 << 20),
        ("2g", 2_000_000_000),
        ("1gi", 1 << 30),
        ("1t", 10**12),
        ("1TB", 1 << 40),
        ("1p", 10**15),
        ("7EB", 7 << 60),
        ("9e", 9 * 10**18),
    ],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    """Plain suffixes are powers of 1000, those with b or i powers of 1024, in any case (O5, O131)."""
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "k", "12abc", "1kbb", "1 k", "1.5k", "+1", "0x10", "1b", "1_000", "8EB", "10e", "9" * 5000, "1\n", "1\u212a"],
)
def test_words_that_are_no_sizes_are_refused(text: str) -> None:
    """Blanks, fractions, unknown suffixes and more than 64 bits are no sizes (O5)."""
    with pytest.raises(ValueError):
        parse_size(text)


@given(INT64)
def test_every_size_reads_back(value: int) -> None:
    """What is printed reads back as the same size (O5)."""
    assert parse_size(format_size(value)) == value


@pytest.mark.parametrize(("value", "expected"), [(0, "0"), (1024, "1KB"), (1000, "1K"), (3 << 30, "3GB"), (999, "999")])
def test_sizes_print_shortest(value: int, expected: str) -> None:
    """The largest suffix that divides the size is used, powers of 1024 before those of 1000."""
    assert format_size(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 B"),
        (500, "500 B"),
        (1023, "1023 B"),
        (1024, "1.00 KB"),
        (1536, "1.50 KB"),
        (1_024_000_000, "976.56 MB"),
        (1 << 30, "1.00 GB"),
        (1 << 40, "1.00 TB"),
        (1 << 50, "1.00 PB"),
        (1 << 60, "1.00 EB"),
        (INT64_MAX, "8.00 EB"),
    ],
)
def test_bytes_for_humans(value: int, expected: str) -> None:
    """Two decimals and powers of 1024 from 1024 on (O212)."""
    assert friendly_bytes(value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", '"abc"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("a\nb\t", '"a\\nb\\t"'),
        ("\x1b\x7f", '"\\x1b\\x7f"'),
        ("\u00e9\u4e16", '"\u00e9\u4e16"'),
        ("\u200b", '"\\u200b"'),
        ("\U000e0001", '"\\U000e0001"'),
        (b"\xff".decode("utf-8", "surrogateescape"), '"\\xff"'),
    ],
)
def test_quoting_keeps_a_message_on_one_line(text: str, expected: str) -> None:
    """Quoted words carry Go's escapes (O9)."""
    assert quote(text) == expected
