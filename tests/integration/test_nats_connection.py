"""Covers server/nats/connection.py and dial.py with a real NATS server: what the fake one cannot vouch for."""

import asyncio
import json
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from server.errors import NatsUnavailableError
from server.nats.address import Address, Login
from server.nats.dial import NO_TLS, DialError, Security, dial
from tests.support.nats_process import NatsProcess
from tests.support.ports import HOST, free_port
from tests.support.raw_nats import NatsMessage, RawNats
from tests.unit.server.nats.harness import Recorder


@pytest.fixture
def nats_server() -> Iterator[NatsProcess]:
    """A NATS server without options."""
    with NatsProcess() as process:
        yield process


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the certificates of this module."""
    return trustme.CA()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's TLS context that trusts `authority` only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def certified(authority: trustme.CA, name: str, folder: Path) -> tuple[str, ...]:
    """Options of a NATS server that demands TLS and has a certificate for `name`."""
    certificate = authority.issue_cert(name)
    key, chain = folder / "key.pem", folder / "chain.pem"
    certificate.private_key_pem.write_to_path(key)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    return ("--tls", "--tlscert", str(chain), "--tlskey", str(key))


@pytest.fixture
def tls_options(authority: trustme.CA, tmp_path: Path) -> tuple[str, ...]:
    """Options of a NATS server that demands TLS, with a certificate for the loopback address."""
    return certified(authority, HOST, tmp_path)


async def connections(port: int) -> list[dict[str, object]]:
    """The connections that the NATS server's monitoring on `port` shows."""

    def ask() -> bytes:
        with urllib.request.urlopen(f"http://{HOST}:{port}/connz", timeout=10) as answer:
            content: bytes = answer.read()
            return content

    found: list[dict[str, object]] = json.loads(await asyncio.to_thread(ask))["connections"]
    return found


async def round_trip(recorder: Recorder) -> None:
    """A message to ourselves arrives."""
    sid = recorder.connection.subscribe("round.trip")
    recorder.connection.write((b"PUB round.trip 2\r\n", b"hi", b"\r\n"))
    await recorder.until(lambda: (b"MSG round.trip %d 2" % sid, b"hi") in recorder.messages)


@pytest.mark.asyncio
async def test_connection_shows_its_name() -> None:
    """O242: an administrator finds us in /connz by the name we gave."""
    http_port = free_port()
    with NatsProcess(options=("-m", str(http_port))) as process:
        recorder = Recorder(process.url)
        async with recorder:
            (shown,) = await connections(http_port)
    assert shown["name"] == "_NSS-test-general"


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [0, 1, 1024 * 1024])
async def test_payload_comes_back_unchanged(nats_server: NatsProcess, size: int) -> None:
    """From nothing to the largest message that NATS takes by default."""
    recorder = Recorder(nats_server.url)
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with recorder as connection:
        assert connection.max_payload == 1024 * 1024
        connection.subscribe("big")
        connection.write((b"PUB big %d\r\n" % size, payload, b"\r\n"))
        await recorder.until(lambda: recorder.messages)
    assert recorder.messages[0][1] == payload


@pytest.mark.asyncio
async def test_restart_replays_subscriptions_before_it_is_told(nats_server: NatsProcess) -> None:
    """What is published in `on_connected` reaches our own subscriptions; B236: nothing written while down ever appears."""
    recorder = Recorder(nats_server.url, on_connected=lambda connection: connection.write((b"PUB up 0\r\n\r\n",)))
    recorder.connection.subscribe("up")
    recorder.connection.subscribe("stale")
    async with recorder as connection:
        await recorder.until(lambda: len(recorder.messages) == 1)
        nats_server.kill()
        await recorder.until(lambda: not connection.is_connected)
        for _ in range(3):
            assert connection.write((b"PUB stale 0\r\n\r\n",)) is False
        await asyncio.to_thread(nats_server.start)
        await recorder.reconnected()
        await recorder.until(lambda: len(recorder.messages) == 2)
        await connection.barrier()
    assert [line for line, _ in recorder.messages] == [b"MSG up 1 0"] * 2
    assert [event.partition(":")[0] for event in recorder.events] == [
        "connected",
        "disconnected",
        "connected",
        "closed",
    ]


