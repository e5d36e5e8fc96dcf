"""Applies the records of a journal to the log they were recorded for, one after the other. Pure.

Rule: a record that this log could not have emitted is refused, whatever its checksum says.
State: the entries held are the last ones before `next_index`; those of files trimmed away are not among them.
"""

from dataclasses import dataclass, field
from typing import assert_never

from .log import BASE_COMMAND, LogEntry
from .record import Entry, Record, Reset, State, Trim, Truncate, Vote


@dataclass(slots=True)
class ReplayedLog:
    """The log as far as it was replayed. `first_index` is the first entry still needed."""

    entries: list[LogEntry] = field(default_factory=list)
    term: int = 0
    voted_for: str | None = None
    first_index: int = 1
    next_index: int = 1

    @property
    def start_index(self) -> int:
        """Index of the first entry held, or of the next one if none is."""
        return self.next_index - len(self.entries)

    def begin(self, state: State) -> str | None:
        """Begin where older files have ended; what would have been right if that cannot be."""
        if not 0 <= state.first_index <= state.next_index:
            return "a first index up to the next one"
        self.term, self.voted_for = state.term, state.voted_for
        self.first_index, self.next_index = state.first_index, state.next_index
        return None

    def apply(self, record: Record) -> str | None:
        """Change the log; what would have been right if it cannot be changed so."""
        match record:
            case Entry():
                problem = self._append(record)
            case Truncate():
                problem = self._truncate(record.index)
            case Vote():
                problem = self._vote(record)
            case Reset():
                problem = self._reset(record)
            case Trim():
                problem = self._trim(record.index)
            case State():
                state = State(self.term, self.voted_for, self.first_index, self.next_index)
                problem = None if record == state else str(state)
            case _:
                assert_never(record)
        return problem

    def _append(self, entry: Entry) -> str | None:
        if entry.index != self.next_index:
            return f"entry {self.next_index}"
        if self.entries and entry.term < self.entries[-1][2]:
            return f"an entry of term {self.entries[-1][2]} or later"
        self.entries.append((entry.command, entry.index, entry.term))
        self.next_index += 1
        return None

    def _truncate(self, index: int) -> str | None:
        if not self.first_index < index < self.next_index:
            return f"a truncation above entry {self.first_index} and below {self.next_index}"
        del self.entries[max(0, index - self.start_index) :]
        self.next_index = index
        return None

    def _vote(self, vote: Vote) -> str | None:
        if vote.term < self.term:
            return f"a vote in term {self.term} or later"
        self.term, self.voted_for = vote.term, vote.voted_for
        return None

    def _reset(self, reset: Reset) -> str | None:
        if reset.index < 1 or reset.previous_term > reset.term:
            return "a reset to entry 1 or later, and terms that do not fall"
        self.entries = [
            (BASE_COMMAND, reset.index - 1, reset.previous_term),
            (BASE_COMMAND, reset.index, reset.term),
        ]
        self.first_index, self.next_index = reset.index - 1, reset.index + 1
        return None

    def _trim(self, index: int) -> str | None:
        if not self.first_index <= index < self.next_index:
            return f"a trim at entry {self.first_index} or above and below {self.next_index}"
        self.first_index = index
        del self.entries[: max(0, index - self.start_index)]
        return None
