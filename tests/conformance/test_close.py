"""End of a client by request (B105, B106, B345, B346, B350)."""

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, ask, new_name, publish_numbered, settle
from tests.support.raw_client import RawClient

UNKNOWN = "stan: unknown clientID"
REPLACED = "client has been replaced or is no longer registered"


@pytest.mark.asyncio
async def test_unknown_client(client: RawClient) -> None:
    """B105: also for an empty id."""
    for client_id in ("nobody", ""):
        request = pb.CloseRequest(clientID=client_id)
        answer = await ask(client.nats, client.subjects.closeRequests, request, pb.CloseResponse.FromString)
        assert answer == pb.CloseResponse(error=UNKNOWN)


@pytest.mark.asyncio
async def test_closed_client_is_unknown_to_every_request(clients: Clients, channel: str) -> None:
    """B105, B345: closed once, then publishes, pings, subscribes, closes fail."""
    client = await clients.connect()
    subscription = await client.subscribe(channel)
    assert (await client.close()).error == ""
    assert (await client.close()).error == UNKNOWN
    assert (await client.ping()).error == REPLACED
    assert (await client.publish(channel, b"x")).error == "stan: invalid publish request"
    assert (await client.subscribe(channel)).error == UNKNOWN
    assert (await client.close_subscription(subscription)).error == "stan: invalid subscription"


@pytest.mark.asyncio
async def test_client_id_is_free_after_the_close(clients: Clients) -> None:
    """B105: the answer comes after the removal, so the id can be used without a probe of the old client."""
    client_id = new_name("client")
    for _ in range(5):
        client = await clients.connect(client_id)
        assert (await client.close()).error == ""
        assert client.heartbeats == 0


@pytest.mark.asyncio
async def test_plain_subscriptions_end_and_durables_go_offline(
    client: RawClient, clients: Clients, channel: str
) -> None:
    """B345, B350: nothing is delivered any more; the durable goes on where it was when it is resumed."""
    leaving = await clients.connect()
    plain = await leaving.subscribe(channel, auto_ack=False)
    durable = await leaving.subscribe(channel, durable_name="d", auto_ack=False)
    await publish_numbered(client, channel, 2)
    await plain.wait_count(2)
    await durable.wait_count(2)
    durable.ack(1)
    assert (await leaving.close()).error == ""
    await publish_numbered(client, channel, 1)
    await settle(client)
    await leaving.nats.flush()
    assert [plain.sequences, durable.sequences] == [[1, 2], [1, 2]]
    again = await clients.connect(leaving.identity.client_id)
    resumed = await again.subscribe(channel, durable_name="d")
    assert [(m.sequence, m.redelivered) for m in await resumed.take(2)] == [(2, True), (3, False)]


@pytest.mark.asyncio
async def test_pubacks_of_earlier_publishes_still_come(clients: Clients, channel: str) -> None:
    """B92, B346: publishes received before the close are stored and acked."""
    client, reader_client = await clients.connect(), await clients.connect()
    acks = [client.publish_nowait(channel, b"%d" % number) for number in range(300)]
    assert (await client.close()).error == ""
    for ack in acks:
        assert (await ack).error == ""
    reader = await reader_client.subscribe(channel, start=pb.First)
    assert [int(message.data) for message in await reader.take(300)] == list(range(300))


@pytest.mark.asyncio
async def test_two_closes_at_once(clients: Clients) -> None:
    """B105: the first one succeeds, the second finds nobody."""
    client = await clients.connect()
    request = pb.CloseRequest(clientID=client.identity.client_id).SerializeToString()
    inbox = client.nats.new_inbox()
    answers: list[bytes] = []
    client.nats.subscribe(inbox, lambda message: answers.append(message.data))
    client.nats.publish(client.subjects.closeRequests, request, reply=inbox)
    client.nats.publish(client.subjects.closeRequests, request, reply=inbox)
    other = await clients.connect()
    await settle(other)
    await client.nats.flush()
    assert sorted(answers) == [b"", pb.CloseResponse(error=UNKNOWN).SerializeToString()]
