"""What survives the server: killed, stopped in order, and with a MEMORY store (B44, B200, B253, B291, B360-B369, B394).

The NATS server outlives the streaming server here, so clients notice nothing but a pause (B360).
"""

from collections.abc import Iterator

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, ask_close, marks, payloads, publish_numbered, settle
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient
from tests.support.raw_nats import NoRespondersError
from tests.support.server_process import ServerProcess

BOTH_ENDS = pytest.mark.parametrize("end", ["kill", "stop"])


@pytest.fixture(scope="module")
def server(nats_process: NatsProcess) -> Iterator[ServerProcess]:
    """A server with a FILE store that the tests of this module restart."""
    with ServerProcess(nats_url=nats_process.url, cluster_id="restart", options=("-mc", "0")) as process:
        yield process
        assert process.is_running
        assert "Traceback" not in process.log, process.log


async def connect(clients: Clients) -> RawClient:
    """A client of this module's cluster."""
    return await clients.connect(cluster_id="restart")


async def end_server(server: ServerProcess, end: str, client: RawClient) -> None:
    """Ends the server one way or the other; what it sent to `client` before has arrived then."""
    if end == "kill":
        server.kill()
    else:
        assert server.stop() == 143
    await client.nats.flush()


async def restart(server: ServerProcess, end: str, client: RawClient) -> None:
    """Ends the server and starts it on the same directory."""
    await end_server(server, end, client)
    server.start()


@BOTH_ENDS
@pytest.mark.asyncio
async def test_everything_goes_on(clients: Clients, server: ServerProcess, channel: str, end: str) -> None:
    """B200, B203, B360, B361, B367: clients, plain and durable subscriptions, ack inboxes, messages, sequences."""
    client, publisher = await connect(clients), await connect(clients)
    plain = await client.subscribe(channel)
    durable = await client.subscribe(channel, durable_name="d")
    full = await client.subscribe(channel, max_in_flight=2, auto_ack=False)
    await publish_numbered(publisher, channel, 20)
    await settle(client)
    await restart(server, end, client)
    assert (await client.ping()).error == ""
    await publish_numbered(publisher, channel, 20, first=21)
    await plain.wait_until(lambda: len(set(plain.sequences)) == 40)
    await durable.wait_until(lambda: len(set(durable.sequences)) == 40)
    for sequence in (1, 2):
        full.ack(sequence)
    await full.wait_until(lambda: {3, 4} <= set(full.sequences))
    reader = await publisher.subscribe(channel, start=pb.First)
    await reader.wait_count(40)
    assert reader.sequences == list(range(1, 41))
    assert payloads(reader.received) == [b"%d" % number for number in range(1, 41)]
    stamps = [message.timestamp for message in reader.received]
    assert stamps == sorted(stamps)
    first_copies = {m.sequence: m.SerializeToString() for m in plain.received if not m.redelivered}
    assert all(first_copies.get(m.sequence, m.SerializeToString()) == m.SerializeToString() for m in reader.received)


@pytest.mark.asyncio
async def test_orderly_stop_loses_no_ack_and_sends_nothing_twice(
    clients: Clients, server: ServerProcess, channel: str
) -> None:
    """B253, B286: acks that reached the server count; the rest comes again flagged, everything later as new."""
    client = await connect(clients)
    plain = await client.subscribe(channel, auto_ack=False, ack_wait_s=1)
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False, ack_wait_s=1)
    acked = await client.subscribe(channel)
    await publish_numbered(client, channel, 10)
    for subscription in (plain, durable):
        await subscription.wait_count(10)
        for sequence in (1, 2, 3, 5, 7, 10):
            subscription.ack(sequence)
    await acked.wait_count(10)
    assert (await client.ping()).error == ""  # over the same connection: the acks are with the server
    await end_server(server, "stop", client)
    positions = {subscription: len(subscription.received) for subscription in (plain, durable)}
    server.start()
    for subscription, position in positions.items():
        await subscription.wait_count(position + 4)
        assert marks(subscription.received[position : position + 4]) == [
            (4, True, 1), (6, True, 1), (8, True, 1), (9, True, 1)
        ]  # fmt: skip
    await publish_numbered(client, channel, 1)
    await settle(client)
    for subscription, position in positions.items():
        after = marks(subscription.received[position:])
        assert (11, False, 0) in after
        assert {sequence for sequence, _, _ in after} == {4, 6, 8, 9, 11}
    assert marks(acked.received) == [(sequence, False, 0) for sequence in range(1, 12)]


@pytest.mark.asyncio
async def test_crash_marks_possible_duplicates(clients: Clients, server: ServerProcess, channel: str) -> None:
    """B366, B394: whatever comes a second time is flagged, nothing is lost, and progress goes on."""
    client = await connect(clients)
    unacked = await client.subscribe(channel, auto_ack=False, ack_wait_s=1)
    acked = await client.subscribe(channel)
    durable = await client.subscribe(channel, durable_name="d")
    acks = [client.publish_nowait(channel, b"%d" % number) for number in range(1, 301)]
    await acked.wait_count(100)
    server.restart()
    await client.nats.flush()
    promised = {b"%d" % number for number, ack in enumerate(acks, 1) if ack.done() and not ack.result().error}
    await publish_numbered(client, channel, 5, first=1000)
    reader = await client.subscribe(channel, start=pb.First)
    await reader.wait_until(lambda: b"1004" in payloads(reader.received))
    assert promised <= set(payloads(reader.received))
    everything = set(reader.sequences)
    for subscription in (unacked, acked, durable):
        await subscription.wait_until(lambda s=subscription: set(s.sequences) == everything)  # type: ignore[misc]
        seen: set[int] = set()
        for message in subscription.received:
            assert message.redelivered == (message.redeliveryCount > 0)
            assert message.sequence not in seen or message.redelivered, f"unflagged duplicate {message.sequence}"
            seen.add(message.sequence)


