"""Reads docker-compose.yml: the part of YAML that it keeps to, and nothing else, so that no YAML library is needed.

Maps and lists by indentation, texts plain or in double quotes, texts of several lines behind `>-`, comments on lines of
their own. Anything else raises ComposeError: an anchor, a flow list or a tab would be YAML, too, but is not understood here.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

Node = dict[str, "Node"] | list[str] | str | None

_ENTRY = re.compile(r"(?P<key>[A-Za-z0-9_.-]+):(?: (?P<value>\S.*))?")
_PLAIN = re.compile(r"[A-Za-z0-9/$][^#\"'\t]*(?<!:)")


class ComposeError(Exception):
    """A line is not of the part of YAML that is understood."""

    def __init__(self, line: str) -> None:
        super().__init__(f"not understood: {line!r}")
        self.line = line


@dataclass(frozen=True, slots=True)
class _Line:
    indent: int
    text: str


def read_compose(path: Path) -> dict[str, Node]:
    """The content of the file. Raises ComposeError."""
    return parse_compose(path.read_text(encoding="utf-8"))


def parse_compose(text: str) -> dict[str, Node]:
    """The content of such a text."""
    lines = [
        _Line(len(line) - len(line.lstrip(" ")), line.strip(" "))
        for line in text.splitlines()
        if line.strip() and not line.lstrip(" ").startswith("#")
    ]
    found = _block(lines, 0)
    if lines or not isinstance(found, dict):
        raise ComposeError(lines[0].text if lines else text)
    return found


def _block(lines: list[_Line], indent: int) -> Node:
    """Takes the lines of one map or list, indented by `indent`."""
    if lines[0].text.startswith("- "):
        items = []
        while lines and lines[0].indent == indent and lines[0].text.startswith("- "):
            items.append(_scalar(lines.pop(0).text[2:]))
        return items
    entries: dict[str, Node] = {}
    while lines and lines[0].indent == indent:
        line = lines.pop(0)
        match = _ENTRY.fullmatch(line.text)
        if match is None or match["key"] in entries:
            raise ComposeError(line.text)
        entries[match["key"]] = _value(match["value"], lines, indent)
    return entries


def _value(text: str | None, lines: list[_Line], indent: int) -> Node:
    is_deeper = bool(lines) and lines[0].indent > indent
    if text == ">-":
        inner = lines[0].indent
        words = []
        while lines and lines[0].indent > indent:
            if lines[0].indent != inner:
                raise ComposeError(lines[0].text)
            words.append(lines.pop(0).text)
        return " ".join(words)
    if text is not None:
        return _scalar(text)
    return _block(lines, lines[0].indent) if is_deeper else None


def _scalar(text: str) -> str:
    if text.startswith('"'):
        try:
            value = json.loads(text)
        except ValueError:
            raise ComposeError(text) from None
        return str(value)
    if _PLAIN.fullmatch(text) is None or ": " in text:
        raise ComposeError(text)
    return text
