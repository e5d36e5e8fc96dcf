"""Covers raft/journal/log.py: what PySyncObj does to the log, what is recorded of it, and what counts as durable."""

from pathlib import Path

import pytest

from raft.constants import ENTRY_MAX_BYTES
from raft.errors import InvariantError
from raft.journal.log import BASE_COMMAND, ENTRY_OVERHEAD_BYTES, Log
from raft.journal.record import Entry, Reset, State, Trim, Truncate, Vote, decode_records


def entries(first: int, last: int, term: int) -> list[tuple[bytes, int, int]]:
    return [(f"{index}.{term}".encode(), index, term) for index in range(first, last + 1)]


def log_with(first: int, last: int, term: int) -> Log:
    """A log whose entries are all on stable storage."""
    return Log(entries(first, last, term), term=term)


def sync(log: Log) -> list[object]:
    """Take and finish a group; its records."""
    group = log.take()
    if group is None:
        return []
    log.done(group)
    data = b"".join(group.parts)
    assert group.record_bytes == len(data)
    return list(decode_records(data, len(data), file=Path("none"), offset=0))


def receive(log: Log, previous: int, new: list[tuple[bytes, int, int]]) -> int:
    """Handle an append as PySyncObj does: cut behind `previous`, add; the last index it sees."""
    log.begin_append()
    position = previous - log[0][1] + 1
    if position < len(log):
        log.deleteEntriesFrom(position)
    for entry in new:
        log.add(*entry)
    last = log[-1][1]
    log.end_append()
    return last


def indexes(log: Log) -> list[tuple[int, int]]:
    return [(index, term) for _, index, term in log[:]]


def test_entries_are_kept_uncopied_and_recorded():
    """The command given is the command held and the command written."""
    log = Log()
    command = b"\0" + bytes(100)
    log.add(command, 1, 0)
    assert len(log) == 1
    assert log[-1] is log[0]
    assert log[0][0] is command
    group = log.take()
    assert group is not None
    assert any(part is command for part in group.parts)


def test_positions_and_slices():
    """PySyncObj reads by position and by slice, from the first entry held."""
    log = log_with(5, 9, 1)
    assert (log[0][1], log[-1][1], len(log)) == (5, 9, 5)
    assert [entry[1] for entry in log[1:3]] == [6, 7]
    assert [entry[1] for entry in log[4:]] == [9]
    assert log[5:] == []


@pytest.mark.parametrize(
    ("index", "term", "command"),
    [(4, 2, b""), (6, 2, b""), (3, 2, b""), (5, 1, b""), (5, 2, bytes(ENTRY_MAX_BYTES + 1))],
    ids=["same index", "gap", "backwards", "term falls", "too large"],
)
def test_entry_that_does_not_follow_is_refused(index, term, command):
    """Indexes grow by one, terms never fall, and entries are bounded."""
    log = log_with(1, 4, 2)
    with pytest.raises(InvariantError):
        log.add(command, index, term)
    assert not log.is_dirty


def test_empty_log_begins_with_entry_1():
    """Another beginning is a reset, which has placeholders."""
    with pytest.raises(InvariantError, match="allowed: 1"):
        Log().add(b"", 2, 0)


