"""Heartbeats and what they decide (B8, B44, B47, B73, B74, B242, B268, B293, B340-B347)."""

import asyncio

import pytest

from tests.conformance.steps import Clients, listen, marks, new_name, publish_numbered, settle, start_ticks
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import ClientIdentity, RawClient, RawSubscription
from tests.support.raw_nats import NatsMessage
from tests.support.server_process import ServerProcess

REPLACED = "client has been replaced or is no longer registered"
CLOSED_TIMEOUT_S = 30.0


class Heart:
    """Answers the heartbeats of a client by a plan, one item per heartbeat; after its end it does not answer."""

    def __init__(self, client: RawClient, *plan: bool) -> None:
        client.answers_heartbeats = False
        self.beats: list[NatsMessage] = []
        self._nats = client.nats
        self._plan = iter(plan)
        self._changed = asyncio.Event()
        client.nats.subscribe(client.identity.heartbeat_inbox, self._beat)

    async def wait_beats(self, count: int) -> None:
        """Returns when `count` heartbeats came."""
        async with asyncio.timeout(CLOSED_TIMEOUT_S):
            while len(self.beats) < count:
                self._changed.clear()
                await self._changed.wait()

    def _beat(self, message: NatsMessage) -> None:
        self.beats.append(message)
        if next(self._plan, False):
            self._nats.publish(message.reply)
        self._changed.set()


async def wait_timed_out(server: ServerProcess, client: RawClient) -> None:
    """O216: the server logs that it closed the client for its heartbeats."""
    text = f"[Client:{client.identity.client_id}] Timed out on heartbeats"
    await asyncio.to_thread(server.wait_for_log, text, timeout_s=CLOSED_TIMEOUT_S)


@pytest.mark.asyncio
async def test_failing_clients_are_closed_and_healthy_ones_stay(probing_server: ServerProcess, channel: str) -> None:
    """B8, B73, B340-B342, B345, B347: closed after three failures in a row; a success starts the count anew.

    A client that never pings stays. A vanished client ("no responders") is closed before a silent one: the wait for its
    answers is skipped.
    """
    async with Clients(probing_server.url) as clients:
        identity = ClientIdentity(new_name("client"), ping_interval_s=1, ping_max_out=1)
        healthy = await clients.connect(identity=identity)
        heartbeats = listen(healthy.nats, healthy.identity.heartbeat_inbox)
        silent, vanished, moody = await clients.connect(), await clients.connect(), await clients.connect()
        silent_heart, moody_heart = Heart(silent), Heart(moody, False, False, True, False, False, True)
        subscription = await silent.subscribe(channel)
        durable = await silent.subscribe(channel, durable_name="d", auto_ack=False)
        await publish_numbered(healthy, channel, 2)
        await durable.wait_count(2)
        await vanished.nats.close()
        order: list[str] = []

        async def timed_out(name: str, client: RawClient) -> None:
            await wait_timed_out(probing_server, client)
            order.append(name)

        await asyncio.gather(timed_out("silent", silent), timed_out("vanished", vanished))
        assert order == ["vanished", "silent"]
        assert len(silent_heart.beats) == 3
        assert (await silent.ping()).error == REPLACED
        assert (await silent.publish(channel, b"x")).error == "stan: invalid publish request"
        assert (await silent.subscribe(channel)).error == "stan: unknown clientID"
        await publish_numbered(healthy, channel, 1)
        await settle(healthy)
        await silent.nats.flush()
        assert subscription.sequences == [1, 2]
        again = await clients.connect(silent.identity.client_id)
        resumed = await again.subscribe(channel, durable_name="d")
        assert [(m.sequence, m.redelivered) for m in await resumed.take(3)] == [(1, True), (2, True), (3, False)]
        await moody_heart.wait_beats(6)
        assert (await moody.ping()).error == ""
        assert (await healthy.ping()).error == ""
        assert len(heartbeats) >= 3
        assert {(message.data, message.headers, bool(message.reply)) for message in heartbeats} == {(b"", b"", True)}


@pytest.mark.asyncio
async def test_waiting_for_one_client_delays_nothing(channel: str) -> None:
    """B343: while a client owes the answer to its heartbeat, all is served, and others get and answer theirs."""
    with ServerProcess(store="MEMORY", options=("-hbi", "300ms", "-hbt", "1h", "-hbf", "0")) as server:
        async with Clients(server.url) as clients:
            silent, healthy = await clients.connect(), await clients.connect()
            silent_heart, healthy_heart = Heart(silent), Heart(healthy, *[True] * 1000)
            await silent_heart.wait_beats(1)
            beats = len(healthy_heart.beats)
            reader = await healthy.subscribe(channel)
            await publish_numbered(healthy, channel, 10)
            await reader.wait_count(10)
            assert (await silent.ping()).error == ""
            await healthy_heart.wait_beats(beats + 3)
            assert len(silent_heart.beats) == 1
            assert (await healthy.ping()).error == ""


