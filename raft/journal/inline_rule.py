"""Decides whether a group is written by the caller itself instead of the writer's thread. Pure.

Two changes of thread cost about 0.15 ms per group (measured), more than a fast disk's sync; but a slow sync would stop the
caller's event loop. So: small groups only, and only while syncs have been fast lately, wherever they were made.
"""

from collections import deque
from typing import Final

FAST_SYNC_S: Final = 0.0003
"""A write with its sync is fast up to this, seconds."""

FOLLOWER_FAST_SYNC_S: Final = 0.001
"""The same in a cluster, where a caller waits for its disk only as a follower: its leader waits for the answer."""

STALL_S: Final = 0.05
"""After a write that took so long, seconds, the thread takes over at once: a caller that stalls is not heard by other nodes."""

RECENT_WRITES: Final = 64
"""Writes that are remembered."""

SLOW_SHARE_MAX: Final = 0.1
"""Share of slow ones among them at which the thread takes over: the 90th percentile is fast."""

GROUP_MAX_BYTES: Final = 32 * 1024
"""Larger groups are for the thread: their writing overlaps with filling the next batch."""


class InlineRule:
    """The last writes, and what follows from them. Begins with the thread until enough is known."""

    __slots__ = ("_fast_s", "_recent", "_slow")

    def __init__(self, fast_s: float = FAST_SYNC_S) -> None:
        self._fast_s = fast_s
        self._recent: deque[bool] = deque()
        self._slow = 0

    def allows(self, group_bytes: int) -> bool:
        """Whether a group of this size is written by the caller."""
        is_fast = len(self._recent) == RECENT_WRITES and self._slow <= RECENT_WRITES * SLOW_SHARE_MAX
        return is_fast and group_bytes <= GROUP_MAX_BYTES

    def took(self, group_bytes: int, duration_s: float) -> None:
        """A group of this size was written and synced; large ones say nothing about small ones."""
        if group_bytes > GROUP_MAX_BYTES:
            return
        if duration_s > STALL_S:
            self._recent.clear()
            self._slow = 0
            return
        is_slow = duration_s > self._fast_s
        self._recent.append(is_slow)
        self._slow += is_slow
        if len(self._recent) > RECENT_WRITES:
            self._slow -= self._recent.popleft()
