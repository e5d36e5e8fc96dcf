"""Says what the delivery rules demand: a slow model of channels, clients, subscriptions and queue groups.

Written from the specification only. It is told every operation and everything the server sent, each with its time (wall
clock, ns), in order; whatever the rules do not allow, or demand and did not get, raises DisagreementError with the rule's number.
Deadlines are intervals `low..high`: where the rules leave a choice, the interval holds all of it; SLACK_NS comes on top.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.model.groups import Group
from tests.model.rules import (
    PROGRESS_NS,
    SLACK_NS,
    Channel,
    Client,
    DisagreementError,
    Pending,
    Rules,
    Subscription,
    Survived,
    next_due,
)  # fmt: skip


@dataclass
class Model:
    """Everything the server should know, at `now_ns`."""

    rules: Rules
    now_ns: int
    clients: dict[str, Client] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    subscriptions: list[Subscription] = field(default_factory=list)
    """Online ones and offline durables. Members of queue groups are online."""
    groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)
    is_connected: bool = True
    has_room: bool = True
    """The connection's buffer takes deliveries; requests and their answers are not concerned."""
    opened_ns: int = 0
    """When the connection last changed: what became due while it was closed is late (B236)."""
    held_since_ns: int | None = None
    """Nothing is committed since then."""
    released_ns: int = 0
    """When that was last over."""

    # ---- clients (B340 to B345)

    def connect(self, client_id: str) -> None:
        self.clients[client_id] = Client(client_id, self.now_ns + self.rules.heartbeat_ns)

    def end_client(self, client_id: str) -> None:
        """Close request or timeout: subscriptions are closed, not unsubscribed (B345)."""
        for subscription in self.online():
            if subscription.client_id == client_id:
                self.end(subscription, is_unsubscribe=False)
        del self.clients[client_id]

    def heartbeat_sent(self, client_id: str) -> None:
        client = self.clients[client_id]
        if abs(self.now_ns - client.heartbeat_due_ns) > SLACK_NS or client.heartbeat_sent_ns:
            raise DisagreementError(f"B340 heartbeat of {client} at {self.now_ns}")
        client.heartbeat_sent_ns = self.now_ns

    def heartbeat_answered(self, client_id: str) -> None:
        """In time: one success resets the count (B342). A late answer does not count (B340)."""
        client = self.clients.get(client_id)
        if client is not None and client.heartbeat_sent_ns:
            client.heartbeat_ended(self.now_ns, self.now_ns + self.rules.heartbeat_ns, failures=0)

    def _heartbeats_until(self, now_ns: int) -> None:
        """Heartbeats nobody answered, up to but not at `now_ns`."""
        while True:
            waiting: list[tuple[int, Client]] = []
            for client in self.clients.values():
                if not client.heartbeat_sent_ns and not self.is_connected and client.heartbeat_due_ns <= now_ns:
                    client.heartbeat_sent_ns = client.heartbeat_due_ns  # nobody sees it
                if client.heartbeat_sent_ns:
                    waiting.append((client.heartbeat_sent_ns + self.rules.heartbeat_timeout_ns, client))
            if not waiting:
                return
            due_ns, client = min(waiting, key=lambda pair: pair[0])
            if due_ns >= now_ns:
                return
            self.now_ns = due_ns
            client.heartbeat_ended(due_ns, due_ns + self.rules.heartbeat_ns, failures=client.failures + 1)
            if client.failures > self.rules.heartbeat_failures:  # B341
                self.end_client(client.client_id)

    # ---- the channel log (B200 to B203, B326 to B339)

    def channel(self, name: str) -> Channel:
        """Found or created: its inactivity clock starts (B338)."""
        return self.channels.setdefault(name, Channel(name, self.now_ns))

    def publish(self, name: str, data: bytes, received_ns: int) -> None:
        """Stored with the next sequence; then the oldest go until the limits hold, the newest stays (B326)."""
        channel = self.channel(name)
        channel.store(data, received_ns)
        channel.active_ns = self.now_ns
        rules = self.rules
        while channel.first < channel.last and (
            (rules.max_msgs and channel.count > rules.max_msgs)
            or (rules.max_bytes and channel.stored_bytes(rules.message_overhead) > rules.max_bytes)
        ):
            channel.first += 1

    def expired(self, name: str, first: int) -> None:
        """The server removed messages by age: only those may go that are old enough (B328)."""
        channel = self.channels[name]
        for seq in range(channel.first, first):
            if self.now_ns - channel.timestamps[seq] < self.rules.max_age_ns:
                raise DisagreementError(f"B328 {name}:{seq} expired after {self.now_ns - channel.timestamps[seq]} ns")
        if first > channel.first:
            channel.expired = (self.now_ns, channel.first)
            channel.first = first

    def deleted(self, name: str) -> None:
        """The server deleted a channel: only without online subscription and publish for long enough (B336, B337)."""
        inactive_ns = self.now_ns - self.channels[name].active_ns
        if inactive_ns < self.rules.max_inactivity_ns or not self.rules.max_inactivity_ns:
            raise DisagreementError(f"B336 {name} deleted after {inactive_ns} ns")
        if any(one.channel.name == name for one in self.online()):
            raise DisagreementError(f"B337 {name} deleted, it has an online subscription")
        self.subscriptions = [one for one in self.subscriptions if one.channel.name != name]
        self.groups = {key: one for key, one in self.groups.items() if one.channel.name != name}
        del self.channels[name]

    # ---- subscriptions (B220, B280 to B290, B330, B350)

    def online(self) -> list[Subscription]:
        return [one for one in self.subscriptions if one.is_online]

    def durable(self, client_id: str, channel: str, name: str) -> Subscription | None:
        """B280: identity is client id, channel and durable name."""
        for one in self.subscriptions:
            if (
                name
                and not one.group_name
                and (one.client_id, one.channel.name, one.durable) == (client_id, channel, name)
            ):
                return one
        return None

    def group_of(self, one: Subscription) -> Group:
        """The group of a member."""
        return self.groups[one.channel.name, one.durable, one.group_name]

    def refusal(self, client_id: str, channel: str, durable: str, group: str = "") -> str:
        """The error a subscribe must get, or nothing (B82.8, B83.3, B83.6)."""
        if client_id not in self.clients:
            return "stan: unknown clientID"
        self.channel(channel)  # B84: it stays even when the request is refused
        resumed = None if group else self.durable(client_id, channel, durable)
        if resumed is not None:
            return "stan: duplicate durable registration" if resumed.is_online else ""
        if group and (channel, durable, group) in self.groups and not self.groups[channel, durable, group].members:
            return ""
        # Offline durables count, too, and so do offline groups (B330).
        taken = sum(one.channel.name == channel for one in self.subscriptions)
        taken += sum(one.channel.name == channel and not one.members for one in self.groups.values())
        return "too many subscriptions per channel" if taken >= self.rules.max_subs > 0 else ""

    def subscribe(self, request: Subscription, start: str, value: int) -> Subscription:
        """A new subscription, or a durable comes back: progress and counts kept, the rest replaced (B283)."""
        if request.group_name:
            return self._join(request, start, value)
        resumed = self.durable(request.client_id, request.channel.name, request.durable)
        if resumed is None:
            request.next_seq = request.channel.start(start, value, self.now_ns)
            self.subscriptions.append(request)
            return request
        resumed.inbox, resumed.max_in_flight, resumed.ack_wait_ns = (
            request.inbox, request.max_in_flight, request.ack_wait_ns
        )  # fmt: skip
        resumed.is_online = True
        resumed.first_pass = sorted(resumed.pending)  # B284
        for pending in resumed.pending.values():
            pending.low = pending.high = self.now_ns - resumed.ack_wait_ns  # long past (B264)
        return resumed

    def _join(self, member: Subscription, start: str, value: int) -> Subscription:
        """The first member decides where the group starts (B303, B222)."""
        key = (member.channel.name, member.durable, member.group_name)
        if key not in self.groups:
            next_seq = member.channel.start(start, value, self.now_ns)
            self.groups[key] = Group(member.channel, member.durable, member.group_name, next_seq)
        self.groups[key].join(member, self.now_ns)
        self.subscriptions.append(member)
        return member

    def end(self, subscription: Subscription, *, is_unsubscribe: bool) -> None:
        """B350; the inactivity clock starts when the last online one ends (B338, B353)."""
        if subscription.group_name:
            group = self.group_of(subscription)
            group.leave(subscription, self.now_ns)
            if not group.members and (is_unsubscribe or not group.durable):
                del self.groups[group.key]
        subscription.is_online = False
        subscription.first_pass = []
        subscription.channel.active_ns = self.now_ns
        if is_unsubscribe or not subscription.durable or subscription.group_name:
            self.subscriptions.remove(subscription)

    def ack(self, subscription: Subscription, seq: int) -> None:
        """Exactly this one, if it is pending; anything else does nothing (B245, B246, B252)."""
        if subscription.group_name:
            self.group_of(subscription).ack(seq, self.now_ns)
            return
        if subscription.is_online and seq in subscription.pending:
            del subscription.pending[seq]
            subscription.acked[seq] = self.now_ns
            subscription.first_pass = [one for one in subscription.first_pass if one != seq]  # B270

    # ---- what the server sent

    def saw(self, inbox: str, seq: int, data: bytes, timestamp_ns: int, *, is_redelivered: bool, count: int) -> None:
        """A message arrived at `inbox`. Raises unless the rules allow it now."""
        shown = f"{inbox} got {seq} flag={is_redelivered} count={count} at {self.now_ns}"
        found = [one for one in self.online() if one.inbox == inbox]
        if not found:
            raise DisagreementError(f"B239 {shown}: the subscription has ended or never was")
        subscription = found[0]
        channel = subscription.channel
        if not self.is_open:
            raise DisagreementError(f"B236 {shown}: the connection takes nothing")
        if not channel.first_on_its_way(self.now_ns) <= seq <= channel.last:
            raise DisagreementError(f"B235 {shown}: stored is {channel.first}..{channel.last}")
        if (data, timestamp_ns) != (channel.datas[seq], channel.timestamps[seq]):
            raise DisagreementError(f"R2 {shown}: published was {channel.datas[seq]!r} at {channel.timestamps[seq]}")
        if is_redelivered != (count > 0):
            raise DisagreementError(f"B272 {shown}")
        if subscription.group_name:
            self._saw_member(subscription, seq, count, shown)
        elif seq in subscription.pending:
            self._saw_again(subscription, seq, count, shown)
        else:
            self._saw_new(subscription, seq, count, shown)

    def _saw_member(self, member: Subscription, seq: int, count: int, shown: str) -> None:
        """Counts are the group's (B271)."""
        group = self.group_of(member)
        holder = group.holder(seq)
        if holder is None:
            self._check_first_count(group, seq, count, shown)
            group.saw_new(member, seq, self.clients, self.now_ns, shown)
            member.pending[seq].count = count
            return
        pending = holder.pending[seq]
        if count != pending.count + 1:
            raise DisagreementError(f"B271 {shown}: {pending.count} so far")
        group.saw_again(member, seq, self.clients, self.now_ns, self.opened_ns, shown)
        pending.count = count

    def _check_first_count(self, place: Subscription | Group, seq: int, count: int, shown: str) -> None:
        """Not flagged, unless an earlier server life may have sent it (B243, B394)."""
        allowed: tuple[int, ...] = (0,)
        if seq in place.sent:  # before a crash; only then it can be new again
            allowed = (1,)
        elif seq <= place.suspect_to:
            allowed = (0, 1)
        if count not in allowed:
            raise DisagreementError(f"B243 B394 {shown}: count must be in {allowed}")

    def _saw_new(self, subscription: Subscription, seq: int, count: int, shown: str) -> None:
        firsts = (subscription.channel.first_on_its_way(self.now_ns), subscription.channel.first)
        expected = [max(subscription.next_seq, first) for first in firsts]  # B230, B235
        if seq not in expected:
            raise DisagreementError(f"B230 B246 {shown}: {subscription}: next is {expected}")
        if subscription.pending_stored() >= subscription.max_in_flight:
            raise DisagreementError(f"B232 {shown}: stalled: {subscription}")
        if subscription.waiting_first():
            raise DisagreementError(f"B284 B363 {shown}: pending ones come first: {subscription}")
        self._check_first_count(subscription, seq, count, shown)
        due_ns = self.now_ns + subscription.ack_wait_ns  # B234
        subscription.pending[seq] = Pending(due_ns, due_ns, count)
        subscription.sent[seq] = self.now_ns
        subscription.next_seq = seq + 1

    def _saw_again(self, subscription: Subscription, seq: int, count: int, shown: str) -> None:
        pending = subscription.pending[seq]
        waiting = subscription.waiting_first()
        if waiting:
            if seq != waiting[0]:
                raise DisagreementError(f"B284 B363 {shown}: sequence order, now {waiting[0]}")
            subscription.first_pass = waiting[1:]
        else:
            self._pass_deadlines(subscription, seq)
            if self.now_ns < pending.low - SLACK_NS:
                raise DisagreementError(f"B422 {shown}: due from {pending.low - self.now_ns} ns on")
            client = self.clients[subscription.client_id]
            if not client.was_ever(failing=False, since_ns=self.now_ns):
                raise DisagreementError(f"B268 {shown}: the client's heartbeats fail")
            subscription.check_round(pending, seq, self.now_ns, shown)
        if count != pending.count + 1:
            raise DisagreementError(f"B271 {shown}: {pending.count} so far")
        pending.count = count
        pending.low, pending.high = next_due(pending, subscription.ack_wait_ns, self.now_ns)

    # ---- time

    def advance(self, now_ns: int) -> None:
        """Time is `now_ns`; what it brings for clients happens."""
        self._heartbeats_until(now_ns)
        self.now_ns = now_ns

    def settle(self) -> None:
        """Everything the server does by itself up to now has been seen. Raises when something is missing."""
        self._heartbeats_until(self.now_ns + 1)
        for client in self.clients.values():
            if self.is_connected and not client.heartbeat_sent_ns and client.heartbeat_due_ns + SLACK_NS < self.now_ns:
                raise DisagreementError(f"B340 no heartbeat for {client} at {self.now_ns}")
        if self.held_since_ns is None:
            for channel in self.channels.values():
                is_used = any(one.channel is channel for one in self.online())
                channel.settle(self.rules, self.now_ns, self.released_ns, is_used=is_used)
        if self.is_open:
            for subscription in self.online():
                if not subscription.group_name:
                    self._settle_subscription(subscription)
            for group in self.groups.values():
                group.settle(self.now_ns, opened_ns=self.opened_ns, is_held=self.held_since_ns is not None)

    def _settle_subscription(self, subscription: Subscription) -> None:
        if subscription.waiting_first():
            raise DisagreementError(f"B284 B363 at {self.now_ns}: not sent: {subscription}")
        subscription.first_pass = []
        for seq in list(subscription.pending):
            self._pass_deadlines(subscription, seq)
        expected = max(subscription.next_seq, subscription.channel.first)
        has_new = expected <= subscription.channel.last and len(subscription.pending) < subscription.max_in_flight
        if has_new and self.held_since_ns is None:
            raise DisagreementError(f"B230 B232 at {self.now_ns}: {expected} not sent: {subscription}")

    def _pass_deadlines(self, subscription: Subscription, seq: int) -> None:
        """Deadlines that passed unused: skipped by B268, or the message is gone (B267)."""
        pending = subscription.pending[seq]
        client = self.clients[subscription.client_id]
        while max(pending.high, self.opened_ns) + SLACK_NS < self.now_ns:
            if client.was_ever(failing=True, since_ns=pending.low - SLACK_NS, until_ns=pending.high + SLACK_NS):
                pending.low += subscription.ack_wait_ns - SLACK_NS  # from the moment it was skipped on
                pending.high += subscription.ack_wait_ns + SLACK_NS
            elif seq < subscription.channel.first:
                del subscription.pending[seq]
                return
            else:
                raise DisagreementError(f"B260 at {self.now_ns}: {seq} not sent again: {subscription}")

    # ---- the connection

    @property
    def is_open(self) -> bool:
        """Deliveries are possible."""
        return self.is_connected and self.has_room

    def set_open(self, *, is_connected: bool, has_room: bool) -> None:
        """The connection changes. With failing heartbeats what is due is skipped for one ack wait (B268)."""
        was_open = self.is_open
        self.is_connected, self.has_room = is_connected, has_room
        if was_open == self.is_open:
            return
        self.opened_ns = self.now_ns
        for subscription in self.online():
            if subscription.group_name:
                continue  # B269
            client = self.clients[subscription.client_id]
            for pending in subscription.pending.values():
                is_skipped = client.was_ever(failing=True, since_ns=self.now_ns - SLACK_NS, until_ns=self.now_ns)
                if subscription.first_pass or not is_skipped or pending.low > self.now_ns + SLACK_NS:
                    continue
                if self.is_open and client.failures and pending.high <= self.now_ns:
                    pending.low = self.now_ns - SLACK_NS + subscription.ack_wait_ns
                pending.high = max(pending.high, self.now_ns) + subscription.ack_wait_ns

    # ---- restart (B360 to B369, B394)

    def restarted(self, survived: Iterable[Survived], *, is_clean: bool, stopped_ns: int, now_ns: int) -> None:
        """The server was gone since `stopped_ns` and serves again, with this progress: raises unless it may be so."""
        self.now_ns = now_ns
        certain_ns = stopped_ns - PROGRESS_NS if self.held_since_ns is None else self.held_since_ns - PROGRESS_NS
        by_place = {id(one.subscription): one for one in survived}
        plain = [one for one in self.subscriptions if not one.group_name]
        if by_place.keys() != {id(one) for one in [*plain, *self.groups.values()]}:
            raise DisagreementError(f"B360 survived: {list(by_place.values())}, before: {plain} {self.groups}")
        self.is_connected = self.has_room = True
        self.held_since_ns = None
        for client in self.clients.values():
            client.heartbeat_ended(self.now_ns, self.now_ns + self.rules.heartbeat_ns, failures=0)  # B365
        for channel in self.channels.values():
            channel.active_ns = self.now_ns  # B338
        for place in [*plain, *self.groups.values()]:
            progress = by_place[id(place)]
            is_online = bool(place.members) if isinstance(place, Group) else place.is_online
            certain_ns_here = stopped_ns + 1  # B424: nothing may be missing
            if is_online and not is_clean:
                certain_ns_here = certain_ns
                place.suspect_to = max(place.suspect_to, place.channel.last)
            progress.check(certain_ns_here)
            if isinstance(place, Group):
                place.recovered(progress.last_sent, progress.held, self.now_ns, certain_ns_here)
            else:
                self._recover(place, progress)

    def _recover(self, subscription: Subscription, progress: Survived) -> None:
        """Counts start again (B365); online: due one ack wait after the message's timestamp, sequence order (B363)."""
        subscription.next_seq = progress.last_sent + 1
        for seq in [*progress.pending, *range(progress.last_sent + 1, subscription.channel.last + 1)]:
            subscription.acked.pop(seq, None)
        subscription.pending = {}
        for seq in progress.pending:
            due_ns = subscription.channel.timestamps[seq] + subscription.ack_wait_ns
            subscription.pending[seq] = Pending(due_ns, due_ns, 0)
        if subscription.is_online:
            past = [seq for seq, one in subscription.pending.items() if one.high <= self.now_ns]
            subscription.first_pass = sorted(past)