class TestConflictOnlyTruncation:
    """Raft paper, section 5.3: an append deletes entries only where it contradicts them."""

    def test_older_append_keeps_the_tail(self):
        """An overlapping append that arrives late cuts nothing off, and PySyncObj sees only what it carried."""
        log = log_with(1, 10, 1)
        assert receive(log, 1, entries(2, 4, 1)) == 4
        assert indexes(log) == [(index, 1) for index in range(1, 11)]
        assert log.durable_index == 10
        assert not log.is_dirty

    def test_heartbeat_keeps_the_tail(self):
        """An empty append in the middle of the log cuts nothing off."""
        log = log_with(1, 10, 1)
        assert receive(log, 2, []) == 2
        assert log[-1][1] == 10
        assert log.durable_index == 10
        assert not log.is_dirty

    def test_held_entry_is_kept_not_the_one_received(self):
        """The same index and term is the same entry: what is on disk stays what is in memory."""
        log = log_with(1, 3, 1)
        held = log[2]
        receive(log, 2, [(b"".join([held[0]]), 3, 1)])
        assert log[2] is held

    def test_conflict_truncates(self):
        """From the first contradicted entry on everything goes, in memory and on disk, and is not durable any more."""
        log = log_with(1, 10, 1)
        assert receive(log, 4, [*entries(5, 6, 1), *entries(7, 8, 2)]) == 8
        assert indexes(log) == [*((index, 1) for index in range(1, 7)), (7, 2), (8, 2)]
        assert log.durable_index == 6
        assert sync(log) == [Truncate(7), Entry(7, 2, b"7.2"), Entry(8, 2, b"8.2")]
        assert log.durable_index == 8

    def test_conflict_at_the_first_entry(self):
        """An append that contradicts at once replaces the whole tail."""
        log = log_with(1, 10, 1)
        receive(log, 3, entries(4, 4, 3))
        assert indexes(log) == [(1, 1), (2, 1), (3, 1), (4, 3)]
        assert sync(log) == [Truncate(4), Entry(4, 3, b"4.3")]

    def test_append_beyond_the_tail_only_adds(self):
        """Entries held already, then new ones: nothing is truncated."""
        log = log_with(1, 5, 1)
        assert receive(log, 3, entries(4, 8, 1)) == 8
        assert sync(log) == [Entry(index, 1, f"{index}.1".encode()) for index in (6, 7, 8)]
        assert log.durable_index == 8

    def test_shorter_append_after_a_longer_one(self):
        """A message sent twice in different cuts leaves the longer log: the case that loses acked entries otherwise."""
        log = log_with(1, 2, 1)
        receive(log, 2, entries(3, 6, 1))
        sync(log)
        receive(log, 2, entries(3, 4, 1))
        assert log[-1][1] == 6
        assert log.durable_index == 6

    def test_appends_follow_one_another(self):
        """Nothing of an append remains for the next one."""
        log = log_with(1, 6, 1)
        receive(log, 2, [])
        receive(log, 4, entries(5, 5, 2))
        receive(log, 5, entries(6, 7, 2))
        assert indexes(log)[3:] == [(4, 1), (5, 2), (6, 2), (7, 2)]

    def test_memory_is_counted_once(self):
        """Entries set aside and put back change no count; those truncated are subtracted."""
        log = log_with(1, 10, 1)
        before = log.bytes_in_memory
        receive(log, 2, [])
        assert log.bytes_in_memory == before
        receive(log, 2, entries(3, 3, 2))
        assert log.bytes_in_memory == 3 * (3 + ENTRY_OVERHEAD_BYTES)

    def test_deletion_outside_an_append_is_a_truncation(self):
        """Whoever deletes without the bracket means it."""
        log = log_with(1, 5, 1)
        log.deleteEntriesFrom(3)
        assert sync(log) == [Truncate(4)]
        assert (log[-1][1], log.durable_index) == (3, 3)

    @pytest.mark.parametrize("position", [0, 6])
    def test_log_is_never_emptied_by_truncation(self, position):
        """The first entry is the base of every comparison."""
        with pytest.raises(InvariantError):
            log_with(1, 5, 1).deleteEntriesFrom(position)


class TestDurability:
    """What is durable follows the groups, one at a time."""

    def test_group_holds_what_came_before_take(self):
        """What is added while a group is under way waits for the next."""
        log = Log()
        log.add(b"a", 1, 0)
        first = log.take()
        assert first is not None
        log.add(b"b", 2, 0)
        log.setCurrentTerm(1, "n1")
        assert (log.lsn, log.synced, log.durable_index) == (3, 0, 0)
        log.done(first)
        assert (log.synced, log.durable_index) == (1, 1)
        assert sync(log) == [Entry(2, 0, b"b"), Vote(1, "n1")]
        assert (log.lsn, log.synced, log.durable_index) == (3, 3, 2)
        assert log.take() is None

    def test_truncated_while_under_way(self):
        """A group that ends after its last entries were truncated does not make their successors durable."""
        log = log_with(1, 3, 1)
        log.add(b"4", 4, 1)
        log.add(b"5", 5, 1)
        group = log.take()
        assert group is not None
        receive(log, 3, entries(4, 6, 2))
        log.done(group)
        assert log.durable_index == 3
        sync(log)
        assert log.durable_index == 6

    def test_reset_while_under_way(self):
        """After a reset nothing is durable until it is."""
        log = log_with(1, 3, 1)
        log.add(b"4", 4, 1)
        group = log.take()
        assert group is not None
        log.reset(50, 3, 2)
        log.done(group)
        assert log.durable_index == 0
        sync(log)
        assert log.durable_index == 50

    def test_recovered_entries_are_durable(self):
        """A log begins with what was read from the disk."""
        log = Log(entries(4, 8, 2), term=3, voted_for="n2")
        assert (log.durable_index, log.lsn, log.synced, log.is_dirty) == (8, 0, 0, False)
        assert (log.getCurrentTerm(), log.getVotedForNodeId()) == (3, "n2")

    def test_group_says_what_was_before_it(self):
        """A new file begins with the state ahead of the group."""
        log = log_with(5, 8, 2)
        log.setCurrentTerm(4, "n3")
        first = log.take()
        assert first is not None
        assert first.before == State(2, None, 5, 9)
        log.done(first)
        log.trim(7)
        log.add(b"x", 9, 4)
        second = log.take()
        assert second is not None
        assert second.before == State(4, "n3", 5, 9)
        assert (second.first_index, second.last_index) == (7, 9)


