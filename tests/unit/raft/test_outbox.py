"""Covers raft/outbox.py."""

import pytest

from raft.messages import (
    AppendResponse,
    PreVoteRequest,
    PreVoteResponse,
    SnapshotGone,
    SnapshotOffer,
    SnapshotRequest,
    TermNotice,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.outbox import Outbox
from tests.unit.raft.cores import append, member, success

B, C = member("b"), member("c")
ASSERTING = [success(1, 5, 1), VoteRequest(1, 5, 1, is_forced=False), VoteResponse(1)]
OTHERS = [
    append(1),
    PreVoteRequest(1, 5, 1),
    PreVoteResponse(1),
    TermNotice(1),
    TimeoutNow(1),
    SnapshotOffer(1, 1, 5, 1),
    SnapshotRequest(b"", 0, 1),
    SnapshotGone(b"", "none"),
]


class Disk:
    """A box on a disk that syncs when told to."""

    def __init__(self):
        self.sent, self.synced = [], 0
        self.box = Outbox(send=lambda to, message: self.sent.append((to, message)), synced=lambda: self.synced)

    def sync(self, lsn):
        self.synced = lsn
        self.box.flush()


def name_of(message):
    return type(message).__name__


@pytest.mark.parametrize("message", ASSERTING, ids=name_of)
def test_what_asserts_the_disk_waits_for_it(message):
    """Raft paper, section 5.1; section 4.4: votes, requests for them and answers to appends leave behind the sync."""
    disk = Disk()
    assert not disk.box.put(B, message, 3)
    disk.sync(2)
    assert disk.sent == []
    disk.sync(3)
    assert disk.sent == [(B, message)]
    disk.sync(9)
    assert len(disk.sent) == 1


@pytest.mark.parametrize("message", ASSERTING, ids=name_of)
def test_what_is_synced_already_leaves_at_once(message):
    """Nothing waits for records made after it."""
    disk = Disk()
    disk.synced = 3
    assert disk.box.put(B, message, 3)
    assert disk.sent == [(B, message)]


@pytest.mark.parametrize("message", OTHERS, ids=name_of)
def test_what_asserts_nothing_leaves_at_once(message):
    """Section 4.4: the leader's disk and those of its followers work at the same time."""
    disk = Disk()
    assert disk.box.put(B, message, 99)
    assert disk.sent == [(B, message)]


def test_what_follows_to_the_same_member_waits_behind():
    """First in, first out per member, even what asserts nothing; other members wait for nothing."""
    disk = Disk()
    first, second, third, last = success(1, 5, 1), append(1), success(1, 6, 2), PreVoteResponse(1)
    for message, lsn in ((first, 3), (second, 3), (third, 5), (last, 5)):
        assert not disk.box.put(B, message, lsn)
    assert disk.box.put(C, append(2), 5)
    assert not disk.box.put(C, success(1, 9, 1), 4)
    disk.sent.clear()
    disk.sync(3)
    assert disk.sent == [(B, first), (B, second)]
    disk.sync(4)
    assert disk.sent[2:] == [(C, success(1, 9, 1))]
    disk.sync(5)
    assert disk.sent[3:] == [(B, third), (B, last)]
    assert disk.box.put(B, append(3), 5)


def test_dropped_member_gets_nothing_of_before():
    """What waited for a link that is gone is meant for another time; others are not concerned."""
    disk = Disk()
    disk.box.put(B, VoteResponse(1), 3)
    disk.box.put(C, VoteResponse(1), 3)
    disk.box.drop(B)
    disk.box.drop(B)
    disk.sync(3)
    assert disk.sent == [(C, VoteResponse(1))]


def test_message_put_while_flushing_keeps_its_place():
    """A send that puts another message, as a loop of a test network does, neither loses nor overtakes any."""
    sent, synced = [], [0]

    def send(to, message):
        sent.append(message)
        if message == success(1, 5, 1):
            box.put(B, TermNotice(9), 0)

    box = Outbox(send=send, synced=lambda: synced[0])
    for message in (success(1, 5, 1), success(1, 6, 2)):
        box.put(B, message, 1)
    synced[0] = 1
    box.flush()
    assert sent == [success(1, 5, 1), success(1, 6, 2), TermNotice(9)]


def test_only_answers_tell_what_is_durable():
    """The list above is complete: a new kind of message must be put on one side."""
    assert {type(message) for message in ASSERTING} == {AppendResponse, VoteRequest, VoteResponse}
