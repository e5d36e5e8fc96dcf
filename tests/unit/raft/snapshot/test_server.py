"""Covers raft/snapshot/server.py: who gets which snapshot, how long it lives, and what makes no sense."""

import logging

import google_crc32c
import pytest

from raft.messages import SnapshotChunk, SnapshotGone, SnapshotRequest
from raft.snapshot.server import CHUNK_MAX_BYTES, IDLE_S, REUSE_S, SnapshotServer
from tests.unit.raft.snapshot.fakes import FOLLOWER, OTHER, Clock, MemorySnapshot

ANY = SnapshotRequest(b"", 0, 4)
UNKNOWN = b"x" * 16


class Harness:
    """A server; what it sends, and the snapshots it wants made."""

    def __init__(self):
        self.clock, self.sent, self.creations = Clock(), [], []
        self.server = SnapshotServer(
            create=self.creations.append,
            send=lambda member, message: self.sent.append((member, message)),
            clock=self.clock,
        )

    def made(self, snapshot):
        """The oldest creation that is under way ends with `snapshot`, or with an error."""
        self.creations.pop(0)(snapshot)
        return snapshot

    def asked(self, member, request):
        """The answers to `request` alone."""
        self.sent.clear()
        self.server.handle(member, request)
        return [message for to, message in self.sent if to == member]

    def with_snapshot(self, **options):
        """Made for FOLLOWER, who was answered."""
        self.server.handle(FOLLOWER, ANY)
        return self.made(MemorySnapshot(**options))


@pytest.fixture
def harness():
    return Harness()


def chunk(snapshot, offset, length):
    data = snapshot.content[offset : offset + length]
    checksum = google_crc32c.value(data)
    return SnapshotChunk(snapshot.snapshot_id, snapshot.index, snapshot.term, snapshot.size, offset, checksum, data)


def test_first_request_makes_a_snapshot_and_all_waiting_get_it(harness):
    """One is made at a time; of one member's requests the newest is answered."""
    harness.server.handle(FOLLOWER, ANY)
    harness.server.handle(OTHER, ANY)
    harness.server.handle(FOLLOWER, SnapshotRequest(b"", 0, 3))
    assert (len(harness.creations), harness.sent) == (1, [])
    snapshot = harness.made(MemorySnapshot())
    assert harness.sent == [(FOLLOWER, chunk(snapshot, 0, 3)), (OTHER, chunk(snapshot, 0, 4))]


def test_chunks_are_read_where_asked(harness):
    """The last one is as long as what is left; any may be asked for again."""
    snapshot = harness.with_snapshot()
    for offset, length in ((4, 4), (8, 4), (8, 2), (0, 4), (9, CHUNK_MAX_BYTES)):
        request = SnapshotRequest(snapshot.snapshot_id, offset, length)
        assert harness.asked(FOLLOWER, request) == [chunk(snapshot, offset, length)]


@pytest.mark.parametrize(
    ("offset", "length"), [(10, 1), (11, 1), (2**63, 1), (-1, 1), (0, 0), (0, -1), (0, CHUNK_MAX_BYTES + 1)]
)
@pytest.mark.parametrize("has_id", [True, False])
def test_piece_that_cannot_be_is_refused(harness, caplog, offset, length, has_id):
    """Outside data: nothing is read, and nobody is alarmed."""
    snapshot = harness.with_snapshot()
    caplog.set_level(logging.DEBUG, "raft.snapshot")
    snapshot.error = AssertionError("it was read")
    request = SnapshotRequest(snapshot.snapshot_id if has_id else b"", offset, length)
    (gone,) = harness.asked(FOLLOWER, request)
    assert gone == SnapshotGone(request.snapshot_id, f"no such piece: offset {offset}, length {length}")
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert not snapshot.is_closed


@pytest.mark.parametrize("snapshot_id", [b"x", b"x" * 15, b"x" * 17])
def test_id_of_another_length_is_refused(harness, snapshot_id):
    """Nothing is made for it."""
    assert [type(one) for one in harness.asked(FOLLOWER, SnapshotRequest(snapshot_id, 0, 1))] == [SnapshotGone]
    assert harness.creations == []


def test_unknown_snapshot_is_gone(harness):
    """Before there is one, and when there is another; nothing is made for it."""
    gone = [SnapshotGone(UNKNOWN, "there is no such snapshot here")]
    assert harness.asked(FOLLOWER, SnapshotRequest(UNKNOWN, 0, 1)) == gone
    assert harness.creations == []
    harness.with_snapshot()
    assert harness.asked(FOLLOWER, SnapshotRequest(UNKNOWN, 0, 1)) == gone


