"""What clients see when another node becomes leader: nothing but a pause (B130-B134, B380-B404).

Three nodes on one NATS server; the leader is killed, stopped in order, or paused. Clients keep their connection to NATS.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
import pytest_asyncio

from server.protocol import stan_pb2 as pb
from tests.conformance.cluster_steps import (
    WAYS,
    Publisher,
    Way,
    all_follow,
    bring_back,
    changed_leader,
    client_connections,
    end_leader,
    has_no_responders,
    leader_of,
    nobody_answers,
    numbers,
    publish_again,
    read_all,
    unflagged_duplicates,
)
from tests.conformance.steps import (
    Clients,
    ask_close,
    join,
    listen,
    marks,
    new_name,
    publish_numbered,
    settle,
    start_ticks,
    until,
    wait_total,
)
from tests.support.nats_process import NatsProcess
from tests.support.ports import free_port
from tests.support.raw_client import ClientIdentity, RawClient
from tests.support.raw_nats import NatsMessage, NoRespondersError
from tests.support.three_nodes import CLUSTER_ID, STEPPED_DOWN_TEXT, ThreeNodes, bad_lines

EVERY_WAY = pytest.mark.parametrize("way", WAYS)

HELD_TEXT = "no majority confirms this leader: it keeps silent until one does"

MONITORING_PORT = free_port()


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsProcess]:
    """A NATS server that tells of its connections."""
    with NatsProcess(options=("-m", str(MONITORING_PORT))) as process:
        yield process


@pytest.fixture(scope="module")
def nodes(nats: NatsProcess) -> Iterator[ThreeNodes]:
    """A cluster that the tests leave with all nodes running, and healthy logs at the end."""
    with ThreeNodes(nats=nats, options=("-st", "FILE", "-mc", "0")) as running:
        yield running
        assert len(running.running) == 3
        assert bad_lines(running.nodes.values(), allowed=(HELD_TEXT, "cannot be reached for 10 seconds")) == []


@pytest_asyncio.fixture
async def clients(nodes: ThreeNodes) -> AsyncIterator[Clients]:
    """Connects clients to the cluster, which has a leader."""
    async with Clients(nodes.url) as connected:
        await all_follow(nodes, await connected.nats())
        yield connected
        await leader_of(nodes)


async def connect(clients: Clients) -> RawClient:
    """A client of this module's cluster."""
    return await clients.connect(cluster_id=CLUSTER_ID)


@EVERY_WAY
@pytest.mark.asyncio
async def test_everything_goes_on(nodes: ThreeNodes, clients: Clients, channel: str, way: Way) -> None:
    """B132, B390, B392, B403: same subjects, subscriptions, durables and ack inboxes; no loss, no gap, marked duplicates."""
    client, publisher = await connect(clients), await connect(clients)
    plain = await client.subscribe(channel)
    durable = await client.subscribe(channel, durable_name="d")
    full = await client.subscribe(channel, max_in_flight=2, auto_ack=False)
    await publish_numbered(publisher, channel, 20)
    await settle(client)
    async with changed_leader(nodes, way):
        await publish_again(publisher, channel, b"21")
        await publish_numbered(publisher, channel, 19, first=22)
        everything = {b"%d" % number for number in range(1, 41)}
        for subscription in (plain, durable):
            await subscription.wait_until(lambda s=subscription: numbers(s) == everything)  # type: ignore[misc]
        for sequence in (1, 2):
            full.ack(sequence)
        await full.wait_until(lambda: {3, 4} <= set(full.sequences))
        assert (await client.ping()).error == ""
        stored = await read_all(publisher, channel, b"40")
    assert list(dict.fromkeys(message.data for message in stored)) == [b"%d" % number for number in range(1, 41)]
    stamps = [message.timestamp for message in stored]
    assert stamps == sorted(stamps)
    for subscription in (plain, durable, full):
        assert unflagged_duplicates(subscription.received) == []
    first_copies = {m.sequence: m.SerializeToString() for m in plain.received if not m.redelivered}
    assert all(first_copies.get(m.sequence, m.SerializeToString()) == m.SerializeToString() for m in stored)


