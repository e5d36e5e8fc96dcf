"""Server and puller together: over a network that loses, repeats and reorders, over leaders that go, and with real stores."""

from dataclasses import replace
from functools import partial

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft.messages import SnapshotChunk, SnapshotRequest
from raft.snapshot.files import SnapshotFiles
from raft.snapshot.puller import SnapshotPuller
from raft.snapshot.server import SnapshotServer
from tests.support.store_digest import digest
from tests.unit.raft.snapshot.fakes import FOLLOWER, LEADER, OTHER, Clock, MemorySink, MemorySnapshot
from tests.unit.raft.snapshot.test_files import at_once
from tests.unit.store.builders import SETUP, configuration, fill, log_entry, opened, subscribe

CHUNK_BYTES = 100
SIZE = 9 * CHUNK_BYTES + 11
CONTENT = bytes(range(251)) * 5


@pytest.fixture
def _short_chunks(monkeypatch):
    """Content that costs nothing."""
    monkeypatch.setattr("raft.snapshot.puller.CHUNK_BYTES", CHUNK_BYTES)


class Network:
    """Members that fetch from one leader. Messages lie in `sent` until they are delivered, lost or repeated."""

    def __init__(self, create, open_sinks):
        self.clock = Clock()
        self.sent = []
        self.completed = {member: [] for member in open_sinks}
        self.create = create
        self.server = self.new_server()
        self.pullers = {
            member: SnapshotPuller(
                open_sink=open_sink,
                send=lambda to, message, member=member: self.sent.append((member, to, message)),
                clock=self.clock,
                complete=lambda *what, member=member: self.completed[member].append(what),
            )
            for member, open_sink in open_sinks.items()
        }

    def new_server(self):
        return SnapshotServer(
            create=self.create,
            send=lambda to, message: self.sent.append((LEADER, to, message)),
            clock=self.clock,
        )

    def restart_leader(self):
        """Its snapshots are gone."""
        self.server.close()
        self.server = self.new_server()

    def deliver(self, position):
        source, to, message = self.sent[position]
        if isinstance(message, SnapshotRequest):
            assert to == LEADER
            self.server.handle(source, message)
        else:
            if isinstance(message, SnapshotChunk):
                assert message.checksum == google_crc32c.value(message.data)
            self.pullers[to].handle(source, message)

    def move(self, seconds):
        self.clock.now += seconds
        for one in (self.server, *self.pullers.values()):
            one.tick()

    def run(self):
        """From now on nothing is lost: let time pass until nobody pulls."""
        for _ in range(2000):
            while self.sent:
                self.deliver(0)
                del self.sent[0]
            if not any(puller.next_deadline() is not None for puller in self.pullers.values()):
                return
            self.move(0.5)
        raise AssertionError("it did not end")


class Snapshots:
    """Makes snapshots of ten chunks, each of another content, the newest of the highest index. Each is kept to compare with."""

    def __init__(self):
        self.made = {}

    def create(self, done):
        number = len(self.made) + 1
        content = CONTENT[number:SIZE]
        snapshot = MemorySnapshot(content, number=number, index=10 * number)
        self.made[snapshot.index] = content
        done(snapshot)


STEPS = ["deliver"] * 12 + ["repeat", "lose", "damage", "wait", "wait long", "start", "restart", "renew"]


