"""Error texts, empty and hostile payloads on every subject (B25-B31, B41, B85, B120).

Several faults in one request: test_check_order.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from google.protobuf.message import DecodeError, Message

from server.protocol import stan_pb2 as pb
from tests.conformance import hostile
from tests.conformance.steps import Clients, listen, new_name, publish_numbered, settle
from tests.support.raw_client import RawClient, RawSubscription

INVALID_CLIENT_ID = "stan: invalid clientID: only alphanumeric and `-` or `_` characters allowed"
LARGEST_PAYLOAD = 1_048_576
"""NATS's default max_payload, bytes."""


@dataclass(frozen=True)
class Operation:
    """A request, the subject field of the ConnectResponse, and the texts it may be answered with."""

    name: str
    subject: Callable[[RawClient, str], str]
    request: Callable[[RawClient, str, RawSubscription], Message]
    answer: type[Message]
    undecodable: str
    empty: str
    errors: frozenset[str]


def _subscription_request(
    queue_group: str, client: RawClient, channel: str, _subscription: RawSubscription
) -> pb.SubscriptionRequest:
    return pb.SubscriptionRequest(
        clientID=client.identity.client_id,
        subject=channel,
        qGroup=queue_group,
        inbox=client.nats.new_inbox(),
        maxInFlight=1000,
        ackWaitInSecs=3000,
        durableName=new_name("d"),
        startPosition=pb.SequenceStart,
        startSequence=2**40,
        startTimeDelta=2**50,
    )


OPERATIONS = [
    Operation(
        "connect",
        lambda client, _channel: client.connect_subject,
        lambda client, _channel, _subscription: pb.ConnectRequest(
            clientID=new_name("hostile"),
            heartbeatInbox=client.nats.new_inbox(),
            protocol=1,
            connID=b"hostile",
            pingInterval=5,
            pingMaxOut=3,
        ),
        pb.ConnectResponse,
        "stan: invalid connection request",
        "stan: invalid connection request",
        frozenset({"stan: invalid connection request", INVALID_CLIENT_ID, "stan: clientID already registered"}),
    ),
    Operation(
        "publish",
        lambda client, channel: f"{client.subjects.pubPrefix}.{channel}",
        lambda client, channel, _subscription: client.publish_message(channel, b"data", reply="reply"),
        pb.PubAck,
        "stan: invalid publish request",
        "stan: invalid publish request",
        frozenset({"stan: invalid publish request"}),
    ),
    *(
        Operation(
            name,
            lambda client, _channel: client.subjects.subRequests,
            partial(_subscription_request, queue_group),
            pb.SubscriptionResponse,
            "stan: invalid subscription request",
            "stan: clientID missing",
            frozenset(
                {
                    "stan: invalid subscription request",
                    "stan: clientID missing",
                    "stan: invalid ack wait time, should be >= 1s",
                    "stan: invalid MaxInflight, should be >= 1",
                    "stan: invalid start position",
                    "stan: invalid subject",
                    "stan: unknown clientID",
                    "stan: duplicate durable registration",
                    "stan: durable name of a durable queue subscriber can't contain the character ':'",
                }
            ),
        )
        for name, queue_group in (("subscribe", ""), ("join", "g"))
    ),
    *(
        Operation(
            name,
            subject,
            lambda client, _channel, subscription: pb.UnsubscribeRequest(
                clientID=client.identity.client_id,
                subject=subscription.channel,
                inbox=subscription.ack_inbox,
                durableName="d",
            ),
            pb.SubscriptionResponse,
            "stan: invalid unsubscribe request",
            "stan: unknown channel",
            frozenset(
                {
                    "stan: invalid unsubscribe request",
                    "stan: unknown channel",
                    "stan: invalid subscription",
                    "stan: unknown clientID",
                }
            ),
        )
        for name, subject in (
            ("unsubscribe", lambda client, _channel: client.subjects.unsubRequests),
            ("subscription close", lambda client, _channel: client.subjects.subCloseRequests),
        )
    ),
    Operation(
        "close",
        lambda client, _channel: client.subjects.closeRequests,
        lambda client, _channel, _subscription: pb.CloseRequest(clientID=client.identity.client_id),
        pb.CloseResponse,
        "stan: invalid close request",
        "stan: unknown clientID",
        frozenset({"stan: invalid close request", "stan: unknown clientID"}),
    ),
]
"""Operations that are always answered; pings and acks are dropped in silence instead (B25)."""

EVERY = pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.name for operation in OPERATIONS])


