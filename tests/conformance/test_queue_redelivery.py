"""Redelivery in queue groups, and what becomes of the messages of a member that leaves (B248, B252, B267, B269, B271, B309-B313).

Durable groups without members: test_queue_durables.py. Restart: test_queue_restart.py.
"""

from collections.abc import Awaitable, Callable

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import (
    Clients,
    ask_close,
    join,
    marks,
    publish_numbered,
    settle,
    settle_all,
    start_ticks,
    wait_total,
)
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.server_process import ServerProcess

LONG_S = 3600
"""An ack wait that no test sees the end of, seconds."""

End = Callable[[Clients, RawClient, RawSubscription], Awaitable[None]]


async def _unsubscribe(_clients: Clients, client: RawClient, member: RawSubscription) -> None:
    assert (await client.unsubscribe(member)).error == ""


async def _close(_clients: Clients, client: RawClient, member: RawSubscription) -> None:
    assert (await client.close_subscription(member)).error == ""


async def _close_by_inbox(_clients: Clients, client: RawClient, member: RawSubscription) -> None:
    request = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=member.channel, inbox=member.inbox)
    assert (await ask_close(client, request)).error == ""


async def _end_connection(_clients: Clients, client: RawClient, _member: RawSubscription) -> None:
    assert (await client.close()).error == ""


async def _be_replaced(clients: Clients, client: RawClient, _member: RawSubscription) -> None:
    client.answers_heartbeats = False
    await clients.connect(client.identity.client_id)


ENDS: list[End] = [_unsubscribe, _close, _close_by_inbox, _end_connection, _be_replaced]
EVERY_END = pytest.mark.parametrize("leave", ENDS, ids=[end.__name__.removeprefix("_") for end in ENDS])


def again(members: list[RawSubscription]) -> list[tuple[int, int]]:
    """(sequence, redelivery count) of all redeliveries to the members, sorted."""
    received = [message for member in members for message in member.received]
    return sorted((message.sequence, message.redeliveryCount) for message in received if message.redelivered)


# ---- messages that are due


@pytest.mark.asyncio
async def test_due_message_goes_to_another_member(clients: Clients, channel: str) -> None:
    """B309-B311, B271: to the one with the fewest, over its max in flight when all are full; counts are the group's."""
    client, other = await clients.connect(), await clients.connect()
    one = await join(client, channel, ack_wait_s=1)
    await publish_numbered(client, channel, 4)
    await one.wait_count(4)
    two = await join(other, channel, ack_wait_s=LONG_S, max_in_flight=2)
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
async def test_single_member_gets_its_messages_again_and_again(client: RawClient, channel: str) -> None:
    """B260, B265, B266, B271, B272: due ones in order, beyond max in flight, with growing count; no new ones meanwhile."""
    member = await join(client, channel, ack_wait_s=1, max_in_flight=2)
    await publish_numbered(client, channel, 4)
    assert marks(await member.take(6)) == [
        (1, False, 0), (2, False, 0), (1, True, 1), (2, True, 1), (1, True, 2), (2, True, 2)
    ]  # fmt: skip
    member.ack(1)
    assert marks(await member.take(3)) == [(3, False, 0), (2, True, 3), (3, True, 1)]


@pytest.mark.asyncio
async def test_ack_wait_is_that_of_the_holder(client: RawClient, channel: str) -> None:
    """B304, B309, B310: what was sent to the member with the short ack wait comes again until the other one has it."""
    short, long = await join(client, channel, ack_wait_s=1), await join(client, channel, ack_wait_s=LONG_S)
    await publish_numbered(client, channel, 4)
    await settle(client)
    assert (short.sequences, long.sequences) == ([1, 3], [2, 4])
    long.ack(2)
    long.ack(4)
    await long.wait_until(lambda: {1, 3} <= set(long.sequences))
    seen = again([short, long])
    assert {sequence for sequence, _ in seen} == {1, 3}
    ticks = await start_ticks(client)
    await ticks.wait_count(3)
    assert again([short, long]) == seen  # now the long ack wait holds


@pytest.mark.asyncio
async def test_moved_message_is_due_after_the_ack_wait_of_its_new_holder(client: RawClient, channel: str) -> None:
    """B310, B422: sent by the one with the long ack wait, dealt to the one with the short one, it comes every second."""
    long = await join(client, channel, ack_wait_s=LONG_S)
    await publish_numbered(client, channel, 1)
    await long.wait_count(1)
    short = await join(client, channel, ack_wait_s=1)
    assert (await client.close_subscription(long)).error == ""
    assert marks(await short.take(3)) == [(1, True, 1), (1, True, 2), (1, True, 3)]
    short.ack(1)


