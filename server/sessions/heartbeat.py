"""Decides which clients are due for a heartbeat and which have failed too often (B340 to B342, B74). Pure."""

import heapq
from dataclasses import dataclass, field


@dataclass(slots=True)
class Session:
    """What the leader remembers of one client's heartbeats."""

    client_id: str
    due_ns: int
    failures: int = 0
    is_waiting: bool = False
    """A heartbeat is under way."""


@dataclass(slots=True)
class Heartbeats:
    """All clients; times are monotonic ns. Costs grow with what is due, not with the number of clients.

    Invariant: every session that is not waiting has a heap entry with its `due_ns`; other entries are stale.
    """

    interval_ns: int
    fail_count: int
    sessions: dict[str, Session] = field(default_factory=dict)
    _heap: list[tuple[int, str]] = field(default_factory=list)

    def start(self, client_id: str, now_ns: int) -> None:
        """The client connected, or leadership began: first heartbeat after one interval (B47), no failures (B344)."""
        session = Session(client_id, now_ns)
        self.sessions[client_id] = session
        self._schedule(session, now_ns + self.interval_ns)

    def stop(self, client_id: str) -> None:
        """The client is gone."""
        self.sessions.pop(client_id, None)

    def take_due(self, now_ns: int) -> list[Session]:
        """Sessions to send a heartbeat to; they wait until `answered` or `failed`."""
        due: list[Session] = []
        while self._heap and self._heap[0][0] <= now_ns:
            due_ns, client_id = heapq.heappop(self._heap)
            session = self.sessions.get(client_id)
            if session is not None and not session.is_waiting and session.due_ns == due_ns:
                session.is_waiting = True
                due.append(session)
        return due

    def answered(self, session: Session, now_ns: int) -> None:
        """One success resets the count (B342)."""
        session.is_waiting = False
        session.failures = 0
        self._schedule(session, now_ns + self.interval_ns)

    def failed(self, session: Session, now_ns: int) -> bool:
        """No answer in time; True when the client must be closed: failures in a row exceed the fail count (B341)."""
        session.is_waiting = False
        session.failures += 1
        if session.failures > self.fail_count:
            return True
        self._schedule(session, now_ns + self.interval_ns)
        return False

    def hasten(self, client_id: str, due_ns: int) -> bool:
        """A valid ping of a client with failures: its next heartbeat is due at `due_ns` (B74). True if that is sooner."""
        session = self.sessions.get(client_id)
        if session is None or not session.failures or session.is_waiting or session.due_ns <= due_ns:
            return False
        self._schedule(session, due_ns)
        return True

    def is_failing(self, client_id: str) -> bool:
        """True with at least one failure in a row."""
        session = self.sessions.get(client_id)
        return session is not None and session.failures > 0

    @property
    def next_due_ns(self) -> int | None:
        """Time of the earliest heap entry; it may be stale."""
        return self._heap[0][0] if self._heap else None

    def _schedule(self, session: Session, due_ns: int) -> None:
        session.due_ns = due_ns
        heapq.heappush(self._heap, (due_ns, session.client_id))
