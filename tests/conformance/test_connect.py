"""Connecting: subjects of the answer, checks, client ids in use, names (B1-B7, B21, B24, B40-B48, B50-B55, B60)."""

import asyncio

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, ask, ask_close, ask_connect, listen, new_name, settle
from tests.support.raw_client import ClientIdentity, RawClient
from tests.support.raw_nats import RawNats

INVALID_REQUEST = "stan: invalid connection request"
INVALID_CLIENT_ID = "stan: invalid clientID: only alphanumeric and `-` or `_` characters allowed"
ALREADY_REGISTERED = "stan: clientID already registered"
REPLACED = "client has been replaced or is no longer registered"


def connect_request(nats: RawNats, client_id: str, **fields: object) -> pb.ConnectRequest:
    """A correct request with a heartbeat inbox nobody listens to; `fields` replace or add to it."""
    request = pb.ConnectRequest(clientID=client_id, heartbeatInbox=nats.new_inbox(), protocol=1, connID=b"conn")
    for name, value in fields.items():
        setattr(request, name, value)
    return request


@pytest.mark.asyncio
@pytest.mark.parametrize(("interval", "max_out"), [(5, 88), (0, 0), (7, -1)])
async def test_answer_names_all_subjects(clients: Clients, interval: int, max_out: int) -> None:
    """B1-B7, B12, B21, B42: exact subjects, protocol 1, and the ping settings of the request, 0 included."""
    nats = await clients.nats()
    request = connect_request(nats, new_name("client"), pingInterval=interval, pingMaxOut=max_out)
    assert await ask_connect(nats, request) == pb.ConnectResponse(
        pubPrefix="_STAN.pub.test-cluster",
        subRequests="_STAN.sub.test-cluster",
        unsubRequests="_STAN.unsub.test-cluster",
        closeRequests="_STAN.close.test-cluster",
        subCloseRequests="_STAN.subclose.test-cluster",
        pingRequests="_STAN.discover.test-cluster.pings",
        pingInterval=interval,
        pingMaxOut=max_out,
        protocol=1,
    )


@pytest.mark.asyncio
async def test_old_client_gets_no_ping_fields(clients: Clients) -> None:
    """B21, B42: protocol 0 gets no ping subject and no ping settings; the server's protocol is 1 all the same."""
    nats = await clients.nats()
    answer = await ask_connect(
        nats, connect_request(nats, new_name("client"), protocol=0, pingInterval=5, pingMaxOut=3)
    )
    assert answer == pb.ConnectResponse(
        pubPrefix="_STAN.pub.test-cluster",
        subRequests="_STAN.sub.test-cluster",
        unsubRequests="_STAN.unsub.test-cluster",
        closeRequests="_STAN.close.test-cluster",
        subCloseRequests="_STAN.subclose.test-cluster",
        protocol=1,
    )


@pytest.mark.asyncio
@pytest.mark.parametrize(("protocol", "gets_pings"), [(-1, False), (0, False), (1, True), (2, True), (2**31 - 1, True)])
async def test_ping_fields_by_protocol(clients: Clients, protocol: int, gets_pings: bool) -> None:
    """B42: from protocol 1 on, also for versions that do not exist; the server's own is always 1."""
    nats = await clients.nats()
    answer = await ask_connect(nats, connect_request(nats, new_name("client"), protocol=protocol, pingInterval=5))
    assert (answer.error, answer.protocol) == ("", 1)
    assert (bool(answer.pingRequests), answer.pingInterval) == (gets_pings, 5 if gets_pings else 0)


@pytest.mark.asyncio
async def test_success_is_an_empty_payload_without_headers(client: RawClient, channel: str) -> None:
    """B24: unsubscribe, subscription close, ping and connection close succeed with nothing at all."""
    removed, closed = await client.subscribe(channel), await client.subscribe(channel)
    subjects, client_id = client.subjects, client.identity.client_id
    for subject, request in (
        (subjects.unsubRequests, pb.UnsubscribeRequest(clientID=client_id, subject=channel, inbox=removed.ack_inbox)),
        (subjects.subCloseRequests, pb.UnsubscribeRequest(clientID=client_id, subject=channel, inbox=closed.ack_inbox)),
        (subjects.pingRequests, pb.Ping(connID=client.identity.conn_id)),
        (subjects.closeRequests, pb.CloseRequest(clientID=client_id)),
    ):
        answer = await client.nats.request(subject, request.SerializeToString())
        assert (subject, answer.data, answer.headers) == (subject, b"", b"")


