"""The Raft log in memory: what PySyncObj reads and changes, and the records that make each change durable. Pure.

Rules:
- Inside `begin_append` and `end_append` only a real conflict truncates. PySyncObj drops everything behind an append's
  first entry, then adds the entries it carries; taken literally, a late or repeated append, even an empty heartbeat,
  would cut off entries that were acknowledged. So the dropped tail is set aside: an added entry with the same index and
  term is the one already held (Raft paper, section 5.3, Log Matching), and what no entry contradicted comes back.
- Records collect until `take`; one group is under way at a time, and `done` says that it is on stable storage.
- `clear` and two `add`s, as PySyncObj installs a snapshot, are one change.
Invariants: indexes grow by one without gap. `durable_index` is at most the last index, and falls with a truncation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, SupportsIndex, TypeAlias, overload

from raft.constants import ENTRY_MAX_BYTES
from raft.errors import InvariantError

from .record import (
    State,
    encode_entry_header,
    encode_reset,
    encode_trim,
    encode_truncate,
    encode_vote,
)

LogEntry: TypeAlias = tuple[bytes, int, int]
"""Command (type byte first), index, term: in PySyncObj's order."""

BASE_COMMAND: Final = b"\x7f"
"""Command of the two entries a reset log begins with. Their content is in the snapshot: never send, never apply it."""

ENTRY_OVERHEAD_BYTES: Final = 138
"""Memory of an entry beyond its command, bytes: the tuple, two integers, the header of the bytes (measured)."""

KEPT_ENTRIES_MIN: Final = 2
"""Entries a trim leaves at least: PySyncObj reads the last entry and the one before it."""


@dataclass(frozen=True, slots=True, eq=False)
class WriteGroup:
    """Records to be written and synced together, and what the files must know of them.

    `lsn` counts the log's records up to the last one here. `before` is the log's state ahead of the records, with which
    a new file begins; afterwards its last entry is `last_index`. Entries below `first_index` are not needed any more once
    the group is durable; with a reset, nothing is that was written before.
    """

    parts: Sequence[bytes]
    record_bytes: int
    lsn: int
    before: State
    first_index: int
    last_index: int
    is_reset: bool


