"""Keeps one connection to NATS for ever: reconnects, subscribes again, and drops what is written while it is down.

State: the transport (None while disconnected), the subscription table, barriers that wait for a PONG. Received bytes
go to `on_data` unparsed; the parser gives control lines back to `on_control`.

Order of events: `on_connected` comes after our SUB lines were written and before the first `on_data` of that
transport; `on_disconnected` after its last `on_data`; `on_closed` once, as the very last one. Callbacks must not block.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from server.clock import monotonic_ns
from server.errors import NatsUnavailableError
from server.logs import RateLimit

from . import control
from .address import Address, candidates, discovered, parse
from .dial import NO_SERVERS, DialError, Dialled, Security, dial
from .wire import Wire

RECONNECT_WAIT_S: Final = 0.25
"""Pause before every round of attempts, seconds. Source: O243."""

WRITE_HIGH_WATER: Final = 8 * 1024 * 1024
"""Bytes in the write buffer above which we are not writable. asyncio's default, 64 KiB, would pause all the time."""

WRITE_BUFFER_MAX: Final = 256 * 1024 * 1024
"""Bytes in the write buffer above which writes are dropped: the NATS server does not read any more."""

READ_MAX_BYTES: Final = 1024 * 1024
"""Most bytes of one read. With asyncio's 256 KiB a large message takes many, at a system call each."""

PING_INTERVAL_S: Final = 20.0
"""Pause between two pings, seconds."""

SILENCES_MAX: Final = 2
"""Ping intervals without a byte from the NATS server after which the connection is given up."""

FIRST_PONG_S: Final = 5.0
"""Time within which the NATS server must speak after the handshake, seconds: its end may have come before our protocol."""

CLOSE_TIMEOUT_S: Final = 2.0
"""Time for the write buffer to drain at `close`, seconds."""

DEFAULT_MAX_PAYLOAD: Final = 1024 * 1024
"""Largest message in bytes until a NATS server tells its own limit. Source: NATS's default."""

REPEAT_INTERVAL_NS: Final = 10_000_000_000
"""At most one log line per kind of fault in this time, ns."""

PING: Final = b"PING\r\n"
PONG: Final = b"PONG\r\n"

logger = logging.getLogger(__name__)


