"""Hands the bytes of one transport to the parser, and keeps its exceptions from killing the event loop's transport."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from server.errors import ProtocolError

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """Who is told about the fate of the transport."""

    def writing_paused(self) -> None:
        """The write buffer is above its high-water mark."""
        ...

    def writing_resumed(self) -> None:
        """The write buffer is below its low-water mark again."""
        ...

    def transport_lost(self, reason: str) -> None:
        """The transport is gone. Called once."""
        ...


class Wire(asyncio.Protocol):
    """Receiver of one transport, from the handshake to its loss. State: why it will be lost, whether the peer spoke."""

    __slots__ = ("_on_data", "_owner", "_transport", "heard", "reason")

    def __init__(self, transport: asyncio.Transport, on_data: Callable[[bytes], None], owner: Owner) -> None:
        self._transport = transport
        self._on_data = on_data
        self._owner = owner
        self.heard = False
        """Whether bytes arrived since somebody set this to False."""
        self.reason = ""
        """Why the transport will be lost, the first reason that became known; also set by -ERR before the peer closes."""

    def data_received(self, data: bytes) -> None:
        """Bytes of the NATS server, to the parser as they are. A parser that raises ends the connection."""
        if self._transport.is_closing():  # TLS hands over what it had decrypted, even after an abort
            return
        self.heard = True
        try:
            self._on_data(data)
        except ProtocolError as error:
            logger.error("%s", error)  # noqa: TRY400  the line says it all: no traceback of our parser
            self.abort(str(error))
        except Exception as error:
            logger.exception("reading from the NATS server failed")
            self.abort(f"{type(error).__name__}: {error}")

    def abort(self, reason: str) -> None:
        """Lose the transport at once, with what waits to be written."""
        self.reason = self.reason or reason
        self._transport.abort()

    def eof_received(self) -> bool:
        """The NATS server closed: so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Last call."""
        self._owner.transport_lost(self.reason or (str(exc) if exc is not None else "EOF"))

    def pause_writing(self) -> None:
        """Above the high-water mark."""
        self._owner.writing_paused()

    def resume_writing(self) -> None:
        """Below the low-water mark."""
        self._owner.writing_resumed()
