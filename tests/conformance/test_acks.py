"""Acks (B110, B111, B245-B247, B250, B251, B254)."""

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import marks, new_name, publish_numbered, settle, start_ticks
from tests.support.leader_harness import leading
from tests.support.raw_client import RawClient, RawSubscription


async def full_subscription(client: RawClient, channel: str, *, max_in_flight: int = 3) -> RawSubscription:
    """A subscription that has as many unacked messages as it may have; ten are stored."""
    subscription = await client.subscribe(channel, max_in_flight=max_in_flight, auto_ack=False)
    await publish_numbered(client, channel, 10)
    await settle(client)
    assert subscription.sequences == list(range(1, max_in_flight + 1))
    return subscription


@pytest.mark.asyncio
async def test_ack_removes_exactly_one(client: RawClient, channel: str) -> None:
    """B245: out of order is fine, and the ack of a later message frees one place, not all before it."""
    subscription = await full_subscription(client, channel)
    subscription.ack(3)
    await settle(client)
    assert subscription.sequences == [1, 2, 3, 4]
    subscription.ack(1)
    await settle(client)
    assert subscription.sequences == [1, 2, 3, 4, 5]


@pytest.mark.asyncio
async def test_acks_of_sequences_that_are_not_pending(client: RawClient, channel: str) -> None:
    """B246: acked twice, never sent, zero, beyond the end, enormous: nothing happens."""
    subscription = await full_subscription(client, channel)
    subscription.ack(2)
    await settle(client)
    assert subscription.sequences == [1, 2, 3, 4]
    for sequence in (2, 5, 10, 0, 11, 2**63, 2**64 - 1):
        subscription.ack(sequence)
    await settle(client)
    assert subscription.sequences == [1, 2, 3, 4]
    for sequence in (1, 3, 4):
        subscription.ack(sequence)
    await settle(client)
    assert subscription.sequences == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.asyncio
async def test_only_the_own_ack_inbox_counts(client: RawClient, channel: str) -> None:
    """B247: an ack on another subscription's inbox is that subscription's."""
    first = await client.subscribe(channel, max_in_flight=1, auto_ack=False)
    second = await client.subscribe(channel, max_in_flight=1, auto_ack=False)
    await publish_numbered(client, channel, 3)
    await settle(client)
    first.ack(1)
    await settle(client)
    assert [first.sequences, second.sequences] == [[1, 2], [1]]


@pytest.mark.asyncio
@pytest.mark.parametrize("named", ["other channel", "unknown channel", "no channel"])
async def test_ack_must_name_the_channel(client: RawClient, channel: str, named: str) -> None:
    """B110, B111: an ack that names another channel than the subscription's does nothing."""
    other = new_name("channel")
    await publish_numbered(client, other, 2)
    subscription = await full_subscription(client, channel)
    subscription.ack(1, channel={"other channel": other, "unknown channel": "unknown", "no channel": ""}[named])
    await settle(client)
    assert subscription.sequences == [1, 2, 3]
    subscription.ack(1)
    await settle(client)
    assert subscription.sequences == [1, 2, 3, 4]


@pytest.mark.asyncio
@pytest.mark.parametrize("payload", [b"", b"dummy", b"\xff" * 20, b"\x0a\x7fx", b"\x10\x01"])
async def test_broken_acks_are_ignored(client: RawClient, channel: str, payload: bytes) -> None:
    """B110: undecodable, empty or half an ack; the subscription lives on, and nothing is answered."""
    subscription = await full_subscription(client, channel)
    answers: list[bytes] = []
    reply = client.nats.new_inbox()
    client.nats.subscribe(reply, lambda message: answers.append(message.data))
    client.nats.publish(subscription.ack_inbox, payload, reply=reply)
    await settle(client)
    assert (subscription.sequences, answers) == ([1, 2, 3], [])
    subscription.ack(1)
    await settle(client)
    assert subscription.sequences == [1, 2, 3, 4]


@pytest.mark.asyncio
async def test_acks_on_unknown_inboxes_are_ignored(client: RawClient, channel: str) -> None:
    """B110, B252: an inbox beside the known ones, and the inbox of a closed subscription."""
    subscription = await full_subscription(client, channel)
    closed = await client.subscribe(channel, start=pb.First, max_in_flight=1, auto_ack=False)
    await closed.next()
    await client.close_subscription(closed)
    closed.ack(1)
    prefix = subscription.ack_inbox.rpartition(".")[0]
    client.nats.publish(f"{prefix}.unknown", pb.Ack(subject=channel, sequence=1).SerializeToString())
    await settle(client)
    assert (subscription.sequences, closed.sequences) == ([1, 2, 3], [1])


@pytest.mark.asyncio
async def test_acks_are_never_answered(client: RawClient, channel: str) -> None:
    """B110: not even a good ack that asks for it."""
    subscription = await full_subscription(client, channel)
    reply = client.nats.new_inbox()
    answers: list[bytes] = []
    client.nats.subscribe(reply, lambda message: answers.append(message.data))
    ack = pb.Ack(subject=channel, sequence=1).SerializeToString()
    client.nats.publish(subscription.ack_inbox, ack, reply=reply)
    await settle(client)
    assert (subscription.sequences, answers) == ([1, 2, 3, 4], [])


@pytest.mark.asyncio
async def test_acked_message_does_not_come_again(client: RawClient, channel: str) -> None:
    """B250, B270: an ack after a redelivery ends it; its neighbours go on being counted."""
    subscription = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 2)
    assert marks(await subscription.take(4)) == [(1, False, 0), (2, False, 0), (1, True, 1), (2, True, 1)]
    subscription.ack(1)
    assert marks(await subscription.take(1)) == [(2, True, 2)]
    await publish_numbered(client, channel, 1)
    assert marks(await subscription.take(2)) == [(3, False, 0), (2, True, 3)]


@pytest.mark.asyncio
async def test_acks_do_not_move_other_deadlines(client: RawClient, channel: str) -> None:
    """B251: an unacked message comes again in its time although its neighbours are acked all the while."""
    subscription = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 1)
    await subscription.take(1)
    ticks = await start_ticks(client)  # its message is sent later than the other one, and nothing is acked there
    latest = 1
    while len(ticks.received) < 3:
        await publish_numbered(client, channel, 1)
        latest += 1
        while (await subscription.next()).sequence != latest:
            pass
        subscription.ack(latest)
    # Two rounds of the ticks are more than one ack wait of the first message.
    redelivered = [message for message in subscription.received if message.redelivered]
    assert marks(redelivered)[:1] == [(1, True, 1)]


def test_steady_traffic_does_not_move_deadlines() -> None:
    """B251, B260: with a delivery and an ack each millisecond an unacked message still comes again every ack wait."""
    with leading() as leader:
        me = leader.client()
        subscription = me.subscribe("foo", "in", ack_wait_s=1)
        me.publish("foo")
        received = leader.seqs("in")
        for sequence in range(2, 2600):
            leader.loop.move(0.001)
            me.publish("foo")
            received += leader.seqs("in")
            me.ack(subscription, sequence)
        assert [one for one in received if isinstance(one, str)] == ["1r1", "1r2"]


@pytest.mark.asyncio
async def test_one_in_flight_is_strict_processing_order(client: RawClient, channel: str) -> None:
    """B254: the next message waits for the ack of the one before."""
    subscription = await client.subscribe(channel, max_in_flight=1, auto_ack=False)
    await publish_numbered(client, channel, 5)
    for sequence in range(1, 6):
        assert (await subscription.next()).sequence == sequence
        await settle(client)
        assert len(subscription.received) == sequence
        subscription.ack(sequence)
