"""A leadership on a real store, with a network and a log that do what the test says.

The log applies an entry when the test (or `is_applying_at_once`) says so, so that a test can look between sealing and
applying. What the leadership writes is parsed back into frames, in order.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from google.protobuf.message import Message

from raft.errors import NotLeaderError
from raft.proposals import Applied, Outcome, Unknown
from server import hot
from server.config.model import Limits, Options
from server.delivery.engine import DeliveryStatistics
from server.errors import NatsUnavailableError
from server.leadership import Leadership, Ports
from server.outbox import Outbox
from server.protocol import stan_pb2 as pb
from store import entry
from store.errors import CorruptionError
from store.machine.state import Channel, Refusal, Subscription
from store.operations import Operation
from store.store import Store, open_store
from tests.support.moved_loop import NS, MovedLoop

CLUSTER_ID = "test-cluster"
EPOCH_NS = 1_700_000_000 * NS
MAX_PAYLOAD = 1024 * 1024
DEADLINE_S = 20.0

_M = TypeVar("_M", bound=Message)


class Frame(NamedTuple):
    """A message the server sent."""

    subject: str
    reply: str
    payload: bytes


class LogEntry(NamedTuple):
    """A committed entry."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    term: int
    data: memoryview
    is_configuration: bool = False


class FakeNats:
    """The server's connection: subscriptions, what was written, and whether anybody can be reached.

    Barriers wait for `answer_barriers` while `is_answering` is false or nothing is read, as one without its PONG does.
    """

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.is_connected = True
        self.is_writable = True
        self.max_payload = MAX_PAYLOAD
        self.is_reading = True
        self.is_answering = True
        self.subjects: dict[int, str] = {}
        self.ended: list[str] = []
        self.on_barrier: Callable[[], None] = lambda: None
        self.on_write: Callable[[], None] = lambda: None
        self.writes: list[bytes] = []
        self.barriers: list[asyncio.Future[None]] = []
        self._sids = 0

    def subscribe(self, subject: str) -> int:
        self._sids += 1
        self.subjects[self._sids] = subject
        return self._sids

    def unsubscribe(self, sid: int) -> None:
        self.ended.append(self.subjects.pop(sid))

    async def barrier(self) -> None:
        self.on_barrier()
        if not self.is_connected:
            raise NatsUnavailableError("down")
        if not (self.is_answering and self.is_reading):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.barriers.append(waiter)
            await waiter

    def answer_barriers(self) -> None:
        """The PONGs that are waited for arrive."""
        for waiter in self._waiting():
            waiter.set_result(None)

    def disconnect(self) -> None:
        """The connection is gone, and with it what was on its way."""
        self.is_connected = False
        for waiter in self._waiting():
            waiter.set_exception(NatsUnavailableError("down"))

    def _waiting(self) -> list[asyncio.Future[None]]:
        waiters, self.barriers = self.barriers, []
        return [waiter for waiter in waiters if not waiter.done()]

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def write(self, parts: Sequence[bytes]) -> bool:
        self.events.append("write")
        self.on_write()
        if self.is_connected:
            self.writes.append(b"".join(parts))
        return self.is_connected

    def sid_of(self, subject: str) -> int:
        """The subscription that a message on `subject` belongs to."""
        for sid, pattern in self.subjects.items():
            stem = pattern.rstrip("*>")
            if subject == pattern or (stem != pattern and subject.startswith(stem)):
                return sid
        raise AssertionError(f"nobody listens to {subject}: {self.subjects}")


class SentEntry(NamedTuple):
    """An entry that was proposed and is not applied."""

    data: bytes
    done: Callable[[Outcome], None]

    @property
    def operations(self) -> list[Operation]:
        """What is in it."""
        return entry.decode(memoryview(self.data)).operations


