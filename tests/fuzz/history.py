"""What clients sent and were sent, in order, and the rules that every such history keeps. Pure.

Requests count in the order they arrive (B126, B127), so who is registered, online or a member follows from the requests that
were accepted. The only freedom of the server is a client between its connect and the answer: it may count as registered.
"""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Final

from server.protocol import responses
from server.protocol import stan_pb2 as pb
from tests.fuzz import verdict
from tests.support.leader_harness import Frame

LOGGED: Final = ("connect", "subscribe", "unsub", "subclose", "close")
"""Requests whose success is an entry of the log."""

WAIT_MAX_S: Final = 2.0
"""A subscribe request that waited longer for its entry may be dropped, seconds. Source: B81."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request, or one ack. `reply` is of no other request, but for publishes."""

    verb: str
    client: str
    reply: str
    channel: str = ""
    inbox: str = ""
    """Of the subscription that is made, ended or acked."""
    guid: str = ""
    data: bytes = b""
    seq: int = 0
    """That is acked."""
    durable: str = ""
    group: str = ""
    start: int = 0
    start_seq: int = 0
    max_in_flight: int = 0


@dataclass
class _Source:
    """What has one progress: a plain subscription, a durable over all its lives, or a queue group."""

    key: tuple[str, ...]
    start: int
    is_durable: bool
    is_group: bool
    members: "dict[str, _Life]" = field(default_factory=dict)
    """Online ones by inbox."""
    next_new: int = 0
    acked: set[int] = field(default_factory=set)
    holder: dict[int, str] = field(default_factory=dict)
    """By sequence that came: the inbox it came to last."""
    counts: Counter[int] = field(default_factory=Counter)

    def pending(self) -> set[int]:
        """What came and was not acked."""
        return self.holder.keys() - self.acked


@dataclass
class _Life:
    """One accepted subscribe request."""

    sent: Sent
    source: _Source
    owed: set[int]
    """Pending when it was made: comes before anything new (B284)."""
    is_answered: bool = False
    is_online: bool = True
    """No end has arrived."""
    is_over: bool = False
    """Its end was answered."""
    last_seq: int = 0
    """Of the channel, when the end arrived."""


