"""Subscribe, unsubscribe and subscription close requests (B80 to B104)."""

import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from server import hot, windows
from server.delivery.engine import Engine
from server.errors import RequestError
from server.frontend.channels import Channels
from server.frontend.start_position import last_sent_for
from server.outbox import Outbox
from server.proposals.proposer import Proposer
from server.protocol import names, responses, stan_pb2
from server.protocol.stan_pb2 import SubscriptionRequest, SubscriptionResponse, UnsubscribeRequest
from server.tokens import new_token
from store.errors import CorruptionError
from store.machine.state import Channel, Client, Group, GroupKey, Refusal, Result, State, Subscription
from store.message import timestamp_ns
from store.operations import CloseSubscription, Subscribe, Unsubscribe
from store.store import Store

logger = logging.getLogger(__name__)

WAIT_MAX_S: Final = 2.0
"""A request that waited longer for its entry is not proposed: its client has given up, seconds. Source: B81."""

_START_POSITIONS = frozenset(stan_pb2.StartPosition.values())

DurableKey = tuple[str, int, str]
"""Client id, channel id, durable name (B280)."""

RegistrationKey = tuple[int, str, str, str]
"""Channel id, durable name, queue group and, unless there is one, client id."""

Endable = Subscription | Subscribe
"""A subscription that is applied, or one whose registration is under way: both can be ended (B127)."""


