"""Requests of the server to clients: heartbeats and probes, answered on one wildcard inbox."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from server import hot
from server.outbox import Outbox

Answered = Callable[[bytes | None], None]
"""Called once: with the payload of the first answer, or None when nobody answered in time or nobody listens."""


@dataclass(slots=True)
class _Open:
    """A request that is not answered yet."""

    timeout_s: float
    answered: Answered
    timer: asyncio.TimerHandle | None = None


def _always() -> bool:
    return True


@dataclass(slots=True)
class Requests:
    """Open requests by reply subject. The inbox is new at every start: answers to an earlier leadership go nowhere."""

    outbox: Outbox
    loop: asyncio.AbstractEventLoop
    confirm: Callable[[], bool] = _always
    """Whether this node may speak (B401). What it does at a no includes `hold`."""
    inbox_prefix: str = field(default_factory=lambda: f"_INBOX.{secrets.token_hex(11)}")
    _open: dict[bytes, _Open] = field(default_factory=dict)
    _count: int = 0
    _is_held: bool = False

    @property
    def subject(self) -> str:
        """The NATS subscription that receives all answers."""
        return f"{self.inbox_prefix}.*"

    def send(self, subject: str, payload: bytes, timeout_s: float, answered: Answered) -> None:
        """Send a request; `answered` is called once, at the latest after `timeout_s`."""
        self._count += 1
        reply = f"{self.inbox_prefix}.{self._count}".encode()
        self._open[reply] = request = _Open(timeout_s, answered)
        self._start_timer(reply, request)
        self.outbox.send(subject, payload, reply)

    def handle(self, message: hot.Message) -> None:
        """An answer arrived; a "no responders" status of NATS counts as none (B51)."""
        request = self._open.pop(message.subject, None)
        if request is not None:
            _stop_timer(request)
            is_status = message.headers.startswith(b"NATS/1.0 503") and not message.payload
            request.answered(None if is_status else message.payload)

    def hold(self) -> None:
        """Nothing is read for now: no request times out (B401)."""
        self._is_held = True
        for request in self._open.values():
            _stop_timer(request)

    def release(self) -> None:
        """Every open request has its whole time again: its answer may lie unread in our socket."""
        self._is_held = False
        for reply, request in self._open.items():
            self._start_timer(reply, request)

    def cancel_all(self) -> None:
        """Leadership is lost: nobody waits for answers any more."""
        for request in self._open.values():
            _stop_timer(request)
        self._open.clear()

    def _start_timer(self, reply: bytes, request: _Open) -> None:
        if not self._is_held:
            request.timer = self.loop.call_later(request.timeout_s, self._expired, reply)

    def _expired(self, reply: bytes) -> None:
        if self.confirm():
            self._open.pop(reply).answered(None)


def _stop_timer(request: _Open) -> None:
    if request.timer is not None:
        request.timer.cancel()
        request.timer = None
