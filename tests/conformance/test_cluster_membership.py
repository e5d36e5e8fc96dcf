"""How nodes come into a running cluster and leave it: joining by themselves, and by requests of operators (O402, O403, O430-O434).

The cluster begins with one node and is grown to three. Every test leaves it with a, b and c as members, all running.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from raft.link.frame import FrameKind, decode_frame
from raft.link.links import SILENCE_S
from raft.messages import Append
from raft.wire import decode
from server.cluster.cluster_pb2 import JoinRequest
from tests.conformance.cluster_steps import all_follow, leader_of, publish_again, read_all, wait_said
from tests.conformance.hostile import payloads
from tests.conformance.steps import Clients, listen, publish_numbered, until
from tests.support.raw_client import RawClient
from tests.support.raw_nats import NatsMessage
from tests.support.three_nodes import ClusterNode, ThreeNodes, bad_lines

CLUSTER_ID = "grown"
ADD, REMOVE, JOIN = (f"_STAN.raft.{CLUSTER_ID}.{name}" for name in ("node.add", "node.remove", "join"))
OK = b"+OK"

CHANGE_S = 20.0
"""Deadline for one change of the members, seconds."""

ALLOWED = (
    "Error adding node",
    "Error removing node",
    "a request to join the cluster is not one of ours and is refused",
    "asks to join with another journal, but a node of that id is running: refused",
    "two processes seem to run with node id",
    "another running node has our node id",
    "the cluster does not accept this node: another running node has the id",
    "failed to join Raft group",
    "no majority confirms this leader: it keeps silent until one does",
    "cannot be reached for 10 seconds",
    "this node is no member of its cluster",
)
"""Warnings and errors that the tests of this module provoke."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[ThreeNodes]:
    """The first node alone, at first; other nodes are made by the tests."""
    options = ("-mc", "0", "-cluster_allow_add_remove_node")
    with ThreeNodes((), cluster_id=CLUSTER_ID, options=options, peers=False) as running:
        yield running
        assert {node.node_id for node in running.running} == {"a", "b", "c"}
        assert bad_lines(running.nodes.values(), allowed=ALLOWED) == []


@pytest_asyncio.fixture
async def client(nodes: ThreeNodes) -> AsyncIterator[RawClient]:
    """A client of the cluster, which has a leader."""
    if not nodes.nodes:
        nodes.make("a", extra=("-cluster_bootstrap",)).spawn()
    await leader_of(nodes)
    async with Clients(nodes.url) as clients:
        connected = await clients.connect(cluster_id=CLUSTER_ID)
        if len(nodes.nodes) > 1:
            await all_follow(nodes, connected.nats)
        yield connected


async def change(client: RawClient, subject: str, node_id: str) -> bytes:
    """The answer to a request about a member."""
    return (await client.nats.request(subject, node_id.encode(), timeout_s=CHANGE_S)).data


async def needs_both(
    nodes: ThreeNodes, client: RawClient, away: ClusterNode, needed: ClusterNode, channel: str
) -> None:
    """Of three members one is away: what is acked now is on the two others, hence on `needed`, which counts."""
    await asyncio.to_thread(away.kill)
    await publish_again(client, channel, b"needs %s" % needed.node_id.encode())
    away.spawn()


@pytest.mark.asyncio
async def test_one_node_alone(nodes: ThreeNodes, client: RawClient) -> None:
    """O402, O431: it serves at once; it cannot be removed, and no absent node may take its majority."""
    await publish_numbered(client, "kept", 10)
    assert await change(client, REMOVE, "a") == b'-ERR removing node "a": it is the only node of the cluster'
    refused = await change(client, ADD, "absent")
    assert refused.startswith(b'-ERR adding node "absent": '), refused
    assert await change(client, REMOVE, "absent") == OK
    assert await change(client, ADD, "a") == OK
    await publish_numbered(client, "kept", 10, first=11)


