"""The port behind which committed entries become state: what `raft` needs from `store`, and nothing more.

Rule: every committed entry is applied exactly once, in log order, on every node; replay after a restart begins behind
`last_applied`. Entries without data are the log's own (the no-op of a new leader): they change nothing but `last_applied`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class CommittedEntry(NamedTuple):
    """One committed entry. `data` is a view of the journal's bytes without the type byte: valid as long as it is held."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants of an entry
    term: int
    data: memoryview


class StateMachine(Protocol):
    """Applies committed entries. Called on the event loop's thread only, never from inside itself."""

    def last_applied(self) -> tuple[int, int]:
        """Index and term of the last applied entry, durable or not; (0, 0) when nothing was ever applied."""

    def apply(self, entries: Sequence[CommittedEntry]) -> Sequence[object]:
        """Apply `entries`, whose first index is `last_applied` + 1 and which have no gap; one result for each.

        A refusal is a result. Any exception stops the node, and no later entry is applied.
        """

    def durable_index(self) -> int:
        """Index of the last applied entry that survives a power failure; the journal is trimmed only behind it."""
