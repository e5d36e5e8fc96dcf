"""Queue groups over a restart of the server, killed or in order (B253, B271, B313, B316, B317, B352, B360-B368, B394)."""

import asyncio
from collections.abc import Iterator

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, join, marks, payloads, publish_numbered, settle, settle_all, wait_total
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.server_process import ServerProcess

BOTH_ENDS = pytest.mark.parametrize("end", ["kill", "stop"])
CLUSTER = "queue-restart"
LONG_S = 3600
"""An ack wait that no test sees the end of, seconds."""


@pytest.fixture(scope="module")
def server(nats_process: NatsProcess) -> Iterator[ServerProcess]:
    """A server with a FILE store that the tests of this module restart."""
    with ServerProcess(nats_url=nats_process.url, cluster_id=CLUSTER, options=("-mc", "0")) as process:
        yield process
        assert process.is_running
        assert "Traceback" not in process.log, process.log


async def replicated(client: RawClient) -> None:
    """Returns when the progress of all groups so far is in the log: progress travels ahead of any end, in its entry."""
    member = await join(client, f"barrier-of-{client.identity.client_id}")
    assert (await client.unsubscribe(member)).error == ""


async def restart(server: ServerProcess, end: str, *clients: RawClient) -> None:
    """Ends the server and starts it on the same directory; what it sent before has arrived then."""
    if end == "kill":
        server.kill()
    else:
        assert server.stop() == 143
    for client in clients:
        await client.nats.flush()
    server.start()


class After:
    """What members receive from now on."""

    def __init__(self, members: list[RawSubscription]) -> None:
        self._members = [(member, len(member.received)) for member in members]

    def of_each(self) -> list[list[pb.MsgProto]]:
        """Of each member, in order."""
        return [member.received[start:] for member, start in self._members]

    def of_all(self) -> list[pb.MsgProto]:
        """Of all together."""
        return [message for received in self.of_each() for message in received]


# ---- pending


async def publish_old(client: RawClient, channel: str, count: int) -> None:
    """Publishes, and returns when the messages are at least two seconds old."""
    clock = await join(client, f"{channel}.clock", ack_wait_s=1)
    await publish_numbered(client, channel, count)
    await publish_numbered(client, clock.channel, 1)
    await clock.wait_count(3)
    assert (await client.unsubscribe(clock)).error == ""


@BOTH_ENDS
@pytest.mark.asyncio
async def test_what_is_due_comes_again_at_who_had_it(
    clients: Clients, server: ServerProcess, channel: str, end: str
) -> None:
    """B361, B363-B366: at once, in order, flagged, counted from 1, before anything new; what is acked never comes again."""
    client, other = await clients.connect(cluster_id=CLUSTER), await clients.connect(cluster_id=CLUSTER)
    await publish_old(client, channel, 12)
    members = [await join(one, channel, ack_wait_s=2, max_in_flight=4) for one in (client, other, other)]
    await settle_all(client, other)
    assert [member.sequences for member in members] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    for member, sequence in zip(members, (2, 8, 9), strict=True):
        member.ack(sequence)
    await other.nats.flush()
    await replicated(client)
    after = After(members)
    await restart(server, end, client, other)
    await settle_all(client, other)
    assert [marks(received) for received in after.of_each()] == [
        [(1, True, 1), (3, True, 1), (4, True, 1)],
        [(5, True, 1), (6, True, 1), (7, True, 1)],
        [(10, True, 1), (11, True, 1), (12, True, 1)],
    ]
    await publish_numbered(client, channel, 4)
    await settle_all(client, other)
    assert sorted(mark for mark in marks(after.of_all()) if mark[0] > 12) == [
        (13, False, 0), (14, False, 0), (15, False, 0)
    ]  # fmt: skip


