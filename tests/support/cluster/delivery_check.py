"""Compares what one subscription got with a small reference of STAN delivery: R9 to R16. Pure.

Written from the behaviour text, not from the server. The reference sees only what the client sees, and messages and acks
may get lost on broken links (B237, B369). So the rules come in two strengths:

always  R9 new messages rise, as long as no path can hold old ones back; R10 everything arrives in the end; R13 and R16 a
        sequence comes unflagged at most once, to one member; R16 the flag goes with the count (B272)
calm    R9 nothing is skipped; R11 and R12 what was acked does not come again; R14 no more unacked than MaxInFlight, and
        no redelivery before AckWait; R15 nothing after the end; R16 the count rises (B271)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, assert_never

from tests.support.cluster.calm import Calm
from tests.support.history import SHOWN_EXAMPLES, Violation

SECOND_NS: Final = 1_000_000_000

ACK_SETTLES_NS: Final = 2 * SECOND_NS
"""An ack in calm is replicated by then, and what was on its way before it has arrived."""

SURE_NS: Final = SECOND_NS
"""An ack counts as received when it was calm for this long before and after it."""

EARLY_NS: Final = SECOND_NS // 2
"""A client may measure a redelivery this much too early: the first delivery waited longer in its queue."""


class Kind(StrEnum):
    """Which rules hold."""

    PLAIN = "plain"
    DURABLE = "durable"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to a subscribe request came. A resumed durable or group is opened again, each time as a new member."""

    at_ns: int
    member: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message came to a member."""

    at_ns: int
    member: str
    sequence: int
    redelivered: bool
    count: int
    unique_id: str


@dataclass(frozen=True, slots=True)
class Acked:
    """A member sent an ack."""

    at_ns: int
    member: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer to a close or unsubscribe request came."""

    at_ns: int
    member: str


Event = Opened | Received | Acked | Ended


@dataclass(slots=True)
class Recording:
    """All events of one subscription, durable or group over its whole life, in order of time."""

    name: str
    channel: str
    kind: Kind
    max_in_flight: int
    ack_wait_ns: int
    start_sequence: int = 1
    events: list[Event] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    """Sequences received so far."""

    def add(self, event: Event) -> None:
        """Notes what just happened."""
        self.events.append(event)
        if isinstance(event, Received):
            self.seen.add(event.sequence)

    def missing(self, last_sequence: int) -> list[int]:
        """R10: what has to come and has not."""
        return [seq for seq in range(self.start_sequence, last_sequence + 1) if seq not in self.seen]


def check(recording: Recording, last_sequence: int, calm: Calm, *, holds_back: bool) -> list[Violation]:
    """Violations of R9 to R16.

    Args:
        recording: One subscription's events; the run is over and drained.
        last_sequence: Of the channel.
        calm: When nothing was broken.
        holds_back: Whether a fault of the run can hold messages back on their way (paused processes, broken links), so
            that those of an old leader arrive behind those of a new one.

    """
    found = list(_Reference(recording, calm, holds_back=holds_back).replay())
    missing = recording.missing(last_sequence)
    if missing:
        found.append(("R10", f"{len(missing)} messages never came, first {missing[:SHOWN_EXAMPLES]}"))
    return _summarise(recording, found)


def _summarise(recording: Recording, found: Sequence[tuple[str, str]]) -> list[Violation]:
    """One violation for each invariant, with a few examples."""
    by_invariant: dict[str, list[str]] = {}
    for invariant, text in found:
        by_invariant.setdefault(invariant, []).append(text)
    return [
        Violation(invariant, recording.channel, f"{recording.name}: {len(texts)} times: {'; '.join(texts[:3])}")
        for invariant, texts in sorted(by_invariant.items())
    ]


