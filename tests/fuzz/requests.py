"""One request after another, honest or not: each gets the answer the specification wants, and leaves what it may leave.

Target `requests`. Properties, after every request: exactly one answer where there is a reply subject and an answer is due,
of the right type, with the right text (B120); a refused request changes nothing but that a subscribe may have made its
channel (B84); an accepted one is in the store. At the end a client that behaves is served, and what was acked is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import Message
from hypothesis import strategies as st

from server.config.model import Limits
from server.protocol import stan_pb2 as pb
from tests.fuzz import payloads, verdict
from tests.fuzz.world import PUBLISH_PREFIX, SUBJECTS, World, world
from tests.support.leader_harness import Frame

KINDS: Final[dict[str, st.SearchStrategy[bytes]]] = {
    "connect": payloads.payloads(payloads.connects),
    "ping": payloads.payloads(payloads.pings),
    "publish": payloads.payloads(payloads.publishes),
    "subscribe": payloads.payloads(payloads.subscribes),
    "unsubscribe": payloads.payloads(payloads.ends),
    "close subscription": payloads.payloads(payloads.ends),
    "close": payloads.payloads(payloads.closes),
    "ack": payloads.payloads(payloads.acks),
    "answer": st.binary(max_size=20),
}
"""What clients send; an answer is one to a request of the server, open or not."""

ANSWERS: Final[dict[str, type[Message]]] = {
    "connect": pb.ConnectResponse,
    "ping": pb.PingResponse,
    "publish": pb.PubAck,
    "subscribe": pb.SubscriptionResponse,
    "unsubscribe": pb.SubscriptionResponse,
    "close subscription": pb.SubscriptionResponse,
    "close": pb.CloseResponse,
}

ENDS: Final = ("unsubscribe", "close subscription")

HEADERS: Final = (b"", b"", b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\nA: b\r\nA: \r\n\r\n", b"NATS/1.0 503\r\n\r\n")
REPLIES: Final = ("", ".", ".", ".", ".é", "." + "x" * 1000)
"""What follows the name of the reply subject; nothing: the request has none."""

REPEATS: Final = (1, 1, 1, 2, 5)
PAUSES_S: Final = (0.0, 0.0, 0.0, 0.02, 1.2, 4.0)
ACKERS: Final = ("in.me", "in.you", "in.old", "in.group", "in.new", "nobody")
LIMITS: Final = (Limits(), Limits(max_channels=4, max_subs=5), Limits(max_channels=5, max_subs=6))


@dataclass(frozen=True)
class Case:
    """One request, `repeats` times in one socket read, then a pause."""

    kind: str
    payload: bytes
    reply: str
    headers: bytes
    repeats: int
    place: str
    """Of a publish: the channel in the NATS subject, if not the payload's. Of an ack: the inbox of the subscription to ack.
    Of an end: `ack` if it names the subscription by its ack inbox."""
    number: int
    """Of an answer: to which of the latest requests."""
    how: str
    """Clients' answers to what the server asks meanwhile: answered, 503, silent."""
    pause_s: float


_place_names = st.one_of(payloads.channels, payloads.texts)


def _cases(kind: str) -> st.SearchStrategy[Case]:
    places = st.just("")
    if kind == "publish":
        places = st.integers(0, 5).flatmap(lambda chance: _place_names if chance == 5 else st.just(""))
    elif kind == "ack":
        places = st.sampled_from(ACKERS)
    elif kind in ENDS:
        places = st.sampled_from(["", "ack"])
    return st.builds(
        Case,
        kind=st.just(kind),
        payload=KINDS[kind],
        reply=st.sampled_from(REPLIES),
        headers=st.sampled_from(HEADERS),
        repeats=st.sampled_from(REPEATS) if kind in ("publish", "ack") else st.just(1),
        place=places,
        number=st.integers(-1, 3),
        how=st.sampled_from(["answered", "answered", "503", "silent"]),
        pause_s=st.sampled_from(PAUSES_S),
    )


cases = st.lists(st.sampled_from(sorted(KINDS)).flatmap(_cases), min_size=1, max_size=10)


@dataclass(frozen=True)
class Setting:
    """The server that the requests meet."""

    limits: Limits
    max_payload: int
    replaces_durables: bool
    is_on_disk: bool
    """At the end the next leadership reads it from files."""


settings = st.builds(
    Setting,
    st.sampled_from(LIMITS),
    st.sampled_from([1024 * 1024, 4096]),
    st.booleans(),
    st.sampled_from([False] * 15 + [True]),
)

inputs = st.tuples(settings, cases)


