"""Decides when the next channel needs a look: for the age of its oldest message or its inactivity. Pure."""

import heapq
from dataclasses import dataclass, field


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
    def next_due_ns(self) -> int | None:
        """Time of the earliest look; it may turn out to be for nothing."""
        return self._heap[0][0] if self._heap else None
