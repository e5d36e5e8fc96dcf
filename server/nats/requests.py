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
class Requests:
    """Open requests by token. The inbox is new at every start: answers to an earlier process go nowhere."""

    outbox: Outbox
    loop: asyncio.AbstractEventLoop
    inbox_prefix: str = field(default_factory=lambda: f"_INBOX.{secrets.token_hex(11)}")
    _open: dict[bytes, tuple[asyncio.TimerHandle, Answered]] = field(default_factory=dict)
    _count: int = 0

    @property
    def subject(self) -> str:
        """The NATS subscription that receives all answers."""
        return f"{self.inbox_prefix}.*"

    def send(self, subject: str, payload: bytes, timeout_s: float, answered: Answered) -> None:
        """Send a request; `answered` is called once, at the latest after `timeout_s`."""
        self._count += 1
        reply = f"{self.inbox_prefix}.{self._count}".encode()
        self._open[reply] = (self.loop.call_later(timeout_s, self._expired, reply), answered)
        self.outbox.send(subject, payload, reply)

    def handle(self, message: hot.Message) -> None:
        """An answer arrived; a "no responders" status of NATS counts as none (B51)."""
        found = self._open.pop(message.subject, None)
        if found is not None:
            timer, answered = found
            timer.cancel()
            is_status = message.headers.startswith(b"NATS/1.0 503") and not message.payload
            answered(None if is_status else message.payload)

    def cancel_all(self) -> None:
        """Leadership is lost: nobody waits for answers any more."""
        for timer, _ in self._open.values():
            timer.cancel()
        self._open.clear()

    def _expired(self, reply: bytes) -> None:
        _, answered = self._open.pop(reply)
        answered(None)
