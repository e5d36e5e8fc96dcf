"""Durable subscriptions (B222, B252, B271, B280-B293). Restart (B291) is in test_restart.py."""

import asyncio

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, marks, new_name, publish_numbered, settle
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.server_process import ServerProcess

DUPLICATE = "stan: duplicate durable registration"


async def durable_with_pending(
    client: RawClient, channel: str, *, pending: int, acked: int, ack_wait_s: int = 30
) -> RawSubscription:
    """A durable `d` that got acked + pending messages and acked the first `acked` of them, now offline."""
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False, ack_wait_s=ack_wait_s)
    await publish_numbered(client, channel, acked + pending)
    await durable.wait_count(acked + pending)
    for sequence in range(1, acked + 1):
        durable.ack(sequence)
    assert (await client.close_subscription(durable)).error == ""
    return durable


@pytest.mark.asyncio
async def test_identity_is_client_channel_and_name(clients: Clients, channel: str) -> None:
    """B280: the same name on another channel or by another client is another durable."""
    one, two = await clients.connect(), await clients.connect()
    durables = [
        await one.subscribe(channel, durable_name="d"),
        await one.subscribe(channel, durable_name="e"),
        await one.subscribe(f"{channel}.other", durable_name="d"),
        await two.subscribe(channel, durable_name="d"),
    ]
    assert [durable.error for durable in durables] == [""] * 4
    assert (await one.subscribe(channel, durable_name="d")).error == DUPLICATE


@pytest.mark.asyncio
async def test_parts_of_the_identity_do_not_run_together(clients: Clients) -> None:
    """B281: client `a` with durable `x-k-y` and client `a-k-x` with durable `y`, both on `k`, are two."""
    client_id, channel = new_name("client"), new_name("k")
    one = await clients.connect(client_id)
    two = await clients.connect(f"{client_id}-{channel}-x")
    assert (await one.subscribe(channel, durable_name=f"x-{channel}-y")).error == ""
    assert (await two.subscribe(channel, durable_name="y")).error == ""


@pytest.mark.asyncio
async def test_resume_sends_pending_then_new(client: RawClient, channel: str) -> None:
    """B222, B283, B284, B286, B287: unacked first, flagged, at once; then what was stored meanwhile, as new."""
    await durable_with_pending(client, channel, acked=2, pending=3)
    await publish_numbered(client, channel, 2)
    resumed = await client.subscribe(channel, durable_name="d", start=pb.NewOnly, auto_ack=False)
    await settle(client)
    assert marks(resumed.received) == [
        (3, True, 1), (4, True, 1), (5, True, 1), (6, False, 0), (7, False, 0)
    ]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("start", [pb.First, pb.LastReceived, pb.SequenceStart, pb.TimeDeltaStart])
async def test_start_position_is_ignored_on_resume(client: RawClient, channel: str, start: pb.StartPosition) -> None:
    """B222: a resumed durable goes on where it was."""
    await durable_with_pending(client, channel, acked=3, pending=0)
    await publish_numbered(client, channel, 2)
    resumed = await client.subscribe(
        channel, durable_name="d", start=start, start_sequence=1, start_time_delta_ns=10**18
    )
    await settle(client)
    assert marks(resumed.received) == [(4, False, 0), (5, False, 0)]


@pytest.mark.asyncio
async def test_counts_survive_close_and_resume(client: RawClient, channel: str) -> None:
    """B271, B284: each resume counts one more on the same server."""
    for count in range(1, 4):
        if count == 1:
            await durable_with_pending(client, channel, acked=0, pending=2)
        resumed = await client.subscribe(channel, durable_name="d", auto_ack=False)
        assert marks(await resumed.take(2)) == [(1, True, count), (2, True, count)]
        await client.close_subscription(resumed)


