"""Heartbeats and what they decide (B8, B47, B73, B74, B242, B268, B293, B340-B347), every second on this server."""

import asyncio

import pytest

from tests.conformance.steps import Clients, listen, marks, new_name, publish_numbered, settle, start_ticks
from tests.support.raw_client import ClientIdentity, RawClient, RawSubscription
from tests.support.raw_nats import NatsMessage
from tests.support.server_process import ServerProcess

REPLACED = "client has been replaced or is no longer registered"
CLOSED_TIMEOUT_S = 30.0


async def wait_timed_out(server: ServerProcess, client: RawClient) -> None:
    """O216: the server logs that it closed the client for its heartbeats."""
    text = f"[Client:{client.identity.client_id}] Timed out on heartbeats"
    await asyncio.to_thread(server.wait_for_log, text, timeout_s=CLOSED_TIMEOUT_S)


@pytest.mark.asyncio
async def test_failing_clients_are_closed_and_healthy_ones_stay(probing_server: ServerProcess, channel: str) -> None:
    """B8, B73, B340, B341, B345, B347: after three failures in a row; a client that never pings stays.

    A vanished client ("no responders") is closed before a silent one: the wait for its answers is skipped.
    """
    async with Clients(probing_server.url) as clients:
        identity = ClientIdentity(new_name("client"), ping_interval_s=1, ping_max_out=1)
        healthy = await clients.connect(identity=identity)
        raw_heartbeats = listen(healthy.nats, healthy.identity.heartbeat_inbox)
        silent, vanished = await clients.connect(), await clients.connect()
        subscription = await silent.subscribe(channel)
        durable = await silent.subscribe(channel, durable_name="d", auto_ack=False)
        await publish_numbered(healthy, channel, 2)
        await durable.wait_count(2)
        silent.answers_heartbeats = False
        await vanished.nats.close()
        order: list[str] = []

        async def timed_out(name: str, client: RawClient) -> None:
            await wait_timed_out(probing_server, client)
            order.append(name)

        await asyncio.gather(timed_out("silent", silent), timed_out("vanished", vanished))
        assert order == ["vanished", "silent"]
        assert silent.heartbeats == 3
        assert (await silent.ping()).error == REPLACED
        assert (await silent.publish(channel, b"x")).error == "stan: invalid publish request"
        assert (await silent.subscribe(channel)).error == "stan: unknown clientID"
        assert (await healthy.ping()).error == ""
        assert len(raw_heartbeats) >= 3
        assert {(message.data, message.headers, bool(message.reply)) for message in raw_heartbeats} == {
            (b"", b"", True)
        }
        await publish_numbered(healthy, channel, 1)
        await settle(healthy)
        await silent.nats.flush()
        assert subscription.sequences == [1, 2]
        again = await clients.connect(silent.identity.client_id)
        resumed = await again.subscribe(channel, durable_name="d")
        assert [(m.sequence, m.redelivered) for m in await resumed.take(3)] == [(1, True), (2, True), (3, False)]


@pytest.mark.asyncio
async def test_failures_pause_redelivery_but_not_new_messages(probing_server: ServerProcess, channel: str) -> None:
    """B242, B268, B342: pending messages wait while the client fails, and come when a heartbeat succeeds."""
    async with Clients(probing_server.url) as clients:
        client, other = await clients.connect(), await clients.connect()
        client.answers_heartbeats = False
        beats = listen(client.nats, client.identity.heartbeat_inbox)
        ticks = await start_ticks(other)
        while len(beats) < 2:  # the first heartbeat failed when the second one comes
            await ticks.next()
        subscription = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
        await publish_numbered(other, channel, 1)
        assert marks(await subscription.take(1)) == [(1, False, 0)]
        client.answers_heartbeats = True
        assert marks(await subscription.take(1)) == [(1, True, 1)]
        client_beats = len(beats)
        assert client_beats >= 3
        assert (await client.ping()).error == ""


