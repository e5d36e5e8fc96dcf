"""Decides what a leader sends to whom and when: probes, a window of appends, heartbeats, offers of a snapshot. Pure.

Rules, each against a way in which the stock sender loses or never converges:
- What is in flight is not sent again: a success never lowers `next_index`. Only a rejection that is newer than the last one
  acted on does, and never below what the member is known to have.
- A member that was just connected, that has rejected or whose link had a gap is probed: one message at a time until it answers.
- Else a window, in messages and bytes; nothing at all goes to a member that is not connected.
- What the log no longer has is not sent: the member is told to fetch a snapshot, with every heartbeat, as a sign of life.
- A placeholder that stands for a snapshot's content is never sent.

State lives for one term of leadership.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from raft.journal.log import BASE_COMMAND, Log, LogEntry
from raft.membership import Member
from raft.messages import Append, AppendResponse, SnapshotOffer

logger = logging.getLogger(__name__)

WINDOW_MESSAGES: Final = 64
"""Most appends with entries under way to one member."""

WINDOW_BYTES: Final = 16 * 1024 * 1024
"""No further append is sent to a member while so many bytes of commands are under way; one alone may be larger."""

APPEND_BYTES: Final = 256 * 1024
"""An append takes no further entry once it has this many bytes of commands."""

APPEND_ENTRIES_MAX: Final = 512
"""Most entries of one append."""

FORGET_S: Final = 1.0
"""After so long without any answer what is under way is taken for lost, seconds: a heartbeat then finds out."""

ROUNDS_KEPT: Final = 1024
"""Sent messages whose time is remembered for the lease, per member."""


@dataclass(slots=True, eq=False)
class Progress:
    """What the leader knows of one member. Everything up to `match_index` is durable there."""

    member: Member
    next_index: int
    match_index: int = 0
    round: int = 0
    """Number of the last message."""
    barrier: int = 0
    """Last round of those sent before the last rejection or reconnect: rejections of these say nothing new."""
    is_probing: bool = True
    probe_round: int = 0
    probe_index: int = 0
    """The first message since `probe`, 0 if there was none, and the index that its entries follow."""
    heard_s: float = 0.0
    confirmed_s: float = -1.0
    """When the newest message was sent that it has answered."""
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    """Round and bytes of appends with entries."""
    in_flight_bytes: int = 0
    sent_s: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=ROUNDS_KEPT))
    """Round and time of everything unanswered."""

    def __post_init__(self) -> None:
        self.barrier = self.round

    def probe(self) -> None:
        """Forget what is under way and ask with one message."""
        self.is_probing = True
        self.probe_round = 0
        self.barrier = self.round
        self.in_flight.clear()
        self.in_flight_bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether another append may be sent."""
        if self.is_probing:
            return not self.in_flight
        return len(self.in_flight) < WINDOW_MESSAGES and self.in_flight_bytes < WINDOW_BYTES


