"""Collects what one turn of the event loop sends, and hands it to the connection in one write."""

import asyncio
from collections.abc import Callable, Sequence


class Outbox:
    """Frames of the current turn. Whoever ends a turn calls `flush`; a turn nobody ends is flushed by the loop.

    What is flushed while NATS is away is dropped by the connection (B236).
    """

    __slots__ = ("_loop", "_scheduled", "_write", "parts")

    def __init__(self, write: Callable[[Sequence[bytes]], object], loop: asyncio.AbstractEventLoop) -> None:
        self._write = write
        self._loop = loop
        self._scheduled = False
        self.parts: list[bytes] = []

    def send(self, subject: str | bytes, payload: bytes, reply: bytes = b"") -> None:
        """Publish `payload`; nothing happens for an empty subject (a request without reply, B18)."""
        if not subject:
            return
        target = subject.encode() if isinstance(subject, str) else subject
        head = (
            b"PUB %b %b %d\r\n" % (target, reply, len(payload)) if reply else b"PUB %b %d\r\n" % (target, len(payload))
        )
        self.parts += (head, payload, b"\r\n")
        self.wake()

    def wake(self) -> None:
        """Make sure that what is in `parts` leaves in this or the next turn."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn_ended)

    def take(self) -> list[bytes]:
        """Everything collected, which is not written then."""
        parts, self.parts = self.parts, []
        return parts

    def flush(self) -> None:
        """One write of everything collected."""
        if self.parts:
            self._write(self.take())

    def _turn_ended(self) -> None:
        self._scheduled = False
        self.flush()
