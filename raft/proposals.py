"""Remembers who waits for which log entry, and tells each exactly once how it ended. Pure.

Invariant: waiting entries are in log order, so outcomes are told in log order too.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from raft.journal.log import LogEntry


@dataclass(frozen=True, slots=True)
class Applied:
    """The entry was committed and applied; `result` is what the state machine returned for it."""

    result: object


@dataclass(frozen=True, slots=True)
class Unknown:
    """The entry was logged, then leadership ended. It may or may not be committed later, by another leader."""


Outcome: TypeAlias = Applied | Unknown
Done: TypeAlias = Callable[[Outcome], None]

_UNKNOWN = Unknown()


class Proposals:
    """Proposals of one leadership that wait for their outcome."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, Done]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, index: int, term: int, done: Done) -> None:
        """Let `done` wait for the entry at `index`, which must be above all that wait."""
        assert not self._waiting or self._waiting[-1][0] < index
        self._waiting.append((index, term, done))

    def settle(self, entries: Sequence[LogEntry], results: Sequence[object]) -> None:
        """Tell the outcome of applied entries and their results, in log order. May add from inside."""
        waiting = self._waiting
        for (_, index, term), result in zip(entries, results, strict=True):
            if waiting and waiting[0][0] == index:
                _, proposed_term, done = waiting.popleft()
                done(Applied(result) if term == proposed_term else _UNKNOWN)

    def abandon(self) -> None:
        """Leadership ended: nobody will hear of these entries again."""
        while self._waiting:
            self._waiting.popleft()[2](_UNKNOWN)
