"""Covers server/cluster/members.py: requests to a real node that leads alone (O403, O430-O432, O441)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from server.cluster.cluster_pb2 import JoinRequest, JoinResponse
from server.config.cluster import ClusterOptions
from tests.support.nats_process import NatsProcess
from tests.support.raw_nats import NoRespondersError, RawNats
from tests.unit.server.cluster.peers import DEADLINE_S, Peer, until

INCARNATION = "0" * 32


@pytest_asyncio.fixture
async def raw(nats: NatsProcess) -> AsyncIterator[RawNats]:
    """A plain connection."""
    async with await RawNats.connect(nats.url) as connected:
        yield connected


@pytest_asyncio.fixture
async def leader(nats: NatsProcess, tmp_path: Path, cluster_id: str, raw: RawNats) -> AsyncIterator[Peer]:
    """A node that leads alone, and takes requests about members."""
    options = ClusterOptions(bootstrap=True, allow_add_remove_node=True)
    async with Peer(nats.url, tmp_path, "a", cluster_id, options) as peer:
        await until(lambda: peer.leads, raw.flush)
        await until_heard(raw, f"_STAN.raft.{cluster_id}.node.remove")
        yield peer


async def until_heard(raw: RawNats, subject: str) -> None:
    """Return when NATS knows that somebody listens there for ids of nodes to be removed."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await raw.request(subject, b"unknown")
            except NoRespondersError:
                continue
            return


ANSWERS = (
    ("add", b"a", b"+OK"),
    ("remove", b"unknown", b"+OK"),
    ("remove", b"", b"+OK"),
    ("add", b"", b'-ERR adding node "": invalid node ID'),
    ("add", b"a b", b'-ERR adding node "a b": invalid node ID'),
    ("add", b"*", b'-ERR adding node "*": invalid node ID'),
    ("add", b"join", b'-ERR adding node "join": invalid node ID'),
    ("add", b'say "x"', b'-ERR adding node "say \\"x\\"": invalid node ID'),
    ("remove", b"a", b'-ERR removing node "a": it is the only node of the cluster'),
)


@pytest.mark.asyncio
async def test_answers(leader: Peer, raw: RawNats, cluster_id: str) -> None:
    """O431, O432: exact."""
    for verb, payload, answer in ANSWERS:
        assert (await raw.request(f"_STAN.raft.{cluster_id}.node.{verb}", payload)).data == answer, payload
    assert leader.members == ("a",)


@pytest.mark.asyncio
async def test_bytes_that_are_no_text(leader: Peer, raw: RawNats, cluster_id: str) -> None:
    """O431: what is not UTF-8 is nobody's id."""
    answer = (await raw.request(f"_STAN.raft.{cluster_id}.node.add", b"\xff")).data
    assert answer.endswith(b": invalid node ID")


@pytest.mark.asyncio
async def test_joining(leader: Peer, raw: RawNats, cluster_id: str) -> None:
    """O403: the leader accepts a right request, and names itself; nobody is a member before it was heard."""
    request = JoinRequest(version=1, node_id="new", incarnation=INCARNATION)
    answer = await raw.request(f"_STAN.raft.{cluster_id}.join", request.SerializeToString())
    assert JoinResponse.FromString(answer.data) == JoinResponse(leader_id="a")
    assert leader.members == ("a",)


@pytest.mark.asyncio
async def test_joining_with_the_id_of_a_running_node(leader: Peer, raw: RawNats, cluster_id: str) -> None:
    """O403: another journal under the leader's own id is refused."""
    request = JoinRequest(version=1, node_id="a", incarnation=INCARNATION)
    answer = await raw.request(f"_STAN.raft.{cluster_id}.join", request.SerializeToString())
    assert JoinResponse.FromString(answer.data).error == 'another running node has the id "a"'


FOREIGN = (
    b"",
    b'{"ID":"x"}',
    b"\xff" * 20,
    JoinRequest(version=0, node_id="x", incarnation=INCARNATION).SerializeToString(),
    JoinRequest(version=2, node_id="x", incarnation=INCARNATION).SerializeToString(),
    JoinRequest(version=1, node_id="", incarnation=INCARNATION).SerializeToString(),
    JoinRequest(version=1, node_id="x").SerializeToString(),
    JoinRequest(version=1, node_id="x", incarnation="f" * 31).SerializeToString(),
    JoinRequest(version=1, node_id="x", incarnation="G" * 32).SerializeToString(),
    JoinRequest(version=1, node_id="bootstrap", incarnation=INCARNATION).SerializeToString(),
    JoinRequest(version=1, node_id="x y", incarnation=INCARNATION).SerializeToString(),
)


@pytest.mark.asyncio
async def test_foreign_requests_to_join(
    leader: Peer, raw: RawNats, cluster_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """O441: refused with a line in the log, unanswered."""
    answers: list[bytes] = []
    raw.subscribe("x.answers", lambda message: answers.append(message.data))
    for payload in FOREIGN:
        raw.publish(f"_STAN.raft.{cluster_id}.join", payload, reply="x.answers")
    assert (await raw.request(f"_STAN.raft.{cluster_id}.node.remove", b"unknown")).data == b"+OK"
    assert caplog.text.count("is not one of ours and is refused") == len(FOREIGN)
    assert answers == []
    assert leader.members == ("a",)


@pytest.mark.asyncio
async def test_only_a_leader_that_may(nats: NatsProcess, tmp_path: Path, cluster_id: str, raw: RawNats) -> None:
    """O430: without the option nobody listens for changes, and without leadership for nothing."""
    prefix = f"_STAN.raft.{cluster_id}."
    async with Peer(nats.url, tmp_path, "a", cluster_id, ClusterOptions(bootstrap=True)) as peer:
        await until(lambda: peer.leads, raw.flush)
        for name in ("node.add", "node.remove"):
            with pytest.raises(NoRespondersError):
                await raw.request(prefix + name, b"x")
    waits = Peer(
        nats.url, tmp_path, "b", f"{cluster_id}-new", ClusterOptions(peers=("b", "c"), allow_add_remove_node=True)
    )
    async with waits, asyncio.timeout(20):
        for name in ("node.add", "node.remove", "join"):
            with pytest.raises(NoRespondersError):
                await raw.request(f"_STAN.raft.{cluster_id}-new.{name}", b"x")