class History:
    """Collects events with their times in seconds; `check` raises AssertionError for the first one that breaks a rule."""

    def __init__(self) -> None:
        self._events: list[Sent | Frame] = []
        self._times_s: list[float] = []
        self._late: set[str] = set()
        """Replies of requests that waited long enough to be dropped (B81)."""
        self._dropped: dict[str, tuple[str, ...]] = {}
        """By inbox: what such requests asked for."""
        self._dropping: set[str] = set()
        """Those of them that are not answered yet: until then it looks as if they were there."""
        self._errors: dict[int, str] = {}
        """By place of the request in the events: the error it was answered with."""
        self._registered: dict[str, set[bool]] = defaultdict(lambda: {False})
        self._stored: dict[str, list[bytes]] = defaultdict(list)
        self._sources: dict[tuple[str, ...], _Source] = {}
        self._lives: dict[str, _Life] = {}
        """By inbox."""
        self._channels: set[str] = set()
        self._closing: dict[str, list[_Life]] = {}
        """By reply of a close request: what it ends."""

    def arrived(self, sent: Sent, now_s: float) -> None:
        """The server has all bytes of this request."""
        self._events.append(sent)
        self._times_s.append(now_s)

    def received(self, frame: Frame, now_s: float) -> None:
        """The server has sent this."""
        self._events.append(frame)
        self._times_s.append(now_s)

    def stored(self, channel: str) -> list[bytes]:
        """Data of what was accepted, in order. After `check`."""
        return self._stored[channel]

    def online(self) -> set[str]:
        """Inboxes of subscriptions that were not ended. After `check`."""
        return {inbox for inbox, life in self._lives.items() if life.is_online}

    def transcript(self) -> str:
        """One line for each event."""
        return "\n".join(_line(event) for event in self._events)

    # ---- the check

    def check(self) -> None:
        """Go through the events in order."""
        self._match_answers()
        replies = {one.reply: place for place, one in enumerate(self._events) if isinstance(one, Sent) and one.reply}
        for place, event in enumerate(self._events):
            if isinstance(event, Sent):
                self._arrives(event, self._errors.get(place, ""))
            elif event.subject in replies and event.subject != "acks":
                sent = self._events[replies[event.subject]]
                assert isinstance(sent, Sent)
                self._is_answered(sent, self._errors[replies[event.subject]])
            elif event.subject in self._lives:
                self._is_delivered(self._lives[event.subject], pb.MsgProto.FromString(event.payload))
            else:
                assert event.subject == "acks" or event.reply, event
        for source in {id(one.source): one.source for one in self._lives.values() if one.is_online}.values():
            last_seq = len(self._stored[source.key[1]])
            assert source.next_new == max(source.start, last_seq + 1), ("B416: everything came", source)
            assert not source.pending(), source

    def _match_answers(self) -> None:
        """Each request has one answer, behind it; successes come in the order of the requests (B32, B98, B127)."""
        waiting: dict[str, int] = {}
        order: list[int] = []
        publish_order: list[int] = []
        for (place, event), now_s in zip(enumerate(self._events), self._times_s, strict=True):
            if isinstance(event, Sent):
                if event.verb != "ack":
                    assert (event.guid or event.reply) not in waiting
                    waiting[event.guid or event.reply] = place
                continue
            if event.subject == "acks":
                ack = pb.PubAck.FromString(event.payload)
                place = waiting.pop(ack.guid)
                self._errors[place] = ack.error
                publish_order += [] if ack.error else [place]
            elif event.subject.startswith("r."):
                place = waiting.pop(event.subject)
                sent = self._events[place]
                assert isinstance(sent, Sent)
                self._errors[place] = _error(sent.verb, event.payload)
                if sent.verb == "subscribe" and now_s - self._times_s[place] > WAIT_MAX_S:
                    self._late.add(sent.reply)
                order += [place] if sent.verb in LOGGED and not self._errors[place] else []
        assert waiting == {}, "no answer"
        assert order == sorted(order), [self._events[place] for place in order]
        assert publish_order == sorted(publish_order)

    # ---- requests

    def _arrives(self, sent: Sent, error: str) -> None:
        allowed = self._allowed(sent)
        assert error in allowed, (sent, error, allowed)
        if error == responses.WAITED_TOO_LONG:
            self._dropped[sent.inbox] = _key(sent)
            self._dropping.add(sent.inbox)
            self._channels.add(sent.channel)  # B84
        if error:
            return
        match sent.verb:
            case "connect":
                self._registered[sent.client] = {False, True}
            case "close":
                self._registered[sent.client] = {False}
                self._closing[sent.reply] = [one for one in self._lives.values() if one.sent.client == sent.client]
                for life in self._closing[sent.reply]:
                    self._end(life, is_unsubscribe=False)
            case "publish":
                self._channels.add(sent.channel)
                self._stored[sent.channel].append(sent.data)
            case "subscribe":
                self._channels.add(sent.channel)
                self._subscribe(sent)
            case "unsub" | "subclose":
                if sent.inbox in self._lives:
                    self._end(self._lives[sent.inbox], is_unsubscribe=sent.verb == "unsub")
                else:
                    del self._sources[self._dropped[sent.inbox]]
            case "ack":
                life = self._lives[sent.inbox]
                if life.is_online:
                    life.source.acked.update(life.source.holder.keys() & {sent.seq})

    def _allowed(self, sent: Sent) -> set[str]:
        """The answers that are right, given what arrived before."""
        registered = self._registered[sent.client]
        if sent.verb in ("unsub", "subclose"):
            life = self._lives.get(sent.inbox)
            if life is not None and life.is_online:
                return {""}
            if sent.channel not in self._channels:
                return {verdict.UNKNOWN_CHANNEL}
            return {verdict.INVALID_SUBSCRIPTION}
        if sent.verb == "ack":
            return {""}
        if sent.verb == "connect":
            return {verdict.IN_USE if is_registered else "" for is_registered in registered}
        refusal = {
            "publish": verdict.INVALID_PUBLISH,
            "ping": verdict.REPLACED,
            "close": verdict.UNKNOWN_CLIENT,
            "subscribe": verdict.UNKNOWN_CLIENT,
        }[sent.verb]
        success = ""
        if sent.verb == "subscribe":
            source = self._sources.get(_key(sent))
            if source is not None and source.is_durable and not source.is_group and source.members:
                success = verdict.DUPLICATE
        allowed = {success if is_registered else refusal for is_registered in registered}
        if sent.verb == "subscribe" and sent.durable and not sent.group:
            allowed |= {verdict.DUPLICATE for inbox in self._dropping if self._dropped[inbox] == _key(sent)}
        return allowed | {responses.WAITED_TOO_LONG} if sent.reply in self._late and "" in allowed else allowed

    def _subscribe(self, sent: Sent) -> None:
        key = _key(sent)
        source = self._sources.get(key)
        if source is None:
            start = _start(sent, len(self._stored[sent.channel]))
            source = _Source(key, start, bool(sent.durable), bool(sent.group), next_new=start)
            self._sources[key] = source
        owed = set() if source.members else source.pending()
        life = _Life(sent, source, owed)
        source.members[sent.inbox] = self._lives[sent.inbox] = life

    def _end(self, life: _Life, *, is_unsubscribe: bool) -> None:
        """What becomes of a durable or group: B282, B288, B314, B315."""
        if not life.is_online:
            return
        life.is_online = False
        life.last_seq = len(self._stored[life.sent.channel])
        source = life.source
        del source.members[life.sent.inbox]
        if not source.members and (is_unsubscribe or not source.is_durable):
            del self._sources[source.key]

    # ---- what comes back

    def _is_answered(self, sent: Sent, error: str) -> None:
        if sent.verb == "subscribe":
            self._dropping.discard(sent.inbox)
        if error:
            return
        match sent.verb:
            case "connect":
                # A close that arrived meanwhile was refused, so the client is there.
                if True in self._registered[sent.client]:
                    self._registered[sent.client] = {True}
            case "subscribe":
                self._lives[sent.inbox].is_answered = True
            case "unsub" | "subclose":
                if sent.inbox in self._lives:
                    self._lives[sent.inbox].is_over = True
            case "close":
                for life in self._closing[sent.reply]:
                    life.is_over = True

    def _is_delivered(self, life: _Life, message: pb.MsgProto) -> None:
        source, seq = life.source, message.sequence
        stored = self._stored[life.sent.channel]
        assert life.is_answered, "B231: nothing before the answer"
        assert not life.is_over, "B239: nothing after the end"
        assert life.is_online or seq <= life.last_seq, "B239: nothing that came after the end"
        assert message.subject == life.sent.channel
        assert message.data == stored[seq - 1]
        assert seq not in source.acked, ("B286, B270: acked messages do not come again", life, seq)
        if message.redelivered:
            source.counts[seq] += 1
            assert message.redeliveryCount == source.counts[seq], ("B271", life, seq, message.redeliveryCount)
            assert seq in source.holder, ("flagged at first", life, seq)
        else:
            assert message.redeliveryCount == 0, "B272"
            assert seq == source.next_new, ("B230: in order, each once as new", life, seq, source.next_new)
            assert not life.owed - source.acked, ("B284, B316: what is pending comes first", life, life.owed)
            source.next_new += 1
        source.holder[seq] = life.sent.inbox
        life.owed.discard(seq)
        if not message.redelivered:
            held = [one for one in source.pending() if source.holder[one] == life.sent.inbox]
            count = len(held) if source.is_group else len(source.pending())
            assert count <= life.sent.max_in_flight, ("B232", life, count)


