"""Gets one connection to one NATS server, using asyncio-nats-client for TCP, TLS and login.

One library client per attempt, told not to reconnect: its own reconnecting gives up for good on most errors of the
server and would replay what it had buffered (B236). After the handshake its read loop, flusher and pings have nothing
to do; the caller's protocol takes the transport.
"""

import asyncio
import functools
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import nats.aio.client
from nats.aio.errors import ErrAuthorization, NatsError

from server.errors import NatsUnavailableError

from . import compat
from .address import Address, Login

NO_SERVERS: Final = "nats: no servers available for connection"
"""Text when nobody listens at the addresses. Source: O241."""

NO_TLS: Final = "nats: secure connection not available"
"""Text when TLS is demanded of a server without it. Source: O73."""

STEP_TIMEOUT_S: Final = 5.0
"""Time for each step of the handshake (TCP, INFO, TLS, PONG), seconds."""

NEVER_S: Final = 365 * 86400
"""Interval of the library's own pings, seconds: they would mix with ours on the same transport."""


@dataclass(frozen=True, slots=True)
class Security:
    """How we prove who we are and whom we trust. Without a context the system's authorities are trusted (O246)."""

    login: Login = field(default_factory=Login)
    tls_context: ssl.SSLContext | None = None
    tls_required: bool = False
    """Refuse a server without TLS (O73). A server that demands TLS gets it anyway."""


class DialError(NatsUnavailableError):
    """One server could not be connected. `is_refused`: nobody listens there."""

    def __init__(self, text: str, *, is_refused: bool) -> None:
        super().__init__(text)
        self.is_refused = is_refused


class Dialled:
    """A connection after its handshake. The library's client must live as long: it holds the socket below TLS."""

    def __init__(self, client: "_Client", address: Address) -> None:
        self._client = client
        self.address = address
        self.transport: asyncio.Transport = client._io_writer.transport  # noqa: SLF001  no public name for it
        self.info: Mapping[str, Any] = client._server_info  # noqa: SLF001  no public name for it

    async def take_over(self, protocol: asyncio.Protocol) -> bytes:
        """Make `protocol` the receiver. Returns what arrived since the PONG; does not yield to the loop.

        nats-server sends a second INFO right behind the first PONG, which is then in the library's reader.
        """
        self.transport.set_protocol(protocol)
        reader: asyncio.StreamReader = self._client._io_reader  # noqa: SLF001  no public name for it
        reader.feed_eof()  # so that read() returns what it has instead of waiting
        return await reader.read()

    async def close(self) -> None:
        """Free what the library holds. Closes the transport if it is open."""
        await _close(self._client)


async def dial(address: Address, name: str, security: Security) -> Dialled:
    """Connect to `address` under the connection name `name`. Raises DialError, whose text shows no login.

    Raises SelfCheckError when the installed library is not the one we know.
    """
    compat.install(nats.aio.client)
    client = _Client(must_be_secure=address.is_secure or security.tls_required)
    login = address.login or security.login
    try:
        await client.connect(
            servers=[address.url],
            name=name,
            error_cb=_give_up,
            allow_reconnect=False,
            connect_timeout=STEP_TIMEOUT_S,
            ping_interval=NEVER_S,
            tls=security.tls_context or _system_trust(),
            tls_hostname=address.tls_name or address.host,
            user=login.user,
            password=login.password if login.user is not None else None,
            token=login.token,
        )
        return _ready(client, address)
    except asyncio.CancelledError:
        await _close(client)
        raise
    except Exception as error:  # whatever a broken server provokes in the library is a failed attempt
        await _close(client)
        raise DialError(_text(error), is_refused=isinstance(error, ConnectionRefusedError)) from error


class _Client(nats.aio.client.Client):  # type: ignore[misc]  # the library is not typed
    """The library's client, which announces what we need and leaves the transport alone after the handshake."""

    def __init__(self, *, must_be_secure: bool) -> None:
        super().__init__()
        self._must_be_secure = must_be_secure

    def _connect_command(self) -> bytes:
        if self._must_be_secure and not self._server_info.get("tls_required"):
            raise NatsError(NO_TLS)
        verb, _, options = super()._connect_command().partition(b" ")
        # Without these the NATS server would not tell us that a client is gone (B51).
        announced = json.loads(options) | {"headers": True, "no_responders": True}
        return b"%b %b\r\n" % (verb, json.dumps(announced, sort_keys=True).encode())

    async def _read_loop(self) -> None:
        """Nothing: the bytes go to the protocol that takes over."""


async def _close(client: _Client) -> None:
    """Close the client and the socket below TLS, which would else stay open until the TLS shutdown was answered."""
    await client.close()
    if client._bare_io_writer is not None:  # noqa: SLF001  no public name for it
        client._bare_io_writer.close()  # noqa: SLF001  no public name for it


def _ready(client: _Client, address: Address) -> Dialled:
    if not client.is_connected:  # the library takes any line that is not -ERR for the end of the handshake
        raise NatsError("nats: the server did not answer PING")
    dialled = Dialled(client, address)
    if dialled.transport.is_closing():
        raise ConnectionResetError("nats: connection closed by the server")
    return dialled


@functools.cache
def _system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _give_up(error: Exception | type[Exception]) -> None:
    """Error callback of the library: ends the attempt, which would otherwise start again inside the library."""
    raise error


def _text(error: Exception) -> str:
    if isinstance(error, ErrAuthorization):
        return "nats: Authorization Violation"
    if isinstance(error, NatsError):
        return str(error).replace("'", "")  # the reason of -ERR comes with its quotes
    if isinstance(error, TimeoutError):
        return "nats: timeout"
    return str(error) or type(error).__name__