class TestTermAndVote:
    """Term and vote are records like entries (Raft paper, figure 2: persistent state)."""

    def test_vote_is_recorded_once(self):
        """A repeated note writes nothing."""
        log = Log()
        log.setCurrentTerm(3, None)
        log.setCurrentTerm(3, "n1")
        log.setCurrentTerm(3, "n1")
        assert sync(log) == [Vote(3, None), Vote(3, "n1")]

    def test_term_never_falls(self):
        """A lower term would allow a second vote."""
        log = Log(term=5)
        with pytest.raises(InvariantError):
            log.setCurrentTerm(4, None)

    def test_commit_index_is_not_kept(self):
        """The store knows what is applied; the journal claims no more than entry 1."""
        log = log_with(1, 5, 1)
        log.setRaftCommitIndex(5)
        assert log.getRaftCommitIndex() == 1
        assert not log.is_dirty


class TestReset:
    """A snapshot replaces the log in one record, so that no crash leaves half of it."""

    def test_reset_is_one_record(self):
        """Two placeholders stand for the last entries of the snapshot."""
        log = log_with(1, 9, 1)
        log.reset(40, 5, 4)
        assert log[:] == [(BASE_COMMAND, 39, 4), (BASE_COMMAND, 40, 5)]
        group = log.take()
        assert group is not None
        assert (group.is_reset, group.first_index, group.last_index) == (True, 39, 40)
        assert list(decode_records(b"".join(group.parts), group.record_bytes, file=Path(), offset=0)) == [
            Reset(40, 5, 4)
        ]

    def test_clear_and_two_adds_are_one_reset(self):
        """As PySyncObj installs a snapshot: the contents it adds are replaced by placeholders."""
        log = log_with(1, 9, 1)
        log.clear()
        log.add(b"\0content", 39, 4)
        log.add(b"\0content", 40, 5)
        assert log[:] == [(BASE_COMMAND, 39, 4), (BASE_COMMAND, 40, 5)]
        assert sync(log) == [Reset(40, 5, 4)]
        log.add(b"next", 41, 5)
        assert sync(log) == [Entry(41, 5, b"next")]

    def test_half_a_reset_cannot_be_taken(self):
        """Between clear and the second add there is no log to write."""
        log = log_with(1, 9, 1)
        log.clear()
        with pytest.raises(AssertionError):
            log.take()

    def test_placeholder_survives_an_append_of_the_same_entry(self):
        """An append that repeats the base leaves the placeholder: its content is in the store."""
        log = log_with(1, 3, 1)
        log.reset(40, 5, 4)
        receive(log, 39, [(b"\0content", 40, 5), (b"next", 41, 5)])
        assert log[1] == (BASE_COMMAND, 40, 5)
        assert log[2] == (b"next", 41, 5)

    @pytest.mark.parametrize(("index", "term", "prev_term"), [(0, 1, 1), (5, 1, 2)])
    def test_impossible_reset_is_refused(self, index, term, prev_term):
        """There is no entry 0 to stand behind, and terms never fall."""
        with pytest.raises(InvariantError):
            Log().reset(index, term, prev_term)


class TestTrim:
    """The front of the log goes when the store has it."""

    def test_trim_forgets_what_is_below(self):
        """The entry named stays; memory is given back."""
        log = log_with(1, 9, 1)
        log.trim(5)
        assert indexes(log)[0] == (5, 1)
        assert log.bytes_in_memory == 5 * (3 + ENTRY_OVERHEAD_BYTES)

    def test_two_entries_always_stay(self):
        """PySyncObj reads the last two."""
        log = log_with(1, 9, 1)
        log.trim(1000)
        assert indexes(log) == [(8, 1), (9, 1)]
        log.trim(3)
        assert len(log) == 2

    def test_trim_rides_with_the_next_group(self):
        """A trim on its own starts no write; the next group carries the last one only."""
        log = log_with(1, 9, 1)
        log.trim(3)
        log.trim(5)
        assert not log.is_dirty
        assert log.take() is None
        log.add(b"x", 10, 1)
        assert sync(log) == [Entry(10, 1, b"x"), Trim(5)]
        log.add(b"y", 11, 1)
        assert sync(log) == [Entry(11, 1, b"y")]

    def test_deletion_to_a_position_is_a_trim(self):
        """PySyncObj's name for it."""
        log = log_with(5, 9, 1)
        log.deleteEntriesTo(2)
        assert log[0][1] == 7

    def test_reset_makes_a_trim_obsolete(self):
        """A trim not written yet is not written after the reset."""
        log = log_with(1, 9, 1)
        log.trim(5)
        log.reset(40, 5, 4)
        assert sync(log) == [Reset(40, 5, 4)]