@pytest.mark.asyncio
async def test_full_members_get_due_messages(client: RawClient, channel: str) -> None:
    """B309, B311, B305: when all are full, the first in the list, which moves to its end; then who has room again."""
    short = await join(client, channel, ack_wait_s=1, max_in_flight=4)
    long = await join(client, channel, ack_wait_s=LONG_S, max_in_flight=4)
    await publish_numbered(client, channel, 8)
    await settle(client)
    assert (short.sequences, long.sequences) == ([1, 3, 5, 7], [2, 4, 6, 8])
    await wait_total([short, long], lambda received: len(received) >= 12)
    # 1 stays with the first; 3 goes to the other one, which is first then and holds five; so the first has room.
    assert marks(short.received)[4:7] == [(1, True, 1), (5, True, 1), (7, True, 1)]
    assert marks(long.received)[4:] == [(3, True, 1)]


@pytest.mark.asyncio
async def test_ack_through_the_old_member_ends_redelivery(client: RawClient, channel: str) -> None:
    """B248, B249, B270: the message went to another member meanwhile: it is removed there, and both have room."""
    old = await join(client, channel, ack_wait_s=1, max_in_flight=1)
    await publish_numbered(client, channel, 1)
    await old.wait_count(1)
    new = await join(client, channel, ack_wait_s=1, max_in_flight=1)
    await new.wait_count(1)
    await publish_numbered(client, channel, 2, first=2)  # the old member has room for one of them
    await old.wait_until(lambda: 2 in old.sequences)
    assert not {2, 3} & set(new.sequences)
    old.ack(1)
    await new.wait_until(lambda: 3 in new.sequences)
    counts = [len([one for one in member.received if one.sequence == 1]) for member in (old, new)]
    await new.wait_until(lambda: len([one for one in new.received if one.redelivered and one.sequence != 1]) >= 2)
    assert [len([one for one in member.received if one.sequence == 1]) for member in (old, new)] == counts


@pytest.mark.asyncio
async def test_group_counts_for_itself(client: RawClient, channel: str) -> None:
    """B243, B271: what one group was sent again is new to another one that comes later."""
    one = await join(client, channel, ack_wait_s=1)
    await publish_numbered(client, channel, 1)
    assert marks(await one.take(3)) == [(1, False, 0), (1, True, 1), (1, True, 2)]
    other = await join(client, channel, "h", ack_wait_s=1)
    assert marks(await other.take(2)) == [(1, False, 0), (1, True, 1)]