class Sender:
    """The progress of all members that a leader sends to, for one term."""

    def __init__(
        self,
        *,
        log: Log,
        term: int,
        send: Callable[[Member, Append | SnapshotOffer], None],
        is_up: Callable[[Member], bool],
        commit_index: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._log = log
        self.term = term
        self._send = send
        self._is_up = is_up
        self._commit_index = commit_index
        self._clock = clock
        self._progress: dict[Member, Progress] = {}
        self._round = 0  # of the last message to anybody: one who leaves and comes back never sees a number twice

    def set_members(self, members: Iterable[Member]) -> None:
        """Send to these from now on; what is known of those that stay is kept."""
        known = self._progress
        self._progress = {
            member: known.get(member) or Progress(member, self._log[-1][1], round=self._round, heard_s=self._clock())
            for member in members
            if member.incarnation
        }

    def progress(self) -> list[Progress]:
        """Of all members that are sent to."""
        return list(self._progress.values())

    def find(self, member: Member) -> Progress | None:
        """The progress of one member."""
        return self._progress.get(member)

    def reconnected(self, member: Member) -> None:
        """The link to a member is new or had a gap: what was under way may be lost."""
        progress = self._progress.get(member)
        if progress is not None:
            progress.probe()
            progress.next_index = progress.match_index + 1 if progress.match_index else self._log[-1][1]

    def send(self, *, is_heartbeat: bool) -> None:
        """Send what every member lacks and has room for; with a heartbeat at least something."""
        now = self._clock()
        for progress in self._progress.values():
            if self._is_up(progress.member):
                self._send_to(progress, now, is_heartbeat=is_heartbeat)

    def send_to(self, member: Member) -> None:
        """The same for one member that has answered."""
        progress = self._progress.get(member)
        if progress is not None and self._is_up(member):
            self._send_to(progress, self._clock(), is_heartbeat=False)

    def answered(self, member: Member, answer: AppendResponse) -> Progress | None:
        """Take an answer of this term. The progress, if the member is one of ours; its match index may have grown."""
        progress = self._progress.get(member)
        if progress is None:
            return None
        progress.heard_s = self._clock()
        last = self._log[-1][1]
        if answer.round > progress.round or answer.next_index - 1 > last:
            return progress  # cannot be an answer to us
        while progress.sent_s and progress.sent_s[0][0] <= answer.round:
            progress.confirmed_s = progress.sent_s.popleft()[1]
        if answer.is_success or answer.is_rejection:
            while progress.in_flight and progress.in_flight[0][0] <= answer.round:
                progress.in_flight_bytes -= progress.in_flight.popleft()[1]
        if answer.is_success:
            progress.match_index = max(progress.match_index, answer.next_index - 1)
            if progress.is_probing and answer.round > progress.barrier:
                progress.is_probing = False
                progress.next_index = progress.match_index + 1
            progress.next_index = max(progress.next_index, progress.match_index + 1)
        elif answer.is_rejection and answer.round > progress.barrier:
            if (
                answer.round == progress.probe_round
                and progress.probe_index <= progress.match_index >= answer.next_index
            ):
                # It rejects what follows an entry that it acknowledged: its journal was not synced and power failed (O418).
                logger.error(
                    "a member has lost entries that it had acknowledged node=%s acknowledged=%d has_at_most=%d",
                    progress.member.key,
                    progress.match_index,
                    answer.next_index - 1,
                )
                progress.match_index = min(progress.match_index, answer.next_index - 1)
            progress.next_index = min(max(answer.next_index, progress.match_index + 1), last + 1)
            progress.probe()
        return progress

    def _send_to(self, progress: Progress, now: float, *, is_heartbeat: bool) -> None:
        log = self._log
        last = log[-1][1]
        if progress.next_index > last and not is_heartbeat:
            return
        first = log[0][1]
        base = log[1] if len(log) > 1 and log[1][0] == BASE_COMMAND else log[0]
        if progress.next_index <= base[1]:
            if is_heartbeat:
                self._note(progress, now)
                self._send(progress.member, SnapshotOffer(self.term, progress.round, base[1], base[2]))
            return
        if is_heartbeat and progress.in_flight and now - progress.heard_s > FORGET_S:
            progress.probe()
        must_send = is_heartbeat
        while must_send or (progress.next_index <= last and progress.has_room):
            previous = log[progress.next_index - 1 - first]
            entries: list[LogEntry] = []
            if progress.next_index <= last and progress.has_room:
                entries, size = self._entries_from(progress.next_index - first)
                progress.next_index = entries[-1][1] + 1
                progress.in_flight.append((self._round + 1, size))
                progress.in_flight_bytes += size
            self._note(progress, now)
            if progress.is_probing and not progress.probe_round:
                progress.probe_round, progress.probe_index = progress.round, previous[1]
            self._send(
                progress.member,
                Append(self.term, self._commit_index(), previous[1], previous[2], progress.round, entries),
            )
            must_send = False

    def _entries_from(self, position: int) -> tuple[list[LogEntry], int]:
        """Entries of one append, and the bytes of their commands."""
        entries: list[LogEntry] = []
        size = 0
        for entry in self._log[position : position + APPEND_ENTRIES_MAX]:
            entries.append(entry)
            size += len(entry[0])
            if size >= APPEND_BYTES:
                break
        return entries, size

    def _note(self, progress: Progress, now: float) -> None:
        self._round += 1
        progress.round = self._round
        progress.sent_s.append((progress.round, now))
