"""How a cluster begins, goes on over any end of its nodes, and refuses data that is not a node's own (O402-O426).

Trailing logs are few here, so that a node that comes back late, or empty, is filled by a snapshot.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from itertools import permutations

import pytest
import pytest_asyncio

from server.protocol import stan_pb2 as pb
from tests.conformance.cluster_steps import leader_of, make_lead, nobody_answers, publish_again, read_all
from tests.conformance.steps import Clients, publish_numbered
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient
from tests.support.raw_nats import NoRespondersError
from tests.support.server_process import READY_TEXT, SIGTERM_STATUS
from tests.support.three_nodes import CLUSTER_ID, NODE_IDS, ClusterNode, ThreeNodes, bad_lines

ALLOWED = (
    "no majority confirms this leader: it keeps silent until one does",
    "cannot be reached for 10 seconds",
    "is stored, --cluster_node_id",
    # A node that comes back empty before its silence was noticed:
    "two processes seem to run with node id",
    "asks to join with another journal, but a node of that id is running: refused",
    "the cluster does not accept this node: another running node has the id",
    'streaming state was recovered but cluster log path "',
    "[FTL] STREAM: Failed to start: node ID of the journal in",
    "entries between them are missing and are fetched from the leader",
)
"""Warnings and errors that the tests of this module provoke."""


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsProcess]:
    """One NATS server for all clusters of this module (O414)."""
    with NatsProcess() as process:
        yield process


@pytest.fixture(scope="module")
def nodes(nats: NatsProcess) -> Iterator[ThreeNodes]:
    """A cluster that the tests leave with all nodes running."""
    with ThreeNodes(nats=nats, options=("-mc", "0", "-cluster_trailing_logs", "0")) as running:
        yield running
        assert len(running.running) == 3
        assert bad_lines(running.nodes.values(), allowed=ALLOWED) == []


@pytest_asyncio.fixture
async def client(nodes: ThreeNodes) -> AsyncIterator[RawClient]:
    """A client of the cluster, which has a leader."""
    await leader_of(nodes)
    async with Clients(nodes.url) as clients:
        yield await clients.connect(cluster_id=CLUSTER_ID)
        await leader_of(nodes)


@pytest.mark.asyncio
async def test_what_nodes_say_and_store(nodes: ThreeNodes, client: RawClient, channel: str) -> None:
    """O406, O416-O418, O423, O424: own id among the peers, directories, store names, and only the leader is ready."""
    await publish_numbered(client, channel, 1)
    leader = await leader_of(nodes)
    await asyncio.to_thread(leader.wait_for, READY_TEXT)
    for node in nodes.nodes.values():
        assert (READY_TEXT in node.log) == (node is leader)
        others = [node_id for node_id in NODE_IDS if node_id != node.node_id]
        assert [line.rpartition(": ")[2] for line in node.lines if "] STREAM: peer " in line] == [
            f'"{node_id}"' for node_id in others
        ]
        assert "Message store is RAFT_FILE" in node.log
        assert "Cluster sync: true" in node.log
        assert f"Cluster Node ID : {node.node_id}" in node.log
        assert any((node.log_path / CLUSTER_ID).iterdir())
    promotion = [line.partition("STREAM: ")[2].partition(" term=")[0] for line in leader.lines if "promotion" in line]
    assert promotion == [
        "server became leader, performing leader promotion actions",
        "finished leader promotion actions",
    ]


@pytest.mark.asyncio
async def test_no_membership_requests_without_the_option(nodes: ThreeNodes, client: RawClient) -> None:
    """O430: nobody listens for them."""
    for verb in ("add", "remove"):
        with pytest.raises(NoRespondersError):
            await client.nats.request(f"_STAN.raft.{CLUSTER_ID}.node.{verb}", b"x")


@pytest.mark.asyncio
async def test_stored_configuration_and_id_count(nodes: ThreeNodes, client: RawClient, channel: str) -> None:
    """O404, O405: other peers and another id at a later start are ignored, with a warning for the id."""
    await publish_numbered(client, channel, 1)
    node = nodes["c"]
    assert await asyncio.to_thread(node.stop) == SIGTERM_STATUS
    given = node.options
    node.options = (
        *given[: given.index("-cluster_peers")],
        "-cluster_node_id",
        "renamed",
        "-cluster_peers",
        "x,y",
        "-cluster_bootstrap",
    )
    node.spawn()
    await asyncio.to_thread(node.wait_for, 'node ID "c" is stored, --cluster_node_id "renamed" is ignored')
    assert "Cluster Node ID : c" in await asyncio.to_thread(node.wait_for, "Cluster Node ID")
    node.options = given
    if (await leader_of(nodes)) is not node:
        await make_lead(nodes, client, node, b"stored")
    assert [message.data for message in await read_all(client, channel, b"1")] == [b"1"]


@pytest.mark.parametrize("order", list(permutations(NODE_IDS)), ids="".join)
@pytest.mark.asyncio
async def test_restart_in_every_order(
    nodes: ThreeNodes, client: RawClient, channel: str, order: tuple[str, ...]
) -> None:
    """O413, O424, B399: all nodes end, killed at once or in order, and are started one after the other: all goes on."""
    subscription = await client.subscribe(channel, durable_name="d", auto_ack=False, ack_wait_s=1)
    await publish_numbered(client, channel, 20)
    await subscription.wait_count(20)
    for sequence in range(1, 11):
        subscription.ack(sequence)
    assert (await client.ping()).error == ""
    for node_id in order:
        if order[0] == "a":
            await asyncio.to_thread(nodes[node_id].stop)
        else:
            await asyncio.to_thread(nodes[node_id].kill)
    seen = len(subscription.received)
    for node_id in order:
        nodes[node_id].spawn()
        await asyncio.to_thread(nodes[node_id].wait_for, "Store location")
    await leader_of(nodes)
    assert (await publish_again(client, channel, b"21")).error == ""
    await subscription.wait_until(lambda: set(range(11, 22)) <= set(subscription.sequences[seen:]))
    again = [message for message in subscription.received[seen:] if message.sequence <= 20]
    assert all(message.redelivered for message in again)
    assert len(await read_all(client, channel, b"21")) >= 21


@pytest.mark.asyncio
async def test_no_majority_no_answers(nodes: ThreeNodes, client: RawClient, channel: str) -> None:
    """O413, B398: one node of three serves nobody, though it runs; with a second one all goes on by itself."""
    await publish_numbered(client, channel, 5)
    for node_id in NODE_IDS:
        await asyncio.to_thread(nodes[node_id].kill)
    nodes["b"].spawn()
    await asyncio.to_thread(nodes["b"].wait_for, "Store location")
    assert await nobody_answers(client, client.connect_subject, b"")
    assert READY_TEXT not in "\n".join(nodes["b"].lines)
    nodes["c"].spawn()
    await publish_again(client, channel, b"6")
    stored = [message.data for message in await read_all(client, channel, b"6")]
    assert list(dict.fromkeys(stored)) == [b"%d" % number for number in range(1, 7)]
    nodes["a"].spawn()


@pytest.mark.parametrize("lost", ["store", "both"])
@pytest.mark.asyncio
async def test_lost_data_is_refilled(nodes: ThreeNodes, client: RawClient, channel: str, lost: str) -> None:
    """O410, O426: a node without its store, or without store and log, gets everything from the leader, by a snapshot."""
    subscription = await client.subscribe(channel, durable_name="d", auto_ack=False)
    await publish_numbered(client, channel, 300)
    await subscription.wait_count(300)
    subscription.ack(2)
    node = (await asyncio.to_thread(nodes.followers))[0]
    await asyncio.to_thread(node.stop)
    if lost == "both":
        node.wipe()
    else:
        shutil.rmtree(node.directory)
    await publish_numbered(client, channel, 100, first=301)
    node.spawn()
    await asyncio.to_thread(node.wait_for, "done restoring from snapshot")
    if lost == "both":
        await asyncio.to_thread(
            nodes.wait_until,
            lambda: f'node "{node.node_id}" has the log and becomes a member' in log_of(nodes),
            "member",
        )
    await make_lead(nodes, client, node, lost.encode())
    stored = await read_all(client, channel, b"400")
    assert [message.data for message in stored] == [b"%d" % number for number in range(1, 401)]
    assert (await client.ping()).error == ""
    again = await client.subscribe(channel, durable_name="d")
    assert again.error == "stan: duplicate durable registration"


@pytest.mark.asyncio
async def test_follower_that_is_late_is_restored(nodes: ThreeNodes, client: RawClient, channel: str) -> None:
    """O426: what happened while a node was away comes by a snapshot, when the leader's log does not reach back so far."""
    node = (await asyncio.to_thread(nodes.followers))[-1]
    await asyncio.to_thread(node.kill)
    for first in range(1, 501, 50):
        await publish_numbered(client, channel, 50, first=first)
    node.spawn()
    await make_lead(nodes, client, node, b"late")
    stored = await read_all(client, channel, b"500")
    assert [message.data for message in stored] == [b"%d" % number for number in range(1, 501)]