@dataclass(slots=True)
class Subscriptions:
    """Requests about subscriptions; the subscriptions themselves are in the store and the engine."""

    store: Store
    state: State
    core: hot.Core
    channels: Channels
    proposer: Proposer
    engine: Engine
    outbox: Outbox
    wall_ns: Callable[[], int]
    replace_durable: bool
    leaving: set[str]
    on_ended: Callable[[int], None]
    """A subscription of this channel id ended (B338)."""
    ack_inbox_prefix: str = ""
    """`_INBOX.<token fixed per cluster>` (B17); known when the log has it."""
    _next_id: int = 0
    _registering: dict[int, dict[str, Subscribe]] = field(default_factory=dict)
    """By channel id and ack inbox: in the open or travelling entry."""
    _by_key: dict[RegistrationKey, list[Subscribe]] = field(default_factory=dict)
    """Those of durables and queue groups."""
    _stopped: dict[str, Endable] = field(default_factory=dict)
    """By ack inbox, which names one life of a subscription: those whose end is in the open or travelling entry."""
    _removed: set[str] = field(default_factory=set)
    """Those of `_stopped` that end for good."""

    # ---- subscribe

    def subscribe(self, message: hot.Message) -> None:
        """Checks of B82 and B83 in order, then registration."""
        try:
            self._subscribe(message)
        except RequestError as error:
            self._answer(message.reply, error.wire_text)

    def _subscribe(self, message: hot.Message) -> None:
        request = _validated(message.payload)
        if request.clientID not in self.state.clients or request.clientID in self.leaving:
            raise RequestError(responses.UNKNOWN_CLIENT_ID, field="clientID", value=request.clientID)
        channel = self.channels.find_or_create(request.subject)
        durable = None
        is_resumed = False
        if request.qGroup:
            if ":" in request.durableName:
                raise RequestError(responses.INVALID_DURABLE_NAME, field="durableName", value=request.durableName)
            is_resumed = self._is_offline((channel.channel_id, request.durableName, request.qGroup))
        elif request.durableName:
            durable = self._offline_durable((request.clientID, channel.channel_id, request.durableName))
            is_resumed = durable is not None
        if not is_resumed:
            self._check_room(channel)
        self._register(request, message.reply, channel, durable)

    def _offline_durable(self, key: DurableKey) -> Endable | None:
        """The durable to resume, if it exists; an online one is refused (B290) or closed first (B292)."""
        client_id, channel_id, name = key
        lives = self._by_key.get((channel_id, name, "", client_id))
        durable: Endable | None = lives[-1] if lives else self.state.durables.get(key)
        if durable is None or durable.ack_inbox in self._removed:
            return None  # a new one, behind the end of the old one in the log
        is_online = isinstance(durable, Subscribe) or durable.is_online
        if is_online and durable.ack_inbox not in self._stopped:
            if not self.replace_durable:
                raise RequestError(responses.DUPLICATE_DURABLE, field="durableName", value=key[2])
            self._end(durable, CloseSubscription(durable.subscription_id), lambda _result: None)
        if isinstance(durable, Subscribe):
            self.proposer.keep(durable)
        return durable

    def _members(self, group: Group) -> list[Subscription]:
        """Members that are not about to leave."""
        return [one for one in group.members.values() if one.ack_inbox not in self._stopped]

    def _is_offline(self, key: GroupKey) -> bool:
        """True when the group exists and has no members: the next one to join takes no new place (B316, B330)."""
        group = self.state.groups_by_key.get(key)
        if group is None or not group.durable_name or self._members(group):
            return False
        return (*key, "") not in self._by_key

    def _will_join(self, key: GroupKey) -> bool:
        """True when the group surely exists when the next request is applied: its start position does not count (B222)."""
        group = self.state.groups_by_key.get(key)
        if group is None:
            return False
        if group.members:
            return bool(self._members(group))
        return (*key, "") not in self._by_key

    def _leaves_nothing(self, ending: Endable) -> bool:
        """True when the end of `ending`, which is under way, makes room (B127, B330)."""
        if not ending.durable_name or ending.ack_inbox in self._removed:
            return True
        group = self.state.groups_by_key.get(_group_key(ending)) if ending.queue_group else None
        return group is not None and bool(self._members(group))

    def _check_room(self, channel: windows.Channel) -> None:
        """B330: offline durables count, resuming takes no new place."""
        maximum = self.channels.limits_of(channel.name).max_subs
        if not maximum:
            return
        channel_id = channel.channel_id
        ids = {one.subscription_id for one in self._registering.get(channel_id, {}).values()}
        resting = 0
        record = self.state.channels_by_id.get(channel_id)
        if record is not None:
            groups = [self.state.groups[one] for one in record.group_ids] if record.offline_groups else []
            resting = sum(not one.members and (*_group_key(one), "") not in self._by_key for one in groups)
            ids.update(record.subscription_ids)
        ids -= {one.subscription_id for one in self._stopped.values() if self._leaves_nothing(one)}
        count = len(ids) + resting
        if count >= maximum:
            raise RequestError(responses.TOO_MANY_SUBSCRIPTIONS, field="subject", value=channel.name)

    def _register(
        self, request: SubscriptionRequest, reply: bytes, channel: windows.Channel, durable: Endable | None
    ) -> None:
        if durable is None:
            subscription_id = max(self._next_id, self.state.next_subscription_id)
            self._next_id = subscription_id + 1
            is_joining = self._will_join((channel.channel_id, request.durableName, request.qGroup))
            last_sent = 0 if is_joining else self._resolve(request, channel)
        else:
            subscription_id, last_sent = durable.subscription_id, 0
        operation = Subscribe(
            subscription_id=subscription_id,
            channel_id=channel.channel_id,
            client_id=request.clientID,
            inbox=request.inbox,
            ack_inbox=f"{self.ack_inbox_prefix}.{new_token()}",
            durable_name=request.durableName,
            queue_group=request.qGroup,
            max_in_flight=request.maxInFlight,
            ack_wait_s=request.ackWaitInSecs,
            last_sent=last_sent,
        )
        self._registering.setdefault(channel.channel_id, {})[operation.ack_inbox] = operation
        key = _registration_key(operation)
        if key is not None:
            self._by_key.setdefault(key, []).append(operation)
        is_resumed = durable is not None

        def applied(result: Result) -> None:
            self._registered(operation)
            if isinstance(result, Refusal):
                self._answer(reply, result.text)
                return
            # Answered before anything is sent, and the ack inbox is listened to already (B80).
            self.outbox.send(reply, SubscriptionResponse(ackInbox=operation.ack_inbox).SerializeToString())
            record = self.state.subscriptions.get(subscription_id)
            if record is None or record.ack_inbox != operation.ack_inbox or not record.is_online:
                return  # ended by a later operation of the same entry
            self._log_start(record, channel, is_resumed=is_resumed)
            if operation.ack_inbox not in self._stopped:
                self.engine.start(record, channel, is_resumed=is_resumed)

        self.proposer.add(operation, applied, wait_max_s=WAIT_MAX_S)

    def _resolve(self, request: SubscriptionRequest, channel: windows.Channel) -> int:
        """Start position of a new subscription, from what is numbered now (B126, B220)."""
        record = self.state.channels_by_id.get(channel.channel_id)

        def first_at_or_after(time_ns: int) -> int:
            applied = 0
            if record is not None:
                found = self.store.first_message_at_or_after(record, time_ns)
                if found <= record.last_seq:
                    return found
                applied = record.last_seq
            # Numbered and not applied: the open batch is at hand, what travels counts as inside (B128).
            records = channel.records
            if records and timestamp_ns(records[0]) < time_ns:
                return channel.seq - len(records) + 1 + bisect_left(records, time_ns, key=timestamp_ns)
            return channel.seq + 1 if time_ns > self.core.last_timestamp_ns else applied + 1

        try:
            return last_sent_for(
                request,
                first_seq=1 if record is None else record.first_seq,
                last_seq=channel.seq,
                now_ns=self.wall_ns(),
                first_at_or_after=first_at_or_after,
            )
        except CorruptionError as error:
            logger.error("Error looking up messages of %s: %s", channel.name, error)  # noqa: TRY400  no bug
            raise RequestError(
                responses.MESSAGE_UNREADABLE, field="startTimeDelta", value=request.startTimeDelta
            ) from error

    # ---- unsubscribe and close

    def unsubscribe(self, message: hot.Message) -> None:
        """Ends a subscription; a durable for good (B100, B288)."""
        self._end_request(message, lambda subscription: Unsubscribe(subscription.subscription_id))

    def close(self, message: hot.Message) -> None:
        """Ends a subscription; a durable goes offline (B100, B282)."""
        self._end_request(message, lambda subscription: CloseSubscription(subscription.subscription_id))

    def _end_request(
        self, message: hot.Message, operation: Callable[[Endable], Unsubscribe | CloseSubscription]
    ) -> None:
        reply = message.reply
        try:
            subscription = self._find(message.payload)
        except RequestError as error:
            self._answer(reply, error.wire_text)
            return
        self._end(
            subscription,
            operation(subscription),
            lambda result: self._answer(reply, result.text if isinstance(result, Refusal) else ""),
        )

    def _find(self, payload: bytes) -> Endable:
        """The subscription a request names, with the errors of B101 in their order."""
        try:
            request = UnsubscribeRequest.FromString(payload)
        except DecodeError:
            raise RequestError(responses.INVALID_UNSUBSCRIBE, field="payload", value=payload[:64]) from None
        channel = self.channels.get(request.subject)
        if channel is None:
            raise RequestError(responses.UNKNOWN_CHANNEL, field="subject", value=request.subject)
        # By ack inbox, else by delivery inbox, the later one of several (B89, B100).
        found = self._by_ack_inbox(channel.channel_id, request.inbox)
        if found is None:
            by_inbox = [one for one in self._online_in(channel.channel_id) if one.inbox == request.inbox]
            if not by_inbox:
                raise RequestError(responses.INVALID_SUBSCRIPTION, field="inbox", value=request.inbox)
            found = by_inbox[-1]
        if found.client_id != request.clientID or request.clientID in self.leaving:
            raise RequestError(responses.UNKNOWN_CLIENT_ID, field="clientID", value=request.clientID)
        return found

    def _by_ack_inbox(self, channel_id: int, ack_inbox: str) -> Endable | None:
        """An online subscription, or one under way in, that does not end yet."""
        if ack_inbox in self._stopped:
            return None
        registering = self._registering.get(channel_id, {}).get(ack_inbox)
        if registering is not None:
            return registering
        subscription = self.core.ack_subjects.get(ack_inbox.encode())
        if subscription is None or subscription.channel.channel_id != channel_id:
            return None
        return self.state.subscriptions[subscription.subscription_id]

    def _online_in(self, channel_id: int) -> list[Endable]:
        """Subscriptions of a channel as of now, in arrival order: those under way in, those that end out (B127)."""
        online: list[Endable] = []
        record = self.state.channels_by_id.get(channel_id)
        if record is not None:
            applied = [self.state.subscriptions[one] for one in record.subscription_ids]
            online += [one for one in applied if one.is_online]
        online += self._registering.get(channel_id, {}).values()
        return [one for one in online if one.ack_inbox not in self._stopped]

    def _registered(self, operation: Subscribe) -> None:
        """The registration is applied, refused or lost."""
        registering = self._registering[operation.channel_id]
        del registering[operation.ack_inbox]
        if not registering:
            del self._registering[operation.channel_id]
        key = _registration_key(operation)
        if key is not None:
            self._by_key[key].remove(operation)
            if not self._by_key[key]:
                del self._by_key[key]

    def _end(
        self, subscription: Endable, operation: Unsubscribe | CloseSubscription, done: Callable[[Result], None]
    ) -> None:
        """Stop delivery now, replicate the last progress and the end together (B352)."""
        if isinstance(subscription, Subscribe):
            self.proposer.keep(subscription)
        self._stop(subscription)
        ack_inbox = subscription.ack_inbox  # a durable that is resumed gets another one
        is_removed = isinstance(operation, Unsubscribe) or not subscription.durable_name
        if is_removed:
            self._removed.add(ack_inbox)

        def applied(result: Result) -> None:
            self._stopped.pop(ack_inbox, None)
            self._removed.discard(ack_inbox)
            self.engine.ended(subscription, is_removed=is_removed)
            if not isinstance(result, Refusal):
                self._log_end(subscription, is_removed=is_removed)
            done(result)

        self.proposer.add(operation, applied)

    def stop_all_of(self, client: Client) -> list[Endable]:
        """The client ends: nothing more is sent to its subscriptions (B345); those that this stopped."""
        ending: list[Endable] = [self.state.subscriptions[one] for one in client.subscription_ids]
        for registering in self._registering.values():
            ending += [one for one in registering.values() if one.client_id == client.client_id]
        stopped = [one for one in ending if one.ack_inbox not in self._stopped]
        for subscription in stopped:
            self._stop(subscription)
        return stopped

    def forget_stopped(self, stopped: list[Endable]) -> None:
        """The end of their client is applied."""
        for subscription in stopped:
            self._stopped.pop(subscription.ack_inbox, None)
            self.engine.ended(subscription, is_removed=not subscription.durable_name)

    def has_online(self, channel: Channel) -> bool:
        """True when a subscription of the channel is online or being made: it must not be deleted (B337, B338)."""
        if channel.channel_id in self._registering:
            return True
        subscriptions = self.state.subscriptions
        return any(subscriptions[subscription_id].is_online for subscription_id in channel.subscription_ids)

    def _stop(self, subscription: Endable) -> None:
        self.on_ended(subscription.channel_id)
        self._stopped[subscription.ack_inbox] = subscription
        progress = self.engine.stop(subscription.subscription_id)
        if progress is not None:
            self.proposer.add(progress)

    # ---- answers and logs

    def _answer(self, reply: bytes, text: str) -> None:
        self.outbox.send(reply, SubscriptionResponse(error=text).SerializeToString())

    def _log_start(self, record: Subscription, channel: windows.Channel, *, is_resumed: bool) -> None:
        verb = "Resumed" if is_resumed else "Started new"
        last_sent = record.last_sent
        if record.queue_group:
            group = self.state.groups[record.group_id]
            verb = "Added member to" if len(group.members) > 1 else verb
            last_sent = group.holders.last
        logger.debug(
            "[Client:%s] %s %s, subject=%s, inbox=%s%s, subid=%d, seq=%d",
            record.client_id, verb, _kind(record), channel.name, record.inbox, _queue(record), record.subscription_id,
            last_sent + 1,
        )  # fmt: skip

    def _log_end(self, subscription: Endable, *, is_removed: bool) -> None:
        verb = "Removed" if is_removed else "Suspended"
        if subscription.queue_group:
            group = self.state.groups_by_key.get(_group_key(subscription))
            verb = "Removed" if group is None else "Removed member from" if group.members else "Suspended"
        logger.debug(
            "[Client:%s] %s %s, inbox=%s%s, subid=%d",
            subscription.client_id, verb, _kind(subscription), subscription.inbox, _queue(subscription),
            subscription.subscription_id,
        )  # fmt: skip


