"""Fills a server with clients, channels and subscriptions that then do nothing, or with offline durables. Requests are pipelined."""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Final

from server.protocol import stan_pb2 as pb
from tests.support.raw_nats import NatsMessage, RawNats

PIPELINE: Final = 500
"""Requests under way together."""

ANSWER_TIMEOUT_S: Final = 60.0

Request = tuple[str, bytes]
"""Subject and payload."""


class Population:
    """What was made: the clients go on answering heartbeats until the context ends, and are not closed."""

    def __init__(self, nats: RawNats, cluster_id: str) -> None:
        self._nats = nats
        self._cluster_id = cluster_id
        self._subjects = pb.ConnectResponse()
        nats.subscribe("_INBOX.idle.beat.*", lambda beat: nats.publish(beat.reply))

    async def clients(self, count: int) -> list[str]:
        """Registers clients; their ids."""
        names = [f"idle-{number}" for number in range(count)]
        answers = await self._ask((f"_STAN.discover.{self._cluster_id}", _connect(name)) for name in names)
        decoded = [pb.ConnectResponse.FromString(answer) for answer in answers]
        _check(answer.error for answer in decoded)
        if decoded:
            self._subjects = decoded[0]
        return names

    async def channels(self, publisher: str, count: int) -> None:
        """Makes channels of one message each."""
        prefix = self._subjects.pubPrefix
        answers = await self._ask(
            (f"{prefix}.idle.{number}", _publish(publisher, f"idle.{number}")) for number in range(count)
        )
        _check(pb.PubAck.FromString(answer).error for answer in answers)

    async def subscriptions(self, clients: list[str], channels: int, count: int, *, durable: bool) -> None:
        """Subscribes: each client in turn, on each channel in turn."""
        subject = self._subjects.subRequests
        answers = await self._ask(
            (
                subject,
                pb.SubscriptionRequest(
                    clientID=clients[number % len(clients)],
                    subject=f"idle.{number // len(clients) % channels}",
                    inbox=f"_INBOX.idle.data.{number}",
                    maxInFlight=1024,
                    ackWaitInSecs=30,
                    durableName=f"durable-{number}" if durable else "",
                ).SerializeToString(),
            )
            for number in range(count)
        )
        _check(pb.SubscriptionResponse.FromString(answer).error for answer in answers)

    async def close(self, clients: Iterable[str]) -> None:
        """Ends clients: their durables go offline."""
        subject = self._subjects.closeRequests
        answers = await self._ask((subject, pb.CloseRequest(clientID=name).SerializeToString()) for name in clients)
        _check(pb.CloseResponse.FromString(answer).error for answer in answers)

    async def _ask(self, requests: Iterable[Request]) -> list[bytes]:
        """All answers, in the order they came; PIPELINE requests at a time."""
        iterator = iter(requests)
        answers: list[bytes] = []
        while batch := list(islice(iterator, PIPELINE)):
            answers += await self._ask_batch(batch)
        return answers

    async def _ask_batch(self, batch: list[Request]) -> list[bytes]:
        answers: list[bytes] = []
        done = asyncio.Event()

        def answered(message: NatsMessage) -> None:
            if message.is_no_responders:
                raise RuntimeError(f"nobody listens: {message.subject}")
            answers.append(message.data)
            if len(answers) == len(batch):
                done.set()

        sid = self._nats.subscribe("_INBOX.idle.answer", answered)
        for subject, payload in batch:
            self._nats.publish(subject, payload, reply="_INBOX.idle.answer")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await done.wait()
        self._nats.unsubscribe(sid)
        return answers


def _connect(name: str) -> bytes:
    return pb.ConnectRequest(
        clientID=name,
        heartbeatInbox=f"_INBOX.idle.beat.{name}",
        protocol=1,
        connID=name.encode(),
        pingInterval=5,
        pingMaxOut=88,
    ).SerializeToString()


def _publish(client: str, channel: str) -> bytes:
    return pb.PubMsg(
        clientID=client, guid=channel, subject=channel, data=b"x", connID=client.encode()
    ).SerializeToString()


def _check(errors: Iterable[str]) -> None:
    found = {error for error in errors if error}
    if found:
        raise RuntimeError(f"refused: {found}")
