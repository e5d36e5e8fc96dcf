"""Queue groups: who is a member, who gets a new message, when a group waits (B222, B241-B249, B300-B308, B330, B421).

Redelivery and leaving members: test_queue_redelivery.py. Durable groups: test_queue_durables.py. Silent clients:
test_queue_heartbeats.py.
"""

import asyncio

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import (
    Clients,
    join,
    marks,
    publish_numbered,
    settle,
    settle_all,
    start_ticks,
    wait_total,
)
from tests.support.raw_client import RawClient
from tests.support.server_process import ServerProcess

TOO_MANY = "too many subscriptions per channel"


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
    await settle_all(one, two)
    for members in groups:
        assert sorted(sequence for member in members for sequence in member.sequences) == [1, 2, 3, 4, 5, 6]
    assert plain.sequences == [1, 2, 3, 4, 5, 6]
    assert other.sequences == []


@pytest.mark.asyncio
async def test_one_client_may_have_several_members(clients: Clients, channel: str) -> None:
    """B300, B301, B290: also of a durable group, which no client owns: neither is a duplicate durable."""
    one, two = await clients.connect(), await clients.connect()
    for durable_name in ("", "d"):
        members = [await join(client, channel, durable_name=durable_name) for client in (one, one, two, two)]
        assert len({member.ack_inbox for member in members}) == 4
    owned = [await client.subscribe(channel, durable_name="d") for client in (one, two)]
    assert [subscription.error for subscription in owned] == ["", ""]


@pytest.mark.asyncio
@pytest.mark.parametrize("group", ["d:g", "g:", ":", "a b", "*", ">", "é\n", "x" * 255])
async def test_group_names_have_no_character_rule(client: RawClient, channel: str, group: str) -> None:
    """B65, B302: any string is a group; a colon in it does not make it durable, so it ends with its member."""
    member = await join(client, channel, group)
    await publish_numbered(client, channel, 1)
    await member.wait_count(1)
    member.ack(1)
    assert (await client.close_subscription(member)).error == ""
    again = await join(client, channel, group)
    assert marks(await again.take(1)) == [(1, False, 0)]


@pytest.mark.asyncio
@pytest.mark.parametrize("group", ["x" * 256, "é" * 128])
async def test_too_long_group_names(client: RawClient, channel: str, group: str) -> None:
    """B66: above 255 bytes the request is refused."""
    assert (await client.subscribe(channel, queue_group=group)).error == "stan: invalid subscription request"


@pytest.mark.asyncio
@pytest.mark.parametrize("durable_name", ["", "d"])
async def test_members_start_where_the_group_is(client: RawClient, channel: str, durable_name: str) -> None:
    """B222, B303: only the first member's start position counts."""
    await publish_numbered(client, channel, 4)
    first = await join(client, channel, durable_name=durable_name, start=pb.SequenceStart, start_sequence=3)
    await first.wait_count(2)
    second = await join(client, channel, durable_name=durable_name, start=pb.First)
    await settle(client)
    assert (first.sequences, second.sequences) == ([3, 4], [])
    await publish_numbered(client, channel, 2)
    await settle(client)
    assert (first.sequences, second.sequences) == ([3, 4], [5, 6])


@pytest.mark.asyncio
async def test_first_member_is_answered_before_it_gets_messages(client: RawClient, channel: str) -> None:
    """B80, B231: a member's ack inbox is in use from its first message on."""
    await publish_numbered(client, channel, 20)
    member = await join(client, channel, max_in_flight=1, auto_ack=True)
    await member.wait_count(20)
    assert marks(member.received) == [(sequence, False, 0) for sequence in range(1, 21)]


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
async def test_turns_go_on_from_publish_to_publish(client: RawClient, channel: str) -> None:
    """B305: as for twelve messages at once, one at a time and with acks after each round."""
    members = [await join(client, channel) for _ in range(3)]
    for sequence in range(1, 13):
        await publish_numbered(client, channel, 1)
        member = members[(sequence - 1) % 3]
        assert marks(await member.take(1)) == [(sequence, False, 0)]
        if sequence % 3 == 0:
            for acking in members:
                acking.ack(acking.sequences[-1])
            assert (await client.ping()).error == ""


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
async def test_new_member_is_filled_up_to_the_others(client: RawClient, channel: str) -> None:
    """B305: until it holds as many as they do, everything new is for the one that joined last."""
    old = await join(client, channel)
    await publish_numbered(client, channel, 3)
    await old.wait_count(3)
    new = await join(client, channel)
    await publish_numbered(client, channel, 5)
    await settle(client)
    assert (old.sequences, new.sequences) == ([1, 2, 3, 7], [4, 5, 6, 8])


