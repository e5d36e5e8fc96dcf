"""A STAN client that sends what a test wants, also what no library would: any field, any payload, any order.

Requests return the decoded answer; an `error` in it is for the test to look at and raises nothing.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from server.protocol import stan_pb2 as pb
from tests.support.raw_nats import DEFAULT_TIMEOUT_S, ConnectionLostError, NatsMessage, NoRespondersError, RawNats

DEFAULT_CLUSTER_ID = "test-cluster"


class RawSubscription:
    """One STAN subscription: received messages wait in order of arrival until `next` takes them."""

    def __init__(self, nats: RawNats, channel: str, inbox: str, *, auto_ack: bool) -> None:
        self._nats = nats
        self.channel = channel
        self.inbox = inbox
        self.ack_inbox = ""
        self.error = ""
        self.auto_ack = auto_ack
        self.received: list[pb.MsgProto] = []
        self._taken = 0
        self._changed = asyncio.Event()
        self._early: list[pb.MsgProto] = []
        self.nats_sid = nats.subscribe(inbox, self._on_message)

    @property
    def sequences(self) -> list[int]:
        """Sequences of everything received so far, redeliveries included."""
        return [message.sequence for message in self.received]

    async def next(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> pb.MsgProto:
        """The next message not yet taken; raises TimeoutError."""
        await self.wait_count(self._taken + 1, timeout_s=timeout_s)
        self._taken += 1
        return self.received[self._taken - 1]

    async def take(self, count: int, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[pb.MsgProto]:
        """The next `count` messages."""
        return [await self.next(timeout_s=timeout_s) for _ in range(count)]

    async def wait_count(self, count: int, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Returns when `count` messages were received in total; raises TimeoutError naming the progress."""
        await self.wait_until(lambda: len(self.received) >= count, timeout_s=timeout_s)

    async def wait_until(self, condition: Callable[[], bool], *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Returns when `condition` holds; it is looked at after each received message."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(
                f"{self.channel}: {len(self.received)} messages, last {self.sequences[-3:]}, after {timeout_s} s"
            ) from None

    def ack(self, sequence: int, *, channel: str | None = None) -> None:
        """Acks one sequence; on the wire after the next flush."""
        payload = pb.Ack(subject=channel if channel is not None else self.channel, sequence=sequence)
        self._nats.publish(self.ack_inbox, payload.SerializeToString())

    def accepted(self, ack_inbox: str) -> None:
        """Notes the answer's ack inbox and acks what arrived before the answer was read."""
        self.ack_inbox = ack_inbox
        if self.auto_ack:
            for message in self._early:
                self.ack(message.sequence)
        self._early.clear()

    def _on_message(self, message: NatsMessage) -> None:
        decoded = pb.MsgProto.FromString(message.data)
        self.received.append(decoded)
        if not self.ack_inbox:
            self._early.append(decoded)
        elif self.auto_ack:
            self.ack(decoded.sequence)
        self._changed.set()


@dataclass(slots=True)
class ClientIdentity:
    """What a client tells the server about itself."""

    client_id: str
    conn_id: bytes = field(default_factory=lambda: secrets.token_hex(11).encode())
    heartbeat_inbox: str = field(default_factory=lambda: f"_INBOX.{secrets.token_hex(11)}")
    protocol: int = 1
    ping_interval_s: int = 5
    ping_max_out: int = 3


