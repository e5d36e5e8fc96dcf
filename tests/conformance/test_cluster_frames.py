"""What comes over the nodes' own subjects and is not of the cluster is dropped, with a line in the log, and breaks nothing (O441).

While it comes clients are served as ever: nobody stops to lead, every publish is acked.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from raft.link.frame import Frame, FrameKind, Header, NodeInfo, decode_frame, encode_frame, encode_info, key_of
from raft.membership import Member
from tests.conformance.cluster_steps import Publisher, all_follow, leader_of, read_all, wait_said
from tests.conformance.hostile import payloads
from tests.conformance.steps import Clients
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient
from tests.support.raw_nats import NatsMessage
from tests.support.three_nodes import ThreeNodes, bad_lines

PLAIN, SEALED = "plain", "sealed"
SECRET, OTHER_SECRET = b"a secret of this cluster only", b"another secret"
MAX_PAYLOAD = 4 * 1024 * 1024
LARGE_BYTES = 2 * 1024 * 1024
MAC_BYTES = 32

ALLOWED = ("reason=", "two processes seem to run with node id")


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsProcess]:
    """A NATS server with room for large frames."""
    with NatsProcess(configuration=f"max_payload: {MAX_PAYLOAD}") as process:
        yield process


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secret of the sealed cluster."""
    file = tmp_path_factory.mktemp("secret") / "secret"
    file.write_bytes(SECRET)
    file.chmod(0o600)
    return file


def run(nats: NatsProcess, cluster_id: str, *options: str) -> Iterator[ThreeNodes]:
    """A cluster whose nodes live to the end, and have warned of nothing but frames."""
    with ThreeNodes(nats=nats, cluster_id=cluster_id, options=("-mc", "0", *options)) as running:
        yield running
        assert len(running.running) == 3
        assert bad_lines(running.nodes.values(), allowed=ALLOWED) == []


@pytest.fixture(scope="module")
def plain(nats: NatsProcess) -> Iterator[ThreeNodes]:
    """A cluster without a secret."""
    yield from run(nats, PLAIN)


@pytest.fixture(scope="module")
def sealed(nats: NatsProcess, secret_file: Path) -> Iterator[ThreeNodes]:
    """A cluster with a secret."""
    yield from run(nats, SEALED, "-cluster_secret_file", str(secret_file))


@pytest_asyncio.fixture
async def clients(nats: NatsProcess) -> AsyncIterator[Clients]:
    """Connects clients."""
    async with Clients(nats.url) as connected:
        yield connected


def subject(cluster_id: str, node_id: str) -> str:
    """Where a node listens."""
    return f"_STAN.raft.{cluster_id}.{node_id}"


async def attack(nodes: ThreeNodes, clients: Clients, frames: Callable[[str], list[bytes]]) -> None:
    """Sends the frames made for each node while clients are served; the leader stays, and all that is acked is there."""
    client = await clients.connect(cluster_id=nodes.cluster_id)
    enemy = await clients.nats()
    leader = await all_follow(nodes, client.nats) if nodes.cluster_id == PLAIN else await leader_of(nodes)
    term = leader.leads_in
    async with Publisher(client, "attacked") as publisher:
        for node_id in nodes.nodes:
            for frame in frames(node_id):
                enemy.publish(subject(nodes.cluster_id, node_id), frame)
            await enemy.flush()
            await publisher.wait_more(10)
    acked = publisher.acked
    stored = {message.data for message in await read_all(client, "attacked", acked[-1])}
    assert set(acked) <= stored
    assert leader.leads_in == term
    assert len(nodes.running) == 3
    await client.close()


async def recorded(nodes: ThreeNodes, clients: Clients, count: int) -> list[bytes]:
    """Frames that the nodes have sent to one another while something was published."""
    client: RawClient = await clients.connect(cluster_id=nodes.cluster_id)
    frames: list[NatsMessage] = []
    for node_id in nodes.nodes:
        client.nats.subscribe(subject(nodes.cluster_id, node_id), frames.append)
    async with Publisher(client, "recorded") as publisher, asyncio.timeout(30):
        while len(frames) < count:
            await publisher.wait_more(5)
    return [frame.data for frame in frames]