@pytest.mark.asyncio
async def test_barrier_makes_a_subscription_known(nats_server: NatsProcess) -> None:
    """After subscribe and barrier another connection's message arrives, every time."""
    recorder = Recorder(nats_server.url)
    async with recorder as connection, await RawNats.connect(nats_server.url) as other:
        for number in range(50):
            connection.subscribe(f"s.{number}")
            await connection.barrier()
            other.publish(f"s.{number}", b"x")
            await recorder.until(lambda number=number: len(recorder.messages) == number + 1)


@pytest.mark.asyncio
async def test_no_responders_comes_raw(nats_server: NatsProcess) -> None:
    """B51: a request that nobody listens to is answered by NATS at once, as an HMSG."""
    recorder = Recorder(nats_server.url)
    async with recorder as connection:
        connection.subscribe("_INBOX.me")
        connection.write((b"PUB nobody _INBOX.me 0\r\n\r\n",))
        await recorder.until(lambda: recorder.messages)
    line, payload = recorder.messages[0]
    assert line.startswith(b"HMSG _INBOX.me 1 ")
    assert payload.startswith(b"NATS/1.0 503")


@pytest.mark.asyncio
async def test_message_above_max_payload_costs_the_connection_once(nats_server: NatsProcess) -> None:
    """NATS ends a connection that sends too much; ours comes back and works."""
    recorder = Recorder(nats_server.url)
    async with recorder as connection:
        size = connection.max_payload + 1
        connection.write((b"PUB big %d\r\n" % size, b"x" * size, b"\r\n"))
        await recorder.reconnected()
        await connection.barrier()
        await round_trip(recorder)


@pytest.mark.asyncio
async def test_permission_violation_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """O244: what the administrator forbade is logged with its subject, and the connection stays."""
    config = tmp_path / "nats.conf"
    permissions = 'permissions { publish { deny: "no.pub" }, subscribe { deny: "no.sub" } }'
    config.write_text(f"authorization {{ users: [ {{ user: u, password: p, {permissions} }} ] }}\n")
    with NatsProcess(options=("-c", str(config))) as process:
        recorder = Recorder(process.url, security=Security(login=Login(user="u", password="p")))
        async with recorder as connection:
            connection.subscribe("no.sub")
            connection.write((b"PUB no.pub 0\r\n\r\n",))
            await connection.barrier()
            await round_trip(recorder)
            assert recorder.events == ["connected"]
    for subject in ("no.sub", "no.pub"):
        assert f"Asynchronous error on connection _NSS-test-general, subject {subject}: " in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("options", "login", "url_login"),
    [
        (("--user", "u", "--pass", "p@:/"), Login(user="u", password="p@:/"), ""),
        (("--user", "u", "--pass", "p@:/"), Login(), "u:p%40%3A%2F@"),
        (("--auth", "tok"), Login(token="tok"), ""),
        (("--auth", "tok"), Login(), "tok@"),
    ],
)
async def test_login_works_and_survives_a_restart(options: tuple[str, ...], login: Login, url_login: str) -> None:
    """O245: user and password or token, from options or from the URL, also at the reconnect."""
    with NatsProcess(options=options) as process:
        recorder = Recorder(f"nats://{url_login}{HOST}:{process.port}", security=Security(login=login))
        async with recorder:
            await round_trip(recorder)
            process.kill()
            await asyncio.to_thread(process.start)
            await recorder.reconnected()
            await round_trip(recorder)


@pytest.mark.asyncio
@pytest.mark.parametrize("login", [Login(), Login(user="u", password="wrong"), Login(token="u")])
async def test_wrong_login_does_not_start(login: Login) -> None:
    """O241: the first connection must succeed; the reason is NATS's."""
    with NatsProcess(options=("--user", "u", "--pass", "p")) as process:
        recorder = Recorder(process.url, security=Security(login=login))
        with pytest.raises(NatsUnavailableError, match=r"^nats: Authorization Violation$"):
            await recorder.connection.connect()