class NatsConnection:
    """The connection `name` to any of `servers` (URLs). All methods belong to the event loop's thread.

    Raises ConfigError when a URL cannot be used.
    """

    def __init__(  # noqa: PLR0913  # each a fact or a callback of its own
        self,
        *,
        name: str,
        servers: Sequence[str],
        on_data: Callable[[bytes], None],
        on_connected: Callable[[], None],
        on_disconnected: Callable[[str], None],
        on_closed: Callable[[str], None],
        on_writable: Callable[[], None],
        security: Security | None = None,
        follows_announced: bool = True,
    ) -> None:
        """With `follows_announced` it goes to servers that the configured ones tell of, when those are lost.

        Not with one's own server: that comes back, and nodes that hang on each other's servers would fail together.
        """
        self.name = name
        self._configured = tuple(parse(url) for url in servers)
        self._security = security or Security()
        self._on_data = on_data
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._on_closed = on_closed
        self._on_writable = on_writable
        self._follows_announced = follows_announced
        self._discovered: tuple[Address, ...] = ()
        self._subscriptions: dict[int, str] = {}
        self._last_sid = 0
        self._dialled: Dialled | None = None
        self._transport: asyncio.Transport | None = None
        self._wire: Wire | None = None
        self._lost: asyncio.Future[None] | None = None
        self._pongs: deque[asyncio.Future[None] | None] = deque()  # one per PING sent; None: a ping nobody waits for
        self._timer: asyncio.TimerHandle | None = None
        self._silences = 0
        self._writing_paused = False
        self._reading_paused = False
        self._max_payload = DEFAULT_MAX_PAYLOAD
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self._repeats = RateLimit(REPEAT_INTERVAL_NS)

    @property
    def is_connected(self) -> bool:
        """Whether `write` goes out."""
        return self._transport is not None

    @property
    def is_writable(self) -> bool:
        """Connected, and the write buffer is not above its high-water mark."""
        return self._transport is not None and not self._writing_paused

    @property
    def max_payload(self) -> int:
        """Largest message the NATS server takes, bytes. It may change with every (re)connect and INFO."""
        return self._max_payload

    @property
    def connected_url(self) -> str:
        """URL of the server we are connected to, without login; empty while disconnected."""
        return self._dialled.address.shown if self._dialled is not None and self.is_connected else ""

    async def connect(self) -> None:
        """Connect for the first time; from then on the connection is kept until `close`.

        Raises NatsUnavailableError with the text of O241, or with the server's reason, and does not try again.
        """
        assert self._keeper is None, "connect only once"
        await self._dial_any()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"nats {self.name}")

    async def close(self) -> None:
        """Write what waits in the buffer, within `CLOSE_TIMEOUT_S`, and end. Calling it again is harmless."""
        if self._keeper is not None and not self._keeper.done():
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        await self._shut_down("closed")

    def write(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Send the joined `parts` in one write. False: nothing was sent, because we are disconnected (B236).

        Also False, nothing sent, while more than `WRITE_BUFFER_MAX` bytes wait: `is_writable` said no long before.
        """
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > WRITE_BUFFER_MAX:
            return False
        transport.write(b"".join(parts))
        return True

    def subscribe(self, subject: str) -> int:
        """Subscribe now and after every reconnect. Returns the subscription id found in MSG lines.

        Nothing is awaited: the NATS server knows it when a later `barrier` returns.
        """
        assert subject, "a subscription needs a subject"
        assert not any(char.isspace() for char in subject), subject
        self._last_sid += 1
        self._subscriptions[self._last_sid] = subject
        self.write((_sub_line(subject, self._last_sid),))
        return self._last_sid

    def unsubscribe(self, sid: int) -> None:
        """End a subscription; messages under way may still arrive. Raises KeyError for an unknown id."""
        del self._subscriptions[sid]
        self.write((b"UNSUB %d\r\n" % sid,))

    async def barrier(self) -> None:
        """Return when the NATS server has processed everything written before the call.

        Raises NatsUnavailableError when we are disconnected or get disconnected meanwhile. There is no deadline here.
        """
        if self._transport is None:
            raise NatsUnavailableError(f"connection {self.name!r} is down")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ping(waiter)
        await waiter

    def pause_reading(self) -> None:
        """Receive nothing until `resume_reading`, also after a reconnect."""
        self._reading_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive again."""
        self._reading_paused = False
        if self._transport is not None:
            self._transport.resume_reading()

    def on_control(self, line: bytes) -> None:
        """Obey a control line, which is what the parser found that is no message; without its CRLF.

        Raises ProtocolError when it is no line of a NATS server. Out of `on_data` this makes the connection anew.
        """
        match control.verb(line):
            case control.Verb.PING:
                self.write((PONG,))
            case control.Verb.PONG:
                waiter = self._pongs.popleft() if self._pongs else None
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
            case control.Verb.INFO:
                self._adopt_info(control.info(line))
            case control.Verb.ERROR:
                self._server_fault(control.fault(line))
            case control.Verb.OK:
                pass  # nobody asked for it, and it says nothing

    # What the wire tells.

    def writing_paused(self) -> None:
        """Not for callers: the write buffer is above its high-water mark."""
        self._writing_paused = True

    def writing_resumed(self) -> None:
        """Not for callers: the write buffer is below its low-water mark again."""
        self._writing_paused = False
        if self._transport is not None:
            self._on_writable()

    def transport_lost(self, reason: str) -> None:
        """Not for callers: the transport is gone."""
        assert self._lost is not None
        self._transport = self._wire = None
        if self._timer is not None:
            self._timer.cancel()
        while self._pongs:
            waiter = self._pongs.popleft()
            if waiter is not None and not waiter.done():
                waiter.set_exception(NatsUnavailableError(f"connection {self.name!r} is down", reasons=(reason,)))
        try:
            if not self._closing:
                logger.error('connection "%s" has been disconnected: %s', self.name, reason)
                self._on_disconnected(reason)
        finally:
            self._lost.set_result(None)

    # Connecting.

    async def _keep(self) -> None:
        """Task: whenever the transport is lost, get another one. Ends by cancellation, or by a bug, which is reported."""
        try:
            while True:
                assert self._lost is not None
                assert self._dialled is not None
                await asyncio.shield(self._lost)
                await self._dialled.close()
                await self._reconnect()
        except Exception as error:
            logger.exception('connection "%s" cannot be kept', self.name)
            await self._shut_down(f"{type(error).__name__}: {error}")

    async def _reconnect(self) -> None:
        while True:
            await asyncio.sleep(RECONNECT_WAIT_S)
            try:
                await self._dial_any()
            except NatsUnavailableError as error:
                if self._repeats.admit("reconnect", monotonic_ns()) is not None:
                    logger.warning('connection "%s" is still down: %s', self.name, "; ".join(error.reasons))
            else:
                logger.info('connection "%s" reconnected to NATS Server at "%s"', self.name, self.connected_url)
                return

    async def _dial_any(self) -> None:
        """Connect to any server, in random order. Raises NatsUnavailableError when all fail."""
        servers = candidates(self._configured, self._discovered)
        random.shuffle(servers)
        text, reasons = NO_SERVERS, []
        for address in servers:
            try:
                dialled = await dial(address, self.name, self._security)
            except DialError as error:
                reasons.append(f"{address.shown}: {error}")
                if not error.is_refused:
                    text = str(error)
            else:
                await self._take_over(dialled)
                return
        raise NatsUnavailableError(text, reasons=reasons)

    async def _take_over(self, dialled: Dialled) -> None:
        transport = dialled.transport
        wire = Wire(transport, self._on_data, self)
        rest = await dialled.take_over(wire)  # does not yield: no byte comes before on_connected
        loop = asyncio.get_running_loop()
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        transport.max_size = READ_MAX_BYTES  # type: ignore[attr-defined]  # of asyncio's socket transports; TLS has none
        if self._reading_paused:
            transport.pause_reading()
        self._lost = loop.create_future()
        self._dialled, self._wire, self._transport = dialled, wire, transport
        self._writing_paused = False
        self._adopt_info(dialled.info)
        self.write([_sub_line(subject, sid) for sid, subject in self._subscriptions.items()])
        self._ping(None)
        self._silences = SILENCES_MAX - 1
        self._timer = loop.call_later(FIRST_PONG_S, self._tick)
        self._on_connected()
        if rest:
            wire.data_received(rest)
        wire.heard = False

    def _adopt_info(self, info: Mapping[str, Any]) -> None:
        max_payload = info.get("max_payload")
        if isinstance(max_payload, int) and max_payload > 0:
            self._max_payload = max_payload
        urls = info.get("connect_urls")
        if isinstance(urls, list) and self._dialled is not None and self._follows_announced:
            self._discovered = discovered(urls, self._dialled.address)

    async def _shut_down(self, reason: str) -> None:
        if self._closing:
            return
        self._closing = True
        if self._transport is not None and self._lost is not None:
            self._transport.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await asyncio.shield(self._lost)
        if self._wire is not None:
            self._wire.abort(reason)
        if self._dialled is not None:
            await self._dialled.close()
        self._on_closed(reason)

    # While connected.

    def _ping(self, waiter: asyncio.Future[None] | None) -> None:
        assert self._transport is not None
        self._pongs.append(waiter)
        self._transport.write(PING)

    def _tick(self) -> None:
        """Timer: give up a server that is silent, ping the others."""
        assert self._wire is not None
        self._silences = 0 if self._wire.heard or self._reading_paused else self._silences + 1
        if self._silences >= SILENCES_MAX:
            self._wire.abort("nats: stale connection")
            return
        self._wire.heard = False
        self._ping(None)  # also while reading is paused: writing is then the only way to notice the end
        self._timer = asyncio.get_running_loop().call_later(PING_INTERVAL_S, self._tick)

    def _server_fault(self, fault: control.ServerFault) -> None:
        assert self._wire is not None
        suppressed = self._repeats.admit(fault.kind, monotonic_ns())
        if suppressed is not None:
            logger.error(
                "Asynchronous error on connection %s, subject %s: nats: %s%s",
                self.name,
                fault.subject or "-",
                fault.text,
                f" ({suppressed} similar ones not shown)" if suppressed else "",
            )
        if not fault.is_harmless:
            self._wire.abort(f"nats: {fault.text}")


def _sub_line(subject: str, sid: int) -> bytes:
    return b"SUB %b %d\r\n" % (subject.encode(), sid)