@pytest.mark.asyncio
async def test_store_without_log_is_refused(nodes: ThreeNodes, client: RawClient, channel: str) -> None:
    """O409: every time, with the text; its log put back, the node goes on."""
    await publish_numbered(client, channel, 1)
    node = (await asyncio.to_thread(nodes.followers))[0]
    await asyncio.to_thread(node.stop)
    kept = node.log_path.rename(node.home / "kept")
    text = (
        f'[FTL] STREAM: Failed to start: streaming state was recovered but cluster log path "{node.log_path}" is empty'
    )
    for _ in range(2):
        node.spawn()
        assert await asyncio.to_thread(node.wait_end) == 1
        assert [line for line in node.lines if line.endswith(text)] != []
        shutil.rmtree(node.log_path, ignore_errors=True)
    kept.rename(node.log_path)
    node.spawn()
    await make_lead(nodes, client, node, b"put-back")


@pytest.mark.parametrize("part", ["data", "log"])
@pytest.mark.asyncio
async def test_data_of_another_node_is_refused(nodes: ThreeNodes, client: RawClient, part: str) -> None:
    """O405, O417: store or log of another node, swapped by mistake: neither starts; nothing is changed by the attempt."""
    ours, theirs = await asyncio.to_thread(nodes.followers)
    for node in (ours, theirs):
        await asyncio.to_thread(node.kill)
    swap(ours, theirs, part)
    for node in (ours, theirs):
        node.spawn()
    for node in (ours, theirs):
        assert await asyncio.to_thread(node.wait_end) == 1
        (fatal,) = [line for line in node.lines if "[FTL]" in line]
        assert f"node ID of the journal in {node.log_path}" in fatal, fatal
    swap(ours, theirs, part)
    for node in (ours, theirs):
        node.spawn()
    await publish_again(client, f"swapped-{part}", b"1")


