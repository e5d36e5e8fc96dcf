"""Covers server/cluster/founding.py and server/cluster/node.py: whole nodes on a real NATS server (O402, O403, O406)."""

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from server.cluster import founding
from server.cluster.cluster_pb2 import JoinRequest, JoinResponse
from server.config.cluster import ClusterOptions
from server.errors import JoinError
from tests.support.nats_process import NatsProcess
from tests.support.raw_nats import NatsMessage, RawNats
from tests.unit.server.cluster.peers import DEADLINE_S, Peer, until

QUICK_S = 0.05


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks for a leader in short intervals."""
    monkeypatch.setattr(founding, "JOIN_INTERVAL_S", QUICK_S)


@pytest.mark.asyncio
async def test_peers_form_one_cluster(nats: NatsProcess, tmp_path: Path, cluster_id: str) -> None:
    """O402, O406: with the same list, own id in it or not, in any order, they form one cluster with one leader."""
    async with AsyncExitStack() as stack, await RawNats.connect(nats.url) as raw:
        lists = {"c": ("b", "a"), "b": ("c", "b", "a"), "a": ("a", "b", "c")}
        peers = [
            await stack.enter_async_context(Peer(nats.url, tmp_path, node_id, cluster_id, ClusterOptions(peers=listed)))
            for node_id, listed in lists.items()
        ]
        await until(lambda: any(peer.leads for peer in peers), raw.flush)
        await until(lambda: all(peer.members == ("a", "b", "c") for peer in peers), raw.flush)
        configurations = {peer.raft.configuration for peer in peers}
        assert len(configurations) == 1
        assert sum(peer.leads for peer in peers) == 1


@pytest.mark.asyncio
async def test_other_list_forms_nothing(
    nats: NatsProcess, tmp_path: Path, cluster_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that was started with other peers is named, and no cluster is formed with it."""
    one = Peer(nats.url, tmp_path, "a", cluster_id, ClusterOptions(peers=("a", "b")))
    other = Peer(nats.url, tmp_path, "b", cluster_id, ClusterOptions(peers=("a", "b", "c")))
    with caplog.at_level(logging.ERROR):
        async with one, other, await RawNats.connect(nats.url) as raw:
            text = 'node "b" was started with other --cluster_peers than this node: no cluster is formed'
            await until(lambda: text in caplog.text, raw.flush)
            assert one.raft.is_new
            assert other.raft.is_new
    caplog.clear()  # expected


@pytest.mark.asyncio
async def test_bootstrap_and_joiners(nats: NatsProcess, tmp_path: Path, cluster_id: str, quick: None) -> None:
    """O402, O403: one begins alone; others ask it, and are members in the end, a second beginner as well."""
    async with await RawNats.connect(nats.url) as raw, AsyncExitStack() as stack:
        first = Peer(nats.url, tmp_path, "a", cluster_id, ClusterOptions(bootstrap=True))
        await stack.enter_async_context(first)
        await until(lambda: first.leads, raw.flush)
        assert first.members == ("a",)
        joiner = Peer(nats.url, tmp_path, "b", cluster_id, ClusterOptions())
        await stack.enter_async_context(joiner)
        await until(lambda: first.members == joiner.members == ("a", "b"), raw.flush)
        assert not joiner.leads
        assert not joiner.fatal.done()
        late = Peer(nats.url, tmp_path, "c", cluster_id, ClusterOptions(peers=("x", "c")))
        await stack.enter_async_context(late)
        assert late.raft.is_new  # it waits for x


@pytest.mark.asyncio
async def test_nobody_accepts(nats: NatsProcess, tmp_path: Path, cluster_id: str, quick: None) -> None:
    """O403: the error with the exact text, after it was asked for; nothing is formed."""
    async with await RawNats.connect(nats.url) as raw:
        requests: list[JoinRequest] = []
        raw.subscribe(
            f"_STAN.raft.{cluster_id}.join", lambda message: requests.append(JoinRequest.FromString(message.data))
        )
        await raw.flush()
        async with Peer(nats.url, tmp_path, "a", cluster_id, ClusterOptions()) as peer, asyncio.timeout(DEADLINE_S):
            error = await peer.fatal
            assert isinstance(error, JoinError)
            assert str(error) == f"failed to join Raft group {cluster_id}"
            assert peer.raft.is_new
            wanted = JoinRequest(version=1, node_id="a", incarnation=peer.raft.member.incarnation)
        await raw.flush()
        assert len(requests) == founding.JOIN_TRIES
        assert all(request == wanted for request in requests)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"\xff\xff", "an answer to the request to join is not one of ours: size=2"),
        (JoinResponse(error="not today").SerializeToString(), "the cluster does not accept this node: not today"),
    ],
    ids=["garbage", "refusal"],
)
@pytest.mark.asyncio
async def test_answers_that_accept_nobody(
    nats: NatsProcess,
    tmp_path: Path,
    cluster_id: str,
    quick: None,
    caplog: pytest.LogCaptureFixture,
    answer: bytes,
    text: str,
) -> None:
    """O403, O441: what is no acceptance is told, and as good as no answer."""
    async with await RawNats.connect(nats.url) as raw:

        def refuse(message: NatsMessage) -> None:
            raw.publish(message.reply, answer)

        raw.subscribe(f"_STAN.raft.{cluster_id}.join", refuse)
        await raw.flush()
        async with Peer(nats.url, tmp_path, "a", cluster_id, ClusterOptions()) as peer, asyncio.timeout(DEADLINE_S):
            assert isinstance(await peer.fatal, JoinError)
    assert text in caplog.text