@pytest.mark.asyncio
async def test_due_messages_removed_by_a_limit(limited_server: ServerProcess, channel: str) -> None:
    """B267, B235: they count as acked at whoever holds them, which frees full members; nobody gets them again."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        members = [await join(client, channel, ack_wait_s=1, max_in_flight=2) for _ in range(2)]
        await publish_numbered(client, channel, 4)
        await settle(client)
        assert [member.sequences for member in members] == [[1, 3], [2, 4]]
        await publish_numbered(client, channel, 6)
        await settle(client)
        positions = [len(member.received) for member in members]
        # Stored are 6 to 10: all that is pending is gone, as is 5, which nobody was sent.
        await wait_total(members, lambda received: {one.sequence for one in received} >= {6, 7, 8, 9})
        for member in members:
            for sequence in (6, 7, 8, 9):
                member.ack(sequence)
        await wait_total(members, lambda received: 10 in {one.sequence for one in received})
        later = [one for member, start in zip(members, positions, strict=True) for one in member.received[start:]]
        assert {one.sequence for one in later} == {6, 7, 8, 9, 10}


# ---- leaving


@EVERY_END
@pytest.mark.asyncio
async def test_pending_of_a_leaving_member_goes_to_the_others(clients: Clients, channel: str, leave: End) -> None:
    """B312, B345, B350, B352: all of it but what was acked before, dealt in turn, flagged, and long before its ack wait."""
    stays, leaves = await clients.connect(), await clients.connect()
    leaving = await join(leaves, channel, ack_wait_s=LONG_S)
    await publish_numbered(stays, channel, 6)
    await leaving.wait_count(6)
    others = [await join(stays, channel, ack_wait_s=LONG_S) for _ in range(2)]
    leaving.ack(2)
    assert (await leaves.ping()).error == ""
    await leave(clients, leaves, leaving)
    await wait_total(others, lambda received: len(received) >= 5)
    assert again(others) == [(sequence, 1) for sequence in (1, 3, 4, 5, 6)]
    assert [len(member.received) for member in others] == [3, 2]
    await settle_all(stays, leaves)
    assert len(leaving.received) == 6


@pytest.mark.asyncio
async def test_all_members_but_one_end_with_their_client(clients: Clients, channel: str) -> None:
    """B312, B345: several members of one client leave at once; nothing of theirs stays with one of them."""
    stays, leaves = await clients.connect(), await clients.connect()
    leaving = [await join(leaves, channel, ack_wait_s=LONG_S) for _ in range(3)]
    await publish_numbered(stays, channel, 9)
    await wait_total(leaving, lambda received: len(received) >= 9)
    other = await join(stays, channel, ack_wait_s=LONG_S)
    assert (await leaves.close()).error == ""
    await other.wait_count(9)
    assert again([other]) == [(sequence, 1) for sequence in range(1, 10)]


@pytest.mark.asyncio
async def test_leaving_one_after_the_other(clients: Clients, channel: str) -> None:
    """B312, B271, B317: the last one has everything that nobody acked, counted once per hand-over."""
    client = await clients.connect()
    members = [await join(client, channel, ack_wait_s=LONG_S) for _ in range(3)]
    await publish_numbered(client, channel, 6)
    await settle(client)
    members[1].ack(5)
    assert (await client.close_subscription(members[0])).error == ""
    await wait_total(members[1:], lambda received: {1, 4} <= {one.sequence for one in received})
    moved_to_second = [one.sequence for one in members[1].received if one.redelivered]
    assert (await client.close_subscription(members[1])).error == ""
    last = members[2]
    await last.wait_until(lambda: {1, 2, 3, 4, 6} == set(last.sequences))
    assert again([last]) == sorted(
        [(2, 1)] + [(sequence, 2 if sequence in moved_to_second else 1) for sequence in (1, 4)]
    )
    await publish_numbered(client, channel, 1)
    await last.wait_until(lambda: 7 in last.sequences)
    assert marks(last.received)[-1] == (7, False, 0)


@pytest.mark.asyncio
async def test_ack_inbox_of_a_left_member_is_dead(clients: Clients, channel: str) -> None:
    """B252: a late ack through it is lost, so the message goes on coming to the member that has it now."""
    client = await clients.connect()
    leaving = await join(client, channel, ack_wait_s=LONG_S)
    await publish_numbered(client, channel, 1)
    await leaving.wait_count(1)
    other = await join(client, channel, ack_wait_s=1)
    assert (await client.unsubscribe(leaving)).error == ""
    leaving.ack(1)
    assert marks(await other.take(3)) == [(1, True, 1), (1, True, 2), (1, True, 3)]


@pytest.mark.asyncio
@pytest.mark.parametrize("durable_name", ["", "d"])
async def test_acks_right_before_leaving_count(clients: Clients, channel: str, durable_name: str) -> None:
    """B103, B126, B424: sent together with the close; only the rest goes to the other member."""
    client, other_client = await clients.connect(), await clients.connect()
    leaving = await join(client, channel, durable_name=durable_name, ack_wait_s=LONG_S)
    await publish_numbered(client, channel, 10)
    await leaving.wait_count(10)
    other = await join(other_client, channel, durable_name=durable_name, ack_wait_s=LONG_S)
    for sequence in range(1, 8):
        leaving.ack(sequence)
    assert (await client.close_subscription(leaving)).error == ""
    await other.wait_count(3)
    await settle(other_client)
    assert again([other]) == [(8, 1), (9, 1), (10, 1)]


@pytest.mark.asyncio
@pytest.mark.parametrize("subject", ["unsubRequests", "subCloseRequests"])
async def test_only_its_client_ends_a_member(clients: Clients, channel: str, subject: str) -> None:
    """B101, B104: another client is refused, though it has a member of the group; a second end finds nothing."""
    owner, other = await clients.connect(), await clients.connect()
    member, _ = await join(owner, channel), await join(other, channel)
    request = pb.UnsubscribeRequest(clientID=other.identity.client_id, subject=channel, inbox=member.ack_inbox)

    async def end() -> str:
        answer = await owner.nats.request(getattr(owner.subjects, subject), request.SerializeToString())
        return pb.SubscriptionResponse.FromString(answer.data).error

    assert await end() == "stan: unknown clientID"
    request.clientID = owner.identity.client_id
    assert await end() == ""
    assert await end() == "stan: invalid subscription"


@pytest.mark.asyncio
async def test_members_that_come_and_go_lose_nothing(clients: Clients, channel: str) -> None:
    """B300, B312, B416: while messages flow and members that never ack leave, each message is acked by somebody once."""
    one, two = await clients.connect(), await clients.connect()
    keeper = await join(one, channel, auto_ack=True, ack_wait_s=LONG_S)
    members = [keeper]
    for number in range(20):
        visitor = await join(two, channel, ack_wait_s=LONG_S, max_in_flight=number % 4 + 1)
        members.append(visitor)
        await publish_numbered(one, channel, 10, first=10 * number + 1)
        leave = two.unsubscribe if number % 2 else two.close_subscription
        assert (await leave(visitor)).error == ""
    await keeper.wait_until(lambda: set(keeper.sequences) == set(range(1, 201)))
    unmarked = [one.sequence for member in members for one in member.received if not one.redelivered]
    assert sorted(unmarked) == list(range(1, 201))
    assert len(keeper.sequences) == 200
