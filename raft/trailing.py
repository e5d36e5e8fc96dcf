"""Decides how far the journal may be trimmed: behind what is durable, less a tail kept for members that lag. Pure.

A member that was away shortly catches up from that tail instead of needing a snapshot. A cluster of one needs none.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from raft.journal.log import LogEntry

TRAILING_ENTRIES_MAX: Final = 10240
"""Applied entries kept for lagging members. Source: O47."""

TRAILING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Applied entries kept for lagging members, bytes of commands, whatever their number: they are in memory."""

SNAPSHOT_HOLD_BYTES: Final = 256 * 1024 * 1024
"""While a member fetches a snapshot the log keeps what is behind it, up to this size, bytes; else it would need another."""


@dataclass(frozen=True, slots=True)
class TrailingBounds:
    """Which of both is reached first decides."""

    entries_max: int = TRAILING_ENTRIES_MAX
    bytes_max: int = TRAILING_BYTES_MAX


class TrailingEntries:
    """The applied entries that the log holds, as batches.

    Invariant: `_bytes` and `_entries` are those of all batches held.
    """

    def __init__(self, log: Iterable[LogEntry] = (), applied_index: int = 0) -> None:
        """Begin with those of `log` up to `applied_index`."""
        self._batches: deque[tuple[int, int, int]] = deque()  # last index, entries, bytes
        self._entries = 0
        self._bytes = 0
        self._trim_index = 0
        for command, index, _ in log:
            if index <= applied_index:
                self.applied(index, 1, len(command))

    def applied(self, last_index: int, entries: int, size: int) -> None:
        """Count the entries up to `last_index`: `entries` and `size` bytes since the last call."""
        self._batches.append((last_index, entries, size))
        self._entries += entries
        self._bytes += size

    def trim_index(self, durable_index: int, bounds: TrailingBounds) -> int:
        """Index of the last entry that may go; 0 if none. Grows only. Costs what it newly lets go."""
        batches = self._batches
        while (
            batches
            and batches[0][0] <= durable_index
            and (self._entries > bounds.entries_max or self._bytes > bounds.bytes_max)
        ):
            self._trim_index, entries, size = batches.popleft()
            self._entries -= entries
            self._bytes -= size
        return self._trim_index
