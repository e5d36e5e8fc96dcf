"""Limits of channels and the deletion of inactive ones (B200, B202, B326-B339, O501-O504, O508-O511)."""

import asyncio
import re

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import (
    Clients,
    ask_close,
    marks,
    new_name,
    payloads,
    publish_numbered,
    settle,
    start_ticks,
    subscription_request,
    until,
)
from tests.support.raw_client import RawClient
from tests.support.server_process import ServerProcess

TOO_MANY_SUBSCRIPTIONS = "too many subscriptions per channel"
FILE_OVERHEAD = 40
"""Bytes that max_bytes counts per message beside its encoding with a FILE store (O511)."""


async def stored(client: RawClient, channel: str) -> list[pb.MsgProto]:
    """Everything the channel holds now."""
    reader = await client.subscribe(channel, start=pb.First)
    assert reader.error == ""
    await settle(client)
    await client.unsubscribe(reader)
    return reader.received


@pytest.mark.asyncio
async def test_max_msgs(limited_server: ServerProcess, channel: str) -> None:
    """B213, B326, O503: the oldest go, no publish is refused."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        await publish_numbered(client, channel, 3)
        assert payloads(await stored(client, channel)) == [b"1", b"2", b"3"]
        await publish_numbered(client, channel, 20, first=4)
        assert [m.sequence for m in await stored(client, channel)] == [19, 20, 21, 22, 23]


@pytest.mark.asyncio
async def test_reaching_a_limit_is_logged_once(limited_server: ServerProcess, channel: str) -> None:
    """O215, O503, B335: one warning per channel, nothing to clients."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        for number in range(1, 30, 10):
            await publish_numbered(client, channel, 10, first=number)
        lines = [line for line in limited_server.log.splitlines() if f'Reached limits for store "{channel}"' in line]
        assert len(lines) == 1
        assert "[WRN]" in lines[0]
        assert "dropping old messages to make room for new ones" in lines[0]


@pytest.mark.asyncio
async def test_burst_larger_than_the_limit(limited_server: ServerProcess, channel: str) -> None:
    """B326: one batch with many times the limit leaves the newest ones, all acked."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        await publish_numbered(client, channel, 2000)
        assert [m.sequence for m in await stored(client, channel)] == [1996, 1997, 1998, 1999, 2000]


@pytest.mark.asyncio
async def test_max_bytes(channel: str) -> None:
    """B326, B327, O511: encoding plus 40 bytes per message never exceed max_bytes, except the newest alone.

    Restarted with a lower limit, the server removes at once what is too much (B334).
    """
    with ServerProcess(options=("-mb", "10000")) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            for number in range(30):
                assert (await client.publish(channel, b"%d" % number * 400)).error == ""
            left = await stored(client, channel)
            size = left[-1].ByteSize() + FILE_OVERHEAD
            assert [m.sequence for m in left] == list(range(31 - 10000 // size, 31))
            assert (await client.publish(channel, b"x" * 20_000)).error == ""
            assert [(m.sequence, len(m.data)) for m in await stored(client, channel)] == [(31, 20_000)]
            assert (await client.publish(channel, b"y")).error == ""
            assert [(m.sequence, m.data) for m in await stored(client, channel)] == [(32, b"y")]
            for number in range(8):
                assert (await client.publish(channel, b"%d" % number * 1000)).error == ""
            assert [m.sequence for m in await stored(client, channel)] == list(range(32, 41))
            server.stop()
            server.options = ("-mb", "3300", "-mm", "10")
            server.start()
            again = await clients.reconnected(client)
            assert [m.sequence for m in await stored(again, channel)] == [38, 39, 40]


@pytest.mark.asyncio
async def test_max_age(aging_server: ServerProcess, channel: str) -> None:
    """B328, B202, O504, O510: messages go without traffic, the last one too; sequences go on."""
    async with Clients(aging_server.url) as clients:
        client = await clients.connect()
        await publish_numbered(client, channel, 3)
        assert len(await stored(client, channel)) == 3

        async def is_empty() -> bool:
            return not await stored(client, channel)

        await until(is_empty, "messages expired")
        await publish_numbered(client, channel, 1)
        assert [m.sequence for m in await stored(client, channel)] == [4]


@pytest.mark.asyncio
async def test_expired_pending_messages_free_a_full_subscription(aging_server: ServerProcess, channel: str) -> None:
    """B267, B329: the one in flight expired before it was due again; delivery goes on with what is there, as new."""
    async with Clients(aging_server.url) as clients:
        client = await clients.connect()
        subscription = await client.subscribe(channel, max_in_flight=1, ack_wait_s=2, auto_ack=False)
        await publish_numbered(client, channel, 2)

        async def is_freed() -> bool:
            await publish_numbered(client, channel, 1)
            await settle(client)
            return len(subscription.received) >= 2

        await until(is_freed, "the full subscription gets another message")
        assert marks(subscription.received[:1]) == [(1, False, 0)]
        sequence, is_redelivered, count = marks(subscription.received)[1]
        assert (sequence > 2, is_redelivered, count) == (True, False, 0)


@pytest.mark.asyncio
async def test_max_subscriptions(limited_server: ServerProcess, channel: str) -> None:
    """B83.6, B330, B289, O502: plain, online and offline durables count; resuming takes no new place."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        plain = await client.subscribe(channel)
        offline = await client.subscribe(channel, durable_name="offline")
        await client.close_subscription(offline)
        online = await client.subscribe(channel, durable_name="online")
        assert [plain.error, offline.error, online.error] == ["", "", ""]
        assert (await client.subscribe(channel)).error == TOO_MANY_SUBSCRIPTIONS
        assert (await client.subscribe(channel, durable_name="new")).error == TOO_MANY_SUBSCRIPTIONS
        resumed = await client.subscribe(channel, durable_name="offline")
        assert resumed.error == ""
        assert (await client.subscribe(new_name("channel"))).error == ""
        await client.unsubscribe(plain)
        assert (await client.subscribe(channel)).error == ""
        assert (await client.subscribe(channel)).error == TOO_MANY_SUBSCRIPTIONS
        await client.unsubscribe(resumed)
        assert (await client.subscribe(channel)).error == ""


