"""Decides from log lines who leads, who led when, and whether two led at once (R7). Pure.

A node serves from `finished leader promotion actions` to `server lost leadership`, or to the end of the process (O423),
but not while it says that no majority confirms it (B401); a standalone server leads from its ready line on. Between the
serving of two nodes there must be a gap: a lease ends before another node can be elected.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tests.support.cluster.processes import Line, Run
from tests.support.history import Violation

BECAME_TEXT: Final = "server became leader, performing leader promotion actions"
LEADS_TEXT: Final = "finished leader promotion actions"
LOST_TEXT: Final = "server lost leadership, performing leader stepdown actions"
HELD_TEXT: Final = "no majority confirms this leader"
RELEASED_TEXT: Final = "a majority confirms this leader again"
READY_TEXT: Final = "Streaming Server is ready"

RESUME_GRACE_NS: Final = 1_000_000_000
"""After SIGCONT a stale leader needs a moment to log what it knows at once: that its lease has ended."""

LATE_LINE_NS: Final = 250_000_000
"""Overlaps up to this are a late line of a busy process: what it sends is fenced by its lease, not by the line."""

CLUSTER: Final = "cluster"
"""Stands for a channel in violations that belong to none."""

_TERM: Final = re.compile(r"\bterm=(\d+)")
_STAMP: Final = re.compile(r"^\[\d+\] (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}) ")


@dataclass(frozen=True, slots=True)
class Leadership:
    """A time in which one node served, monotonic nanoseconds. `term` is None when the lines do not tell it."""

    node: str
    term: int | None
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class NodeLog:
    """What one node's streaming server left: its lines, its runs and its pauses."""

    lines: Sequence[Line]
    runs: Sequence[Run]
    pauses: Sequence[tuple[int, int | None]]


def leads_since(lines: Sequence[Line]) -> int | None:
    """When the process with these lines became the leader it still is by them; None when it is none."""
    for line in reversed(lines):
        if LOST_TEXT in line.text:
            return None
        if LEADS_TEXT in line.text or READY_TEXT in line.text:
            return line.at_ns
    return None


def leaderships(node: str, log: NodeLog, *, now_ns: int, wall_offset_ns: int | None) -> list[Leadership]:
    """All times in which one node served, in order.

    Args:
        node: Its name.
        log: What it left.
        now_ns: End of what is still going on.
        wall_offset_ns: Wall clock minus monotonic clock, to use the lines' own stamps; None to use their arrival,
            where the wall clock is not the machine's.

    """
    found = []
    ends = [run.first_line for run in log.runs[1:]] + [len(log.lines)]
    for run, end in zip(log.runs, ends, strict=True):
        start_ns: int | None = None
        term: int | None = None
        for line in log.lines[run.first_line : end]:
            moment_ns = moment_of(line, wall_offset_ns)
            if any(text in line.text for text in (BECAME_TEXT, LEADS_TEXT, RELEASED_TEXT)):
                term = _term(line.text) or term
            if LEADS_TEXT in line.text or (RELEASED_TEXT in line.text and term is not None):
                start_ns = moment_ns
            elif start_ns is not None and (HELD_TEXT in line.text or LOST_TEXT in line.text):
                found.append(Leadership(node, term, start_ns, moment_ns))
                start_ns = None
        if start_ns is not None:
            found.append(Leadership(node, term, start_ns, run.ended_ns or now_ns))
    return found


def moment_of(line: Line, wall_offset_ns: int | None) -> int:
    """When the line was written: by its stamp (local time, microseconds, O190) if it has one, else by its arrival."""
    stamp = _STAMP.match(line.text)
    if wall_offset_ns is None or stamp is None:
        return line.at_ns
    moment = datetime.strptime(stamp.group(1), "%Y/%m/%d %H:%M:%S.%f").astimezone()
    return round(moment.timestamp() * 1_000_000) * 1000 - wall_offset_ns


def check(found: Sequence[Leadership], pauses: Mapping[str, Sequence[tuple[int, int | None]]]) -> list[Violation]:
    """Violations of R7: one term led by two nodes, or an older term's leader acting after a newer one's began.

    A paused process acts as little as a dead one: its pauses, and a moment after each, do not count.
    """
    violations = []
    unknown = [one for one in found if one.term is None]
    if unknown:
        text = f"{len(unknown)} leaderships cannot be checked, their lines carry no term=: {unknown[0]}"
        violations.append(Violation("R7", CLUSTER, text))
    known = sorted((one for one in found if one.term is not None), key=lambda one: (one.term or 0, one.start_ns))
    for index, older in enumerate(known):
        for newer in known[index + 1 :]:
            if older.term == newer.term:
                if older.node != newer.node:
                    violations.append(Violation("R7", CLUSTER, f"two leaders in one term: {older}, {newer}"))
                continue
            overlap = (newer.start_ns, older.end_ns - LATE_LINE_NS)
            if older.node != newer.node and _is_active(overlap, pauses.get(older.node, ())):
                text = f"{older} and {newer} overlap by {(older.end_ns - newer.start_ns) / 1e6:.0f} ms"
                violations.append(Violation("R7", CLUSTER, text))
    return violations


def _is_active(span: tuple[int, int], pauses: Sequence[tuple[int, int | None]]) -> bool:
    """Whether a process could act anywhere in this span, given its pauses."""
    start_ns, end_ns = span
    for paused_ns, resumed_ns in sorted(pauses, key=lambda pause: pause[0]):
        if start_ns >= end_ns or paused_ns > start_ns:
            break
        if resumed_ns is None:
            return False
        start_ns = max(start_ns, resumed_ns + RESUME_GRACE_NS)
    return start_ns < end_ns


def _term(text: str) -> int | None:
    found = _TERM.search(text)
    return int(found.group(1)) if found else None
