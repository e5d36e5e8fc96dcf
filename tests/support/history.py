"""Decides whether what readers saw agrees with what publishers did: R1 to R5, by sorting. Pure.

Every publish has a unique id, its payload. Its result is ok, error or unknown; a timeout is unknown, never error
(the message may be in the log, B214, B402). Times are nanoseconds of one monotonic clock.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SHOWN_EXAMPLES = 5
"""Ids or sequences named in one violation's text; its count is always exact."""


class Outcome(StrEnum):
    """What the publisher knows about one publish."""

    OK = "ok"
    ERROR = "error"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Publish:
    """One publish; `returned_ns` is None while its outcome is unknown."""

    worker: str
    channel: str
    unique_id: str
    invoked_ns: int
    returned_ns: int | None = None
    outcome: Outcome = Outcome.UNKNOWN


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: the invariant's id and what was seen."""

    invariant: str
    channel: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.channel}: {self.text}"


@dataclass(slots=True)
class History:
    """All publishes of a run, by unique id, in the order of invocation."""

    publishes: dict[str, Publish] = field(default_factory=dict)

    def invoke(self, worker: str, channel: str, unique_id: str, now_ns: int) -> None:
        """Notes a publish at the moment before it is sent."""
        assert unique_id not in self.publishes, f"id {unique_id!r} is used twice"
        self.publishes[unique_id] = Publish(worker, channel, unique_id, now_ns)

    def returned(self, unique_id: str, outcome: Outcome, now_ns: int) -> None:
        """Notes the answer; without this call the outcome stays unknown."""
        publish = self.publishes[unique_id]
        publish.outcome = outcome
        publish.returned_ns = now_ns

    def count(self, outcome: Outcome) -> int:
        """Number of publishes with this outcome."""
        return sum(publish.outcome is outcome for publish in self.publishes.values())

    def channels(self) -> list[str]:
        """Channels that were published to, sorted."""
        return sorted({publish.channel for publish in self.publishes.values()})


def check(history: History, read: Mapping[str, Iterable[tuple[int, str]]]) -> list[Violation]:
    """Violations of R1 to R5 by `read`: per channel what a fresh reader got from the first message on.

    A pair is (sequence, unique id); pairs may repeat (redelivery) and come in any order.
    """
    found: list[Violation] = []
    for channel in sorted({*history.channels(), *read}):
        pairs = list(read.get(channel, ()))
        found += _check_sequences(channel, pairs)
        by_sequence = dict(sorted(pairs))
        found += _check_sets(history, channel, list(by_sequence.values()))
        found += _check_order(history, channel, by_sequence)
    return found


def compare_readers(channel: str, readers: Iterable[Iterable[tuple[int, str]]]) -> list[Violation]:
    """Violations of R4: two readers (or nodes, or runs before and after a restart) see another id at one sequence."""
    agreed: dict[int, str] = {}
    differing: set[int] = set()
    for pairs in readers:
        for sequence, unique_id in pairs:
            if agreed.setdefault(sequence, unique_id) != unique_id:
                differing.add(sequence)
    if not differing:
        return []
    return [Violation("R4", channel, f"{len(differing)} sequences differ between readers: {_some(differing)}")]


def _check_sequences(channel: str, pairs: list[tuple[int, str]]) -> list[Violation]:
    """R3 and R4 within one reader: sequences are 1..n, each with one content."""
    found = compare_readers(channel, [pairs])
    sequences = {sequence for sequence, _ in pairs}
    missing = set(range(1, max(sequences, default=0) + 1)) - sequences
    if missing:
        found.append(Violation("R3", channel, f"{len(missing)} sequences are missing: {_some(missing)}"))
    if any(sequence < 1 for sequence in sequences):
        found.append(Violation("R3", channel, f"a sequence is below 1: {min(sequences)}"))
    return found


def _check_sets(history: History, channel: str, read_ids: list[str]) -> list[Violation]:
    """R1: acked ids were read. R2: read ids were published there, and not twice."""
    found = []
    invoked = {p.unique_id: p for p in history.publishes.values() if p.channel == channel}
    seen = set(read_ids)
    lost = {unique_id for unique_id, p in invoked.items() if p.outcome is Outcome.OK and unique_id not in seen}
    foreign = seen - invoked.keys()
    doubled = {unique_id for unique_id, times in Counter(read_ids).items() if times > 1}
    if lost:
        found.append(Violation("R1", channel, f"{len(lost)} acked messages are lost: {_some(lost)}"))
    if foreign:
        found.append(Violation("R2", channel, f"{len(foreign)} messages were never published: {_some(foreign)}"))
    if doubled:
        found.append(Violation("R2", channel, f"{len(doubled)} messages are stored twice: {_some(doubled)}"))
    return found


def _check_order(history: History, channel: str, by_sequence: Mapping[int, str]) -> list[Violation]:
    """R5: nothing is stored before a message that was acked before it was sent; a worker's publishes keep their order."""
    found = []
    smallest_return_ns: int | None = None
    stale = set()
    for unique_id in reversed(list(by_sequence.values())):
        publish = history.publishes.get(unique_id)
        if publish is None:
            continue
        if smallest_return_ns is not None and publish.invoked_ns > smallest_return_ns:
            stale.add(unique_id)
        if publish.outcome is Outcome.OK and publish.returned_ns is not None:
            smallest_return_ns = min(publish.returned_ns, smallest_return_ns or publish.returned_ns)
    if stale:
        found.append(Violation("R5", channel, f"{len(stale)} messages are before one acked earlier: {_some(stale)}"))
    order = {unique_id: position for position, unique_id in enumerate(history.publishes)}
    last_of_worker: dict[str, int] = {}
    swapped = set()
    for unique_id in by_sequence.values():
        publish = history.publishes.get(unique_id)
        if publish is None:
            continue
        position = order[unique_id]
        if position < last_of_worker.get(publish.worker, -1):
            swapped.add(unique_id)
        last_of_worker[publish.worker] = position
    if swapped:
        found.append(
            Violation("R5", channel, f"{len(swapped)} messages of one worker are out of order: {_some(swapped)}")
        )
    return found


def _some(items: set[int] | set[str]) -> str:
    shown = ", ".join(str(item) for item in sorted(items)[:SHOWN_EXAMPLES])
    return shown + (", …" if len(items) > SHOWN_EXAMPLES else "")
