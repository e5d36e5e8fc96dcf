"""Cuts the child's output into lines and reads their level (O117). Pure."""

import re
from typing import Final

LINE_MAX_BYTES: Final = 64 * 1024
"""A longer line is handed on in pieces: what the child prints must not fill our memory."""

PLAIN_LEVEL: Final = "INF"
"""Level of what is no log line, for instance the trace of a panic. Source: O117."""

_LINE: Final = re.compile(r"\[\d+\] (?:\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d+ )?\[([A-Z]{3})\] (.*)", re.DOTALL)


def parse(line: str) -> tuple[str, str]:
    """Level label and text of a line `[pid] [LVL] text`; anything else is a text of level INF."""
    match = _LINE.fullmatch(line)
    return (match[1], match[2]) if match is not None else (PLAIN_LEVEL, line)


class Lines:
    """Joins reads to lines. Invariant: at most `LINE_MAX_BYTES` are held back."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, without line ends; empty ones are left out."""
        *complete, rest = (self._rest + data).split(b"\n")
        while len(rest) > LINE_MAX_BYTES:
            complete.append(rest[:LINE_MAX_BYTES])
            rest = rest[LINE_MAX_BYTES:]
        self._rest = rest
        return [text for line in complete if (text := _decoded(line))]

    def end(self) -> list[str]:
        """What was held back; the output has ended."""
        rest, self._rest = self._rest, b""
        text = _decoded(rest)
        return [text] if text else []


def _decoded(line: bytes) -> str:
    return line.decode(errors="backslashreplace").rstrip("\r")
