"""Reads and prints durations, sizes and integers the way Go does. Pure.

Sources: O3 (integers), O4 (durations), O5 and O131 (sizes), O212 (friendly bytes). Durations are ints in nanoseconds.
Every value fits into 64 bits, as it did in the original.
"""

import re
from typing import Final

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1

MICROSECOND_NS: Final = 1_000
MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND_NS
HOUR_NS: Final = 60 * MINUTE_NS

_UNITS_NS: Final = {
    "ns": 1,
    "us": MICROSECOND_NS,
    "\u00b5s": MICROSECOND_NS,  # micro sign
    "\u03bcs": MICROSECOND_NS,  # Greek mu
    "ms": MILLISECOND_NS,
    "s": SECOND_NS,
    "m": MINUTE_NS,
    "h": HOUR_NS,
}

_TERM = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)", re.DOTALL)
_INTEGER = re.compile(
    r"([+-]?)(0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)"
)
_SIZE = re.compile(r"(-?[0-9]+)(?:([kmgtpe])(b|i|ib)?)?", re.IGNORECASE)
_INT64_DIGITS: Final = 19
_PREFIXES: Final = "kmgtpe"
_FRACTION_DIGITS_MAX: Final = 18
"""Digits read behind a decimal point; those beyond are below a nanosecond even for hours."""

_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


def parse_integer(text: str) -> int:
    """The 64-bit integer `text` stands for (O3).

    Raises ValueError with Go's words: `parse error` or `value out of range`.
    """
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise ValueError("parse error")
    sign, digits = match[1], match[2].replace("_", "")
    if digits[0] != "0" and len(digits) > _INT64_DIGITS:
        raise ValueError("value out of range")
    # A bare leading zero means octal.
    magnitude = int(digits, 8) if digits[0] == "0" and digits[1:].isdigit() else int(digits, 0)
    value = -magnitude if sign == "-" else magnitude
    if not INT64_MIN <= value <= INT64_MAX:
        raise ValueError("value out of range")
    return value


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as `2h45m`, `1.5h`, `-1s` or `0` (O4). Parts of a nanosecond are dropped.

    Raises ValueError with Go's words (O153), for example `time: missing unit in duration "10"`.
    """
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    invalid = f"time: invalid duration {quote(text)}"
    if not rest:
        raise ValueError(invalid)
    total_ns = 0
    while rest:
        match = _TERM.match(rest)
        assert match is not None  # every part of the pattern is optional
        whole, fraction, unit = match[1], (match[2] or "")[:_FRACTION_DIGITS_MAX], match[3]
        if not whole and not fraction:
            raise ValueError(invalid)
        if not unit:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        if unit not in _UNITS_NS:
            raise ValueError(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        if len(whole.lstrip("0")) > _INT64_DIGITS:
            raise ValueError(invalid)
        unit_ns = _UNITS_NS[unit]
        total_ns += int(whole.lstrip("0") or "0") * unit_ns
        total_ns += int(fraction or "0") * unit_ns // 10 ** len(fraction)
        rest = rest[match.end() :]
    value_ns = -total_ns if text[0] == "-" else total_ns
    if not INT64_MIN <= value_ns <= INT64_MAX:
        raise ValueError(invalid)
    return value_ns


def format_duration(value_ns: int) -> str:
    """A duration as Go prints it (O4): `1h0m0s`, `2m0s`, `1.5s`, `100ms`, `0s`."""
    sign, rest_ns = ("-", -value_ns) if value_ns < 0 else ("", value_ns)
    if rest_ns == 0:
        return "0s"
    if rest_ns < MICROSECOND_NS:
        return f"{sign}{rest_ns}ns"
    if rest_ns < MILLISECOND_NS:
        return f"{sign}{_decimal(rest_ns, MICROSECOND_NS)}\u00b5s"
    if rest_ns < SECOND_NS:
        return f"{sign}{_decimal(rest_ns, MILLISECOND_NS)}ms"
    minutes, seconds_ns = divmod(rest_ns, MINUTE_NS)
    hours, minutes_left = divmod(minutes, 60)
    head = f"{hours}h{minutes_left}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_decimal(seconds_ns, SECOND_NS)}s"


def parse_size(text: str) -> int:
    """Bytes of a size (O5): an integer with an optional suffix; `1k` = 1000, `1KB` = 1024, any case.

    Raises ValueError without a useful text: the message names the option as it was typed, which only the caller knows.
    """
    match = _SIZE.fullmatch(text)
    if match is None or not text.isascii():
        raise ValueError("not a size")
    number, prefix, binary = match.groups()
    if len(number) > _INT64_DIGITS + 1:
        raise ValueError("size out of range")
    exponent = _PREFIXES.index(prefix.lower()) + 1 if prefix else 0
    factor: int = (1024 if binary else 1000) ** exponent
    value = int(number) * factor
    if not INT64_MIN <= value <= INT64_MAX:
        raise ValueError("size out of range")
    return value


def format_size(value: int) -> str:
    """The shortest size that reads back as `value` bytes: binary suffixes first, then decimal ones, else plain."""
    for factor, ending in ((1024, "B"), (1000, "")):
        for exponent in range(len(_PREFIXES), 0, -1):
            unit = factor**exponent
            if value and value % unit == 0:
                return f"{value // unit}{_PREFIXES[exponent - 1].upper()}{ending}"
    return str(value)


def friendly_bytes(value: int) -> str:
    """Bytes for humans (O212): `500 B`, else two decimals and `KB MB GB TB PB EB` in powers of 1024."""
    if value < 1024:
        return f"{value} B"
    exponent = min((value.bit_length() - 1) // 10, len(_PREFIXES))
    return f"{value / (1 << 10 * exponent):.2f} {_PREFIXES[exponent - 1].upper()}B"


def quote(text: str) -> str:
    """`text` in double quotes with Go's escapes, so that a message stays on one line."""
    return '"' + "".join(_ESCAPES.get(char) or _escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of argv that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _decimal(value: int, unit: int) -> str:
    """`value / unit` exactly, without trailing zeros. `unit` is a power of ten."""
    whole, part = divmod(value, unit)
    digits = str(part).zfill(len(str(unit)) - 1).rstrip("0")
    return f"{whole}.{digits}" if part else str(whole)