@pytest.mark.asyncio
async def test_formation_in_any_order(nats: NatsProcess) -> None:
    """O402, O412: the first ones wait for all peers, whoever that is; another cluster on the same NATS sees nothing of it."""
    cluster = ThreeNodes(nats=nats, cluster_id="formed")
    try:
        for node_id in ("c", "a"):
            cluster[node_id].spawn()
        for node_id in ("c", "a"):
            await asyncio.to_thread(
                cluster[node_id].wait_for, "a new cluster is formed when all peers were seen once; missing: b"
            )
        async with Clients(nats.url) as clients:
            with pytest.raises(NoRespondersError):
                await clients.connect("me", cluster_id="formed")
            cluster["b"].spawn()
            await leader_of(cluster)
            client = await clients.connect("me", cluster_id="formed")
            await publish_numbered(client, "here", 3)
            there = await clients.connect("me", cluster_id=CLUSTER_ID)
            subscription = await there.subscribe("here", start=pb.First)
            await publish_numbered(there, "here", 1)
            assert (await subscription.next()).sequence == 1
            for node in cluster.nodes.values():
                assert "configuration members=a, b, c" in await asyncio.to_thread(node.wait_for, "configuration")
        assert bad_lines(cluster.nodes.values()) == []
    finally:
        await asyncio.to_thread(cluster.close)


@pytest.mark.asyncio
async def test_nobody_to_join_and_two_beginnings(nats: NatsProcess) -> None:
    """O403, O408: five tries, then the text and status 1; two nodes that begin one cluster end both, naming each other."""
    lonely = ThreeNodes(("x",), nats=nats, cluster_id="lonely", peers=False)
    double = ThreeNodes((), nats=nats, cluster_id="double", peers=False)
    try:
        lonely["x"].spawn()
        one = double.make("one", extra=("-cluster_bootstrap",))
        one.spawn()
        await leader_of(double)
        two = double.make("two", extra=("-cluster_bootstrap",))
        two.spawn()
        for node in (one, two):
            assert await asyncio.to_thread(node.wait_end) == 1
        for node, other in ((one, two), (two, one)):
            (server_id,) = [line.rpartition(" ")[2] for line in other.lines if "ServerID: " in line]
            text = f"[FTL] STREAM: Server {server_id} was also started with -cluster_bootstrap"
            assert [line for line in node.lines if line.endswith(text)] != []
        assert await asyncio.to_thread(lonely["x"].wait_end) == 1
        assert lonely["x"].lines[-1].endswith("[FTL] STREAM: failed to join Raft group lonely")
    finally:
        await asyncio.to_thread(lonely.close)
        await asyncio.to_thread(double.close)


def log_of(nodes: ThreeNodes) -> str:
    """What all nodes have said."""
    return "\n".join(node.log for node in nodes.nodes.values())


def swap(one: ClusterNode, other: ClusterNode, part: str) -> None:
    """Exchange the stores (`data`) or the logs (`log`) of two nodes."""
    aside = one.home / "aside"
    (one.home / part).rename(aside)
    (other.home / part).rename(one.home / part)
    aside.rename(other.home / part)
