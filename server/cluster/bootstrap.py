"""Finds out whether another node was started with --cluster_bootstrap, which would be a second cluster (O408)."""

import asyncio
from collections.abc import Callable
from typing import Final

from server.cluster.connection import RaftConnection
from server.errors import AnotherBootstrapError

INTERVAL_S: Final = 1.0
"""Between two signs, seconds. Source: O408."""

SERVER_ID_MAX_BYTES: Final = 64


class BootstrapProbe:
    """Tells of this server every second, and ends it when another does the same; that one ends by our sign."""

    def __init__(
        self,
        connection: RaftConnection,
        server_id: str,
        loop: asyncio.AbstractEventLoop,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._connection = connection
        self._server_id = server_id
        self._loop = loop
        self._on_fatal = on_fatal
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        self._connection.listen(self._connection.subjects.bootstrap, self._heard)
        self._tell()

    def stop(self) -> None:
        """Tell no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._connection.publish(self._connection.subjects.bootstrap, self._server_id.encode())
        self._timer = self._loop.call_later(INTERVAL_S, self._tell)

    def _heard(self, payload: bytes, _reply: bytes) -> None:
        other = payload[:SERVER_ID_MAX_BYTES].decode(errors="replace")
        if other != self._server_id and other.isalnum():
            self._connection.publish(self._connection.subjects.bootstrap, self._server_id.encode())
            self._on_fatal(AnotherBootstrapError(other))
