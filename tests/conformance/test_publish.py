"""Publishing: checks, answers, order, sizes (B18, B90-B99, B200, B203, B205)."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, accepted, listen, new_name, payloads, publish_numbered, settle
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient
from tests.support.server_process import ServerProcess

INVALID = "stan: invalid publish request"
MAX_PAYLOAD = 4096
CLOCK_TOLERANCE_NS = 1_000_000_000


def _no_guid(message: pb.PubMsg) -> None:
    message.guid = ""


def _bad_channel(message: pb.PubMsg) -> None:
    message.subject = "a..b"


def _unknown_connid(message: pb.PubMsg) -> None:
    message.connID = b"unknown"


def _unknown_client(message: pb.PubMsg) -> None:
    message.connID, message.clientID = b"", "nobody"


def _nobody(message: pb.PubMsg) -> None:
    message.connID, message.clientID = b"", ""


@pytest.mark.asyncio
@pytest.mark.parametrize("spoil", [_no_guid, _bad_channel, _unknown_connid, _unknown_client, _nobody])
async def test_invalid_publish(client: RawClient, channel: str, spoil: Callable[[pb.PubMsg], None]) -> None:
    """B90, B91: every failing check answers the same text with the guid, and nothing is stored."""
    message = client.publish_message(channel, b"x")
    spoil(message)
    answer = await client.publish_raw(channel, message.SerializeToString())
    assert answer == pb.PubAck(guid=message.guid, error=INVALID)
    reader = await client.subscribe(channel, start=pb.First)
    await settle(client)
    assert reader.received == []


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["", "a.", ".a", "a..b", "a/b", "*", "a.*", ">", "sp ace", "a\nb", "x" * 256])
async def test_invalid_channel_names(client: RawClient, channel: str, name: str) -> None:
    """B61, B62, B90.3: bad names are refused whatever subject the publish came on."""
    message = client.publish_message(name, b"x")
    answer = await client.publish_raw(channel, message.SerializeToString())
    assert answer == pb.PubAck(guid=message.guid, error=INVALID)


@pytest.mark.asyncio
async def test_connid_decides_alone(client: RawClient, channel: str) -> None:
    """B91.1: with a registered connID the client id may be wrong or empty."""
    for client_id in ("somebody else", ""):
        message = client.publish_message(channel, b"x")
        message.clientID = client_id
        assert (await client.publish_raw(channel, message.SerializeToString())) == pb.PubAck(guid=message.guid)


@pytest.mark.asyncio
async def test_client_id_is_enough_without_connid(client: RawClient, channel: str) -> None:
    """B91.2: clients that never send a connID publish by client id."""
    message = client.publish_message(channel, b"x")
    message.connID = b""
    assert (await client.publish_raw(channel, message.SerializeToString())) == pb.PubAck(guid=message.guid)


@pytest.mark.asyncio
async def test_publish_of_a_closed_client_is_refused(clients: Clients, channel: str) -> None:
    """B91, B345: also when the same client published successfully just before."""
    client = await clients.connect()
    await publish_numbered(client, channel, 3)
    await client.close()
    assert (await client.publish(channel, b"x")).error == INVALID


@pytest.mark.asyncio
@pytest.mark.parametrize("routed_to", ["other.chan", "{channel}.more", "{channel}x"])
async def test_subject_must_be_the_channels(client: RawClient, channel: str, routed_to: str) -> None:
    """B94: a permission to publish on one subject is none for another channel, also after a good publish."""
    await publish_numbered(client, channel, 1)
    message = client.publish_message(channel, b"x")
    answer = await client.publish_raw(routed_to.format(channel=channel), message.SerializeToString())
    assert answer == pb.PubAck(guid=message.guid, error=INVALID)


@pytest.mark.asyncio
async def test_same_guid_twice_is_two_messages(client: RawClient, channel: str) -> None:
    """B95: the guid is echoed and nothing else; there is no deduplication."""
    message = client.publish_message(channel, b"x", guid="any string\n é")
    for _ in range(2):
        assert await client.publish_raw(channel, message.SerializeToString()) == pb.PubAck(guid=message.guid)
    reader = await client.subscribe(channel, start=pb.First)
    assert [message.sequence for message in await reader.take(2)] == [1, 2]


@pytest.mark.asyncio
async def test_delivered_message_has_exactly_the_published_fields(client: RawClient, channel: str) -> None:
    """B22, B96, B203: reply is kept, sha256 and unknown fields are not; data may be empty; no CRC is set."""
    before_ns = time.time_ns()
    message = client.publish_message(channel, b"", reply="answer.here")
    message.sha256 = b"ignored"
    unknown_field = b"\xba\x06\x01x"  # field 103, bytes
    answer = await client.publish_raw(channel, message.SerializeToString() + unknown_field)
    assert answer == pb.PubAck(guid=message.guid)
    reader = await client.subscribe(channel, start=pb.First)
    delivered = await reader.next()
    assert before_ns - CLOCK_TOLERANCE_NS < delivered.timestamp < time.time_ns() + CLOCK_TOLERANCE_NS
    assert delivered == pb.MsgProto(sequence=1, subject=channel, reply="answer.here", timestamp=delivered.timestamp)


@pytest.mark.asyncio
async def test_payload_bytes_are_untouched(client: RawClient, channel: str) -> None:
    """B96: any bytes, from nothing to large, come out as they went in."""
    sent = [b"", b"\x00", bytes(range(256)), b"\r\n", b"MSG x 1 0\r\n\r\n", b"z" * 200_000, b"\xff" * 63 * 1024]
    reader = await client.subscribe(channel)
    await accepted([client.publish_nowait(channel, data) for data in sent])
    assert payloads(await reader.take(len(sent))) == sent


@pytest.mark.asyncio
async def test_pubacks_come_in_the_order_of_publishes(client: RawClient, channel: str) -> None:
    """B98, B99, B210: only the guid in success, in order; sequences are consecutive in the order received."""
    inbox = client.nats.new_inbox()
    answers = listen(client.nats, inbox)
    reader = await client.subscribe(channel)
    guids = [f"guid-{number}" for number in range(500)]
    for guid in guids:
        message = client.publish_message(channel, guid.encode(), guid=guid)
        client.nats.publish(f"{client.subjects.pubPrefix}.{channel}", message.SerializeToString(), reply=inbox)
    delivered = await reader.take(500)
    await settle(client)
    assert [answer.data for answer in answers] == [pb.PubAck(guid=guid).SerializeToString() for guid in guids]
    assert [message.sequence for message in delivered] == list(range(1, 501))
    assert payloads(delivered) == [guid.encode() for guid in guids]
    timestamps = [message.timestamp for message in delivered]
    assert timestamps == sorted(timestamps)


@pytest.mark.asyncio
async def test_channels_are_numbered_apart(client: RawClient) -> None:
    """B99, B200: publishes to several channels in one burst get consecutive sequences in each."""
    names = [new_name("channel") for _ in range(7)]
    readers = [await client.subscribe(name) for name in names]
    await accepted([client.publish_nowait(names[n % 7], b"%d" % n) for n in range(210)])
    await settle(client)
    for reader in readers:
        assert reader.sequences == list(range(1, 31))


@pytest.mark.asyncio
async def test_bad_messages_of_a_batch_fail_alone(client: RawClient, channel: str) -> None:
    """B205: refused messages use no sequence, and their neighbours are stored."""
    good, bad = [], []
    reader = await client.subscribe(channel)
    for number in range(60):
        if number % 3 == 1:
            bad.append(client.publish_nowait(channel.upper(), b"bad"))
        elif number % 3 == 2:
            spoilt = client.publish_message(channel, b"bad")
            spoilt.connID = b"unknown"
            client.nats.publish(f"{client.subjects.pubPrefix}.{channel}", spoilt.SerializeToString())
        else:
            good.append(client.publish_nowait(channel, b"%d" % number))
    await accepted(good)
    assert {("different cases not allowed" in (await answer).error) for answer in bad} == {True}
    await settle(client)
    assert reader.sequences == list(range(1, 21))
    assert payloads(reader.received) == [b"%d" % number for number in range(0, 60, 3)]


@pytest.mark.asyncio
async def test_publishes_of_every_shape(client: RawClient, channel: str) -> None:
    """B91, B95, B96: any mix of present and absent fields and lengths, from one client on one channel, in any order.

    Every second message is encoded as no library does it: fields reversed, and the data twice (the last one counts).
    """
    chance = random.Random(11)
    inbox = client.nats.new_inbox()
    answers = listen(client.nats, inbox)
    reader = await client.subscribe(channel)
    sent: list[pb.PubMsg] = []
    for _ in range(600):
        message = client.publish_message(
            channel,
            chance.randbytes(chance.choice((0, 1, 5, 5, 5, 126, 127, 128, 129, 16383, 16384))),
            reply=chance.choice(("", "", "r", "reply" * 30)),
            guid=chance.choice("abc") * chance.choice((1, 22, 22, 22, 127, 128, 200)),
        )
        if chance.random() < 0.2:
            message.connID = b""
        elif chance.random() < 0.2:
            message.clientID = chance.choice(("", "x", "another"))
        encoded = message.SerializeToString()
        if chance.random() < 0.3:
            names = [field.name for field, _ in message.ListFields()]
            pieces = [pb.PubMsg(data=b"overwritten").SerializeToString()]
            pieces += [pb.PubMsg(**{name: getattr(message, name)}).SerializeToString() for name in reversed(names)]
            encoded = b"".join(pieces)
            message = pb.PubMsg.FromString(encoded)
        sent.append(message)
        client.nats.publish(f"{client.subjects.pubPrefix}.{channel}", encoded, reply=inbox)
    delivered = await reader.take(len(sent))
    await settle(client)
    assert [pb.PubAck.FromString(answer.data) for answer in answers] == [pb.PubAck(guid=m.guid) for m in sent]
    assert [(m.data, m.reply, m.subject) for m in delivered] == [(m.data, m.reply, channel) for m in sent]
    assert reader.sequences == list(range(1, len(sent) + 1))


@pytest.mark.asyncio
async def test_publish_without_reply_subject_is_stored(client: RawClient, channel: str) -> None:
    """B18: its answer is dropped."""
    message = client.publish_message(channel, b"x")
    reader = await client.subscribe(channel)
    client.nats.publish(f"{client.subjects.pubPrefix}.{channel}", message.SerializeToString())
    assert (await reader.next()).data == b"x"


@pytest.mark.asyncio
async def test_other_requests_without_reply_subject_are_processed(clients: Clients, channel: str) -> None:
    """B18: connect, subscribe and close take effect although nobody gets the answer."""
    client = await clients.connect()
    other = pb.ConnectRequest(
        clientID=new_name("client"), heartbeatInbox=client.nats.new_inbox(), protocol=1, connID=b"no reply"
    )
    client.nats.publish(client.connect_subject, other.SerializeToString())
    inbox = client.nats.new_inbox()
    received = listen(client.nats, inbox)
    subscribe = pb.SubscriptionRequest(
        clientID=client.identity.client_id, subject=channel, inbox=inbox, maxInFlight=1, ackWaitInSecs=30
    )
    client.nats.publish(client.subjects.subRequests, subscribe.SerializeToString())
    await settle(client)
    ping = await client.nats.request(client.subjects.pingRequests, pb.Ping(connID=b"no reply").SerializeToString())
    assert ping.data == b""
    await publish_numbered(client, channel, 1)
    await settle(client)
    assert len(received) == 1
    client.nats.publish(client.subjects.closeRequests, pb.CloseRequest(clientID=other.clientID).SerializeToString())
    await settle(client)
    ping = await client.nats.request(client.subjects.pingRequests, pb.Ping(connID=b"no reply").SerializeToString())
    assert ping.data != b""


def _message_of_size(client: RawClient, channel: str, data_size: int) -> pb.PubMsg:
    """The shortest publish with so much data: one-letter guid, no connID."""
    return pb.PubMsg(clientID=client.identity.client_id, guid="g", subject=channel, data=b"z" * data_size)


def _delivered_size(channel: str, data_size: int, sequence: int) -> int:
    """Size of the redelivered message with the longest redelivery count."""
    return pb.MsgProto(
        sequence=sequence,
        subject=channel,
        data=b"z" * data_size,
        timestamp=time.time_ns(),
        redelivered=True,
        redeliveryCount=2**32 - 1,
    ).ByteSize()


@pytest.mark.asyncio
async def test_message_that_could_not_be_redelivered_is_refused(tmp_path: Path) -> None:
    """B97: what would exceed the max payload with its redelivery fields is refused; the channel goes on."""
    (tmp_path / "nats.conf").write_text(f"max_payload: {MAX_PAYLOAD}\n")
    with (
        NatsProcess(options=("-c", str(tmp_path / "nats.conf"))) as nats,
        ServerProcess(nats_url=nats.url, store="MEMORY") as server,
    ):
        async with Clients(server.url) as clients:
            client, channel = await clients.connect("c"), "o"
            largest = next(
                size for size in range(MAX_PAYLOAD, 0, -1) if _delivered_size(channel, size, 2**63) <= MAX_PAYLOAD
            )
            too_large = next(
                size for size in range(MAX_PAYLOAD, 0, -1)
                if _message_of_size(client, channel, size).ByteSize() <= MAX_PAYLOAD
            )  # fmt: skip
            assert _delivered_size(channel, too_large, 1) > MAX_PAYLOAD
            reader = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
            for size, error in ((largest, ""), (too_large, "nats: maximum payload exceeded"), (1, "")):
                message = _message_of_size(client, channel, size)
                answer = await client.publish_raw(channel, message.SerializeToString())
                assert (size, answer) == (size, pb.PubAck(guid="g", error=error))
            seen = await reader.take(4)
            assert [(m.sequence, len(m.data), m.redelivered) for m in seen] == [
                (1, largest, False),
                (2, 1, False),
                (1, largest, True),
                (2, 1, True),
            ]
