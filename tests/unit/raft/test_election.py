"""Covers raft/election.py."""

import pytest

from raft.election import Ballot, Stickiness, is_up_to_date
from raft.membership import Member
from tests.unit.raft.cores import configuration, member

VOTERS = configuration("abcde")


def test_voice_counts_once_per_member():
    """Section 2.1.4: the same vote delivered twice does not make two."""
    ballot = Ballot()
    ballot.open(7, member("a"))
    assert ballot.admits(member("b"), 7, VOTERS)
    assert not ballot.admits(member("b"), 7, VOTERS)
    assert not ballot.is_won(VOTERS)
    assert ballot.admits(member("c"), 7, VOTERS)
    assert ballot.is_won(VOTERS)


@pytest.mark.parametrize(
    ("voter", "term", "voters"),
    [
        (member("x"), 7, VOTERS),
        (Member("b", "f" * 32), 7, VOTERS),
        (Member("b", ""), 7, VOTERS),
        (member("b"), 6, VOTERS),
        (member("b"), 8, VOTERS),
        (member("b"), 7, None),
        (member("a"), 7, VOTERS),
    ],
)
def test_what_is_no_voice_of_a_member_in_this_term_does_not_count(voter, term, voters):
    """Section 2.1.4: not a non-member's, nor that of another journal of a member's node, another term, or our own again."""
    ballot = Ballot()
    ballot.open(7, member("a"))
    assert not ballot.admits(voter, term, voters)
    assert ballot.voters == {member("a")}


def test_nothing_counts_before_and_behind_a_ballot():
    """Voices that come late belong to nothing."""
    ballot = Ballot()
    assert not ballot.admits(member("b"), -1, None)
    assert not ballot.admits(member("b"), 0, VOTERS)
    ballot.open(7, member("a"))
    ballot.close()
    assert not ballot.admits(member("b"), 7, VOTERS)
    assert not ballot.is_won(VOTERS)


def test_reopened_ballot_starts_with_the_own_voice_only():
    """Voices of an earlier attempt in the same term do not count for the next."""
    ballot = Ballot()
    for _ in range(2):
        ballot.open(7, member("a"))
        assert ballot.admits(member("b"), 7, VOTERS)
        assert not ballot.is_won(VOTERS)


@pytest.mark.parametrize(("names", "needed"), [("a", 1), ("ab", 2), ("abc", 2), ("abcd", 3), ("abcde", 3)])
def test_majority_is_of_the_configuration(names, needed):
    """1 to 5 members: as many as a majority needs, the own voice included."""
    voters = configuration(names)
    ballot = Ballot()
    ballot.open(1, member("a"))
    for name in names[1:needed]:
        assert not ballot.is_won(voters)
        ballot.admits(member(name), 1, voters)
    assert ballot.is_won(voters)


def test_voices_of_former_members_do_not_win():
    """Who is in the configuration when voices are counted matters, not who was when they came; nor does a non-member's own."""
    ballot = Ballot()
    ballot.open(1, member("a"))
    ballot.admits(member("d"), 1, VOTERS)
    ballot.admits(member("e"), 1, VOTERS)
    assert ballot.is_won(VOTERS)
    assert not ballot.is_won(configuration("abc"))
    assert not ballot.is_won(configuration("bcd"))


def test_nobody_is_helped_within_the_shortest_timeout_of_hearing_a_leader():
    """Raft dissertation, section 4.2.3: from then on a leader may be gone."""
    stickiness = Stickiness(0.6, 100.0)
    assert stickiness.holds(100.0)
    assert stickiness.holds(100.59)
    assert not stickiness.holds(100.61)
    stickiness.heard_s = 101.0
    assert stickiness.holds(101.5)


@pytest.mark.parametrize(
    ("last", "own", "is_enough"),
    [
        ((3, 5), (3, 5), True),
        ((3, 6), (3, 5), True),
        ((3, 4), (3, 5), False),
        ((4, 1), (3, 5), True),
        ((2, 9), (3, 5), False),
        ((0, 1), (0, 1), True),
    ],
)
def test_log_is_compared_by_last_term_then_length(last, own, is_enough):
    """Raft paper, section 5.4.1."""
    assert is_up_to_date(*last, *own) is is_enough