@pytest.mark.asyncio
async def test_grown_to_three(nodes: ThreeNodes, client: RawClient) -> None:
    """O402, O403: nodes that know nothing ask the leader and become members; the messages are theirs, too."""
    subscription = await client.subscribe("kept", durable_name="d")
    for node_id in ("b", "c"):
        nodes.make(node_id).spawn()
        await wait_said(nodes, f'node "{node_id}" has the log and becomes a member')
    members = "configuration members=a, b, c"
    for node in nodes.nodes.values():
        await asyncio.to_thread(node.wait_for, members)
    first = nodes["a"]
    assert await leader_of(nodes) is first
    await publish_numbered(client, "kept", 1, first=21)
    await asyncio.to_thread(first.kill)
    assert await leader_of(nodes, other_than=first) is not first
    await publish_again(client, "kept", b"22")
    await subscription.wait_until(lambda: subscription.received[-1].data == b"22")
    stored = await read_all(client, "kept", b"22")
    assert list(dict.fromkeys(one.data for one in stored)) == [b"%d" % number for number in range(1, 23)]
    first.spawn()  # with --cluster_bootstrap, which counts no more (O404)


@pytest.mark.asyncio
async def test_answers_to_requests(nodes: ThreeNodes, client: RawClient) -> None:
    """O431, O432: the exact texts; present nodes are added, unknown ones removed, with nothing done."""
    for wrong in ("", "two words", "a.*", "a/b", "join", "node.add", "x" * 300):
        assert await change(client, ADD, wrong) == f'-ERR adding node "{wrong}": invalid node ID'.encode()
    for node_id in ("a", "b", "c"):
        assert await change(client, ADD, node_id) == OK
    for unknown in ("unknown", "", "two words"):
        assert await change(client, REMOVE, unknown) == OK
    client.nats.publish(ADD, b"b")  # without a reply subject: nobody to be told
    await client.nats.flush()
    await publish_numbered(client, "answers", 3)


@pytest.mark.asyncio
async def test_id_that_is_no_text(nodes: ThreeNodes, client: RawClient) -> None:
    """O431: bytes that are no UTF-8 are no id; nobody of that name takes a place, and a part of the majority."""
    answer = (await client.nats.request(ADD, b"\xff\xfe", timeout_s=CHANGE_S)).data
    if answer == OK:  # the tests behind this one need their majority
        await client.nats.request(REMOVE, b"\xff\xfe", timeout_s=CHANGE_S)
    assert answer.startswith(b'-ERR adding node "')
    assert answer.endswith(b'": invalid node ID')


@pytest.mark.asyncio
async def test_removed_node_is_not_told_and_can_come_back(nodes: ThreeNodes, client: RawClient) -> None:
    """O432, O433: a removed follower runs on, and nobody sends to it any more; added again, it has its old state."""
    leader = await leader_of(nodes)
    removed, other = await asyncio.to_thread(nodes.followers)
    mark = removed.mark()
    assert await change(client, REMOVE, removed.node_id) == OK
    await asyncio.to_thread(leader.wait_for, f'Removed node "{removed.node_id}"')
    frames: list[NatsMessage] = []
    for node_id in nodes.nodes:
        client.nats.subscribe(f"_STAN.raft.{CLUSTER_ID}.{node_id}", frames.append)
    await until_frames(client, frames, other, 20)
    frames.clear()
    await publish_numbered(client, "without", 50)
    await until_frames(client, frames, other, 20)
    assert removed.is_running
    assert bad_lines([removed], allowed=ALLOWED) == []
    assert [one for one in frames if is_append(one, removed)] == []
    assert [one for one in frames if is_append(one, other)] != []
    await asyncio.to_thread(other.kill)  # of two members: nothing is served any more
    other.spawn()
    await publish_again(client, "without", b"51")
    assert await change(client, ADD, removed.node_id) == OK
    await asyncio.to_thread(removed.wait_for, "configuration members=a, b, c", since=mark)
    await needs_both(nodes, client, other, removed, "without")
    stored = await read_all(client, "without", b"needs %s" % removed.node_id.encode())
    assert [one.data for one in stored][:51] == [b"%d" % number for number in range(1, 52)]


