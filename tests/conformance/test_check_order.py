"""Which fault of a request is named when it has several (B40, B41, B60-B66, B82-B85, B90-B94, B101, B105, B120).

The faults of each operation stand in the order in which the server must find them. Every one is sent alone, and together
with each later one that a request can have at the same time.
"""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import pytest
import pytest_asyncio

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import (
    Clients,
    join,
    listen,
    new_name,
    subscription_request,
)
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.server_process import ServerProcess

FREE, FULL = "free.channel", "full.channel"
"""The only two channels that may exist: with one place for a subscription left, and with none."""

MAX_SUBSCRIPTIONS = 2
DURABLE = "d"
"""Online for the client, on both channels."""

UNDECODABLE_TAIL = b"\xff"
"""A field number without end: whatever it follows does not decode."""

Request = TypeVar(
    "Request", pb.ConnectRequest, pb.PubMsg, pb.SubscriptionRequest, pb.UnsubscribeRequest, pb.CloseRequest
)


@dataclass(frozen=True)
class Fault(Generic[Request]):
    """A fault and its text; `spoil` puts it into a request, `None`: the request does not decode."""

    name: str
    text: str
    spoil: Callable[[Request], None] | None = None


def _set(name: str, value: object) -> Callable[[object], None]:
    return lambda request: setattr(request, name, value)


def _extend(name: str, text: str) -> Callable[[object], None]:
    return lambda request: setattr(request, name, getattr(request, name) + text)


def _upper(request: pb.SubscriptionRequest | pb.PubMsg) -> None:
    request.subject = request.subject.upper()


def _colon(request: pb.SubscriptionRequest) -> None:
    request.qGroup, request.durableName = "g", "a:b"


def _unknown_connid(message: pb.PubMsg) -> None:
    message.connID = b"nobody"


def _unknown_client(message: pb.PubMsg) -> None:
    message.connID, message.clientID = b"", "nobody"


def case_conflict(name: str) -> str:
    """B63 of a channel that exists."""
    return f'rejecting channel "{name.upper()}" because channel "{name}" alreay exists (different cases not allowed)'


INVALID_CONNECT = "stan: invalid connection request"
CONNECT: list[Fault[pb.ConnectRequest]] = [
    Fault("undecodable", INVALID_CONNECT),
    Fault("no heartbeat inbox", INVALID_CONNECT, _set("heartbeatInbox", "")),
    Fault("heartbeat inbox", INVALID_CONNECT, _set("heartbeatInbox", "in box")),
    Fault(
        "client id",
        "stan: invalid clientID: only alphanumeric and `-` or `_` characters allowed",
        _extend("clientID", "\n"),
    ),
    Fault("in use", "stan: clientID already registered", _set("clientID", "holder")),
]

INVALID_PUBLISH = "stan: invalid publish request"
PUBLISH: list[Fault[pb.PubMsg]] = [
    Fault("undecodable", INVALID_PUBLISH),
    Fault("no guid", INVALID_PUBLISH, _set("guid", "")),
    Fault("channel", INVALID_PUBLISH, _extend("subject", "/")),
    Fault("unknown connID", INVALID_PUBLISH, _unknown_connid),
    Fault("unknown client", INVALID_PUBLISH, _unknown_client),
    Fault("case", case_conflict(FREE), _upper),
    Fault("too many channels", "too many channels", _extend("subject", ".new")),
]

INVALID_SUBSCRIPTION_REQUEST = "stan: invalid subscription request"
SUBSCRIBE: list[Fault[pb.SubscriptionRequest]] = [
    Fault("undecodable", INVALID_SUBSCRIPTION_REQUEST),
    Fault("no client id", "stan: clientID missing", _set("clientID", "")),
    Fault("ack wait", "stan: invalid ack wait time, should be >= 1s", _set("ackWaitInSecs", 0)),
    Fault("max in flight", "stan: invalid MaxInflight, should be >= 1", _set("maxInFlight", -1)),
    Fault("start position", "stan: invalid start position", _set("startPosition", 5)),
    Fault("channel", "stan: invalid subject", _extend("subject", ".")),
    Fault("inbox", INVALID_SUBSCRIPTION_REQUEST, _set("inbox", "")),
    Fault("long durable name", INVALID_SUBSCRIPTION_REQUEST, _extend("durableName", "x" * 256)),
    Fault("long group", INVALID_SUBSCRIPTION_REQUEST, _extend("qGroup", "x" * 256)),
    Fault("unknown client", "stan: unknown clientID", _set("clientID", "nobody")),
    Fault("case", case_conflict(FREE), _upper),
    Fault("too many channels", "too many channels", _extend("subject", ".new")),
    Fault("colon", "stan: durable name of a durable queue subscriber can't contain the character ':'", _colon),
    Fault("duplicate durable", "stan: duplicate durable registration", _set("durableName", DURABLE)),
    Fault("full", "too many subscriptions per channel", _set("subject", FULL)),
]

