"""Steps that tests of clusters share: a leader that goes and comes back, publishes that are repeated, what each node sent."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from raft.link.frame import FrameKind, decode_frame
from raft.messages import AppendResponse
from raft.wire import decode
from server.protocol import stan_pb2 as pb
from tests.support.nats_process import NatsProcess
from tests.support.ports import HOST
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.raw_nats import NatsMessage, NoRespondersError, RawNats
from tests.support.server_process import SIGTERM_STATUS
from tests.support.three_nodes import ClusterNode, ThreeNodes

Way = Literal["killed", "stopped", "paused"]

WAYS: Final[tuple[Way, ...]] = ("killed", "stopped", "paused")

RETRY_S: Final = 0.25
"""How long an unanswered publish is waited for before it is sent again, seconds."""

RECOVERY_S: Final = 40.0
"""Deadline for what needs a new leader first, seconds."""


async def leader_of(nodes: ThreeNodes, *, other_than: ClusterNode | None = None) -> ClusterNode:
    """The leader, or the next one, while clients go on answering heartbeats."""
    return await asyncio.to_thread(nodes.wait_leader, other_than=other_than)


async def wait_said(nodes: ThreeNodes, text: str) -> None:
    """Returns when any node's log has the text: a line written before an answer may be read behind it."""
    await asyncio.to_thread(nodes.wait_until, lambda: any(text in node.log for node in nodes.nodes.values()), text)


async def end_leader(nodes: ThreeNodes, way: Way) -> ClusterNode:
    """The leader goes; which one it was. There need not be another one yet."""
    old = await leader_of(nodes)
    match way:
        case "killed":
            await asyncio.to_thread(old.kill)
        case "stopped":
            assert await asyncio.to_thread(old.stop) == SIGTERM_STATUS
        case "paused":
            old.pause()
    return old


def bring_back(old: ClusterNode) -> None:
    """A node that was ended or paused goes on."""
    if old.is_paused:
        old.resume()
    else:
        old.spawn()


async def all_follow(nodes: ThreeNodes, nats: RawNats) -> ClusterNode:
    """The leader, when each other running node has just told it that it has all entries: none misses the next change."""
    async with asyncio.timeout(RECOVERY_S):
        while True:
            leader = await leader_of(nodes)
            term = leader.leads_in
            await _wait_followers(nodes, nats, leader)
            if term and leader.leads_in == term:
                return leader


async def _wait_followers(nodes: ThreeNodes, nats: RawNats, leader: ClusterNode) -> None:
    """Returns when the leader was answered by everybody, or does not lead any more."""
    missing = {node.node_id for node in nodes.running} - {leader.node_id}

    def heard(message: NatsMessage) -> None:
        frame = decode_frame(message.data)
        if frame.header.kind is FrameKind.DATA and frame.header.fragment_count == 1:
            answer = decode(frame.body)
            if isinstance(answer, AppendResponse) and answer.is_success:
                missing.discard(frame.header.source.node_id)

    sid = nats.subscribe(f"_STAN.raft.{nodes.cluster_id}.{leader.node_id}", heard)
    while missing and leader.leads_in:
        await nats.flush()
    nats.unsubscribe(sid)


@asynccontextmanager
async def changed_leader(nodes: ThreeNodes, way: Way) -> AsyncIterator[ClusterNode]:
    """Inside, another node leads, which is given; the former leader comes back at the end."""
    old = await end_leader(nodes, way)
    try:
        yield await leader_of(nodes, other_than=old)
    finally:
        bring_back(old)


async def publish_again(client: RawClient, channel: str, data: bytes) -> pb.PubAck:
    """Publishes, again and again if need be, until it is acked: what a careful application does."""
    async with asyncio.timeout(RECOVERY_S):
        while True:
            with suppress(TimeoutError):
                ack = await client.publish(channel, data, timeout_s=RETRY_S)
                if not ack.error:
                    return ack