@dataclass(slots=True)
class FakeLog:
    """Entries in the order proposed. `apply_next` commits the oldest one."""

    loop: MovedLoop
    store: Store
    events: list[str]
    term: int = 1
    is_applying_at_once: bool = True
    is_leader: bool = True
    proposed: list[SentEntry] = field(default_factory=list)
    applied: list[list[Operation]] = field(default_factory=list)

    def propose(self, parts: Sequence[bytes], done: Callable[[Outcome], None]) -> int:
        if not self.is_leader:
            raise NotLeaderError(None)
        self.events.append("propose")
        self.proposed.append(SentEntry(b"".join(parts), done))
        if self.is_applying_at_once:
            self.loop.call_soon(self._apply_if_any)
        return 0

    def apply_next(self) -> None:
        """Apply the oldest entry and tell its proposer."""
        sent = self.proposed.pop(0)
        sent.done(Applied(self._commit(sent)))

    def crash(self, *, committed: int) -> None:
        """The process is gone: the oldest `committed` entries are in the log although nobody heard of it, others are not."""
        for sent in self.proposed[:committed]:
            self._commit(sent)
        self.proposed.clear()

    def _commit(self, sent: SentEntry) -> object:
        self.applied.append(sent.operations)
        (results,) = self.store.apply([LogEntry(self.store.last_applied()[0] + 1, self.term, memoryview(sent.data))])
        return results

    def lose_all(self, *, committed: int = 0) -> None:
        """Leadership ends: the outcome of what is not applied is unknown. The oldest `committed` are in the log after all."""
        lost, self.proposed[:] = list(self.proposed), []
        for sent in lost:
            sent.done(Unknown())
        for sent in lost[:committed]:
            self._commit(sent)

    def refuse_next(self, text: str) -> None:
        """The oldest entry is committed, and the state machine refuses all of it."""
        sent = self.proposed.pop(0)
        sent.done(Applied([Refusal(text) for _ in sent.operations]))

    def _apply_if_any(self) -> None:
        if self.proposed and self.is_applying_at_once:
            self.apply_next()


class Client:
    """A STAN client by hand. Every method is one message to the server, fed at once."""

    def __init__(self, leader: "Leader", client_id: str, inbox: str = "") -> None:
        self.leader = leader
        self.client_id = client_id
        self.conn_id = f"conn-{client_id}{inbox}".encode()
        self.heartbeat_inbox = inbox or f"hb.{client_id}"

    def connect_bytes(self, **fields: object) -> bytes:
        request = pb.ConnectRequest(
            clientID=self.client_id, heartbeatInbox=self.heartbeat_inbox, connID=self.conn_id, protocol=1
        )
        for name, value in fields.items():
            setattr(request, name, value)
        return self.leader.message(f"_STAN.discover.{CLUSTER_ID}", request, f"r.connect.{self.client_id}")

    def publish_bytes(self, channel: str, data: bytes = b"data", guid: str = "g", reply: str = "acks") -> bytes:
        message = pb.PubMsg(clientID=self.client_id, guid=guid, subject=channel, data=data, connID=self.conn_id)
        return self.leader.message(f"_STAN.pub.{CLUSTER_ID}.{channel}", message, reply)

    def subscribe_bytes(
        self,
        channel: str,
        inbox: str,
        *,
        durable: str = "",
        group: str = "",
        max_in_flight: int = 1024,
        ack_wait_s: int = 30,
        start: pb.StartPosition = pb.First,
        fields: Mapping[str, object] = MappingProxyType({}),
    ) -> bytes:
        request = pb.SubscriptionRequest(
            clientID=self.client_id,
            subject=channel,
            inbox=inbox,
            durableName=durable,
            qGroup=group,
            maxInFlight=max_in_flight,
            ackWaitInSecs=ack_wait_s,
            startPosition=start,
        )
        for name, value in fields.items():
            setattr(request, name, value)
        return self.leader.message(f"_STAN.sub.{CLUSTER_ID}", request, f"r.sub.{inbox}")

    def end_bytes(self, verb: str, channel: str, inbox: str) -> bytes:
        """`verb`: unsub or subclose."""
        request = pb.UnsubscribeRequest(clientID=self.client_id, subject=channel, inbox=inbox)
        return self.leader.message(f"_STAN.{verb}.{CLUSTER_ID}", request, f"r.{verb}.{inbox}")

    def close_bytes(self) -> bytes:
        return self.leader.message(
            f"_STAN.close.{CLUSTER_ID}", pb.CloseRequest(clientID=self.client_id), f"r.close.{self.client_id}"
        )

    def ping_bytes(self) -> bytes:
        return self.leader.message(
            f"_STAN.discover.{CLUSTER_ID}.pings", pb.Ping(connID=self.conn_id), f"r.ping.{self.client_id}"
        )

    def ack_bytes(self, subscription: Subscription, *seqs: int) -> bytes:
        name = self.leader.store.state.channels_by_id[subscription.channel_id].name
        return b"".join(
            self.leader.message(subscription.ack_inbox, pb.Ack(subject=name, sequence=seq), "") for seq in seqs
        )

    # ---- the same, fed; the answer where there is one

    def connect(self) -> pb.ConnectResponse:
        self.leader.feed(self.connect_bytes())
        return self.leader.answer(f"r.connect.{self.client_id}", pb.ConnectResponse)

    def publish(self, channel: str, count: int = 1, data: bytes = b"data") -> None:
        self.leader.feed(b"".join(self.publish_bytes(channel, data, f"g{i:06d}") for i in range(count)))

    def subscribe(self, channel: str, inbox: str, **options: object) -> Subscription:
        """Subscribe and be answered; the replicated record."""
        self.leader.feed(self.subscribe_bytes(channel, inbox, **options))  # type: ignore[arg-type]
        answer = self.leader.answer(f"r.sub.{inbox}", pb.SubscriptionResponse)
        assert not answer.error, answer.error
        return next(one for one in self.leader.store.state.subscriptions.values() if one.ack_inbox == answer.ackInbox)

    def ack(self, subscription: Subscription, *seqs: int) -> None:
        self.leader.feed(self.ack_bytes(subscription, *seqs))

    def end(self, verb: str, channel: str, inbox: str) -> pb.SubscriptionResponse:
        self.leader.feed(self.end_bytes(verb, channel, inbox))
        return self.leader.answer(f"r.{verb}.{inbox}", pb.SubscriptionResponse)

    def close(self) -> pb.CloseResponse:
        self.leader.feed(self.close_bytes())
        return self.leader.answer(f"r.close.{self.client_id}", pb.CloseResponse)


