"""Covers server/nats/dial.py; TLS and logins against a real server are in tests/integration/test_nats_connection.py."""

import asyncio

import pytest

from server.nats.address import Address, Login, parse
from server.nats.dial import NO_TLS, DialError, Security, dial
from tests.support.ports import HOST, free_port
from tests.unit.server.nats.harness import FakeNats


class Received(asyncio.Protocol):
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


@pytest.mark.asyncio
async def test_connect_announces_what_we_need() -> None:
    """B51: headers and no-responders are asked for; the name is ours (O242); nothing verbose; echo on."""
    async with FakeNats() as server:
        dialled = await dial(parse(server.url), "_NSS-test-general", Security())
        options = (await server.session(0)).connect_options
        await dialled.close()
    assert options["headers"] is True
    assert options["no_responders"] is True
    assert options["name"] == "_NSS-test-general"
    assert options["verbose"] is False
    assert options["pedantic"] is False
    assert options["echo"] is True
    assert "user" not in options


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("url_login", "configured", "expected"),
    [
        ("", Login(user="u", password="p"), {"user": "u", "pass": "p"}),
        ("", Login(user="u"), {"user": "u", "pass": ""}),
        ("", Login(token="t"), {"auth_token": "t"}),
        ("a%40:b%3A@", Login(user="u", password="p"), {"user": "a@", "pass": "b:"}),
        ("tok@", Login(user="u", password="p"), {"auth_token": "tok"}),
    ],
)
async def test_login_of_the_url_goes_before_the_configured_one(
    url_login: str, configured: Login, expected: dict[str, str]
) -> None:
    """O245: a user alone counts as one with an empty password (O94); a login in a URL is meant for that server."""
    async with FakeNats() as server:
        server.info["auth_required"] = True
        address = parse(f"nats://{url_login}{HOST}:{server.port}")
        dialled = await dial(address, "n", Security(login=configured))
        options = (await server.session(0)).connect_options
        await dialled.close()
    assert {key: options[key] for key in ("user", "pass", "auth_token") if key in options} == expected


@pytest.mark.asyncio
async def test_bytes_behind_the_pong_are_handed_over() -> None:
    """nats-server sends an INFO right behind the first PONG: what the library had read already must not be lost."""
    async with FakeNats() as server:
        server.after_pong = b"INFO {}\r\nMSG a 1 2\r\nh"
        dialled = await dial(parse(server.url), "n", Security())
        received = Received()
        rest = await dialled.take_over(received)
        (await server.session(0)).send(b"i\r\n")
        (await server.session(0)).close()
        await asyncio.wait_for(received.lost, 10)
        await dialled.close()
    assert rest + received.data == b"INFO {}\r\nMSG a 1 2\r\nhi\r\n"


@pytest.mark.asyncio
async def test_nobody_listening_is_a_refusal() -> None:
    """The caller can tell a server that is not there from one that does not want us (O241)."""
    with pytest.raises(DialError) as caught:
        await dial(Address(HOST, free_port()), "n", Security())
    assert caught.value.is_refused


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("greeting", "pong", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", b"", "expecting INFO"),
        (b"INFO nonsense\r\n", b"", "json parse error"),
        (b"INFO " + b"x" * 200_000, b"", "limit"),
        (b"INFO {}\r\n", b"-ERR 'Authorization Violation'\r\n", "nats: Authorization Violation"),
        (b"INFO {}\r\n", b"+OK\r\n", "did not answer PING"),
    ],
)
async def test_broken_handshake_fails_the_attempt(greeting: bytes, pong: bytes, reason: str) -> None:
    """Whatever a server does wrong before the PONG ends this attempt only, with a reason."""
    async with FakeNats() as server:
        server.greeting, server.pong = greeting, pong
        with pytest.raises(DialError) as caught:
            await dial(parse(server.url), "n", Security())
    assert reason in str(caught.value)
    assert not caught.value.is_refused


@pytest.mark.asyncio
@pytest.mark.parametrize(("scheme", "required"), [("tls", False), ("nats", True)])
async def test_demanded_tls_is_not_given_up(scheme: str, required: bool) -> None:
    """O73: a server without TLS is refused before any login is sent."""
    async with FakeNats() as server:
        address = parse(f"{scheme}://bob:secret@{HOST}:{server.port}")
        with pytest.raises(DialError) as caught:
            await dial(address, "n", Security(tls_required=required))
        assert server.sessions == []
    assert str(caught.value) == NO_TLS


@pytest.mark.asyncio
async def test_cancelled_attempt_leaves_nothing() -> None:
    """A shutdown in the middle of a handshake closes the socket and ends the library's tasks."""
    async with FakeNats() as server:
        server.greeting = b""
        attempt = asyncio.create_task(dial(parse(server.url), "n", Security()))
        while not asyncio.all_tasks() - {asyncio.current_task(), attempt}:
            await asyncio.sleep(0)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