@pytest.mark.parametrize("way", ["killed", "stopped"])
@pytest.mark.asyncio
async def test_acked_messages_do_not_come_again(nodes: ThreeNodes, clients: Clients, channel: str, way: Way) -> None:
    """B381, B394: acks are replicated soon; what comes again is unacked or of the last moment, and marked."""
    client = await connect(clients)
    ticks = await start_ticks(client)
    acked = await client.subscribe(channel)
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await publish_numbered(client, channel, 100)
    await acked.wait_count(100)
    await durable.wait_count(100)
    for sequence in (*range(1, 41), *range(61, 101)):
        durable.ack(sequence)
    assert (await client.ping()).error == ""  # over the same connection: the acks are with the server
    await ticks.take(2)
    async with changed_leader(nodes, way):
        await publish_again(client, channel, b"last")
        for subscription in (acked, durable):
            await subscription.wait_until(lambda s=subscription: b"last" in numbers(s))  # type: ignore[misc]
        await settle(client)
        assert {sequence for sequence in acked.sequences[100:] if sequence <= 100} == set()
        again = [message for message in durable.received[100:] if message.sequence <= 100]
        assert {message.sequence for message in again} <= set(range(41, 61))
        assert all(message.redelivered for message in again)


@pytest.mark.parametrize("way", ["killed"])
@pytest.mark.asyncio
async def test_unacked_messages_come_again_in_time(nodes: ThreeNodes, clients: Clients, channel: str, way: Way) -> None:
    """B392: what is unacked comes again from the new leader by ack wait, flagged, counted; acks stop it."""
    client = await connect(clients)
    pending = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 3)
    await pending.wait_count(3)
    async with changed_leader(nodes, way):
        seen = len(pending.received)
        await pending.wait_until(lambda: set(pending.sequences[seen:]) == {1, 2, 3})
        assert all(message.redelivered and message.redeliveryCount > 0 for message in pending.received[seen:])
        for sequence in (1, 2, 3):
            pending.ack(sequence)
        assert (await client.ping()).error == ""
        seen = len(pending.received)
        ticks = await start_ticks(client)
        await ticks.take(2)
        assert marks(pending.received[seen:]) == []


@pytest.mark.parametrize("way", ["killed", "paused"])
@pytest.mark.asyncio
async def test_queue_group_loses_nothing(nodes: ThreeNodes, clients: Clients, channel: str, way: Way) -> None:
    """B390, B394: one member holds 50 messages, another acks its own; all that is held comes again, flagged, to anyone."""
    client = await connect(clients)
    holder = await join(client, channel, durable_name="d", max_in_flight=50, ack_wait_s=3)
    worker = await join(client, channel, durable_name="d", auto_ack=True, ack_wait_s=3)
    await publish_numbered(client, channel, 170)
    await wait_total([holder, worker], lambda _: len(numbers(holder, worker)) == 170)
    held = set(holder.sequences)
    assert len(held) == 50
    async with changed_leader(nodes, way):
        await publish_again(client, channel, b"last")
        await wait_total([holder, worker], lambda _: b"last" in numbers(holder, worker))
        await wait_total(
            [holder, worker],
            lambda _: held <= {m.sequence for one in (holder, worker) for m in one.received if m.redelivered},
        )
    unflagged = Counter(m.sequence for one in (holder, worker) for m in one.received if not m.redelivered)
    assert all(count == 1 for count in unflagged.values())


