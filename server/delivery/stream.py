"""What a plain subscription and a queue group have in common: sending new messages, and sending again what is due.

Rules of both: at most `SEND_AHEAD_MAX` sequences beyond the replicated last sent (B394), at most one turn's bytes at once
(B241), nothing while the connection is closed (B236), no skipping of unreadable messages (B238).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from server import hot
from server.delivery.port import Port
from server.delivery.schedule import Schedule
from server.delivery.turns import Turns
from server.trace import Trace
from store.constants import SEND_AHEAD_MAX
from store.errors import CorruptionError
from store.machine.state import Channel
from store.message import redelivered, timestamp_ns
from store.operations import GroupProgress, Progress
from store.store import Store

logger = logging.getLogger(__name__)

TURN_MAX_BYTES: Final = 1024 * 1024
"""Bytes one stream may send in one turn of the loop; the rest follows in the next, so that none starves others (B241)."""

FLUSH_BYTES: Final = 4 * 1024 * 1024
"""Bytes of deliveries after which a turn writes what it has: the connection then tells whether there is room for more."""

COUNT_MAX: Final = 2**32 - 1
"""redeliveryCount is a uint32; it wraps to 1, never to 0 (B271)."""


@dataclass(slots=True)
class Context:
    """What all streams share."""

    store: Store
    port: Port
    turns: Turns
    monotonic_ns: Callable[[], int]
    wall_ns: Callable[[], int]
    max_payload: int
    on_unreadable: Callable[[], None]
    trace: Trace | None = None
    delivered: int = 0
    redelivered: int = 0
    unflushed_bytes: int = 0

    @property
    def turn_max_bytes(self) -> int:
        """What one stream may send in one turn."""
        return TURN_MAX_BYTES

    def sent(self, size: int) -> None:
        """Frames of `size` bytes are in `parts`: they leave at the end of the turn, or now when there are many."""
        self.unflushed_bytes += size
        if self.unflushed_bytes < FLUSH_BYTES:
            self.port.wake()
            return
        self.unflushed_bytes = 0
        self.port.flush()


class Stream(ABC):
    """A place in a channel's log from which messages go to subscribers."""

    def __init__(self, key: int, channel: Channel, context: Context) -> None:
        self.key = key
        """Id of the subscription or queue group."""
        self.channel = channel
        self.context = context
        self.is_on_hold = False
        """New messages wait until what was pending at the start has been sent (B284, B363)."""
        self.resent = 0
        """Messages sent again so far."""

    # ---- what the kinds differ in

    @property
    @abstractmethod
    def next_seq(self) -> int:
        """The next sequence to send as new."""

    @property
    @abstractmethod
    def replicated_last(self) -> int:
        """Last sent, as replicated."""

    @property
    @abstractmethod
    def suspect_to(self) -> int:
        """Up to here an earlier leader may have sent more than is replicated (B394)."""

    @property
    @abstractmethod
    def counts(self) -> dict[int, int]:
        """Redelivery counts of pending messages (B271)."""

    @abstractmethod
    def room(self) -> int:
        """How many new messages may be sent now (B232, B307)."""

    @abstractmethod
    def skip_to(self, seq: int) -> None:
        """Sequences before `seq` that were not sent count as sent and acked: a limit removed them (B235)."""

    @abstractmethod
    def gone(self, seq: int) -> None:
        """A pending message was removed by a limit (B267) or cannot be sent (B97): it counts as acked."""

    @abstractmethod
    def send_new(self, first: int, messages: list[bytes]) -> None:
        """Hand over messages for which there is room, and note when they are due."""

    @abstractmethod
    def redeliver(self) -> None:
        """Send what is due again, stalled or not (B265)."""

    @abstractmethod
    def silence(self) -> None:
        """No timer fires any more."""

    @abstractmethod
    def progress(self) -> Progress | GroupProgress | None:
        """Sent and acked since the last report, coalesced (B381)."""

    @abstractmethod
    def statistics(self) -> tuple[int, int]:
        """Messages pending, and subscriptions that are stalled."""

    def is_silent(self) -> bool:
        """True when there is room and something to send, and nothing would make the stream send it."""
        if self.context.turns.is_waiting(self):
            return False
        if self.is_on_hold:
            return True
        if self.next_seq > self.channel.last_seq or self.next_seq > self.replicated_last + SEND_AHEAD_MAX:
            return False
        return self.room() > 0

    # ---- new messages

    def serve(self) -> None:
        """Send what is due again, then what is new."""
        self.redeliver()
        self.deliver()

    def deliver(self) -> None:
        """Send new messages while there is room (B230, B232)."""
        if self.is_on_hold:
            return
        channel, context = self.channel, self.context
        budget = context.turn_max_bytes
        while (next_seq := self.next_seq) <= channel.last_seq:
            room = self.room()
            if room <= 0:
                return
            if not context.port.is_open():
                context.turns.block(self)
                return
            ahead = self.replicated_last + SEND_AHEAD_MAX - next_seq + 1
            if ahead <= 0:
                context.turns.note_change(self)
                context.port.want_progress(at_once=True)
                return
            if budget <= 0:
                context.turns.continue_later(self)
                return
            try:
                first, messages = context.store.read_messages(channel, next_seq, min(room, ahead), budget)
            except CorruptionError as error:
                self.read_failed(next_seq, error)
                return
            context.turns.note_change(self)
            if first > next_seq:
                self.skip_to(first)
                continue  # what may be sent ahead counts from the replicated last sent, not from here
            budget -= self._send_new(first, messages)

    def _send_new(self, first: int, messages: list[bytes]) -> int:
        """Hand over consecutive new messages; returns their size in bytes."""
        context = self.context
        sendable = messages
        if first <= self.suspect_to:
            sendable = self._mark_suspects(first, messages)
        size = sum(map(len, sendable))
        if size > context.max_payload and max(map(len, sendable)) > context.max_payload:
            self._skip_unsendable(first, messages)
            return size
        self.send_new(first, sendable)
        context.delivered += len(messages)
        context.sent(size)
        return size

    def _mark_suspects(self, first: int, messages: list[bytes]) -> list[bytes]:
        """Messages that an earlier leader may have sent already go out flagged (B394)."""
        marked = min(len(messages), self.suspect_to - first + 1)
        self.counts.update(dict.fromkeys(range(first, first + marked), 1))
        return [redelivered(message, 1) for message in messages[:marked]] + messages[marked:]

    def _skip_unsendable(self, first: int, messages: list[bytes]) -> None:
        """Send what can be sent, one by one."""
        for seq, message in enumerate(messages, first):
            if self._is_unsendable(seq, message):
                self.counts.pop(seq, None)
                self.skip_to(seq + 1)
            else:
                self._send_new(seq, [message])

    # ---- messages that are due again

    def frames_again(self, pending: list[int], budget: int) -> tuple[int, list[int], list[bytes]]:
        """Read `pending` until `budget` bytes are used: how many are dealt with, and what of them is to be sent.

        Counts go up by one each (B271). What a limit removed is gone, and so is what is too large (B97); what cannot be
        read waits for the next round (B273).
        """
        seqs: list[int] = []
        frames: list[bytes] = []
        done = size = 0
        total = len(pending)
        is_readable = True
        while done < total and size < budget:
            try:
                first, messages = self.context.store.read_messages(
                    self.channel, pending[done], pending[-1] - pending[done] + 1, budget - size
                )
            except CorruptionError as error:
                if is_readable:
                    self._log_unreadable(pending[done], error)
                is_readable = False
                done += 1
                continue
            available = first + len(messages)
            while done < total and (pending[done] < available or not messages):
                seq = pending[done]
                done += 1
                message = messages[seq - first] if seq >= first and messages else None
                if message is None or self._is_unsendable(seq, message):
                    self.gone(seq)
                    self.context.turns.note_change(self)
                    continue
                count = self.counts.get(seq, 0) % COUNT_MAX + 1
                self.counts[seq] = count
                frames.append(redelivered(message, count))
                seqs.append(seq)
                size += len(message)
        return done, seqs, frames

    def _is_unsendable(self, seq: int, message: bytes) -> bool:
        """A stored message above the max payload of NATS blocks nobody: logged, and treated as acked (B97)."""
        if len(message) <= self.context.max_payload - hot.REDELIVERY_FIELDS_BYTES:
            return False
        logger.error(
            "message is larger than NATS allows, skipped: channel=%s seq=%d size=%d max_payload=%d",
            self.channel.name, seq, len(message), self.context.max_payload,
        )  # fmt: skip
        return True

    def recover_deadlines(self, schedule: Schedule, pending: list[int]) -> None:
        """After a restart a message is due one ack wait after its timestamp (B363, B364); at once when that is unreadable."""
        now_ns = self.context.monotonic_ns()
        # A message's deadline on the monotonic clock, less its timestamp.
        offset_ns = now_ns - self.context.wall_ns() + schedule.ack_wait_ns
        long_past_ns = now_ns - schedule.ack_wait_ns  # what lies before makes no difference (B264), and shares an entry
        index = 0
        is_readable = True
        while index < len(pending):
            try:
                first, messages = self.context.store.read_messages(
                    self.channel, pending[index], pending[-1] - pending[index] + 1, TURN_MAX_BYTES
                )
            except CorruptionError as error:
                if is_readable:
                    self._log_unreadable(pending[index], error)
                is_readable = False
                schedule.add(now_ns, pending[index], pending[index])
                index += 1
                continue
            while index < len(pending) and (pending[index] < first + len(messages) or not messages):
                seq = pending[index]
                index += 1
                if seq < first or not messages:
                    self.gone(seq)
                    continue
                due_ns = timestamp_ns(messages[seq - first]) + offset_ns
                # A clock that was set back must not make anyone wait longer (timestamps never fall, B203).
                schedule.recovered(seq, min(max(due_ns, long_past_ns), now_ns + schedule.ack_wait_ns))

    # ---- failures

    def read_failed(self, seq: int, error: CorruptionError) -> None:
        """The next new message cannot be read: no skipping, try again in a while (B238)."""
        if self.context.turns.retry_later(self):
            self._log_unreadable(seq, error)

    def _log_unreadable(self, seq: int, error: CorruptionError) -> None:
        logger.error("Error looking up message %s:%d (%s)", self.channel.name, seq, error)
        self.context.on_unreadable()