async def make_lead(nodes: ThreeNodes, client: RawClient, chosen: ClusterNode, last: bytes) -> None:
    """Has a follower lead: it alone has the message `last`, which is published in a channel of its own, beside the leader."""
    leader = await leader_of(nodes)
    assert chosen is not leader
    (third,) = [node for node in nodes.nodes.values() if node not in (chosen, leader)]
    await asyncio.to_thread(third.kill)
    await publish_again(client, f"lead-{last.decode()}", last)
    await asyncio.to_thread(leader.kill)
    third.spawn()
    assert await leader_of(nodes, other_than=leader) is chosen
    leader.spawn()


class Publisher:
    """Publishes numbers one after the other from `start` to `stop`, each until it is acked."""

    def __init__(self, client: RawClient, channel: str) -> None:
        self.acked: list[bytes] = []
        self._client = client
        self._channel = channel
        self._is_over = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        assert self._task is not None
        await self._task

    async def wait_more(self, count: int) -> None:
        """Returns when `count` more were acked."""
        wanted = len(self.acked) + count
        async with asyncio.timeout(RECOVERY_S):
            while len(self.acked) < wanted:
                assert self._task is not None
                assert not self._task.done()
                await self._client.nats.flush()

    async def _run(self) -> None:
        number = 0
        while not self._is_over:
            number += 1
            data = b"%d" % number
            await publish_again(self._client, self._channel, data)
            self.acked.append(data)


async def read_all(client: RawClient, channel: str, last: bytes) -> list[pb.MsgProto]:
    """Everything in the channel, from the first message to one with the payload `last`; sequences have no gap (B403)."""
    reader = await client.subscribe(channel, start=pb.First)
    assert reader.error == ""
    await reader.wait_until(lambda: any(message.data == last for message in reader.received))
    await client.unsubscribe(reader)
    assert reader.sequences == list(range(1, len(reader.sequences) + 1))
    return reader.received


def unflagged_duplicates(received: Iterable[pb.MsgProto]) -> list[int]:
    """Sequences that came before, and again without the flag (B394)."""
    seen: set[int] = set()
    wrong = []
    for message in received:
        if message.sequence in seen and not message.redelivered:
            wrong.append(message.sequence)
        seen.add(message.sequence)
    return wrong


def numbers(*subscriptions: RawSubscription) -> set[bytes]:
    """Payloads that came to any of these."""
    return {message.data for one in subscriptions for message in one.received}


async def nobody_answers(client: RawClient, subject: str, payload: bytes, *, timeout_s: float = 1.0) -> bool:
    """Whether a request has no answer, or NATS says that nobody listens."""
    try:
        await client.nats.request(subject, payload, timeout_s=timeout_s)
    except (TimeoutError, NoRespondersError):
        return True
    return False


async def has_no_responders(client: RawClient, subject: str) -> bool:
    """Whether NATS says that nobody listens; what no server answers may have reached one."""
    try:
        await client.nats.request(subject, timeout_s=RETRY_S)
    except TimeoutError:
        return False
    except NoRespondersError:
        return True
    return False


@dataclass(slots=True)
class Sent:
    """What NATS knows of the connection on which one node serves clients."""

    messages: int
    """So many has the node sent."""
    subjects: set[str] = field(default_factory=set)
    """What it listens to."""


async def client_connections(nats: NatsProcess, monitoring_port: int, cluster_id: str) -> dict[int, Sent]:
    """The clients' connections of all nodes by their number at NATS."""

    def read() -> list[dict[str, object]]:
        url = f"http://{HOST}:{monitoring_port}/connz?subs=1"
        with urllib.request.urlopen(url, timeout=10) as answer:
            connections: list[dict[str, object]] = json.load(answer)["connections"]
            return connections

    found = await asyncio.to_thread(read)
    return {
        int(str(one["cid"])): Sent(int(str(one["in_msgs"])), set(map(str, one.get("subscriptions_list") or ())))  # type: ignore[call-overload]
        for one in found
        if one.get("name") == f"_NSS-{cluster_id}-general"
    }
