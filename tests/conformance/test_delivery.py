"""Delivery of new messages and max in flight (B230-B243, B422)."""

import asyncio

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, accepted, marks, new_name, payloads, publish_numbered, settle
from tests.support.raw_client import ClientIdentity, RawClient, RawSubscription
from tests.support.server_process import ServerProcess

LIBRARY_WINDOW = 16384
"""Publishes that every library lets be under way, and node-nats-streaming's default max in flight. Source: B148."""


@pytest.mark.asyncio
async def test_every_subscription_gets_every_message_once(clients: Clients, channel: str) -> None:
    """B230, B240: in order, each as new, also several subscriptions of one client."""
    client, other = await clients.connect(), await clients.connect()
    subscriptions = [await client.subscribe(channel) for _ in range(3)] + [await other.subscribe(channel)]
    await publish_numbered(client, channel, 200)
    await settle(client)
    await settle(other)
    for subscription in subscriptions:
        assert marks(subscription.received) == [(sequence, False, 0) for sequence in range(1, 201)]
        assert payloads(subscription.received) == [b"%d" % number for number in range(1, 201)]


@pytest.mark.asyncio
async def test_messages_stay_when_all_have_read_them(client: RawClient, channel: str) -> None:
    """B201: stored without any subscription, delivered and acked by two, they are all there for a third."""
    await publish_numbered(client, channel, 5)
    for durable_name in ("", "d"):
        reader = await client.subscribe(channel, start=pb.First, durable_name=durable_name)
        await reader.wait_count(5)
        await client.unsubscribe(reader)
    late = await client.subscribe(channel, start=pb.First)
    assert marks(await late.take(5)) == [(sequence, False, 0) for sequence in range(1, 6)]


@pytest.mark.asyncio
async def test_backlog_is_delivered_in_order(client: RawClient, channel: str) -> None:
    """B215, B230: what was stored before anybody subscribed, more than one window of it."""
    await publish_numbered(client, channel, 1000)
    subscription = await client.subscribe(channel, start=pb.First, max_in_flight=100)
    await subscription.wait_count(1000)
    await settle(client)
    assert subscription.sequences == list(range(1, 1001))


@pytest.mark.asyncio
async def test_backlog_and_new_messages_meet_without_a_seam(clients: Clients, channel: str) -> None:
    """B230: a subscription that catches up while messages come in misses and doubles none."""
    client, publisher = await clients.connect(), await clients.connect()
    await publish_numbered(publisher, channel, 500)
    subscription = await client.subscribe(channel, start=pb.First, max_in_flight=7)
    acks = [publisher.publish_nowait(channel, b"x") for _ in range(500)]
    await accepted(acks)
    await subscription.wait_count(1000)
    assert subscription.sequences == list(range(1, 1001))


@pytest.mark.asyncio
async def test_full_subscription_waits_for_acks(client: RawClient, channel: str) -> None:
    """B232: no new message beyond max in flight; each ack lets as many through as fit."""
    subscription = await client.subscribe(channel, max_in_flight=4, auto_ack=False)
    await publish_numbered(client, channel, 10)
    await settle(client)
    assert subscription.sequences == [1, 2, 3, 4]
    subscription.ack(2)
    await settle(client)
    assert subscription.sequences == [1, 2, 3, 4, 5]
    for sequence in (1, 3, 4):
        subscription.ack(sequence)
    await settle(client)
    assert subscription.sequences == list(range(1, 9))
    await publish_numbered(client, channel, 5)
    await settle(client)
    assert subscription.sequences == list(range(1, 9))


@pytest.mark.asyncio
async def test_window_is_full_across_batches(client: RawClient, channel: str) -> None:
    """B232: one message at a time, published while the subscription has room and while it has none."""
    subscription = await client.subscribe(channel, max_in_flight=2, auto_ack=False)
    for count in range(1, 5):
        await publish_numbered(client, channel, 1)
        await settle(client)
        assert len(subscription.received) == min(count, 2)
    for sequence in range(1, 5):
        subscription.ack(sequence)
        await settle(client)
    assert subscription.sequences == [1, 2, 3, 4]


@pytest.mark.asyncio
async def test_stalled_subscription_delays_nobody(clients: Clients, channel: str) -> None:
    """B233, B241: others of the same and of other clients, and publishers, go on."""
    client, other = await clients.connect(), await clients.connect()
    stalled = await client.subscribe(channel, max_in_flight=1, auto_ack=False)
    neighbours = [await client.subscribe(channel), await other.subscribe(channel)]
    await publish_numbered(other, channel, 300)
    await settle(client)
    await settle(other)
    assert stalled.sequences == [1]
    for neighbour in neighbours:
        assert neighbour.sequences == list(range(1, 301))