def _kind(one: Endable) -> str:
    """As log lines name it (O217)."""
    return f"{'durable ' * bool(one.durable_name)}{'queue ' * bool(one.queue_group)}subscription"


def _queue(one: Endable) -> str:
    return f", queue={one.queue_group}" if one.queue_group else ""


def _registration_key(operation: Subscribe) -> RegistrationKey | None:
    """Plain subscriptions have none."""
    if operation.queue_group:
        return operation.channel_id, operation.durable_name, operation.queue_group, ""
    if operation.durable_name:
        return operation.channel_id, operation.durable_name, "", operation.client_id
    return None


def _group_key(one: Endable | Group) -> GroupKey:
    return one.channel_id, one.durable_name, one.name if isinstance(one, Group) else one.queue_group


def _validated(payload: bytes) -> SubscriptionRequest:
    """Checks 1 to 6 of B82, then B85 and B66."""
    try:
        request = SubscriptionRequest.FromString(payload)
    except DecodeError:
        raise RequestError(responses.INVALID_SUBSCRIPTION_REQUEST, field="payload", value=payload[:64]) from None
    if not request.clientID:
        raise RequestError(responses.CLIENT_ID_MISSING, field="clientID", value="")
    if request.ackWaitInSecs < 1:
        raise RequestError(responses.INVALID_ACK_WAIT, field="ackWaitInSecs", value=request.ackWaitInSecs)
    if request.maxInFlight < 1:
        raise RequestError(responses.INVALID_MAX_IN_FLIGHT, field="maxInFlight", value=request.maxInFlight)
    if request.startPosition not in _START_POSITIONS:
        raise RequestError(responses.INVALID_START_POSITION, field="startPosition", value=request.startPosition)
    if not names.is_channel(request.subject):
        raise RequestError(responses.INVALID_SUBJECT, field="subject", value=request.subject)
    if not names.is_inbox(request.inbox):
        raise RequestError(responses.INVALID_SUBSCRIPTION_REQUEST, field="inbox", value=request.inbox)
    if not (names.fits(request.durableName) and names.fits(request.qGroup)):
        raise RequestError(responses.INVALID_SUBSCRIPTION_REQUEST, field="durableName", value=request.durableName)
    return request