@pytest.mark.asyncio
async def test_acked_messages_go_round_for_ever(clients: Clients, channel: str) -> None:
    """B300, B319: with members that ack each message goes to one of them, ascending at each."""
    one, two = await clients.connect(), await clients.connect()
    members = [await join(client, channel, max_in_flight=3, auto_ack=True) for client in (one, two, one)]
    await publish_numbered(two, channel, 300)
    await wait_total(members, lambda received: len(received) >= 300)
    await settle_all(one, two)
    together = sorted(sequence for member in members for sequence in member.sequences)
    assert together == list(range(1, 301))
    assert all(member.sequences == sorted(member.sequences) for member in members)


# ---- max in flight


@pytest.mark.asyncio
async def test_group_waits_only_when_all_members_are_full(clients: Clients, channel: str) -> None:
    """B304, B307, B421: one full member does not hold the group; an ack of any, or a new member, releases it."""
    client, other = await clients.connect(), await clients.connect()
    small, large = await join(client, channel, max_in_flight=1), await join(other, channel, max_in_flight=3)
    await publish_numbered(client, channel, 9)
    await settle_all(client, other)
    assert (small.sequences, large.sequences) == ([1], [2, 3, 4])
    large.ack(4)
    await large.wait_count(4)
    small.ack(1)
    await small.wait_count(2)
    third = await join(client, channel, max_in_flight=2)
    await third.wait_count(2)
    await settle_all(client, other)
    assert (small.sequences, large.sequences, third.sequences) == ([1, 6], [2, 3, 4, 5], [7, 8])


@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(3))
async def test_ack_of_any_full_member_releases_the_group(client: RawClient, channel: str, number: int) -> None:
    """B307, B232: the first, a middle one and the last of the list; it gets as many as fit, and at once."""
    members = [await join(client, channel, max_in_flight=2) for _ in range(3)]
    await publish_numbered(client, channel, 10)
    await settle(client)
    assert [member.sequences for member in members] == [[1, 4], [2, 5], [3, 6]]
    acking = members[number]
    for sequence in acking.sequences:
        acking.ack(sequence)
    await acking.wait_count(4)
    await settle(client)
    assert [len(member.received) for member in members] == [4 if one == number else 2 for one in range(3)]
    assert marks(acking.received[2:]) == [(7, False, 0), (8, False, 0)]


@pytest.mark.asyncio
@pytest.mark.parametrize("end", ["unsubscribe", "close"])
async def test_full_member_that_leaves_does_not_hold_the_group(client: RawClient, channel: str, end: str) -> None:
    """B307, B311, B312: its message goes to the other one, beyond its max in flight; then acks release the group."""
    leaving, staying = await join(client, channel, max_in_flight=1), await join(client, channel, max_in_flight=2)
    await publish_numbered(client, channel, 5)
    await settle(client)
    assert (leaving.sequences, staying.sequences) == ([1], [2, 3])
    leave = client.unsubscribe if end == "unsubscribe" else client.close_subscription
    assert (await leave(leaving)).error == ""
    await staying.wait_count(3)
    assert marks(staying.received)[2:] == [(1, True, 1)]
    staying.ack(2)
    await settle(client)
    assert len(staying.received) == 3  # it holds two of two
    staying.ack(1)
    staying.ack(3)
    await staying.wait_count(5)
    assert marks(staying.received)[3:] == [(4, False, 0), (5, False, 0)]


@pytest.mark.asyncio
async def test_last_place_of_a_leaving_member_with_room(client: RawClient, channel: str) -> None:
    """B307: when the only member with room leaves, the group waits for those that remain, and goes on by their acks."""
    full, roomy = await join(client, channel, max_in_flight=1), await join(client, channel, max_in_flight=10)
    await publish_numbered(client, channel, 2)
    await settle(client)
    roomy.ack(2)
    assert (await client.close_subscription(roomy)).error == ""
    await publish_numbered(client, channel, 2, first=3)
    await settle(client)
    assert (full.sequences, roomy.sequences) == ([1], [2])
    full.ack(1)
    await full.wait_count(2)
    assert marks(full.received) == [(1, False, 0), (3, False, 0)]


@pytest.mark.asyncio
async def test_member_filled_by_redelivery_does_not_hold_the_group(client: RawClient, channel: str) -> None:
    """B308: though it holds the fewest, it is full: the next new message goes to the other member."""
    large = await join(client, channel, ack_wait_s=1)
    await publish_numbered(client, channel, 3)
    await large.wait_count(3)
    small = await join(client, channel, max_in_flight=1, ack_wait_s=3600)
    await small.wait_count(1)
    assert marks(small.received) == [(1, True, 1)]
    await publish_numbered(client, channel, 2, first=4)
    await settle(client)
    assert [mark for mark in marks(large.received) if not mark[1]] == [
        (1, False, 0), (2, False, 0), (3, False, 0), (4, False, 0), (5, False, 0)
    ]  # fmt: skip
    assert len(small.received) == 1