class Log:
    """The log of one member. All calls on one thread. The upper part has PySyncObj's names and positions."""

    def __init__(self, entries: Sequence[LogEntry] = (), *, term: int = 0, voted_for: str | None = None) -> None:
        """Begin with what recovery found, all of it durable; by default with nothing."""
        self._entries: list[LogEntry] = list(entries)
        self._bytes_in_memory = _memory(self._entries)
        self._term = term
        self._voted_for = voted_for
        self._durable_index = self._last_index()

        self._is_appending = False
        self._truncated_index: int | None = None  # the lowest in this append
        self._aside: list[LogEntry] = []  # the tail set aside in this append; the first `_aside_kept` came back
        self._aside_kept = 0
        self._reset_entries: list[tuple[int, int]] | None = None  # index and term, between `clear` and the second `add`

        self._pending: list[bytes] = []
        self._lsn = self._synced = 0
        self._is_trimmed = False  # since the last trim or reset record
        self._is_reset = False  # since the last `take`
        self._taken: WriteGroup | None = None
        self._taken_index = 0  # last index of the group under way that is still in the log
        self._before = self._state()

    # PySyncObj's journal.

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LogEntry]:
        return iter(self._entries)

    @overload
    def __getitem__(self, position: SupportsIndex) -> LogEntry: ...

    @overload
    def __getitem__(self, position: slice) -> list[LogEntry]: ...

    def __getitem__(self, position: SupportsIndex | slice) -> LogEntry | list[LogEntry]:
        """Entries by position, counted from the first one held."""
        return self._entries[position]

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append one entry. `command` is kept, not copied.

        Raises InvariantError for a gap, a falling term or an entry that is too large: callers check what comes from
        outside before.
        """
        entries = self._entries
        if self._reset_entries is not None:
            self._add_to_reset(index, term)
            return
        if self._aside and self._is_held(index, term):
            return
        if entries:
            last = entries[-1]
            if index != last[1] + 1 or term < last[2]:
                raise InvariantError(f"entry {index} of term {term} added behind entry {last[1]} of term {last[2]}")
        elif index != 1:
            raise InvariantError(f"entry {index} added to an empty log; allowed: 1")
        if len(command) > ENTRY_MAX_BYTES:
            raise InvariantError(f"entry {index} has {len(command)} bytes; allowed: at most {ENTRY_MAX_BYTES}")
        entries.append((command, index, term))
        self._bytes_in_memory += len(command) + ENTRY_OVERHEAD_BYTES
        self._pending.append(encode_entry_header(command, index, term))
        self._pending.append(command)
        self._lsn += 1

    def clear(self) -> None:
        """Forget everything. The next two calls must be `add`, of the last two entries of a snapshot."""
        assert not self._aside
        self._reset_entries = []

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802
        """Drop the entries from `position` on; inside an append only what is contradicted."""
        if not 1 <= position <= len(self._entries):
            raise InvariantError(f"truncation at position {position} of {len(self._entries)}; allowed: 1 or more")
        assert not self._aside
        tail = self._entries[position:]
        del self._entries[position:]
        if self._is_appending:
            self._aside, self._aside_kept = tail, 0
        elif tail:
            self._truncated(tail)

    def deleteEntriesTo(self, position: int) -> None:  # noqa: N802
        """Trim the entries before `position`."""
        if self._entries:
            self.trim(self._entries[0][1] + position)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        """Note the current term, and for whom this node voted in it."""
        if term < self._term:
            raise InvariantError(f"term {term} noted after term {self._term}")
        if (term, votedForNodeId) != (self._term, self._voted_for):
            self._term, self._voted_for = term, votedForNodeId
            self._emit(encode_vote(term, votedForNodeId))

    def getCurrentTerm(self) -> int:  # noqa: N802
        """The current term; 0 before the first election."""
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        """For whom this node voted in the current term."""
        return self._voted_for

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        """Not kept: what is applied is in the store, and a commit index beyond the log would commit without votes."""

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        """Entry 1, the same in every log, is committed from the start; the engine takes the rest from the store."""
        return 1

    def onOneSecondTimer(self) -> None:  # noqa: N802
        """Nothing is due: records are written in groups as they come."""

    def _destroy(self) -> None:
        """Nothing to release: files belong to the writer."""

    # Appends of a leader.

    def begin_append(self) -> None:
        """An append of a leader is about to be handled. Call `end_append` in every case."""
        assert not self._is_appending
        self._is_appending = True
        self._truncated_index = None

    def end_append(self) -> int | None:
        """The append is handled: what it did not contradict belongs to the log again.

        The first index of what it did contradict, which was cut off; None if nothing was.
        """
        assert self._is_appending
        self._is_appending = False
        if self._aside:
            self._entries += self._aside[self._aside_kept :]
            self._aside = []
        return self._truncated_index

    def _is_held(self, index: int, term: int) -> bool:
        """Whether an added entry is the next one set aside, which then comes back; else a conflict is recorded."""
        held = self._aside[self._aside_kept]
        if held[1] == index and held[2] == term:
            self._entries.append(held)
            self._aside_kept += 1
            if self._aside_kept == len(self._aside):
                self._aside = []
            return True
        tail, self._aside = self._aside[self._aside_kept :], []
        self._truncated(tail)
        return False

    def _truncated(self, tail: list[LogEntry]) -> None:
        index = tail[0][1]
        self._truncated_index = index
        self._bytes_in_memory -= _memory(tail)
        self._durable_index = min(self._durable_index, index - 1)
        self._taken_index = min(self._taken_index, index - 1)
        self._emit(encode_truncate(index))

    # Snapshots and trimming.

    def reset(self, index: int, term: int, prev_term: int) -> None:
        """Begin anew behind entry `index` of `term`, whose content is in the store or a snapshot.

        `prev_term` is the term of the entry before it. Both are held as placeholders.
        """
        assert not self._aside
        if index < 1 or not 0 <= prev_term <= term:
            raise InvariantError(f"reset to entry {index} of term {term} behind term {prev_term}")
        self._entries = [(BASE_COMMAND, index - 1, prev_term), (BASE_COMMAND, index, term)]
        self._bytes_in_memory = _memory(self._entries)
        self._durable_index = self._taken_index = 0
        self._is_reset, self._is_trimmed = True, False
        self._emit(encode_reset(index, term, prev_term))

    def _add_to_reset(self, index: int, term: int) -> None:
        assert self._reset_entries is not None
        self._reset_entries.append((index, term))
        if len(self._reset_entries) == KEPT_ENTRIES_MIN:
            (previous_index, previous_term), _ = self._reset_entries
            self._reset_entries = None
            if previous_index + 1 != index:
                raise InvariantError(f"reset to entry {index} behind entry {previous_index}")
            self.reset(index, term, previous_term)

    def trim(self, index: int) -> None:
        """Forget the entries below `index`, but keep two. Recorded with the next group; on its own it starts none."""
        assert not self._is_appending
        if not self._entries:
            return
        count = min(index - self._entries[0][1], len(self._entries) - KEPT_ENTRIES_MIN)
        if count > 0:
            self._bytes_in_memory -= _memory(self._entries[:count])
            del self._entries[:count]
            self._is_trimmed = True

    @property
    def bytes_in_memory(self) -> int:
        """Memory of the entries held, bytes."""
        return self._bytes_in_memory

    # Durability.

    @property
    def lsn(self) -> int:
        """Records since the start. What a message asserts now is durable once `synced` has reached this value."""
        return self._lsn

    @property
    def synced(self) -> int:
        """Records since the start that are on stable storage, with all before them."""
        return self._synced

    @property
    def durable_index(self) -> int:
        """Index of the last entry known to be on stable storage; 0 if none is."""
        return self._durable_index

    @property
    def is_dirty(self) -> bool:
        """Whether `take` has something to write."""
        return bool(self._pending)

    def take(self) -> WriteGroup | None:
        """What has collected, to be written and synced as a whole; None if nothing has.

        The group before must be `done`.
        """
        assert self._taken is None
        assert not self._is_appending
        assert self._reset_entries is None
        if not self._pending:
            return None
        if self._is_trimmed:
            self._emit(encode_trim(self._first_index()))
            self._is_trimmed = False
        parts, self._pending = self._pending, []
        group = WriteGroup(
            parts=parts,
            record_bytes=sum(map(len, parts)),
            lsn=self._lsn,
            before=self._before,
            first_index=self._first_index(),
            last_index=self._last_index(),
            is_reset=self._is_reset,
        )
        self._before = self._state()
        self._taken, self._taken_index = group, group.last_index
        self._is_reset = False
        return group

    def done(self, group: WriteGroup) -> None:
        """`group`, the last one taken, is on stable storage."""
        assert group is self._taken
        self._taken = None
        self._synced = group.lsn
        self._durable_index = max(self._durable_index, self._taken_index)

    def _emit(self, record: bytes) -> None:
        self._pending.append(record)
        self._lsn += 1

    def _first_index(self) -> int:
        return self._entries[0][1] if self._entries else 1

    def _last_index(self) -> int:
        return self._entries[-1][1] if self._entries else 0

    def _state(self) -> State:
        return State(self._term, self._voted_for, self._first_index(), self._last_index() + 1)


def _memory(entries: Sequence[LogEntry]) -> int:
    return sum(len(command) for command, _, _ in entries) + ENTRY_OVERHEAD_BYTES * len(entries)
