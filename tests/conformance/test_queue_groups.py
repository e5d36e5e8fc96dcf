"""Queue groups of a running server (B222, B248, B249, B269, B271, B300-B319, B330, B345, B350). Restart: test_queue_restart.py."""

import asyncio

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, marks, new_name, publish_numbered, settle
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.server_process import ServerProcess

TOO_MANY = "too many subscriptions per channel"


async def join(client: RawClient, channel: str, group: str = "g", **options: object) -> RawSubscription:
    """A member that acks nothing by itself."""
    options = {"auto_ack": False, "start": pb.First, **options}
    member = await client.subscribe(channel, queue_group=group, **options)  # type: ignore[arg-type]
    assert member.error == ""
    return member


async def wait_total(members: list[RawSubscription], count: int) -> None:
    """Returns when the members have `count` messages together."""

    async def wait(member: RawSubscription) -> None:
        await member.wait_until(lambda: sum(len(one.received) for one in members) >= count)

    tasks = [asyncio.ensure_future(wait(member)) for member in members]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()


# ---- membership


@pytest.mark.asyncio
async def test_each_group_and_each_plain_subscription_gets_every_message(clients: Clients, channel: str) -> None:
    """B300-B302: groups differ by channel, durable name and group name, whoever their members are."""
    one, two = await clients.connect(), await clients.connect()
    groups = [
        [await join(one, channel), await join(two, channel)],
        [await join(one, channel, durable_name="d"), await join(two, channel, durable_name="d")],
        [await join(one, channel, "d:g")],
        [await join(two, channel, "h")],
    ]
    plain = await one.subscribe(channel, durable_name="d")
    other = await join(one, f"{channel}.other")
    await publish_numbered(one, channel, 6)
    await settle(one)
    await settle(two)
    for members in groups:
        assert sorted(sequence for member in members for sequence in member.sequences) == [1, 2, 3, 4, 5, 6]
    assert plain.sequences == [1, 2, 3, 4, 5, 6]
    assert other.sequences == []


@pytest.mark.asyncio
async def test_members_start_where_the_group_is(client: RawClient, channel: str) -> None:
    """B222, B303: only the first member's start position counts."""
    await publish_numbered(client, channel, 4)
    first = await join(client, channel, start=pb.SequenceStart, start_sequence=3)
    await first.wait_count(2)
    second = await join(client, channel, start=pb.First)
    await settle(client)
    assert (first.sequences, second.sequences) == ([3, 4], [])
    await publish_numbered(client, channel, 2)
    await settle(client)
    assert (first.sequences, second.sequences) == ([3, 4], [5, 6])


# ---- distribution


@pytest.mark.asyncio
async def test_equal_members_get_messages_in_turn(client: RawClient, channel: str) -> None:
    """B305, B319: twelve messages on three members."""
    members = [await join(client, channel) for _ in range(3)]
    await publish_numbered(client, channel, 12)
    await settle(client)
    assert [member.sequences for member in members] == [[1, 4, 7, 10], [2, 5, 8, 11], [3, 6, 9, 12]]
    assert not any(message.redelivered for member in members for message in member.received)


@pytest.mark.asyncio
async def test_member_with_the_fewest_unacked_is_chosen(client: RawClient, channel: str) -> None:
    """B305: who acks gets more."""
    quick, slow = await join(client, channel), await join(client, channel)
    await publish_numbered(client, channel, 4)
    await quick.wait_count(2)
    for sequence in quick.sequences:
        quick.ack(sequence)
    await settle(client)
    await publish_numbered(client, channel, 2)
    await settle(client)
    assert (quick.sequences, slow.sequences) == ([1, 3, 5, 6], [2, 4])


@pytest.mark.asyncio
async def test_group_waits_only_when_all_members_are_full(clients: Clients, channel: str) -> None:
    """B304, B307, B308: one full member does not hold the group; an ack of any, or a new member, releases it."""
    client, other = await clients.connect(), await clients.connect()
    small, large = await join(client, channel, max_in_flight=1), await join(other, channel, max_in_flight=3)
    await publish_numbered(client, channel, 9)
    await settle(client)
    await settle(other)
    assert (small.sequences, large.sequences) == ([1], [2, 3, 4])
    large.ack(4)
    await large.wait_count(4)
    small.ack(1)
    await small.wait_count(2)
    third = await join(client, channel, max_in_flight=2)
    await third.wait_count(2)
    await settle(client)
    await settle(other)
    assert (small.sequences, large.sequences, third.sequences) == ([1, 6], [2, 3, 4, 5], [7, 8])


