"""Two clients that send nothing wrong, in any order, several requests in one read or cut anywhere, while time passes.

Target `sessions`. What they sent and what they were sent is one history (`tests.fuzz.history`), which is checked at the end.
"""

from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Final

import pytest
from hypothesis import strategies as st

from server import leadership as leadership_module
from server.config.model import Limits
from server.delivery import stream as stream_module
from server.protocol import stan_pb2 as pb
from tests.fuzz.history import History, Sent
from tests.fuzz.world import without_tracebacks
from tests.support.leader_harness import Client, Frame, Leader

CHANNELS: Final = ("foo", "bar")
NAMES: Final = ("a", "b")
STARTS: Final = (pb.NewOnly, pb.First, pb.LastReceived, pb.SequenceStart)
HOLD_MAX_S: Final = 4.0
"""The log is held for so long at most, seconds: longer than requests wait (B81)."""

BOUND: Final = 4
"""Instead of SEND_AHEAD_MAX, and of TURN_MAX_BYTES in messages: small, so that a few messages reach them."""

MESSAGE_BYTES: Final = 30
"""About what a message takes."""

SETTLE_ROUNDS: Final = 40
SETTLE_S: Final = 0.5

Part = tuple[Sent, bytes]
"""A request, or one ack, and its bytes."""


@dataclass(frozen=True)
class Op:
    """Something to send; `number` chooses among what exists, `options` are for a new subscription."""

    verb: str
    client: int
    channel: int
    number: int
    durable: str
    group: str
    start: pb.StartPosition
    max_in_flight: int
    ack_wait_s: int


@dataclass(frozen=True)
class Read:
    """Requests that arrive together, cut at these parts of their length; then time passes."""

    ops: list[Op]
    cuts: list[float]
    pause_s: float
    log: str
    """Before: `hold` what is proposed from now on, `one`: let one entry through, `release` all, `` as it is."""


VERBS: Final = (
    ["publish"] * 6
    + ["ack"] * 5
    + ["subscribe"] * 4
    + ["subclose", "subclose", "unsub", "again", "connect", "close", "ping"]
)
ops = st.builds(
    Op,
    verb=st.sampled_from(VERBS),
    client=st.integers(0, 1),
    channel=st.sampled_from([0, 0, 0, 1]),
    number=st.integers(0, 7),
    durable=st.sampled_from(["", "", "d"]),
    group=st.sampled_from(["", "", "g"]),
    start=st.sampled_from(STARTS),
    max_in_flight=st.sampled_from([1, 2, 3, 100]),
    ack_wait_s=st.integers(1, 3),
)
reads = st.builds(
    Read,
    ops=st.lists(ops, min_size=1, max_size=8),
    cuts=st.lists(st.floats(0, 1), max_size=3),
    pause_s=st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.5, 1.0, 3.0]),
    log=st.sampled_from(["", "", "", "hold", "one", "release"]),
)
inputs = st.tuples(st.booleans(), st.lists(reads, min_size=2, max_size=14))
"""Whether bounds are small, and the reads."""


def check(drawn: tuple[bool, list[Read]]) -> None:
    """Play the reads, let everything settle, check the history."""
    is_bounded, sequence = drawn
    with without_tracebacks(), pytest.MonkeyPatch.context() as patches:
        if is_bounded:
            patches.setattr(leadership_module, "SEND_AHEAD_MAX", BOUND)
            patches.setattr(stream_module, "SEND_AHEAD_MAX", BOUND)
            patches.setattr(stream_module, "TURN_MAX_BYTES", BOUND * MESSAGE_BYTES)
            patches.setattr(stream_module, "FLUSH_BYTES", 2 * BOUND * MESSAGE_BYTES)
        session = Session()
        try:
            for read in sequence:
                session.play(read)
            session.settle()
            session.history.check()
            session.check_state()
        except Exception as error:
            error.add_note(session.history.transcript())
            raise
        finally:
            session.leader.store.close()


@dataclass
class _Life:
    """A subscription that was asked for, as its client knows it."""

    sent: Sent
    ack_inbox: str = ""
    is_ended: bool = False
    received: list[int] = field(default_factory=list)