END: list[Fault[pb.UnsubscribeRequest]] = [
    Fault("undecodable", "stan: invalid unsubscribe request"),
    Fault("channel", "stan: unknown channel", _set("subject", "unknown")),
    Fault("no subscription", "stan: invalid subscription", _set("inbox", "_INBOX.none")),
    Fault("unknown client", "stan: unknown clientID", _set("clientID", "nobody")),
]

CLOSE: list[Fault[pb.CloseRequest]] = [
    Fault("undecodable", "stan: invalid close request"),
    Fault("unknown client", "stan: unknown clientID", _set("clientID", "nobody")),
]

IMPOSSIBLE = {
    frozenset(names)
    for names in (
        ("no heartbeat inbox", "heartbeat inbox"),
        ("client id", "in use"),  # who is registered has a valid id
        ("unknown connID", "unknown client"),
        ("channel", "case"),  # what exists has a valid name
        ("channel", "full"),
        ("case", "too many channels"),  # "case" alone is both already: the two channels exist
        ("case", "full"),
        ("too many channels", "full"),
        ("too many channels", "duplicate durable"),
        ("case", "duplicate durable"),
        ("long durable name", "duplicate durable"),
        ("long group", "duplicate durable"),  # with a group it is no plain durable
        ("colon", "duplicate durable"),
        ("no client id", "duplicate durable"),
        ("unknown client", "duplicate durable"),
    )
}
"""Faults that no request has together."""

Case = tuple[Fault[Request], ...]


def cases(faults: list[Fault[Request]]) -> list[Case[Request]]:
    """Each fault alone, and each two that go together, in the order of the list."""
    alone: list[Case[Request]] = [(fault,) for fault in faults]
    pairs = itertools.combinations(faults, 2)
    return alone + [pair for pair in pairs if frozenset(fault.name for fault in pair) not in IMPOSSIBLE]


def spoilt(request: Request, case: Case[Request]) -> bytes:
    """The request with all faults of the case; later ones first, so that the first one is there in any case."""
    tail = b""
    for fault in reversed(case):
        if fault.spoil is None:
            tail = UNDECODABLE_TAIL
        else:
            fault.spoil(request)
    return request.SerializeToString() + tail


