"""Covers server/natsd/output.py."""

import pytest

from server.natsd.output import LINE_MAX_BYTES, Lines, parse


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        ("[7] [INF] Server is ready", "INF", "Server is ready"),
        ("[7] [FTL] Error listening on port: 1", "FTL", "Error listening on port: 1"),
        ("[7] [TRC] [cid:1] - <<- [PUB a [b] 1]", "TRC", "[cid:1] - <<- [PUB a [b] 1]"),
        ("[7] 2026/11/24 06:00:00.123456 [WRN] late", "WRN", "late"),
        ("[7] [INF] ", "INF", ""),
        ("panic: oh", "INF", "panic: oh"),
        ("nats-server: x.conf:1:1: unknown field", "INF", "nats-server: x.conf:1:1: unknown field"),
        ("[x] [ERR] no pid", "INF", "[x] [ERR] no pid"),
    ],
)
def test_level_and_text(line: str, level: str, text: str) -> None:
    """O117: `[pid] [LVL] text` keeps its level; anything else is level INF."""
    assert parse(line) == (level, text)


OUTPUT = b"one\r\ntwo\n\nthr\xffee\nrest"
LINES = ["one", "two", "thr\\xffee", "rest"]


@pytest.mark.parametrize("step", [1, 2, 5, len(OUTPUT)])
def test_lines_do_not_depend_on_the_reads(step: int) -> None:
    """Whole or byte by byte, the same lines come out; empty ones are left out; the last needs no line end."""
    lines = Lines()
    found = [line for at in range(0, len(OUTPUT), step) for line in lines.feed(OUTPUT[at : at + step])]
    assert found + lines.end() == LINES
    assert lines.end() == []


def test_endless_line_is_handed_on_in_pieces() -> None:
    """What the child prints does not fill our memory."""
    lines = Lines()
    found = [line for _ in range(5) for line in lines.feed(b"x" * LINE_MAX_BYTES)] + lines.end()
    assert [len(line) for line in found] == [LINE_MAX_BYTES] * 5