class Session:
    """One server and what two clients do with it."""

    def __init__(self) -> None:
        self.leader = Leader(limits=Limits(max_msgs=0, max_bytes=0, max_subs=0))
        self.leader.begin().take()
        self.clients = [Client(self.leader, name) for name in NAMES]
        self.history = History()
        self.lives: list[_Life] = []
        self.is_connected = [False, False]
        """Whether the client has sent a connect, and no close since."""
        self.asked: list[Frame] = []
        """Requests of the server that wait for an answer."""
        self.count = 0
        self.requests = 0
        self.held_s = 0.0
        for number in range(len(NAMES)):
            self._send([self._connect(number)], [])

    # ---- playing

    def play(self, read: Read) -> None:
        """One read, and the pause behind it."""
        self._control_log(read.log)
        self._send([part for op in read.ops for part in self._build(op)], read.cuts)
        self._pass(read.pause_s)

    def _control_log(self, how: str) -> None:
        log = self.leader.log
        if how == "hold":
            log.is_applying_at_once = False
        elif how == "one" and log.proposed:
            log.apply_next()
            self.leader.loop.run()
            self._collect()
        elif how == "release":
            self._release()

    def _release(self) -> None:
        self.held_s = 0.0
        self.leader.log.is_applying_at_once = True
        while self.leader.log.proposed:
            self.leader.log.apply_next()
            self.leader.loop.run()
        self._collect()

    def _pass(self, seconds: float) -> None:
        if not self.leader.log.is_applying_at_once:
            self.held_s += seconds
            if self.held_s > HOLD_MAX_S:
                self._release()
        if seconds:
            self.leader.loop.move(seconds)
            self._collect()

    def _send(self, parts: list[Part], cuts: list[float]) -> None:
        """Feed the bytes piece by piece. A request arrives with the piece that holds its last byte."""
        data = b"".join(encoded for _, encoded in parts)
        ends = list(accumulate(len(encoded) for _, encoded in parts))
        for start, edge in pairwise(sorted({0, len(data), *(int(place * len(data)) for place in cuts)})):
            for end, (sent, _) in zip(ends, parts, strict=True):
                if start < end <= edge:
                    self.history.arrived(sent, self.leader.loop.time())
            self.leader.feed(data[start:edge])
            self._note_frames()
        self._collect()

    def _collect(self) -> None:
        """What was sent to the clients, who answer heartbeats; not within a message."""
        self._note_frames()
        while self.asked:
            self.leader.answer_request(self.asked.pop(0))
            self._note_frames()

    def _note_frames(self) -> None:
        for frame in self.leader.take():
            self.history.received(frame, self.leader.loop.time())
            self._note(frame)
            if frame.reply:
                self.asked.append(frame)

    def _note(self, frame: Frame) -> None:
        for life in self.lives:
            if frame.subject == life.sent.reply:
                life.ack_inbox = pb.SubscriptionResponse.FromString(frame.payload).ackInbox
            elif frame.subject == life.sent.inbox:
                life.received.append(pb.MsgProto.FromString(frame.payload).sequence)

    # ---- requests

    def _build(self, op: Op) -> list[Part]:
        """The request of `op`, or acks; nothing when there is nothing to do it with."""
        self.count += 1
        match op.verb:
            case "publish":
                return [self._publish(op)]
            case "subscribe":
                return [self._subscribe(op)]
            case "connect" if not self.is_connected[op.client]:
                return [self._connect(op.client)]
            case "close" if op.number < 5:
                return [self._close(op.client) for _ in range(2 if op.number == 4 else 1)]
            case "ping":
                client = self.clients[op.client]
                return [self._request("ping", client, client.ping_bytes(), f"r.ping.{client.client_id}")]
            case "ack":
                return self._ack(op)
            case "subclose" | "unsub":
                return self._end(op)
            case "again":
                return self._end_again(op)
        return []

    def _request(self, verb: str, client: Client, encoded: bytes, reply: str, **facts: object) -> Part:
        """Every request has a reply subject of its own."""
        self.requests += 1
        own = f"{reply}.{self.requests}"
        head, line_end, rest = encoded.partition(b"\r\n")
        head = head.replace(f" {reply} ".encode(), f" {own} ".encode())
        sent = Sent(verb=verb, client=client.client_id, reply=own, **facts)  # type: ignore[arg-type]
        return sent, head + line_end + rest

    def _connect(self, number: int) -> Part:
        client = self.clients[number]
        self.is_connected[number] = True
        return self._request("connect", client, client.connect_bytes(), f"r.connect.{client.client_id}")

    def _close(self, number: int) -> Part:
        client = self.clients[number]
        self.is_connected[number] = False
        for life in self.lives:
            life.is_ended = life.is_ended or life.sent.client == client.client_id
        return self._request("close", client, client.close_bytes(), f"r.close.{client.client_id}")

    def _publish(self, op: Op) -> Part:
        client, channel, guid = self.clients[op.client], CHANNELS[op.channel], f"g{self.count:05d}"
        # Some look alike but for the guid, which makes runs.
        data = b"%d" % self.count if op.number == 0 else b"same"
        sent = Sent(verb="publish", client=client.client_id, reply="acks", channel=channel, guid=guid, data=data)
        return sent, client.publish_bytes(channel, data, guid, "acks")

    def _subscribe(self, op: Op) -> Part:
        client, channel, inbox = self.clients[op.client], CHANNELS[op.channel], f"in.{self.count}"
        encoded = client.subscribe_bytes(
            channel,
            inbox,
            durable=op.durable,
            group=op.group,
            max_in_flight=op.max_in_flight,
            ack_wait_s=op.ack_wait_s,
            start=op.start,
            fields={"startSequence": op.number},
        )
        made = self._request(
            "subscribe",
            client,
            encoded,
            f"r.sub.{inbox}",
            channel=channel,
            inbox=inbox,
            durable=op.durable,
            group=op.group,
            start=op.start,
            start_seq=op.number,
            max_in_flight=op.max_in_flight,
        )
        self.lives.append(_Life(made[0]))
        return made

    def _end(self, op: Op) -> list[Part]:
        """One that the client thinks it has; now and then one that it has not any more."""
        own = [one for one in self.lives if one.sent.client == NAMES[op.client]]
        alive = [one for one in own if not one.is_ended]
        choice = own if op.number == 7 else alive
        if not choice:
            return []
        return [self._end_of(choice[op.number % len(choice)], op.verb)]

    def _end_again(self, op: Op) -> list[Part]:
        """End a subscription, and in the same read subscribe to the same again, or end it once more (B127)."""
        alive = [one for one in self.lives if one.sent.client == NAMES[op.client] and not one.is_ended]
        if not alive:
            return []
        life = alive[op.number % len(alive)]
        sent = life.sent
        ended = self._end_of(life, "unsub" if op.max_in_flight > 1 else "subclose")
        self.count += 1
        if op.ack_wait_s == 1:
            return [ended, self._end_of(life, "subclose")]
        wish = replace(op, channel=CHANNELS.index(sent.channel), durable=sent.durable, group=sent.group)
        return [ended, self._subscribe(wish)]

    def _end_of(self, life: _Life, verb: str) -> Part:
        """`verb`: unsub or subclose."""
        life.is_ended = True
        sent = life.sent
        inbox = life.ack_inbox or sent.inbox
        client = self.clients[NAMES.index(sent.client)]
        encoded = client.end_bytes(verb, sent.channel, inbox)
        return self._request(verb, client, encoded, f"r.{verb}.{inbox}", channel=sent.channel, inbox=sent.inbox)

    def _ack(self, op: Op) -> list[Part]:
        """All or a part of what a subscription has received."""
        own = [one for one in self.lives if one.sent.client == NAMES[op.client] and one.ack_inbox and one.received]
        if not own:
            return []
        life = own[op.number % len(own)]
        wanted = life.received if op.number < 4 else life.received[op.number % 3 :: 2]
        # Now and then sequences that are not this subscription's, or that were not sent yet.
        return self._acked(life, [*wanted, *range(max(wanted, default=0) + 1, op.number - 2)])

    def _acked(self, life: _Life, seqs: list[int]) -> list[Part]:
        """One message for each."""
        name, channel, inbox = life.sent.client, life.sent.channel, life.sent.inbox
        return [
            (
                Sent(verb="ack", client=name, reply="", channel=channel, inbox=inbox, seq=seq),
                self.leader.message(life.ack_inbox, pb.Ack(subject=channel, sequence=seq), ""),
            )
            for seq in seqs
        ]

    # ---- the end

    def settle(self) -> None:
        """Everything is applied; for longer than any ack wait all that comes is acked."""
        self._release()
        for _ in range(SETTLE_ROUNDS):
            for life in self.lives:
                if life.ack_inbox and life.received:
                    self.count += 1
                    acks = self._acked(life, life.received)
                    life.received = []
                    self._send(acks, [])
            self.leader.loop.move(SETTLE_S)
            self._collect()
            if not any(life.received for life in self.lives) and self.leader.delivery().pending == 0:
                return
        raise AssertionError("messages come again although they were acked")

    def check_state(self) -> None:
        """The server has what the history says, and nothing failed."""
        leader = self.leader
        assert leader.loop.errors == []
        assert leader.fatal == []
        assert leader.leadership.watchdog.found == 0
        online = {one.inbox for one in leader.store.state.subscriptions.values() if one.is_online}
        assert online == self.history.online()
        for channel in leader.store.state.channels.values():
            _, messages = leader.store.read_messages(channel, 1, 10**6, 10**9)
            found = [pb.MsgProto.FromString(one) for one in messages]
            assert [one.sequence for one in found] == list(range(1, channel.last_seq + 1))
            assert [one.data for one in found] == self.history.stored(channel.name)