@pytest.mark.asyncio
async def test_resume_ignores_max_in_flight_for_pending(client: RawClient, channel: str) -> None:
    """B284, B285: five pending and room for two: all five come, and the fourth ack releases the next new one."""
    await durable_with_pending(client, channel, acked=0, pending=5)
    await publish_numbered(client, channel, 3)
    resumed = await client.subscribe(channel, durable_name="d", max_in_flight=2, auto_ack=False)
    await settle(client)
    assert resumed.sequences == [1, 2, 3, 4, 5]
    for sequence in (1, 2, 3):
        resumed.ack(sequence)
    await settle(client)
    assert resumed.sequences == [1, 2, 3, 4, 5]
    resumed.ack(4)
    await settle(client)
    assert resumed.sequences == [1, 2, 3, 4, 5, 6]


@pytest.mark.asyncio
async def test_resume_takes_ack_wait_and_inbox_of_the_request(client: RawClient, channel: str) -> None:
    """B283: replaced by the request; the rhythm of redelivery is the new one, and nothing goes to the old inbox."""
    old = await durable_with_pending(client, channel, acked=0, pending=1, ack_wait_s=1000)
    resumed = await client.subscribe(channel, durable_name="d", ack_wait_s=1, auto_ack=False)
    assert marks(await resumed.take(3)) == [(1, True, 1), (1, True, 2), (1, True, 3)]
    assert old.sequences == [1]


@pytest.mark.asyncio
async def test_old_ack_inbox_is_dead(client: RawClient, channel: str) -> None:
    """B252: a late ack over the inbox of before the resume is lost."""
    old = await durable_with_pending(client, channel, acked=0, pending=2)
    resumed = await client.subscribe(channel, durable_name="d", auto_ack=False)
    assert resumed.ack_inbox != old.ack_inbox
    await resumed.take(2)
    old.ack(1)
    resumed.ack(2)
    await client.close_subscription(resumed)
    again = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await settle(client)
    assert again.sequences == [1]


@pytest.mark.asyncio
async def test_offline_durable_gets_nothing(client: RawClient, channel: str) -> None:
    """B282: neither new messages nor redeliveries reach the old inbox."""
    durable = await durable_with_pending(client, channel, acked=0, pending=2, ack_wait_s=1)
    clock = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 1)
    await clock.wait_count(2)
    await settle(client)
    assert durable.sequences == [1, 2]


@pytest.mark.asyncio
async def test_messages_removed_while_offline_are_skipped(limited_server: ServerProcess, channel: str) -> None:
    """B287: pending and new ones that max_msgs removed do not come; what is left does."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        await durable_with_pending(client, channel, acked=1, pending=2)
        await publish_numbered(client, channel, 5)
        resumed = await client.subscribe(channel, durable_name="d", max_in_flight=1)
        await settle(client)
        assert marks(resumed.received) == [(sequence, False, 0) for sequence in (4, 5, 6, 7, 8)]


@pytest.mark.asyncio
async def test_unsubscribe_forgets_the_durable(client: RawClient, channel: str) -> None:
    """B288: afterwards the same name starts anew with the request's position, nothing flagged."""
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await publish_numbered(client, channel, 3)
    await durable.wait_count(3)
    assert (await client.unsubscribe(durable)).error == ""
    anew = await client.subscribe(channel, durable_name="d", start=pb.SequenceStart, start_sequence=2)
    await settle(client)
    assert marks(anew.received) == [(2, False, 0), (3, False, 0)]


@pytest.mark.asyncio
async def test_only_one_online(client: RawClient, channel: str) -> None:
    """B290: while it is online and when several requests are under way at the same time, even with one inbox."""
    inbox = client.nats.new_inbox()
    requests = [client.subscribe(channel, durable_name="d", inbox=inbox) for _ in range(4)]
    results = await asyncio.gather(*requests)
    assert sorted(result.error for result in results) == ["", DUPLICATE, DUPLICATE, DUPLICATE]
    assert (await client.subscribe(channel, durable_name="d", inbox=inbox)).error == DUPLICATE
    (online,) = [result for result in results if not result.error]
    assert (await client.close_subscription(online)).error == ""
    resumed = await client.subscribe(channel, durable_name="d")
    assert resumed.error == ""
    await publish_numbered(client, channel, 1)
    assert marks(await resumed.take(1)) == [(1, False, 0)]