@BOTH_ENDS
@pytest.mark.asyncio
async def test_pending_comes_again(clients: Clients, server: ServerProcess, channel: str, end: str) -> None:
    """B361, B363, B366: whatever is not acked, when it is due, flagged; what is acked never; then what is new."""
    client = await clients.connect(cluster_id=CLUSTER)
    members = [await join(client, channel, ack_wait_s=1) for _ in range(2)]
    await publish_numbered(client, channel, 8)
    await settle(client)
    members[0].ack(3)
    members[1].ack(2)
    await replicated(client)
    after = After(members)
    await restart(server, end, client)
    await wait_total(members, lambda _: {message.sequence for message in after.of_all()} >= {1, 4, 5, 6, 7, 8})
    assert all(message.redelivered and message.sequence not in (2, 3) for message in after.of_all())
    await publish_numbered(client, channel, 2)
    await settle(client)
    assert {(9, False, 0), (10, False, 0)} <= set(marks(after.of_all()))


@BOTH_ENDS
@pytest.mark.asyncio
async def test_deadlines_count_from_the_message(
    clients: Clients, server: ServerProcess, channel: str, end: str
) -> None:
    """B363, B364: an old message is due at once after the start, however late it was sent; a long ack wait is not over."""
    client = await clients.connect(cluster_id=CLUSTER)
    await publish_old(client, channel, 2)
    short = await join(client, channel, "short", ack_wait_s=2)
    long = await join(client, channel, "long", ack_wait_s=LONG_S)
    await settle(client)
    await replicated(client)
    assert marks(short.received) == marks(long.received) == [(1, False, 0), (2, False, 0)]
    await restart(server, end, client)
    await settle(client)
    assert marks(short.received)[2:] == [(1, True, 1), (2, True, 1)]
    assert len(long.received) == 2


@BOTH_ENDS
@pytest.mark.asyncio
async def test_full_group_stays_full(clients: Clients, server: ServerProcess, channel: str, end: str) -> None:
    """B307, B360, B367: after the start acks through the old inboxes release it, new messages before these do not come."""
    client = await clients.connect(cluster_id=CLUSTER)
    members = [await join(client, channel, max_in_flight=2, ack_wait_s=LONG_S) for _ in range(2)]
    await publish_numbered(client, channel, 8)
    await settle(client)
    await replicated(client)
    await restart(server, end, client)
    await settle(client)
    assert [member.sequences for member in members] == [[1, 3], [2, 4]]
    members[1].ack(2)
    await members[1].wait_count(3)
    members[1].ack(1)  # the other one has it (B248)
    await members[0].wait_count(3)
    assert [member.sequences for member in members] == [[1, 3, 6], [2, 4, 5]]


@pytest.mark.asyncio
async def test_orderly_stop_loses_no_ack_and_marks_nothing(
    clients: Clients, server: ServerProcess, channel: str
) -> None:
    """B253, B317, B366: acks that are with the server count, and what was not sent yet comes as new, in turn."""
    client = await clients.connect(cluster_id=CLUSTER)
    members = [await join(client, channel, max_in_flight=5, ack_wait_s=LONG_S) for _ in range(2)]
    await publish_numbered(client, channel, 16)
    await settle(client)
    for member in members:
        for sequence in member.sequences:
            member.ack(sequence)
    assert (await client.ping()).error == ""  # over the same connection: the acks are with the server
    await restart(server, "stop", client)
    await settle(client)
    assert sorted(sequence for member in members for sequence in member.sequences) == list(range(1, 17))
    assert not any(one.redelivered for member in members for one in member.received)


# ---- members that left


@BOTH_ENDS
@pytest.mark.asyncio
async def test_pending_of_a_member_that_left_just_before(
    clients: Clients, server: ServerProcess, channel: str, end: str
) -> None:
    """B312, B313, B352: the answer to its close promises that the others have what it held."""
    client = await clients.connect(cluster_id=CLUSTER)
    leaving = await join(client, channel, ack_wait_s=LONG_S)
    await publish_numbered(client, channel, 25)
    await leaving.wait_count(25)
    others = [await join(client, channel, ack_wait_s=1) for _ in range(2)]
    for sequence in range(5, 26, 5):
        leaving.ack(sequence)
    assert (await client.close_subscription(leaving)).error == ""
    await restart(server, end, client)
    wanted = {sequence for sequence in range(1, 26) if sequence % 5}
    await wait_total(others, lambda received: {one.sequence for one in received} >= wanted)
    assert {one.sequence for member in others for one in member.received} == wanted
    assert all(one.redelivered for member in others for one in member.received)
    assert len(leaving.received) == 25


