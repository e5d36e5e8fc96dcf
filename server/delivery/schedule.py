"""Decides when sent messages are due again. Pure.

Rules: a message not acked is due one ack wait after it was sent, then again in the rhythm of its old deadline (B260), but
never in a burst for deadlines long past (B264); what is due within the next 15 ms goes together (B261); order is by
deadline, then by sequence (B262). Entries cover ranges of sequences sent together: acks do not touch them (B251), the
window of the subscription says what of a range is still pending.
"""

from bisect import insort
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, NamedTuple

SLACK_NS: Final = 15_000_000
"""Redeliveries due within this time go in one round. Source: B261."""

MERGE_NS: Final = 5_000_000
"""Sends closer together than this share an entry, with the later deadline: bounds entries to 200 per second of ack wait."""


TIDY_MIN: Final = 4096
"""Entries from which on those without pending messages are looked for: one unacked message must not keep all behind it."""


class Due(NamedTuple):
    """Sequences `first..last` are due at `due_ns` (monotonic clock, ns)."""

    due_ns: int
    first: int
    last: int


class Schedule:
    """Deadlines of one subscription, ascending.

    Invariant: entries are sorted. All of one subscription share one ack wait, so new ones go to the end.
    """

    __slots__ = ("_entries", "_merge_end_ns", "_tidy_at", "ack_wait_ns")

    def __init__(self, ack_wait_ns: int) -> None:
        self.ack_wait_ns = ack_wait_ns
        self._entries: list[Due] = []
        self._tidy_at = TIDY_MIN
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
            if newest.due_ns <= due_ns < self._merge_end_ns and self._continues(newest, first):
                self._entries[-1] = Due(due_ns, newest.first, last)
                return
        self._merge_end_ns = due_ns + MERGE_NS
        self.add(due_ns, first, last)

    def _continues(self, newest: Due, first: int) -> bool:
        return newest.last + 1 == first

    def add(self, due_ns: int, first: int, last: int) -> None:
        """`first..last` are due at `due_ns`."""
        if not self._entries or self._entries[-1] <= (due_ns, first, last):
            self._entries.append(Due(due_ns, first, last))
        else:
            insort(self._entries, Due(due_ns, first, last))

    def sent_again(self, entry: Due, first: int, last: int, now_ns: int) -> None:
        """`first..last` of a due entry were sent again: next deadline by B260, or B264 when that is past, too."""
        self.add(self._next_due_ns(entry, now_ns), first, last)

    def _next_due_ns(self, entry: Due, now_ns: int) -> int:
        due_ns = entry.due_ns + self.ack_wait_ns
        # One that belongs to the present round would be sent twice in it.
        return due_ns if due_ns > now_ns + SLACK_NS else now_ns + self.ack_wait_ns

    def pop_due(self, now_ns: int) -> Due | None:
        """Next entry that belongs to the round at `now_ns`."""
        if self._entries and self._entries[0].due_ns <= now_ns + SLACK_NS:
            return self._entries.pop(0)
        return None

    def sent_partly(self, entry: Due, first: int) -> None:
        """Of a due entry what begins with `first` was not sent again yet: it is due as before."""
        self.add(entry.due_ns, first, entry.last)

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

    def tidy(self, is_pending: Callable[[int, int], bool]) -> None:
        """Drop entries of which nothing is pending, when there are twice as many as were left the last time."""
        if len(self._entries) >= self._tidy_at:
            self._entries = [entry for entry in self._entries if is_pending(entry.first, entry.last)]
            self._tidy_at = max(2 * len(self._entries), TIDY_MIN)

    @property
    def next_due_ns(self) -> int | None:
        """Earliest deadline."""
        return self._entries[0].due_ns if self._entries else None


class MemberSchedule(Schedule):
    """Deadlines of a member of a queue group.

    A message that came from another member has a deadline of its own (B310, B312): it is *single*, and no range covers it.
    """

    __slots__ = ("_newest_last", "_queue", "_singles")

    def __init__(self, ack_wait_ns: int) -> None:
        super().__init__(ack_wait_ns)
        self._newest_last = 0
        self._singles: dict[int, int] = {}
        self._queue: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return super().__len__() + len(self._singles)

    def single(self, seq: int, due_ns: int) -> None:
        """`seq` is due at `due_ns`, whatever ranges say."""
        self._singles[seq] = due_ns
        heappush(self._queue, (due_ns, seq))

    def _extend(self, due_ns: int, first: int, last: int) -> None:
        super()._extend(due_ns, first, last)
        self._newest_last = last

    def _continues(self, newest: Due, first: int) -> bool:
        """When it ends with the newest of this member: what lies between belongs to others."""
        return newest.last == self._newest_last < first

    def covers(self, entry: Due, seq: int) -> bool:
        """Whether `entry`, which was popped, says when `seq` of its range is due."""
        return entry.first == entry.last or seq not in self._singles

    def sent_again(self, entry: Due, first: int, last: int, now_ns: int) -> None:
        """As `Schedule.sent_again`; what was single stays so."""
        if entry.first == entry.last:
            self.single(first, self._next_due_ns(entry, now_ns))
        else:
            super().sent_again(entry, first, last, now_ns)

    def sent_partly(self, entry: Due, first: int) -> None:
        """As `Schedule.sent_partly`; what was single stays so."""
        if entry.first == entry.last:
            self.single(first, entry.due_ns)
        else:
            super().sent_partly(entry, first)

    def pop_due(self, now_ns: int) -> Due | None:
        """As `Schedule.pop_due`; a single that is popped is single no longer."""
        if not self._queue or (
            self._entries and self._entries[0][:2] < self._queue[0]
        ):  # equal ones by sequence (B262)
            return super().pop_due(now_ns)
        if self._queue[0][0] > now_ns + SLACK_NS:
            return None
        single_ns, seq = heappop(self._queue)
        del self._singles[seq]
        return Due(single_ns, seq, seq)

    @property
    def next_due_ns(self) -> int | None:
        """Earliest deadline."""
        due_ns = super().next_due_ns
        if not self._queue:
            return due_ns
        return self._queue[0][0] if due_ns is None else min(due_ns, self._queue[0][0])
