"""Covers server/nats/wire.py with a real socket pair as transport."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from server.errors import ProtocolError
from server.nats.wire import Wire


class Owner:
    """Records what the wire tells."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def writing_paused(self) -> None:
        self.events.append("paused")

    def writing_resumed(self) -> None:
        self.events.append("resumed")

    def transport_lost(self, reason: str) -> None:
        self.lost.set_result(reason)


class Parser:
    """Keeps data; raises what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.data: list[bytes] = []
        self.error = error

    def feed(self, data: bytes) -> None:
        self.data.append(data)
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def wired(parser: Parser) -> AsyncIterator[tuple[Wire, Owner, socket.socket]]:
    """A wire on one end of a socket pair, its owner, and the other end."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    owner = Owner()
    wire = Wire(transport, parser.feed, owner)
    transport.set_protocol(wire)
    try:
        yield wire, owner, theirs
    finally:
        transport.abort()
        theirs.close()
        await asyncio.wait_for(owner.lost, 10)


@pytest.mark.asyncio
async def test_end_of_the_server_is_told_with_a_reason() -> None:
    """What arrived is handed on unparsed before the end is told."""
    parser = Parser()
    async with wired(parser) as (wire, owner, theirs):
        theirs.send(b"PING\r\nMS")
        theirs.shutdown(socket.SHUT_WR)
        assert await asyncio.wait_for(owner.lost, 10) == "EOF"
    assert b"".join(parser.data) == b"PING\r\nMS"
    assert wire.heard


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "logged", "has_traceback"),
    [
        (ProtocolError("unknown line", line=b"HELO x"), "b'HELO x'", False),
        (KeyError("bug"), "reading from the NATS server failed", True),
    ],
)
async def test_failing_parser_ends_the_transport_and_is_logged(
    error: Exception, logged: str, has_traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception never reaches the event loop; the line, or the traceback of a bug, is in the log."""
    parser = Parser(error)
    async with wired(parser) as (_, owner, theirs):
        theirs.send(b"x")
        reason = await asyncio.wait_for(owner.lost, 10)
    assert str(error) in reason
    (record,) = caplog.records
    assert logged in record.getMessage()
    assert (record.exc_info is not None) is has_traceback


@pytest.mark.asyncio
async def test_nothing_is_parsed_after_an_abort() -> None:
    """TLS may hand over what it had decrypted: a parser that failed must not see more."""
    parser = Parser()
    async with wired(parser) as (wire, _, _):
        wire.abort("first")
        wire.data_received(b"late")
    assert parser.data == []


@pytest.mark.asyncio
async def test_first_reason_wins() -> None:
    """The cause is told, not its consequences."""
    async with wired(Parser()) as (wire, owner, _):
        wire.abort("cause")
        wire.abort("consequence")
        assert await asyncio.wait_for(owner.lost, 10) == "cause"


@pytest.mark.asyncio
async def test_full_write_buffer_is_told() -> None:
    """Pause and resume of writing reach the owner, in this order."""
    async with wired(Parser()) as (wire, owner, theirs):
        transport = wire._transport
        transport.set_write_buffer_limits(high=1024)
        payload = b"x" * (4 << 20)
        transport.write(payload)
        assert owner.events == ["paused"]
        missing = len(payload)
        loop = asyncio.get_running_loop()
        while missing:
            missing -= len(await asyncio.wait_for(loop.sock_recv(theirs, 1 << 20), 10))
        assert owner.events == ["paused", "resumed"]
