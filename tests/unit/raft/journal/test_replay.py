"""Covers raft/journal/replay.py: records change the log they were recorded for."""

from raft.journal.log import BASE_COMMAND
from raft.journal.record import Entry, Reset, State, Trim, Truncate, Vote
from raft.journal.replay import ReplayedLog


def replayed(*records, begin: State | None = None) -> ReplayedLog:
    log = ReplayedLog()
    assert begin is None or log.begin(begin) is None
    for record in records:
        assert log.apply(record) is None, record
    return log


def indexes(log: ReplayedLog) -> list[tuple[int, int]]:
    return [(index, term) for _, index, term in log.entries]


def test_entries_and_truncation():
    """A truncated entry is replaced by its successor."""
    log = replayed(Entry(1, 1, b"a"), Entry(2, 1, b"b"), Entry(3, 1, b"c"), Truncate(2), Entry(2, 2, b"d"))
    assert log.entries == [(b"a", 1, 1), (b"d", 2, 2)]
    assert (log.first_index, log.next_index, log.start_index) == (1, 3, 1)


def test_vote_replaces_the_one_before():
    """The last vote counts."""
    log = replayed(Vote(2, None), Vote(2, "n1"), Vote(3, None))
    assert (log.term, log.voted_for) == (3, None)


def test_trim_drops_the_front():
    """Entries below go, the one named stays."""
    log = replayed(Entry(1, 1, b""), Entry(2, 1, b""), Entry(3, 1, b""), Trim(3))
    assert (indexes(log), log.first_index) == ([(3, 1)], 3)


def test_reset_leaves_placeholders():
    """After a reset the log is the two entries of the snapshot."""
    log = replayed(Entry(1, 1, b"a"), Reset(9, 3, 2), Entry(10, 3, b"b"))
    assert log.entries == [(BASE_COMMAND, 8, 2), (BASE_COMMAND, 9, 3), (b"b", 10, 3)]
    assert (log.first_index, log.next_index) == (8, 11)


class TestBehindATrimmedFront:
    """The log begins in the middle: older entries are in files that are gone."""

    def test_entries_follow_the_state(self):
        """Held are only the entries of the files read."""
        log = replayed(Entry(9, 4, b""), Entry(10, 4, b""), begin=State(4, "n2", 5, 9))
        assert (indexes(log), log.start_index, log.first_index) == ([(9, 4), (10, 4)], 9, 5)
        assert (log.term, log.voted_for) == (4, "n2")

    def test_truncation_below_the_entries_held(self):
        """The entries held all go, and the next one follows those in the older files."""
        held = [Entry(index, 4, b"") for index in (9, 10, 11)]
        log = replayed(*held, Truncate(7), Entry(7, 5, b""), begin=State(4, None, 5, 9))
        assert (indexes(log), log.start_index) == ([(7, 5)], 7)

    def test_trim_below_the_entries_held(self):
        """A trim of entries in older files takes nothing from those held."""
        log = replayed(Entry(9, 4, b""), Trim(7), Trim(9), begin=State(4, None, 5, 9))
        assert (indexes(log), log.first_index) == ([(9, 4)], 9)


def test_refused_record_changes_nothing():
    """What cannot follow is answered with what could, and leaves the log as it was."""
    log = replayed(Entry(1, 2, b""), Entry(2, 2, b""), Vote(4, "n1"))
    before = ReplayedLog(log.entries[:], log.term, log.voted_for, log.first_index, log.next_index)
    for record in (
        Entry(4, 2, b""),
        Entry(3, 1, b""),
        Truncate(1),
        Truncate(3),
        Vote(3, None),
        Reset(0, 1, 1),
        Reset(5, 1, 2),
        Trim(0),
        Trim(3),
        State(4, "n2", 1, 3),
    ):
        assert log.apply(record)
        assert log == before
    assert log.apply(State(4, "n1", 1, 3)) is None
    assert log.begin(State(1, None, 3, 2))
