"""Decides when sent messages are due again. Pure.

Rules: a message not acked is due one ack wait after it was sent, then again in the rhythm of its old deadline (B260), but
never in a burst for deadlines long past (B264); what is due within the next 15 ms goes together (B261); order is by
deadline, then by sequence (B262). Entries cover ranges of sequences sent together: acks do not touch them (B251), the
window of the subscription says what of a range is still pending.
"""

from bisect import insort
from typing import Final, NamedTuple

SLACK_NS: Final = 15_000_000
"""Redeliveries due within this time go in one round. Source: B261."""

MERGE_NS: Final = 5_000_000
"""Sends closer together than this share an entry, with the later deadline: bounds entries to 200 per second of ack wait."""


class Due(NamedTuple):
    """Sequences `first..last` are due at `due_ns` (monotonic clock, ns)."""

    due_ns: int
    first: int
    last: int


class Schedule:
    """Deadlines of one subscription, ascending.

    Invariant: entries are sorted. All of one subscription share one ack wait, so new ones go to the end.
    """

    __slots__ = ("_entries", "_merge_end_ns", "ack_wait_ns")

    def __init__(self, ack_wait_ns: int) -> None:
        self.ack_wait_ns = ack_wait_ns
        self._entries: list[Due] = []
        self._merge_end_ns = 0  # of the newest entry: fixed when it is made, or steady traffic would move it for ever

    def __len__(self) -> int:
        return len(self._entries)

    def sent(self, first: int, last: int, now_ns: int) -> None:
        """`first..last` left at `now_ns`."""
        self._extend(now_ns + self.ack_wait_ns, first, last)

    def recovered(self, seq: int, due_ns: int) -> None:
        """`seq` was sent before a restart and is due at `due_ns`; called in ascending order."""
        self._extend(due_ns, seq, seq)

    def _extend(self, due_ns: int, first: int, last: int) -> None:
        if self._entries:
            newest = self._entries[-1]
            if newest.due_ns <= due_ns < self._merge_end_ns and newest.last + 1 == first:
                self._entries[-1] = Due(due_ns, newest.first, last)
                return
        self._merge_end_ns = due_ns + MERGE_NS
        self.add(due_ns, first, last)

    def add(self, due_ns: int, first: int, last: int) -> None:
        """`first..last` are due at `due_ns`."""
        if not self._entries or self._entries[-1] <= (due_ns, first, last):
            self._entries.append(Due(due_ns, first, last))
        else:
            insort(self._entries, Due(due_ns, first, last))

    def sent_again(self, entry: Due, first: int, last: int, now_ns: int) -> None:
        """`first..last` of a due entry were sent again: next deadline by B260, or B264 when that is past, too."""
        due_ns = entry.due_ns + self.ack_wait_ns
        if due_ns <= now_ns:
            due_ns = now_ns + self.ack_wait_ns
        self.add(due_ns, first, last)

    def pop_due(self, now_ns: int) -> Due | None:
        """Next entry that belongs to the round at `now_ns`."""
        if self._entries and self._entries[0].due_ns <= now_ns + SLACK_NS:
            return self._entries.pop(0)
        return None

    def postpone(self, now_ns: int) -> None:
        """Move everything due to one ack wait from now: the client has failed heartbeats (B268)."""
        entries: list[Due] = []
        while (entry := self.pop_due(now_ns)) is not None:
            entries.append(entry)
        for entry in entries:
            self.add(now_ns + self.ack_wait_ns, entry.first, entry.last)

    def forget_below(self, floor: int) -> None:
        """Drop entries that are acked completely, from the front: they would fire for nothing."""
        count = 0
        for entry in self._entries:
            if entry.last >= floor:
                break
            count += 1
        if count:
            del self._entries[:count]

    @property
    def next_due_ns(self) -> int | None:
        """Earliest deadline."""
        return self._entries[0].due_ns if self._entries else None
