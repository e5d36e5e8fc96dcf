"""What goes over the wire, written and read by hand: field numbers, exact bytes, exact texts (B10, B20-B24, B120)."""

import asyncio
from typing import Final

import pytest

from server.protocol import responses
from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, new_name
from tests.support.raw_nats import NatsMessage

MESSAGES: Final = {
    "ConnectRequest": [
        (1, "string", "clientID"), (2, "string", "heartbeatInbox"), (3, "int32", "protocol"), (4, "bytes", "connID"),
        (5, "int32", "pingInterval"), (6, "int32", "pingMaxOut"),
    ],
    "ConnectResponse": [
        (1, "string", "pubPrefix"), (2, "string", "subRequests"), (3, "string", "unsubRequests"),
        (4, "string", "closeRequests"), (5, "string", "error"), (6, "string", "subCloseRequests"),
        (7, "string", "pingRequests"), (8, "int32", "pingInterval"), (9, "int32", "pingMaxOut"),
        (10, "int32", "protocol"), (100, "string", "publicKey"),
    ],
    "Ping": [(1, "bytes", "connID")],
    "PingResponse": [(1, "string", "error")],
    "PubMsg": [
        (1, "string", "clientID"), (2, "string", "guid"), (3, "string", "subject"), (4, "string", "reply"),
        (5, "bytes", "data"), (6, "bytes", "connID"), (10, "bytes", "sha256"),
    ],
    "PubAck": [(1, "string", "guid"), (2, "string", "error")],
    "MsgProto": [
        (1, "uint64", "sequence"), (2, "string", "subject"), (3, "string", "reply"), (4, "bytes", "data"),
        (5, "int64", "timestamp"), (6, "bool", "redelivered"), (7, "uint32", "redeliveryCount"),
        (10, "uint32", "CRC32"),
    ],
    "Ack": [(1, "string", "subject"), (2, "uint64", "sequence")],
    "SubscriptionRequest": [
        (1, "string", "clientID"), (2, "string", "subject"), (3, "string", "qGroup"), (4, "string", "inbox"),
        (5, "int32", "maxInFlight"), (6, "int32", "ackWaitInSecs"), (7, "string", "durableName"),
        (10, "enum", "startPosition"), (11, "uint64", "startSequence"), (12, "int64", "startTimeDelta"),
    ],
    "SubscriptionResponse": [(2, "string", "ackInbox"), (3, "string", "error")],
    "UnsubscribeRequest": [
        (1, "string", "clientID"), (2, "string", "subject"), (3, "string", "inbox"), (4, "string", "durableName"),
    ],
    "CloseRequest": [(1, "string", "clientID")],
    "CloseResponse": [(1, "string", "error")],
}  # fmt: skip
"""Number, type and name of every field: what existing clients were built with."""

