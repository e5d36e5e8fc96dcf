"""A plain NATS connection on asyncio streams: every byte of a request is the test's own choice.

Not a client library: no reconnect, no TLS. It asks for headers and no-responders as current clients do.
"""

import asyncio
import itertools
import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.ports import HOST

DEFAULT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class NatsMessage:
    """One received message; `headers` is the raw header block, empty when there is none."""

    subject: str
    reply: str
    data: bytes
    headers: bytes = b""

    @property
    def is_no_responders(self) -> bool:
        """Whether the NATS server says that nobody listens on the requested subject."""
        return self.headers.startswith(b"NATS/1.0 503")


class NoRespondersError(Exception):
    """Nobody listens on `subject`."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"no responders on {subject!r}")
        self.subject = subject


class ConnectionLostError(Exception):
    """The NATS server closed the connection; `reason` is its last -ERR, if any."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"connection to the NATS server lost: {reason or 'end of stream'}")
        self.reason = reason


Handler = Callable[[NatsMessage], None]


class RawNats:
    """One connection; handlers of subscriptions run in the reading task, in order of arrival.

    Await `connect`, then use as an async context manager or await `close`.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._handlers: dict[str, Handler] = {}
        self._ids = itertools.count(1)
        self._pongs: list[asyncio.Future[None]] = []
        self._requests: dict[str, asyncio.Future[NatsMessage]] = {}
        self._inbox_prefix = f"_INBOX.{secrets.token_hex(11)}"
        self._reading: asyncio.Task[None] | None = None
        self._last_error = ""
        self.errors: list[str] = []
        self.server_info: dict[str, object] = {}

    @classmethod
    async def connect(cls, url_or_port: str | int, *, timeout_s: float = DEFAULT_TIMEOUT_S, name: str = "raw") -> Self:
        """Connects to `nats://host:port` or to a loopback port and waits for the first PONG."""
        host, port = HOST, url_or_port
        if isinstance(url_or_port, str):
            host, _, text = url_or_port.removeprefix("nats://").rpartition(":")
            port = int(text)
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
            connection = cls(reader, writer)
            info = await reader.readline()
            connection.server_info = json.loads(info.removeprefix(b"INFO "))
            options = {
                "verbose": False,
                "pedantic": False,
                "lang": "raw",
                "version": "1",
                "name": name,
                "protocol": 1,
                "headers": True,
                "no_responders": True,
            }
            writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
            connection._reading = asyncio.create_task(connection._read())
            connection.subscribe(f"{connection._inbox_prefix}.*", connection._answer)
            await connection.flush()
        return connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_lost(self) -> bool:
        """Whether the connection ended."""
        return self._reading is None or self._reading.done()

    async def wait_lost(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Returns when the NATS server has closed the connection and all it sent before was handled."""
        if self._reading is not None:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._reading)

    def new_inbox(self) -> str:
        """A fresh subject below _INBOX."""
        return f"_INBOX.{secrets.token_hex(11)}"

    def write(self, data: bytes) -> None:
        """Sends bytes as they are, without looking at them; on a lost connection they are dropped like on a dead line."""
        if not self._writer.is_closing():
            self._writer.write(data)

    def publish(self, subject: str, data: bytes = b"", *, reply: str = "") -> None:
        """Sends one message; it is on the wire after the next `flush`."""
        head = f"PUB {subject} {reply} {len(data)}\r\n" if reply else f"PUB {subject} {len(data)}\r\n"
        self.write(head.encode() + data + b"\r\n")

    def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> str:
        """Calls `handler` for each message; the subscription id is returned for `unsubscribe`."""
        sid = str(next(self._ids))
        self._handlers[sid] = handler
        self.write(f"SUB {subject} {queue + ' ' if queue else ''}{sid}\r\n".encode())
        return sid

    def unsubscribe(self, sid: str) -> None:
        """Ends a subscription; messages under way are dropped."""
        self._handlers.pop(sid, None)
        self.write(f"UNSUB {sid}\r\n".encode())

    async def flush(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Returns when the NATS server has processed all that was sent before."""
        if self.is_lost:
            raise ConnectionLostError(self._last_error)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(waiter)
        self.write(b"PING\r\n")
        async with asyncio.timeout(timeout_s):
            await waiter

    async def request(self, subject: str, data: bytes = b"", *, timeout_s: float = DEFAULT_TIMEOUT_S) -> NatsMessage:
        """The first answer; raises TimeoutError, NoRespondersError or ConnectionLostError."""
        if self.is_lost:
            raise ConnectionLostError(self._last_error)
        inbox = f"{self._inbox_prefix}.{next(self._ids)}"
        waiter: asyncio.Future[NatsMessage] = asyncio.get_running_loop().create_future()
        self._requests[inbox] = waiter
        try:
            self.publish(subject, data, reply=inbox)
            async with asyncio.timeout(timeout_s):
                message = await waiter
        finally:
            del self._requests[inbox]
        if message.is_no_responders:
            raise NoRespondersError(subject)
        return message

    async def close(self) -> None:
        """Ends the connection; waiting calls get ConnectionLostError."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _answer(self, message: NatsMessage) -> None:
        waiter = self._requests.get(message.subject)
        if waiter is not None and not waiter.done():
            waiter.set_result(message)

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                await self._handle(line)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._last_error = self._last_error or str(error)
        finally:
            lost = ConnectionLostError(self._last_error)
            for pong in self._pongs:
                _fail(pong, lost)
            for request in self._requests.values():
                _fail(request, lost)

    async def _handle(self, line: bytes) -> None:
        verb, _, rest = line.rstrip(b"\r\n").partition(b" ")
        match verb.upper():
            case b"MSG":
                subject, sid, *reply, size = rest.decode().split()
                data = await self._reader.readexactly(int(size) + 2)
                self._dispatch(sid, NatsMessage(subject, reply[0] if reply else "", data[:-2]))
            case b"HMSG":
                subject, sid, *reply, head_size, size = rest.decode().split()
                data = await self._reader.readexactly(int(size) + 2)
                head = int(head_size)
                self._dispatch(sid, NatsMessage(subject, reply[0] if reply else "", data[head:-2], data[:head]))
            case b"PING":
                self.write(b"PONG\r\n")
            case b"PONG":
                waiter = self._pongs.pop(0)
                if not waiter.done():
                    waiter.set_result(None)
            case b"-ERR":
                self._last_error = rest.decode().strip("'")
                self.errors.append(self._last_error)
            case b"INFO":
                self.server_info = json.loads(rest)
            case _:
                raise ValueError(f"unexpected line from the NATS server: {line!r}")

    def _dispatch(self, sid: str, message: NatsMessage) -> None:
        handler = self._handlers.get(sid)
        if handler is not None:
            handler(message)


def _fail(waiter: asyncio.Future[None] | asyncio.Future[NatsMessage], error: ConnectionLostError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
        waiter.exception()  # a waiter that was given up meanwhile must not be reported as never retrieved
