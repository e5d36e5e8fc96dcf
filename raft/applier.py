"""Hands committed entries to the state machine: in order, once, without gap, without the type byte.

Invariant: `index` and `term` are those of the last entry the state machine has taken. Anything else that comes out of
the log is refused before the state machine sees it: stopped is better than wrong.
"""

from collections.abc import Sequence
from typing import Final

from raft.engine import CONFIGURATION, NO_OP, REGULAR
from raft.errors import InvariantError
from raft.journal.log import LogEntry
from raft.state_machine import CommittedEntry, StateMachine

APPLICABLE: Final = (REGULAR, NO_OP, CONFIGURATION)
"""A placeholder of a reset log has no content: whoever applies one lacks what it stands for."""


class Applier:
    """The last applied entry, and the way to the next."""

    def __init__(self, state_machine: StateMachine) -> None:
        self._state_machine = state_machine
        self.index, self.term = state_machine.last_applied()

    def apply(self, entries: Sequence[LogEntry]) -> Sequence[object]:
        """Apply `entries` and return their results. Whatever the state machine raises passes through."""
        index = self.index
        committed: list[CommittedEntry] = []
        for command, entry_index, term in entries:
            index += 1
            if entry_index != index:
                raise InvariantError(f"entry {entry_index} was to be applied after {index - 1}; allowed: {index}")
            kind = command[:1]
            if kind not in APPLICABLE:
                raise InvariantError(
                    f"entry {index} of type 0x{kind.hex()} was to be applied; allowed: 0x00, 0x01, 0x04"
                )
            committed.append(CommittedEntry(index, term, memoryview(command)[1:], kind == CONFIGURATION))
        results = self._state_machine.apply(committed)
        if len(results) != len(committed):
            raise InvariantError(f"{len(results)} results for entries {self.index + 1} to {index}")
        self.index, self.term = index, committed[-1].term
        return results

    def restored(self, index: int, term: int) -> None:
        """The state machine was replaced by a snapshot up to that entry."""
        assert index > self.index
        self.index, self.term = index, term
