"""Decides how far the journal may be trimmed: behind what is durable, less a tail kept for members that lag. Pure.

A member that was away shortly catches up from that tail instead of needing a snapshot. A cluster of one needs none.
"""

from collections import deque
from typing import Final

TRAILING_BYTES_MAX: Final = 8 * 1024 * 1024
"""Applied entries kept for lagging members, bytes of commands."""


class TrailingEntries:
    """The applied entries since the start, as batches.

    Invariant: `_bytes` is the size of all batches held.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._batches: deque[tuple[int, int]] = deque()  # last index, bytes
        self._bytes = 0
        self._trim_index = 0

    def applied(self, last_index: int, size: int) -> None:
        """Count the entries up to `last_index`, `size` bytes since the last call."""
        self._batches.append((last_index, size))
        self._bytes += size

    def trim_index(self, durable_index: int) -> int:
        """Index of the last entry that may go; 0 if none. Grows only. Costs what it newly lets go."""
        while self._batches and self._bytes > self._bytes_max and self._batches[0][0] <= durable_index:
            self._trim_index, size = self._batches.popleft()
            self._bytes -= size
        return self._trim_index
