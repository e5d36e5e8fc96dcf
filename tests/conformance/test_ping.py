"""Pings of clients (B70-B72; B73 and B74 need heartbeats: see test_heartbeats.py)."""

import pytest

from server.protocol import stan_pb2 as pb
from tests.conformance.steps import Clients, listen
from tests.support.raw_client import RawClient

REPLACED = "client has been replaced or is no longer registered"


@pytest.mark.asyncio
async def test_registered_connid_gets_an_empty_answer(client: RawClient) -> None:
    """B70: nothing but an empty payload."""
    request = pb.Ping(connID=client.identity.conn_id)
    assert (await client.nats.request(client.subjects.pingRequests, request.SerializeToString())).data == b""


@pytest.mark.asyncio
async def test_unknown_connid_gets_the_error(client: RawClient) -> None:
    """B71: the text has no prefix."""
    request = pb.Ping(connID=b"nobody has this one")
    answer = await client.nats.request(client.subjects.pingRequests, request.SerializeToString())
    assert pb.PingResponse.FromString(answer.data) == pb.PingResponse(error=REPLACED)


@pytest.mark.asyncio
async def test_closed_client_gets_the_error(client: RawClient) -> None:
    """B71: a connID is unknown as soon as its client is closed."""
    assert (await client.close()).error == ""
    assert (await client.ping()).error == REPLACED


@pytest.mark.asyncio
@pytest.mark.parametrize("payload", [b"", b"dummy", b"\xff\xff", b"\x0a\x7f", b"\x0a\x00"])
async def test_ping_without_connid_is_not_answered(client: RawClient, payload: bytes) -> None:
    """B72: empty, undecodable, and an empty connID; the ping after it is answered."""
    inbox = client.nats.new_inbox()
    answers = listen(client.nats, inbox)
    client.nats.publish(client.subjects.pingRequests, payload, reply=inbox)
    assert (await client.ping()).error == ""
    assert answers == []


@pytest.mark.asyncio
async def test_ping_needs_no_reply_subject(client: RawClient) -> None:
    """B18: without a reply subject the answer is dropped."""
    request = pb.Ping(connID=client.identity.conn_id)
    client.nats.publish(client.subjects.pingRequests, request.SerializeToString())
    assert (await client.ping()).error == ""


@pytest.mark.asyncio
async def test_pings_are_answered_while_publishes_wait_for_the_disk(clients: Clients, channel: str) -> None:
    """B75: a ping does not queue behind the batch that is being committed."""
    client = await clients.connect()
    acks = [client.publish_nowait(channel, b"x" * 1000) for _ in range(500)]
    assert (await client.ping()).error == ""
    for ack in acks:
        assert (await ack).error == ""
