"""Covers raft/recovery_check.py."""

import pytest

from raft.engine import NO_OP, REGULAR
from raft.errors import RecoveryError
from raft.journal.log import BASE_COMMAND, Log
from raft.recovery_check import align_journal


def journal(first, last, term=2):
    """A journal holding `first` to `last`."""
    return Log([(REGULAR, index, term) for index in range(first, last + 1)], term=term)


def after_reset(index, last, term=2):
    """A journal that was reset to `index` and holds entries up to `last` behind it."""
    base = [(BASE_COMMAND, index - 1, term), (BASE_COMMAND, index, term)]
    return Log(base + journal(index + 1, last, term)[:], term=term)


@pytest.mark.parametrize(
    ("log", "applied"),
    [
        (Log(), (0, 0)),
        (Log(), (1, 0)),
        (Log([(NO_OP, 1, 0)]), (0, 0)),
        (journal(1, 10), (0, 0)),
        (journal(1, 10), (7, 2)),
        (journal(1, 10), (10, 2)),
        (journal(5, 10), (4, 1)),
        (journal(5, 10), (5, 2)),
        (after_reset(8, 10), (8, 2)),
        (after_reset(8, 8), (8, 2)),
        (after_reset(8, 12), (11, 2)),
    ],
)
def test_journal_that_continues_the_store_is_left_alone(log, applied):
    """The journal holds the next entry to apply, or ends exactly with the last applied one: it is replayed from there."""
    before = log[:]
    assert align_journal(log, *applied, can_fetch=False) == 0
    assert (log[:], log.is_dirty) == (before, False)


@pytest.mark.parametrize(
    ("log", "applied"),
    [
        (Log(), (2, 1)),
        (journal(1, 10), (11, 2)),
        (journal(1, 10), (500, 9)),
        (after_reset(8, 8), (9, 3)),
    ],
)
def test_store_beyond_the_journal_gives_it_a_new_base(log, applied):
    """What the store has was committed, so the journal begins anew behind it."""
    assert align_journal(log, *applied, can_fetch=False) == 0
    assert log[:] == [(BASE_COMMAND, applied[0] - 1, applied[1]), (BASE_COMMAND, applied[0], applied[1])]


@pytest.mark.parametrize(("log", "applied"), [(journal(1, 10), (7, 3)), (after_reset(8, 10), (8, 3))])
def test_other_term_at_the_last_applied_entry_gives_a_new_base(log, applied):
    """Another term at the same index: from there on the journal is a tail that was never committed."""
    assert align_journal(log, *applied, can_fetch=False) == 0
    assert log[:] == [(BASE_COMMAND, applied[0] - 1, applied[1]), (BASE_COMMAND, applied[0], applied[1])]


@pytest.mark.parametrize(
    ("log", "applied", "first"),
    [(journal(5, 10), (3, 1), 5), (journal(5, 10), (0, 0), 5), (after_reset(8, 10), (7, 2), 9)],
)
def test_gap_between_store_and_journal_refuses_to_start(log, applied, first):
    """Entries the store lacks are not in the journal either: starting would skip them in silence."""
    with pytest.raises(RecoveryError, match=rf"begins with entry {first}, the store ends with entry {applied[0]}:"):
        align_journal(log, *applied, can_fetch=False)
    assert not log.is_dirty


@pytest.mark.parametrize(
    ("log", "applied", "least"),
    [
        (journal(5, 10), (3, 1), 5),
        (journal(5, 10), (0, 0), 5),
        (after_reset(8, 10), (6, 2), 8),
        (after_reset(8, 8), (0, 0), 8),
    ],
)
def test_missing_state_is_to_be_fetched_and_the_journal_kept(log, applied, least):
    """A member of a cluster keeps what it has acknowledged, and needs a snapshot whose last entry its own log can confirm."""
    before = log[:]
    assert align_journal(log, *applied, can_fetch=True) == least
    assert (log[:], log.is_dirty) == (before, False)
    assert least in [index for _, index, _ in log]