@pytest.mark.asyncio
async def test_close_and_resume_many_times(client: RawClient, channel: str) -> None:
    """B286: over ten lives of a durable every message is new once."""
    seen: list[tuple[int, bool, int]] = []
    for number in range(1, 11):
        durable = await client.subscribe(channel, durable_name="d", start=pb.First)
        await publish_numbered(client, channel, 5)
        await settle(client)
        assert len(durable.received) == (5 if number == 1 else 10)
        seen += marks(durable.received)
        await client.close_subscription(durable)
        await publish_numbered(client, channel, 5)
    assert seen == [(sequence, False, 0) for sequence in range(1, 96)]


@pytest.mark.asyncio
async def test_replacing_an_online_durable(replacing_server: ServerProcess, channel: str) -> None:
    """B292: with --replace_durable the old one is closed and the new request resumes, pending flagged."""
    async with Clients(replacing_server.url) as clients:
        client = await clients.connect()
        old = await client.subscribe(channel, durable_name="d", auto_ack=False)
        await publish_numbered(client, channel, 3)
        await old.wait_count(3)
        old.ack(1)
        await client.nats.flush()
        new = await client.subscribe(channel, durable_name="d", auto_ack=False)
        assert new.error == ""
        assert marks(await new.take(2)) == [(2, True, 1), (3, True, 1)]
        assert (await client.close_subscription(old)).error == "stan: invalid subscription"
        await publish_numbered(client, channel, 1)
        assert marks(await new.take(1)) == [(4, False, 0)]
        await settle(client)
        assert old.sequences == [1, 2, 3]


@pytest.mark.asyncio
async def test_replacing_needs_the_same_client(replacing_server: ServerProcess, channel: str) -> None:
    """B280, B292: another client's durable of that name is not touched."""
    async with Clients(replacing_server.url) as clients:
        one, two = await clients.connect(), await clients.connect()
        first, second = [await client.subscribe(channel, durable_name="d") for client in (one, two)]
        await publish_numbered(one, channel, 1)
        assert (await first.next()).sequence == (await second.next()).sequence == 1


@pytest.mark.asyncio
async def test_replacing_is_for_plain_durables_only(replacing_server: ServerProcess, channel: str) -> None:
    """B292, B301: with --replace_durable members of a durable group still join one another."""
    async with Clients(replacing_server.url) as clients:
        client = await clients.connect()
        members = [await client.subscribe(channel, durable_name="d", queue_group="g") for _ in range(2)]
        plain = [await client.subscribe(channel) for _ in range(2)]
        await publish_numbered(client, channel, 4)
        await settle(client)
        assert [member.sequences for member in members] == [[1, 3], [2, 4]]
        assert [subscription.sequences for subscription in plain] == [[1, 2, 3, 4]] * 2
        assert [(await client.close_subscription(one)).error for one in (*members, *plain)] == [""] * 4


@pytest.mark.asyncio
async def test_resume_in_every_way_a_durable_goes_offline(clients: Clients, channel: str) -> None:
    """B282, B283: by its close, by the close of its client, by a replacement: progress is kept, count and flag go on."""
    client = await clients.connect()
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await publish_numbered(client, channel, 3)
    await durable.wait_count(3)
    durable.ack(2)
    assert (await client.close_subscription(durable)).error == ""
    resumed = await client.subscribe(channel, durable_name="d", auto_ack=False)
    assert marks(await resumed.take(2)) == [(1, True, 1), (3, True, 1)]
    assert (await client.close()).error == ""
    client = await clients.connect(client.identity.client_id)
    resumed = await client.subscribe(channel, durable_name="d", auto_ack=False)
    assert marks(await resumed.take(2)) == [(1, True, 2), (3, True, 2)]
    client.answers_heartbeats = False
    new = await clients.connect(client.identity.client_id)
    resumed = await new.subscribe(channel, durable_name="d", auto_ack=False)
    assert marks(await resumed.take(2)) == [(1, True, 3), (3, True, 3)]
    await publish_numbered(new, channel, 1)
    assert marks(await resumed.take(1)) == [(4, False, 0)]
