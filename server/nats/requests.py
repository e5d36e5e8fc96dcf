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
    timer: asyncio.TimerHandle


def _always() -> bool:
    return True


@dataclass(slots=True)
class Requests:
    """Open requests by reply subject. The inbox is new at every start: answers to an earlier leadership go nowhere."""

    outbox: Outbox
    loop: asyncio.AbstractEventLoop
    confirm: Callable[[], bool] = _always
    """Whether this node may speak (B401); `release` follows a no."""
    inbox_prefix: str = field(default_factory=lambda: f"_INBOX.{secrets.token_hex(11)}")
    _open: dict[bytes, _Open] = field(default_factory=dict)
    _count: int = 0

    @property
    def subject(self) -> str:
        """The NATS subscription that receives all answers."""
        return f"{self.inbox_prefix}.*"

    def send(self, subject: str, payload: bytes, timeout_s: float, answered: Answered) -> None:
        """Send a request; `answered` is called once, at the latest after `timeout_s`."""
        self._count += 1
        reply = f"{self.inbox_prefix}.{self._count}".encode()
        self._open[reply] = _Open(timeout_s, answered, self.loop.call_later(timeout_s, self._expired, reply))
        self.outbox.send(subject, payload, reply)

    def handle(self, message: hot.Message) -> None:
        """An answer arrived; a "no responders" status of NATS counts as none (B51)."""
        request = self._open.pop(message.subject, None)
        if request is not None:
            request.timer.cancel()
            is_status = message.headers.startswith(b"NATS/1.0 503") and not message.payload
            request.answered(None if is_status else message.payload)

    def release(self) -> None:
        """This node was silent, and read nothing: every open request has its whole time again, as its answer may lie unread."""
        for reply, request in self._open.items():
            request.timer.cancel()
            request.timer = self.loop.call_later(request.timeout_s, self._expired, reply)

    def cancel_all(self) -> None:
        """Leadership is lost: nobody waits for answers any more."""
        for request in self._open.values():
            request.timer.cancel()
        self._open.clear()

    def _expired(self, reply: bytes) -> None:
        if self.confirm():
            self._open.pop(reply).answered(None)