@pytest.mark.asyncio
async def test_full_group_holds_up_nobody_else(client: RawClient, channel: str) -> None:
    """B241, B300: another group, a plain subscription and the publisher go on."""
    full = await join(client, channel, max_in_flight=1)
    other = await join(client, channel, "h", auto_ack=True)
    plain = await client.subscribe(channel)
    await publish_numbered(client, channel, 50)
    await settle(client)
    assert [len(one.received) for one in (full, other, plain)] == [1, 50, 50]
    for sequence in range(1, 50):
        full.ack(sequence)
        await full.wait_count(sequence + 1)
    assert full.sequences == list(range(1, 51))


# ---- acks


@pytest.mark.asyncio
@pytest.mark.parametrize("acked", [(1,), (1, 3)])
async def test_ack_through_another_member_counts_at_the_holder(
    client: RawClient, channel: str, acked: tuple[int, ...]
) -> None:
    """B248, B249: the message is not redelivered, and the holder gets the next one at once."""
    one = await join(client, channel, max_in_flight=2, ack_wait_s=1)
    two = await join(client, channel, max_in_flight=2, ack_wait_s=3600)
    await publish_numbered(client, channel, 5)
    await settle(client)
    assert (one.sequences, two.sequences) == ([1, 3], [2, 4])
    for sequence in acked:
        two.ack(sequence)
    await one.wait_count(3)
    assert one.sequences == [1, 3, 5]
    ticks = await start_ticks(client)
    await ticks.wait_count(3)
    again = {message.sequence for member in (one, two) for message in member.received if message.redelivered}
    assert again == {1, 3, 5} - set(acked)


@pytest.mark.asyncio
async def test_acks_of_others_do_not_count(client: RawClient, channel: str) -> None:
    """B247, B248: only members of the same group ack for one another."""
    member = await join(client, channel, max_in_flight=1)
    strangers = [
        await join(client, channel, "h"),
        await join(client, channel, durable_name="d"),
        await join(client, channel, "d:g"),
        await client.subscribe(channel, auto_ack=False),
    ]
    await publish_numbered(client, channel, 2)
    for stranger in strangers:
        await stranger.wait_count(2)
        stranger.ack(1)
    await settle(client)
    assert member.sequences == [1]
    member.ack(1)
    await member.wait_count(2)


@pytest.mark.asyncio
async def test_acks_of_sequences_nobody_holds(client: RawClient, channel: str) -> None:
    """B246: acked twice, never sent, zero, beyond the end, enormous: no place is freed, and nothing is skipped."""
    one, two = [await join(client, channel, max_in_flight=1) for _ in range(2)]
    await publish_numbered(client, channel, 4)
    await settle(client)
    for member in (one, two):
        for sequence in (0, 3, 4, 5, 1000, 2**63, 2**64 - 1):
            member.ack(sequence)
    await settle(client)
    assert (one.sequences, two.sequences) == ([1], [2])
    for member in (one, two, one):
        member.ack(1)
    await one.wait_count(2)
    await settle(client)
    assert (one.sequences, two.sequences) == ([1, 3], [2])


# ---- limits


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


@pytest.mark.asyncio
async def test_members_that_leave_make_room(limited_server: ServerProcess, channel: str) -> None:
    """B330, B315: of a durable group with three members one place stays taken, of a plain one none."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        for durable_name, count in (("d", 3), ("", 2)):
            members = [await join(client, channel, durable_name=durable_name) for _ in range(count)]
            for member in members:
                assert (await client.close_subscription(member)).error == ""
        kept = [await client.subscribe(channel) for _ in range(3)]
        assert [one.error for one in kept] == ["", "", TOO_MANY]


@pytest.mark.asyncio
async def test_one_of_two_resumes_a_resting_group_at_the_limit(limited_server: ServerProcess, channel: str) -> None:
    """B330, B84: sent together, the first one takes the group's place, the second one finds none; the group goes on."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        resting = await join(client, channel, durable_name="d")
        await publish_numbered(client, channel, 1)
        await resting.wait_count(1)
        assert (await client.close_subscription(resting)).error == ""
        for _ in range(2):
            await client.subscribe(channel)
        joined = await asyncio.gather(
            *(client.subscribe(channel, queue_group="g", durable_name="d", auto_ack=False) for _ in range(2))
        )
        assert [one.error for one in joined] == ["", TOO_MANY]
        assert marks(await joined[0].take(1)) == [(1, True, 1)]
