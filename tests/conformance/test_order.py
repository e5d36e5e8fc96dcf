"""Order between requests of one client that are sent without waiting for each other (B125-B127)."""

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, listen, marks, publish_numbered, settle, subscription_request
from tests.support.raw_client import RawClient


def close_request(client: RawClient) -> bytes:
    """The encoded CloseRequest of `client`."""
    return pb.CloseRequest(clientID=client.identity.client_id).SerializeToString()


@pytest.mark.asyncio
async def test_publishes_then_connection_close(client: RawClient, clients: Clients, channel: str) -> None:
    """B92, B126: all publishes before the close are accepted and stored."""
    leaving = await clients.connect()
    before = [leaving.publish_nowait(channel, b"%d" % number) for number in range(1, 101)]
    closed = listen(leaving.nats, reply := leaving.nats.new_inbox())
    leaving.nats.publish(leaving.subjects.closeRequests, close_request(leaving), reply=reply)
    assert {(await ack).error for ack in before} == {""}
    await settle(client)
    await leaving.nats.flush()
    assert [answer.data for answer in closed] == [b""]
    reader = await client.subscribe(channel, start=pb.First)
    await settle(client)
    assert [int(message.data) for message in reader.received] == list(range(1, 101))


@pytest.mark.asyncio
async def test_connection_close_then_publishes(client: RawClient, clients: Clients, channel: str) -> None:
    """B127, B345: what a client sends after its close is refused, also when both come in one read."""
    leaving = await clients.connect()
    await publish_numbered(leaving, channel, 1)
    leaving.nats.publish(leaving.subjects.closeRequests, close_request(leaving))
    after = [leaving.publish_nowait(channel, b"after") for _ in range(10)]
    assert {(await ack).error for ack in after} == {"stan: invalid publish request"}
    reader = await client.subscribe(channel, start=pb.First)
    await settle(client)
    assert reader.sequences == [1]


@pytest.mark.asyncio
@pytest.mark.parametrize("end", ["subscription close", "connection close"])
async def test_acks_then_the_end_of_the_subscription(clients: Clients, channel: str, end: str) -> None:
    """B126: acks sent before the end count, so the durable has only the rest pending."""
    client = await clients.connect()
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await publish_numbered(client, channel, 100)
    await durable.wait_count(100)
    for sequence in range(1, 100):
        durable.ack(sequence)
    if end == "subscription close":
        assert (await client.close_subscription(durable)).error == ""
    else:
        assert (await client.close()).error == ""
        client = await clients.connect(client.identity.client_id)
    resumed = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await settle(client)
    assert marks(resumed.received) == [(100, True, 1)]


@pytest.mark.asyncio
async def test_subscription_close_then_connection_close(client: RawClient, clients: Clients, channel: str) -> None:
    """B126: both succeed, in this order."""
    leaving = await clients.connect()
    durable = await leaving.subscribe(channel, durable_name="d")
    answers = listen(leaving.nats, reply := leaving.nats.new_inbox())
    request = pb.UnsubscribeRequest(clientID=leaving.identity.client_id, subject=channel, inbox=durable.ack_inbox)
    leaving.nats.publish(leaving.subjects.subCloseRequests, request.SerializeToString(), reply=reply)
    leaving.nats.publish(leaving.subjects.closeRequests, close_request(leaving), reply=reply)
    await leaving.nats.flush()
    await settle(client)
    await leaving.nats.flush()
    assert [answer.data for answer in answers] == [b"", b""]


@pytest.mark.asyncio
@pytest.mark.parametrize("publisher", ["the same client", "another client"])
async def test_acked_publish_then_subscribe_new_only(
    client: RawClient, clients: Clients, channel: str, publisher: str
) -> None:
    """B126: the subscription starts after a message whose PubAck was seen, whoever published it."""
    other = client if publisher == "the same client" else await clients.connect()
    for number in range(1, 11):
        await publish_numbered(other, channel, 1)
        subscription = await client.subscribe(channel)
        await publish_numbered(other, channel, 1)
        assert (await subscription.next()).sequence == 2 * number
        await client.unsubscribe(subscription)


@pytest.mark.asyncio
async def test_publish_then_subscribe_without_waiting(client: RawClient, channel: str) -> None:
    """B125, B127: in arrival order the publish comes first, so NewOnly starts after it."""
    inbox = client.nats.new_inbox()
    received = listen(client.nats, inbox)
    acks = [client.publish_nowait(channel, b"before") for _ in range(20)]
    request = subscription_request(client, channel, inbox=inbox)
    client.nats.publish(client.subjects.subRequests, request.SerializeToString(), reply=client.nats.new_inbox())
    acks += [client.publish_nowait(channel, b"after") for _ in range(20)]
    for ack in acks:
        assert (await ack).error == ""
    await settle(client)
    assert [pb.MsgProto.FromString(message.data).sequence for message in received] == list(range(21, 41))


