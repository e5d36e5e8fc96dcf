"""Redelivery (B260-B275, B422). Heartbeat failures (B268) are in test_heartbeats.py."""

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, marks, payloads, publish_numbered, settle
from tests.support.raw_client import RawClient
from tests.support.server_process import ServerProcess


@pytest.mark.asyncio
async def test_unacked_messages_come_again_and_again(client: RawClient, channel: str) -> None:
    """B260, B262, B271, B272: the same message with flag and growing count, by deadline, without end; others not."""
    subscription = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 4)
    first = await subscription.take(4)
    subscription.ack(2)
    rounds = await subscription.take(3)
    subscription.ack(4)
    rounds += await subscription.take(4)
    subscription.ack(1)
    subscription.ack(3)
    assert marks(first) == [(sequence, False, 0) for sequence in (1, 2, 3, 4)]
    assert marks(rounds) == [
        (1, True, 1), (3, True, 1), (4, True, 1), (1, True, 2), (3, True, 2), (1, True, 3), (3, True, 3)
    ]  # fmt: skip
    by_sequence = {message.sequence: message for message in first}
    for message in rounds:
        original = by_sequence[message.sequence]
        assert (message.data, message.timestamp, message.subject) == (
            original.data,
            original.timestamp,
            original.subject,
        )


@pytest.mark.asyncio
async def test_redelivery_ignores_max_in_flight(client: RawClient, channel: str) -> None:
    """B265, B266: all pending messages of a full subscription come again, new ones only after an ack."""
    subscription = await client.subscribe(channel, ack_wait_s=1, max_in_flight=2, auto_ack=False)
    await publish_numbered(client, channel, 5)
    assert marks(await subscription.take(6)) == [
        (1, False, 0), (2, False, 0), (1, True, 1), (2, True, 1), (1, True, 2), (2, True, 2)
    ]  # fmt: skip
    subscription.ack(1)
    assert marks(await subscription.take(3)) == [(3, False, 0), (2, True, 3), (3, True, 1)]


@pytest.mark.asyncio
async def test_each_subscription_has_its_own_ack_wait(client: RawClient, channel: str) -> None:
    """B263, B274, B422: with 1 s and 2 s the short one comes again first, twice before the long one's second time."""
    order: list[str] = []
    short = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    long = await client.subscribe(channel, ack_wait_s=2, auto_ack=False)
    client.nats.subscribe(short.inbox, lambda _message: order.append("short"))
    client.nats.subscribe(long.inbox, lambda _message: order.append("long"))
    await publish_numbered(client, channel, 1)
    await short.wait_count(2)
    assert sorted(order) == ["long", "short", "short"]
    assert order[-1] == "short"
    await long.wait_count(2)
    await short.wait_count(3)
    await settle(client)
    assert order[3:] in (["short", "long"], ["long", "short"])


@pytest.mark.asyncio
async def test_deadlines_count_from_sending(client: RawClient, channel: str) -> None:
    """B234: a message that waited long in the log is not due at once when it is first sent."""
    ticks = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 1)
    await ticks.wait_count(2)
    late = await client.subscribe(channel, start=pb.First, ack_wait_s=1, auto_ack=False)
    assert marks(await late.take(1)) == [(1, False, 0)]
    await settle(client)
    assert len(late.received) == 1
    assert marks(await late.take(1)) == [(1, True, 1)]


@pytest.mark.asyncio
async def test_pending_messages_removed_by_a_limit(limited_server: ServerProcess, channel: str) -> None:
    """B267: when due they count as acked, which frees a full subscription; those still there come again."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        subscription = await client.subscribe(channel, ack_wait_s=1, max_in_flight=3, auto_ack=False)
        await publish_numbered(client, channel, 3)
        await subscription.wait_count(3)
        await publish_numbered(client, channel, 4, first=4)
        # Stored are 3 to 7; pending were 1 to 3, of which 1 and 2 are gone: two places are free.
        await subscription.wait_until(lambda: {4, 5} <= set(subscription.sequences))
        await subscription.wait_until(lambda: any(message.redelivered for message in subscription.received))
        seen = subscription.received[3:6]
        assert sorted(marks(seen)) == [(3, True, 1), (4, False, 0), (5, False, 0)]
        assert sorted(payloads(seen)) == [b"3", b"4", b"5"]


@pytest.mark.asyncio
async def test_large_window_comes_again_completely(client: RawClient, channel: str) -> None:
    """B261, B262: 500 unacked messages in one round, in order, each once."""
    subscription = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 500)
    await subscription.wait_count(500)
    acked = set(range(1, 501, 7))
    for sequence in acked:
        subscription.ack(sequence)
    left = [sequence for sequence in range(1, 501) if sequence not in acked]
    await subscription.wait_count(500 + len(left))
    for sequence in left:
        subscription.ack(sequence)
    again = subscription.received[500 : 500 + len(left)]
    assert marks(again) == [(sequence, True, 1) for sequence in left]