def test_known_snapshot_is_served_while_the_next_is_made(harness):
    """Who fetches the old one goes on until the new one is there."""
    old = harness.with_snapshot()
    harness.clock.now += REUSE_S
    assert harness.asked(FOLLOWER, ANY) == []
    assert len(harness.asked(FOLLOWER, SnapshotRequest(old.snapshot_id, 4, 4))) == 1
    assert harness.asked(OTHER, ANY) == []  # a new one comes: it begins with that
    harness.sent.clear()
    new = harness.made(MemorySnapshot(number=2, index=20))
    assert (old.is_closed, new.is_closed) == (True, False)
    assert [message.snapshot_id for _, message in harness.sent] == [new.snapshot_id] * 2


def test_young_snapshot_is_reused(harness):
    """Another member, or the same one once more, gets what was made less than REUSE_S ago."""
    snapshot = harness.with_snapshot()
    harness.clock.now += REUSE_S - 0.1
    for member in (OTHER, FOLLOWER):
        assert harness.asked(member, ANY) == [chunk(snapshot, 0, 4)]
    assert harness.creations == []


def test_old_snapshot_is_reused_while_somebody_else_fetches_it(harness):
    """Not for the one that fetches it itself: it begins anew because this one did not serve it."""
    snapshot = harness.with_snapshot()
    harness.clock.now += REUSE_S
    assert harness.asked(OTHER, ANY) == [chunk(snapshot, 0, 4)]
    harness.asked(OTHER, SnapshotRequest(snapshot.snapshot_id, 6, 4))  # the end: OTHER has it
    assert harness.asked(FOLLOWER, ANY) == []
    assert len(harness.creations) == 1


def test_snapshot_that_was_fetched_to_its_end_is_not_reused(harness):
    """Then nobody fetches it any more."""
    snapshot = harness.with_snapshot()
    harness.asked(FOLLOWER, SnapshotRequest(snapshot.snapshot_id, 8, 4))
    harness.clock.now += REUSE_S
    assert harness.asked(OTHER, ANY) == []
    assert len(harness.creations) == 1


def test_nobody_fetches_when_the_last_request_is_long_ago(harness):
    """A member that vanished keeps no snapshot alive, though another one's requests do."""
    snapshot = harness.with_snapshot()
    harness.clock.now += IDLE_S - 1
    harness.asked(OTHER, SnapshotRequest(snapshot.snapshot_id, 0, 10))
    harness.clock.now += 1
    assert harness.asked(OTHER, ANY) == []
    assert len(harness.creations) == 1


def test_idle_snapshot_is_closed(harness):
    """IDLE_S after the last request, whoever's; later requests for it are told."""
    server, clock = harness.server, harness.clock
    assert server.next_deadline() is None
    server.tick()
    snapshot = harness.with_snapshot()
    clock.now += 5
    harness.asked(FOLLOWER, SnapshotRequest(snapshot.snapshot_id, 4, 4))
    assert server.next_deadline() == clock.now + IDLE_S
    clock.now += IDLE_S - 0.1
    server.tick()
    assert (snapshot.is_closed, server.lowest_index()) == (False, 10)
    clock.now += 0.1
    server.tick()
    assert (snapshot.is_closed, server.lowest_index(), server.next_deadline()) == (True, None, None)
    assert [type(one) for one in harness.asked(FOLLOWER, SnapshotRequest(snapshot.snapshot_id, 0, 4))] == [SnapshotGone]


def test_log_is_held_while_a_snapshot_is_made_and_fetched(harness):
    """Its index is unknown while it is made: then the log keeps all it has."""
    server = harness.server
    assert server.lowest_index() is None
    server.renew_below(7)
    assert server.lowest_index() is None
    server.handle(FOLLOWER, ANY)
    assert server.lowest_index() == 7
    harness.made(MemorySnapshot(index=10))
    assert server.lowest_index() == 10
    harness.clock.now += REUSE_S
    server.handle(FOLLOWER, ANY)  # the next one
    assert server.lowest_index() == 7
    harness.made(MemorySnapshot(number=2, index=12))
    assert server.lowest_index() == 12