@pytest.mark.asyncio
async def test_subscribe_then_close_by_inbox_without_waiting(client: RawClient, channel: str) -> None:
    """B100, B127: a client that does not wait for the answer closes by its delivery inbox; nothing is left online."""
    request = subscription_request(client, channel, durableName="d")
    close = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=request.inbox)
    answers = listen(client.nats, reply := client.nats.new_inbox())
    client.nats.publish(client.subjects.subRequests, request.SerializeToString(), reply=reply)
    client.nats.publish(client.subjects.subCloseRequests, close.SerializeToString(), reply=reply)
    await settle(client)
    assert [pb.SubscriptionResponse.FromString(answer.data).error for answer in answers] == ["", ""]
    assert (await client.subscribe(channel, durable_name="d")).error == ""


@pytest.mark.asyncio
async def test_subscribe_then_connection_close_without_waiting(clients: Clients, channel: str) -> None:
    """B127, B345: the subscription ends with the connection, so the durable is offline for the next instance."""
    client = await clients.connect()
    request = subscription_request(client, channel, durableName="d")
    client.nats.publish(client.subjects.subRequests, request.SerializeToString(), reply=client.nats.new_inbox())
    assert (await client.close()).error == ""
    again = await clients.connect(client.identity.client_id)
    resumed = await again.subscribe(channel, durable_name="d")
    assert resumed.error == ""
    await publish_numbered(again, channel, 1)
    assert (await resumed.next()).sequence == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(("subject", "first"), [("unsubRequests", 5), ("subCloseRequests", 4)])
async def test_end_of_a_durable_then_subscribe_without_waiting(
    client: RawClient, channel: str, subject: str, first: int
) -> None:
    """B127, B222, B288: after an unsubscribe the name starts anew at the request's position, after a close it resumes."""
    durable = await client.subscribe(channel, durable_name="d", max_in_flight=3)
    await publish_numbered(client, channel, 3)
    await durable.wait_count(3)
    await settle(client)
    durable.auto_ack = False
    await publish_numbered(client, channel, 1)
    await durable.wait_count(4)
    end = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=durable.ack_inbox)
    request = subscription_request(client, channel, durableName="d", startPosition=pb.NewOnly)
    received = listen(client.nats, request.inbox)
    answers = listen(client.nats, reply := client.nats.new_inbox())
    client.nats.publish(getattr(client.subjects, subject), end.SerializeToString(), reply=reply)
    client.nats.publish(client.subjects.subRequests, request.SerializeToString(), reply=reply)
    await settle(client)
    await publish_numbered(client, channel, 1)
    await settle(client)
    assert [pb.SubscriptionResponse.FromString(answer.data).error for answer in answers] == ["", ""]
    assert [pb.MsgProto.FromString(message.data).sequence for message in received] == list(range(first, 6))


@pytest.mark.asyncio
async def test_answered_subscribe_then_publish(client: RawClient, clients: Clients, channel: str) -> None:
    """B126: whatever anybody publishes after the answer is delivered to the subscription."""
    other = await clients.connect()
    subscription = await client.subscribe(channel)
    await publish_numbered(other, channel, 1)
    assert (await subscription.next()).sequence == 1


@pytest.mark.asyncio
async def test_connect_close_connect_without_waiting(clients: Clients, channel: str) -> None:
    """B125: close and a new connect with the same id, sent together, leave the new registration."""
    client = await clients.connect()
    request = pb.ConnectRequest(
        clientID=client.identity.client_id, heartbeatInbox=client.identity.heartbeat_inbox, protocol=1, connID=b"new id"
    )
    answers = listen(client.nats, reply := client.nats.new_inbox())
    client.nats.publish(client.subjects.closeRequests, close_request(client), reply=reply)
    client.nats.publish(client.connect_subject, request.SerializeToString(), reply=reply)
    other = await clients.connect()
    await settle(other)
    await client.nats.flush()
    assert [pb.ConnectResponse.FromString(answer.data).error for answer in answers] == ["", ""]
    ping = await client.nats.request(client.subjects.pingRequests, pb.Ping(connID=b"new id").SerializeToString())
    assert ping.data == b""
