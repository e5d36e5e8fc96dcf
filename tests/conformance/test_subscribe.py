"""Subscribe requests: checks in their order, names, answers (B61-B66, B80-B89)."""

import asyncio
from collections.abc import Callable

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import (
    Clients,
    ask_close,
    ask_subscribe,
    new_name,
    publish_numbered,
    settle,
    subscription_request,
)
from tests.support.raw_client import RawClient
from tests.support.raw_nats import NatsMessage

INVALID_REQUEST = "stan: invalid subscription request"
INVALID_SUBJECT = "stan: invalid subject"
Spoiler = tuple[str, Callable[[pb.SubscriptionRequest], None], str]


def _set(name: str, value: object) -> Callable[[pb.SubscriptionRequest], None]:
    return lambda request: setattr(request, name, value)


SPOILERS: list[Spoiler] = [
    ("no client id", _set("clientID", ""), "stan: clientID missing"),
    ("ack wait 0", _set("ackWaitInSecs", 0), "stan: invalid ack wait time, should be >= 1s"),
    ("max in flight 0", _set("maxInFlight", 0), "stan: invalid MaxInflight, should be >= 1"),
    ("start position 5", _set("startPosition", 5), "stan: invalid start position"),
    ("channel", _set("subject", "a..b"), INVALID_SUBJECT),
    ("inbox", _set("inbox", "in box"), INVALID_REQUEST),
    ("unknown client", _set("clientID", "nobody"), "stan: unknown clientID"),
]
"""Faults in the order in which the server must find them: B82 with B85 between its checks 6 and 7."""


@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(len(SPOILERS)), ids=[name for name, _, _ in SPOILERS])
async def test_first_failing_check_answers(client: RawClient, channel: str, number: int) -> None:
    """B82, B85, B274: a request with this fault and all later ones gets the error of this one, and nothing else."""
    request = subscription_request(client, channel)
    for _, spoil, _ in reversed(SPOILERS[number:]):
        spoil(request)
    assert await ask_subscribe(client, request) == pb.SubscriptionResponse(error=SPOILERS[number][2])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("ackWaitInSecs", -1, "stan: invalid ack wait time, should be >= 1s"),
        ("ackWaitInSecs", -(2**31), "stan: invalid ack wait time, should be >= 1s"),
        ("maxInFlight", -1, "stan: invalid MaxInflight, should be >= 1"),
        ("maxInFlight", -(2**31), "stan: invalid MaxInflight, should be >= 1"),
        ("startPosition", -1, "stan: invalid start position"),
        ("startPosition", 2**31 - 1, "stan: invalid start position"),
    ],
)
async def test_numbers_out_of_range(client: RawClient, channel: str, field: str, value: int, error: str) -> None:
    """B30, B31, B82: negative and too large numbers are refused by the check of their field."""
    request = subscription_request(client, channel, **{field: value})
    assert (await ask_subscribe(client, request)).error == error


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name",
    [
        "", ".", "a.", ".a", "a..b", "a/b", "/", "*", ">", "a.*", "a.>", "a*b", "a>b",
        "sp ace", "a\tb", "a\nb", "a\r\nSUB x 1", "a\x00b", "a\x7fb", "x" * 256, "é" * 128,
    ],
)  # fmt: skip
async def test_invalid_channel_names(client: RawClient, name: str) -> None:
    """B61, B62: empty tokens, wildcards, slashes, whitespace, control characters, more than 255 bytes."""
    assert (await ask_subscribe(client, subscription_request(client, name))).error == INVALID_SUBJECT


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["a", "a.b.c", "x" * 255, "é" * 127, "ünï.cödé", "a-b_c:d$", "0"])
async def test_valid_channel_names(client: RawClient, name: str) -> None:
    """B61: no other rule; up to 255 bytes, and they can be published to."""
    subscription = await client.subscribe(name)
    assert subscription.error == ""
    assert (await client.publish(name, b"x")).error == ""
    assert (await subscription.next()).subject == name


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "inbox", ["", " ", "a b", "a.*", "*", "a.>", ">", "a..b", ".a", "a.", "a\r\nPUB b 0\r\n\r\n", "a\t"]
)
async def test_unpublishable_inboxes(client: RawClient, channel: str, inbox: str) -> None:
    """B85: an inbox that cannot be published to would fail on every delivery."""
    assert (await ask_subscribe(client, subscription_request(client, channel, inbox=inbox))).error == INVALID_REQUEST