@pytest.mark.asyncio
async def test_members_of_silent_clients_come_last(probing_server: ServerProcess, channel: str) -> None:
    """B305, B306, B342: avoided while another one has room; the mark is the client's, so a later member has it, too."""
    async with Clients(probing_server.url) as clients:
        healthy, silent = await clients.connect(), await clients.connect()
        silent.answers_heartbeats = False
        avoided = await join(silent, channel)
        taken = await join(healthy, channel, max_in_flight=4)
        missed = silent.heartbeats
        while silent.heartbeats < missed + 2:  # the first of them has failed when the second one comes
            await settle(healthy)
        later = await join(silent, channel)
        await publish_numbered(healthy, channel, 6)
        await settle(healthy)
        await silent.nats.flush()
        assert taken.sequences == [1, 2, 3, 4]
        assert sorted(avoided.sequences + later.sequences) == [5, 6]


# ---- acks


@pytest.mark.asyncio
async def test_ack_through_another_member_counts_at_the_holder(client: RawClient, channel: str) -> None:
    """B248, B249: the message is not redelivered, and the holder gets the next one at once."""
    one = await join(client, channel, max_in_flight=2, ack_wait_s=1)
    two = await join(client, channel, max_in_flight=2, ack_wait_s=3600)
    await publish_numbered(client, channel, 5)
    await settle(client)
    assert (one.sequences, two.sequences) == ([1, 3], [2, 4])
    two.ack(1)
    two.ack(3)
    await one.wait_count(3)
    assert one.sequences == [1, 3, 5]
    ticking = await client.subscribe(new_name("ticks"), ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, ticking.channel, 1)
    await ticking.wait_count(3)
    assert {1, 3}.isdisjoint(
        message.sequence for member in (one, two) for message in member.received if message.redelivered
    )


# ---- redelivery


@pytest.mark.asyncio
async def test_due_message_goes_to_another_member(clients: Clients, channel: str) -> None:
    """B309-B311, B271: to the one with the fewest, over its max in flight when all are full; counts are the group's."""
    client, other = await clients.connect(), await clients.connect()
    one = await join(client, channel, ack_wait_s=1)
    await publish_numbered(client, channel, 4)
    await one.wait_count(4)
    two = await join(other, channel, ack_wait_s=3600, max_in_flight=2)
    await two.wait_count(2)
    await one.wait_until(lambda: any(message.redelivered for message in one.received))
    assert marks(two.received) == [(1, True, 1), (2, True, 1)]
    two.ack(1)
    await two.wait_count(3)
    third = two.received[2]
    assert third.sequence in (3, 4)
    assert third.redelivered
    before = [message.redeliveryCount for message in one.received if message.sequence == third.sequence]
    assert third.redeliveryCount == max(before) + 1


@pytest.mark.asyncio
async def test_redelivery_in_a_group_does_not_pause(probing_server: ServerProcess, channel: str) -> None:
    """B269: a plain subscription of a silent client is not bothered, its group is served all the same (B268)."""
    async with Clients(probing_server.url) as clients:
        silent, healthy = await clients.connect(), await clients.connect()
        silent.answers_heartbeats = False
        missed = silent.heartbeats
        while silent.heartbeats < missed + 2:
            await settle(healthy)
        member = await join(silent, channel, ack_wait_s=1)
        plain = await silent.subscribe(channel, start=pb.First, ack_wait_s=1, auto_ack=False)
        await publish_numbered(healthy, channel, 1)
        await member.wait_count(2)
        assert marks(member.received)[:2] == [(1, False, 0), (1, True, 1)]
        assert marks(plain.received) == [(1, False, 0)]


# ---- leaving and coming back


