"""Covers raft/snapshot/puller.py: what is asked for, what counts, and how it goes on after an interruption."""

import errno
import logging
from dataclasses import replace

import pytest

from raft.messages import SnapshotChunk, SnapshotGone, SnapshotRequest
from raft.snapshot.puller import CHUNK_BYTES, CHUNK_TIMEOUT_S, DISK_RETRY_S, PIPELINE, RETRY_S, STALL_S, SnapshotPuller
from tests.unit.raft.snapshot.fakes import LEADER, OTHER, Clock, MemorySink, MemorySnapshot

ANY = SnapshotRequest(b"", 0, CHUNK_BYTES)
LAST_BYTES = 100
CHUNKS = 7


def content(seed=0):
    """Seven chunks, the last one short, no two alike."""
    return b"".join(bytes([number + seed]) * CHUNK_BYTES for number in range(CHUNKS - 1)) + b"\xff" * LAST_BYTES


class Harness:
    """A puller; what it asks for, and what it has fetched."""

    def __init__(self):
        self.clock, self.sent, self.sinks, self.completed = Clock(), [], [], []
        self.open_error = self.write_error = None
        self.puller = SnapshotPuller(
            open_sink=self.open_sink,
            send=lambda member, message: self.sent.append((member, message)),
            clock=self.clock,
            complete=lambda *what: self.completed.append(what),
        )

    def open_sink(self):
        if self.open_error is not None:
            raise self.open_error
        self.sinks.append(MemorySink())
        self.sinks[-1].write_error = self.write_error
        return self.sinks[-1]

    def taken(self, member=LEADER):
        """The requests sent since the last call, all of them to `member`."""
        sent, self.sent[:] = list(self.sent), []
        assert all(to == member for to, _ in sent)
        return [message for _, message in sent]

    def offsets(self, snapshot):
        """The chunks asked for since the last call, by number."""
        requests = self.taken()
        for request in requests:
            assert request.snapshot_id == snapshot.snapshot_id
            assert request.length == min(CHUNK_BYTES, snapshot.size - request.offset)
        return [request.offset // CHUNK_BYTES for request in requests]

    def give(self, snapshot, *numbers, member=LEADER):
        for number in numbers:
            self.puller.handle(member, chunk(snapshot, number))

    def begun(self, snapshot):
        """Started, and the first chunk has come; further ones are asked for."""
        self.puller.start(LEADER, at_least=1)
        assert self.taken() == [ANY]
        self.give(snapshot, 0)
        assert self.offsets(snapshot) == [1, 2, 3, 4]
        return self.sinks[-1]


@pytest.fixture
def harness():
    return Harness()


@pytest.fixture
def snapshot():
    return MemorySnapshot(content())


def chunk(snapshot, number):
    offset = number * CHUNK_BYTES
    data = snapshot.read(offset, min(CHUNK_BYTES, snapshot.size - offset))
    return SnapshotChunk(snapshot.snapshot_id, snapshot.index, snapshot.term, snapshot.size, offset, 0, data)


def test_chunks_are_pipelined_in_any_order(harness, snapshot, caplog):
    """At most PIPELINE are outstanding; the end comes when all are there, whichever is the last."""
    caplog.set_level(logging.INFO, "raft.snapshot")
    sink = harness.begun(snapshot)
    assert PIPELINE == 4
    harness.give(snapshot, 3)
    assert harness.offsets(snapshot) == [5]
    harness.give(snapshot, 1, 2)
    assert harness.offsets(snapshot) == [6]
    harness.clock.now += 1.5
    harness.give(snapshot, 6, 5)
    assert (harness.offsets(snapshot), harness.completed) == ([], [])
    harness.give(snapshot, 4)
    assert harness.completed == [(sink.directory, 10, 2)]
    assert (sink.is_finished, bytes(sink.content)) == (True, snapshot.content)
    assert (harness.puller.next_deadline(), harness.sent) == (None, [])
    size = len(snapshot.content)
    assert caplog.messages == [
        f"snapshot begins leader=a size={size} index=10",
        f"snapshot done bytes={size} seconds=1.500 index=10",
    ]


@pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_small_snapshots(harness, size):
    """Of one chunk, or two, whole or short."""
    snapshot = MemorySnapshot(content()[:size])
    harness.puller.start(LEADER, at_least=10)
    harness.give(snapshot, *range((size + CHUNK_BYTES - 1) // CHUNK_BYTES))
    assert len(harness.completed) == 1
    assert harness.sinks[0].content == snapshot.content


def test_start_again_with_the_same_leader_does_nothing(harness, snapshot):
    """Offers come with every heartbeat."""
    harness.puller.start(LEADER, at_least=1)
    harness.puller.start(LEADER, at_least=2)
    assert harness.taken() == [ANY]
    harness.give(snapshot, 0)
    harness.taken()
    harness.puller.start(LEADER, at_least=10)
    assert (harness.taken(), len(harness.sinks)) == ([], 1)


def test_lost_chunks_are_asked_for_again(harness, snapshot):
    """Each after its own CHUNK_TIMEOUT_S, again and again."""
    puller, clock = harness.puller, harness.clock
    begun_at = clock.now
    harness.begun(snapshot)
    assert puller.next_deadline() == begun_at + CHUNK_TIMEOUT_S
    clock.now += 1
    harness.give(snapshot, 2)
    assert harness.offsets(snapshot) == [5]
    clock.now = begun_at + CHUNK_TIMEOUT_S - 0.1
    puller.tick()
    assert harness.offsets(snapshot) == []
    for _ in range(2):
        clock.now = puller.next_deadline()
        puller.tick()
        assert harness.offsets(snapshot) == [1, 3, 4]
        clock.now = puller.next_deadline()
        puller.tick()
        assert harness.offsets(snapshot) == [5]


def test_lost_first_request_is_sent_again(harness):
    """Making a snapshot may take longer than that, too: the leader then has the request twice."""
    harness.puller.start(LEADER, at_least=1)
    harness.taken()
    harness.clock.now += CHUNK_TIMEOUT_S - 0.1
    harness.puller.tick()
    assert harness.taken() == []
    harness.clock.now += 0.1
    assert harness.puller.next_deadline() == harness.clock.now
    harness.puller.tick()
    assert harness.taken() == [ANY]
    assert harness.puller.next_deadline() == harness.clock.now + CHUNK_TIMEOUT_S


def wrong_chunks(snapshot):
    """Chunks that differ from the one at 1 in one field, by the field's name."""
    right = chunk(snapshot, 1)
    return {
        "id": replace(right, snapshot_id=b"y" * 16),
        "index": replace(right, index=11),
        "term": replace(right, term=3),
        "size": replace(right, size=right.size + 1),
        "offset between": replace(right, offset=CHUNK_BYTES + 1),
        "offset before": replace(right, offset=0),
        "offset behind": replace(right, offset=CHUNKS * CHUNK_BYTES),
        "offset not asked for yet": replace(right, offset=5 * CHUNK_BYTES),
        "offset below zero": replace(right, offset=-1),
        "too short": replace(right, data=right.data[:-1]),
        "too long": replace(right, data=right.data + b"!"),
        "empty": replace(right, data=b""),
    }


@pytest.mark.parametrize("kind", wrong_chunks(MemorySnapshot(content())))
def test_wrong_chunk_is_dropped(harness, snapshot, kind, caplog):
    """Whatever field it is: nothing of it is written, and the right one still counts."""
    caplog.set_level(logging.DEBUG, "raft.snapshot.puller")
    sink = harness.begun(snapshot)
    before = bytes(sink.content)
    harness.puller.handle(LEADER, wrong_chunks(snapshot)[kind])
    assert (sink.content, harness.sent) == (before, [])
    assert [record.levelname for record in caplog.records][1:] == ["DEBUG"]
    harness.give(snapshot, 1)
    assert harness.offsets(snapshot) == [5]
    assert len(sink.content) == 2 * CHUNK_BYTES


def test_duplicate_is_dropped(harness, snapshot):
    """What was taken is not written again, even when the second one differs."""
    sink = harness.begun(snapshot)
    harness.give(snapshot, 1)
    harness.taken()
    harness.puller.handle(LEADER, replace(chunk(snapshot, 1), data=bytes(CHUNK_BYTES)))
    assert sink.content == snapshot.content[: 2 * CHUNK_BYTES]
    assert harness.sent == []


@pytest.mark.parametrize("first", [{"snapshot_id": b""}, {"snapshot_id": b"x" * 17}, {"offset": 1}, {"size": 0}])
def test_first_chunk_that_begins_nothing_is_dropped(harness, snapshot, first):
    """A late one of another snapshot, or nonsense."""
    harness.puller.start(LEADER, at_least=1)
    harness.puller.handle(LEADER, replace(chunk(snapshot, 0), **first))
    assert harness.sinks == []
    harness.give(snapshot, 0)
    assert len(harness.sinks) == 1


def test_first_chunk_of_a_wrong_length_brings_a_request(harness, snapshot):
    """The snapshot is known then; the chunk itself is asked for again."""
    harness.puller.start(LEADER, at_least=1)
    harness.puller.handle(LEADER, replace(chunk(snapshot, 0), data=b"short"))
    harness.taken()
    assert harness.sinks[0].content == b""
    harness.clock.now += CHUNK_TIMEOUT_S
    harness.puller.tick()
    assert harness.offsets(snapshot) == [0, 1, 2, 3]


def test_transfer_that_began_wrong_is_given_up(harness, snapshot, caplog):
    """Its first chunk told a wrong size: no other one fits. Chunks that count keep a slow one alive."""
    puller, clock = harness.puller, harness.clock
    puller.start(LEADER, at_least=1)
    puller.handle(LEADER, replace(chunk(snapshot, 0), size=snapshot.size + 1))
    began_at = clock.now
    while harness.sinks[0].is_discarded is False:
        harness.taken()
        harness.give(snapshot, 1, 2, 3, 4)
        clock.now = puller.next_deadline()
        puller.tick()
    assert clock.now - began_at == STALL_S
    assert harness.taken() == [ANY]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    harness.give(snapshot, 0)
    for number in range(1, CHUNKS):
        clock.now += STALL_S - 1
        puller.tick()
        harness.give(snapshot, number)
    assert harness.sinks[1].content == snapshot.content


def test_others_are_not_listened_to(harness, snapshot):
    """Only the leader it is pulling from."""
    harness.give(snapshot, 0)
    assert harness.sinks == []
    harness.puller.start(LEADER, at_least=1)
    harness.give(snapshot, 0, member=OTHER)
    harness.puller.handle(OTHER, SnapshotGone(b"", "no"))
    assert (harness.sinks, harness.puller.next_deadline()) == ([], harness.clock.now + CHUNK_TIMEOUT_S)


def test_snapshot_that_is_too_old_is_not_fetched(harness, snapshot):
    """It ends before the leader's log begins; another one is asked for, after a pause."""
    harness.puller.start(LEADER, at_least=11)
    harness.taken()
    harness.give(snapshot, 0)
    assert (harness.sinks, harness.sent, harness.puller.next_deadline()) == ([], [], harness.clock.now + RETRY_S)
    harness.clock.now += RETRY_S
    harness.puller.tick()
    assert harness.taken() == [ANY]
    newer = MemorySnapshot(content(1), number=2, index=11)
    harness.give(newer, 0)
    assert harness.offsets(newer) == [1, 2, 3, 4]


def test_snapshot_that_became_too_old_is_given_up(harness, snapshot):
    """The leader's log now begins behind it."""
    sink = harness.begun(snapshot)
    harness.puller.start(LEADER, at_least=10)
    assert not sink.is_discarded
    harness.puller.start(LEADER, at_least=11)
    assert (sink.is_discarded, harness.taken()) == (True, [ANY])
    harness.give(snapshot, 1, 0)
    assert len(harness.sinks) == 1
    assert harness.puller.next_deadline() is not None


def test_snapshot_that_is_gone_is_given_up(harness, snapshot):
    """The leader has let it go, or was another process meanwhile; another one is asked for, after a pause."""
    sink = harness.begun(snapshot)
    harness.puller.handle(LEADER, SnapshotGone(b"z" * 16, "of an earlier one"))
    harness.puller.handle(LEADER, SnapshotGone(b"", "of an earlier request"))
    assert not sink.is_discarded
    harness.puller.handle(LEADER, SnapshotGone(snapshot.snapshot_id, "gone"))
    assert (sink.is_discarded, harness.sent) == (True, [])
    assert harness.puller.next_deadline() == harness.clock.now + RETRY_S
    harness.clock.now += RETRY_S
    harness.puller.tick()
    assert harness.taken() == [ANY]


def test_leader_that_has_none_is_asked_again(harness):
    """It could not make one: after a pause it may."""
    harness.puller.start(LEADER, at_least=1)
    harness.taken()
    for _ in range(2):
        harness.puller.handle(LEADER, SnapshotGone(b"", "it could not be made: no space"))
        harness.puller.tick()
        assert harness.sent == []
        harness.clock.now += RETRY_S
        harness.puller.tick()
        assert harness.taken() == [ANY]


def test_goes_on_with_the_same_leader(harness, snapshot):
    """It was unreachable: what was outstanding is asked for again, what was fetched is not."""
    sink = harness.begun(snapshot)
    harness.give(snapshot, 2)
    harness.taken()
    harness.clock.now += STALL_S - 1
    harness.puller.start(LEADER, at_least=10)
    assert harness.sent == []
    harness.puller.tick()
    assert harness.offsets(snapshot) == [1, 3, 4, 5]
    harness.give(snapshot, 1, 3, 4, 5, 6)
    assert harness.completed == [(sink.directory, 10, 2)]
    assert sink.content == snapshot.content


def test_another_leader_begins_anew(harness, snapshot):
    """It has no snapshot of that id; late chunks of the old one do not count."""
    sink = harness.begun(snapshot)
    harness.puller.start(OTHER, at_least=1)
    assert (sink.is_discarded, harness.taken(OTHER)) == (True, [ANY])
    harness.give(snapshot, 1)
    newer = MemorySnapshot(content(1), number=2)
    harness.give(newer, 0, member=OTHER)
    assert harness.sinks[1].content == newer.content[:CHUNK_BYTES]


def test_closing_removes_what_was_fetched(harness, snapshot):
    """The process ends."""
    sink = harness.begun(snapshot)
    harness.puller.close()
    assert (sink.is_discarded, harness.puller.next_deadline()) == (True, None)
    harness.puller.close()


@pytest.mark.parametrize("when", ["open", "first write", "later write", "finish"])
def test_disk_error_ends_the_pull(harness, snapshot, when, caplog):
    """Logged once; offers start it again, but not many times a second."""
    full = OSError(errno.ENOSPC, "No space left on device")
    if when == "open":
        harness.open_error = full
    harness.write_error = full if when == "first write" else None
    harness.puller.start(LEADER, at_least=1)
    harness.give(snapshot, 0)
    if when == "later write":
        harness.sinks[0].write_error = full
        harness.give(snapshot, 1)
    if when == "finish":
        harness.sinks[0].finish_error = full
        harness.give(snapshot, 1, 2, 3, 4, 5, 6)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "No space left on device" in caplog.text
    assert [sink.is_discarded for sink in harness.sinks] == ([] if when == "open" else [True])
    assert (harness.puller.next_deadline(), harness.completed) == (None, [])
    harness.puller.start(LEADER, at_least=1)
    assert harness.puller.next_deadline() is None
    harness.clock.now += DISK_RETRY_S
    harness.puller.start(LEADER, at_least=1)
    assert harness.puller.next_deadline() is not None


def test_next_pull_after_a_complete_one(harness, snapshot):
    """Nothing of the first is left."""
    harness.begun(snapshot)
    harness.give(snapshot, 1, 2, 3, 4, 5, 6)
    harness.taken()
    harness.puller.start(LEADER, at_least=20)
    assert harness.taken() == [ANY]
    newer = MemorySnapshot(content(1), number=2, index=20)
    harness.give(newer, *range(CHUNKS))
    assert [(index, term) for _, index, term in harness.completed] == [(10, 2), (20, 2)]
    assert harness.sinks[1].content == newer.content
