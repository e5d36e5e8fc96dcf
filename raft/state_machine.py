"""The ports behind which committed entries become state: what `raft` needs from `store`, and nothing more.

Rule: every committed entry is applied exactly once, in log order, on every node; replay after a restart begins behind
`last_applied`. Entries without data are the log's own (the no-op of a new leader): they change nothing but `last_applied`.
Configurations are the log's own as well, and the state keeps the newest one: a snapshot without it would lose the members.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol


class CommittedEntry(NamedTuple):
    """One committed entry. `data` is a view of the journal's bytes without the type byte: valid as long as it is held."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants of an entry
    term: int
    data: memoryview
    is_configuration: bool = False
    """`data` is a configuration of the cluster, not a command."""


class StateMachine(Protocol):
    """Applies committed entries. Called on the event loop's thread only, never from inside itself."""

    def last_applied(self) -> tuple[int, int]:
        """Index and term of the last applied entry, durable or not; (0, 0) when nothing was ever applied."""

    def configuration(self) -> bytes:
        """Encoded configuration as of `last_applied`; empty if none was ever applied."""

    def apply(self, entries: Sequence[CommittedEntry]) -> Sequence[object]:
        """Apply `entries`, whose first index is `last_applied` + 1 and which have no gap; one result for each.

        A refusal is a result. Any exception stops the node, and no later entry is applied.
        """

    def durable_index(self) -> int:
        """Index of the last applied entry that survives a power failure; the journal is trimmed only behind it."""


class Prepared(Protocol):
    """A copy of another node's state, checked, loaded and made this node's own: ready to be installed."""

    @property
    def index(self) -> int:
        """Index of the last entry it contains."""

    @property
    def term(self) -> int:
        """Term of that entry."""

    @property
    def configuration(self) -> bytes:
        """Encoded configuration as of `index`; empty if none."""

    def discard(self) -> None:
        """Let go of it and remove its files; does nothing once it is installed. Any thread."""


class SnapshotStore(Protocol):
    """Copies the state, and takes over a copy that another node made."""

    def copy(self, directory: Path) -> tuple[int, int]:
        """Write a consistent copy of the durable state into `directory`, which exists and is empty.

        Returns index and term of the last entry the copy contains. Blocks; any thread. Any error leaves no file.
        """

    def prepare(self, directory: Path) -> Prepared:
        """Check and load a copy made by another node, and give it this node's identity, durably.

        Takes `directory`, which lies on the file system of the data, over: it is gone after a failure, after `discard`
        and after `install`. Blocks; any thread. Raises an error of the store for damage, or for another cluster's copy.
        """

    def install(self, prepared: Prepared) -> None:
        """From now on the state is the copy's, durably, and `last_applied` its index. On the event loop's thread.

        Any exception stops the node, which then has the old state or the copy's.
        """
