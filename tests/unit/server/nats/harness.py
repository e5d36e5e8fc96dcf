"""A NATS server whose every byte is the test's choice, and a recorder of what a connection reports."""

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Self

from server.nats.connection import NatsConnection
from server.nats.dial import Security
from tests.support.ports import HOST

DEADLINE_S = 20.0


class Changes:
    """Lets a test wait until something is true, looking whenever something changed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Something changed."""
        self._changed.set()

    async def until(self, condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
        """Return when `condition` is true; raises TimeoutError."""
        async with asyncio.timeout(deadline_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Session:
    """One client of the fake server, after its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, changes: Changes) -> None:
        self.reader = reader
        self.writer = writer
        self.connect_options: dict[str, object] = {}
        self.received = b""
        self.answers_pings = True
        self.reads = asyncio.Event()
        self.reads.set()
        self._changes = changes

    def send(self, data: bytes) -> None:
        """Bytes to the client."""
        self.writer.write(data)

    def close(self) -> None:
        """End the connection."""
        self.writer.close()

    async def serve(self) -> None:
        """Record what the client sends, answer its pings."""
        while data := await self.reader.read(1 << 20):
            self.received += data
            if self.answers_pings:
                self.writer.write(b"PONG\r\n" * data.count(b"PING\r\n"))
            self._changes.tell()
            await self.reads.wait()


class FakeNats:
    """Accepts clients on a free port. `info` is announced; `after_pong` follows the PONG of the handshake at once."""

    def __init__(self) -> None:
        self.info: dict[str, object] = {"max_payload": 1048576, "headers": True}
        self.greeting: bytes | None = None
        self.pong = b"PONG\r\n"
        self.after_pong = b""
        self.answers_pings = True
        self.closes_after_pong = False
        self.sessions: list[Session] = []
        self.changes = Changes()
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for session in self.sessions:
            session.reads.set()
            session.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DEADLINE_S)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"nats://{HOST}:{self.port}"

    async def session(self, number: int) -> Session:
        """The client that came as number `number`, from 0."""
        await self.changes.until(lambda: len(self.sessions) > number)
        return self.sessions[number]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        try:
            session = Session(reader, writer, self.changes)
            session.answers_pings = self.answers_pings
            writer.write(
                b"INFO " + json.dumps(self.info).encode() + b"\r\n" if self.greeting is None else self.greeting
            )
            line = await reader.readline()
            if not line:
                return
            session.connect_options = json.loads(line.removeprefix(b"CONNECT "))
            await reader.readuntil(b"PING\r\n")
            writer.write(self.pong + self.after_pong)
            self.sessions.append(session)
            self.changes.tell()
            if not self.closes_after_pong:
                await session.serve()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away: that is its right
        finally:
            writer.close()


class Recorder:
    """A connection under test with a small parser, and everything that it reports, in order."""

    def __init__(
        self,
        *servers: str,
        security: Security | None = None,
        on_connected: Callable[[NatsConnection], None] | None = None,
    ) -> None:
        self.events: list[str] = []
        self.messages: list[tuple[bytes, bytes]] = []
        self.failures: list[Exception] = []
        self.changes = Changes()
        self._on_connected = on_connected
        self._rest = b""
        self.connection = NatsConnection(
            name="_NSS-test-general",
            servers=servers,
            on_data=self._data,
            on_connected=self._connected,
            on_disconnected=lambda reason: self._event(f"disconnected: {reason}"),
            on_closed=lambda reason: self._event(f"closed: {reason}"),
            on_writable=lambda: self._event("writable"),
            security=security,
        )

    async def __aenter__(self) -> NatsConnection:
        await self.connection.connect()
        return self.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.close()

    async def until(self, condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
        """Return when `condition` is true; raises TimeoutError."""
        await self.changes.until(condition, deadline_s)

    async def reconnected(self, times: int = 1) -> None:
        """Return when the connection came back `times` times."""
        await self.until(lambda: self.events.count("connected") > times)

    def _event(self, text: str) -> None:
        self.events.append(text)
        self.changes.tell()

    def _connected(self) -> None:
        self._rest = b""
        self._event("connected")
        if self._on_connected is not None:
            self._on_connected(self.connection)

    def _data(self, data: bytes) -> None:
        if self.failures:
            raise self.failures.pop()
        self._rest += data
        while b"\r\n" in self._rest:
            line, _, rest = self._rest.partition(b"\r\n")
            if line.startswith((b"MSG ", b"HMSG ")):
                size = int(line.split()[-1])
                if len(rest) < size + 2:
                    break
                self.messages.append((line, rest[:size]))
                rest = rest[size + 2 :]
            else:
                self.connection.on_control(line)
            self._rest = rest
        self.changes.tell()
