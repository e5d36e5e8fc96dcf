"""The exact texts a client can receive. Clients compare or show them: byte for byte as in specification B120."""

from collections.abc import Sequence
from typing import Final

from server.windows import varint

INVALID_CONNECT: Final = "stan: invalid connection request"
INVALID_CLIENT_ID: Final = "stan: invalid clientID: only alphanumeric and `-` or `_` characters allowed"
DUPLICATE_CLIENT_ID: Final = "stan: clientID already registered"
INVALID_PUBLISH: Final = "stan: invalid publish request"
INVALID_SUBSCRIPTION_REQUEST: Final = "stan: invalid subscription request"
CLIENT_ID_MISSING: Final = "stan: clientID missing"
INVALID_ACK_WAIT: Final = "stan: invalid ack wait time, should be >= 1s"
INVALID_MAX_IN_FLIGHT: Final = "stan: invalid MaxInflight, should be >= 1"
INVALID_START_POSITION: Final = "stan: invalid start position"
INVALID_SUBJECT: Final = "stan: invalid subject"
UNKNOWN_CLIENT_ID: Final = "stan: unknown clientID"
DUPLICATE_DURABLE: Final = "stan: duplicate durable registration"
INVALID_DURABLE_NAME: Final = "stan: durable name of a durable queue subscriber can't contain the character ':'"
INVALID_UNSUBSCRIBE: Final = "stan: invalid unsubscribe request"
UNKNOWN_CHANNEL: Final = "stan: unknown channel"
INVALID_SUBSCRIPTION: Final = "stan: invalid subscription"
INVALID_CLOSE: Final = "stan: invalid close request"
CHANNEL_IS_BEING_DELETED: Final = "stan: channel is being deleted"
TOO_MANY_CHANNELS: Final = "too many channels"
TOO_MANY_SUBSCRIPTIONS: Final = "too many subscriptions per channel"
CLIENT_REPLACED: Final = "client has been replaced or is no longer registered"
MAX_PAYLOAD: Final = "nats: maximum payload exceeded"

NOT_LEADER: Final = "node is not the leader"
"""Certainly not proposed (B123, B400)."""

OUTCOME_UNKNOWN: Final = "leadership lost while committing log"
"""Proposed, outcome unknown (B123, B402)."""

LOST: Final = frozenset((NOT_LEADER, OUTCOME_UNKNOWN))
"""What an operation is told that leadership ended upon: the log did not refuse it."""

MESSAGE_UNREADABLE: Final = "stan: a message needed for the start position cannot be read"
"""Storage errors are passed on as text without paths (B124)."""

WAITED_TOO_LONG: Final = "stan: request waited too long and was not processed"
"""Not of the original, which drops such requests in silence (B81)."""

LOW_DISK_SPACE: Final = "stan: publish refused, disk space is low"
"""Not of the original: the disk watermark (design, durability and identity)."""


def case_conflict(name: str, existing: str) -> str:
    """Text for a channel that differs only by case from an existing one (B63, the original's spelling)."""
    return f'rejecting channel "{name}" because channel "{existing}" alreay exists (different cases not allowed)'


def refused_pub_acks(frames: Sequence[bytes], text: str, max_payload: int) -> list[bytes]:
    """NATS frames that refuse with `text` what `frames` would have acknowledged; both are whole frames in pieces.

    `frames` are PubAcks as the hot loop builds them: a guid and no error. The guid may be any bytes. One whose refusal is
    longer than `max_payload`, bytes, gets none: sending it would end our connection.
    """
    error = b"\x12" + varint(len(text.encode())) + text.encode()
    data = b"".join(frames)
    refused: list[bytes] = []
    start = 0
    while start < len(data):
        line_end = data.index(b"\r\n", start)
        size_at = data.rindex(b" ", start, line_end) + 1
        body = line_end + 2
        end = body + int(data[size_at:line_end])
        size = end - body + len(error)
        if size <= max_payload:
            refused += (data[start:size_at], b"%d\r\n" % size, data[body:end], error, b"\r\n")
        start = end + 2
    return refused
