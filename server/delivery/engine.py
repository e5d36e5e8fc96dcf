"""Sends messages to the online subscriptions of the node that leads, takes their acks, and sends again what is due.

All state here is volatile: rebuilt from the store when leadership begins, dropped when it ends. What must outlive it
leaves as `Progress` operations. One timer per subscription, at its earliest deadline (B263).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from server import hot
from server.delivery.schedule import Due, Schedule
from server.trace import Trace
from store.constants import SEND_AHEAD_MAX
from store.errors import CorruptionError
from store.machine.state import Channel, Subscription
from store.message import redelivered, timestamp_ns
from store.operations import Progress
from store.store import Store

logger = logging.getLogger(__name__)

TURN_MAX_BYTES: Final = 1024 * 1024
"""Bytes one subscription may send in one turn of the loop; the rest follows in the next, so that none starves others (B241)."""

FLUSH_BYTES: Final = 4 * 1024 * 1024
"""Bytes of deliveries after which a turn writes what it has: the connection then tells whether there is room for more."""

READ_RETRY_S: Final = 1.0
"""Pause after a message could not be read, seconds. Source: B238."""

COUNT_MAX: Final = 2**32 - 1
"""redeliveryCount is a uint32; it wraps to 1, never to 0 (B271)."""

REDELIVERY_FIELDS_BYTES: Final = 16
"""Upper bound of fields 6 and 7 appended to a stored message, bytes."""


class Port(Protocol):
    """What the engine needs of its surroundings."""

    @property
    def parts(self) -> list[bytes]:
        """Frames of this turn."""
        ...

    def is_open(self) -> bool:
        """True when messages handed over now reach NATS and its buffer has room."""
        ...

    def wake(self) -> None:
        """Flush `parts` at the end of this turn."""
        ...

    def flush(self) -> None:
        """Write `parts` now."""
        ...

    def is_failing(self, client_id: str) -> bool:
        """True when the client has at least one failed heartbeat in a row (B268)."""
        ...

    def want_progress(self, *, at_once: bool) -> None:
        """Progress is to be replicated soon; `at_once`: a subscription waits for it."""
        ...


@dataclass(slots=True)
class Delivery:
    """One online subscription: its replicated record, its hot part, its deadlines."""

    record: Subscription
    channel: Channel
    hot: hot.Subscription
    schedule: Schedule
    is_on_hold: bool = False
    """New messages wait until what was pending at the start has been sent (B284, B363)."""
    timer: asyncio.TimerHandle | None = None
    timer_due_ns: int = 0
    retry: asyncio.TimerHandle | None = None
    """A message could not be read (B238)."""
    reported: tuple[int, int] = (0, 0)
    """`(last_sent, floor)` that the newest progress operation carries."""


@dataclass(frozen=True, slots=True)
class DeliveryStatistics:
    """Figures of all online subscriptions."""

    subscriptions: int
    pending: int
    delivered: int
    redelivered: int
    stalled: int
    waiting: int
    """Subscriptions with capacity, messages waiting and nothing on its way: zero in a healthy server."""


@dataclass(slots=True)
class Engine:
    """All online subscriptions of this node."""

    store: Store
    core: hot.Core
    port: Port
    loop: asyncio.AbstractEventLoop
    monotonic_ns: Callable[[], int]
    wall_ns: Callable[[], int]
    max_payload: int
    trace: Trace | None = None
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    delivered: int = 0
    redelivered: int = 0
    _changed: dict[int, Delivery] = field(default_factory=dict)
    _offline_counts: dict[int, dict[int, int]] = field(default_factory=dict)
    _backlog: dict[int, Delivery] = field(default_factory=dict)
    _backlog_scheduled: bool = False
    _blocked: dict[int, Delivery] = field(default_factory=dict)
    """Deliveries that found the connection closed or full, the longest waiting first."""
    _unflushed_bytes: int = 0

    # ---- life of a subscription

    def start(self, record: Subscription, channel: hot.Channel, *, is_resumed: bool) -> None:
        """A subscription was accepted and answered: deliver to it. A resumed durable gets all pending first (B284)."""
        delivery = self._add(record, channel)
        counts = self._offline_counts.pop(record.subscription_id, None)
        if counts:
            delivery.hot.counts = counts
        if is_resumed and delivery.hot.pending_count():
            delivery.is_on_hold = True
            past_ns = self.monotonic_ns() - delivery.schedule.ack_wait_ns
            delivery.schedule.add(past_ns, delivery.hot.floor, delivery.hot.next_seq - 1)
        self._serve(delivery)

    def recover(self, records: Iterable[Subscription], channels: dict[str, hot.Channel]) -> None:
        """Leadership began: every online subscription goes on at `resume_all`, pending messages first (B363)."""
        for record in records:
            channel = self.store.state.channels_by_id[record.channel_id]
            delivery = self._add(record, channels[channel.name])
            if delivery.hot.pending_count():
                delivery.is_on_hold = True
                self._recover_deadlines(delivery)
            self._blocked[record.subscription_id] = delivery

    def resume_all(self) -> None:
        """The connection is (again) open: send what waits for it."""
        for subscription_id, delivery in list(self._blocked.items()):
            if not self.port.is_open():
                break
            del self._blocked[subscription_id]  # when there is no room for all of it, it comes back behind the others
            self._serve(delivery)
        self._turn_ended()

    def stop(self, subscription_id: int) -> Progress | None:
        """Send nothing more to this subscription (B239); returns its last progress when it is not yet replicated."""
        delivery = self.deliveries.pop(subscription_id, None)
        if delivery is None:
            return None
        for timer in (delivery.timer, delivery.retry):
            if timer is not None:
                timer.cancel()
        for waiting in (self._changed, self._backlog, self._blocked):
            waiting.pop(subscription_id, None)
        self.core.ack_subjects.pop(delivery.record.ack_inbox.encode(), None)
        self.core.forget_lines()
        delivery.hot.channel.subscriptions.remove(delivery.hot)
        if delivery.hot.counts and delivery.record.durable_name:
            self._offline_counts[subscription_id] = delivery.hot.counts
        return self._progress_of(delivery)

    def forget(self, subscription_id: int) -> None:
        """The subscription is removed for good: its redelivery counts are of no more use (B271)."""
        self._offline_counts.pop(subscription_id, None)

    def stop_all(self) -> list[Progress]:
        """Leadership ends: no timer and no state of this term survives (B395, B396). Returns the last progress."""
        operations = [self.stop(subscription_id) for subscription_id in list(self.deliveries)]
        self._offline_counts.clear()
        return [operation for operation in operations if operation is not None]

    # ---- what the loop calls

    def deliver_channel(self, channel: hot.Channel) -> None:
        """New messages of `channel` are applied."""
        deliveries = self.deliveries
        for subscription in channel.subscriptions:
            self._deliver(deliveries[subscription.subscription_id])

    def take_acks(self, touched: list[hot.Subscription]) -> None:
        """Acks moved these windows: note the progress, send into the room they made (B232)."""
        for subscription in touched:
            subscription.is_touched = False
            delivery = self.deliveries.get(subscription.subscription_id)
            if delivery is None:
                continue
            self._changed[subscription.subscription_id] = delivery
            subscription.trim()
            if subscription.next_seq <= delivery.channel.last_seq:
                self._deliver(delivery)
        touched.clear()

    def take_progress(self) -> list[Progress]:
        """Progress of all subscriptions that moved since the last call, for the next entry."""
        changed, self._changed = self._changed, {}
        operations = [self._progress_of(delivery) for delivery in changed.values()]
        return [operation for operation in operations if operation is not None]

    @property
    def has_progress(self) -> bool:
        """True when a subscription moved since the last `take_progress`."""
        return bool(self._changed)

    def progress_applied(self, operations: Iterable[Progress]) -> None:
        """Progress is replicated: subscriptions that ran into the send-ahead bound go on."""
        for operation in operations:
            delivery = self.deliveries.get(operation.subscription_id)
            if delivery is not None and delivery.hot.next_seq <= delivery.channel.last_seq:
                self._deliver(delivery)

    def statistics(self) -> DeliveryStatistics:
        """Figures for logs, monitoring and tests; walks all subscriptions."""
        pending = stalled = waiting = 0
        for delivery in self.deliveries.values():
            count = delivery.hot.pending_count()
            pending += count
            if count >= delivery.hot.max_in_flight:
                stalled += 1
            elif delivery.hot.next_seq <= delivery.channel.last_seq and not delivery.is_on_hold:
                waiting += delivery.record.subscription_id not in self._backlog
        return DeliveryStatistics(
            subscriptions=len(self.deliveries),
            pending=pending,
            delivered=self.delivered,
            redelivered=self.redelivered,
            stalled=stalled,
            waiting=waiting,
        )

    # ---- new messages

    def _deliver(self, delivery: Delivery) -> None:
        """Send new messages while there is room (B230, B232)."""
        subscription = delivery.hot
        channel = delivery.channel
        if delivery.is_on_hold:
            return
        budget = TURN_MAX_BYTES
        while subscription.next_seq <= channel.last_seq:
            room = subscription.max_in_flight - subscription.pending_count()
            ahead = delivery.record.last_sent + SEND_AHEAD_MAX - subscription.next_seq + 1
            if room <= 0:
                return
            if not self.port.is_open():
                self._blocked[subscription.subscription_id] = delivery
                return
            if ahead <= 0:
                self._changed[subscription.subscription_id] = delivery
                self.port.want_progress(at_once=True)
                return
            if budget <= 0:
                self._continue_later(delivery)
                return
            try:
                first, messages = self.store.read_messages(channel, subscription.next_seq, min(room, ahead), budget)
            except CorruptionError as error:
                self._read_failed(delivery, error)
                return
            if first > subscription.next_seq:
                subscription.skip_to(first)
                self._changed[subscription.subscription_id] = delivery
                continue  # what may be sent ahead counts from the replicated last sent, not from here
            budget -= self._send_new(delivery, first, messages)

    def _send_new(self, delivery: Delivery, first: int, messages: list[bytes]) -> int:
        """Hand over consecutive new messages; returns their size in bytes."""
        subscription = delivery.hot
        last = first + len(messages) - 1
        sendable = messages
        if first <= delivery.record.suspect_to:
            sendable = self._mark_suspects(delivery, first, messages)
        size = sum(map(len, sendable))
        if size > self.max_payload and max(map(len, sendable)) > self.max_payload:
            self._skip_unsendable(delivery, first, messages)
            return size
        hot.delivery_frames(subscription.frame_head, sendable, self.port.parts)
        subscription.sent_to(last + 1)
        delivery.schedule.forget_below(subscription.floor)
        delivery.schedule.sent(first, last, self.monotonic_ns())
        self._arm(delivery)
        self._changed[subscription.subscription_id] = delivery
        self.delivered += len(messages)
        if self.trace is not None:
            self.trace.delivered(delivery.record, delivery.channel.name, list(range(first, last + 1)), is_again=False)
        self._sent(size)
        return size

    def _sent(self, size: int) -> None:
        """Frames of `size` bytes are in `parts`: they leave at the end of the turn, or now when there are many."""
        self._unflushed_bytes += size
        if self._unflushed_bytes < FLUSH_BYTES:
            self.port.wake()
            return
        self._unflushed_bytes = 0
        self.port.flush()

    def _mark_suspects(self, delivery: Delivery, first: int, messages: list[bytes]) -> list[bytes]:
        """Messages that an earlier leader may have sent already go out flagged (B394)."""
        marked = min(len(messages), delivery.record.suspect_to - first + 1)
        for seq in range(first, first + marked):
            delivery.hot.counts[seq] = 1
        return [redelivered(message, 1) for message in messages[:marked]] + messages[marked:]

    def _skip_unsendable(self, delivery: Delivery, first: int, messages: list[bytes]) -> None:
        """A stored message above the max payload of NATS blocks nobody: logged, treated as acked (B97)."""
        limit = self.max_payload - REDELIVERY_FIELDS_BYTES
        for seq, message in enumerate(messages, first):
            if len(message) <= limit:
                self._send_new(delivery, seq, [message])
                continue
            logger.error(
                "message is larger than NATS allows, skipped: channel=%s seq=%d size=%d max_payload=%d",
                delivery.channel.name, seq, len(message), self.max_payload,
            )  # fmt: skip
            delivery.hot.counts.pop(seq, None)
            delivery.hot.skip_to(seq + 1)
            self._changed[delivery.record.subscription_id] = delivery

    # ---- messages that are due again

    def _serve(self, delivery: Delivery) -> None:
        """Send what is due again, then what is new."""
        self._redeliver(delivery)
        self._deliver(delivery)

    def _redeliver(self, delivery: Delivery) -> None:
        """Send what is due, stalled or not (B265)."""
        now_ns = self.monotonic_ns()
        schedule = delivery.schedule
        if not self.port.is_open():
            self._blocked[delivery.record.subscription_id] = delivery
            return
        if not delivery.is_on_hold and self.port.is_failing(delivery.record.client_id):
            schedule.postpone(now_ns)
            self._arm(delivery)
            return
        budget = TURN_MAX_BYTES
        while (entry := schedule.pop_due(now_ns)) is not None:
            if not self.port.is_open():
                schedule.add(*entry)
                self._blocked[delivery.record.subscription_id] = delivery
                return
            pending = delivery.hot.pending(entry.first, entry.last)
            try:
                sent, size = self._send_again(delivery, pending, budget)
            except CorruptionError as error:
                schedule.sent_again(entry, entry.first, entry.last, now_ns)
                self._read_failed(delivery, error)
                return
            budget -= size
            if sent:
                schedule.sent_again(entry, pending[0], pending[sent - 1], now_ns)
            if sent < len(pending):
                schedule.add(entry.due_ns, pending[sent], entry.last)
                self._continue_later(delivery)
                return
        self._arm(delivery)
        delivery.is_on_hold = False

    def _send_again(self, delivery: Delivery, pending: list[int], budget: int) -> tuple[int, int]:
        """Send `pending` until the budget is used; returns how many are dealt with, and their bytes."""
        subscription = delivery.hot
        size = done = 0
        total = len(pending)
        while done < total and size < budget:
            first, messages = self.store.read_messages(delivery.channel, pending[done], total - done, budget - size)
            available = first + len(messages)
            size_before = size
            frames: list[bytes] = []
            seqs: list[int] = []
            while done < total and (pending[done] < available or not messages):
                seq = pending[done]
                done += 1
                if (
                    seq < first
                    or not messages
                    or len(messages[seq - first]) > self.max_payload - REDELIVERY_FIELDS_BYTES
                ):
                    self._gone(delivery, seq)
                    continue
                count = subscription.counts.get(seq, 0) % COUNT_MAX + 1
                subscription.counts[seq] = count
                frames.append(redelivered(messages[seq - first], count))
                seqs.append(seq)
                size += len(messages[seq - first])
            if frames:
                hot.delivery_frames(subscription.frame_head, frames, self.port.parts)
                self.redelivered += len(frames)
                if self.trace is not None:
                    self.trace.delivered(delivery.record, delivery.channel.name, seqs, is_again=True)
                self._sent(size - size_before)
        return done, size

    def _gone(self, delivery: Delivery, seq: int) -> None:
        """A pending message was removed by a limit (B267) or cannot be sent (B97): it counts as acked."""
        delivery.hot.ack(seq)
        self._changed[delivery.record.subscription_id] = delivery

    def _recover_deadlines(self, delivery: Delivery) -> None:
        """After a restart a message is due one ack wait after its timestamp (B363, B364); at once when that is unreadable."""
        subscription = delivery.hot
        now_ns = self.monotonic_ns()
        # A message's deadline on the monotonic clock, less its timestamp.
        offset_ns = now_ns - self.wall_ns() + delivery.schedule.ack_wait_ns
        pending = subscription.pending(subscription.floor, subscription.next_seq - 1)
        index = 0
        try:
            while index < len(pending):
                first, messages = self.store.read_messages(
                    delivery.channel, pending[index], len(pending) - index, TURN_MAX_BYTES
                )
                while index < len(pending) and (pending[index] < first + len(messages) or not messages):
                    seq = pending[index]
                    if seq < first or not messages:
                        self._gone(delivery, seq)
                    else:
                        delivery.schedule.recovered(seq, timestamp_ns(messages[seq - first]) + offset_ns)
                    index += 1
        except CorruptionError as error:
            self._log_unreadable(delivery, pending[index], error)
            delivery.schedule.add(now_ns, pending[index], pending[-1])

    # ---- timers and turns

    def _arm(self, delivery: Delivery) -> None:
        """One timer, at the earliest deadline; an earlier one that is armed stays and looks again."""
        due_ns = delivery.schedule.next_due_ns
        if due_ns is None:
            return
        if delivery.timer is not None:
            if delivery.timer_due_ns <= due_ns:
                return
            delivery.timer.cancel()
        delay_s = max(due_ns - self.monotonic_ns(), 0) / 1e9
        delivery.timer_due_ns = due_ns
        delivery.timer = self.loop.call_later(delay_s, self._timer_fired, delivery)

    def _timer_fired(self, delivery: Delivery) -> None:
        delivery.timer = None
        delivery.schedule.forget_below(delivery.hot.floor)
        self._serve(delivery)
        self._turn_ended()

    def _continue_later(self, delivery: Delivery) -> None:
        """More than one turn may send: go on in the next."""
        self._backlog[delivery.record.subscription_id] = delivery
        if not self._backlog_scheduled:
            self._backlog_scheduled = True
            self.loop.call_soon(self._run_backlog)

    def _run_backlog(self) -> None:
        self._backlog_scheduled = False
        backlog, self._backlog = self._backlog, {}
        for delivery in backlog.values():
            self._serve(delivery)
        self._turn_ended()

    def _turn_ended(self) -> None:
        """The engine sent by itself: nobody else asks whether there is progress to replicate."""
        if self._changed:
            self.port.want_progress(at_once=False)

    def _read_failed(self, delivery: Delivery, error: CorruptionError) -> None:
        """A message cannot be read: no skipping, try again in a while (B238, B273)."""
        if delivery.retry is None:
            self._log_unreadable(delivery, delivery.hot.next_seq, error)
            delivery.retry = self.loop.call_later(READ_RETRY_S, self._retry, delivery)

    def _log_unreadable(self, delivery: Delivery, seq: int, error: CorruptionError) -> None:
        logger.error("Error looking up message %s:%d (%s)", delivery.channel.name, seq, error)

    def _retry(self, delivery: Delivery) -> None:
        delivery.retry = None
        self._serve(delivery)
        self._turn_ended()

    # ---- hot and replicated state

    def _add(self, record: Subscription, channel: hot.Channel) -> Delivery:
        """Build the volatile part from the replicated record."""
        subscription = hot.Subscription(
            channel, record.subscription_id, record.inbox.encode(), record.max_in_flight, record.floor + 1
        )
        subscription.sent_to(record.last_sent + 1)
        for first, last in record.acked.ranges():
            subscription.recover_acked(first, last)
        delivery = Delivery(
            record=record,
            channel=self.store.state.channels_by_id[record.channel_id],
            hot=subscription,
            schedule=Schedule(record.ack_wait_s * 1_000_000_000),
            reported=(record.last_sent, record.floor),
        )
        channel.subscriptions.append(subscription)
        self.deliveries[record.subscription_id] = delivery
        self.core.ack_subjects[record.ack_inbox.encode()] = subscription
        self.core.forget_lines()
        return delivery

    def _progress_of(self, delivery: Delivery) -> Progress | None:
        """Sent and acked since the last report, coalesced (B381)."""
        subscription = delivery.hot
        floor = subscription.floor - 1
        last_sent = subscription.next_seq - 1
        if (last_sent, floor) == delivery.reported and not subscription.acked_ahead and not subscription.skipped:
            return None
        acked = _ranges([seq for seq in subscription.acked_ahead if seq > floor], subscription.skipped, floor)
        delivery.reported = (last_sent, floor)
        subscription.acked_ahead = []
        subscription.skipped = []
        return Progress(subscription_id=subscription.subscription_id, last_sent=last_sent, floor=floor, acked=acked)


def _ranges(sequences: list[int], skipped: list[tuple[int, int]], floor: int) -> tuple[tuple[int, int], ...]:
    """Disjoint ascending ranges above `floor` of single sequences and ranges."""
    if not sequences and not skipped:
        return ()
    pieces = [(seq, seq) for seq in sequences] + [
        (max(first, floor + 1), last) for first, last in skipped if last > floor
    ]
    pieces.sort()
    merged: list[tuple[int, int]] = []
    for first, last in pieces:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


__all__ = ["Delivery", "DeliveryStatistics", "Due", "Engine", "Port"]