@BOTH_ENDS
@pytest.mark.asyncio
async def test_what_ended_stays_ended(clients: Clients, server: ServerProcess, channel: str, end: str) -> None:
    """B314, B315, B345, B350: groups that were removed are new afterwards, members that left get nothing any more."""
    client, closed = await clients.connect(cluster_id=CLUSTER), await clients.connect(cluster_id=CLUSTER)
    plain = await join(client, channel)
    removed = await join(client, channel, durable_name="removed")
    left = await join(closed, channel, "h", ack_wait_s=LONG_S)
    stayed = await join(client, channel, "h", ack_wait_s=2)
    await publish_numbered(client, channel, 2)
    await settle_all(client, closed)
    assert (left.sequences, stayed.sequences) == ([1], [2])
    stayed.ack(2)
    assert (await client.close_subscription(plain)).error == ""
    assert (await client.unsubscribe(removed)).error == ""
    assert (await closed.close()).error == ""
    await restart(server, end, client, closed)
    await stayed.wait_until(lambda: 1 in stayed.sequences)
    for options in ({}, {"durable_name": "removed"}):
        again = await join(client, channel, **options)
        assert marks(await again.take(2)) == [(1, False, 0), (2, False, 0)]
    assert (await client.close_subscription(plain)).error == "stan: invalid subscription"
    await publish_numbered(client, channel, 1)
    await settle_all(client, closed)
    assert left.sequences == [1]
    assert (3, False, 0) in marks(stayed.received)


# ---- groups at rest


@BOTH_ENDS
@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["close", "connection"])
async def test_resting_group_rests_on(
    clients: Clients, server: ServerProcess, channel: str, end: str, how: str
) -> None:
    """B368, B291, B316, B317: nothing is sent to it; who joins gets what was pending, then what came meanwhile."""
    client, other = await clients.connect(cluster_id=CLUSTER), await clients.connect(cluster_id=CLUSTER)
    first, second = [await join(other, channel, durable_name="d", ack_wait_s=1) for _ in range(2)]
    await publish_numbered(client, channel, 4)
    await settle_all(client, other)
    first.ack(1)
    if how == "close":
        assert (await other.close_subscription(first)).error == ""
        assert (await other.close_subscription(second)).error == ""
    else:
        assert (await other.close()).error == ""
    counts = len(first.received), len(second.received)
    await restart(server, end, client, other)
    await publish_numbered(client, channel, 1, first=5)
    await settle_all(client, other)
    assert (len(first.received), len(second.received)) == counts
    joined = await join(client, channel, durable_name="d", start=pb.NewOnly, max_in_flight=1)
    await settle(client)
    assert marks(joined.received) == [(2, True, 1), (3, True, 1), (4, True, 1)]
    for sequence in (2, 3, 4):
        joined.ack(sequence)
    await joined.wait_count(4)
    assert marks(joined.received)[3:] == [(5, False, 0)]


@BOTH_ENDS
@pytest.mark.asyncio
async def test_groups_keep_their_names_apart(clients: Clients, server: ServerProcess, channel: str, end: str) -> None:
    """B301, B302, B360: the durable group, the plain group and the one with the colon in its name are three afterwards."""
    client = await clients.connect(cluster_id=CLUSTER)
    members = [
        await join(client, channel, group, durable_name=durable_name, auto_ack=True)
        for group, durable_name in (("g", "d"), ("g", ""), ("d:g", ""), ("g", "d"), ("g", ""), ("d:g", ""))
    ]
    await publish_numbered(client, channel, 2)
    await settle(client)
    await replicated(client)
    await restart(server, end, client)
    await publish_numbered(client, channel, 20, first=3)
    await wait_total(members, lambda received: len({(one.sequence, one.data) for one in received}) >= 22)
    await settle(client)
    for number in range(3):
        one, two = members[number], members[number + 3]
        assert set(one.sequences) | set(two.sequences) == set(range(1, 23))
        assert not {message.sequence for message in one.received if not message.redelivered} & {
            message.sequence for message in two.received if not message.redelivered
        }