@pytest.mark.asyncio
async def test_duplicate_durable_is_found_before_the_limit(limited_server: ServerProcess, channel: str) -> None:
    """B83: check 3 comes before check 6."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        for name in ("a", "b", "c"):
            assert (await client.subscribe(channel, durable_name=name)).error == ""
        assert (await client.subscribe(channel, durable_name="a")).error == "stan: duplicate durable registration"


@pytest.mark.asyncio
async def test_refused_requests_take_no_place(limited_server: ServerProcess, channel: str) -> None:
    """B84: after many refusals three subscriptions still fit; requests sent at once share the places, too."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        for _ in range(5):
            assert (await client.subscribe(channel, max_in_flight=0)).error != ""
        answers: list[str] = []
        reply = client.nats.new_inbox()
        client.nats.subscribe(
            reply, lambda message: answers.append(pb.SubscriptionResponse.FromString(message.data).error)
        )
        for _ in range(6):
            request = subscription_request(client, channel)
            client.nats.publish(client.subjects.subRequests, request.SerializeToString(), reply=reply)
        await settle(client)
        assert sorted(answers) == ["", "", ""] + [TOO_MANY_SUBSCRIPTIONS] * 3


@pytest.mark.asyncio
async def test_subscriptions_of_short_lived_clients_leave_no_count(limited_server: ServerProcess, channel: str) -> None:
    """B84, B345: subscribe and connection close sent together, many times; afterwards all places are free."""
    async with Clients(limited_server.url) as clients:
        for _ in range(10):
            client = await clients.connect()
            request = subscription_request(client, channel).SerializeToString()
            client.nats.publish(client.subjects.subRequests, request, reply=client.nats.new_inbox())
            assert (await client.close()).error == ""
        client = await clients.connect()
        assert [(await client.subscribe(channel)).error for _ in range(4)] == ["", "", "", TOO_MANY_SUBSCRIPTIONS]


@pytest.mark.asyncio
async def test_max_channels_and_restart_with_lower_limits() -> None:
    """B331, B334, O501: new channels are refused, also by subscribes; recovered ones stay although above the limit."""
    with ServerProcess(options=("-mc", "3")) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            await publish_numbered(client, "one", 1)
            assert (await client.subscribe("two")).error == ""
            await publish_numbered(client, "three", 4)
            assert (await client.publish("four", b"x")).error == "too many channels"
            assert (await client.subscribe("four")).error == "too many channels"
            refused = client.publish_nowait("four", b"x"), client.publish_nowait("five", b"x")
            assert [(await ack).error for ack in refused] == ["too many channels"] * 2
            assert (await client.publish("ONE", b"x")).error.startswith("rejecting channel")
            for name in ("one", "two", "three"):
                assert (await client.publish(name, b"x")).error == ""
            for _ in range(2):
                await client.subscribe("one", durable_name=new_name("d"))
            assert server.stop() == 143
            server.options = ("-mc", "1", "-msu", "1", "-mm", "2")
            server.start()
            again = await clients.reconnected(client)
            assert (await again.publish("four", b"x")).error == "too many channels"
            assert (await again.subscribe("one")).error == TOO_MANY_SUBSCRIPTIONS
            reader = await again.subscribe("three", start=pb.First)
            await reader.wait_count(2)
            assert (await again.ping()).error == ""
            assert reader.sequences == [4, 5]
            await publish_numbered(again, "one", 1)