@pytest.mark.parametrize("way", ["killed", "stopped"])
@pytest.mark.asyncio
async def test_what_is_registered_stays_so(nodes: ThreeNodes, clients: Clients, channel: str, way: Way) -> None:
    """B380, B395: clients, ends of subscriptions and names in use are known to the new leader as to the old one."""
    client, closed = await connect(clients), await connect(clients)
    offline = await client.subscribe(channel, durable_name="offline", auto_ack=False)
    removed = await client.subscribe(channel, durable_name="removed", auto_ack=False)
    used = await client.subscribe(channel, durable_name="used", auto_ack=False)
    await publish_numbered(client, channel, 3)
    for subscription in (offline, removed, used):
        await subscription.wait_count(3)
    offline.ack(2)
    assert (await client.close_subscription(offline)).error == ""
    assert (await client.unsubscribe(removed)).error == ""
    assert (await closed.close()).error == ""
    async with changed_leader(nodes, way):
        await publish_again(client, channel, b"4")
        twice = await client.subscribe(channel, durable_name="used")
        assert twice.error == "stan: duplicate durable registration"
        assert (await closed.ping()).error == "client has been replaced or is no longer registered"
        resumed = await client.subscribe(channel, durable_name="offline", auto_ack=False)
        await resumed.wait_until(lambda: b"4" in numbers(resumed))
        assert set(resumed.sequences) >= {1, 3, 4}
        assert 2 not in resumed.sequences
        anew = await client.subscribe(channel, durable_name="removed", start=pb.First)
        assert (await anew.next()).sequence == 1
        request = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=removed.ack_inbox)
        assert (await ask_close(client, request)).error != ""


@pytest.mark.asyncio
async def test_only_the_leader_serves(nodes: ThreeNodes, clients: Clients, nats: NatsProcess, channel: str) -> None:
    """B131, B382: only one node listens to clients; the others send nothing, not even what is due again."""
    before = await client_connections(nats, MONITORING_PORT, CLUSTER_ID)
    assert len(before) == 3
    followers = [number for number, sent in before.items() if not sent.subjects]
    assert len(followers) == 2
    client = await connect(clients)
    pending = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 10)
    await pending.wait_count(30)
    after = await client_connections(nats, MONITORING_PORT, CLUSTER_ID)
    for number in followers:
        assert after[number] == before[number]
    (leader,) = set(after) - set(followers)
    assert after[leader].messages >= before[leader].messages + 40


@pytest.mark.asyncio
async def test_former_leader_is_silent_when_it_wakes_up(
    nodes: ThreeNodes, clients: Clients, nats: NatsProcess, channel: str
) -> None:
    """B396, B401: paused until another leads, it sends nothing to clients: no answer, no message, no redelivery."""
    client, other = await connect(clients), await connect(clients)
    pending = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 5)
    await pending.wait_count(5)
    connections = await client_connections(nats, MONITORING_PORT, CLUSTER_ID)
    (number,) = [number for number, sent in connections.items() if sent.subjects]
    old = await end_leader(nodes, "paused")
    before = (await client_connections(nats, MONITORING_PORT, CLUSTER_ID))[number]
    answers = listen(other.nats, client._ack_subject)  # every PubAck, also a second one for the same publish
    acks = [client.publish_nowait(channel, b"gap %d" % n) for n in range(5)]  # the paused node has these in its socket
    await leader_of(nodes, other_than=old)
    await publish_again(client, channel, b"last")
    await pending.wait_until(lambda: b"last" in numbers(pending))
    everything = set(pending.sequences)
    seen = len(pending.received)
    await pending.wait_until(lambda: set(pending.sequences[seen:]) >= everything)
    mark = old.mark()
    old.resume()
    await asyncio.to_thread(old.wait_for, STEPPED_DOWN_TEXT, since=mark)
    ticks = await start_ticks(client)
    await ticks.take(2)
    after = (await client_connections(nats, MONITORING_PORT, CLUSTER_ID))[number]
    assert after.messages == before.messages
    assert after.subjects == set()
    assert not any(ack.done() and not ack.result().error for ack in acks)
    ids = [pb.PubAck.FromString(one.data).guid for one in answers if not one.is_no_responders]
    assert len(ids) == len(set(ids))
    stored = await read_all(client, channel, b"last")
    assert not any(message.data.startswith(b"gap") for message in stored)