def test_snapshot_before_the_log_is_dropped(harness):
    """It leads nowhere; one that ends where the log begins does."""
    snapshot = harness.with_snapshot(index=10)
    harness.server.renew_below(10)
    assert not snapshot.is_closed
    harness.server.renew_below(11)
    assert snapshot.is_closed
    request = SnapshotRequest(snapshot.snapshot_id, 4, 4)
    assert harness.asked(FOLLOWER, request) == [SnapshotGone(snapshot.snapshot_id, "there is no such snapshot here")]
    harness.asked(FOLLOWER, ANY)
    assert len(harness.creations) == 1


def test_snapshot_that_is_too_old_when_made_is_not_served(harness):
    """Those who wait are told, and the next request makes another."""
    harness.server.handle(FOLLOWER, ANY)
    harness.server.renew_below(11)
    assert harness.made(MemorySnapshot(index=10)).is_closed
    assert harness.sent == [(FOLLOWER, SnapshotGone(b"", "it was too old when it was made"))]
    harness.server.handle(FOLLOWER, ANY)
    assert len(harness.creations) == 1


def test_failed_creation_is_told_to_all_and_logged(harness, caplog):
    """The reason reaches who waits; the next request tries again."""
    harness.server.handle(FOLLOWER, ANY)
    harness.server.handle(OTHER, ANY)
    harness.made(OSError(28, "No space left on device"))
    reason = "it could not be made: [Errno 28] No space left on device"
    assert harness.sent == [(FOLLOWER, SnapshotGone(b"", reason)), (OTHER, SnapshotGone(b"", reason))]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "No space left on device" in caplog.text
    assert harness.server.lowest_index() is None
    harness.server.handle(FOLLOWER, ANY)
    assert len(harness.creations) == 1


def test_failed_creation_keeps_the_old_snapshot(harness):
    """Who fetches it goes on."""
    snapshot = harness.with_snapshot()
    harness.clock.now += REUSE_S
    harness.server.handle(FOLLOWER, ANY)
    harness.made(OSError("no"))
    assert len(harness.asked(FOLLOWER, SnapshotRequest(snapshot.snapshot_id, 4, 4))) == 1


def test_unreadable_snapshot_is_dropped(harness, caplog):
    """The members begin anew; the disk's error is logged."""
    snapshot = harness.with_snapshot()
    snapshot.error = OSError(5, "Input/output error")
    reason = "it could not be read: [Errno 5] Input/output error"
    request = SnapshotRequest(snapshot.snapshot_id, 4, 4)
    assert harness.asked(FOLLOWER, request) == [SnapshotGone(snapshot.snapshot_id, reason)]
    assert snapshot.is_closed
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_snapshot_that_is_unreadable_at_once_is_told_to_all_waiting(harness):
    """Each gets its answer."""
    harness.server.handle(FOLLOWER, ANY)
    harness.server.handle(OTHER, ANY)
    snapshot = MemorySnapshot()
    snapshot.error = OSError(5, "Input/output error")
    harness.made(snapshot)
    assert [(to, type(message)) for to, message in harness.sent] == [(FOLLOWER, SnapshotGone), (OTHER, SnapshotGone)]
    assert snapshot.is_closed


def test_closing_closes_the_snapshot(harness):
    """Nothing is answered or made any more."""
    snapshot = harness.with_snapshot()
    harness.server.close()
    assert snapshot.is_closed
    assert harness.asked(FOLLOWER, SnapshotRequest(snapshot.snapshot_id, 0, 1)) == []
    assert harness.asked(FOLLOWER, ANY) == []
    assert (harness.creations, harness.server.next_deadline(), harness.server.lowest_index()) == ([], None, None)


@pytest.mark.parametrize("result", [MemorySnapshot(), OSError("no")])
def test_snapshot_that_is_made_after_closing_is_closed(harness, result):
    """It is in nobody's way."""
    harness.server.handle(FOLLOWER, ANY)
    harness.server.close()
    harness.made(result)
    assert harness.sent == []
    assert isinstance(result, OSError) or result.is_closed


def test_creation_may_end_at_once(harness):
    """From inside `create`: a fake, or a store in memory."""
    snapshot = MemorySnapshot()
    server = SnapshotServer(
        create=lambda done: done(snapshot), send=lambda *sent: harness.sent.append(sent), clock=harness.clock
    )
    server.handle(FOLLOWER, ANY)
    assert harness.sent == [(FOLLOWER, chunk(snapshot, 0, 4))]