@pytest.mark.usefixtures("_short_chunks")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_network_delivers_one_snapshot_whole(data):
    """Whatever is lost, repeated, reordered or of another snapshot: what is complete is what one snapshot was."""
    snapshots = Snapshots()
    sinks = {FOLLOWER: [], OTHER: []}

    def open_sink(member):
        sinks[member].append(MemorySink())
        return sinks[member][-1]

    network = Network(snapshots.create, {member: partial(open_sink, member) for member in sinks})
    at_least = dict.fromkeys(sinks, 1)
    for member, puller in network.pullers.items():
        puller.start(LEADER, at_least=1)
        at_least[member] = 1
    for _ in range(data.draw(st.integers(0, 120))):
        step = data.draw(st.sampled_from(STEPS))
        if step in {"deliver", "repeat", "lose", "damage"}:
            if not network.sent:
                continue
            position = data.draw(st.integers(0, min(len(network.sent) - 1, 8)))
            if step == "damage":
                source, to, message = network.sent[position]
                if not isinstance(message, SnapshotChunk):
                    continue
                field = data.draw(st.sampled_from(["offset", "size", "index", "term"]))
                changed = replace(message, **{field: getattr(message, field) + data.draw(st.sampled_from([-1, 1]))})
                network.sent[position] = (source, to, changed)
            if step != "lose":
                network.deliver(position)
            if step != "repeat":
                del network.sent[position]
        elif step in {"wait", "wait long"}:
            network.move(1.0 if step == "wait" else 31.0)
        elif step == "restart":
            network.restart_leader()
        elif step == "renew" and snapshots.made:
            network.server.renew_below(max(snapshots.made))
        elif step == "start":
            network.pullers[data.draw(st.sampled_from([FOLLOWER, OTHER]))].start(LEADER, at_least=1)
    for member, puller in network.pullers.items():
        if not network.completed[member]:
            puller.start(LEADER, at_least=1)
    network.run()
    for member, completed in network.completed.items():
        finished = [sink for sink in sinks[member] if sink.is_finished]
        assert 1 <= len(finished) == len(completed)
        for sink, (_, index, term) in zip(finished, completed, strict=True):
            assert (term, bytes(sink.content)) == (2, snapshots.made[index])
        assert sum(not sink.is_finished and not sink.is_discarded for sink in sinks[member]) <= 1


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("later_s", [0.0, 60.0])
def test_two_members_pull_one_snapshot(later_s):
    """Also the one that comes while the first is at it, however old it is then; nothing is sent twice for that."""
    snapshots, sinks = Snapshots(), {FOLLOWER: MemorySink(), OTHER: MemorySink()}
    network = Network(snapshots.create, {member: (lambda sink=sink: sink) for member, sink in sinks.items()})
    network.pullers[FOLLOWER].start(LEADER, at_least=1)
    delivered = 0
    while network.sent:
        network.deliver(0)
        del network.sent[0]
        delivered += 1
        if delivered == 8:
            network.clock.now += later_s
            network.pullers[OTHER].start(LEADER, at_least=1)
    assert len(snapshots.made) == 1
    assert [bytes(sink.content) for sink in sinks.values()] == [snapshots.made[10]] * 2
    if not later_s:  # else chunks were overdue
        assert delivered == 2 * 2 * 10  # a request and a chunk for each of ten


def test_stores_over_files(tmp_path):
    """Two followers, one of them with a state of its own, become what the leader was when the copy was made."""
    with (
        opened(tmp_path / "a") as (leader, _),
        opened(tmp_path / "c", node_id="c") as (first, _),
        opened(None, node_id="b", incarnation="b") as (second, _),
    ):
        leader.apply([log_entry(1, [*SETUP, subscribe(1, durable="d")]), configuration(2, b"members")])
        fill(leader, 2000, size=1000)
        leader.flush()
        expected, applied = digest(leader), leader.last_applied()
        first.apply([log_entry(1, SETUP)])
        fill(first, 20)
        outgoing = SnapshotFiles(tmp_path / "a/snapshots")
        incoming = {
            FOLLOWER: SnapshotFiles(tmp_path / "c/snapshots"),
            OTHER: SnapshotFiles(tmp_path / "memory/snapshots"),
        }
        network = Network(
            partial(outgoing.create, leader.copy, at_once),
            {member: files.open_sink for member, files in incoming.items()},
        )
        for puller in network.pullers.values():
            puller.start(LEADER, at_least=applied[0])
        network.run()
        fill(leader, 10)
        network.server.close()
        for member, store in ((FOLLOWER, first), (OTHER, second)):
            ((directory, index, term),) = network.completed[member]
            prepared = store.prepare(directory)
            assert (prepared.index, prepared.term) == (index, term) == applied
            store.install(prepared)
            assert (digest(store), store.last_applied(), store.configuration()) == (expected, applied, b"members")
            fill(store, 10)
            assert digest(store) == digest(leader)
        assert list(tmp_path.glob("*/snapshots/*/*")) == []