@pytest.mark.asyncio
async def test_redelivery_and_pings_of_failing_clients(channel: str) -> None:
    """B47, B74, B242, B268, B293, B342: heartbeats after 3 s, the next 3.2 s later; one failure is allowed.

    Four clients fail their first heartbeat. "recovers" answers its second one, "never" none, "replaced" is replaced by a
    new instance that resumes its durable, "pings" sends a ping.
    """
    options = ("-hbi", "3s", "-hbt", "200ms", "-hbf", "1")
    with ServerProcess(store="MEMORY", options=options) as server:
        async with Clients(server.url) as clients:
            other = await clients.connect()
            recovers, never, replaced, pings = [await clients.connect() for _ in range(4)]
            hearts = {
                client: Heart(client, *plan)
                for client, plan in ((recovers, (False, True)), (never, ()), (replaced, ()), (pings, (False, True)))
            }
            durable = await replaced.subscribe(channel, durable_name="d", auto_ack=False, ack_wait_s=1)
            for heart in hearts.values():
                await heart.wait_beats(1)
            ticks = await start_ticks(other)
            await ticks.next()  # a second later: all four have failed, the second heartbeat is two more away
            assert [len(heart.beats) for heart in hearts.values()] == [1] * 4
            assert (await pings.ping()).error == ""
            again = await clients.connect(replaced.identity.client_id)
            subscriptions = [
                await client.subscribe(channel, auto_ack=False, ack_wait_s=1) for client in (recovers, never)
            ]
            resumed = await again.subscribe(channel, durable_name="d", auto_ack=False, ack_wait_s=1)
            await publish_numbered(other, channel, 1)
            for subscription in (*subscriptions, resumed):
                assert marks(await subscription.take(1)) == [(1, False, 0)]
            await settle(other)
            await pings.nats.flush()
            assert len(hearts[pings].beats) == 2
            assert len(hearts[recovers].beats) == 1
            # The new instance is redelivered to in its rhythm; those that fail are not.
            assert marks(await resumed.take(1)) == [(1, True, 1)]
            assert [len(subscription.received) for subscription in subscriptions] == [1, 1]
            await hearts[recovers].wait_beats(2)
            assert marks(await subscriptions[0].take(1)) == [(1, True, 1)]
            await wait_timed_out(server, never)
            await settle(other)
            await never.nats.flush()
            assert len(hearts[never].beats) == 2
            assert marks(subscriptions[1].received) == [(1, False, 0)]
            assert durable.received == []


@pytest.mark.asyncio
async def test_heartbeats_go_on_after_a_restart(channel: str) -> None:
    """B44, B365: a recovered client is probed at its recorded inbox, from zero failures, and stays."""
    with ServerProcess(options=("-hbi", "500ms", "-hbt", "500ms", "-hbf", "1")) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            subscription = await client.subscribe(channel, ack_wait_s=1)
            server.restart()
            again = await clients.reconnected(client)
            heard = listen(again.nats, again.identity.heartbeat_inbox)
            received = RawSubscription(again.nats, channel, subscription.inbox, auto_ack=True)
            received.accepted(subscription.ack_inbox)
            ticks = await start_ticks(again)
            await ticks.next()
            await ticks.next()
            assert len(heard) >= 2
            assert (await again.ping()).error == ""
            await publish_numbered(again, channel, 1)
            assert (await received.next()).sequence == 1


@pytest.mark.asyncio
async def test_forgotten_client_that_never_pings_hears_nothing(nats_process: NatsProcess, channel: str) -> None:
    """B362: after the restart of a memory store neither heartbeats nor messages come; a new client gets both."""
    options = ("-hbi", "300ms", "-hbt", "300ms")
    with ServerProcess(nats_url=nats_process.url, store="MEMORY", cluster_id="forgetful", options=options) as server:
        async with Clients(server.url) as clients:
            forgotten = await clients.connect(cluster_id="forgetful")
            subscription = await forgotten.subscribe(channel)
            await publish_numbered(forgotten, channel, 1)
            await subscription.wait_count(1)
            server.restart()
            await forgotten.nats.flush()
            heard = forgotten.heartbeats
            known = await clients.connect(cluster_id="forgetful")
            heart = Heart(known, *[True] * 1000)
            await publish_numbered(known, channel, 3)
            await heart.wait_beats(4)
            await settle(known)
            await forgotten.nats.flush()
            assert (forgotten.heartbeats, subscription.sequences) == (heard, [1])