@pytest.mark.asyncio
async def test_short_pause_changes_nothing(nodes: ThreeNodes, clients: Clients, channel: str) -> None:
    """B390: a leader that stands still for a moment goes on; nothing is lost, nothing comes twice unmarked."""
    client = await connect(clients)
    subscription = await client.subscribe(channel)
    async with Publisher(client, channel) as publisher:
        for _ in range(5):
            await publisher.wait_more(20)
            leader = await leader_of(nodes)
            leader.pause()
            await client.nats.flush()
            leader.resume()
        await publisher.wait_more(20)
    await subscription.wait_until(lambda: set(publisher.acked) <= numbers(subscription))
    assert unflagged_duplicates(subscription.received) == []
    await read_all(client, channel, publisher.acked[-1])


@pytest.mark.asyncio
async def test_nobody_answers_in_the_gap(nodes: ThreeNodes, clients: Clients, channel: str) -> None:
    """B130, B133, B391: without a leader NATS says at once that nobody listens; what was sent then is not done later."""
    client = await connect(clients)
    subscription = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 1)
    await subscription.wait_count(1)
    followers = await asyncio.to_thread(nodes.followers)
    for follower in followers:
        follower.pause()
    old = await end_leader(nodes, "killed")
    await client.nats.flush()
    subjects = client.subjects
    ack = client.publish_nowait(channel, b"gap")
    for subject in (
        client.connect_subject,
        subjects.subRequests,
        subjects.unsubRequests,
        subjects.subCloseRequests,
        subjects.closeRequests,
        subjects.pingRequests,
        f"{subjects.pubPrefix}.{channel}",
    ):
        with pytest.raises(NoRespondersError):
            await client.nats.request(subject, b"")
    subscription.ack(1)  # lost
    await client.nats.flush()
    seen = len(subscription.received)
    for follower in followers:
        follower.resume()
    await leader_of(nodes, other_than=old)
    await subscription.wait_count(seen + 1)
    assert marks(subscription.received[seen : seen + 1]) == [(1, True, 1)]
    await publish_again(client, channel, b"last")
    assert not ack.done()
    assert [message.data for message in await read_all(client, channel, b"last")] == [b"1", b"last"]
    bring_back(old)


@pytest.mark.asyncio
async def test_no_majority_no_service(nodes: ThreeNodes, clients: Clients, channel: str) -> None:
    """B398, B401: the leader that is left alone answers nothing and gives up; with a majority all goes on by itself."""
    client = await connect(clients)
    subscription = await client.subscribe(channel)
    await publish_numbered(client, channel, 10)
    await subscription.wait_count(10)
    leader = await leader_of(nodes)
    mark = leader.mark()
    followers = await asyncio.to_thread(nodes.followers)
    for follower in followers:
        await asyncio.to_thread(follower.kill)
    ack = client.publish_nowait(channel, b"alone")
    assert await nobody_answers(client, client.subjects.pingRequests, pb.Ping().SerializeToString())
    await asyncio.to_thread(leader.wait_for, STEPPED_DOWN_TEXT, since=mark)
    await until(lambda: has_no_responders(client, client.subjects.pingRequests), "end of listening")
    assert not (ack.done() and not ack.result().error)
    followers[0].spawn()
    await publish_again(client, channel, b"11")
    await subscription.wait_until(lambda: b"11" in numbers(subscription))
    stored = [message.data for message in await read_all(client, channel, b"11")]
    assert [data for data in stored if data != b"alone"] == [b"%d" % number for number in range(1, 12)]
    followers[1].spawn()