def is_append(message: NatsMessage, target: ClusterNode) -> bool:
    """Whether that is a frame with entries, or the leader's heartbeat, for `target`."""
    frame = decode_frame(message.data)
    is_data = frame.header.kind is FrameKind.DATA and frame.header.fragment_count == 1
    return frame.header.destination == target.node_id and is_data and isinstance(decode(frame.body), Append)


async def until_frames(client: RawClient, frames: list[NatsMessage], target: ClusterNode, count: int) -> None:
    """Returns when so many frames went to that node: a clock made of what the nodes say to one another."""

    async def are_there() -> bool:
        await client.nats.flush()
        return sum(one.subject.endswith(f".{target.node_id}") for one in frames) >= count

    await until(are_there, f"{count} frames to {target.node_id}")


@pytest.mark.asyncio
async def test_removed_node_that_restarts_waits_to_be_added(nodes: ThreeNodes, client: RawClient) -> None:
    """O404, O433: with its old state it disturbs nobody, and is taken again on request."""
    removed = (await asyncio.to_thread(nodes.followers))[0]
    assert await change(client, REMOVE, removed.node_id) == OK
    await asyncio.to_thread(removed.kill)
    await publish_numbered(client, "meanwhile", 20)
    leader = await leader_of(nodes)
    term = leader.leads_in
    removed.spawn()
    await asyncio.to_thread(removed.wait_for, "Store location")
    await publish_numbered(client, "meanwhile", 20, first=21)
    mark = removed.mark()
    assert await change(client, ADD, removed.node_id) == OK
    await asyncio.to_thread(removed.wait_for, "configuration members=a, b, c", since=mark)
    assert (await leader_of(nodes)).leads_in == term
    other = next(node for node in nodes.nodes.values() if node not in (leader, removed))
    await needs_both(nodes, client, other, removed, "meanwhile")


@pytest.mark.asyncio
async def test_leader_removes_itself(nodes: ThreeNodes, client: RawClient) -> None:
    """O433: the answer comes first, then it ends in order with status 0, and the rest goes on; it can come back."""
    leader = await leader_of(nodes)
    subscription = await client.subscribe("self", durable_name="d")
    await publish_numbered(client, "self", 10)
    assert await change(client, REMOVE, leader.node_id) == OK
    assert await asyncio.to_thread(leader.wait_end) == 0
    assert any("Shutting down." in line for line in leader.lines)
    await leader_of(nodes, other_than=leader)
    await publish_again(client, "self", b"11")
    await subscription.wait_until(lambda: subscription.received[-1].data == b"11")
    assert await change(client, ADD, leader.node_id) == OK
    leader.spawn()
    await wait_said(nodes, f'node "{leader.node_id}" has the log and becomes a member')
    other = next(node for node in await asyncio.to_thread(nodes.followers) if node is not leader)
    await needs_both(nodes, client, other, leader, "self")
    assert len(await read_all(client, "self", b"needs %s" % leader.node_id.encode())) >= 12


@pytest.mark.asyncio
async def test_absent_node_is_added_then_started(nodes: ThreeNodes, client: RawClient) -> None:
    """O430, O432, O434: its place counts before it comes, its journal fills it; changes at once are made one by one."""
    assert await change(client, ADD, "late") == OK
    await publish_numbered(client, "late", 10)
    late = nodes.make("late")
    late.spawn()
    await wait_said(nodes, 'node "late" has the log and becomes a member')
    answers = await asyncio.gather(*(change(client, REMOVE, node_id) for node_id in ("late", "none", "late")))
    assert answers == [OK, OK, OK]
    await asyncio.to_thread(late.stop)
    del nodes.nodes["late"]
    await publish_numbered(client, "late", 10, first=11)