def spoilt(frame: bytes, seed: int) -> list[bytes]:
    """Cut short, with bits turned, and with more behind it."""
    return [*payloads(frame, seed), frame + b"\x00", frame + frame]


@pytest.mark.asyncio
async def test_garbage(plain: ThreeNodes, clients: Clients) -> None:
    """O441: empty, random, cut and turned frames, and such of 2 MB."""
    frames = await recorded(plain, clients, 60)
    chance = random.Random(1)
    by_kind = {decode_frame(frame).header.kind: frame for frame in frames}
    garbage = [b"", b"\x00", chance.randbytes(LARGE_BYTES), b"\xff\xff" + bytes(LARGE_BYTES)]
    garbage += [b'{"ID":"x","Addr":"x","Inbox":"_INBOX.x"}']  # what nodes of the original send
    for frame in by_kind.values():
        garbage += spoilt(frame, seed=2)
        garbage.append(frame + bytes(LARGE_BYTES))
    await attack(plain, clients, lambda _: garbage)
    await wait_said(plain, "reason=malformed")


@pytest.mark.asyncio
async def test_recorded_frames(plain: ThreeNodes, clients: Clients) -> None:
    """O441: frames that were heard before, to whomever they were sent, in their order and in another one."""
    frames = await recorded(plain, clients, 200)
    mixed = random.Random(3).sample(frames, len(frames))
    await attack(plain, clients, lambda _: [*frames, *mixed])


@pytest.mark.asyncio
async def test_frames_of_another_cluster(plain: ThreeNodes, sealed: ThreeNodes, clients: Clients) -> None:
    """O412, O441: its nodes have the same names; what they say is not taken, with a code that is missing or too much."""
    theirs = await recorded(sealed, clients, 60)
    ours = await recorded(plain, clients, 60)
    await attack(plain, clients, lambda _: [*theirs, *(frame[:-MAC_BYTES] for frame in theirs)])
    await attack(sealed, clients, lambda _: ours)
    await wait_said(plain, "reason=malformed")
    await wait_said(sealed, "reason=unauthenticated")


@pytest.mark.asyncio
async def test_node_with_another_secret(sealed: ThreeNodes, clients: Clients) -> None:
    """O441: it knows the names and the form, but not the secret: it is nobody, and its request to join leads nowhere."""

    def frames(node_id: str) -> list[bytes]:
        hello = as_frame(Member("a", "0" * 32), node_id, sequence=1)
        keys = (key_of(OTHER_SECRET, SEALED), key_of(SECRET, "other"), None)
        return [b"".join(encode_frame(hello.header, [hello.body], key)) for key in keys]

    await attack(sealed, clients, frames)
    await wait_said(sealed, "reason=unauthenticated")


@pytest.mark.asyncio
async def test_hellos_of_invented_nodes(plain: ThreeNodes, clients: Clients) -> None:
    """O441: a cluster without a secret hears out whoever knows the form; hundreds of invented nodes cost it nothing."""

    def frames(node_id: str) -> list[bytes]:
        members = [Member(f"invented{number}", f"{number:032x}") for number in range(500)]
        hellos = [as_frame(member, node_id, sequence=1) for member in members]
        return [b"".join(encode_frame(hello.header, [hello.body], None)) for hello in hellos]

    await attack(plain, clients, frames)


@pytest.mark.asyncio
async def test_hello_in_the_name_of_a_member(plain: ThreeNodes, clients: Clients) -> None:
    """O441: an invented journal of a member's name is not the member; the cluster goes on without its secret, too."""

    def frames(node_id: str) -> list[bytes]:
        names = [name for name in plain.nodes if name != node_id]
        hellos = [as_frame(Member(name, "f" * 32), node_id, sequence=1) for name in names]
        return [b"".join(encode_frame(hello.header, [hello.body], None)) for hello in hellos]

    await attack(plain, clients, frames)


def as_frame(source: Member, destination: str, *, sequence: int) -> Frame:
    """A hello of a node that says that it was never part of a cluster, in a late session."""
    header = Header(
        kind=FrameKind.HELLO,
        source=source,
        source_session=(1 << 63) - 1,
        destination=destination,
        destination_session=0,
        sequence=sequence,
    )
    return Frame(header, encode_info(NodeInfo(is_fresh=True, release="1")))