@pytest.mark.asyncio
async def test_unknown_outcome_is_no_success(nodes: ThreeNodes, clients: Clients, channel: str) -> None:
    """B402, B403, B404: what was proposed and not committed is not confirmed; it can be done again, and leaves no gap."""
    client = await connect(clients)
    await publish_numbered(client, channel, 5)
    leader = await leader_of(nodes)
    mark = leader.mark()
    followers = await asyncio.to_thread(nodes.followers)
    for follower in followers:
        follower.pause()
    late = RawClient(client.nats, ClientIdentity(new_name("late")), CLUSTER_ID)
    acks = [client.publish_nowait(channel, b"unknown %d" % number) for number in range(5)]
    with pytest.raises((TimeoutError, NoRespondersError)):
        await late.register(timeout_s=0.2)
    with pytest.raises((TimeoutError, NoRespondersError)):
        await client.subscribe(channel, durable_name="d", timeout_s=0.2)
    await asyncio.to_thread(leader.wait_for, STEPPED_DOWN_TEXT, since=mark)
    await client.nats.flush()
    errors = [ack.result().error for ack in acks if ack.done()]
    assert set(errors) <= {"leadership lost while committing log", "node is not the leader"}
    for follower in followers:
        follower.resume()
    await publish_again(client, channel, b"last")
    stored = [message.data for message in await read_all(client, channel, b"last")]
    assert [data for data in stored if not data.startswith(b"unknown")] == [b"1", b"2", b"3", b"4", b"5", b"last"]
    late.answers_heartbeats = False  # as a library whose connect failed
    again = RawClient(client.nats, ClientIdentity(late.identity.client_id), CLUSTER_ID)
    assert (await again.register()).error == ""
    durable = await client.subscribe(channel, durable_name="d", start=pb.First)
    assert durable.error in ("", "stan: duplicate durable registration")


@pytest.mark.asyncio
async def test_rapid_changes_settle(nodes: ThreeNodes, clients: Clients, channel: str) -> None:
    """B397, B403: leaders that are paused as soon as they lead, one after the other; nothing acked is lost, no gap."""
    client, other = await connect(clients), await connect(clients)
    subscription = await other.subscribe(channel, durable_name="d")
    async with Publisher(client, channel) as publisher:
        old = await end_leader(nodes, "paused")
        for _ in range(4):
            await leader_of(nodes, other_than=old)
            old.resume()
            old = await end_leader(nodes, "paused")
        await leader_of(nodes, other_than=old)
        old.resume()
        await publisher.wait_more(50)
    await subscription.wait_until(lambda: set(publisher.acked) <= numbers(subscription))
    assert unflagged_duplicates(subscription.received) == []
    stored = {message.data for message in await read_all(client, channel, publisher.acked[-1])}
    assert set(publisher.acked) <= stored


@pytest.mark.parametrize("way", ["killed", "stopped"])
@pytest.mark.asyncio
async def test_changes_under_load_lose_nothing(nodes: ThreeNodes, clients: Clients, channel: str, way: Way) -> None:
    """B390, B394, B403: while it is published as fast as acks come; all acked are delivered, unmarked only once."""
    client, other = await connect(clients), await connect(clients)
    plain = await other.subscribe(channel)
    durable = await other.subscribe(channel, durable_name="d", start=pb.First)
    async with Publisher(client, channel) as publisher:
        await publisher.wait_more(50)
        async with changed_leader(nodes, way):
            await publisher.wait_more(50)
    for subscription in (plain, durable):
        await subscription.wait_until(lambda s=subscription: set(publisher.acked) <= numbers(s))  # type: ignore[misc]
        assert unflagged_duplicates(subscription.received) == []
    stored = {message.data for message in await read_all(client, channel, publisher.acked[-1])}
    assert set(publisher.acked) <= stored