@pytest.mark.asyncio
async def test_revoked_login_is_tried_again_for_ever() -> None:
    """A refused reconnect is no end: when the NATS server takes the login again, the connection is back."""
    port = free_port()
    recorder = Recorder(f"nats://{HOST}:{port}", security=Security(login=Login(user="u", password="p")))
    with NatsProcess(port=port, options=("--user", "u", "--pass", "p")):
        await recorder.connection.connect()
    with NatsProcess(port=port, options=("--user", "u", "--pass", "other")) as process:
        refused = asyncio.to_thread(process._log.wait_for, "authentication error", timeout_s=20.0)
        await refused
        assert not recorder.connection.is_connected
    with NatsProcess(port=port, options=("--user", "u", "--pass", "p")):
        await recorder.reconnected()
        await round_trip(recorder)
        await recorder.connection.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_tls_follows_the_server(authority: trustme.CA, tls_options: tuple[str, ...], scheme: str) -> None:
    """O246: a server that demands TLS gets it whatever the scheme; large messages and reconnects work on it."""
    with NatsProcess(options=tls_options) as process:
        recorder = Recorder(f"{scheme}://{HOST}:{process.port}", security=Security(tls_context=trusting(authority)))
        async with recorder as connection:
            connection.subscribe("big")
            payload = b"x" * connection.max_payload
            connection.write((b"PUB big %d\r\n" % len(payload), payload, b"\r\n"))
            await recorder.until(lambda: recorder.messages)
            assert recorder.messages[0][1] == payload
            process.kill()
            await asyncio.to_thread(process.start)
            await recorder.reconnected()
            await round_trip(recorder)
            connection.write((b"PUB big 1\r\nx\r\n",))
            recorder.failures.append(ZeroDivisionError("bug"))
            await recorder.reconnected(2)
            await connection.barrier()


@pytest.mark.asyncio
async def test_untrusted_certificate_does_not_start(tls_options: tuple[str, ...]) -> None:
    """O246: verification failure is no start, by the system's authorities as by others."""
    with NatsProcess(options=tls_options) as process:
        for security in (Security(), Security(tls_context=trusting(trustme.CA()))):
            recorder = Recorder(process.url, security=security)
            with pytest.raises(NatsUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                await recorder.connection.connect()


@pytest.mark.asyncio
async def test_server_found_by_number_must_have_its_announcers_certificate(
    authority: trustme.CA, tmp_path: Path
) -> None:
    """A cluster announces its servers by number, while their certificates hold names."""
    options = certified(authority, "nats.example", tmp_path)
    security = Security(tls_context=trusting(authority))
    with NatsProcess(options=options) as process:
        await (await dial(Address(HOST, process.port, tls_name="nats.example"), "n", security)).close()
        with pytest.raises(DialError, match="CERTIFICATE_VERIFY_FAILED"):
            await dial(Address(HOST, process.port), "n", security)


@pytest.mark.asyncio
async def test_demanded_tls_refuses_a_plain_server(nats_server: NatsProcess) -> None:
    """O73: the text of the original."""
    recorder = Recorder(nats_server.url, security=Security(tls_required=True))
    with pytest.raises(NatsUnavailableError) as caught:
        await recorder.connection.connect()
    assert str(caught.value) == NO_TLS


@pytest.mark.asyncio
async def test_close_delivers_what_was_written(nats_server: NatsProcess) -> None:
    """A large last write arrives although `close` follows at once."""
    received: list[NatsMessage] = []
    async with await RawNats.connect(nats_server.url) as other:
        other.subscribe("last", received.append)
        await other.flush()
        async with Recorder(nats_server.url) as connection:
            payload = b"x" * connection.max_payload
            connection.write([b"PUB last %d\r\n%b\r\n" % (len(payload), payload)] * 8)
        # The NATS server routes what it has read before it notices our end.
        async with asyncio.timeout(20):
            while len(received) < 8:
                await other.flush()
    assert all(message.data == payload for message in received)