class Leader:
    """One node that leads. `restart` makes the next leadership as a new process does, `regain` in the same one."""

    def __init__(self, *, limits: Limits | None = None, **options: object) -> None:
        self.loop = MovedLoop()  # type: ignore[abstract]  # it has what our code calls
        self.events: list[str] = []
        """Each `propose` to the log and `write` to NATS, in order."""
        self.nats = FakeNats(self.events)
        self.options = Options(cluster_id=CLUSTER_ID, limits=limits or Limits(), **options)  # type: ignore[arg-type]
        self.fatal: list[BaseException] = []
        self.wall_offset_ns = EPOCH_NS
        self.is_disk_low = False
        self.is_clustered = False
        self.is_confirmed = True
        self.confirm_count = 0
        """How often it was asked whether this node may speak."""
        self.posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.store = open_store(
            None,
            cluster_id=CLUSTER_ID,
            node_id="a",
            incarnation="0011223344556677",
            post=self.posted.put,
            on_durable=lambda index: self.leadership.on_durable(),
            on_fatal=self.fatal.append,
        )
        self.core = _idle_core(MAX_PAYLOAD)
        self.outbox = Outbox(self.nats.write, self.loop)
        self.log = FakeLog(self.loop, self.store, self.events)
        self.frames_read: list[Frame] = []
        self.leadership: Leadership
        self.unreadable: list[int] = []
        """When a message could not be read."""

    def begin(self) -> "Leader":
        """Take the role."""
        self.build()
        self.loop.run_task(self.leadership.begin())
        return self

    def build(self) -> Leadership:
        """The no-op of a new leader is applied, its roles are made."""
        self.store.apply([LogEntry(self.store.last_applied()[0] + 1, self.log.term, memoryview(b""))])
        self.leadership = Leadership(
            Ports(
                options=self.options,
                core=self.core,
                store=self.store,
                connection=self.nats,  # type: ignore[arg-type]
                outbox=self.outbox,
                loop=self.loop,
                propose=self.log.propose,
                wall_ns=self.wall_ns,
                monotonic_ns=lambda: self.loop.now_ns,
                on_fatal=self.fatal.append,
                on_unreadable=lambda: self.unreadable.append(self.loop.now_ns),
                is_disk_low=self.is_disk_low,
                is_clustered=self.is_clustered,
                is_confirmed=self._confirm,
            )
        )
        return self.leadership

    def lose(self, *, committed: int = 0, is_told_first: bool = True) -> None:
        """Leadership is lost as the node tells it: first the role ends, then every proposal; or the other way round.

        The oldest `committed` of the travelling entries turn out to be in the log.
        """
        if is_told_first:
            self.leadership.end()
        self.log.lose_all(committed=committed)
        self.leadership.end()

    def regain(self) -> None:
        """The next leadership of the same process."""
        self.log.term += 1
        self.log.is_leader = True
        self.begin()

    def begun(self) -> "asyncio.Task[None]":
        """The task of a leadership that begins, up to its first wait."""
        task = asyncio.Task(self.build().begin(), loop=self.loop)
        self.loop.run()
        return task

    def crash(self) -> None:
        """The process is gone without a word, and so is what it had not committed."""
        self.leadership.end()
        self.log.crash(committed=0)
        self.loop.run()
        self.take()

    def restart(self) -> None:
        """The next leadership on what is applied."""
        self.log.term += 1
        self.nats.subjects.clear()
        self.core = _idle_core(self.nats.max_payload)
        self.begin()

    def other_node(self) -> tuple[hot.Core, FakeNats, Outbox]:
        """What another node of the cluster has for itself; its store and log are as this node's."""
        nats = FakeNats(self.events)
        return _idle_core(MAX_PAYLOAD), nats, Outbox(nats.write, self.loop)

    def swap(self, other: tuple[hot.Core, FakeNats, Outbox]) -> tuple[hot.Core, FakeNats, Outbox]:
        """From now on `other` is the node that leads; what this one had is returned."""
        mine = (self.core, self.nats, self.outbox)
        self.core, self.nats, self.outbox = other
        return mine

    def stop(self) -> None:
        """Orderly stop."""
        self.loop.run_task(self.leadership.stop())

    def let_store_write(self) -> None:
        """Until now what was applied is only in memory: let all of it become durable."""
        while self.store.durable_index() < self.store.last_applied()[0]:
            self.posted.get(timeout=DEADLINE_S)()
        self.loop.run()

    def _confirm(self) -> bool:
        self.confirm_count += 1
        return self.is_confirmed

    def wall_ns(self) -> int:
        """The wall clock: moves with the loop."""
        return self.wall_offset_ns + self.loop.now_ns

    # ---- bytes in

    def message(self, subject: str, payload: Message | bytes, reply: str) -> bytes:
        """A NATS message for the server, as bytes."""
        data = payload if isinstance(payload, bytes) else payload.SerializeToString()
        middle = f" {reply}" if reply else ""
        return f"MSG {subject} {self.nats.sid_of(subject)}{middle} {len(data)}\r\n".encode() + data + b"\r\n"

    def feed(self, data: bytes, *, runs: bool = True) -> None:
        """One socket read, and what follows from it at once."""
        self.core.feed(data, self.wall_ns())
        self.leadership.take_turn()
        if runs:
            self.loop.run()

    def answer_request(self, frame: Frame, payload: bytes = b"", *, status: str = "") -> None:
        """A client answers a request of the server, or NATS says that there is none."""
        if status:
            headers = f"NATS/1.0 {status}\r\n\r\n".encode()
            size = len(headers)
            line = f"HMSG {frame.reply} {self.nats.sid_of(frame.reply)} {size} {size}\r\n".encode()
            self.feed(line + headers + b"\r\n")
        else:
            self.feed(self.message(frame.reply, payload, ""))

    # ---- frames out

    def take(self, subject: str = "") -> list[Frame]:
        """Frames since the last call, to `subject` or all. The others stay."""
        written, self.nats.writes = self.nats.writes, []
        self.frames_read += parse_frames(b"".join(written))
        if not subject:
            taken, self.frames_read = self.frames_read, []
            return taken
        taken = [frame for frame in self.frames_read if frame.subject == subject]
        self.frames_read = [frame for frame in self.frames_read if frame.subject != subject]
        return taken

    def answer(self, subject: str, kind: type[_M]) -> _M:
        """The only frame to `subject`, decoded."""
        frames = self.take(subject)
        assert len(frames) == 1, (subject, frames)
        return kind.FromString(frames[0].payload)

    def received(self, inbox: str) -> list[pb.MsgProto]:
        """Messages delivered to `inbox` since the last call."""
        return [pb.MsgProto.FromString(frame.payload) for frame in self.take(inbox)]

    def seqs(self, inbox: str) -> list[int | str]:
        """Sequences delivered to `inbox` since the last call; `3r2` is the second redelivery of 3."""
        return [
            f"{one.sequence}r{one.redeliveryCount}" if one.redelivered else one.sequence for one in self.received(inbox)
        ]

    def pub_acks(self, subject: str = "acks") -> list[pb.PubAck]:
        """PubAcks since the last call."""
        return [pb.PubAck.FromString(frame.payload) for frame in self.take(subject)]

    # ---- looking

    def client(self, client_id: str = "me") -> Client:
        """A connected client."""
        client = Client(self, client_id)
        answer = client.connect()
        assert not answer.error, answer.error
        return client

    def channel(self, name: str) -> Channel:
        """The applied channel."""
        return self.store.state.channels[name]

    def delivery(self) -> DeliveryStatistics:
        """Figures of the engine."""
        return self.leadership.engine.statistics()


