"""The real core under a moved clock: takes client operations, reports what it did as events in order of time.

The store can be replaced by one rebuilt from the journal, with any part of it on disk already, as a restart does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from server import leadership as leadership_module
from server.config.model import Limits
from server.delivery import stream as stream_module
from store.directory import DataDirectory
from store.machine.state import Result, Subscription
from store.operations import Append, CreateChannel, DeleteChannel, Expire, Operation
from store.store import CommittedEntry, Store, open_store
from tests.support.leader_harness import CLUSTER_ID, Client, Frame, Leader, LogEntry, parse_frames
from tests.support.store_digest import digest

ANSWER_S: Final = 0.002
"""How long a client takes to answer a heartbeat, seconds."""

COMMIT_S: Final = 0.001
"""How long a commit takes that an orderly stop waits for, seconds."""

SEND_AHEAD: Final = 16
"""Instead of SEND_AHEAD_MAX: small, so that bursts reach it."""

TURN_BYTES: Final = 60
"""Instead of TURN_MAX_BYTES: a subscription needs several turns of the loop for a burst."""


@dataclass(frozen=True)
class Event:
    """Something the server did or a client answered, at a wall clock time in ns."""

    at_ns: int
    kind: str
    """frame, heartbeat, answered, stored, expired, deleted"""
    subject: str
    """Subject of the frame, client id, or channel."""
    payload: bytes = b""
    seq: int = 0
    """First sequence that is left, or last one stored."""


class Core:
    """One node that leads, on a FILE or MEMORY store."""

    def __init__(self, limits: Limits, directory: Path | None, monkeypatch: Any, **options: object) -> None:
        monkeypatch.setattr(leadership_module, "SECOND_SERVER_PROBE_S", 0.0)
        monkeypatch.setattr(leadership_module, "SEND_AHEAD_MAX", SEND_AHEAD)
        monkeypatch.setattr(stream_module, "SEND_AHEAD_MAX", SEND_AHEAD)
        monkeypatch.setattr(stream_module, "TURN_MAX_BYTES", TURN_BYTES)
        monkeypatch.setattr(stream_module, "FLUSH_BYTES", 2 * TURN_BYTES)
        self.leader = Leader(limits=limits, **options)
        self.directory = directory
        self.lives = 0
        self.is_up = True
        self.journal: list[LogEntry] = []
        self.events: list[Event] = []
        self.answering: dict[str, bool] = {}
        """By client id: answers heartbeats."""
        self._use(self.leader.store)
        self.leader.nats.writes = _Hook(self._wrote)
        self.leader.log.applied = _Hook(self._applied)
        self.leader.begin()

    # ---- doing

    def client(self, client_id: str) -> Client:
        """A client that connects."""
        client = Client(self.leader, client_id)
        self.answering[client_id] = True
        self.leader.feed(client.connect_bytes())
        return client

    def feed(self, data: bytes) -> None:
        """One socket read and what follows at once."""
        self.leader.feed(data)

    def move(self, seconds: float) -> None:
        self.leader.loop.move(seconds)

    def set_connected(self, *, is_connected: bool) -> None:
        self.leader.nats.is_connected = is_connected
        if is_connected:
            self.leader.leadership.on_connected()
            self.leader.loop.run()

    def set_writable(self, *, is_writable: bool) -> None:
        self.leader.nats.is_writable = is_writable
        if is_writable:
            self.leader.leadership.on_writable()
            self.leader.loop.run()

    def hold(self) -> None:
        """From now on nothing is committed."""
        self.leader.log.is_applying_at_once = False

    def release(self) -> None:
        """What was proposed is committed, and what that makes propose."""
        self._commit()
        self.leader.loop.run()

    def _commit(self) -> None:
        self.leader.log.is_applying_at_once = True
        if self.leader.log.proposed:
            self.leader.log.apply_next()

    def stop(self, data: bytes) -> None:
        """Orderly stop right after one more read; what is on hold is committed meanwhile."""
        self.leader.feed(data, runs=False)
        self.leader.loop.call_later(COMMIT_S, self._commit)
        self.leader.stop()
        self.is_up = False

    def crash(self, surviving: int) -> None:
        """The process is gone; of the entries it had proposed the first `surviving` are in the journal."""
        self.is_up = False
        kept = [sent.data for sent in self.leader.log.proposed[:surviving]]
        self.leader.leadership.end()
        self.leader.log.proposed.clear()
        self.leader.loop.run()
        for data in kept:
            self.leader.store.apply([LogEntry(len(self.journal) + 1, self.leader.log.term, memoryview(data))])
        self.leader.outbox.parts.clear()

    def rebuild(self, behind: int) -> None:
        """A new process reads a store that is `behind` entries behind the journal, and the rest from there."""
        old, entries = self.leader.store, list(self.journal)
        content = digest(old)
        self.lives += 1
        store = self._open()
        store.apply(entries[: len(entries) - behind])
        if self.directory is not None:
            store.close()
            store = self._open()
            assert store.last_applied()[0] == len(entries) - behind
        store.apply(entries[len(entries) - behind :])
        assert digest(store) == content, "R6: the replayed store differs"
        old.close()
        self._use(store)

    def begin(self) -> None:
        """The new process takes the role."""
        self.leader.nats.is_connected = self.leader.nats.is_writable = True
        self.leader.log.is_applying_at_once = True
        self.is_up = True
        self.leader.restart()

    def close(self) -> None:
        self.leader.store.close()

    # ---- looking

    def wall_ns(self) -> int:
        return self.leader.wall_ns()

    def take_events(self) -> list[Event]:
        """Since the last call."""
        events, self.events = self.events, []
        return events

    def record(self, ack_inbox: str) -> Subscription:
        """The replicated record of a subscription."""
        return next(one for one in self.leader.store.state.subscriptions.values() if one.ack_inbox == ack_inbox)

    def check_healthy(self) -> None:
        """No callback failed, nothing is fatal."""
        for context in self.leader.loop.errors:
            raise AssertionError(context["message"]) from context.get("exception")
        assert self.leader.fatal == []

    # ---- hooks

    def _open(self) -> Store:
        directory = None if self.directory is None else DataDirectory(self.directory / f"life{self.lives}")
        return open_store(
            directory,
            cluster_id=CLUSTER_ID,
            node_id="a",
            incarnation="0011223344556677",
            post=self.leader.posted.put,
            on_durable=lambda _index: self.leader.leadership.on_durable(),
            on_fatal=self.leader.fatal.append,
        )

    def _use(self, store: Store) -> None:
        """Everything applied to it goes into the journal, too."""
        apply = store.apply

        def recorded(entries: Sequence[CommittedEntry]) -> list[list[Result]]:
            self.journal += [LogEntry(one.index, one.term, memoryview(bytes(one.data))) for one in entries]
            return apply(entries)

        store.apply = recorded  # type: ignore[method-assign]
        self.leader.store = self.leader.log.store = store

    def _wrote(self, data: bytes) -> None:
        for frame in parse_frames(data):
            if frame.subject.startswith("hb."):
                client_id = frame.subject.removeprefix("hb.")
                self._note("heartbeat", client_id)
                if self.answering.get(client_id):
                    self.leader.loop.call_later(ANSWER_S, self._answer, client_id, frame, self.leader.log.term)
            else:
                self._note("frame", frame.subject, frame.payload)

    def _answer(self, client_id: str, frame: Frame, term: int) -> None:
        if self.is_up and self.leader.nats.is_connected and term == self.leader.log.term:
            self._note("answered", client_id)
            self.leader.feed(self.leader.message(frame.reply, b"", ""), runs=False)

    def _applied(self, operations: list[Operation]) -> None:
        names = {one.channel_id: one.name for one in self.leader.store.state.channels.values()}
        for operation in operations:
            if isinstance(operation, CreateChannel):
                names[operation.channel_id] = operation.name
            elif isinstance(operation, Append):
                self._note("stored", names[operation.channel_id], seq=operation.first_seq + operation.count - 1)
            elif isinstance(operation, Expire):
                self._note("expired", names[operation.channel_id], seq=operation.first_seq)
            elif isinstance(operation, DeleteChannel):
                self._note("deleted", names[operation.channel_id])

    def _note(self, kind: str, subject: str, payload: bytes = b"", *, seq: int = 0) -> None:
        self.events.append(Event(self.leader.wall_ns(), kind, subject, payload, seq))


class _Hook(list[Any]):
    """A list of the harness that reports instead of collecting."""

    def __init__(self, report: Callable[[Any], None]) -> None:
        super().__init__()
        self._report = report

    def append(self, item: Any) -> None:
        self._report(item)
