"""The connection on which a node talks with the other nodes: Raft's messages, and requests about members.

It is not the clients' connection: reading from that one is paused when publishers are too fast, or while this node is not
sure to lead, and just then the other nodes must be heard.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from server import hot
from server.cluster.subjects import RaftSubjects
from server.nats.connection import NatsConnection
from server.nats.dial import Security

logger = logging.getLogger(__name__)

FLUSH_BYTES: Final = 1024 * 1024
"""What waits to be written is written at this size, bytes, without waiting for the end of the turn."""

PAYLOAD_RESERVE_BYTES: Final = 1024
"""Kept free below NATS's largest payload."""

Handler = Callable[[bytes, bytes], None]
"""Payload and reply subject, which may be empty."""


class RaftConnection:
    """Carries payloads to nodes by id.

    `on_payloads` gets those for this node, all that came with one read; `on_restart` is told of every new connection.
    """

    def __init__(
        self,
        *,
        subjects: RaftSubjects,
        node_id: str,
        servers: Sequence[str],
        security: Security,
        follows_announced: bool,
        on_payloads: Callable[[list[bytes]], None],
        on_restart: Callable[[], None],
        on_closed: Callable[[str], None],
    ) -> None:
        self.subjects = subjects
        self._node_id = node_id
        self._on_payloads = on_payloads
        self._payloads: list[bytes] = []
        self._on_restart = on_restart
        self._handlers: dict[int, Handler] = {}
        self._answers: dict[bytes, asyncio.Future[bytes | None]] = {}
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._requests = 0
        self._parts: list[bytes | memoryview] = []
        self._bytes = 0
        self._lines: dict[str, bytes] = {}
        self._core = hot.Core(hot.admit_nothing, self._handle, 0)
        self._connection = NatsConnection(
            name=f"_NSS-{subjects.cluster_id}-raft",
            servers=servers,
            on_data=self._received,
            on_connected=self._connected,
            on_disconnected=lambda _reason: self._restarted(),
            on_closed=on_closed,
            on_writable=lambda: None,
            security=security,
            follows_announced=follows_announced,
        )

    async def connect(self) -> None:
        """Connect for the first time; raises NatsUnavailableError."""
        self.listen(self.subjects.node(self._node_id), lambda payload, _reply: self._payloads.append(payload))
        self.listen(f"{self._inbox}.*", lambda _payload, _reply: None)
        await self._connection.connect()

    async def close(self) -> None:
        """Write what waits, and end."""
        self.flush()
        await self._connection.close()

    # ---- the carrier of Raft

    @property
    def max_bytes(self) -> int:
        """Largest payload."""
        return self._connection.max_payload - PAYLOAD_RESERVE_BYTES

    def send(self, node_id: str, parts: Sequence[bytes | memoryview]) -> None:
        """Have a payload made of `parts` sent to a node with the next `flush`."""
        line = self._lines.get(node_id)
        if line is None:
            line = self._lines[node_id] = b"PUB %b " % self.subjects.node(node_id).encode()
        size = sum(map(len, parts))
        self._parts += (line, b"%d\r\n" % size, *parts, b"\r\n")
        self._bytes += size
        if self._bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """One write of everything collected. What NATS is not there for is lost, as on any network."""
        if self._parts:
            parts, self._parts, self._bytes = self._parts, [], 0
            self._connection.write(parts)

    # ---- requests

    def listen(self, subject: str, handler: Handler) -> int:
        """Have messages on `subject` handled; the id for `unlisten`."""
        sid = self._connection.subscribe(subject)
        self._handlers[sid] = handler
        return sid

    def unlisten(self, sid: int) -> None:
        """Handle them no more."""
        del self._handlers[sid]
        self._connection.unsubscribe(sid)

    def publish(self, subject: str | bytes, payload: bytes) -> None:
        """Send `payload` on `subject` now; nothing happens for an empty one."""
        target = subject.encode() if isinstance(subject, str) else subject
        if target:
            self._connection.write((b"PUB %b %d\r\n" % (target, len(payload)), payload, b"\r\n"))

    async def request(
        self, subject: str, payload: bytes, timeout_s: float, *, on_nobody: Callable[[], None] = lambda: None
    ) -> bytes | None:
        """The first answer; None when nobody answered in time or nobody listens, which `on_nobody` is told."""
        self._requests += 1
        reply = f"{self._inbox}.{self._requests}".encode()
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._answers[reply] = answer
        try:
            async with asyncio.timeout(timeout_s):
                self._connection.write(
                    (b"PUB %b %b %d\r\n" % (subject.encode(), reply, len(payload)), payload, b"\r\n")
                )
                found = await answer
        except TimeoutError:
            return None
        else:
            if found is None:
                on_nobody()
            return found
        finally:
            del self._answers[reply]

    # ---- what comes

    def _received(self, data: bytes) -> None:
        core = self._core
        core.feed(data, 0)
        if core.control:
            lines, core.control = core.control, []
            for line in lines:
                self._connection.on_control(line)
        if self._payloads:
            payloads, self._payloads = self._payloads, []
            self._on_payloads(payloads)

    def _handle(self, message: hot.Message) -> None:
        answer = self._answers.get(message.subject)
        if answer is not None:
            if not answer.done():
                is_nobody = message.headers.startswith(b"NATS/1.0 503") and not message.payload
                answer.set_result(None if is_nobody else message.payload)
            return
        handler = self._handlers.get(message.sid)
        if handler is not None:
            handler(message.payload, message.reply)

    def _connected(self) -> None:
        self._core.reset_connection()
        self._payloads.clear()
        self._restarted()

    def _restarted(self) -> None:
        self._parts.clear()
        self._bytes = 0
        self._on_restart()
