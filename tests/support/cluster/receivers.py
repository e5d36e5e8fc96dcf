"""Subscribes, acks and records: plain and durable subscriptions and queue groups, over reconnects, ends and resumptions.

A share of the messages is not acked when it comes first, so that redelivery happens; what comes again is acked always.
"""

import asyncio
import itertools
import random
import secrets
import time
from dataclasses import dataclass, field
from typing import Final

from server.protocol import stan_pb2 as pb
from tests.support.cluster.delivery_check import Acked, Ended, Opened, Received, Recording
from tests.support.cluster.sessions import FAILURES, REQUEST_TIMEOUT_S, RETRY_PAUSE_S, Session
from tests.support.load import id_of
from tests.support.raw_nats import NatsMessage

DUPLICATE_DURABLE_TEXT: Final = "duplicate durable"
"""B83: a request before, which got no answer, was carried out."""

GONE_TEXT: Final = "invalid subscription"
"""B6: there is none, so an earlier try, which got no answer, was carried out. Any other error leaves it open (B402)."""

SECOND_NS: Final = 1_000_000_000

_members = itertools.count(1)


@dataclass(slots=True)
class Inbox:
    """One subscribe request and what comes of it. What comes before the answer waits for it."""

    session: Session
    recording: Recording
    withheld: float
    chance: random.Random
    name: str
    subject: str
    ack_inbox: str = ""
    is_ended: bool = False
    is_forsaken: bool = False
    _early: list[Received] = field(default_factory=list)

    def accepted(self, ack_inbox: str) -> None:
        """The server's answer to the request."""
        self.ack_inbox = ack_inbox
        self.recording.add(Opened(time.monotonic_ns(), self.name))
        for event in self._early:
            self._take(event)

    def on_message(self, message: NatsMessage) -> None:
        """A message came, in whatever state."""
        decoded = pb.MsgProto.FromString(message.data)
        event = Received(
            time.monotonic_ns(),
            self.name,
            decoded.sequence,
            decoded.redelivered,
            decoded.redeliveryCount,
            id_of(decoded.data),
        )
        if self.is_forsaken:
            return
        if self.ack_inbox:
            self._take(event)
        else:
            self._early.append(event)

    def _take(self, event: Received) -> None:
        is_first = event.sequence not in self.recording.seen
        self.recording.add(event)
        is_withheld = is_first and self.chance.random() < self.withheld
        if is_withheld or self.is_ended or not self.session.is_connected:
            return
        payload = pb.Ack(subject=self.recording.channel, sequence=event.sequence)
        self.session.client.nats.publish(self.ack_inbox, payload.SerializeToString())
        self.recording.add(Acked(time.monotonic_ns(), self.name, event.sequence))


@dataclass(slots=True)
class Member:
    """A subscriber of a session; those that are one to STAN (a durable's, a group's) share the `recording`."""

    session: Session
    recording: Recording
    withheld: float
    """Share of first deliveries that is not acked."""
    chance: random.Random
    start: pb.StartPosition = pb.First
    durable_name: str = ""
    queue_group: str = ""
    refusals: list[str] = field(default_factory=list)
    inbox: Inbox | None = None
    """None while it has no subscription."""
    _forsaken: list[str] = field(default_factory=list)

    async def open(self) -> None:
        """Subscribes, trying until accepted; each try has an inbox of its own. The caller sets a bound."""
        while self.inbox is None:
            client = await self.session.wait_connected()
            inbox = self._new_inbox()
            request = self._request(inbox.subject).SerializeToString()
            try:
                message = await client.nats.request(client.subjects.subRequests, request, timeout_s=REQUEST_TIMEOUT_S)
            except FAILURES:
                await self._forsake(inbox)
                continue
            answer = pb.SubscriptionResponse.FromString(message.data)
            if not answer.error:
                self.inbox = inbox
                inbox.accepted(answer.ackInbox)
                return
            self.refusals.append(answer.error)
            inbox.is_forsaken = True
            if DUPLICATE_DURABLE_TEXT in answer.error:
                await self.close_forsaken()
            await asyncio.sleep(RETRY_PAUSE_S)

    async def end(self, *, unsubscribe: bool = False) -> None:
        """Closes, or unsubscribes, trying until it is certain. The caller sets a bound."""
        inbox = self.inbox
        assert inbox is not None
        inbox.is_ended = True
        await self._request_end(inbox.ack_inbox, unsubscribe=unsubscribe)
        self.recording.add(Ended(time.monotonic_ns(), inbox.name))
        self.inbox = None

    async def close_forsaken(self) -> None:
        """Closes what requests without an answer may have made: some of them arrive long after they were sent."""
        for subject in self._forsaken:
            await self._request_end(subject, unsubscribe=False)

    def abandon(self) -> None:
        """Its client is gone."""
        if self.inbox is not None:
            self.inbox.is_ended = True
            self.inbox = None

    async def _forsake(self, inbox: Inbox) -> None:
        """What client libraries do after a subscribe without an answer: ask to close whatever it has made."""
        inbox.is_forsaken = True
        self._forsaken.append(inbox.subject)
        await self._request_end(inbox.subject, unsubscribe=False)

    async def _request_end(self, inbox: str, *, unsubscribe: bool) -> None:
        request = pb.UnsubscribeRequest(clientID=self.session.client_id, subject=self.recording.channel, inbox=inbox)
        while True:
            client = await self.session.wait_connected()
            subject = client.subjects.unsubRequests if unsubscribe else client.subjects.subCloseRequests
            try:
                message = await client.nats.request(subject, request.SerializeToString(), timeout_s=REQUEST_TIMEOUT_S)
            except FAILURES:
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            error = pb.SubscriptionResponse.FromString(message.data).error
            if not error or error.endswith(GONE_TEXT):
                return
            self.refusals.append(error)
            await asyncio.sleep(RETRY_PAUSE_S)

    def _new_inbox(self) -> Inbox:
        inbox = Inbox(
            self.session,
            self.recording,
            self.withheld,
            self.chance,
            name=f"{self.session.client_id}#{next(_members)}",
            subject=f"_INBOX.{secrets.token_hex(11)}",
        )
        self.session.listen(inbox.subject, inbox.on_message)
        return inbox

    def _request(self, inbox: str) -> pb.SubscriptionRequest:
        return pb.SubscriptionRequest(
            clientID=self.session.client_id,
            subject=self.recording.channel,
            qGroup=self.queue_group,
            inbox=inbox,
            maxInFlight=self.recording.max_in_flight,
            ackWaitInSecs=self.recording.ack_wait_ns // SECOND_NS,
            durableName=self.durable_name,
            startPosition=self.start,
            startSequence=self.recording.start_sequence,
        )
