"""Decides whether a publish is accepted (B90 to B94). Called for publishes that match no template."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from server import hot, windows
from server.errors import RequestError
from server.frontend.channels import Channels
from server.logs import RateLimit
from server.protocol import names, responses
from server.protocol.stan_pb2 import PubMsg
from store.machine.state import State

logger = logging.getLogger(__name__)

ERROR_INTERVAL_NS: Final = 1_000_000_000
"""At most one log line per kind of refusal in this time, ns: a publisher in a loop must not fill the log."""


@dataclass(slots=True)
class PublishGate:
    """Checks of a publish, in the order of B90."""

    state: State
    core: hot.Core
    channels: Channels
    publish_prefix: str
    leaving: set[str]
    """Client ids whose close is under way: unregistered from here on (B345)."""
    monotonic_ns: Callable[[], int]
    is_disk_low: bool = False
    errors: RateLimit = field(default_factory=lambda: RateLimit(ERROR_INTERVAL_NS))

    def admit(self, message: PubMsg, subject: bytes) -> windows.Channel:
        """The channel to store `message` in; `subject` is the NATS subject it came on.

        Raises:
            RequestError: with the text of B90, B93, B97 or the disk watermark.

        """
        name = message.subject
        if not message.guid:
            raise RequestError(responses.INVALID_PUBLISH, field="guid", value="")
        if not names.is_channel(name) or subject != f"{self.publish_prefix}.{name}".encode():
            raise RequestError(responses.INVALID_PUBLISH, field="subject", value=name)
        if not self._is_registered(message):
            raise RequestError(responses.INVALID_PUBLISH, field="clientID", value=message.clientID)
        try:
            return self._storable(message, name)
        except RequestError as error:
            if self.errors.admit(error.wire_text, self.monotonic_ns()) is not None:
                logger.error(  # noqa: TRY400  a client's error, not ours
                    '[Client:%s] Error processing message for subject "%s": %s', message.clientID, name, error.wire_text
                )
            raise

    def _storable(self, message: PubMsg, name: str) -> windows.Channel:
        """The client may publish; now what the store allows (B93, B97)."""
        if self.is_disk_low:
            raise RequestError(responses.LOW_DISK_SPACE, field="subject", value=name)
        existing = self.channels.by_name.get(name)
        size = hot.stored_bytes(message, existing.seq + 1 if existing is not None else 1)
        if size > self.core.max_payload:
            raise RequestError(responses.MAX_PAYLOAD, field="data", value=size)
        return self.channels.find_or_create(name)

    def _is_registered(self, message: PubMsg) -> bool:
        """B91: a connID decides alone; without one the client id does."""
        if message.connID:
            client = self.state.clients_by_conn_id.get(message.connID)
        else:
            client = self.state.clients.get(message.clientID)
        return client is not None and client.client_id not in self.leaving
