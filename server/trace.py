"""Writes the trace lines of O218, one per message and ack. With tracing the hot loop hands every message to its general path.

State: publishes that wait for their PubAck, by guid, so that the line of the PubAck can name client and channel.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from server import hot
from server.logs import TRACE
from server.protocol.stan_pb2 import PubAck, PubMsg
from store.machine.state import Subscription

logger = logging.getLogger(__name__)

WAITING_MAX: Final = 100_000
"""Publishes remembered for the line of their PubAck; the oldest is forgotten when there would be more."""


def is_enabled() -> bool:
    """Whether trace lines are written at all (`-SV`)."""
    return logger.isEnabledFor(TRACE)


class Trace(hot.Observer):
    """Made only when tracing is enabled."""

    def __init__(self, subscriptions: Mapping[int, Subscription]) -> None:
        self._subscriptions = subscriptions
        self._waiting: dict[str, PubMsg] = {}

    def published(self, message: PubMsg) -> None:
        """A publish arrived and is not decided on yet."""
        logger.log(
            TRACE,
            "[Client:%s] Received message from publisher subj=%s guid=%s",
            message.clientID, message.subject, message.guid,
        )  # fmt: skip
        if len(self._waiting) >= WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[message.guid] = message

    def acked(self, subscription_id: int, channel: str, seq: int) -> None:
        """An ack of a subscriber arrived."""
        client_id = self._subscriptions[subscription_id].client_id
        logger.log(
            TRACE,
            "[Client:%s] Processing ack for subid=%d, subject=%s, seq=%d",
            client_id, subscription_id, channel, seq,
        )  # fmt: skip

    def acknowledged(self, frames: list[bytes]) -> None:
        """PubAcks leave; `frames` are whole NATS frames in pieces."""
        data = b"".join(frames)
        while data:
            line, _, data = data.partition(b"\r\n")
            size = int(line.rpartition(b" ")[2])
            guid = PubAck.FromString(data[:size]).guid
            data = data[size + 2 :]
            message = self._waiting.pop(guid, None)
            if message is not None:
                logger.log(
                    TRACE,
                    "[Client:%s] Acking Publisher subj=%s guid=%s",
                    message.clientID, message.subject, guid,
                )  # fmt: skip

    def delivered(self, record: Subscription, channel: str, seqs: Iterable[int], *, is_again: bool) -> None:
        """Messages are handed over to NATS."""
        for seq in seqs:
            logger.log(
                TRACE,
                "[Client:%s] %s msg to subid=%d, subject=%s, seq=%d",
                record.client_id, "Redelivering" if is_again else "Delivering", record.subscription_id, channel, seq,
            )  # fmt: skip