@pytest.mark.asyncio
async def test_no_change_that_costs_the_majority(nodes: ThreeNodes, client: RawClient) -> None:
    """O431, O434: with one of three nodes down, the other running one is not removed; the cluster goes on serving."""
    down, needed = await asyncio.to_thread(nodes.followers)
    leader = await leader_of(nodes)
    frames: list[NatsMessage] = []
    client.nats.subscribe(f"_STAN.raft.{CLUSTER_ID}.{leader.node_id}", frames.append)
    await asyncio.to_thread(down.kill)
    await publish_numbered(client, "majority", 5)

    async def is_noticed() -> bool:  # what a node says about itself comes four times per second
        await client.nats.flush()
        hellos = [one for one in frames if decode_frame(one.data).header.kind is FrameKind.HELLO]
        return sum(decode_frame(one.data).header.source.node_id == needed.node_id for one in hellos) > 4 * SILENCE_S + 4

    await until(is_noticed, "so many hellos that silence is noticed")
    answer = await change(client, REMOVE, needed.node_id)
    assert answer.startswith(f'-ERR removing node "{needed.node_id}": '.encode()), answer
    await publish_numbered(client, "majority", 5, first=6)
    down.spawn()
    await publish_again(client, "majority", b"11")


@pytest.mark.asyncio
async def test_foreign_requests_to_join(nodes: ThreeNodes, client: RawClient) -> None:
    """O441: what no node of ours has sent is refused with a line in the log, has no answer, and breaks nothing."""
    leader = await leader_of(nodes)
    term = leader.leads_in
    good = JoinRequest(version=1, node_id="foreign", incarnation="0" * 32)
    foreign = [
        b"",
        b'{"ID":"foreign","Addr":"foreign","Inbox":"_INBOX.1"}',
        JoinRequest(version=2, node_id="foreign", incarnation="0" * 32).SerializeToString(),
        JoinRequest(version=1, node_id="foreign", incarnation="xyz").SerializeToString(),
        JoinRequest(version=1, node_id="", incarnation="0" * 32).SerializeToString(),
        JoinRequest(version=1, node_id="node.add", incarnation="0" * 32).SerializeToString(),
        JoinRequest(version=1, node_id="*", incarnation="0" * 32).SerializeToString(),
        JoinRequest(version=1, node_id="x" * 300, incarnation="0" * 32).SerializeToString(),
    ]
    foreign += [spoilt for spoilt in payloads(good.SerializeToString(), seed=1) if not is_acceptable(spoilt)]
    inbox = client.nats.new_inbox()
    answers = listen(client.nats, inbox)
    for payload in foreign:
        client.nats.publish(JOIN, payload, reply=inbox)
    await publish_numbered(client, "foreign", 10)
    assert (await client.ping()).error == ""
    await asyncio.to_thread(leader.wait_for, "a request to join the cluster is not one of ours and is refused")
    assert answers == []
    assert leader.leads_in == term


def is_acceptable(payload: bytes) -> bool:
    """Whether a spoilt request is a right one of some node after all."""
    try:
        request = JoinRequest.FromString(payload)
    except Exception:  # noqa: BLE001  whatever protobuf says
        return False
    digits = set(request.incarnation) <= set("0123456789abcdef")
    return request.version == 1 and len(request.incarnation) == 32 and digits and request.node_id.isprintable()


@pytest.mark.asyncio
async def test_second_process_with_the_id_of_a_running_node(nodes: ThreeNodes, client: RawClient) -> None:
    """O403: it is refused by the leader and ends after its tries, and the node it is named after goes on as a member."""
    named, other = await asyncio.to_thread(nodes.followers)
    second = nodes.make(named.node_id, name="second")
    second.spawn()
    assert await asyncio.to_thread(second.wait_end) == 1
    assert f"failed to join Raft group {CLUSTER_ID}" in second.lines[-1]
    await wait_said(nodes, "asks to join with another journal, but a node of that id is running: refused")
    await publish_again(client, "named", b"1")
    await needs_both(nodes, client, other, named, "named")
