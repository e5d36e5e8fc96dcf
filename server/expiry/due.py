"""Decides when the next channel needs a look: for the age of its oldest message or its inactivity. Pure."""

import heapq
from dataclasses import dataclass, field
from typing import Final

SLACK: Final = 64
"""So many more forgotten entries may wait for their time than channels do: those of all day must not pile up."""


@dataclass(slots=True)
class DueChannels:
    """Channels by the time at which they need a look. Costs grow with what is due, not with the number of channels."""

    _due_ns: dict[int, int] = field(default_factory=dict)
    _heap: list[tuple[int, int]] = field(default_factory=list)

    def __contains__(self, channel_id: int) -> bool:
        return channel_id in self._due_ns

    def schedule(self, channel_id: int, due_ns: int) -> None:
        """Look at the channel at `due_ns`; replaces what was scheduled for it."""
        self._due_ns[channel_id] = due_ns
        heapq.heappush(self._heap, (due_ns, channel_id))

    def forget(self, channel_id: int) -> None:
        """The channel needs no look any more."""
        if self._due_ns.pop(channel_id, None) is not None and len(self._heap) > 2 * len(self._due_ns) + SLACK:
            self._heap = [(due_ns, scheduled_id) for scheduled_id, due_ns in self._due_ns.items()]
            heapq.heapify(self._heap)

    def take_due(self, now_ns: int) -> list[int]:
        """Channels whose time has come; they are not scheduled any more."""
        due: list[int] = []
        while self._heap and self._heap[0][0] <= now_ns:
            due_ns, channel_id = heapq.heappop(self._heap)
            if self._due_ns.get(channel_id) == due_ns:
                del self._due_ns[channel_id]
                due.append(channel_id)
        return due

    @property
    def is_empty(self) -> bool:
        """True when no channel waits for a look."""
        return not self._due_ns
