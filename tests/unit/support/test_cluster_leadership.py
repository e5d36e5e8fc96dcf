"""Leaderships are read from the log as it is, and two that overlap are found (R7)."""

import time
from datetime import datetime

import pytest

from tests.support.cluster.leadership import (
    BECAME_TEXT,
    HELD_TEXT,
    LEADS_TEXT,
    LOST_TEXT,
    READY_TEXT,
    RELEASED_TEXT,
    Leadership,
    NodeLog,
    check,
    leaderships,
    leads_since,
    moment_of,
)
from tests.support.cluster.processes import Line, Run

S = 1_000_000_000


def lines(*texts: str) -> list[Line]:
    """One line each second, from second 1 on."""
    return [Line(number * S, text) for number, text in enumerate(texts, start=1)]


def log_of(*texts: str, ended_ns: int | None = None) -> NodeLog:
    """Of one run."""
    return NodeLog(lines(*texts), [Run(1, 0, 0, ended_ns)], [])


def served(log: NodeLog) -> list[tuple[int | None, int, int]]:
    """Term, start and end in seconds."""
    found = leaderships("a", log, now_ns=100 * S, wall_offset_ns=None)
    return [(one.term, one.start_ns // S, one.end_ns // S) for one in found]


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (log_of(f"{BECAME_TEXT} term=3", f"{LEADS_TEXT} term=3", LOST_TEXT), [(3, 2, 3)]),
        (log_of(f"{BECAME_TEXT} term=3", LEADS_TEXT), [(3, 2, 100)]),
        (log_of(f"{LEADS_TEXT} term=3", ended_ns=7 * S), [(3, 1, 7)]),
        (log_of(f"{BECAME_TEXT} term=3", LOST_TEXT, f"{LEADS_TEXT} term=4"), [(4, 3, 100)]),
        (log_of(LEADS_TEXT), [(None, 1, 100)]),
        (
            log_of(f"{LEADS_TEXT} term=3", f"{HELD_TEXT} term=3", "x", f"{RELEASED_TEXT} term=3", LOST_TEXT),
            [(3, 1, 2), (3, 4, 5)],
        ),
        (log_of(f"{LEADS_TEXT} term=3", f"{HELD_TEXT}: silent term=3", LOST_TEXT), [(3, 1, 2)]),
        (log_of("something else"), []),
    ],
    ids=["whole", "goes-on", "killed", "never-began", "no-term", "held", "held-and-lost", "none"],
)
def test_serving_times_are_read_from_the_log(log: NodeLog, expected: list[tuple[int | None, int, int]]) -> None:
    """O423 and B401: from the end of the promotion to the loss, without the times of silence."""
    assert served(log) == expected


def test_leaderships_of_earlier_runs_end_with_their_run() -> None:
    """A restart begins anew."""
    log = NodeLog(
        lines(f"{LEADS_TEXT} term=1", "start", f"{LEADS_TEXT} term=2"), [Run(1, 0, 0, 2 * S), Run(2, 1, 2 * S)], []
    )
    assert served(log) == [(1, 1, 2), (2, 3, 100)]


def test_current_leader_is_known_from_its_last_line() -> None:
    """A standalone server leads when it is ready (O211)."""
    assert leads_since(lines(LEADS_TEXT, READY_TEXT)) == 2 * S
    assert leads_since(lines(LEADS_TEXT, LOST_TEXT)) is None
    assert leads_since(lines("something else")) is None


def test_stamp_of_a_line_counts_more_than_its_arrival() -> None:
    """O190: local time with microseconds; a line without stamp counts when it arrived."""
    offset_ns = time.time_ns() - time.monotonic_ns()
    written = datetime(2026, 11, 24, 13, 20, 10, 500140).astimezone()
    line = Line(5, "[12] 2026/11/24 13:20:10.500140 [INF] STREAM: x")
    assert moment_of(line, offset_ns) == round(written.timestamp() * 1e6) * 1000 - offset_ns
    assert moment_of(line, None) == 5
    assert moment_of(Line(5, "no stamp"), offset_ns) == 5


def test_terms_one_after_the_other_are_right() -> None:
    """R7: each ends before the next begins; one node may serve a term in pieces."""
    found = [Leadership("a", 1, 0, 5 * S), Leadership("b", 2, 6 * S, 8 * S), Leadership("b", 2, 9 * S, 10 * S)]
    assert check(found, {}) == []


@pytest.mark.parametrize(
    "found",
    [
        [Leadership("a", 1, 0, 7 * S), Leadership("b", 2, 6 * S, 8 * S)],
        [Leadership("a", 1, 0, 5 * S), Leadership("b", 1, 6 * S, 8 * S)],
        [Leadership("a", None, 0, 5 * S)],
    ],
    ids=["overlap", "same-term", "unknown-term"],
)
def test_two_leaders_are_found(found: list[Leadership]) -> None:
    """R7; terms that are not told are not taken for right."""
    assert [violation.invariant for violation in check(found, {})] == ["R7"]


@pytest.mark.parametrize(
    ("pause", "is_right"),
    [((5 * S, 9 * S), True), ((5 * S, None), True), ((5 * S, 7 * S), False), ((7 * S, 8 * S), False), ((1, 2), False)],
)
def test_paused_leader_does_not_act(pause: tuple[int, int | None], is_right: bool) -> None:
    """F3: a stopped leader may believe to lead, if the pause covers the overlap up to a moment after waking up."""
    found = [Leadership("a", 1, 0, 10 * S), Leadership("b", 2, 6 * S, 12 * S)]
    assert (check(found, {"a": [pause]}) == []) is is_right
