"""Steps that several conformance tests share: unique names, clients that are closed at the end, barriers, requests."""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from server.protocol import stan_pb2 as pb
from tests.support.raw_client import ClientIdentity, RawClient, RawSubscription
from tests.support.raw_nats import ConnectionLostError, NatsMessage, NoRespondersError, RawNats

BURST_TIMEOUT_S = 30.0
"""Deadline for the answers to many requests sent at once, seconds."""

CLOSE_TIMEOUT_S = 2.0
"""How long the end of a test waits for the server to close its clients, seconds; a stopped server does not answer."""

_numbers = itertools.count(1)


def new_name(kind: str) -> str:
    """A channel, client or durable name that no other test of this run uses."""
    return f"{kind}-{next(_numbers)}"


class Clients:
    """Connects STAN and NATS clients and closes all of them when the context ends."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._clients: list[RawClient] = []
        self._connections: list[RawNats] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            if not client.nats.is_lost and kind is None:
                with suppress(TimeoutError, NoRespondersError, ConnectionLostError):
                    await client.close(timeout_s=CLOSE_TIMEOUT_S)
        for connection in self._connections:
            await connection.close()

    def forget(self) -> None:
        """Close nothing at the end but the connections: the server is gone."""
        self._clients.clear()

    async def connect(
        self, client_id: str | None = None, *, identity: ClientIdentity | None = None, cluster_id: str = "test-cluster"
    ) -> RawClient:
        """A registered client under a new id unless one is given; raises ConnectionRefusedError with the error text."""
        if identity is None:
            identity = ClientIdentity(client_id if client_id is not None else new_name("client"))
        client = await RawClient.connect(self.url, identity.client_id, identity=identity, cluster_id=cluster_id)
        self._clients.append(client)
        self._connections.append(client.nats)
        return client

    async def nats(self) -> RawNats:
        """A plain NATS connection."""
        connection = await RawNats.connect(self.url)
        self._connections.append(connection)
        return connection

    async def reconnected(self, client: RawClient) -> RawClient:
        """The same STAN client over a new NATS connection, as a client library does when NATS comes back."""
        await client.nats.close()
        again = RawClient(await self.nats(), client.identity, client.cluster_id)
        again.subjects = client.subjects
        self._clients.append(again)
        await again.nats.flush()
        return again


Answer = TypeVar("Answer")


class _Message(Protocol):
    def SerializeToString(self) -> bytes:  # noqa: N802  protobuf's name
        """The encoded message."""
        ...


async def ask(nats: RawNats, subject: str, request: _Message, answer: Callable[[bytes], Answer]) -> Answer:
    """Sends one request and decodes its answer with `answer`, e.g. `pb.CloseResponse.FromString`."""
    return answer((await nats.request(subject, request.SerializeToString())).data)


async def ask_connect(nats: RawNats, request: pb.ConnectRequest) -> pb.ConnectResponse:
    """Sends a ConnectRequest to the default discover subject."""
    return await ask(nats, "_STAN.discover.test-cluster", request, pb.ConnectResponse.FromString)


async def ask_subscribe(client: RawClient, request: pb.SubscriptionRequest) -> pb.SubscriptionResponse:
    """Sends a SubscriptionRequest as it is."""
    return await ask(client.nats, client.subjects.subRequests, request, pb.SubscriptionResponse.FromString)


async def ask_close(client: RawClient, request: pb.UnsubscribeRequest) -> pb.SubscriptionResponse:
    """Sends an UnsubscribeRequest as it is to the subject for closing a subscription (B6)."""
    return await ask(client.nats, client.subjects.subCloseRequests, request, pb.SubscriptionResponse.FromString)


def subscription_request(client: RawClient, channel: str, **fields: Any) -> pb.SubscriptionRequest:
    """A correct request; `fields` replace or add to it."""
    request = pb.SubscriptionRequest(
        clientID=client.identity.client_id,
        subject=channel,
        inbox=client.nats.new_inbox(),
        maxInFlight=1024,
        ackWaitInSecs=30,
    )
    for name, value in fields.items():
        setattr(request, name, value)
    return request


async def publish_numbered(client: RawClient, channel: str, count: int, *, first: int = 1) -> None:
    """Publishes `count` messages with the payloads first, first + 1, … and waits until all are acked."""
    await accepted([client.publish_nowait(channel, b"%d" % number) for number in range(first, first + count)])


async def accepted(acks: list[asyncio.Future[pb.PubAck]]) -> None:
    """Waits for all PubAcks; none may carry an error."""
    async with asyncio.timeout(BURST_TIMEOUT_S):
        answers = await asyncio.gather(*acks)
    errors = [answer.error for answer in answers if answer.error]
    assert errors == []


async def settle(client: RawClient) -> None:
    """Returns when all that the server sent to this client because of what happened so far has arrived.

    The server answers and delivers over one NATS connection: a message that is published, stored and delivered now
    comes later than what was due before it.
    """
    channel = new_name("barrier")
    subscription = await client.subscribe(channel)
    assert subscription.error == ""
    assert (await client.publish(channel, b"")).error == ""
    await subscription.next()
    await client.unsubscribe(subscription)


async def start_ticks(client: RawClient) -> RawSubscription:
    """A subscription that gets the same message about once per second: a clock made of events."""
    channel = new_name("ticks")
    ticks = await client.subscribe(channel, ack_wait_s=1, auto_ack=False)
    await publish_numbered(client, channel, 1)
    await ticks.next()
    return ticks


async def join(client: RawClient, channel: str, group: str = "g", **options: Any) -> RawSubscription:
    """A member of a queue group from the first message on that acks nothing by itself, unless `options` say otherwise."""
    options = {"auto_ack": False, "start": pb.First, **options}
    member = await client.subscribe(channel, queue_group=group, **options)
    assert member.error == ""
    return member


async def settle_all(*clients: RawClient) -> None:
    """As `settle`, for several clients: behind the barrier of the first one, what was due to the others is on its way."""
    await settle(clients[0])
    for client in clients[1:]:
        await client.nats.flush()


async def wait_total(members: Sequence[RawSubscription], condition: Callable[[list[pb.MsgProto]], bool]) -> None:
    """Returns when `condition` holds for what all members received together; raises TimeoutError."""
    tasks = [
        asyncio.ensure_future(
            member.wait_until(lambda: condition([message for one in members for message in one.received]))
        )
        for member in members
    ]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()


async def wait_heartbeats(client: RawClient, count: int) -> None:
    """Returns with the arrival of the heartbeat `count` from now: the outcome of the one before is known then (B340)."""
    beats: asyncio.Queue[NatsMessage] = asyncio.Queue()
    sid = client.nats.subscribe(client.identity.heartbeat_inbox, beats.put_nowait)
    async with asyncio.timeout(BURST_TIMEOUT_S):
        for _ in range(count):
            await beats.get()
    client.nats.unsubscribe(sid)


async def fail_heartbeats(client: RawClient) -> None:
    """The client stops answering; returns when the server knows (B342)."""
    client.answers_heartbeats = False
    await wait_heartbeats(client, 2)


async def until(probe: Callable[[], Awaitable[bool]], what: str, *, timeout_s: float = 15.0) -> None:
    """Repeats `probe`, which must make a round trip to the server, until it is true; raises TimeoutError."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await probe():
                pass
    except TimeoutError:
        raise TimeoutError(f"not within {timeout_s} s: {what}") from None


async def wait_for_exit(pid: int) -> None:
    """Returns when the child process ended; its status stays to be read by whoever started it."""
    await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def listen(nats: RawNats, subject: str) -> list[NatsMessage]:
    """Everything that arrives on `subject` from now on."""
    received: list[NatsMessage] = []
    nats.subscribe(subject, received.append)
    return received


def payloads(messages: list[pb.MsgProto]) -> list[bytes]:
    """Payloads in order."""
    return [message.data for message in messages]


def marks(messages: list[pb.MsgProto]) -> list[tuple[int, bool, int]]:
    """(sequence, redelivered, redelivery count) in order."""
    return [(message.sequence, message.redelivered, message.redeliveryCount) for message in messages]
