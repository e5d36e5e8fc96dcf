"""Checks that several models of options share. Pure."""

import re
from typing import Final

from pydantic import BaseModel, ConfigDict

from .option_error import OptionError
from .units import format_duration, quote

SUBJECT_ALLOWED: Final = "a name without blanks, wildcards and empty parts between dots"
"""What `check_subject` demands, for operators. Source: B67."""

_SUBJECT = re.compile(r"[^\s*>.\x00-\x20\x7f]+(?:\.[^\s*>.\x00-\x20\x7f]+)*")


class Frozen(BaseModel):
    """Strict and immutable: values come from our own parsers, so a wrong type is a bug, not input."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def check_subject(name: str, kind: str, option: str) -> None:
    """It becomes part of subjects: no blanks, wildcards or empty tokens (B67). Raises OptionError."""
    if is_utf8(name) and _SUBJECT.fullmatch(name) is not None:
        return
    raise OptionError(
        f"invalid {kind} {quote(name)}: it must be {SUBJECT_ALLOWED}",
        option=option,
        value=name,
        allowed=SUBJECT_ALLOWED,
    )


def check_count(option: str, value: int, least: int) -> None:
    """A count must be `least` or more. Raises OptionError."""
    _check(option, value, least, str(value), f"{least} or more")


def check_positive_duration(option: str, value_ns: int) -> None:
    """A duration must be longer than nothing. Raises OptionError."""
    _check(option, value_ns, 1, format_duration(value_ns), "positive")


def is_utf8(text: str) -> bool:
    """False for text with surrogates, which is how Python passes on other bytes of the command line."""
    return not any(0xD800 <= ord(char) <= 0xDFFF for char in text)


def _check(option: str, value: int, least: int, shown: str, allowed: str) -> None:
    if value < least:
        raise OptionError(
            f"option {option} must be {allowed}, got {shown}", option=option, value=shown, allowed=allowed
        )