def _every(faults: list[Fault[Request]]) -> pytest.MarkDecorator:
    found = cases(faults)
    return pytest.mark.parametrize("case", found, ids=[" and ".join(fault.name for fault in case) for case in found])


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with room for two channels and two subscriptions on each."""
    with ServerProcess(store="MEMORY", options=("-mc", "2", "-msu", str(MAX_SUBSCRIPTIONS))) as process:
        yield process
        assert process.is_running
        assert "Traceback" not in process.log, process.log


@pytest_asyncio.fixture
async def client(clients: Clients) -> AsyncIterator[RawClient]:
    """The client of the spoilt requests, with its durable on both channels; its id is in use by nobody else."""
    client = await clients.connect("holder")
    for channel in (FREE, FULL):
        assert (await client.subscribe(channel, durable_name=DURABLE, auto_ack=False)).error == ""
    assert (await client.subscribe(FULL)).error == ""
    yield client
    for channel in (FREE, FULL):
        await client.nats.flush()
        resumed = await client.subscribe(channel, durable_name=DURABLE)
        assert resumed.error == "stan: duplicate durable registration"  # the requests changed nothing


@pytest_asyncio.fixture
async def member(client: RawClient) -> RawSubscription:
    """What requests to end a subscription are about: a member of a queue group."""
    return await join(client, FREE, "ending")


@_every(CONNECT)
@pytest.mark.asyncio
async def test_connect(client: RawClient, case: Case[pb.ConnectRequest]) -> None:
    """B40, B41, B60, B120: heartbeat inbox, client id, its use; the answer has nothing but the text."""
    request = pb.ConnectRequest(clientID=new_name("client"), heartbeatInbox=client.nats.new_inbox(), protocol=1)
    answer = await client.nats.request(client.connect_subject, spoilt(request, case))
    assert pb.ConnectResponse.FromString(answer.data) == pb.ConnectResponse(error=case[0].text)


@_every(PUBLISH)
@pytest.mark.asyncio
async def test_publish(client: RawClient, case: Case[pb.PubMsg]) -> None:
    """B63, B90-B93, B120: what is wrong with the request first, then what is wrong with a new channel; with the guid."""
    message = client.publish_message(FREE, b"data")
    payload = spoilt(message, case)
    answer = await client.publish_raw(message.subject, payload)
    assert answer.error == case[0].text
    if case[0].spoil is not None:
        assert answer.guid == message.guid


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", PUBLISH[5:], ids=[fault.name for fault in PUBLISH[5:]])
async def test_publish_on_another_subject(client: RawClient, fault: Fault[pb.PubMsg]) -> None:
    """B94, B93: a publish that came on the subject of another channel is invalid before its channel is looked at."""
    message = client.publish_message(FREE, b"data")
    answer = await client.publish_raw(FULL, spoilt(message, (fault,)))
    assert answer == pb.PubAck(guid=message.guid, error=INVALID_PUBLISH)


@_every(SUBSCRIBE)
@pytest.mark.asyncio
async def test_subscribe(client: RawClient, case: Case[pb.SubscriptionRequest]) -> None:
    """B60-B66, B82-B85, B120: the fields in order, the client, the channel, the durable, the limit; nothing but the text."""
    payload = spoilt(subscription_request(client, FREE), case)
    answer = await client.nats.request(client.subjects.subRequests, payload)
    assert pb.SubscriptionResponse.FromString(answer.data) == pb.SubscriptionResponse(error=case[0].text)


@_every(SUBSCRIBE[:13] + SUBSCRIBE[14:])
@pytest.mark.asyncio
async def test_join(client: RawClient, case: Case[pb.SubscriptionRequest]) -> None:
    """B82-B85: the same for a member of a durable queue group, which nobody else can have online."""
    payload = spoilt(subscription_request(client, FREE, qGroup="g", durableName=DURABLE), case)
    answer = await client.nats.request(client.subjects.subRequests, payload)
    assert pb.SubscriptionResponse.FromString(answer.data) == pb.SubscriptionResponse(error=case[0].text)


@_every(END)
@pytest.mark.parametrize("subject", ["unsubRequests", "subCloseRequests"])
@pytest.mark.asyncio
async def test_end_of_a_subscription(
    client: RawClient, member: RawSubscription, subject: str, case: Case[pb.UnsubscribeRequest]
) -> None:
    """B101, B102, B120: channel, subscription, owner; a durable name does not matter. The member stays what it was."""
    request = pb.UnsubscribeRequest(
        clientID=client.identity.client_id, subject=FREE, inbox=member.ack_inbox, durableName=DURABLE
    )
    answer = await client.nats.request(getattr(client.subjects, subject), spoilt(request, case))
    assert pb.SubscriptionResponse.FromString(answer.data) == pb.SubscriptionResponse(error=case[0].text)
    assert (await client.close_subscription(member)).error == ""


@_every(CLOSE)
@pytest.mark.asyncio
async def test_connection_close(client: RawClient, case: Case[pb.CloseRequest]) -> None:
    """B105, B120: the client stays."""
    request = pb.CloseRequest(clientID=client.identity.client_id)
    answer = await client.nats.request(client.subjects.closeRequests, spoilt(request, case))
    assert pb.CloseResponse.FromString(answer.data) == pb.CloseResponse(error=case[0].text)
    assert (await client.ping()).error == ""


@pytest.mark.asyncio
async def test_ping(client: RawClient) -> None:
    """B71, B72, B120: an unknown connID has its text; one that does not decode, known or not, has no answer."""
    reply = client.nats.new_inbox()
    answers = listen(client.nats, reply)
    for conn_id in (b"nobody", client.identity.conn_id):
        payload = pb.Ping(connID=conn_id).SerializeToString()
        client.nats.publish(client.subjects.pingRequests, payload + UNDECODABLE_TAIL, reply=reply)
    client.nats.publish(client.subjects.pingRequests, pb.Ping(connID=b"nobody").SerializeToString(), reply=reply)
    assert (await client.ping()).error == ""
    assert [pb.PingResponse.FromString(answer.data) for answer in answers] == [
        pb.PingResponse(error="client has been replaced or is no longer registered")
    ]
