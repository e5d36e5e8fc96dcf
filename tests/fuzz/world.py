"""A server with clients, channels and subscriptions, to which anything may be sent; watches what it says and keeps.

Whatever was sent, afterwards: no callback failed, nothing logged a traceback, frames are legal, and a client that behaves is
served. What was acked is in its channel, in order.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from server.config.model import Limits
from server.protocol import stan_pb2 as pb
from store.directory import DataDirectory
from store.machine.state import Result, Subscription
from store.store import CommittedEntry, open_store
from tests.support.leader_harness import CLUSTER_ID, Client, Frame, Leader, LogEntry
from tests.support.moved_loop import NS
from tests.support.store_digest import digest

PROBE_CHANNEL: Final = "probe-channel"
CONTROL_LINE_MAX_BYTES: Final = 4096
"""Longest line that a NATS server takes with default options, bytes."""

HEARTBEAT_NS: Final = 2 * NS
HEARTBEAT_TIMEOUT_NS: Final = NS
HEARTBEAT_FAILURES: Final = 2


class World:
    """`me`, `you` and `old` are connected; channels `foo`, `bar`, `foo.bar` hold messages and subscriptions."""

    def __init__(self, limits: Limits, *, max_payload: int, replaces_durables: bool) -> None:
        self.leader = leader = Leader(
            limits=limits,
            hb_interval_ns=HEARTBEAT_NS,
            hb_timeout_ns=HEARTBEAT_TIMEOUT_NS,
            hb_fail_count=HEARTBEAT_FAILURES,
            replace_durable=replaces_durables,
        )
        leader.nats.max_payload = max_payload
        self.journal: list[LogEntry] = []
        leader.store.apply = self._recorded(leader.store.apply)  # type: ignore[method-assign, assignment]
        leader.begin().take()
        self.limits = limits
        self.stored: dict[str, list[tuple[bytes, str]]] = {}
        """By channel: data and reply of what was accepted, in order."""
        self.probes = 0
        me, you = leader.client("me"), leader.client("you")
        leader.feed(Client(leader, "old").connect_bytes(connID=b"", protocol=0))
        old = Client(leader, "old")
        old.conn_id = b""
        for client, channel, count in ((me, "foo", 5), (old, "bar", 2), (me, "foo.bar", 1), (me, PROBE_CHANNEL, 1)):
            client.publish(channel, count)
            self.stored[channel] = [(b"data", "")] * count
        me.subscribe("foo", "in.me", max_in_flight=3)
        you.subscribe("foo", "in.you", durable="d")
        old.subscribe("bar", "in.old")
        me.subscribe("foo", "in.group", group="g")
        me.subscribe("foo", "in.offline", durable="offline")
        me.end("subclose", "foo", "in.offline")
        you.subscribe("foo", "in.away", durable="d", group="offline")
        you.end("subclose", "foo", "in.away")
        leader.take()

    def _recorded(
        self, apply: Callable[[Sequence[CommittedEntry]], list[list[Result]]]
    ) -> Callable[[Sequence[CommittedEntry]], list[list[Result]]]:
        def recorded(entries: Sequence[CommittedEntry]) -> list[list[Result]]:
            self.journal += [LogEntry(one.index, one.term, memoryview(bytes(one.data))) for one in entries]
            return apply(entries)

        return recorded

    # ---- looking

    def online(self) -> list[Subscription]:
        """Subscriptions in the order they were made."""
        return [one for one in self.leader.store.state.subscriptions.values() if one.is_online]

    def pending(self, ack_inbox: str) -> list[int]:
        """What a plain subscription is to ack."""
        subscription = self.leader.core.ack_subjects[ack_inbox.encode()]
        return subscription.pending(1, subscription.next_seq)

    def contents(self, channel: str) -> list[tuple[bytes, str]]:
        """Data and reply of what is stored; sequences must have no gap."""
        record = self.leader.store.state.channels[channel]
        first, messages = self.leader.store.read_messages(record, 1, 10**6, 10**9)
        found = [pb.MsgProto.FromString(one) for one in messages]
        assert [one.sequence for one in found] == list(range(first, record.last_seq + 1))
        assert {one.subject for one in found} <= {channel}
        return [(one.data, one.reply) for one in found]

    def message(self, subject: str, payload: bytes, reply: str, headers: bytes, *, sid: int = 0) -> bytes:
        """What NATS sends for a message, to the subscription `sid` or the one that `subject` belongs to."""
        number = sid or self.leader.nats.sid_of(subject)
        sizes = [len(headers), len(headers) + len(payload)] if headers else [len(payload)]
        tokens = ["HMSG" if headers else "MSG", subject, number, *filter(None, [reply]), *sizes]
        return " ".join(map(str, tokens)).encode() + b"\r\n" + headers + payload + b"\r\n"

    # ---- checks that always hold

    def take(self) -> list[Frame]:
        """What the server wrote since the last call: legal for NATS, whatever it was made of."""
        frames = self.leader.take()
        for frame in frames:
            for subject in filter(None, (frame.subject, frame.reply)):
                assert not any(one.isspace() for one in subject), frame
                assert "" not in subject.split("."), frame
            line = f"PUB {frame.subject} {frame.reply} {len(frame.payload)}"
            assert len(line.encode()) <= CONTROL_LINE_MAX_BYTES, frame
            assert len(frame.payload) <= self.leader.nats.max_payload, frame
        return frames

    def answer_requests(self, frames: list[Frame], how: str) -> bool:
        """Clients answer what the server asked in `frames`. `how`: answered, 503, or silent; whether it asked anything."""
        requests = [frame for frame in frames if frame.reply]
        for frame in requests:
            if how == "answered":
                self.leader.answer_request(frame)
            elif how == "503":
                self.leader.answer_request(frame, status="503")
        return bool(requests)

    def check_serving(self) -> None:
        """A client that behaves connects, publishes, receives, acks and closes; nothing failed on the way here."""
        leader = self.leader
        self.probes += 1
        inbox = f"probe.{self.probes}"
        client = leader.client(f"probe-{self.probes}")
        leader.take()
        subscription = client.subscribe(PROBE_CHANNEL, inbox, start=pb.NewOnly, max_in_flight=2)
        client.publish(PROBE_CHANNEL, 3, b"probe")
        self.stored[PROBE_CHANNEL] += [(b"probe", "")] * 3
        last = leader.channel(PROBE_CHANNEL).last_seq
        assert [(ack.guid, ack.error) for ack in leader.pub_acks()] == [(f"g{i:06d}", "") for i in range(3)]
        assert leader.seqs(inbox) == [last - 2, last - 1]
        client.ack(subscription, last - 2)
        assert leader.seqs(inbox) == [last]
        client.ack(subscription, last - 1, last)
        assert not client.end("unsub", PROBE_CHANNEL, inbox).error
        assert not client.close().error
        leader.take()
        assert leader.loop.errors == []
        assert leader.fatal == []

    def check_kept(self, *, is_on_disk: bool) -> None:
        """Every channel holds exactly what was accepted, also for the next leadership, which may read it from files."""
        self._check_contents()
        self.leader.stop()
        self.leader.take()
        self.leader.store.flush()
        if is_on_disk:
            with TemporaryDirectory() as directory:
                self._reopen(Path(directory))
                self._check_next_leadership()
                self.leader.store.close()
        else:
            self._check_next_leadership()

    def _check_next_leadership(self) -> None:
        self.leader.restart()
        self.check_serving()
        self._check_contents()

    def _check_contents(self) -> None:
        for channel, expected in self.stored.items():
            assert self.contents(channel) == expected, channel

    def _reopen(self, directory: Path) -> None:
        """All entries go into a store on disk, which is then opened again."""
        leader = self.leader
        content = digest(leader.store)
        leader.store.close()
        for entries in (self.journal, []):
            store = open_store(
                DataDirectory(directory / "store"),
                cluster_id=CLUSTER_ID,
                node_id="a",
                incarnation="0011223344556677",
                post=leader.posted.put,
                on_durable=lambda _index: None,
                on_fatal=leader.fatal.append,
            )
            store.apply(entries)
            assert digest(store) == content
            if entries:
                store.close()
        leader.store = leader.log.store = store


class _Tracebacks(logging.Handler):
    """Keeps what only a bug logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[0] is not None:
            self.found.append(logging.Formatter().format(record))