@pytest.mark.asyncio
async def test_removed_messages_are_skipped(limited_server: ServerProcess, channel: str) -> None:
    """B204, B235: a stalled subscription goes on at the first message that is still there."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        subscription = await client.subscribe(channel, max_in_flight=1, auto_ack=False)
        await publish_numbered(client, channel, 1)
        await subscription.wait_count(1)
        await publish_numbered(client, channel, 11, first=2)
        await settle(client)
        assert subscription.sequences == [1]
        subscription.auto_ack = True
        subscription.ack(1)
        await subscription.wait_count(6)
        await settle(client)
        assert subscription.sequences == [1, 8, 9, 10, 11, 12]
        await publish_numbered(client, channel, 1)
        assert (await subscription.take(7))[-1].sequence == 13


@pytest.mark.asyncio
async def test_message_lost_on_the_way_comes_again(clients: Clients, channel: str) -> None:
    """B237: a client that was away for a moment gets it after the ack wait, flagged."""
    client = await clients.connect()
    subscription = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    client.nats.unsubscribe(subscription.nats_sid)
    await client.nats.flush()
    await publish_numbered(client, channel, 2)
    again = RawSubscription(client.nats, channel, subscription.inbox, auto_ack=True)
    again.accepted(subscription.ack_inbox)
    assert marks(await again.take(2)) == [(1, True, 1), (2, True, 1)]
    await publish_numbered(client, channel, 1)
    assert marks(await again.take(1)) == [(3, False, 0)]


@pytest.mark.asyncio
async def test_message_redelivered_to_one_is_new_to_another(client: RawClient, channel: str) -> None:
    """B243: flag and count are per subscription."""
    first = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 1)
    assert marks(await first.take(2)) == [(1, False, 0), (1, True, 1)]
    second = await client.subscribe(channel, start=pb.First, auto_ack=False)
    assert marks(await second.take(1)) == [(1, False, 0)]


@pytest.mark.asyncio
async def test_delivery_and_timers_stop_with_the_subscription(client: RawClient, channel: str) -> None:
    """B239: pending messages of ended subscriptions do not come again, while those of others do."""
    ended = [await client.subscribe(channel, ack_wait_s=1, auto_ack=False) for _ in range(2)]
    living = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 3)
    for subscription in (*ended, living):
        await subscription.wait_count(3)
    await client.unsubscribe(ended[0])
    await client.close_subscription(ended[1])
    await living.wait_count(6)
    await settle(client)
    assert [subscription.sequences for subscription in ended] == [[1, 2, 3], [1, 2, 3]]


@pytest.mark.asyncio
async def test_many_small_windows_drain(clients: Clients, channel: str) -> None:
    """B232: a client that acks each message at once gets everything, whatever its window."""
    client = await clients.connect()
    subscriptions = [await client.subscribe(channel, max_in_flight=window) for window in (1, 2, 3, 10, 1000)]
    await publish_numbered(client, channel, 300)
    async with asyncio.timeout(20):
        for subscription in subscriptions:
            await subscription.wait_count(300)
    await settle(client)
    for subscription in subscriptions:
        assert marks(subscription.received) == [(sequence, False, 0) for sequence in range(1, 301)]


@pytest.mark.asyncio
async def test_largest_windows_of_client_libraries(clients: Clients, channel: str) -> None:
    """B148: 16,384 publishes under way at once, and as many messages unacked at one subscription; then all is acked.

    The client has no connID in its publishes, as stan.java.
    """
    client = await clients.connect(identity=ClientIdentity(new_name("client"), conn_id=b"", protocol=0))
    subscription = await client.subscribe(channel, max_in_flight=LIBRARY_WINDOW, auto_ack=False)
    await accepted([client.publish_nowait(channel, b"x") for _ in range(LIBRARY_WINDOW + 1)])
    await settle(client)
    assert subscription.sequences == list(range(1, LIBRARY_WINDOW + 1))
    for sequence in range(LIBRARY_WINDOW, 0, -1):
        subscription.ack(sequence)
    await settle(client)
    assert subscription.sequences[LIBRARY_WINDOW:] == [LIBRARY_WINDOW + 1]
