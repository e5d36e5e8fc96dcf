"""Unsubscribe and close of a subscription (B100-B104, B239, B350)."""

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, ask, publish_numbered, settle
from tests.support.raw_client import RawClient, RawSubscription

BOTH = pytest.mark.parametrize("subject", ["unsubRequests", "subCloseRequests"])
"""The same request goes to two subjects (B100)."""


async def end(client: RawClient, subject: str, request: pb.UnsubscribeRequest) -> str:
    """Sends the request to the subject of that field of the ConnectResponse; the answer's error."""
    answer = await ask(client.nats, getattr(client.subjects, subject), request, pb.SubscriptionResponse.FromString)
    assert answer.ackInbox == ""
    return answer.error


def request_for(client: RawClient, subscription: RawSubscription, **fields: object) -> pb.UnsubscribeRequest:
    """A correct request by ack inbox; `fields` replace or add to it."""
    request = pb.UnsubscribeRequest(
        clientID=client.identity.client_id, subject=subscription.channel, inbox=subscription.ack_inbox
    )
    for name, value in fields.items():
        setattr(request, name, value)
    return request


@BOTH
@pytest.mark.asyncio
async def test_subscription_ends(client: RawClient, channel: str, subject: str) -> None:
    """B100, B104, B239: named by its ack inbox; nothing is sent any more, and a second end finds nothing."""
    ended, other = await client.subscribe(channel), await client.subscribe(channel)
    await publish_numbered(client, channel, 1)
    await settle(client)
    assert await end(client, subject, request_for(client, ended)) == ""
    await publish_numbered(client, channel, 1)
    await settle(client)
    assert [ended.sequences, other.sequences] == [[1], [1, 2]]
    assert await end(client, subject, request_for(client, ended)) == "stan: invalid subscription"


@BOTH
@pytest.mark.asyncio
async def test_by_delivery_inbox(client: RawClient, channel: str, subject: str) -> None:
    """B100: a client that never got the answer knows only its own inbox."""
    ended = await client.subscribe(channel)
    assert await end(client, subject, request_for(client, ended, inbox=ended.inbox)) == ""
    assert await end(client, subject, request_for(client, ended)) == "stan: invalid subscription"


@BOTH
@pytest.mark.asyncio
async def test_without_reply_subject(client: RawClient, channel: str, subject: str) -> None:
    """B18, B100: stan.go closes so after a timeout."""
    ended = await client.subscribe(channel)
    request = request_for(client, ended, inbox=ended.inbox)
    client.nats.publish(getattr(client.subjects, subject), request.SerializeToString())
    await settle(client)
    assert await end(client, subject, request_for(client, ended)) == "stan: invalid subscription"


@BOTH
@pytest.mark.asyncio
async def test_errors_in_order(client: RawClient, clients: Clients, channel: str, subject: str) -> None:
    """B101: channel, then subscription, then its owner; the subscription stays."""
    subscription = await client.subscribe(channel)
    other = await clients.connect()
    cases = [
        (
            request_for(client, subscription, subject="unknown", inbox="_INBOX.no", clientID="no"),
            "stan: unknown channel",
        ),
        (request_for(client, subscription, subject="", inbox=""), "stan: unknown channel"),
        (request_for(client, subscription, inbox="_INBOX.no", clientID="no"), "stan: invalid subscription"),
        (request_for(client, subscription, inbox=""), "stan: invalid subscription"),
        (request_for(client, subscription, clientID="no"), "stan: unknown clientID"),
        (request_for(client, subscription, clientID=""), "stan: unknown clientID"),
        (request_for(other, subscription), "stan: unknown clientID"),
    ]
    for request, error in cases:
        assert (request, await end(client, subject, request)) == (request, error)
    await publish_numbered(client, channel, 1)
    await settle(client)
    assert subscription.sequences == [1]


@BOTH
@pytest.mark.asyncio
async def test_channel_of_the_request_counts(client: RawClient, channel: str, subject: str) -> None:
    """B100: the subscription is looked up in the channel that the request names."""
    subscription = await client.subscribe(channel)
    await publish_numbered(client, f"{channel}.other", 1)
    request = request_for(client, subscription, subject=f"{channel}.other")
    assert await end(client, subject, request) == "stan: invalid subscription"


@BOTH
@pytest.mark.asyncio
async def test_durable_name_is_ignored(client: RawClient, channel: str, subject: str) -> None:
    """B102: a plain subscription ends by its inbox whatever durable name stands there."""
    subscription = await client.subscribe(channel)
    assert await end(client, subject, request_for(client, subscription, durableName="other")) == ""


@BOTH
@pytest.mark.asyncio
async def test_offline_durable_is_not_found(client: RawClient, channel: str, subject: str) -> None:
    """B102: neither its old inboxes nor its name reach a durable that is offline."""
    durable = await client.subscribe(channel, durable_name="d")
    await client.close_subscription(durable)
    for inbox in (durable.ack_inbox, durable.inbox):
        request = request_for(client, durable, inbox=inbox, durableName="d")
        assert await end(client, subject, request) == "stan: invalid subscription"
    await publish_numbered(client, channel, 1)
    resumed = await client.subscribe(channel, durable_name="d", start=pb.NewOnly)
    assert (await resumed.next()).sequence == 1


@pytest.mark.asyncio
async def test_acks_before_the_close_count(client: RawClient, channel: str) -> None:
    """B103: an ack sent right before a close is processed before it."""
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await publish_numbered(client, channel, 4)
    await durable.wait_count(4)
    for sequence in (1, 2, 4):
        durable.ack(sequence)
    assert (await client.close_subscription(durable)).error == ""
    resumed = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await settle(client)
    assert resumed.sequences == [3]


@pytest.mark.asyncio
async def test_end_with_pending_messages(client: RawClient, channel: str) -> None:
    """B351: pending messages of a plain subscription are not redelivered to anyone and stay in the log."""
    ended = await client.subscribe(channel, auto_ack=False)
    await publish_numbered(client, channel, 3)
    await ended.wait_count(3)
    assert (await client.unsubscribe(ended)).error == ""
    reader = await client.subscribe(channel, start=pb.First)
    await settle(client)
    assert [(message.sequence, message.redelivered) for message in reader.received] == [
        (1, False),
        (2, False),
        (3, False),
    ]
