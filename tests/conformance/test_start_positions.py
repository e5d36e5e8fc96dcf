"""Where a new subscription starts (B220-B224; B222 for durables is in test_durables.py)."""

import asyncio
import time

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, accepted, publish_numbered, settle, start_ticks, until
from tests.support.raw_client import RawClient
from tests.support.server_process import ServerProcess

LONG_NS = 10**18
"""About 31 years, longer ago than any message."""

POSITIONS: list[tuple[pb.StartPosition, int, int]] = [
    (pb.NewOnly, 0, 0),
    (pb.LastReceived, 0, 0),
    (pb.First, 0, 0),
    (pb.SequenceStart, 0, 0),
    (pb.SequenceStart, 1, 0),
    (pb.SequenceStart, 3, 0),
    (pb.SequenceStart, 5, 0),
    (pb.SequenceStart, 6, 0),
    (pb.SequenceStart, 2**64 - 1, 0),
    (pb.TimeDeltaStart, 0, LONG_NS),
    (pb.TimeDeltaStart, 0, 2**63 - 1),
    (pb.TimeDeltaStart, 0, 0),
    (pb.TimeDeltaStart, 0, -LONG_NS),
    (pb.TimeDeltaStart, 0, -(2**63)),
]
"""(position, sequence, time delta in ns): one request each; the tests have the expected sequences in this order."""


async def first_sequences(client: RawClient, channel: str) -> list[int]:
    """Subscribes with every position, publishes one message, and returns the first sequence that each one got."""
    subscriptions = [
        await client.subscribe(channel, start=start, start_sequence=sequence, start_time_delta_ns=delta_ns)
        for start, sequence, delta_ns in POSITIONS
    ]
    assert [subscription.error for subscription in subscriptions] == [""] * len(POSITIONS)
    await publish_numbered(client, channel, 1)
    await settle(client)
    for subscription in subscriptions:
        got = subscription.sequences
        assert got == list(range(got[0], got[-1] + 1))
    return [subscription.sequences[0] for subscription in subscriptions]


@pytest.mark.asyncio
async def test_channel_with_five_messages(client: RawClient, channel: str) -> None:
    """B220: first = 1, last = 5; beyond the end means next."""
    await publish_numbered(client, channel, 5)
    assert await first_sequences(client, channel) == [6, 5, 1, 1, 1, 3, 5, 6, 6, 1, 1, 6, 6, 6]


@pytest.mark.asyncio
async def test_empty_channel(client: RawClient, channel: str) -> None:
    """B220: whatever the position, the next message is the first one."""
    assert await first_sequences(client, channel) == [1] * len(POSITIONS)


@pytest.mark.asyncio
async def test_channel_whose_oldest_messages_are_gone(limited_server: ServerProcess, channel: str) -> None:
    """B220: first = 4, last = 8 by max_msgs; a sequence before the first starts at the first."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        await publish_numbered(client, channel, 8)
        expected = {(pb.First, 0): 4, (pb.SequenceStart, 1): 4, (pb.SequenceStart, 4): 4, (pb.SequenceStart, 6): 6}
        for (start, sequence), first in expected.items():
            subscription = await client.subscribe(channel, start=start, start_sequence=sequence)
            await settle(client)
            assert subscription.sequences == list(range(first, 9))
            await client.unsubscribe(subscription)


@pytest.mark.asyncio
async def test_channel_whose_messages_are_all_gone(aging_server: ServerProcess, channel: str) -> None:
    """B202, B220: first = 6, last = 5 after expiry; every position starts at the next message, which is 6."""
    async with Clients(aging_server.url) as clients:
        client = await clients.connect()
        await publish_numbered(client, channel, 5)

        async def is_empty() -> bool:
            probe = await client.subscribe(channel, start=pb.First)
            await settle(client)
            await client.unsubscribe(probe)
            return not probe.received

        await until(is_empty, "all messages expired")
        assert await first_sequences(client, channel) == [6] * len(POSITIONS)


@pytest.mark.asyncio
async def test_time_delta_between_messages(client: RawClient, channel: str) -> None:
    """B220, B221: the first message that is not older than the delta; the server's own clock decides."""
    ticks = await start_ticks(client)
    await publish_numbered(client, channel, 2)
    await ticks.next()
    await ticks.next()
    await publish_numbered(client, channel, 2)
    everything = await client.subscribe(channel, start=pb.First)
    stamps = [message.timestamp for message in await everything.take(4)]
    middle_ns = (stamps[1] + stamps[2]) // 2
    subscription = await client.subscribe(
        channel, start=pb.TimeDeltaStart, start_time_delta_ns=time.time_ns() - middle_ns
    )
    await settle(client)
    assert subscription.sequences == [3, 4]


@pytest.mark.asyncio
async def test_nothing_is_lost_or_doubled_around_the_start(clients: Clients, channel: str) -> None:
    """B224: subscriptions that start while messages pour in see each sequence once, in order, to the end."""
    publisher, client = await clients.connect(), await clients.connect()
    acks: list[asyncio.Future[pb.PubAck]] = []
    subscriptions = []
    for round_number in range(10):
        acks += [publisher.publish_nowait(channel, b"%d" % number) for number in range(100)]
        start = (pb.First, pb.NewOnly, pb.LastReceived)[round_number % 3]
        subscriptions.append(await client.subscribe(channel, start=start))
    await accepted(acks)
    await settle(client)
    for subscription in subscriptions:
        first = subscription.sequences[0] if subscription.sequences else 1001
        assert subscription.sequences == list(range(first, 1001))
    assert [subscription.sequences[0] for subscription in subscriptions[::3]] == [1] * 4