@EVERY
@pytest.mark.asyncio
async def test_undecodable_and_empty_payloads(client: RawClient, channel: str, operation: Operation) -> None:
    """B25, B26: each operation has its own text, and the answer has nothing but the error."""
    for payload, error in ((b"dummy", operation.undecodable), (b"", operation.empty)):
        answer = await client.nats.request(operation.subject(client, channel), payload)
        assert operation.answer.FromString(answer.data) == operation.answer(error=error)


@EVERY
@pytest.mark.asyncio
async def test_unknown_fields_are_ignored(clients: Clients, channel: str, operation: Operation) -> None:
    """B27: a request with fields of a later protocol is processed as if they were not there."""
    client = await clients.connect()
    subscription = await client.subscribe(channel)
    request = operation.request(client, channel, subscription).SerializeToString()
    answer = await client.nats.request(operation.subject(client, channel), request + b"\xfa\x3f\x03new\xf0\x3f\x07")
    assert operation.answer.FromString(answer.data).error == ""  # type: ignore[attr-defined]


@EVERY
@pytest.mark.asyncio
async def test_hostile_payloads_get_one_answer_each(clients: Clients, channel: str, operation: Operation) -> None:
    """B25, B28-B32: each is answered once, with the text for undecodable if it is, and correct requests still work."""
    attacker, client = await clients.connect(), await clients.connect()
    subscription = await attacker.subscribe(channel)
    sent: dict[str, bytes] = {}
    prefix = attacker.nats.new_inbox()
    answers = listen(attacker.nats, f"{prefix}.*")
    valid = operation.request(attacker, channel, subscription).SerializeToString()
    subject = operation.subject(attacker, channel)
    for number, payload in enumerate(hostile.payloads(valid, seed=7)):
        sent[f"{prefix}.{number}"] = payload
        attacker.nats.publish(subject, payload, reply=f"{prefix}.{number}")
    await attacker.nats.flush()
    await settle(client)
    await attacker.nats.flush()
    assert sorted(message.subject for message in answers) == sorted(sent)
    request_type = type(operation.request(attacker, channel, subscription))
    for message in answers:
        payload = sent[message.subject]
        error = operation.answer.FromString(message.data).error  # type: ignore[attr-defined]
        try:
            request_type.FromString(payload)
        except DecodeError:
            assert (payload, error) == (payload, operation.undecodable)
        else:
            is_known = error in operation.errors or error.startswith('rejecting channel "')  # B63, of a spoilt name
            assert error == "" or is_known, (payload, error)
    await check_service(client, clients, channel)


async def check_service(client: RawClient, clients: Clients, channel: str) -> None:
    """Every operation works for an honest client."""
    subscription = await client.subscribe(channel)
    await publish_numbered(client, channel, 3)
    assert len(await subscription.take(3)) == 3
    assert (await client.ping()).error == ""
    assert (await client.close_subscription(subscription)).error == ""
    assert (await client.unsubscribe(await client.subscribe(channel))).error == ""
    other = await clients.connect()
    assert (await other.close()).error == ""


@pytest.mark.asyncio
async def test_hostile_publishes_are_stored_only_if_they_are_valid(clients: Clients, channel: str) -> None:
    """B90-B94: by the oracle of the protobuf library, before and after a good publish from the same client."""
    attacker, client = await clients.connect(), await clients.connect()
    reader = await client.subscribe(channel)
    await publish_numbered(attacker, channel, 1)
    good = attacker.publish_message(channel, b"data", reply="reply", guid="guid")
    expected = [b"1"]
    subject = f"{attacker.subjects.pubPrefix}.{channel}"
    for payload in hostile.payloads(good.SerializeToString(), seed=8):
        attacker.nats.publish(subject, payload)
        try:
            message = pb.PubMsg.FromString(payload)
        except DecodeError:
            continue
        identity = attacker.identity
        is_known = message.connID == identity.conn_id or (not message.connID and message.clientID == identity.client_id)
        if is_known and message.guid and message.subject == channel:
            expected.append(message.data)
    await attacker.nats.flush()
    await settle(attacker)
    await settle(client)
    assert [message.data for message in reader.received] == expected
    assert reader.sequences == list(range(1, len(expected) + 1))


