"""Sends heartbeats to clients when they are due and reports those that failed too often."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from server.nats.requests import Requests
from server.sessions.heartbeat import Heartbeats, Session
from store.machine.state import State

HASTENED_NS: Final = 1_000_000
"""Delay of the heartbeat after a ping of a client with failures, ns. Source: B74."""


@dataclass(slots=True)
class Prober:
    """One timer for all clients, at the earliest heartbeat due."""

    heartbeats: Heartbeats
    state: State
    requests: Requests
    loop: asyncio.AbstractEventLoop
    monotonic_ns: Callable[[], int]
    timeout_s: float
    on_timed_out: Callable[[str], None]
    confirm: Callable[[], bool]
    """Whether this node may speak (B401); `release` follows a no."""
    _timer: asyncio.TimerHandle | None = None
    _timer_due_ns: int = 0
    _is_paused: bool = False

    def recover(self) -> None:
        """Leadership began: every client starts anew (B344)."""
        for client_id in self.state.clients:
            self.heartbeats.start(client_id, self.monotonic_ns())
        self._arm()

    def start(self, client_id: str) -> None:
        """A client is registered."""
        self.heartbeats.start(client_id, self.monotonic_ns())
        self._arm()

    def stop(self, client_id: str) -> None:
        """A client is gone."""
        self.heartbeats.stop(client_id)

    def hasten(self, client_id: str) -> None:
        """A client with failures pinged (B74)."""
        if self.heartbeats.hasten(client_id, self.monotonic_ns() + HASTENED_NS):
            self._arm()

    def is_failing(self, client_id: str) -> bool:
        """True with at least one failed heartbeat in a row (B268)."""
        return self.heartbeats.is_failing(client_id)

    def pause(self) -> None:
        """Send no more heartbeats; who is failing stays known: the last deliveries of an orderly stop look at it (B305)."""
        self._is_paused = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def release(self) -> None:
        """Heartbeats that fell due while this node was silent are sent now: they are not late for anyone who waits for them."""
        self._arm()

    def stop_all(self) -> None:
        """Leadership is lost (B396)."""
        self.pause()
        self.heartbeats.sessions.clear()

    def _fire(self) -> None:
        self._timer = None
        if not self.confirm():
            return
        for session in self.heartbeats.take_due(self.monotonic_ns()):
            client = self.state.clients[session.client_id]
            self.requests.send(client.heartbeat_inbox, b"", self.timeout_s, self._finisher(session))
        self._arm()

    def _finisher(self, session: Session) -> Callable[[bytes | None], None]:
        return lambda answer: self._finished(session, answer)

    def _finished(self, session: Session, answer: bytes | None) -> None:
        if self.heartbeats.sessions.get(session.client_id) is not session:
            return  # closed or replaced meanwhile
        if answer is not None:
            self.heartbeats.answered(session, self.monotonic_ns())
        elif self.heartbeats.failed(session, self.monotonic_ns()):
            self.on_timed_out(session.client_id)
            return
        self._arm()

    def _arm(self) -> None:
        due_ns = self.heartbeats.next_due_ns
        if self._is_paused or due_ns is None or (self._timer is not None and self._timer_due_ns <= due_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_ns = due_ns
        self._timer = self.loop.call_later(max(due_ns - self.monotonic_ns(), 0) / 1e9, self._fire)