@pytest.mark.asyncio
async def test_first_failing_check_answers(client: RawClient) -> None:
    """B40: heartbeat inbox, then client id, then its use; the answer has nothing but the error."""
    taken = client.identity.client_id
    cases = [
        (connect_request(client.nats, "not valid", heartbeatInbox=""), INVALID_REQUEST),
        (connect_request(client.nats, taken, heartbeatInbox=""), INVALID_REQUEST),
        (connect_request(client.nats, "not valid"), INVALID_CLIENT_ID),
        (connect_request(client.nats, taken), ALREADY_REGISTERED),
    ]
    for request, error in cases:
        assert await ask_connect(client.nats, request) == pb.ConnectResponse(error=error)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "inbox", ["a b", "a.*", "a.>", "*", ">", "a..b", ".a", "a.", "a\tb", "a\r\nPUB b 0\r\n\r\n", " "]
)
async def test_unpublishable_heartbeat_inbox_is_refused(clients: Clients, inbox: str) -> None:
    """B41: a heartbeat to such a subject would break the connection to NATS."""
    nats = await clients.nats()
    answer = await ask_connect(nats, connect_request(nats, new_name("client"), heartbeatInbox=inbox))
    assert answer == pb.ConnectResponse(error=INVALID_REQUEST)


@pytest.mark.asyncio
async def test_other_fields_are_not_checked(clients: Clients) -> None:
    """B41: protocol, connID and ping settings may be anything, and the heartbeat inbox is not probed."""
    nats = await clients.nats()
    request = connect_request(
        nats, new_name("client"), protocol=2**31 - 1, connID=b"\x00\xff" * 500, pingInterval=-(2**31), pingMaxOut=-5
    )
    probes = listen(nats, request.heartbeatInbox)
    assert (await ask_connect(nats, request)).error == ""
    await nats.flush()
    assert probes == []


@pytest.mark.asyncio
async def test_client_can_publish_as_soon_as_it_is_answered(clients: Clients, channel: str) -> None:
    """B43: the answer comes after the registration."""
    for _ in range(10):
        client = await clients.connect()
        assert (await client.publish(channel, b"x")).error == ""


@pytest.mark.asyncio
async def test_client_without_connid_is_a_full_citizen(clients: Clients, channel: str) -> None:
    """B45: an old client publishes by its client id and subscribes."""
    client = await clients.connect(identity=ClientIdentity(new_name("client"), conn_id=b"", protocol=0))
    subscription = await client.subscribe(channel)
    assert (await client.publish(channel, b"x")).error == ""
    assert (await subscription.next()).data == b"x"


@pytest.mark.asyncio
async def test_shared_connid_stays_with_the_one_that_remains(clients: Clients) -> None:
    """B46: when one of two clients with the same connID leaves, the pings of the other are still good."""
    conn_id = new_name("conn").encode()
    first = await clients.connect(identity=ClientIdentity(new_name("client"), conn_id=conn_id))
    second = await clients.connect(identity=ClientIdentity(new_name("client"), conn_id=conn_id))
    await first.close()
    assert (await second.ping()).error == ""


@pytest.mark.asyncio
async def test_probe_of_another_server_is_a_connect_like_any_other(clients: Clients) -> None:
    """B146: a server that starts connects under the cluster id; it gets the full answer, and its close is answered, too."""
    nats = await clients.nats()
    probe = pb.ConnectRequest(clientID="test-cluster", heartbeatInbox=nats.new_inbox())
    answer = await ask_connect(nats, probe)
    assert (answer.error, answer.closeRequests, answer.pubPrefix) == (
        "",
        "_STAN.close.test-cluster",
        "_STAN.pub.test-cluster",
    )
    assert (await ask_connect(nats, probe)).error == ""  # nobody answers at its inbox: replaced at once
    close = pb.CloseRequest(clientID="test-cluster")
    assert await ask(nats, answer.closeRequests, close, pb.CloseResponse.FromString) == pb.CloseResponse()


@pytest.mark.asyncio
async def test_many_clients(clients: Clients) -> None:
    """B48: there is no limit on the number of clients."""
    nats = await clients.nats()
    names = [new_name("client") for _ in range(300)]
    answers = await asyncio.gather(*(ask_connect(nats, connect_request(nats, name)) for name in names))
    assert {answer.error for answer in answers} == {""}


@pytest.mark.asyncio
async def test_client_id_of_a_living_client_is_refused(client: RawClient, clients: Clients, channel: str) -> None:
    """B50: the old client is asked once by an empty heartbeat, answers, and goes on."""
    heartbeats = listen(client.nats, client.identity.heartbeat_inbox)
    with pytest.raises(ConnectionRefusedError, match=ALREADY_REGISTERED):
        await clients.connect(client.identity.client_id)
    await settle(client)
    assert [(message.data, bool(message.reply)) for message in heartbeats] == [(b"", True)]
    assert (await client.ping()).error == ""
    assert (await client.publish(channel, b"x")).error == ""


@pytest.mark.asyncio
async def test_silent_client_is_replaced(client: RawClient, clients: Clients, channel: str) -> None:
    """B50, B54: no answer to the probe; the new one gets the id, the old one is unregistered with its subscriptions."""
    old_subscription = await client.subscribe(channel)
    client.answers_heartbeats = False
    new = await clients.connect(client.identity.client_id)
    assert client.heartbeats == 1
    assert (await client.ping()).error == REPLACED
    assert (await client.publish(channel, b"old")).error == "stan: invalid publish request"
    assert (await client.close_subscription(old_subscription)).error == "stan: invalid subscription"
    assert (await new.ping()).error == ""
    assert (await new.publish(channel, b"new")).error == ""
    await settle(new)
    await client.nats.flush()
    assert old_subscription.received == []