def check(drawn: tuple[Setting, list[Case]]) -> None:
    """Send the cases and check everything."""
    setting, sent = drawn
    with world(setting.limits, max_payload=setting.max_payload, replaces_durables=setting.replaces_durables) as served:
        run = _Run(served, setting)
        for case in sent:
            run.send(case)
        served.check_serving()
        served.check_kept(is_on_disk=setting.is_on_disk)


class _Run:
    """Requests sent to one world."""

    def __init__(self, served: World, setting: Setting) -> None:
        self.world = served
        self.leader = served.leader
        self.state = served.leader.store.state
        self.setting = setting
        self.owners = {client.conn_id: name for name, client in self.state.clients.items()}
        self.count = 0
        self.ending = 0
        """The subscription that this request ends."""

    def send(self, case: Case) -> None:
        """Send one case and check what follows from it."""
        self.count += 1
        case = self._by_ack_inbox(case)
        subject = self._subject(case)
        if subject is None:
            return
        allowed = self._verdict(case, subject)
        before = self._snapshot()
        self.ending = self._ending(case) if case.kind in ENDS and allowed == verdict.SUCCESS else 0
        pending = self._pending(subject) if case.kind == "ack" else []
        reply = f"reply.{self.count}{case.reply[1:] and case.reply}" if case.reply else ""
        self.leader.feed(self.world.message(subject, case.payload, reply, case.headers) * case.repeats)
        frames = self.world.take()
        after = self._snapshot()
        if case.kind == "ack":
            self._check_ack(case, subject, pending)
        if self.world.answer_requests(frames, case.how) and case.kind == "connect" and case.how == "silent":
            self.leader.loop.move(0.5)
        frames += self.world.take()
        answers = [frame for frame in frames if frame.subject == reply]
        is_asked = any(frame.reply for frame in frames)
        self._check_answers(case, answers, allowed, has_reply=bool(reply))
        self._check_deliveries(frames, reply)
        if not is_asked:
            self._check_effect(case, before, after, self._is_accepted(case, answers, allowed, before, after))
        elif case.kind == "connect" and allowed == verdict.SUCCESS:
            self._note_connection(case.payload)
        self._pause(case)

    def _by_ack_inbox(self, case: Case) -> Case:
        """The same end, naming the ack inbox of the subscription (B100)."""
        request = verdict.decoded(pb.UnsubscribeRequest, case.payload)
        if case.kind not in ENDS or not case.place or request is None:
            return case
        for one in self.world.online():
            if one.inbox == request.inbox:
                request.inbox = one.ack_inbox
        return replace(case, payload=request.SerializeToString())

    def _ending(self, case: Case) -> int:
        found = verdict.ended(pb.UnsubscribeRequest.FromString(case.payload), self.state)
        assert found is not None
        return found.subscription_id

    def _subject(self, case: Case) -> str | None:
        """Where the request arrives; None when NATS would not carry it."""
        if case.kind in SUBJECTS:
            return SUBJECTS[case.kind]
        if case.kind == "publish":
            request = verdict.decoded(pb.PubMsg, case.payload)
            name = case.place or (request.subject if request is not None else "foo")
            is_carried = name and not any(one.isspace() or one < " " for one in name)
            return PUBLISH_PREFIX + name if is_carried and len(name) < 3000 else None
        if case.kind == "ack":
            found = [one.ack_inbox for one in self.world.online() if one.inbox == case.place]
            return (found or [f"_INBOX.{self.state.ack_inbox_token}.nobody"])[0]
        prefix = self.leader.leadership.requests.inbox_prefix
        latest = self.leader.leadership.requests._count
        return f"{prefix}.{latest - case.number}"

    def _verdict(self, case: Case, subject: str) -> verdict.Verdict:
        payload, state, limits = case.payload, self.state, self.setting.limits
        match case.kind:
            case "connect":
                return verdict.connect(payload, state, is_old_answering=case.how == "answered")
            case "ping":
                return verdict.ping(payload, state, owners=self.owners)
            case "publish":
                return verdict.publish(
                    payload,
                    state,
                    limits,
                    nats_channel=subject.removeprefix(PUBLISH_PREFIX),
                    max_payload=self.setting.max_payload,
                    owners=self.owners,
                )
            case "subscribe":
                replaces = self.setting.replaces_durables
                return verdict.subscribe(payload, state, limits, replaces_durables=replaces)
            case "unsubscribe" | "close subscription":
                return verdict.end(payload, state)
            case "close":
                return verdict.close(payload, state)
        return verdict.SILENCE

    # ---- answers

    def _check_answers(self, case: Case, answers: list[Frame], allowed: verdict.Verdict, *, has_reply: bool) -> None:
        wanted = case.repeats if has_reply and allowed else 0
        assert len(answers) == wanted, (answers, allowed)
        for frame in answers:
            kind = ANSWERS[case.kind]
            answer = kind.FromString(frame.payload)
            assert answer.SerializeToString() == frame.payload, "no unknown fields"
            assert answer.error in allowed, (answer, allowed)  # type: ignore[attr-defined]  # each kind has one
            self._check_content(case, answer)

    def _check_content(self, case: Case, answer: Message) -> None:
        """Fields of the answer besides its error (B21, B42, B86, B90)."""
        match answer:
            case pb.ConnectResponse(error=""):
                request = pb.ConnectRequest.FromString(case.payload)
                expected = pb.ConnectResponse(
                    pubPrefix=PUBLISH_PREFIX[:-1],
                    subRequests=SUBJECTS["subscribe"],
                    unsubRequests=SUBJECTS["unsubscribe"],
                    closeRequests=SUBJECTS["close"],
                    subCloseRequests=SUBJECTS["close subscription"],
                    protocol=1,
                )
                if request.protocol >= 1:
                    expected.pingRequests = SUBJECTS["ping"]
                    expected.pingInterval, expected.pingMaxOut = request.pingInterval, request.pingMaxOut
                assert answer == expected
            case pb.ConnectResponse():
                assert answer == pb.ConnectResponse(error=answer.error), "only the error (B40)"
            case pb.SubscriptionResponse(error="") if case.kind == "subscribe":
                assert answer.ackInbox.startswith(f"_INBOX.{self.state.ack_inbox_token}.")
                (found,) = [one for one in self.world.online() if one.ack_inbox == answer.ackInbox]
                self._check_subscription(pb.SubscriptionRequest.FromString(case.payload), found)
            case pb.SubscriptionResponse():
                assert answer == pb.SubscriptionResponse(error=answer.error)
            case pb.PubAck():
                message = verdict.decoded(pb.PubMsg, case.payload)
                assert answer.guid == ("" if message is None else message.guid)

    def _check_subscription(self, request: pb.SubscriptionRequest, found: object) -> None:
        wanted = {
            "client_id": request.clientID,
            "inbox": request.inbox,
            "durable_name": request.durableName,
            "queue_group": request.qGroup,
            "max_in_flight": request.maxInFlight,
            "ack_wait_s": request.ackWaitInSecs,
            "channel_id": self.state.channels[request.subject].channel_id,
        }
        assert {name: getattr(found, name) for name in wanted} == wanted

    # ---- effects

    def _snapshot(self) -> "_Snapshot":
        state = self.state
        return _Snapshot(
            clients={name: client.conn_id for name, client in state.clients.items()},
            subscriptions={
                one.subscription_id: (one.client_id, one.inbox, one.is_online) for one in state.subscriptions.values()
            },
            groups={key: sorted(group.members) for key, group in state.groups.items()},
            channels={name: channel.last_seq for name, channel in state.channels.items()},
        )

    def _is_accepted(
        self, case: Case, answers: list[Frame], allowed: verdict.Verdict, before: "_Snapshot", after: "_Snapshot"
    ) -> bool:
        """By its answer; a request without reply by its verdict, or by its effect where that is open."""
        if answers:
            return not ANSWERS[case.kind].FromString(answers[0].payload).error  # type: ignore[attr-defined]
        if len(allowed) > 1:
            return before != after and (case.kind != "subscribe" or before.subscriptions != after.subscriptions)
        return allowed == verdict.SUCCESS

    def _check_effect(self, case: Case, before: "_Snapshot", after: "_Snapshot", is_accepted: bool) -> None:
        if not is_accepted or case.kind in ("ack", "answer", "ping"):
            if case.kind == "subscribe":
                before.allow_channel(verdict.decoded(pb.SubscriptionRequest, case.payload), after)
            assert before == after, (before, after)
            return
        effects: dict[str, Callable[[bytes, _Snapshot, _Snapshot], None]] = {
            "connect": self._connected,
            "publish": lambda payload, old, new: self._published(payload, old, new, case.repeats),
            "subscribe": self._subscribed,
            "unsubscribe": self._ended,
            "close subscription": self._ended,
            "close": self._closed,
        }
        effects[case.kind](case.payload, before, after)

    def _connected(self, payload: bytes, before: "_Snapshot", after: "_Snapshot") -> None:
        request = pb.ConnectRequest.FromString(payload)
        self._note_connection(payload)
        assert after.clients == {**before.clients, request.clientID: request.connID}
        assert self.state.clients[request.clientID].heartbeat_inbox == request.heartbeatInbox
        assert (after.subscriptions, after.channels) == (before.subscriptions, before.channels)

    def _note_connection(self, payload: bytes) -> None:
        request = pb.ConnectRequest.FromString(payload)
        self.owners[request.connID] = request.clientID

    def _published(self, payload: bytes, before: "_Snapshot", after: "_Snapshot", count: int) -> None:
        message = pb.PubMsg.FromString(payload)
        self.world.stored.setdefault(message.subject, []).extend([(message.data, message.reply)] * count)
        wanted = {**before.channels, message.subject: before.channels.get(message.subject, 0) + count}
        assert after.channels == wanted
        assert (after.clients, after.subscriptions) == (before.clients, before.subscriptions)

    def _subscribed(self, payload: bytes, before: "_Snapshot", after: "_Snapshot") -> None:
        request = pb.SubscriptionRequest.FromString(payload)
        changed = {key for key, value in after.subscriptions.items() if before.subscriptions.get(key) != value}
        if changed:  # else an online durable was replaced by one with the same inbox
            (one,) = changed
            assert after.subscriptions[one] == (request.clientID, request.inbox, True)
        assert len(after.subscriptions) - len(before.subscriptions) in (0, 1)
        assert after.channels == {request.subject: 0, **before.channels}
        assert after.clients == before.clients

    def _ended(self, _payload: bytes, before: "_Snapshot", after: "_Snapshot") -> None:
        changed = {key for key, value in before.subscriptions.items() if after.subscriptions.get(key) != value}
        assert changed == {self.ending}
        one = self.ending
        assert one not in after.subscriptions or not after.subscriptions[one][2]
        assert (after.clients, after.channels) == (before.clients, before.channels)

    def _closed(self, payload: bytes, before: "_Snapshot", after: "_Snapshot") -> None:
        client_id = pb.CloseRequest.FromString(payload).clientID
        assert after.clients == {name: conn_id for name, conn_id in before.clients.items() if name != client_id}
        assert [one for one in after.subscriptions.values() if one[0] == client_id and one[2]] == []
        others = {key: one for key, one in before.subscriptions.items() if one[0] != client_id}
        assert others.items() <= after.subscriptions.items()
        assert after.channels == before.channels

    # ---- acks, deliveries, time

    def _pending(self, subject: str) -> list[int]:
        """Of the plain subscription with this ack inbox."""
        plain = [one for one in self.world.online() if one.ack_inbox == subject and not one.queue_group]
        return self.world.pending(subject) if plain else []

    def _check_ack(self, case: Case, subject: str, pending: list[int]) -> None:
        """B110, B111, B245, B246: exactly the acked sequence leaves; new ones may follow into its room."""
        found = [one for one in self.world.online() if one.ack_inbox == subject and not one.queue_group]
        if not found:
            return
        ack = verdict.decoded(pb.Ack, case.payload)
        channel = self.state.channels_by_id[found[0].channel_id].name
        acked = {ack.sequence} if ack is not None and ack.subject == channel else set()
        left = [seq for seq in self._pending(subject) if seq <= max(pending, default=0)]
        assert left == [seq for seq in pending if seq not in acked]

    def _check_deliveries(self, frames: list[Frame], reply: str) -> None:
        """All else that was sent are messages, as they are stored, to inboxes of subscriptions."""
        for frame in frames:
            if frame.reply or frame.subject == reply:
                continue
            message = pb.MsgProto.FromString(frame.payload)
            assert message.SerializeToString() == frame.payload
            assert 0 < message.sequence <= self.state.channels[message.subject].last_seq
            assert message.redelivered == (message.redeliveryCount > 0)

    def _pause(self, case: Case) -> None:
        """Time passes; clients answer heartbeats as in the case."""
        if not case.pause_s:
            return
        self.leader.loop.move(case.pause_s)
        frames = self.world.take()
        self._check_deliveries(frames, "none")
        self.world.answer_requests(frames, case.how)
        self._check_deliveries([frame for frame in self.world.take() if not frame.reply], "none")


@dataclass
class _Snapshot:
    """What is registered and stored."""

    clients: dict[str, bytes]
    subscriptions: dict[int, tuple[str, str, bool]]
    groups: dict[int, list[int]]
    channels: dict[str, int]

    def allow_channel(self, request: pb.SubscriptionRequest | None, after: "_Snapshot") -> None:
        """A refused subscribe may have made its channel (B64, B84)."""
        if request is not None and after.channels.get(request.subject) == 0:
            self.channels.setdefault(request.subject, 0)
