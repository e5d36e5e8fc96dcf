"""Sends messages to the online subscriptions of the node that leads, takes their acks, and sends again what is due.

All state here is volatile: rebuilt from the store when leadership begins, dropped when it ends. What must outlive it
leaves as progress operations. How a plain subscription and a queue group are served: `plain`, `group`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from server import hot, windows
from server.delivery.group import GroupStream
from server.delivery.plain import PlainStream
from server.delivery.stream import Context, Stream
from store.machine.state import GroupKey, Subscription
from store.operations import GroupProgress, Progress, Subscribe

AnyProgress = Progress | GroupProgress


@dataclass(frozen=True, slots=True)
class DeliveryStatistics:
    """Figures of all online subscriptions."""

    subscriptions: int
    pending: int
    delivered: int
    redelivered: int
    stalled: int
    waiting: int
    """Subscriptions and groups with capacity, messages waiting and nothing on its way: zero in a healthy server."""


@dataclass(slots=True)
class Engine:
    """All online subscriptions of this node."""

    context: Context
    core: hot.Core
    streams: dict[int, Stream] = field(default_factory=dict)
    """By id of the subscription or queue group."""
    _by_subscription: dict[int, tuple[Subscription, Stream]] = field(default_factory=dict)
    _groups: dict[GroupKey, GroupStream] = field(default_factory=dict)
    _by_channel: dict[int, dict[int, Stream]] = field(default_factory=dict)
    _offline_counts: dict[int, dict[int, int]] = field(default_factory=dict)
    """Of durables and durable groups (B271)."""
    _is_stopped: bool = False

    # ---- life of a subscription

    def start(self, record: Subscription, channel: windows.Channel, *, is_resumed: bool) -> None:
        """A subscription was accepted and answered: deliver to it. A resumed durable gets all pending first (B284, B316).

        Not when leadership ended while its entry was under way (B396).
        """
        if self._is_stopped:
            return
        if record.queue_group:
            group = self._group_of(record, channel)
            self._listen(record, group.join(record), group)
            group.serve()
            return
        stream = self._add_plain(record, channel)
        if is_resumed:
            stream.hold()
        stream.serve()

    def recover(self, records: Iterable[Subscription], channels: dict[str, windows.Channel]) -> None:
        """Leadership began: every online subscription goes on at `resume_all`, pending messages first (B363)."""
        for record in records:
            channel = channels[self.context.store.state.channels_by_id[record.channel_id].name]
            stream: Stream
            if record.queue_group:
                stream = group = self._group_of(record, channel)
                self._listen(record, group.recover(record), group)
            else:
                stream = plain = self._add_plain(record, channel)
                plain.recover()
            self.context.turns.block(stream)

    def resume_all(self) -> None:
        """The connection is (again) open: send what waits for it."""
        self.context.turns.resume_all()

    def stop(self, subscription_id: int) -> AnyProgress | None:
        """Send nothing more to this subscription (B239). Returns its last progress when it is not yet replicated.

        That of a queue group goes into the same entry, ahead of the end of the member.
        """
        if subscription_id not in self._by_subscription:
            return None
        record, stream = self._by_subscription.pop(subscription_id)
        self._stop_listening(record)
        if isinstance(stream, GroupStream):
            stream.remove(record.slot)
            self.context.turns.note_change(stream)
            self.context.port.want_progress(at_once=True)
            self.context.turns.continue_later(stream)  # not now: other members of the same client may leave, too
            return None
        stream.silence()
        self._drop(stream, keeps_counts=bool(record.durable_name))
        return stream.progress()

    def ended(self, subscription: Subscription | Subscribe, *, is_removed: bool) -> None:
        """The end of a subscription is applied; `is_removed`: its redelivery counts are of no more use (B271)."""
        if not subscription.queue_group:
            if is_removed:
                self.forget(subscription.subscription_id)
            return
        stream = self._groups.get((subscription.channel_id, subscription.durable_name, subscription.queue_group))
        if stream is None:
            return
        group = self.context.store.state.groups.get(stream.key)
        if group is None or not group.members:
            self._drop(stream, keeps_counts=group is not None)
        else:
            stream.ended()
            stream.serve()

    def forget(self, key: int) -> None:
        """The subscription or queue group is removed for good."""
        self._offline_counts.pop(key, None)

    def stop_all(self) -> list[AnyProgress]:
        """Leadership ends: no timer and no state of this term survives (B395, B396). Returns the last progress."""
        self._is_stopped = True
        for record, stream in self._by_subscription.values():
            self._stop_listening(record)
            stream.silence()
        self._by_subscription.clear()
        operations = [stream.progress() for stream in self.streams.values()]
        for stream in list(self.streams.values()):
            self._drop(stream, keeps_counts=False)
        self._offline_counts.clear()
        return [operation for operation in operations if operation is not None]

    # ---- what the loop calls

    def deliver_channel(self, channel_id: int) -> None:
        """New messages of the channel are applied."""
        streams = self._by_channel.get(channel_id)
        if streams is not None:
            for stream in streams.values():
                stream.deliver()

    def take_acks(self, touched: list[windows.Subscription]) -> None:
        """Acks moved these windows: note the progress, send into the room they made (B232, B249)."""
        streams: dict[int, Stream] = {}
        for subscription in touched:
            subscription.is_touched = False
            subscription.trim()
            if subscription.subscription_id in self._by_subscription:
                _, stream = self._by_subscription[subscription.subscription_id]
                streams[stream.key] = stream  # members of a group share theirs
        touched.clear()
        for stream in streams.values():
            self.context.turns.note_change(stream)
            if stream.next_seq <= stream.channel.last_seq:
                stream.deliver()

    def take_progress(self) -> list[AnyProgress]:
        """Progress of all subscriptions that moved since the last call, for the next entry."""
        turns = self.context.turns
        changed, turns.changed = turns.changed, {}
        operations = [stream.progress() for stream in changed.values()]
        return [operation for operation in operations if operation is not None]

    @property
    def has_progress(self) -> bool:
        """True when a subscription moved since the last `take_progress`."""
        return bool(self.context.turns.changed)

    def progress_applied(self, operations: Iterable[AnyProgress]) -> None:
        """Progress is replicated: what ran into the send-ahead bound goes on."""
        for operation in operations:
            key = operation.group_id if isinstance(operation, GroupProgress) else operation.subscription_id
            stream = self.streams.get(key)
            if stream is not None and stream.next_seq <= stream.channel.last_seq:
                stream.deliver()

    def statistics(self) -> DeliveryStatistics:
        """Figures for logs, monitoring and tests; walks all subscriptions."""
        pending = stalled = waiting = 0
        for stream in self.streams.values():
            held, full = stream.statistics()
            pending += held
            stalled += full
            waiting += stream.is_silent()
        return DeliveryStatistics(
            subscriptions=len(self._by_subscription),
            pending=pending,
            delivered=self.context.delivered,
            redelivered=self.context.redelivered,
            stalled=stalled,
            waiting=waiting,
        )

    # ---- streams

    def _add_plain(self, record: Subscription, channel: windows.Channel) -> PlainStream:
        """Build the volatile part from the replicated record."""
        subscription = windows.Subscription(
            channel, record.subscription_id, record.inbox.encode(), record.max_in_flight, record.floor + 1
        )
        stream = PlainStream(
            record, self.context.store.state.channels_by_id[record.channel_id], subscription, self.context
        )
        subscription.counts = self._offline_counts.pop(record.subscription_id, {})
        self._register(stream)
        self._listen(record, subscription, stream)
        return stream

    def _group_of(self, record: Subscription, channel: windows.Channel) -> GroupStream:
        """The stream of a member's group, built from the replicated record when it had no members."""
        key = (record.channel_id, record.durable_name, record.queue_group)
        stream = self._groups.get(key)
        if stream is None:
            state = self.context.store.state
            group = state.groups[record.group_id]
            stream = GroupStream(group, state.channels_by_id[record.channel_id], channel, self.context)
            stream.hot.counts = self._offline_counts.pop(record.group_id, {})
            self._groups[key] = stream
            self._register(stream)
        return stream

    def _register(self, stream: Stream) -> None:
        self.streams[stream.key] = stream
        self._by_channel.setdefault(stream.channel.channel_id, {})[stream.key] = stream

    def _listen(self, record: Subscription, subscription: windows.Subscription, stream: Stream) -> None:
        self._by_subscription[record.subscription_id] = (record, stream)
        self.core.ack_subjects[record.ack_inbox.encode()] = subscription
        self.core.forget_lines()

    def _stop_listening(self, record: Subscription) -> None:
        del self.core.ack_subjects[record.ack_inbox.encode()]
        self.core.forget_lines()

    def _drop(self, stream: Stream, *, keeps_counts: bool) -> None:
        """The stream has no subscription left."""
        self.context.turns.forget(stream)
        del self.streams[stream.key]
        others = self._by_channel[stream.channel.channel_id]
        del others[stream.key]
        if not others:
            del self._by_channel[stream.channel.channel_id]
        if isinstance(stream, GroupStream):
            del self._groups[stream.channel.channel_id, stream.record.durable_name, stream.record.name]
        if keeps_counts and stream.counts:
            self._offline_counts[stream.key] = stream.counts