@contextmanager
def without_tracebacks() -> Iterator[None]:
    """At the end nothing has logged a traceback: a request whose handler failed would have."""
    handler = _Tracebacks()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except BaseException as error:
        for text in handler.found[:1]:
            error.add_note(text)
        raise
    finally:
        root.removeHandler(handler)
    assert handler.found == [], handler.found[0]


@contextmanager
def world(limits: Limits, *, max_payload: int = 1024 * 1024, replaces_durables: bool = False) -> Iterator[World]:
    """A prepared server, closed at the end."""
    with without_tracebacks():
        made = World(limits, max_payload=max_payload, replaces_durables=replaces_durables)
        try:
            yield made
            assert made.leader.loop.errors == []
            assert made.leader.leadership.watchdog.found == 0, "a subscription was silent"
        finally:
            made.leader.store.close()


SUBJECTS: Final = {
    "connect": f"_STAN.discover.{CLUSTER_ID}",
    "ping": f"_STAN.discover.{CLUSTER_ID}.pings",
    "subscribe": f"_STAN.sub.{CLUSTER_ID}",
    "unsubscribe": f"_STAN.unsub.{CLUSTER_ID}",
    "close subscription": f"_STAN.subclose.{CLUSTER_ID}",
    "close": f"_STAN.close.{CLUSTER_ID}",
}
"""Of the requests with a fixed subject (section 1 of the protocol)."""

PUBLISH_PREFIX: Final = f"_STAN.pub.{CLUSTER_ID}."