@pytest.mark.asyncio
async def test_durable_is_kept_over_a_replacement(client: RawClient, clients: Clients, channel: str) -> None:
    """B50: the new client resumes the durable of the old one at once."""
    durable = await client.subscribe(channel, durable_name="d", auto_ack=False)
    for number in (b"1", b"2"):
        await client.publish(channel, number)
    await durable.wait_count(2)
    durable.ack(1)
    await settle(client)
    client.answers_heartbeats = False
    new = await clients.connect(client.identity.client_id)
    resumed = await new.subscribe(channel, durable_name="d")
    assert resumed.error == ""
    message = await resumed.next()
    assert (message.sequence, message.redelivered) == (2, True)


@pytest.mark.asyncio
async def test_vanished_client_is_replaced_before_a_silent_one(clients: Clients) -> None:
    """B51: "no responders" ends the probe at once, before a probe that has to wait for its timeout."""
    silent, vanished, nats = await clients.connect(), await clients.connect(), await clients.nats()
    silent.answers_heartbeats = False
    await vanished.nats.close()
    order: list[tuple[str, str]] = []

    async def connect(name: str, client_id: str) -> None:
        order.append((name, (await ask_connect(nats, connect_request(nats, client_id))).error))

    await asyncio.gather(connect("silent", silent.identity.client_id), connect("vanished", vanished.identity.client_id))
    assert order == [("vanished", ""), ("silent", "")]


@pytest.mark.asyncio
async def test_probe_delays_nobody_else(clients: Clients) -> None:
    """B52: during a probe the same id is refused at once, and other ids connect without delay."""
    silent, nats = await clients.connect(), await clients.nats()
    silent.answers_heartbeats = False
    order: list[tuple[str, str]] = []

    async def connect(name: str, client_id: str) -> None:
        order.append((name, (await ask_connect(nats, connect_request(nats, client_id))).error))

    await asyncio.gather(
        connect("first", silent.identity.client_id),
        connect("same id", silent.identity.client_id),
        connect("other id", new_name("client")),
    )
    assert order == [("same id", ALREADY_REGISTERED), ("other id", ""), ("first", "")]


@pytest.mark.asyncio
async def test_retry_replaces_the_half_open_first_attempt(clients: Clients) -> None:
    """B53: the client dropped the inbox of the attempt whose answer it missed."""
    nats, client_id = await clients.nats(), new_name("client")
    first = connect_request(nats, client_id, connID=b"first attempt")
    assert (await ask_connect(nats, first)).error == ""
    client = await clients.connect(client_id)
    assert (await client.ping()).error == ""


@pytest.mark.asyncio
async def test_replaced_instance_acts_by_client_id(client: RawClient, clients: Clients, channel: str) -> None:
    """B55: the old instance publishes without connID, and its close ends the connection of the new one."""
    client.answers_heartbeats = False
    new = await clients.connect(client.identity.client_id)
    message = client.publish_message(channel, b"x")
    message.connID = b""
    assert (await client.publish_raw(channel, message.SerializeToString())).error == ""
    assert (await client.close()).error == ""
    assert (await new.ping()).error == REPLACED


@pytest.mark.asyncio
async def test_close_by_id_reaches_subscriptions_of_the_new_instance(
    client: RawClient, clients: Clients, channel: str
) -> None:
    """B55: a subscription close names its owner by client id only."""
    client.answers_heartbeats = False
    new = await clients.connect(client.identity.client_id)
    subscription = await new.subscribe(channel)
    request = pb.UnsubscribeRequest(clientID=client.identity.client_id, subject=channel, inbox=subscription.ack_inbox)
    assert (await ask_close(client, request)).error == ""
    assert (await new.close_subscription(subscription)).error == "stan: invalid subscription"


@pytest.mark.asyncio
@pytest.mark.parametrize("client_id", ["a", "A-Z_09", "-", "_", "0", "x" * 5000])
async def test_valid_client_ids(clients: Clients, client_id: str) -> None:
    """B60: letters, digits, `_` and `-`, of any length."""
    nats = await clients.nats()
    assert (await ask_connect(nats, connect_request(nats, client_id))).error == ""
    request = pb.CloseRequest(clientID=client_id)
    await nats.request("_STAN.close.test-cluster", request.SerializeToString())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "client_id", ["", "abc\n", "\nabc", "a.b", "a b", "a*", ">", "é", "a\x00b", "a/b", "a:b", "\u0661", "a\r\n"]
)
async def test_invalid_client_ids(clients: Clients, client_id: str) -> None:
    """B60: anything else is refused, a trailing newline and digits of other scripts too."""
    nats = await clients.nats()
    answer = await ask_connect(nats, connect_request(nats, client_id))
    assert answer == pb.ConnectResponse(error=INVALID_CLIENT_ID)