@BOTH_ENDS
@pytest.mark.asyncio
async def test_pending_messages_come_again_first(
    clients: Clients, server: ServerProcess, channel: str, end: str
) -> None:
    """B271, B363-B365: due by message time plus ack wait, flagged, counts from 1, before new messages."""
    client = await connect(clients)
    subscription = await client.subscribe(channel, ack_wait_s=1, max_in_flight=3, auto_ack=False)
    await publish_numbered(client, channel, 5)
    await subscription.take(3)
    assert marks(await subscription.take(3)) == [(1, True, 1), (2, True, 1), (3, True, 1)]
    await end_server(server, end, client)
    position = len(subscription.received)
    server.start()
    await subscription.wait_count(position + 3)
    assert marks(subscription.received[position : position + 3]) == [(1, True, 1), (2, True, 1), (3, True, 1)]


@BOTH_ENDS
@pytest.mark.asyncio
async def test_offline_durable_stays_offline(clients: Clients, server: ServerProcess, channel: str, end: str) -> None:
    """B282, B291, B368: closed by a client that stays; nothing is delivered after the restart until it is resumed."""
    client = await connect(clients)
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False, ack_wait_s=1)
    removed = await client.subscribe(channel, durable_name="removed", auto_ack=False)
    await publish_numbered(client, channel, 4)
    await durable.wait_count(4)
    for sequence in (1, 3):
        durable.ack(sequence)
    await client.close_subscription(durable)
    await client.unsubscribe(removed)
    await restart(server, end, client)
    await publish_numbered(client, channel, 2, first=5)
    await settle(client)
    assert durable.sequences == [1, 2, 3, 4]
    resumed = await client.subscribe(channel, durable_name="d", start=pb.NewOnly, auto_ack=False)
    await settle(client)
    assert marks(resumed.received) == [(2, True, 1), (4, True, 1), (5, False, 0), (6, False, 0)]
    anew = await client.subscribe(channel, durable_name="removed", start=pb.First)
    assert marks(await anew.take(1)) == [(1, False, 0)]


@BOTH_ENDS
@pytest.mark.asyncio
async def test_what_ended_stays_ended(clients: Clients, server: ServerProcess, channel: str, end: str) -> None:
    """B345, B361: closed clients and subscriptions are not recovered; names in use stay in use (B63, B290)."""
    client, closed = await connect(clients), await connect(clients)
    await closed.subscribe(channel, durable_name="d")
    ended = await client.subscribe(channel)
    await client.subscribe(channel, durable_name="d")
    await client.unsubscribe(ended)
    await closed.close()
    await restart(server, end, client)
    assert (await closed.ping()).error != ""
    assert (await client.ping()).error == ""
    request = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=ended.ack_inbox)
    assert (await ask_close(client, request)).error == "stan: invalid subscription"
    assert (await client.subscribe(channel, durable_name="d")).error == "stan: duplicate durable registration"
    assert "different cases not allowed" in (await client.publish(channel.upper(), b"x")).error
    with pytest.raises(ConnectionRefusedError, match="already registered"):
        await clients.connect(client.identity.client_id, cluster_id="restart")


@pytest.mark.asyncio
async def test_nobody_listens_while_the_server_is_away(clients: Clients, server: ServerProcess, channel: str) -> None:
    """B130, B369: requests get "no responders", publishes are not stored, acks are lost."""
    client = await connect(clients)
    subscription = await client.subscribe(channel, auto_ack=False, ack_wait_s=1)
    await publish_numbered(client, channel, 1)
    await subscription.take(1)
    assert server.stop() == 143
    with pytest.raises(NoRespondersError):
        await client.ping()
    lost = client.publish_nowait(channel, b"lost")
    subscription.ack(1)
    await client.nats.flush()
    server.start()
    assert (await subscription.take(1))[0].redelivered
    await publish_numbered(client, channel, 1, first=2)
    reader = await client.subscribe(channel, start=pb.First)
    await settle(client)
    assert payloads(reader.received) == [b"1", b"2"]
    assert not lost.done()


@pytest.mark.asyncio
async def test_many_restarts(clients: Clients, server: ServerProcess, channel: str) -> None:
    """B200, B211: over three kills in a row every acked message is there once, in order."""
    client = await connect(clients)
    for number in range(3):
        await publish_numbered(client, channel, 50, first=50 * number + 1)
        server.restart()
    reader = await client.subscribe(channel, start=pb.First)
    await settle(client)
    assert payloads(reader.received) == [b"%d" % number for number in range(1, 151)]
    assert reader.sequences == list(range(1, 151))


@pytest.mark.asyncio
async def test_memory_store_forgets_everything(nats_process: NatsProcess, channel: str) -> None:
    """B362, O520: clients are unknown, and a new client's messages start at 1."""
    with ServerProcess(nats_url=nats_process.url, store="MEMORY", cluster_id="memory") as server:
        async with Clients(server.url) as clients:
            client = await clients.connect(cluster_id="memory")
            await publish_numbered(client, channel, 3)
            assert server.stop() == 143
            server.start()
            assert (await client.ping()).error == "client has been replaced or is no longer registered"
            assert (await client.publish(channel, b"x")).error == "stan: invalid publish request"
            again = await clients.connect(client.identity.client_id, cluster_id="memory")
            subscription = await again.subscribe(channel, start=pb.First)
            await publish_numbered(again, channel, 1)
            await settle(again)
            assert subscription.sequences == [1]
