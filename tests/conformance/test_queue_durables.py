"""Durable queue groups: the end of the last member, rest, return (B222, B271, B300-B303, B314-B318, B336, B337, B350)."""

import asyncio
import random

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import (
    Clients,
    join,
    listen,
    marks,
    new_name,
    publish_numbered,
    settle,
    settle_all,
    subscription_request,
    wait_total,
)
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.server_process import ServerProcess

LONG_S = 3600
"""An ack wait that no test sees the end of, seconds."""


async def leave(client: RawClient, member: RawSubscription, end: str) -> None:
    """The member leaves by `end`: unsubscribe, close, connection (and its client comes back)."""
    if end == "unsubscribe":
        assert (await client.unsubscribe(member)).error == ""
    elif end == "close":
        assert (await client.close_subscription(member)).error == ""
    else:
        assert (await client.close()).error == ""
        assert (await client.register()).error == ""


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
    """B314-B316, B222, B350: only a durable group whose last member does not unsubscribe is there when somebody joins.

    It is resumed by any client: all pending first, flagged and whatever its max in flight, then new messages.
    """
    first, second = await clients.connect(), await clients.connect()
    member = await join(first, channel, durable_name=durable)
    await publish_numbered(first, channel, 4)
    await member.wait_count(4)
    member.ack(2)
    await leave(first, member, end)
    await publish_numbered(first, channel, 1, first=5)
    again = await join(second, channel, durable_name=durable, max_in_flight=2 if rests else 1024)
    await settle_all(second, first)
    assert len(member.received) == 4
    if not rests:
        assert marks(again.received) == [(sequence, False, 0) for sequence in range(1, 6)]
        return
    assert marks(again.received) == [(1, True, 1), (3, True, 1), (4, True, 1)]
    again.ack(1)
    again.ack(3)
    await again.wait_count(4)
    assert marks(again.received)[3:] == [(5, False, 0)]


@pytest.mark.asyncio
@pytest.mark.parametrize("end", ["unsubscribe", "close", "connection"])
@pytest.mark.parametrize("last_end", ["unsubscribe", "close"])
async def test_member_of_several_leaves(clients: Clients, channel: str, end: str, last_end: str) -> None:
    """B315, B312: how the first one leaves does not matter, an unsubscribe removes the member only; the last one decides."""
    first, second = await clients.connect(), await clients.connect()
    leaving = await join(first, channel, durable_name="d", ack_wait_s=LONG_S)
    staying = await join(second, channel, durable_name="d", ack_wait_s=LONG_S)
    await publish_numbered(first, channel, 4)
    await settle_all(first, second)
    staying.ack(2)
    await leave(first, leaving, end)
    await staying.wait_count(4)
    assert sorted(marks(staying.received)) == [(1, True, 1), (2, False, 0), (3, True, 1), (4, False, 0)]
    await leave(second, staying, last_end)
    again = await join(first, channel, durable_name="d", start=pb.NewOnly)
    await publish_numbered(first, channel, 1)
    await settle(first)
    pending = [] if last_end == "unsubscribe" else [(1, True, 2), (3, True, 2), (4, True, 1)]
    assert marks(again.received) == [*pending, (5, False, 0)]


@pytest.mark.asyncio
async def test_nothing_reaches_a_resting_group(clients: Clients, channel: str) -> None:
    """B282, B315: no delivery, no redelivery, and acks through the old inbox are lost (B252)."""
    client = await clients.connect()
    member = await join(client, channel, durable_name="d", ack_wait_s=1)
    ticks = await join(client, new_name("ticks"), ack_wait_s=1)
    await publish_numbered(client, channel, 2)
    await member.wait_count(2)
    assert (await client.close_subscription(member)).error == ""
    received = len(member.received)
    member.ack(1)
    await publish_numbered(client, channel, 1)
    await publish_numbered(client, ticks.channel, 1)
    await ticks.wait_count(3)
    assert len(member.received) == received
    again = await join(client, channel, durable_name="d")
    await settle(client)
    assert [(one.sequence, one.redelivered) for one in again.received] == [(1, True), (2, True), (3, False)]