def _key(sent: Sent) -> tuple[str, ...]:
    """Identity: B280, B300, B301; the second part is the channel."""
    if sent.group:
        return "group", sent.channel, sent.durable, sent.group
    if sent.durable:
        return "durable", sent.channel, sent.client, sent.durable
    return "plain", sent.channel, sent.inbox


def _start(sent: Sent, last_seq: int) -> int:
    """First sequence to deliver, when all messages are still there (B220)."""
    match sent.start:
        case pb.NewOnly:
            return last_seq + 1
        case pb.LastReceived:
            return max(last_seq, 1)
        case pb.SequenceStart:
            return min(max(sent.start_seq, 1), last_seq + 1)
        case _:
            return 1


def _error(verb: str, payload: bytes) -> str:
    match verb:
        case "connect":
            return pb.ConnectResponse.FromString(payload).error
        case "close":
            return pb.CloseResponse.FromString(payload).error
        case "ping":
            return pb.PingResponse.FromString(payload).error
        case _:
            return pb.SubscriptionResponse.FromString(payload).error


def _line(event: Sent | Frame) -> str:
    if isinstance(event, Sent):
        facts = {name: value for name, value in asdict(event).items() if value}
        return f"-> {' '.join(f'{name}={value}' for name, value in facts.items())}"
    if not event.subject.startswith("in."):
        return f"<- {event.subject} {event.payload!r}"
    message = pb.MsgProto.FromString(event.payload)
    return f"<- {event.subject} seq={message.sequence} redelivered={message.redeliveryCount}"
