"""Covers server/cluster/founding.py: ways into a cluster that a restart or an election at the wrong moment spoils."""

from pathlib import Path

import pytest

from raft import admission
from server.config.cluster import ClusterOptions
from tests.support.nats_process import NatsProcess
from tests.support.raw_nats import RawNats
from tests.unit.server.cluster.peers import Peer, until

PEERS = ClusterOptions(peers=("a", "b", "c"))


async def stopped(peer: Peer) -> None:
    await peer.__aexit__(None, None, None)


@pytest.mark.asyncio
async def test_replacement_that_restarts_before_it_is_a_member(
    nats: NatsProcess, tmp_path: Path, cluster_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ADR 6: a lost disk needs no operator, though the empty node is killed while it catches up and the leader changes."""
    async with await RawNats.connect(nats.url) as raw:
        peers = {one: Peer(nats.url, tmp_path / "1", one, cluster_id, PEERS) for one in "abc"}
        for peer in peers.values():
            await peer.__aenter__()
        await until(lambda: any(peer.leads for peer in peers.values()), raw.flush)
        await until(lambda: all(peer.members == ("a", "b", "c") for peer in peers.values()), raw.flush)
        leader = next(peer for peer in peers.values() if peer.leads)
        lost, other = [peer for peer in peers.values() if peer is not leader]
        await stopped(lost)  # and its disk is gone
        monkeypatch.setattr(admission, "NEARLY_ENTRIES", -1)  # it is still catching up ...
        empty = Peer(nats.url, tmp_path / "2", lost.node_id, cluster_id, PEERS)
        await empty.__aenter__()
        await until(lambda: empty.raft.last_applied >= 2, raw.flush)
        assert empty.raft.configuration.find(lost.node_id) != empty.raft.member
        await stopped(empty)  # ... when it is killed
        member = empty.raft.member
        # the leader changes, or forgets the silent learner after a minute
        await stopped(leader)
        again = Peer(nats.url, tmp_path / "1", leader.node_id, cluster_id, PEERS)
        await again.__aenter__()
        await until(lambda: other.leads or again.leads, raw.flush)
        monkeypatch.setattr(admission, "NEARLY_ENTRIES", 64)
        back = Peer(nats.url, tmp_path / "2", lost.node_id, cluster_id, PEERS)
        await back.__aenter__()
        try:
            assert back.raft.member == member
            await until(lambda: back.raft.configuration.find(lost.node_id) == member, raw.flush)
        finally:
            for peer in (back, again, other):
                await stopped(peer)


@pytest.mark.asyncio
async def test_beginner_while_there_is_no_leader(nats: NatsProcess, tmp_path: Path, cluster_id: str) -> None:
    """O402: a node that lost its disk and still has --cluster_bootstrap founds no second cluster during an election."""
    async with await RawNats.connect(nats.url) as raw:
        first = Peer(nats.url, tmp_path / "1", "a", cluster_id, ClusterOptions(bootstrap=True))
        await first.__aenter__()
        await until(lambda: first.leads, raw.flush)
        others = [Peer(nats.url, tmp_path / "1", one, cluster_id, ClusterOptions()) for one in "bc"]
        for peer in others:
            await peer.__aenter__()
        await until(lambda: all(peer.members == ("a", "b", "c") for peer in others), raw.flush)
        assert first.leads
        genesis = first.raft.configuration.genesis
        await stopped(first)  # killed, and its disk is gone; its supervisor starts it at once
        again = Peer(nats.url, tmp_path / "2", "a", cluster_id, ClusterOptions(bootstrap=True))
        await again.__aenter__()
        try:
            await until(lambda: again.raft.configuration is not None, raw.flush)
            await until(lambda: any(peer.leads for peer in others), raw.flush)
            assert again.raft.configuration.genesis == genesis
        finally:
            for peer in (again, *others):
                await stopped(peer)