@pytest.mark.asyncio
@pytest.mark.parametrize("subject", ["unsubRequests", "subCloseRequests"])
async def test_resting_group_is_not_found(client: RawClient, channel: str, subject: str) -> None:
    """B102: neither its old inboxes nor its name reach a group without members; it goes on as it was."""
    member = await join(client, channel, durable_name="d")
    await publish_numbered(client, channel, 1)
    await member.wait_count(1)
    assert (await client.close_subscription(member)).error == ""
    for inbox in (member.ack_inbox, member.inbox, "", "d", "d:g"):
        request = pb.UnsubscribeRequest(
            clientID=client.identity.client_id, subject=channel, inbox=inbox, durableName="d"
        )
        answer = await client.nats.request(getattr(client.subjects, subject), request.SerializeToString())
        assert pb.SubscriptionResponse.FromString(answer.data).error == "stan: invalid subscription"
    again = await join(client, channel, durable_name="d")
    assert marks(await again.take(1)) == [(1, True, 1)]


@pytest.mark.asyncio
async def test_identity_of_a_resting_group(clients: Clients, channel: str) -> None:
    """B301, B302, B316: it is resumed under its channel, durable name and group name, and under nothing else."""
    client, other = await clients.connect(), await clients.connect()
    member = await join(client, channel, durable_name="d")
    await publish_numbered(client, channel, 1)
    await member.wait_count(1)
    assert (await client.close_subscription(member)).error == ""
    strangers = [
        await join(client, channel, "g"),
        await join(client, channel, "d:g"),
        await join(client, channel, "h", durable_name="d"),
        await join(client, channel, "g", durable_name="e"),
        await join(client, channel, "d", durable_name="g"),
        await client.subscribe(channel, durable_name="d", start=pb.First, auto_ack=False),
        await client.subscribe(channel, durable_name="d:g", start=pb.First, auto_ack=False),
    ]
    for stranger in strangers:
        assert marks(await stranger.take(1)) == [(1, False, 0)]
    elsewhere = await join(client, f"{channel}.other", durable_name="d")
    resumed = await join(other, channel, durable_name="d")
    assert marks(await resumed.take(1)) == [(1, True, 1)]
    await settle(client)
    assert elsewhere.received == []


@pytest.mark.asyncio
async def test_return_has_its_own_limits(client: RawClient, channel: str) -> None:
    """B316, B260: the new member's ack wait and max in flight count for what the old one held."""
    member = await join(client, channel, durable_name="d", ack_wait_s=LONG_S)
    await publish_numbered(client, channel, 3)
    await member.wait_count(3)
    assert (await client.close_subscription(member)).error == ""
    await publish_numbered(client, channel, 2, first=4)
    again = await join(client, channel, durable_name="d", ack_wait_s=1, max_in_flight=1)
    assert marks(await again.take(6)) == [(sequence, True, count) for count in (1, 2) for sequence in (1, 2, 3)]
    for sequence in (1, 2, 3):
        again.ack(sequence)
    await again.wait_until(lambda: 4 in again.sequences)
    assert [mark for mark in marks(again.received) if mark[0] >= 4] == [(4, False, 0)]


@pytest.mark.asyncio
async def test_all_pending_comes_on_return_even_a_lot(client: RawClient, channel: str) -> None:
    """B316, B284: in the order of the log, each once, in front of the new ones; the answer comes first of all (B80)."""
    member = await join(client, channel, durable_name="d", ack_wait_s=LONG_S)
    await publish_numbered(client, channel, 400)
    await member.wait_count(400)
    acked = set(range(3, 400, 3))
    for sequence in acked:
        member.ack(sequence)
    assert (await client.close_subscription(member)).error == ""
    await publish_numbered(client, channel, 100)
    events: list[str | int] = []
    request = subscription_request(
        client, channel, qGroup="g", durableName="d", startPosition=pb.NewOnly, ackWaitInSecs=LONG_S
    )
    reply = client.nats.new_inbox()
    client.nats.subscribe(reply, lambda _message: events.append("answer"))
    received = listen(client.nats, request.inbox)
    client.nats.subscribe(request.inbox, lambda message: events.append(pb.MsgProto.FromString(message.data).sequence))
    client.nats.publish(client.subjects.subRequests, request.SerializeToString(), reply=reply)
    await settle(client)
    pending = [sequence for sequence in range(1, 401) if sequence not in acked]
    assert events == ["answer", *pending, *range(401, 501)]
    decoded = [pb.MsgProto.FromString(message.data) for message in received]
    assert marks(decoded) == [(one, one <= 400, int(one <= 400)) for one in (*pending, *range(401, 501))]