@pytest.mark.asyncio
async def test_zero_is_unlimited(channel: str) -> None:
    """B332: a zero switches the default limit off."""
    options = ("-mc", "0", "-msu", "0", "-mm", "0", "-mb", "0", "-ma", "0s", "-mi", "0s")
    with ServerProcess(store="MEMORY", options=options) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            for number in range(120):
                await publish_numbered(client, f"{channel}.{number}", 1)
            acks = [client.publish_nowait(channel, b"x" * 1000) for _ in range(100)]
            assert {(await ack).error for ack in acks} == {""}
            assert len(await stored(client, channel)) == 100


@pytest.mark.asyncio
async def test_inactive_channels_are_deleted(channel: str) -> None:
    """B200, B336-B339, O509: offline durables go with the channel, online subscriptions keep it; then all is new."""
    with ServerProcess(options=("-mi", "1s", "-mc", "3")) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            kept, busy = f"{channel}.kept", f"{channel}.busy"
            online = await client.subscribe(kept, max_in_flight=1, auto_ack=False)
            await publish_numbered(client, kept, 3)
            durable = await client.subscribe(channel, durable_name="d", auto_ack=False)
            await publish_numbered(client, channel, 3)
            await durable.wait_count(3)
            await client.close_subscription(durable)
            probe = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=durable.ack_inbox)
            busy_count = 0

            async def is_deleted() -> bool:
                nonlocal busy_count
                busy_count += 1
                await publish_numbered(client, busy, 1)
                return (await ask_close(client, probe)).error == "stan: unknown channel"

            await until(is_deleted, "the channel is deleted")
            server.wait_for_log(f'Channel "{channel}" has been deleted')
            # A channel with an online subscription, though stalled, and one with publishes are still there.
            assert online.sequences == [1]
            online.ack(1)
            assert (await online.take(2))[-1].sequence == 2
            reader = await client.subscribe(busy, start=pb.First)
            await reader.wait_count(busy_count)
            assert reader.sequences == list(range(1, busy_count + 1))
            # Re-created: sequences from 1, the durable is a new one, and the room was freed (B331).
            anew = await client.subscribe(channel, durable_name="d", start=pb.First)
            await publish_numbered(client, channel, 1)
            assert marks(await anew.take(1)) == [(1, False, 0)]


@pytest.mark.asyncio
async def test_last_end_starts_the_inactivity_clock(channel: str) -> None:
    """B338, B353: a channel unused for long lives on for its whole time after its last online subscription ended."""
    with ServerProcess(store="MEMORY", options=("-mi", "2s", "-mc", "0")) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            ended, busy = f"{channel}.ended", f"{channel}.busy"
            first, last = await client.subscribe(ended), await client.subscribe(ended, durable_name="d")
            ticks = await start_ticks(client)
            await client.unsubscribe(first)
            await ticks.wait_count(4)  # three seconds: more than the inactivity that is allowed
            await publish_numbered(client, busy, 1)
            await ticks.wait_count(5)
            await client.close_subscription(last)
            await asyncio.to_thread(server.wait_for_log, f'Channel "{ended}" has been deleted')
            # Its clock ran a second longer than that of the channel with the later publish.
            deleted = re.findall(r'Channel "(.*)" has been deleted', server.log)
            assert deleted == [busy, ended]


@pytest.mark.asyncio
async def test_age_at_the_next_start(channel: str) -> None:
    """B202, B328, B334, O504, O508, O510: a lower age counts before anybody is served; nothing comes back, sequences go on."""
    with ServerProcess() as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            await publish_numbered(client, channel, 3)
            server.stop()
            server.options = ("-ma", "1ms")
            server.start()
            client = await clients.reconnected(client)
            assert await stored(client, channel) == []
            server.kill()
            server.options = ()
            server.start()
            client = await clients.reconnected(client)
            assert await stored(client, channel) == []
            await publish_numbered(client, channel, 2, first=4)
            assert [(m.sequence, m.data) for m in await stored(client, channel)] == [(4, b"4"), (5, b"5")]


@pytest.mark.asyncio
async def test_deleted_channel_does_not_come_back(channel: str) -> None:
    """B200, B336, O509: neither its messages nor its durable, although the server is killed as soon as it says so."""
    with ServerProcess(options=("-mi", "1s")) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            await publish_numbered(client, channel, 3)
            durable = await client.subscribe(channel, durable_name="d", start=pb.First)
            await durable.wait_count(3)
            await client.close_subscription(durable)
            await asyncio.to_thread(server.wait_for_log, f'Channel "{channel}" has been deleted')
            server.kill()
            server.options = ()
            server.start()
            client = await clients.reconnected(client)
            probe = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=durable.ack_inbox)
            assert (await ask_close(client, probe)).error == "stan: unknown channel"
            await publish_numbered(client, channel, 2)
            anew = await client.subscribe(channel, durable_name="d", start=pb.First)
            await anew.wait_count(2)
            assert marks(anew.received) == [(1, False, 0), (2, False, 0)]