@pytest.mark.asyncio
async def test_no_redelivery_while_heartbeats_fail(probing_server: ServerProcess, channel: str) -> None:
    """B268: of a message that is due every second, none comes between the first failure and the closure."""
    async with Clients(probing_server.url) as clients:
        client, other = await clients.connect(), await clients.connect()
        client.answers_heartbeats = False
        beats = listen(client.nats, client.identity.heartbeat_inbox)
        ticks = await start_ticks(other)
        while len(beats) < 2:
            await ticks.next()
        subscription = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
        await publish_numbered(other, channel, 1)
        await wait_timed_out(probing_server, client)
        await settle(other)
        await client.nats.flush()
        assert len(beats) == 3
        assert marks(subscription.received) == [(1, False, 0)]


@pytest.mark.asyncio
async def test_one_success_resets_the_count(probing_server: ServerProcess) -> None:
    """B342: two failures, a success, two failures: with a fail count of two the client stays."""
    async with Clients(probing_server.url) as clients:
        client = await clients.connect()
        client.answers_heartbeats = False
        pattern = iter([False, False, True, False, False, True])
        enough = asyncio.Event()

        def decide(message: NatsMessage) -> None:
            is_answered = next(pattern, None)
            if is_answered is None:
                enough.set()
            if is_answered is not False:
                client.nats.publish(message.reply)

        client.nats.subscribe(client.identity.heartbeat_inbox, decide)
        async with asyncio.timeout(CLOSED_TIMEOUT_S):
            await enough.wait()
        assert (await client.ping()).error == ""


@pytest.mark.asyncio
async def test_resume_clears_the_mark(probing_server: ServerProcess, channel: str) -> None:
    """B293: a durable resumed by the client's new instance is redelivered in its rhythm."""
    async with Clients(probing_server.url) as clients:
        client, other = await clients.connect(), await clients.connect()
        durable = await client.subscribe(channel, durable_name="d", auto_ack=False, ack_wait_s=1)
        client.answers_heartbeats = False
        beats = listen(client.nats, client.identity.heartbeat_inbox)
        ticks = await start_ticks(other)
        while len(beats) < 2:
            await ticks.next()
        again = await clients.connect(client.identity.client_id)
        await publish_numbered(other, channel, 1)
        resumed = await again.subscribe(channel, durable_name="d", auto_ack=False, ack_wait_s=1)
        assert marks(await resumed.take(3)) == [(1, False, 0), (1, True, 1), (1, True, 2)]
        assert durable.received == []


@pytest.mark.asyncio
async def test_ping_of_a_failing_client_brings_the_next_heartbeat(channel: str) -> None:
    """B47, B74: after one failure a valid ping is followed by a heartbeat at once, not after the interval."""
    options = ("-hbi", "2s", "-hbt", "1s", "-hbf", "5")
    with ServerProcess(store="MEMORY", options=options) as server:
        async with Clients(server.url) as clients:
            client, other = await clients.connect(), await clients.connect()
            client.answers_heartbeats = False
            subscription = await other.subscribe(channel, ack_wait_s=1, auto_ack=False)
            first = asyncio.Event()
            client.nats.subscribe(client.identity.heartbeat_inbox, lambda _message: first.set())
            async with asyncio.timeout(10):
                await first.wait()
            await publish_numbered(other, channel, 1)
            await subscription.wait_count(3)  # two seconds later: the heartbeat has failed, the next is due in one more
            assert client.heartbeats == 1
            assert (await client.ping()).error == ""
            await settle(client)
            await settle(client)
            assert client.heartbeats == 2


@pytest.mark.asyncio
async def test_heartbeats_go_on_after_a_restart(channel: str) -> None:
    """B44, B365: a recovered client is probed at its recorded inbox, from zero failures, and stays."""
    with ServerProcess(options=("-hbi", "1s", "-hbt", "1s", "-hbf", "2")) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            subscription = await client.subscribe(channel, ack_wait_s=1)
            server.restart()
            again = await clients.reconnected(client)
            heard = listen(again.nats, again.identity.heartbeat_inbox)
            received = RawSubscription(again.nats, channel, subscription.inbox, auto_ack=True)
            received.accepted(subscription.ack_inbox)
            ticks = await start_ticks(again)
            while len(heard) < 2:
                await ticks.next()
            assert (await again.ping()).error == ""
            await publish_numbered(again, channel, 1)
            assert (await received.next()).sequence == 1
