"""A STAN client that outlives its NATS connection, as the client libraries do: same ids and inboxes on the next server.

`RawClient` speaks the protocol; a session gives it a new NATS connection whenever the old one is lost or silent.
Whether a request that got no answer was carried out is unknown: the caller decides what to repeat.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tests.support.raw_client import ClientIdentity, RawClient
from tests.support.raw_nats import ConnectionLostError, Handler, NoRespondersError, RawNats

REQUEST_TIMEOUT_S: Final = 2.0
"""Bound of one try of a request, seconds."""

CONNECT_TIMEOUT_S: Final = 1.5
PING_PAUSE_S: Final = 0.5
PING_TIMEOUT_S: Final = 2.0
"""A NATS server that does not answer a ping within this time is given up for another one."""

RETRY_PAUSE_S: Final = 0.1

FAILURES: Final = (TimeoutError, OSError, ConnectionLostError, NoRespondersError, ValueError)
"""What connecting or a request may end with while something is broken; ValueError when a greeting is cut off."""


class Session:
    """One client. `open` it; `client` is usable while `is_connected`; `close` it, or `crash` it without a word."""

    def __init__(self, urls: Sequence[str], client_id: str, cluster_id: str, chance: random.Random) -> None:
        self.client_id = client_id
        self._urls = list(urls)
        chance.shuffle(self._urls)
        self._cluster_id = cluster_id
        self._client: RawClient | None = None
        self._connected = asyncio.Event()
        self._inboxes: dict[str, Handler] = {}
        self._keeping: asyncio.Task[None] | None = None
        self.connections = 0
        """NATS connections so far."""
        self.interruptions: list[tuple[int, int]] = []
        """When there was no NATS connection, monotonic nanoseconds."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a NATS connection, as far as is known."""
        return self._connected.is_set()

    @property
    def client(self) -> RawClient:
        """The client on the current, or last, NATS connection."""
        assert self._client is not None, "open the session first"
        return self._client

    async def open(self) -> None:
        """Registers the client, trying until it is accepted; the caller sets a bound."""
        while self._client is None:
            try:
                # Each try is a client of its own to the server: a half-made one does not answer and is replaced (B404).
                self._client = await RawClient.connect(
                    self._next_url(), self.client_id, cluster_id=self._cluster_id, timeout_s=REQUEST_TIMEOUT_S
                )
            except FAILURES:
                await asyncio.sleep(RETRY_PAUSE_S)
        self.connections += 1
        self._connected.set()
        self._keeping = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        """Ends the client in order, if it is answered, and the connection."""
        await self._stop_keeping()
        if self._client is not None:
            with suppress(*FAILURES):
                await self._client.close(timeout_s=REQUEST_TIMEOUT_S)
            _abort(self._client.nats)

    async def crash(self) -> None:
        """The connection ends without a word to anybody (F15)."""
        await self._stop_keeping()
        if self._client is not None:
            _abort(self._client.nats)

    def drop_connection(self) -> None:
        """Loses the NATS connection; the session finds another one."""
        if self._client is not None:
            _abort(self._client.nats)

    async def wait_connected(self) -> RawClient:
        """The client, once there is a connection."""
        await self._connected.wait()
        return self.client

    def listen(self, inbox: str, handler: Handler) -> None:
        """Calls `handler` for what comes to an inbox, on every connection from now on, for good."""
        self._inboxes[inbox] = handler
        if self.is_connected:
            self.client.nats.subscribe(inbox, handler)

    async def _keep_connected(self) -> None:
        while True:
            await self._watch(self.client.nats)
            self._connected.clear()
            lost_ns = time.monotonic_ns()
            _abort(self.client.nats)
            self._client = await self._reconnect(self.client)
            self.connections += 1
            self.interruptions.append((lost_ns, time.monotonic_ns()))
            self._connected.set()

    async def _watch(self, nats: RawNats) -> None:
        """Returns when the connection is lost or silent."""
        with suppress(*FAILURES):
            while not nats.is_lost:
                await nats.flush(timeout_s=PING_TIMEOUT_S)
                with suppress(TimeoutError):
                    await nats.wait_lost(timeout_s=PING_PAUSE_S)

    async def _reconnect(self, old: RawClient) -> RawClient:
        identity: ClientIdentity = old.identity
        while True:
            try:
                nats = await RawNats.connect(self._next_url(), timeout_s=CONNECT_TIMEOUT_S, name=self.client_id)
            except FAILURES:
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            client = RawClient(nats, identity, self._cluster_id)
            client.subjects = old.subjects
            for inbox, handler in self._inboxes.items():
                nats.subscribe(inbox, handler)
            return client

    async def _stop_keeping(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None

    def _next_url(self) -> str:
        self._urls.append(self._urls.pop(0))
        return self._urls[-1]


def _abort(nats: RawNats) -> None:
    """Closes the socket without waiting for what a dead line would never take."""
    nats._writer.transport.abort()