class _Reference:
    """What the client knows at one moment of the replay."""

    def __init__(self, recording: Recording, calm: Calm, *, holds_back: bool) -> None:
        self._recording = recording
        self._calm = calm
        self._holds_back = holds_back
        self._opened_ns: dict[str, int] = {}
        self._ended_ns: dict[str, int] = {}
        self._last: dict[int, Received] = {}
        self._first_unflagged: dict[int, Received] = {}
        self._highest_new: dict[str, Received] = {}
        self._highest = recording.start_sequence - 1
        self._previous_ns: int | None = None
        self._surely_acked_ns: dict[int, int] = {}
        self._held: set[int] = set()

    def replay(self) -> Iterator[tuple[str, str]]:
        """Invariant and text of each violation."""
        for event in self._recording.events:
            match event:
                case Opened():
                    self._opened_ns[event.member] = event.at_ns
                    self._previous_ns = self._previous_ns or event.at_ns
                case Received():
                    yield from self._check_flag(event)
                    yield from self._check_end(event)
                    yield from self._check_new(event)
                    yield from self._check_again(event)
                    self._note(event)
                case Acked():
                    self._ack(event)
                case Ended():
                    self._ended_ns[event.member] = event.at_ns
                case _:
                    assert_never(event)

    def _note(self, event: Received) -> None:
        self._last[event.sequence] = event
        self._highest = max(self._highest, event.sequence)
        self._previous_ns = event.at_ns
        self._held.add(event.sequence)
        if not event.redelivered:
            self._first_unflagged.setdefault(event.sequence, event)
            highest = self._highest_new.get(event.member)
            if highest is None or event.sequence > highest.sequence:
                self._highest_new[event.member] = event

    def _ack(self, event: Acked) -> None:
        self._held.discard(event.sequence)
        if event.member not in self._ended_ns and self._calm.covers(event.at_ns - SURE_NS, event.at_ns + SURE_NS):
            self._surely_acked_ns.setdefault(event.sequence, event.at_ns)

    def _check_flag(self, event: Received) -> Iterator[tuple[str, str]]:
        if event.redelivered != (event.count > 0):
            yield "R16", f"sequence {event.sequence}: redelivered={event.redelivered} with count {event.count}"

    def _check_end(self, event: Received) -> Iterator[tuple[str, str]]:
        ended_ns = self._ended_ns.get(event.member)
        if ended_ns is None:
            return
        # Only what was sent after the end counts; in calm everything sent before has arrived by the answer.
        if self._calm.covers(max(ended_ns, event.at_ns - ACK_SETTLES_NS), event.at_ns):
            late_ms = (event.at_ns - ended_ns) / 1e6
            yield "R15", f"sequence {event.sequence} came to {event.member} {late_ms:.0f} ms after its end"

    def _check_new(self, event: Received) -> Iterator[tuple[str, str]]:
        """Of unflagged messages."""
        if event.redelivered:
            return
        recording, seq = self._recording, event.sequence
        before = self._first_unflagged.get(seq)
        if before is not None:
            invariant = "R13" if recording.kind is Kind.GROUP and before.member != event.member else "R16"
            yield invariant, f"sequence {seq} came unflagged to {before.member} and to {event.member}"
        last = self._last.get(seq)
        if before is None and last is not None and self._is_ordered(last.at_ns, event.at_ns):
            yield "R16", f"sequence {seq} came unflagged to {event.member} after a redelivery to {last.member}"
        highest = self._highest_new.get(event.member)
        is_lower = highest is not None and seq < highest.sequence
        if highest is not None and is_lower and self._is_ordered(highest.at_ns, event.at_ns):
            yield "R9", f"new message {seq} came to {event.member} after {highest.sequence}"
        if recording.kind is Kind.GROUP:
            return  # what a member does not get goes to another one, and what each holds is not seen at one place
        if (
            self._previous_ns is not None
            and seq > self._highest + 1
            and self._calm.covers(self._previous_ns - SURE_NS, event.at_ns)
        ):
            yield "R9", f"new message {seq} came to {event.member} after {self._highest}: skipped"
        held = len(self._held | {seq})
        if held > recording.max_in_flight and self._calm.covers(event.at_ns - recording.ack_wait_ns, event.at_ns):
            yield "R14", f"new message {seq} came to {event.member} with {held} unacked of {recording.max_in_flight}"

    def _check_again(self, event: Received) -> Iterator[tuple[str, str]]:
        """Of messages that came before."""
        acked_ns = self._surely_acked_ns.get(event.sequence)
        if acked_ns is not None and event.at_ns > acked_ns + ACK_SETTLES_NS:
            is_resumed = self._opened_ns.get(event.member, 0) > acked_ns
            late_ms = (event.at_ns - acked_ns) / 1e6
            text = f"sequence {event.sequence} came to {event.member} {late_ms:.0f} ms after its ack"
            yield "R12" if is_resumed else "R11", text
        last = self._last.get(event.sequence)
        if last is None or not event.redelivered or not self._calm.covers(last.at_ns - SURE_NS, event.at_ns):
            return
        if event.count <= last.count:
            yield "R16", f"sequence {event.sequence}: count {event.count} after {last.count}"
        is_due_ns = last.at_ns + self._recording.ack_wait_ns - EARLY_NS
        if self._recording.kind is not Kind.GROUP and last.member == event.member and event.at_ns < is_due_ns:
            early_ms = (event.at_ns - last.at_ns) / 1e6
            yield "R14", f"sequence {event.sequence} came again to {event.member} after {early_ms:.0f} ms"

    def _is_ordered(self, start_ns: int, end_ns: int) -> bool:
        """Whether messages of this time arrive in the order they were sent."""
        return not self._holds_back or self._calm.covers(start_ns, end_ns)