@pytest.mark.asyncio
async def test_second_to_return_gets_new_messages_only(clients: Clients, channel: str) -> None:
    """B316, B305: pending is the first one's alone; the second one holds less and is next."""
    client, other = await clients.connect(), await clients.connect()
    member = await join(client, channel, durable_name="d", ack_wait_s=LONG_S)
    await publish_numbered(client, channel, 3)
    await member.wait_count(3)
    assert (await client.close_subscription(member)).error == ""
    first, second = await asyncio.gather(
        join(client, channel, durable_name="d", ack_wait_s=LONG_S),
        join(other, channel, durable_name="d", ack_wait_s=LONG_S),
    )
    await publish_numbered(client, channel, 3, first=4)
    await settle_all(client, other)
    pending = [(sequence, True, 1) for sequence in (1, 2, 3)]
    new = [(sequence, False, 0) for sequence in (4, 5, 6)]
    assert sorted([marks(first.received), marks(second.received)]) == sorted([pending, new])


@pytest.mark.asyncio
async def test_counts_go_on_over_rests(clients: Clients, channel: str) -> None:
    """B271: of the group, on the same server, whichever client comes back."""
    one, two = await clients.connect(), await clients.connect()
    member = await join(one, channel, durable_name="d", ack_wait_s=LONG_S)
    await publish_numbered(one, channel, 2)
    await member.wait_count(2)
    leaver = one
    for count in (1, 2, 3):
        assert (await leaver.close_subscription(member)).error == ""
        leaver = two if count % 2 else one
        member = await join(leaver, channel, durable_name="d", ack_wait_s=LONG_S)
        assert marks(await member.take(2)) == [(1, True, count), (2, True, count)]


@pytest.mark.asyncio
@pytest.mark.parametrize("durable_name", ["", "d"])
async def test_last_sent_survives_who_had_the_last_message(clients: Clients, channel: str, durable_name: str) -> None:
    """B317: the one that got and acked the newest message leaves first; it never comes again, nor does what was acked."""
    one, two = await clients.connect(), await clients.connect()
    old, newest = [await join(client, channel, durable_name=durable_name, ack_wait_s=LONG_S) for client in (one, two)]
    await publish_numbered(one, channel, 4)
    await settle_all(one, two)
    assert (old.sequences, newest.sequences) == ([1, 3], [2, 4])
    newest.ack(2)
    newest.ack(4)
    assert (await two.close_subscription(newest)).error == ""
    await publish_numbered(one, channel, 1)
    await settle(one)
    assert old.sequences == [1, 3, 5]
    if durable_name:
        for sequence in (1, 3, 5):
            old.ack(sequence)
        assert (await one.close_subscription(old)).error == ""
        resumed = await join(two, channel, durable_name=durable_name)
        await publish_numbered(two, channel, 1)
        await settle(two)
        assert marks(resumed.received) == [(6, False, 0)]


@pytest.mark.asyncio
async def test_messages_removed_while_the_group_rested(limited_server: ServerProcess, channel: str) -> None:
    """B287, B267: what a limit removed is skipped, pending or new; the rest comes in order."""
    async with Clients(limited_server.url) as clients:
        client = await clients.connect()
        member = await join(client, channel, durable_name="d", ack_wait_s=LONG_S)
        await publish_numbered(client, channel, 5)
        await member.wait_count(5)
        assert (await client.close_subscription(member)).error == ""
        await publish_numbered(client, channel, 3)
        again = await join(client, channel, durable_name="d", max_in_flight=3)
        await settle(client)
        # Stored are 4 to 8; it holds 4 and 5.
        assert marks(again.received) == [(4, True, 1), (5, True, 1), (6, False, 0)]


@pytest.mark.asyncio
async def test_resting_groups_go_with_an_unused_channel(channel: str) -> None:
    """B336-B338, B353: a resting group does not keep its channel, a full member does; afterwards all is new."""
    with ServerProcess(options=("-mi", "1s", "-mc", "3")) as server:
        async with Clients(server.url) as clients:
            client = await clients.connect()
            kept = f"{channel}.kept"
            online = await join(client, kept, max_in_flight=1)
            await publish_numbered(client, kept, 2)
            member = await join(client, channel, durable_name="d")
            await publish_numbered(client, channel, 3)
            await member.wait_count(3)
            assert (await client.close_subscription(member)).error == ""
            await asyncio.to_thread(server.wait_for_log, f'Channel "{channel}" has been deleted')
            anew = await join(client, channel, durable_name="d")
            await publish_numbered(client, channel, 1)
            assert marks(await anew.take(1)) == [(1, False, 0)]
            online.ack(1)
            assert (await online.take(2))[-1].sequence == 2


# ---- leaving and coming at the same time