@pytest.mark.asyncio
async def test_hostile_pings_and_acks_are_dropped(clients: Clients, channel: str) -> None:
    """B25, B28, B72, B110: no answer to what does not decode, no harm to the subscription."""
    attacker, client = await clients.connect(), await clients.connect()
    subscription = await attacker.subscribe(channel, max_in_flight=1, auto_ack=False)
    await publish_numbered(client, channel, 2)
    await subscription.take(1)
    reply = attacker.nats.new_inbox()
    answers = listen(attacker.nats, reply)
    unknown = pb.PingResponse(error="client has been replaced or is no longer registered").SerializeToString()
    may_answer = 0
    for payload in hostile.payloads(pb.Ping(connID=attacker.identity.conn_id).SerializeToString(), seed=9):
        attacker.nats.publish(attacker.subjects.pingRequests, payload, reply=reply)
        try:
            may_answer += bool(pb.Ping.FromString(payload).connID)
        except DecodeError:
            continue
    for payload in hostile.payloads(pb.Ack(subject=channel, sequence=1).SerializeToString(), seed=10):
        try:
            ack = pb.Ack.FromString(payload)
            if ack.subject == channel and ack.sequence in (1, 2):
                continue  # a good ack
        except DecodeError:
            pass
        attacker.nats.publish(subscription.ack_inbox, payload, reply=reply)
    await attacker.nats.flush()
    await settle(attacker)
    assert len(answers) == may_answer
    assert {answer.data for answer in answers} <= {b"", unknown}
    assert subscription.sequences == [1]
    subscription.ack(1)
    assert (await subscription.next()).sequence == 2
    await check_service(client, clients, channel)


@pytest.mark.asyncio
async def test_largest_payloads(client: RawClient, clients: Clients, channel: str) -> None:
    """B96: a publish of the largest payload that NATS lets through is refused or stored, and nothing stops."""
    for surplus in (200, 100, 60, 30, 10, 0):
        message = client.publish_message(channel, b"")
        message.connID = b""
        message.data = b"z" * (LARGEST_PAYLOAD - surplus - message.ByteSize() - 4)
        ack = await client.publish_raw(channel, message.SerializeToString())
        assert ack.error in ("", "nats: maximum payload exceeded")
    for subject in (client.connect_subject, client.subjects.subRequests, client.subjects.closeRequests):
        answer = await client.nats.request(subject, b"\xff" * LARGEST_PAYLOAD)
        assert b"stan: invalid" in answer.data
    await check_service(client, clients, channel)
    reader = await client.subscribe(channel, start=pb.First)
    await settle(client)
    assert reader.sequences == list(range(1, len(reader.received) + 1))


INJECTIONS = [
    "evil\r\nPUB evil 4\r\nevil\r\n",
    "evil 4\r\nevil\r\nPUB other",
    "evil 0\r\n\r\nSUB > 1\r\n",
    "evil\nPUB evil 0\n",
    "evil reply 5",
    "evil\tx",
    "evil.*",
    ">",
    "evil..x",
]


@pytest.mark.asyncio
@pytest.mark.parametrize("text", INJECTIONS)
async def test_no_name_of_a_client_gets_into_the_nats_protocol(
    client: RawClient, clients: Clients, channel: str, text: str
) -> None:
    """B41, B61, B85: inboxes with line ends, blanks or wildcards are refused, in channels and replies they do no harm."""
    evil = listen(client.nats, "evil.>")
    client.nats.subscribe("evil", evil.append)
    connect = pb.ConnectRequest(clientID=new_name("client"), heartbeatInbox=text, protocol=1, connID=b"c")
    answer = await client.nats.request(client.connect_subject, connect.SerializeToString())
    assert pb.ConnectResponse.FromString(answer.data).error == "stan: invalid connection request"
    assert (await client.publish(channel, text.encode(), reply=text)).error == ""
    for name, inbox in ((text, "_INBOX.good"), (channel, text)):
        request = pb.SubscriptionRequest(
            clientID=client.identity.client_id, subject=name, inbox=inbox, maxInFlight=1, ackWaitInSecs=30,
            startPosition=pb.First,
        )  # fmt: skip
        answer = await client.nats.request(client.subjects.subRequests, request.SerializeToString())
        assert pb.SubscriptionResponse.FromString(answer.data).error in (
            "stan: invalid subject",
            "stan: invalid subscription request",
        )
    reader = await client.subscribe(channel, start=pb.First, durable_name=text)
    delivered = await reader.next()
    assert (delivered.reply, delivered.data) == (text, text.encode())
    await settle(client)
    assert evil == []
    await check_service(client, clients, channel)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "reply", ["a.*", ">", "*", "..", "x.", "_STAN.pub.test-cluster.loop", "_STAN.close.test-cluster"]
)
async def test_strange_reply_subjects(client: RawClient, clients: Clients, channel: str, reply: str) -> None:
    """B18: an answer to such a subject does no harm to the server's connection, nor does one to its own subjects."""
    message = client.publish_message(channel, b"x").SerializeToString()
    client.nats.publish(f"{client.subjects.pubPrefix}.{channel}", message, reply=reply)
    client.nats.publish(client.subjects.closeRequests, b"dummy", reply=reply)
    client.nats.publish(client.subjects.pingRequests, pb.Ping(connID=b"none").SerializeToString(), reply=reply)
    await client.nats.flush()
    await check_service(client, clients, channel)