@pytest.mark.asyncio
async def test_subscription_made_at_once_is_complete(nodes: ThreeNodes, clients: Clients, channel: str) -> None:
    """B134: whoever is answered first by the new leader gets messages, and its acks count."""
    client = await connect(clients)
    old = await end_leader(nodes, "killed")
    subscription = None
    async with asyncio.timeout(40):
        while subscription is None:
            with suppress(NoRespondersError):
                subscription = await client.subscribe(channel, ack_wait_s=1)
    assert (await client.publish(channel, b"1")).error == ""
    assert (await subscription.next()).data == b"1"
    ticks = await start_ticks(client)
    await ticks.take(2)
    assert subscription.sequences == [1]
    bring_back(old)


@pytest.mark.asyncio
async def test_leadership_that_comes_back_starts_from_the_store(
    nodes: ThreeNodes, clients: Clients, channel: str
) -> None:
    """B395: a node that led, lost it and leads again knows what happened meanwhile, and nothing of its first time."""
    client = await connect(clients)
    stalled = await client.subscribe(channel, max_in_flight=2, auto_ack=False, ack_wait_s=1)
    await publish_numbered(client, channel, 6)
    await stalled.wait_until(lambda: {1, 2} <= set(stalled.sequences))
    first = await end_leader(nodes, "paused")
    second = await leader_of(nodes, other_than=first)
    (third,) = [node for node in nodes.nodes.values() if node not in (first, second)]
    for sequence in (1, 2):
        stalled.ack(sequence)
    await stalled.wait_until(lambda: {3, 4} <= set(stalled.sequences))
    mark = first.mark()
    first.resume()
    await asyncio.to_thread(first.wait_for, STEPPED_DOWN_TEXT, since=mark)
    await (await start_ticks(client)).next()  # a second later the acks are replicated
    await all_follow(nodes, client.nats)
    await asyncio.to_thread(third.kill)
    await publish_again(client, channel, b"7")  # only the first and the second one have this: one of them must lead
    await asyncio.to_thread(second.kill)
    third.spawn()
    assert await leader_of(nodes, other_than=second) is first
    seen = len(stalled.received)
    await stalled.wait_until(lambda: {3, 4} <= set(stalled.sequences[seen:]))
    assert set(stalled.sequences[seen:]) == {3, 4}
    for sequence in (3, 4):
        stalled.ack(sequence)
    await stalled.wait_until(lambda: {5, 6} <= set(stalled.sequences))
    assert set(stalled.sequences[seen:]) == {3, 4, 5, 6}
    second.spawn()


@pytest.fixture(scope="module")
def aging(nats: NatsProcess) -> Iterator[ThreeNodes]:
    """A cluster with quick heartbeats that keeps messages for two seconds."""
    options = ("-hbi", "1s", "-hbt", "1s", "-hbf", "1", "-ma", "2s")
    with ThreeNodes(nats=nats, cluster_id="aging", options=options) as running:
        yield running
        assert bad_lines(running.nodes.values(), allowed=("Timed out on heartbeats", HELD_TEXT)) == []


@pytest.mark.asyncio
async def test_timers_go_on_with_the_new_leader(aging: ThreeNodes, channel: str) -> None:
    """B392, B340, B341, B328: heartbeats come, who does not answer them is closed, and messages expire by age."""
    async with Clients(aging.url) as clients:
        answers = await clients.connect(cluster_id="aging")
        silent = await clients.connect(cluster_id="aging")
        ticks = await start_ticks(answers)
        old = await end_leader(aging, "killed")
        await publish_again(answers, channel, b"old")
        bring_back(old)
        silent.answers_heartbeats = False
        beats: asyncio.Queue[NatsMessage] = asyncio.Queue()
        answers.nats.subscribe(answers.identity.heartbeat_inbox, beats.put_nowait)
        async with asyncio.timeout(30):
            for _ in range(4):
                await beats.get()
            while (await silent.ping()).error == "":
                await beats.get()
        assert (await answers.ping()).error == ""
        await publish_again(answers, channel, b"young")
        reader = await answers.subscribe(channel, start=pb.First)
        assert (await reader.next()).data == b"young"
        assert ticks.error == ""
        await answers.close()
        clients.forget()