# ---- killed in the middle of things


def check_flow(members: list[RawSubscription]) -> None:
    """B394, B420: a sequence comes at most once unflagged; the flag says what the count says."""
    unmarked = [one.sequence for member in members for one in member.received if not one.redelivered]
    assert len(unmarked) == len(set(unmarked))
    assert all(one.redelivered == (one.redeliveryCount > 0) for member in members for one in member.received)


@pytest.mark.asyncio
async def test_killed_in_the_middle_of_a_flow(clients: Clients, server: ServerProcess, channel: str) -> None:
    """B394, B415, B420: every message with a PubAck arrives, and whatever comes twice is flagged, however often it is killed.

    One member acks nothing. The kill comes while publishes are under way.
    """
    client, publisher = await clients.connect(cluster_id=CLUSTER), await clients.connect(cluster_id=CLUSTER)
    members = [
        await client.subscribe(channel, queue_group="g", start=pb.First, auto_ack=number != 0, ack_wait_s=1)
        for number in range(3)
    ]
    promised: set[bytes] = set()
    for number in range(4):
        texts = [b"%d" % sequence for sequence in range(1000 * number, 1000 * number + 400)]
        acks = [publisher.publish_nowait(channel, text) for text in texts]
        count = sum(len(member.received) for member in members)
        await wait_total(members, lambda received, seen=count: len(received) > seen + 50)  # type: ignore[misc]
        server.kill()
        await client.nats.flush()
        await publisher.nats.flush()
        promised |= {text for text, ack in zip(texts, acks, strict=True) if ack.done() and not ack.result().error}
        server.start()
    await publish_numbered(publisher, channel, 1, first=9999)
    reader = await publisher.subscribe(channel, start=pb.First)
    await reader.wait_until(lambda: b"9999" in payloads(reader.received))
    assert promised <= set(payloads(reader.received))
    wanted = set(reader.sequences)
    await wait_total(members, lambda received: {one.sequence for one in received} == wanted)
    check_flow(members)


@pytest.mark.asyncio
async def test_killed_while_members_come_and_go(clients: Clients, server: ServerProcess, channel: str) -> None:
    """B313, B394: with members that leave in the moment of the kill, whether that was answered or not, nothing is lost."""
    client, visitor = await clients.connect(cluster_id=CLUSTER), await clients.connect(cluster_id=CLUSTER)
    members = [await join(client, channel, durable_name="d", ack_wait_s=1) for _ in range(2)]
    acked: set[int] = set()
    for number in range(4):
        visiting = await join(visitor, channel, durable_name="d", ack_wait_s=LONG_S)
        members.append(visiting)
        await publish_numbered(client, channel, 60, first=60 * number + 1)
        for sequence in visiting.sequences[::3]:
            visiting.ack(sequence)
            acked.add(sequence)
        closing = asyncio.ensure_future(visitor.close_subscription(visiting, timeout_s=3600))
        await visitor.nats.flush()
        if number % 2:
            assert (await closing).error == ""
        server.kill()
        await client.nats.flush()
        await visitor.nats.flush()
        server.start()
        if not closing.done():
            closing.cancel()
            answer = await visitor.close_subscription(visiting)  # whatever became of it, now it is gone
            assert answer.error in ("", "stan: invalid subscription")
    wanted = set(range(1, 241))
    stayed = members[:2]
    await wait_total(stayed, lambda received: {one.sequence for one in received} | acked == wanted)
    check_flow(members)
