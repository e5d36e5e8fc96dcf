"""Covers raft/lease.py."""

import math

import pytest

from raft.lease import confirmed_until

LEASE_S = 0.5


@pytest.mark.parametrize(
    ("members", "is_member", "confirmed", "until"),
    [
        (1, True, [], math.inf),
        (2, True, [10.0], 10.5),
        (2, True, [-1.0], -math.inf),
        (2, True, [], -math.inf),
        (3, True, [10.0, -1.0], 10.5),
        (3, True, [10.0, 12.0], 12.5),
        (3, True, [-1.0, -1.0], -math.inf),
        (4, True, [10.0, 11.0, 12.0], 11.5),
        (4, True, [10.0, -1.0, -1.0], -math.inf),
        (4, True, [10.0, -1.0, 12.0], 10.5),
        (5, True, [10.0, 11.0, 12.0, 13.0], 12.5),
        (5, True, [13.0, -1.0, -1.0, 11.0], 11.5),
        (5, True, [13.0, -1.0, -1.0, -1.0], -math.inf),
        (1, False, [10.0], 10.5),
        (2, False, [10.0, 12.0], 10.5),
        (3, False, [10.0, 12.0, 11.0], 11.5),
        (3, False, [10.0, -1.0, -1.0], -math.inf),
        (4, False, [10.0, 11.0, 12.0, 13.0], 11.5),
        (4, False, [-1.0, 11.0, 12.0, -1.0], -math.inf),
    ],
)
def test_lease_ends_a_fixed_time_after_the_newest_moment_that_a_majority_has_answered(
    members, is_member, confirmed, until
):
    """B401, 1 to 5 members: the leader counts itself if it is one; the time is that of sending, of the slowest needed."""
    majority = members // 2 + 1
    assert confirmed_until(confirmed, majority=majority, is_member=is_member, lease_s=LEASE_S) == until


def test_member_without_voice_confirms_nothing():
    """A place that no journal fills makes the majority larger and appears among no confirmations: of 4, 2 others are needed."""
    assert confirmed_until([10.0], majority=3, is_member=True, lease_s=LEASE_S) == -math.inf
    assert confirmed_until([10.0, 11.0], majority=3, is_member=True, lease_s=LEASE_S) == 10.5


def test_a_message_sent_at_clock_zero_counts():
    """Clocks may begin at zero: only a time below says that nothing was answered."""
    assert confirmed_until([0.0], majority=2, is_member=True, lease_s=LEASE_S) == 0.5
