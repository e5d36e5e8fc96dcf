"""Reads a command line by the grammar of Go's `flag` package (O1-O8). Pure.

One or two dashes, value behind `=` or in the next word, booleans alone or with `=`; parsing stops at the first word
that is no option or behind `--`; the last occurrence wins. Texts of errors are Go's (O9): scripts know them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from server.config.units import parse_duration, parse_integer, quote

FlagValue = bool | int | str | tuple[str, ...]
"""Parsed value: durations are nanoseconds, sizes still the text as typed (see `Kind.SIZE`)."""

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


class Kind(StrEnum):
    """What a flag takes."""

    BOOL = "bool"
    INTEGER = "int"
    STRING = "string"
    DURATION = "duration"
    SIZE = "size"
    """Taken as text here: in the original a bad size is an error of evaluation, not of syntax (O5, O10)."""
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Flag:
    """One option of the command line: the names it goes by, what it takes and where the value goes.

    `target` is a field of the options; None means known from the original and refused by this version. `default` is
    the default as the help text prints it, empty when nothing is set.
    """

    names: tuple[str, ...]
    kind: Kind
    target: str | None = None
    section: str = ""
    placeholder: str = ""
    meaning: str = ""
    default: str = ""

    def dashed(self, name: str) -> str:
        """One of `names` as the help text writes it: `-cid` but `--cluster_id`, `-SDV` but `--dir`."""
        is_short = len(name) == 1 or (
            len(name) <= 3 and name == self.names[0] and (len(self.names) > 1 or name.isupper())
        )
        return f"-{name}" if is_short else f"--{name}"


@dataclass(frozen=True, slots=True)
class ParsedLine:
    """`given` maps the name as typed to its last value, in the order of these last occurrences; `words` is the rest."""

    given: dict[str, FlagValue]
    words: tuple[str, ...]


class FlagError(Exception):
    """The command line is malformed. The text is Go's, to be followed by the usage text (O9)."""


def parse(argv: Sequence[str], flags: Iterable[Flag]) -> ParsedLine:
    """Split `argv`, without the program's name, into options and stray words. Raises FlagError."""
    by_name = {name: flag for flag in flags for name in flag.names}
    given: dict[str, FlagValue] = {}
    position = 0
    while position < len(argv):
        word = argv[position]
        if len(word) < 2 or word[0] != "-":
            break
        position += 1
        if word == "--":
            break
        body = word[2:] if word[1] == "-" else word[1:]
        if not body or body[0] in "-=":
            raise FlagError(f"bad flag syntax: {word}")
        name, equals, text = body.partition("=")
        flag = by_name.get(name)
        if flag is None:
            raise FlagError(f"flag provided but not defined: -{name}")
        if flag.kind is Kind.BOOL:
            value: FlagValue = _boolean(name, text) if equals else True
        else:
            if not equals:
                if position == len(argv):
                    raise FlagError(f"flag needs an argument: -{name}")
                text = argv[position]
                position += 1
            value = _value(flag.kind, name, text)
        given.pop(name, None)
        given[name] = value
    return ParsedLine(given, tuple(argv[position:]))


def _boolean(name: str, text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise FlagError(f"invalid boolean value {quote(text)} for -{name}: parse error")


def _value(kind: Kind, name: str, text: str) -> FlagValue:
    match kind:
        case Kind.STRING | Kind.SIZE:
            return text
        case Kind.LIST:
            return tuple(item.strip() for item in text.split(",") if item.strip())
        case Kind.INTEGER:
            try:
                return parse_integer(text)
            except ValueError as error:
                raise FlagError(f"invalid value {quote(text)} for flag -{name}: {error}") from error
        case Kind.DURATION:
            try:
                return parse_duration(text)
            except ValueError as error:
                # Go's flag package hides the reason of a duration.
                raise FlagError(f"invalid value {quote(text)} for flag -{name}: parse error") from error
        case Kind.BOOL:
            raise AssertionError(f"boolean -{name} takes no next word")
        case _:
            assert_never(kind)
