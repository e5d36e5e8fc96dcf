"""Delivers to one plain subscription, durable or not: every message, in order (B230)."""

from server import hot, windows
from server.delivery.schedule import Schedule
from server.delivery.stream import Context, Stream
from server.delivery.turns import Alarm
from store.machine.state import Channel, Subscription
from store.operations import Progress


class PlainStream(Stream):
    """One online subscription: its replicated record, its hot part, its deadlines."""

    def __init__(
        self, record: Subscription, channel: Channel, subscription: windows.Subscription, context: Context
    ) -> None:
        super().__init__(record.subscription_id, channel, context)
        self.record = record
        self.hot = subscription
        subscription.sent_to(record.last_sent + 1)
        for first, last in record.acked.ranges():
            subscription.recover_acked(first, last)
        self.schedule = Schedule(record.ack_wait_s * 1_000_000_000)
        self.alarm = Alarm(context.turns, self._due)
        self.reported = (record.last_sent, record.floor)
        """`(last_sent, floor)` that the newest progress operation carries."""

    @property
    def next_seq(self) -> int:
        """The next sequence to send as new."""
        return self.hot.next_seq

    @property
    def replicated_last(self) -> int:
        """Last sent, as replicated."""
        return self.record.last_sent

    @property
    def suspect_to(self) -> int:
        """As in the record."""
        return self.record.suspect_to

    @property
    def counts(self) -> dict[int, int]:
        """Redelivery counts of pending messages."""
        return self.hot.counts

    def room(self) -> int:
        """Up to max in flight (B232)."""
        return self.hot.max_in_flight - self.hot.pending_count()

    def skip_to(self, seq: int) -> None:
        """A limit removed what is before `seq`."""
        self.hot.skip_to(seq)

    def gone(self, seq: int) -> None:
        """Counts as acked."""
        self.hot.ack(seq)

    def hold(self) -> None:
        """A durable is resumed: all that is pending goes at once, and first (B284)."""
        if self.hot.pending_count():
            self.is_on_hold = True
            past_ns = self.context.monotonic_ns() - self.schedule.ack_wait_ns
            self.schedule.add(past_ns, self.hot.floor, self.hot.next_seq - 1)

    def recover(self) -> None:
        """Leadership began: what is pending goes when it is due, and first (B363)."""
        if self.hot.pending_count():
            self.is_on_hold = True
            self.recover_deadlines(self.schedule, self.hot.pending(self.hot.floor, self.hot.next_seq - 1))

    def send_new(self, first: int, messages: list[bytes]) -> None:
        """All to the one inbox."""
        context, subscription = self.context, self.hot
        last = first + len(messages) - 1
        hot.delivery_frames(subscription.frame_head, messages, context.port.parts)
        subscription.sent_to(last + 1)
        self.schedule.forget_below(subscription.floor)
        self.schedule.tidy(subscription.is_any_pending)
        self.schedule.sent(first, last, context.monotonic_ns())
        self.alarm.set(self.schedule.next_due_ns)
        if context.trace is not None:
            context.trace.delivered(self.record, self.channel.name, range(first, last + 1), is_again=False)

    def redeliver(self) -> None:
        """Skipped while the client's heartbeats fail (B268), but for the first pass."""
        context, schedule = self.context, self.schedule
        now_ns = context.monotonic_ns()
        if not context.port.is_open():
            context.turns.block(self)
            return
        if not self.is_on_hold and context.port.is_failing(self.record.client_id):
            schedule.postpone(now_ns)
            self.alarm.set(schedule.next_due_ns)
            return
        budget = context.turn_max_bytes
        while (entry := schedule.pop_due(now_ns)) is not None:
            if not context.port.is_open():
                schedule.sent_partly(entry, entry.first)
                context.turns.block(self)
                return
            pending = self.hot.pending(entry.first, entry.last)
            done, seqs, frames = self.frames_again(pending, budget)
            if frames:
                budget -= self._send_again(seqs, frames)
            if done:
                schedule.sent_again(entry, pending[0], pending[done - 1], now_ns)
            if done < len(pending):
                schedule.sent_partly(entry, pending[done])
                context.turns.continue_later(self)
                return
        self.alarm.set(schedule.next_due_ns)
        self.is_on_hold = False

    def _send_again(self, seqs: list[int], frames: list[bytes]) -> int:
        """Hand over redeliveries; returns their bytes."""
        context = self.context
        hot.delivery_frames(self.hot.frame_head, frames, context.port.parts)
        context.redelivered += len(frames)
        self.resent += len(frames)
        if context.trace is not None:
            context.trace.delivered(self.record, self.channel.name, seqs, is_again=True)
        size = sum(map(len, frames))
        context.sent(size)
        return size

    def silence(self) -> None:
        """No timer fires any more."""
        self.alarm.cancel()

    def progress(self) -> Progress | None:
        """Sent and acked since the last report."""
        subscription = self.hot
        floor = subscription.floor - 1
        last_sent = subscription.next_seq - 1
        if (last_sent, floor) == self.reported and not subscription.acked_ahead and not subscription.skipped:
            return None
        acked = _ranges([seq for seq in subscription.acked_ahead if seq > floor], subscription.skipped, floor)
        self.reported = (last_sent, floor)
        subscription.acked_ahead = []
        subscription.skipped = []
        return Progress(subscription_id=self.key, last_sent=last_sent, floor=floor, acked=acked)

    def statistics(self) -> tuple[int, int]:
        """Pending, and 1 when stalled."""
        return self.hot.pending_count(), self.room() <= 0

    def _due(self) -> None:
        self.schedule.forget_below(self.hot.floor)
        self.serve()


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
