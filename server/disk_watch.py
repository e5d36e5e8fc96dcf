"""Watches the free space of the data directory, so that publishes are refused before the disk is full."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DISK_LOW_BYTES: Final = 256 * 1024 * 1024
"""Free bytes below which publishes are refused: acks, closes and deletes still need room in journal and store."""

DISK_OK_BYTES: Final = 320 * 1024 * 1024
"""Free bytes from which publishes are accepted again; above the low mark so that the two do not alternate."""

ROUND_S: Final = 1.0
"""Pause between looks, seconds: at 200 MB per second a second of publishes fits below the low mark."""


@dataclass(slots=True)
class DiskWatch:
    """Tells when the free space of `directory` crosses a mark."""

    directory: str
    loop: asyncio.AbstractEventLoop
    on_change: Callable[[bool, int], None]
    """Called with (is low, free bytes) at each crossing."""
    low_bytes: int = DISK_LOW_BYTES
    ok_bytes: int = DISK_OK_BYTES
    is_low: bool = False
    _timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now and then every ROUND_S."""
        self._timer = self.loop.call_later(ROUND_S, self.start)  # first: a look that fails must not be the last one
        self.look(free_bytes(self.directory))

    def look(self, free: int) -> None:
        """Compare the free space with the marks."""
        is_low = free < (self.ok_bytes if self.is_low else self.low_bytes)
        if is_low != self.is_low:
            self.is_low = is_low
            self.on_change(is_low, free)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()


def free_bytes(directory: str) -> int:
    """Bytes that an unprivileged process may still write below `directory`."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