@pytest.mark.asyncio
@pytest.mark.parametrize("end", ["unsubscribe", "close", "connection"])
async def test_pending_of_a_leaving_member_goes_to_the_others(clients: Clients, channel: str, end: str) -> None:
    """B312, B345, B350: all of it but what was acked before, flagged, and soon."""
    stays, leaves = await clients.connect(), await clients.connect()
    leaving = await join(leaves, channel, ack_wait_s=3600)
    await publish_numbered(stays, channel, 6)
    await leaving.wait_count(6)
    others = [await join(stays, channel, ack_wait_s=3600) for _ in range(2)]
    leaving.ack(2)
    if end == "unsubscribe":
        assert (await leaves.unsubscribe(leaving)).error == ""
    elif end == "close":
        assert (await leaves.close_subscription(leaving)).error == ""
    else:
        assert (await leaves.close()).error == ""
        await leaves.register()
    await wait_total(others, 5)
    assert sorted(mark for member in others for mark in marks(member.received)) == [
        (sequence, True, 1) for sequence in (1, 3, 4, 5, 6)
    ]
    assert [len(member.received) for member in others] == [3, 2]
    assert len(leaving.received) == 6


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("durable", "end", "rests"),
    [
        ("", "unsubscribe", False),
        ("", "close", False),
        ("", "connection", False),
        ("d", "unsubscribe", False),
        ("d", "close", True),
        ("d", "connection", True),
    ],
)
async def test_last_member_leaves(clients: Clients, channel: str, durable: str, end: str, rests: bool) -> None:
    """B314-B317, B350, B271: only a durable group whose last member does not unsubscribe is there when somebody joins.

    It is resumed by any client: all pending first, flagged and whatever its max in flight, then new messages.
    """
    first, second = await clients.connect(), await clients.connect()
    member = await join(first, channel, durable_name=durable)
    await publish_numbered(first, channel, 4)
    await member.wait_count(4)
    member.ack(2)
    if end == "unsubscribe":
        assert (await first.unsubscribe(member)).error == ""
    elif end == "close":
        assert (await first.close_subscription(member)).error == ""
    else:
        assert (await first.close()).error == ""
        await first.register()
    await publish_numbered(first, channel, 1, first=5)
    again = await join(second, channel, durable_name=durable, max_in_flight=2 if rests else 1024)
    await settle(second)
    if not rests:
        assert marks(again.received) == [(sequence, False, 0) for sequence in range(1, 6)]
        return
    assert marks(again.received) == [(1, True, 1), (3, True, 1), (4, True, 1)]
    again.ack(1)
    again.ack(3)
    await again.wait_count(4)
    assert marks(again.received)[3:] == [(5, False, 0)]


@pytest.mark.asyncio
async def test_close_and_join_at_the_same_time(clients: Clients, channel: str) -> None:
    """B318: however close and join meet, the group is one and goes on where it was; nothing is lost."""
    one, two = await clients.connect(), await clients.connect()
    member = await join(one, channel, durable_name="d", ack_wait_s=3600)
    seen: set[int] = set()
    for number in range(30):
        leaver, joiner = (one, two) if number % 2 == 0 else (two, one)
        publish = publish_numbered(joiner, channel, 3)
        closed, following, _ = await asyncio.gather(
            leaver.close_subscription(member), join(joiner, channel, durable_name="d", ack_wait_s=3600), publish
        )
        assert closed.error == ""
        await settle(leaver)
        seen.update(member.sequences)
        member = following
    await member.wait_until(lambda: seen | set(member.sequences) >= set(range(1, 91)))
    await settle(one)
    await settle(two)
    assert set(member.sequences) == set(range(1, 91))  # nothing was ever acked: the last one to join has all


@pytest.mark.asyncio
async def test_members_and_resting_groups_count_for_the_limit(limited_server: ServerProcess, channel: str) -> None:
    """B330: each member, and each durable group without members; who resumes one takes no new place."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        for _ in range(2):
            await join(client, channel)
        resting = await join(client, channel, "h", durable_name="d")
        assert (await client.close_subscription(resting)).error == ""
        assert (await client.subscribe(channel, queue_group="g")).error == TOO_MANY
        assert (await client.subscribe(channel)).error == TOO_MANY
        await join(client, channel, "h", durable_name="d")
        assert (await client.subscribe(channel, queue_group="h", durable_name="d")).error == TOO_MANY
