"""How a process ends: status and reason of fatal errors, also of those that come late."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from raft.errors import NotLeaderError
from raft.node import RaftNode
from server import app
from server.app import EXIT_FATAL, Node
from server.cluster import connection as raft_connection
from server.config.cluster import ClusterOptions
from server.config.model import Options
from server.leadership import Leadership
from server.protocol import stan_pb2 as pb
from store.errors import StoreError
from tests.support.leader_harness import CLUSTER_ID, Frame, parse_frames
from tests.unit.store.builders import append, log_entry, messages

DEADLINE_S = 20


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_first_fatal_error_is_the_reason(loop, caplog):
    """O196: logged once, status 1; what follows from it is not told again."""
    node = Node(Options(), loop)
    node.fail(StoreError("disk full"))
    node.fail(StoreError("consequence"))
    assert node.ended.result() == EXIT_FATAL
    assert [record.message for record in caplog.records] == ["disk full"]


def test_fatal_error_while_stopping(loop, caplog, monkeypatch):
    """O196: a signal came first, then the last write failed: the reason is logged, and the status says so."""

    async def start(node):
        node.ended.set_result(0)

    async def stop(node):
        node.fail(StoreError("disk full"))

    monkeypatch.setattr(Node, "start", start)
    monkeypatch.setattr(Node, "stop", stop)
    assert loop.run_until_complete(app.run(Options())) == EXIT_FATAL
    assert "disk full" in caplog.text


def test_status_of_an_orderly_end(loop, monkeypatch):
    """O233: the status that the signal asks for."""

    async def start(node):
        node.ended.set_result(0)

    async def stop(node):
        pass

    monkeypatch.setattr(Node, "start", start)
    monkeypatch.setattr(Node, "stop", stop)
    assert loop.run_until_complete(app.run(Options())) == 0


class LoneNats:
    """A connection to a NATS server where nobody else is: requests meet no responders, what was written is kept."""

    is_connected = is_writable = True
    max_payload = 1024 * 1024

    def __init__(self, *, on_data, **_options) -> None:
        self.on_data = on_data
        self.subjects: dict[str, int] = {}
        self.frames: list[Frame] = []

    async def connect(self) -> None:
        pass

    async def barrier(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def subscribe(self, subject: str) -> int:
        self.subjects[subject] = len(self.subjects) + 1
        return self.subjects[subject]

    def unsubscribe(self, sid: int) -> None:
        pass

    def write(self, parts: Sequence[bytes]) -> bool:
        for frame in parse_frames(b"".join(parts)):
            self.frames.append(frame)
            if frame.reply:
                asyncio.get_running_loop().call_soon(self.no_responders, frame.reply)
        return True

    async def answers(self, kind: type[pb.ConnectRequest | pb.PubMsg], count: int) -> list[bytes]:
        """What answers requests of this kind; at least so many, so wait for them."""
        while (
            len(found := [frame.payload for frame in self.frames if frame.subject == f"reply.{kind.__name__}"]) < count
        ):
            await asyncio.sleep(0)
        return found

    def no_responders(self, reply: str) -> None:
        sid = self.subjects[f"{reply.rpartition('.')[0]}.*"]
        self.on_data(b"HMSG %b %d 16 16\r\nNATS/1.0 503\r\n\r\n\r\n" % (reply.encode(), sid))

    def send(self, subject: str, pattern: str, request: pb.ConnectRequest | pb.PubMsg) -> None:
        payload = request.SerializeToString()
        line = f"MSG {subject} {self.subjects[pattern]} reply.{type(request).__name__} {len(payload)}\r\n"
        self.on_data(line.encode() + payload + b"\r\n")


@pytest.mark.asyncio
async def test_refused_block_fails_the_raft_node_too(monkeypatch, caplog):
    """O196: what the leader numbered is not what the log has: nothing is proposed or acked from the same moment on."""
    nats, rafts = list[LoneNats](), list[RaftNode]()

    def connection(**options):
        nats.append(LoneNats(**options))
        return nats[0]

    def raft_node(**options):
        rafts.append(RaftNode(**options))
        return rafts[0]

    monkeypatch.setattr(app, "NatsConnection", connection)
    monkeypatch.setattr(app, "RaftNode", raft_node)
    node = Node(
        Options(cluster_id=CLUSTER_ID, store="MEMORY", nats_urls=("nats://127.0.0.1:4222",)), asyncio.get_running_loop()
    )
    publish = pb.PubMsg(clientID="me", guid="g", subject="foo", data=b"data")
    published = f"_STAN.pub.{CLUSTER_ID}."
    try:
        async with asyncio.timeout(DEADLINE_S):
            await node.start()
            (server,), (raft,) = nats, rafts
            discover = f"_STAN.discover.{CLUSTER_ID}"
            server.send(discover, discover, pb.ConnectRequest(clientID="me", heartbeatInbox="hb", protocol=1))
            await server.answers(pb.ConnectRequest, 1)
            server.send(f"{published}foo", f"{published}>", publish)
            assert await server.answers(pb.PubMsg, 1) == [pb.PubAck(guid="g").SerializeToString()]
            operation, data = append(1, 2, messages(2, 1))
            raft.propose([log_entry(0, [operation], [data]).data], lambda _outcome: None)
            server.send(f"{published}foo", f"{published}>", publish)
            assert await node.ended == EXIT_FATAL
        assert not raft.is_serving
        with pytest.raises(NotLeaderError):
            raft.propose([b""], pytest.fail)
        server.send(f"{published}foo", f"{published}>", publish)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(await server.answers(pb.PubMsg, 0)) == 1
        assert [record.exc_info is not None for record in caplog.records if record.levelname == "CRITICAL"] == [False]
        assert "a block was refused" in caplog.text
    finally:
        await node.stop()
    assert node.is_fatal


@pytest.mark.asyncio
async def test_leadership_of_a_clustered_node_that_cannot_begin_is_fatal(monkeypatch, caplog, tmp_path):
    """O196, O424: the node is up before it leads, so nobody waits for that; it must not lead on and serve nobody."""

    async def begin(_leadership):
        raise StoreError("disk full")

    monkeypatch.setattr(app, "NatsConnection", LoneNats)
    monkeypatch.setattr(raft_connection, "NatsConnection", LoneNats)
    monkeypatch.setattr(Leadership, "begin", begin)
    caplog.set_level(logging.INFO)
    cluster = ClusterOptions(node_id="a", bootstrap=True, log_path=str(tmp_path / "log"))
    node = Node(
        Options(
            cluster_id=CLUSTER_ID,
            store="FILE",
            dir=str(tmp_path),
            nats_urls=("nats://127.0.0.1:4222",),
            cluster=cluster,
        ),
        asyncio.get_running_loop(),
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            await node.start()
            assert await node.ended == EXIT_FATAL
    finally:
        await node.stop()
    assert node.is_fatal
    assert [record.message for record in caplog.records if record.levelname == "CRITICAL"] == ["disk full"]
    assert "Shutting down." not in caplog.messages  # O234 is for an orderly end