@pytest.mark.asyncio
async def test_answer_comes_before_messages_and_acks_are_heard(client: RawClient, channel: str) -> None:
    """B80, B231: the answer first, then the messages; an ack sent in that instant counts."""
    await publish_numbered(client, channel, 3)
    request = subscription_request(client, channel, startPosition=pb.First, maxInFlight=1)
    events: list[str] = []
    ack_inbox = ""
    all_arrived = asyncio.Event()

    def answered(message: NatsMessage) -> None:
        nonlocal ack_inbox
        events.append("answer")
        ack_inbox = pb.SubscriptionResponse.FromString(message.data).ackInbox

    def arrived(message: NatsMessage) -> None:
        sequence = pb.MsgProto.FromString(message.data).sequence
        events.append(f"message {sequence}")
        client.nats.publish(ack_inbox, pb.Ack(subject=channel, sequence=sequence).SerializeToString())
        if len(events) == 4:
            all_arrived.set()

    reply = client.nats.new_inbox()
    client.nats.subscribe(reply, answered)
    client.nats.subscribe(request.inbox, arrived)
    client.nats.publish(client.subjects.subRequests, request.SerializeToString(), reply=reply)
    async with asyncio.timeout(10):
        await all_arrived.wait()
    assert events == ["answer", "message 1", "message 2", "message 3"]


@pytest.mark.asyncio
async def test_refused_request_leaves_nothing_behind(client: RawClient, channel: str) -> None:
    """B84: neither a subscription nor, before the channel is looked up (B82), the channel."""
    request = subscription_request(client, channel, startPosition=9)
    assert (await ask_subscribe(client, request)).error == "stan: invalid start position"
    close = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=request.inbox)
    assert (await ask_close(client, close)).error == "stan: unknown channel"
    await publish_numbered(client, channel, 1)
    assert (await ask_close(client, close)).error == "stan: invalid subscription"


@pytest.mark.asyncio
async def test_refused_resume_leaves_the_durable_as_it_was(client: RawClient, channel: str) -> None:
    """B84: pending messages and progress of an offline durable survive refused requests."""
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await publish_numbered(client, channel, 3)
    await durable.wait_count(3)
    durable.ack(2)
    await client.close_subscription(durable)
    for fields in ({"startPosition": 9}, {"maxInFlight": 0}, {"inbox": "in box"}):
        request = subscription_request(client, channel, durableName="d", **fields)
        assert (await ask_subscribe(client, request)).error != ""
    resumed = await client.subscribe(channel, durable_name="d", auto_ack=False)
    assert [message.sequence for message in await resumed.take(2)] == [1, 3]


@pytest.mark.asyncio
async def test_duplicate_durable_leaves_the_first_one_online(client: RawClient, channel: str) -> None:
    """B83.3, B84, B290: refused even for the same inbox; the first goes on."""
    durable = await client.subscribe(channel, durable_name="d")
    request = subscription_request(client, channel, durableName="d", inbox=durable.inbox)
    assert await ask_subscribe(client, request) == pb.SubscriptionResponse(error="stan: duplicate durable registration")
    await publish_numbered(client, channel, 2)
    await settle(client)
    assert durable.sequences == [1, 2]


@pytest.mark.asyncio
async def test_subscribing_creates_the_channel(client: RawClient, channel: str) -> None:
    """B64: the channel exists with its first subscription."""
    close = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox="_INBOX.none")
    assert (await ask_close(client, close)).error == "stan: unknown channel"
    await client.subscribe(channel)
    assert (await ask_close(client, close)).error == "stan: invalid subscription"


@pytest.mark.asyncio
async def test_names_that_differ_by_case_only(client: RawClient, channel: str) -> None:
    """B63: refused for subscribe and publish, with both names in the text; the existing one works on."""
    await publish_numbered(client, channel, 1)
    upper = channel.upper()
    error = f'rejecting channel "{upper}" because channel "{channel}" alreay exists (different cases not allowed)'
    assert (await client.subscribe(upper)).error == error
    assert (await client.publish(upper, b"x")).error == error
    assert (await client.publish(channel, b"x")).error == ""


@pytest.mark.asyncio
async def test_case_conflict_between_requests_sent_together(client: RawClient, channel: str) -> None:
    """B63: also while the first of the two is not stored yet."""
    first, second = client.publish_nowait(channel, b"x"), client.publish_nowait(channel.upper(), b"x")
    assert (await first).error == ""
    assert "different cases not allowed" in (await second).error