TYPE_NAMES: Final = {3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32", 14: "enum"}
"""Names of the types of google.protobuf's FieldDescriptorProto."""

TEXTS: Final = {
    "stan: invalid connection request",
    "stan: invalid clientID: only alphanumeric and `-` or `_` characters allowed",
    "stan: clientID already registered",
    "stan: invalid publish request",
    "stan: invalid subscription request",
    "stan: clientID missing",
    "stan: invalid ack wait time, should be >= 1s",
    "stan: invalid MaxInflight, should be >= 1",
    "stan: invalid start position",
    "stan: invalid subject",
    "stan: unknown clientID",
    "stan: duplicate durable registration",
    "stan: durable name of a durable queue subscriber can't contain the character ':'",
    "stan: invalid unsubscribe request",
    "stan: unknown channel",
    "stan: invalid subscription",
    "stan: invalid close request",
    "stan: channel is being deleted",
    "too many channels",
    "too many subscriptions per channel",
    "client has been replaced or is no longer registered",
}
"""What clients compare with, the text on channels that differ by case excepted."""


def varint(value: int) -> bytes:
    """An unsigned number as protobuf writes it: seven bits per byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def wire(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A message of these fields, number and value each."""
    encoded = b""
    for number, value in fields:
        if isinstance(value, int):
            encoded += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += varint(number << 3 | 2) + varint(len(data)) + data
    return encoded


@pytest.mark.parametrize("name", MESSAGES)
def test_fields(name: str) -> None:
    """B20-B22: number, type and name of each field, and no other field."""
    fields = pb.DESCRIPTOR.message_types_by_name[name].fields
    assert [(field.number, TYPE_NAMES[field.type], field.name) for field in fields] == MESSAGES[name]


def test_start_positions_by_number() -> None:
    """B23: the numbers of the start positions, and no others."""
    assert dict(pb.StartPosition.items()) == {
        "NewOnly": 0, "LastReceived": 1, "TimeDeltaStart": 2, "SequenceStart": 3, "First": 4
    }  # fmt: skip


@pytest.mark.parametrize("text", sorted(TEXTS))
def test_error_texts(text: str) -> None:
    """B120: the server has each text byte for byte; which request gets it is shown by the tests of that request."""
    assert text in vars(responses).values()


@pytest.mark.asyncio
async def test_conversation_byte_for_byte(clients: Clients, channel: str) -> None:
    """B9, B10, B20-B24: connect, subscribe, publish, delivery, ack, redelivery, ping and the ends, encoded by hand."""
    nats, client_id = await clients.nats(), new_name("client")
    hears: asyncio.Queue[NatsMessage] = asyncio.Queue()
    nats.subscribe("raw.inbox", hears.put_nowait)

    async def ask(subject: str, *fields: tuple[int, int | str | bytes]) -> bytes:
        answer = await nats.request(subject, wire(*fields))
        assert answer.headers == b""
        return answer.data

    async def hear() -> bytes:
        async with asyncio.timeout(10):
            message = await hears.get()
        assert (message.reply, message.headers) == ("", b"")
        return message.data

    connect = ((1, client_id), (2, "raw.heartbeat"), (3, 1), (4, b"raw conn"), (5, 7), (6, 3))
    assert await ask("_STAN.discover.test-cluster", *connect) == wire(
        (1, "_STAN.pub.test-cluster"), (2, "_STAN.sub.test-cluster"), (3, "_STAN.unsub.test-cluster"),
        (4, "_STAN.close.test-cluster"), (6, "_STAN.subclose.test-cluster"),
        (7, "_STAN.discover.test-cluster.pings"), (8, 7), (9, 3), (10, 1),
    )  # fmt: skip
    subscribe = ((1, client_id), (2, channel), (4, "raw.inbox"), (5, 1), (6, 1), (10, 3), (11, 1))
    answer = await ask("_STAN.sub.test-cluster", *subscribe)
    ack_inbox = answer[2:].decode()
    assert answer == wire((2, ack_inbox))
    for number in (1, 2):
        fields = ((1, client_id), (2, f"guid {number}"), (3, channel), (4, "r"), (5, b"\x00x"), (6, b"raw conn"))
        assert await ask(f"_STAN.pub.test-cluster.{channel}", *fields) == wire((1, f"guid {number}"))
    delivered = await hear()
    stamp = pb.MsgProto.FromString(delivered).timestamp
    assert delivered == wire((1, 1), (2, channel), (3, "r"), (4, b"\x00x"), (5, stamp))
    assert await hear() == delivered + wire((6, 1), (7, 1))
    nats.publish(ack_inbox, wire((1, channel), (2, 1)))
    assert (await hear()).startswith(wire((1, 2), (2, channel), (3, "r")))
    assert await ask("_STAN.discover.test-cluster.pings", (1, b"raw conn")) == b""
    assert await ask("_STAN.discover.test-cluster.pings", (1, b"none")) == wire(
        (1, "client has been replaced or is no longer registered")
    )
    end = ((1, client_id), (2, channel), (3, ack_inbox))
    assert await ask("_STAN.unsub.test-cluster", *end) == b""
    assert await ask("_STAN.subclose.test-cluster", *end) == wire((3, "stan: invalid subscription"))
    assert await ask("_STAN.close.test-cluster", (1, client_id)) == b""
    assert await ask("_STAN.close.test-cluster", (1, client_id)) == wire((1, "stan: unknown clientID"))