@pytest.mark.asyncio
async def test_close_and_join_at_the_same_time(clients: Clients, channel: str) -> None:
    """B318: however close and join meet, the group is one and goes on where it was; nothing is lost."""
    one, two = await clients.connect(), await clients.connect()
    member = await join(one, channel, durable_name="d", ack_wait_s=LONG_S)
    for number in range(30):
        leaver, joiner = (one, two) if number % 2 == 0 else (two, one)
        publish = publish_numbered(joiner, channel, 3)
        closed, following, _ = await asyncio.gather(
            leaver.close_subscription(member), join(joiner, channel, durable_name="d", ack_wait_s=LONG_S), publish
        )
        assert closed.error == ""
        await settle(leaver)
        member = following
    # Nothing was ever acked: the last one to join gets all, after a moment when it joined before the other had left (B312).
    await member.wait_until(lambda: set(member.sequences) >= set(range(1, 91)))
    await settle_all(one, two)
    assert set(member.sequences) == set(range(1, 91))


@pytest.mark.asyncio
@pytest.mark.parametrize("durable_name", ["", "d"])
@pytest.mark.parametrize("end", ["unsubscribe", "close"])
async def test_end_and_join_in_one_read(client: RawClient, channel: str, durable_name: str, end: str) -> None:
    """B127, B222, B314, B315, B318: sent without waiting, in this order, many times: as if each had waited for the other."""
    await publish_numbered(client, channel, 2)
    member = await join(client, channel, durable_name=durable_name, start=pb.SequenceStart, start_sequence=2)
    await member.wait_count(1)
    leave_now = client.unsubscribe if end == "unsubscribe" else client.close_subscription
    is_same = durable_name != "" and end == "close"
    for count in range(1, 21):
        closed, following = await asyncio.gather(
            leave_now(member), join(client, channel, durable_name=durable_name, start=pb.LastReceived)
        )
        assert closed.error == ""
        await settle(client)
        assert marks(following.received) == [(2, is_same, count if is_same else 0)]
        member = following


@pytest.mark.asyncio
async def test_join_and_end_in_one_read(client: RawClient, channel: str) -> None:
    """B127, B100, B318: a member that leaves before its answer came was there: the group rests and has all that is pending."""
    first = await join(client, channel, durable_name="d", ack_wait_s=LONG_S)
    await publish_numbered(client, channel, 3)
    await first.wait_count(3)
    first.ack(2)
    assert (await client.close_subscription(first)).error == ""
    for _ in range(20):
        request = subscription_request(client, channel, qGroup="g", durableName="d")
        end = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=request.inbox)
        reply = client.nats.new_inbox()
        answers = listen(client.nats, reply)
        client.nats.publish(client.subjects.subRequests, request.SerializeToString(), reply=reply)
        client.nats.publish(client.subjects.subCloseRequests, end.SerializeToString(), reply=reply)
        await settle(client)
        assert [pb.SubscriptionResponse.FromString(answer.data).error for answer in answers] == ["", ""]
    again = await join(client, channel, durable_name="d")
    await settle(client)
    assert [(one.sequence, one.redelivered) for one in again.received] == [(1, True), (3, True)]


@pytest.mark.asyncio
async def test_one_resting_state_is_left(clients: Clients, channel: str) -> None:
    """B318, B330, B416: members of three clients come, ack some and go at random; in the end one group has the rest."""
    chance = random.Random(18)
    connected = [await clients.connect() for _ in range(3)]
    online: list[tuple[RawClient, RawSubscription]] = []
    everybody: list[RawSubscription] = []
    acked: set[int] = set()
    published = 0
    for _ in range(40):
        joiner = chance.choice(connected)
        joining = asyncio.ensure_future(join(joiner, channel, durable_name="d", ack_wait_s=LONG_S))
        if online and chance.random() < 0.5:
            leaver, leaving = online.pop(chance.randrange(len(online)))
            for sequence in leaving.sequences[::2]:
                leaving.ack(sequence)
                acked.add(sequence)
            assert (await leaver.close_subscription(leaving)).error == ""
        joined = await joining
        online.append((joiner, joined))
        everybody.append(joined)
        await publish_numbered(joiner, channel, 2)
        published += 2
    for leaver, leaving in online:
        assert (await leaver.close_subscription(leaving)).error == ""
    last = await join(connected[0], channel, durable_name="d", ack_wait_s=LONG_S)
    everybody.append(last)
    await settle_all(*connected)
    assert set(last.sequences) == set(range(1, published + 1)) - acked
    await wait_total(everybody, lambda received: {one.sequence for one in received} == set(range(1, published + 1)))
    assert all(one.redelivered for one in last.received)
