"""Drives the reference model and the real core with the same random operations and compares after each."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from server.config.model import Limits
from server.protocol import stan_pb2 as pb
from tests.model.core import Core, Event
from tests.model.groups import Group
from tests.model.reference import Model
from tests.model.rules import PROGRESS_NS, DisagreementError, Rules, Subscription, Survived
from tests.model.witness import History
from tests.support.leader_harness import Client
from tests.support.moved_loop import NS

CLIENTS: Final = ("a", "b", "c")
CHANNELS: Final = ("foo", "bar")
MS: Final = 1_000_000
CALM: Final = 4
"""Steps between two disturbances."""

HEARTBEAT_NS: Final = 1700 * MS
HEARTBEAT_TIMEOUT_NS: Final = 450 * MS
HEARTBEAT_FAILURES: Final = 2

VARIANTS: Final = (
    Rules(),
    Rules(max_msgs=20),
    Rules(max_bytes=600),
    Rules(max_age_ns=3 * NS),
    Rules(max_inactivity_ns=4 * NS),
    Rules(max_subs=2, max_msgs=7, max_age_ns=5 * NS),
)

clients = st.sampled_from(CLIENTS)
channels = st.sampled_from(CHANNELS)
sizes = st.sampled_from([0, 0, 40, 700])
counts = st.one_of(st.integers(1, 5), st.integers(1, 50))
milliseconds = st.one_of(
    st.integers(1, 30), st.integers(30, 400), st.sampled_from([500, 985, 999, 1000, 1001]), st.integers(1000, 7000)
)

REFUSALS = ("node is not the leader", "leadership lost while committing log")
"""B400, B402."""


@dataclass(frozen=True)
class Wish:
    """A subscribe request, and publishes by the same client in the same read."""

    client: str
    channel: str
    durable: str
    group: str
    start: str
    value: int
    """Sequence, or 100 ms."""
    max_in_flight: int
    ack_wait_s: int
    before: int
    behind: int


wishes = st.builds(
    Wish,
    client=clients,
    channel=channels,
    durable=st.sampled_from(["", "d", "e"]),
    group=st.sampled_from(["", "", "g", "g", "h"]),
    start=st.sampled_from(list(pb.StartPosition.keys())),
    value=st.integers(-2, 60),
    max_in_flight=st.one_of(st.integers(1, 10), st.just(60)),
    ack_wait_s=st.integers(1, 3),
    before=st.integers(0, 3),
    behind=st.integers(0, 3),
)


class DeliveryMachine(RuleBasedStateMachine):
    """One server, a few clients, two channels."""

    # ---- life of the machine

    @initialize(
        variant=st.sampled_from(VARIANTS), is_on_disk=st.booleans(), first=st.lists(wishes, min_size=1, max_size=5)
    )
    def start(self, variant: Rules, is_on_disk: bool, first: list[Wish]) -> None:
        self.patches = pytest.MonkeyPatch()
        self.directory = TemporaryDirectory() if is_on_disk else None
        limits = Limits(
            max_msgs=variant.max_msgs, max_bytes=variant.max_bytes, max_subs=variant.max_subs,
            max_age_ns=variant.max_age_ns, max_inactivity_ns=variant.max_inactivity_ns,
        )  # fmt: skip
        self.core = Core(
            limits,
            Path(self.directory.name) if self.directory is not None else None,
            self.patches,
            hb_interval_ns=HEARTBEAT_NS,
            hb_timeout_ns=HEARTBEAT_TIMEOUT_NS,
            hb_fail_count=HEARTBEAT_FAILURES,
        )
        rules = Rules(
            **{
                **vars(variant),
                "heartbeat_ns": HEARTBEAT_NS,
                "heartbeat_timeout_ns": HEARTBEAT_TIMEOUT_NS,
                "heartbeat_failures": HEARTBEAT_FAILURES,
            }
        )
        self.model = Model(rules, self.core.wall_ns())
        self.by_client: dict[str, Client] = {}
        self.ack_inboxes: dict[str, str] = {}
        """By delivery inbox, ended subscriptions included."""
        self.histories: dict[int, History] = {}
        """By identity of the model's subscription."""
        self.answers: dict[str, list[bytes]] = {}
        self.published = 0
        self.held: list[tuple[str, bytes, int]] = []
        self.is_crashing = False
        """The process has died: what it still said about its publishes may be an error (B400, B402)."""
        self.owed: Counter[str] = Counter()
        """Guids of publishes without a PubAck so far."""
        self.calm = 0
        """Steps since the last disturbance."""
        for wish in first:
            self._connect(wish.client)
            self.subscribe(wish)

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        try:
            if self.is_agreed:
                self._drain()
        finally:
            self.core.close()
            self.patches.undo()
            if self.directory is not None:
                self.directory.cleanup()

    # ---- what a rule needs

    @property
    def is_held(self) -> bool:
        return self.model.held_since_ns is not None

    @property
    def is_free(self) -> bool:
        return self.model.is_connected and not self.is_held

    @property
    def is_calm(self) -> bool:
        """Enough has happened since the last disturbance: the next one may come."""
        return self.calm >= CALM

    @property
    def has_subscription(self) -> bool:
        return bool(self.model.online())

    @property
    def is_unsteady(self) -> bool:
        """A request of the server's own could come up while nothing is committed."""
        failing = any(client.failures for client in self.model.clients.values())
        return failing or not all(self.core.answering.values()) or bool(self.model.rules.max_inactivity_ns)

    # ---- clients

    @precondition(lambda self: self.is_free and len(self.model.clients) < len(CLIENTS))
    @rule(name=clients)
    def connect(self, name: str) -> None:
        self._connect(name if name not in self.model.clients else min(set(CLIENTS) - set(self.model.clients)))

    def _connect(self, name: str) -> None:
        if name in self.model.clients:
            return
        self.by_client[name] = self.core.client(name)
        self.model.connect(name)
        self._compare()
        assert not pb.ConnectResponse.FromString(self._answer(f"r.connect.{name}")).error

    @precondition(lambda self: self.is_free and self.model.clients and self.is_calm)
    @rule(name=clients)
    def close_client(self, name: str) -> None:
        name = self._client(name)
        self.model.end_client(name)
        self.core.feed(self.by_client[name].close_bytes())
        self._compare()
        assert not pb.CloseResponse.FromString(self._answer(f"r.close.{name}")).error

    @precondition(lambda self: not self.is_held and self.is_calm)
    @rule(name=clients, ms=st.integers(1000, 7000), is_answering=st.booleans())
    def ignore_heartbeats(self, name: str, ms: int, is_answering: bool) -> None:
        """A client is silent for a while, or from now on."""
        self.core.answering[name] = False
        self.move(ms)
        self.core.answering[name] = is_answering
        self.calm = 0

    # ---- messages

    @precondition(lambda self: self.model.is_connected and self.model.clients)
    @rule(
        name=clients,
        channel=channels,
        count=counts,
        other=st.integers(0, 5),
        size=sizes,
    )
    def publish(self, name: str, channel: str, count: int, other: int, size: int) -> None:
        """One read with messages for one channel, and a few for the other one in between."""
        name = self._client(name)
        names = [channel] * count
        for index in range(other):
            names.insert(index * 2, "bar" if channel == "foo" else "foo")
        self.core.feed(b"".join(self._publish(name, one, size) for one in names))
        self._compare()

    @precondition(lambda self: self.is_free and self.model.clients)
    @rule(name=clients, channel=channels, gap_ms=st.integers(1, 8), count=st.integers(2, 20))
    def trickle(self, name: str, channel: str, gap_ms: int, count: int) -> None:
        """Single messages, a few ms apart."""
        for _ in range(count):
            if self.model.clients:
                self.core.feed(self._publish(self._client(name), channel))
                self._compare()
            self.move(gap_ms)

    @precondition(lambda self: self.is_free and self.model.clients)
    @rule(wish=wishes)
    def subscribe(self, wish: Wish) -> None:
        """One read with a subscribe and publishes before and behind it."""
        name, channel, ack_wait_s, max_in_flight = (
            self._client(wish.client),
            wish.channel,
            wish.ack_wait_s,
            wish.max_in_flight,
        )
        inbox = f"in.{name}.{len(self.ack_inboxes)}.{self.published}"
        value = wish.value * 100 * MS if wish.start == "TimeDeltaStart" else max(wish.value, 0)
        fields = {"startPosition": pb.StartPosition.Value(wish.start)}
        fields |= {"startTimeDelta": value} if wish.start == "TimeDeltaStart" else {"startSequence": value}
        before = b"".join(self._publish(name, channel) for _ in range(wish.before))
        error = self.model.refusal(name, channel, wish.durable, wish.group)
        if not error:
            request = Subscription(
                name, self.model.channel(channel), inbox, wish.durable, max_in_flight, ack_wait_s * NS, wish.group
            )
            place = self._place(self.model.subscribe(request, wish.start, value))
            self.histories.setdefault(id(place), History(place))
        data = self.by_client[name].subscribe_bytes(
            channel,
            inbox,
            durable=wish.durable,
            group=wish.group,
            max_in_flight=max_in_flight,
            ack_wait_s=ack_wait_s,
            fields=fields,
        )
        self.core.feed(before + data + b"".join(self._publish(name, channel) for _ in range(wish.behind)))
        self._compare()
        answer = pb.SubscriptionResponse.FromString(self._answer(f"r.sub.{inbox}"))
        if answer.error != error:
            raise DisagreementError(f"B82 B83 {inbox}: answer {answer.error!r}, expected {error!r}")
        if not error:
            self.ack_inboxes[inbox] = answer.ackInbox

    @precondition(lambda self: self.is_free and any(not one.is_online for one in self.model.subscriptions))
    @rule(index=st.integers(0, 9), wish=wishes)
    def resume(self, index: int, wish: Wish) -> None:
        """An offline durable comes back, if its client is there."""
        offline = [one for one in self.model.subscriptions if not one.is_online]
        one = offline[index % len(offline)]
        self._connect(one.client_id)
        self.subscribe(replace(wish, client=one.client_id, channel=one.channel.name, durable=one.durable, group=""))

    @precondition(lambda self: self.is_free and self.model.clients and self.model.groups)
    @rule(index=st.integers(0, 9), wish=wishes)
    def join(self, index: int, wish: Wish) -> None:
        """One more member for a group, or the first one for an offline group."""
        groups = sorted(self.model.groups.values(), key=lambda one: (bool(one.members), one.key))
        one = groups[index % len(groups)]
        self.subscribe(replace(wish, channel=one.channel.name, durable=one.durable, group=one.name))

    # ---- acks

    @precondition(lambda self: self.model.is_connected and self.has_subscription)
    @rule(
        index=st.integers(0, 9),
        count=st.integers(1, 12),
        picks=st.lists(st.integers(0, 9), max_size=6),
        is_in_order=st.booleans(),
    )
    def ack(self, index: int, count: int, picks: list[int], is_in_order: bool) -> None:
        """In order, or out of order with duplicates."""
        one = self._subscription(index)
        pending = sorted(one.pending)
        seqs = pending[:count]
        if picks and pending and not is_in_order:
            seqs = [pending[pick % len(pending)] for pick in picks]
        self.core.feed(self._ack(one, seqs))
        self._compare()

    @precondition(lambda self: self.model.is_connected and self.has_subscription)
    @rule(
        name=clients,
        channel=channels,
        count=counts,
        size=sizes,
        ms=milliseconds,
        share=st.sampled_from([0, 0.3, 0.7, 1]),
    )
    def work(self, name: str, channel: str, count: int, size: int, ms: int, share: float) -> None:
        """Publish, ack a share of what is pending everywhere, let time pass."""
        self.publish(name, channel, count, 1, size)
        for one in self.model.online():
            pending = sorted(one.pending)
            self.core.feed(self._ack(one, pending[: round(len(pending) * share)]))
            self._compare()
        self.move(ms)

    @precondition(lambda self: self.model.is_connected and self.has_subscription and self.ack_inboxes)
    @rule(index=st.integers(0, 9), inbox=st.integers(0, 99), seq=st.integers(0, 60), is_foreign=st.booleans())
    def ack_stranger(self, index: int, inbox: int, seq: int, is_foreign: bool) -> None:
        """By an inbox of another or an ended subscription, or for another channel: nothing happens (B246, B247, B252)."""
        one = self._subscription(index)
        inboxes = sorted(set(self.ack_inboxes) - {one.inbox})
        if is_foreign or not inboxes:
            self.core.feed(self._ack_frame(self.ack_inboxes[one.inbox], "other", seq))
        else:
            target = inboxes[inbox % len(inboxes)]
            online = [other for other in self.model.online() if other.inbox == target]
            for other in online:
                self.model.ack(other, seq)
                self.histories[id(self._place(other))].ack(seq, self.model.now_ns)
            channel = online[0].channel.name if online else one.channel.name
            self.core.feed(self._ack_frame(self.ack_inboxes[target], channel, seq))
        self._compare()

    # ---- ends

    @precondition(lambda self: self.is_free and self.has_subscription)
    @rule(index=st.integers(0, 9), is_unsubscribe=st.booleans(), acks=st.integers(0, 4))
    def end(self, index: int, is_unsubscribe: bool, acks: int) -> None:
        """One read with a few acks and the end of the subscription: the acks count (B103, B424)."""
        one = self._subscription(index)
        data = self._ack(one, sorted(one.pending)[:acks])
        inbox = self.ack_inboxes[one.inbox]
        verb = "unsub" if is_unsubscribe else "subclose"
        self.model.end(one, is_unsubscribe=is_unsubscribe)
        self.core.feed(data + self.by_client[one.client_id].end_bytes(verb, one.channel.name, inbox))
        self._compare()
        answer = pb.SubscriptionResponse.FromString(self._answer(f"r.{verb}.{inbox}"))
        assert not answer.error, answer.error

    # ---- time and connection

    @rule(ms=milliseconds)
    def move(self, ms: int) -> None:
        self.core.move(min(ms, 400) / 1000 if self.is_held else ms / 1000)
        self._compare()

    @precondition(lambda self: not self.is_held and (self.is_calm or (not self.model.is_open and self.calm)))
    @rule(is_lost=st.booleans())
    def toggle_connection(self, is_lost: bool) -> None:
        """NATS goes away or comes back; or its buffer is full or has room again."""
        model = self.model
        self.calm = 0
        if is_lost:
            model.set_open(is_connected=not model.is_connected, has_room=model.has_room)
            self.core.set_connected(is_connected=model.is_connected)
        else:
            model.set_open(is_connected=model.is_connected, has_room=not model.has_room)
            self.core.set_writable(is_writable=model.has_room)
        self._compare()

    @precondition(lambda self: self.is_free and self.model.is_open and self.is_calm)
    @rule(is_lost=st.booleans(), ms=st.integers(1, 5000), channel=channels)
    def interrupt(self, is_lost: bool, ms: int, channel: str) -> None:
        """The connection is away or full for a while."""
        self.toggle_connection(is_lost)
        if not is_lost and self.model.clients:
            self.core.feed(self._publish(self._client("a"), channel))
            self._compare()
        self.move(ms)
        self.toggle_connection(is_lost)

    @precondition(lambda self: (self.is_held and self.calm) or (self.is_free and self.is_calm and not self.is_unsteady))
    @rule()
    def toggle_hold(self) -> None:
        """The disk stands still, or goes on: nothing is committed meanwhile."""
        self.calm = 0
        if not self.is_held:
            self.model.held_since_ns = self.model.now_ns
            self.core.hold()
            return
        self.core.release()
        self._take_events()
        assert not self.held
        self.model.held_since_ns = None
        self.model.released_ns = self.core.wall_ns()
        self._compare()

    # ---- restarts

    @precondition(lambda self: (self.is_free and self.is_calm) or (self.is_held and self.calm))
    @rule(away_ms=st.integers(0, 4000), behind=st.integers(0, 30), channel=channels, count=st.integers(0, 4))
    def restart(self, away_ms: int, behind: int, channel: str, count: int) -> None:
        """Orderly stop, messages still under way, then a new process. What was received counts (B424)."""
        count = count if self.model.clients else 0
        self.core.stop(b"".join(self._publish(self._client("a"), channel) for _ in range(count)))
        self._restart(away_ms, behind, is_clean=True)

    @precondition(lambda self: self.is_calm or (self.is_held and self.calm))
    @rule(away_ms=st.integers(0, 4000), behind=st.integers(0, 30), surviving=st.integers(0, 1))
    def crash(self, away_ms: int, behind: int, surviving: int) -> None:
        """The process dies; what it proposed may or may not be committed."""
        certain_ns = (self.model.held_since_ns or self.core.wall_ns()) - PROGRESS_NS
        self.is_crashing = True
        self.core.crash(surviving)
        for history in self.histories.values():
            history.crashed(certain_ns)
        self._restart(away_ms, behind, is_clean=False)

    def _restart(self, away_ms: int, behind: int, *, is_clean: bool) -> None:
        model, core = self.model, self.core
        self.calm = 0
        self._take_events()
        self.is_crashing = False
        if is_clean and +self.owed:
            raise DisagreementError(f"B98 B424 no PubAck before the stop: {sorted(+self.owed)}")
        stopped_ns = core.wall_ns()
        core.move(away_ms / 1000)
        core.rebuild(min(behind, len(core.journal)))
        model.now_ns = core.wall_ns()
        self._take_survivors()
        survived = []
        for group in model.groups.values():
            recovered = core.leader.store.state.groups_by_key[
                core.leader.store.state.channels[group.channel.name].channel_id, group.durable, group.name
            ]
            held = {
                seq: getattr(recovered.members.get(recovered.holders.at(seq)), "inbox", "")
                for seq in recovered.holders.held()
            }
            survived.append(Survived(group, recovered.holders.last, list(held), held))
        for one in model.subscriptions:
            if one.group_name:
                continue
            record = core.record(self.ack_inboxes[one.inbox])
            acked = [range(first, last + 1) for first, last in record.acked.ranges()]
            pending = [
                seq for seq in range(record.floor + 1, record.last_sent + 1) if not any(seq in some for some in acked)
            ]
            survived.append(Survived(one, record.last_sent, pending))
        model.restarted(survived, is_clean=is_clean, stopped_ns=stopped_ns, now_ns=core.wall_ns())
        core.begin()
        self._compare()

    def _take_survivors(self) -> None:
        """What was proposed and not acknowledged is stored, or lost (R1)."""
        for name, record in self.core.leader.store.state.channels.items():
            self._stored(name, record.last_seq)
            if record.last_seq != self.model.channel(name).last:
                raise DisagreementError(f"R1 R3 {name}: last is {record.last_seq}, not {self.model.channel(name).last}")
            if self.model.rules.max_age_ns:
                self.model.expired(name, record.first_seq)
        self.held = []
        self.owed.clear()

    def _stored(self, name: str, last_seq: int) -> None:
        """The model stores what was held as far as the core has: from the first on, in order (R3, R5)."""
        missing = last_seq - self.model.channel(name).last
        for one in [one for one in self.held if one[0] == name][: max(missing, 0)]:
            self.held.remove(one)
            self.model.publish(*one)

    # ---- both sides

    def _client(self, name: str) -> str:
        """`name`, or another one that is connected."""
        return name if name in self.model.clients else min(self.model.clients)

    def _place(self, one: Subscription) -> Subscription | Group:
        """What has a place in the log: the subscription, or its group."""
        return self.model.group_of(one) if one.group_name else one

    def _subscription(self, index: int) -> Subscription:
        online = self.model.online()
        return online[index % len(online)]

    def _publish(self, name: str, channel: str, size: int = 0) -> bytes:
        """Told to the model; the bytes for the core."""
        self.published += 1
        data = (b"%d" % self.published).ljust(size, b".")
        guid = f"g{self.published}"
        self.owed[guid] += 1
        if self.is_held:
            self.held.append((channel, data, self.core.wall_ns()))
        else:
            self.model.publish(channel, data, self.core.wall_ns())
        return self.by_client[name].publish_bytes(channel, data, guid)

    def _ack(self, one: Subscription, seqs: list[int]) -> bytes:
        """Told to the model; the bytes for the core."""
        for seq in seqs:
            self.model.ack(one, seq)
            self.histories[id(self._place(one))].ack(seq, self.model.now_ns)
        inbox = self.ack_inboxes[one.inbox]
        return b"".join(self._ack_frame(inbox, one.channel.name, seq) for seq in seqs)

    def _ack_frame(self, inbox: str, channel: str, seq: int) -> bytes:
        return self.core.leader.message(inbox, pb.Ack(subject=channel, sequence=seq), "")

    def _answer(self, subject: str) -> bytes:
        """The one answer to a request (R18)."""
        answers = self.answers.pop(subject, [])
        assert len(answers) == 1, (subject, answers)
        return answers[0]

    # ---- comparison

    def _compare(self) -> None:
        self.is_agreed = False
        self._take_events()
        self.model.advance(self.core.wall_ns())
        self.model.settle()
        self.core.check_healthy()
        if not self.is_held and self.model.is_connected and +self.owed:
            raise DisagreementError(f"B98 no PubAck: {sorted(+self.owed)}")
        self.is_agreed = True
        self.calm += 1

    def _take_events(self) -> None:
        handlers: dict[str, Callable[[Event], None]] = {
            "heartbeat": lambda event: self.model.heartbeat_sent(event.subject),
            "answered": lambda event: self.model.heartbeat_answered(event.subject),
            "stored": lambda event: self._stored(event.subject, event.seq),
            "expired": lambda event: self.model.expired(event.subject, event.seq),
            "deleted": lambda event: self.model.deleted(event.subject),
            "frame": self._frame,
        }
        for event in self.core.take_events():
            self.model.advance(event.at_ns)
            handlers[event.kind](event)

    def _frame(self, event: Event) -> None:
        if event.subject.startswith("in."):
            self._delivery(event)
        elif event.subject == "acks":
            pub_ack = pb.PubAck.FromString(event.payload)
            is_refused = self.is_crashing and pub_ack.error in REFUSALS
            if (pub_ack.error and not is_refused) or not self.owed[pub_ack.guid]:
                raise DisagreementError(f"B98 PubAck {pub_ack}")
            self.owed[pub_ack.guid] -= 1
        else:
            self.answers.setdefault(event.subject, []).append(event.payload)

    def _delivery(self, event: Event) -> None:
        message = pb.MsgProto.FromString(event.payload)
        seq = message.sequence
        self.model.saw(
            event.subject, seq, message.data, message.timestamp,
            is_redelivered=message.redelivered, count=message.redeliveryCount,
        )  # fmt: skip
        one = next(one for one in self.model.online() if one.inbox == event.subject)
        self.histories[id(self._place(one))].got(seq, is_redelivered=message.redelivered)

    def _drain(self) -> None:
        """R10: with everything healed and everything acked all that is stored arrives; then nothing is left to do."""
        model = self.model
        if self.is_held:
            self.toggle_hold()
        self.core.answering = dict.fromkeys(CLIENTS, True)
        for is_lost, is_good in ((False, model.has_room), (True, model.is_connected)):
            if not is_good:
                self.toggle_connection(is_lost)
        for _ in range(sum(channel.last for channel in model.channels.values()) + 1):
            todo = [one for one in model.online() if one.pending]
            if not todo:
                break
            self.core.feed(b"".join(self._ack(one, sorted(one.pending)) for one in todo))
            self._compare()
        places = [one for one in model.online() if not one.group_name]
        groups = [one for one in model.groups.values() if one.members]
        behind = [one for one in [*places, *groups] if max(one.next_seq, one.channel.first) <= one.channel.last]
        assert not behind, behind
        self.move(4000)