class RawClient:
    """One STAN connection over its own NATS connection; heartbeats are answered while `answers_heartbeats`."""

    def __init__(self, nats: RawNats, identity: ClientIdentity, cluster_id: str) -> None:
        self.nats = nats
        self.identity = identity
        self.cluster_id = cluster_id
        self.answers_heartbeats = True
        self.heartbeats = 0
        self.subjects = pb.ConnectResponse()
        self._guids = itertools.count(1)
        self._guid_prefix = secrets.token_hex(8)
        self._ack_subject = f"_STAN.acks.{secrets.token_hex(11)}"
        self._waiting: dict[str, asyncio.Future[pb.PubAck]] = {}
        nats.subscribe(identity.heartbeat_inbox, self._on_heartbeat)
        nats.subscribe(self._ack_subject, self._on_publish_ack)

    @classmethod
    async def connect(
        cls,
        url_or_port: str | int,
        client_id: str,
        *,
        cluster_id: str = DEFAULT_CLUSTER_ID,
        identity: ClientIdentity | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Self:
        """A registered client; raises ConnectionRefusedError with the server's text if it is refused."""
        nats = await RawNats.connect(url_or_port, timeout_s=timeout_s, name=client_id)
        client = cls(nats, identity if identity is not None else ClientIdentity(client_id), cluster_id)
        try:
            answer = await client.register(timeout_s=timeout_s)
        except BaseException:
            await nats.close()
            raise
        if answer.error:
            await nats.close()
            raise ConnectionRefusedError(answer.error)
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.nats.is_lost and kind is None:
            with suppress(TimeoutError, NoRespondersError, ConnectionLostError):
                await self.close()
        await self.nats.close()

    @property
    def connect_subject(self) -> str:
        """B1, with the default discover prefix."""
        return f"_STAN.discover.{self.cluster_id}"

    async def register(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> pb.ConnectResponse:
        """Sends the ConnectRequest and remembers the subjects of the answer."""
        request = pb.ConnectRequest(
            clientID=self.identity.client_id,
            heartbeatInbox=self.identity.heartbeat_inbox,
            protocol=self.identity.protocol,
            connID=self.identity.conn_id,
            pingInterval=self.identity.ping_interval_s,
            pingMaxOut=self.identity.ping_max_out,
        )
        message = await self.nats.request(self.connect_subject, request.SerializeToString(), timeout_s=timeout_s)
        answer = pb.ConnectResponse.FromString(message.data)
        if not answer.error:
            self.subjects = answer
        return answer

    async def close(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> pb.CloseResponse:
        """Ends the STAN connection (B105); the NATS connection stays until the context ends."""
        request = pb.CloseRequest(clientID=self.identity.client_id)
        message = await self.nats.request(self.subjects.closeRequests, request.SerializeToString(), timeout_s=timeout_s)
        return pb.CloseResponse.FromString(message.data)

    async def ping(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> pb.PingResponse:
        """Pings with the own connection id (B70)."""
        request = pb.Ping(connID=self.identity.conn_id)
        message = await self.nats.request(self.subjects.pingRequests, request.SerializeToString(), timeout_s=timeout_s)
        return pb.PingResponse.FromString(message.data)

    def publish_message(self, channel: str, data: bytes, *, reply: str = "", guid: str | None = None) -> pb.PubMsg:
        """A correct PubMsg, for tests that spoil a field before sending it with `publish_raw`."""
        return pb.PubMsg(
            clientID=self.identity.client_id,
            guid=guid if guid is not None else f"{self._guid_prefix}{next(self._guids)}",
            subject=channel,
            reply=reply,
            data=data,
            connID=self.identity.conn_id,
        )

    def publish_nowait(self, channel: str, data: bytes, *, reply: str = "") -> asyncio.Future[pb.PubAck]:
        """Sends a publish; the future gets its PubAck whenever that comes, and never anything else."""
        message = self.publish_message(channel, data, reply=reply)
        waiter: asyncio.Future[pb.PubAck] = asyncio.get_running_loop().create_future()
        self._waiting[message.guid] = waiter
        self.nats.publish(f"{self.subjects.pubPrefix}.{channel}", message.SerializeToString(), reply=self._ack_subject)
        return waiter

    async def publish(
        self, channel: str, data: bytes, *, reply: str = "", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> pb.PubAck:
        """Publishes and waits for the PubAck; raises TimeoutError (outcome unknown, B214)."""
        async with asyncio.timeout(timeout_s):
            return await self.publish_nowait(channel, data, reply=reply)

    async def publish_raw(self, channel: str, payload: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> pb.PubAck:
        """Sends any payload on the publish subject of `channel` and decodes the PubAck."""
        message = await self.nats.request(f"{self.subjects.pubPrefix}.{channel}", payload, timeout_s=timeout_s)
        return pb.PubAck.FromString(message.data)

    async def subscribe(
        self,
        channel: str,
        *,
        start: pb.StartPosition = pb.NewOnly,
        start_sequence: int = 0,
        start_time_delta_ns: int = 0,
        max_in_flight: int = 1024,
        ack_wait_s: int = 30,
        durable_name: str = "",
        queue_group: str = "",
        auto_ack: bool = True,
        inbox: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> RawSubscription:
        """Subscribes; when refused, the subscription's `error` has the server's text."""
        subscription = RawSubscription(
            self.nats, channel, inbox if inbox is not None else self.nats.new_inbox(), auto_ack=auto_ack
        )
        request = pb.SubscriptionRequest(
            clientID=self.identity.client_id,
            subject=channel,
            qGroup=queue_group,
            inbox=subscription.inbox,
            maxInFlight=max_in_flight,
            ackWaitInSecs=ack_wait_s,
            durableName=durable_name,
            startPosition=start,
            startSequence=start_sequence,
            startTimeDelta=start_time_delta_ns,
        )
        message = await self.nats.request(self.subjects.subRequests, request.SerializeToString(), timeout_s=timeout_s)
        answer = pb.SubscriptionResponse.FromString(message.data)
        subscription.error = answer.error
        if answer.error:
            self.nats.unsubscribe(subscription.nats_sid)
        else:
            subscription.accepted(answer.ackInbox)
        return subscription

    async def unsubscribe(
        self, subscription: RawSubscription, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> pb.SubscriptionResponse:
        """Ends a subscription for good, a durable too (B5)."""
        return await self._end(self.subjects.unsubRequests, subscription, timeout_s)

    async def close_subscription(
        self, subscription: RawSubscription, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> pb.SubscriptionResponse:
        """Ends a subscription; a durable goes offline (B6)."""
        return await self._end(self.subjects.subCloseRequests, subscription, timeout_s)

    async def _end(self, subject: str, subscription: RawSubscription, timeout_s: float) -> pb.SubscriptionResponse:
        request = pb.UnsubscribeRequest(
            clientID=self.identity.client_id, subject=subscription.channel, inbox=subscription.ack_inbox
        )
        message = await self.nats.request(subject, request.SerializeToString(), timeout_s=timeout_s)
        return pb.SubscriptionResponse.FromString(message.data)

    def _on_heartbeat(self, message: NatsMessage) -> None:
        self.heartbeats += 1
        if self.answers_heartbeats and message.reply:
            self.nats.publish(message.reply)

    def _on_publish_ack(self, message: NatsMessage) -> None:
        if message.is_no_responders:
            return  # nobody took the publish: the outcome stays unknown to this client
        answer = pb.PubAck.FromString(message.data)
        waiter = self._waiting.pop(answer.guid, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)