def parse_frames(data: bytes) -> list[Frame]:
    """What NATS would read."""
    frames: list[Frame] = []
    while data:
        line, _, data = data.partition(b"\r\n")
        verb, subject, *reply, size = line.decode().split(" ")
        assert verb == "PUB", line
        payload, data = data[: int(size)], data[int(size) :]
        assert data.startswith(b"\r\n"), (line, data[:20])
        data = data[2:]
        frames.append(Frame(subject, reply[0] if reply else "", payload))
    return frames


def damage(leader: Leader, seqs: Sequence[int] = (1,), name: str = "foo") -> tuple[list[int], Callable[[], None]]:
    """Reads of these sequences of a channel fail from now on; returns the sequences asked for, and how to repair."""
    read, calls = leader.store.read_messages, list[int]()

    def read_messages(channel: Channel, seq: int, max_count: int, max_bytes: int) -> tuple[int, list[bytes]]:
        calls.append(seq)
        first = max(seq, channel.first_seq)
        good = min([bad - first for bad in seqs if channel.name == name and bad >= first], default=max_count)
        if not good:
            raise CorruptionError(f"channel {channel.name}, sequence {seq}", "a block", "none")
        return read(channel, seq, min(good, max_count), max_bytes)

    leader.store.read_messages = read_messages  # type: ignore[method-assign]
    return calls, lambda: setattr(leader.store, "read_messages", read)


def assert_ended(leader: Leader) -> None:
    """B395, B396: nobody listens, no timer runs, nothing waits for anything, and the connection reads."""
    core = leader.core
    assert leader.nats.subjects == {}
    assert leader.loop.timers() == []
    assert leader.loop.errors == []
    assert leader.nats.is_reading
    assert (core.publish_sid, core.ack_sid, core.ack_subjects, core.lines) == (-1, -1, {}, {})
    assert (core.dirty, core.acks, core.batch_count, core.batch_bytes) == ([], [], 0, 0)
    assert (core.replies, core.touched, core.is_traced) == ([], [], False)
    assert leader.outbox.parts == []


@contextmanager
def leading(*, limits: Limits | None = None, **options: object) -> Iterator[Leader]:
    """A leader that serves; at the end no callback may have failed."""
    leader = Leader(limits=limits, **options)
    try:
        leader.begin().take()
        yield leader
        assert leader.loop.errors == []
        assert leader.leadership.watchdog.found == 0, "a subscription was silent"
    finally:
        leader.store.close()


def _idle_core(max_payload: int) -> hot.Core:
    return hot.Core(hot.admit_nothing, hot.handle_nothing, max_payload)