@pytest.mark.asyncio
async def test_ack_inboxes_are_new_and_below_inbox(clients: Clients, channel: str) -> None:
    """B16, B17, B86: a fresh unguessable subject below `_INBOX.` per accepted request, also for a resumed durable."""
    one, two = await clients.connect(), await clients.connect()
    inboxes = []
    for client in (one, two):
        inboxes += [(await client.subscribe(channel)).ack_inbox for _ in range(3)]
    for _ in range(2):
        durable = await one.subscribe(channel, durable_name="d")
        inboxes.append(durable.ack_inbox)
        await one.close_subscription(durable)
    assert len(set(inboxes)) == 8
    for inbox in inboxes:
        assert inbox.startswith("_INBOX.")
        assert len(inbox.split(".")[-1]) >= 22
        assert not set(inbox) & set("*> \t")


@pytest.mark.asyncio
async def test_largest_numbers_are_accepted(client: RawClient, channel: str) -> None:
    """B87: ack wait and max in flight have no upper bound."""
    subscription = await client.subscribe(channel, ack_wait_s=2**31 - 1, max_in_flight=2**31 - 1)
    assert subscription.error == ""
    await publish_numbered(client, channel, 1)
    assert (await subscription.next()).sequence == 1


@pytest.mark.asyncio
async def test_start_fields_of_other_positions_are_ignored(client: RawClient, channel: str) -> None:
    """B88: a start sequence counts only with SequenceStart, a time delta only with TimeDeltaStart."""
    await publish_numbered(client, channel, 3)
    first = await client.subscribe(channel, start=pb.First, start_sequence=3, start_time_delta_ns=-1)
    last = await client.subscribe(channel, start=pb.LastReceived, start_sequence=1, start_time_delta_ns=10**18)
    new = await client.subscribe(channel, start=pb.NewOnly, start_sequence=1, start_time_delta_ns=10**18)
    await publish_numbered(client, channel, 1)
    await settle(client)
    assert [first.sequences, last.sequences, new.sequences] == [[1, 2, 3, 4], [3, 4], [4]]


@pytest.mark.asyncio
async def test_one_inbox_for_two_subscriptions(client: RawClient, channel: str) -> None:
    """B89: both deliver to it; a close by that inbox ends the later one."""
    inbox = client.nats.new_inbox()
    received: list[int] = []
    client.nats.subscribe(inbox, lambda message: received.append(pb.MsgProto.FromString(message.data).sequence))
    first = await ask_subscribe(client, subscription_request(client, channel, inbox=inbox))
    second = await ask_subscribe(client, subscription_request(client, channel, inbox=inbox))
    assert first.ackInbox != second.ackInbox
    await publish_numbered(client, channel, 1)
    await settle(client)
    assert received == [1, 1]
    close = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=inbox)
    assert (await ask_close(client, close)).error == ""
    close.inbox = second.ackInbox
    assert (await ask_close(client, close)).error == "stan: invalid subscription"
    close.inbox = first.ackInbox
    assert (await ask_close(client, close)).error == ""


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["a:b", "with blank", "*", "a-b-c", "é\n", "x" * 255])
async def test_durable_names_have_no_character_rule(client: RawClient, channel: str, name: str) -> None:
    """B65: any string is a durable name, a colon included."""
    assert (await client.subscribe(channel, durable_name=name)).error == ""
    assert (await client.subscribe(channel, durable_name=name)).error == "stan: duplicate durable registration"


@pytest.mark.asyncio
async def test_colon_in_the_durable_name_of_a_group(client: RawClient, channel: str) -> None:
    """B64, B65, B83.2: the one rule for durable names; the refused request has made the channel all the same."""
    member = await client.subscribe(channel, durable_name="a:b", queue_group="g")
    assert member.error == "stan: durable name of a durable queue subscriber can't contain the character ':'"
    close = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=member.inbox)
    assert (await ask_close(client, close)).error == "stan: invalid subscription"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["x" * 256, "é" * 128])
async def test_too_long_durable_names(client: RawClient, channel: str, name: str) -> None:
    """B66: above 255 bytes the request is refused."""
    assert (await client.subscribe(channel, durable_name=name)).error == INVALID_REQUEST


@pytest.mark.asyncio
async def test_client_that_is_gone_cannot_subscribe(clients: Clients, channel: str) -> None:
    """B82.8: a closed client's id is unknown."""
    client = await clients.connect(new_name("client"))
    await client.close()
    assert (await client.subscribe(channel)).error == "stan: unknown clientID"
