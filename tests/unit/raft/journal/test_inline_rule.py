"""Covers raft/journal/inline_rule.py: who writes a group."""

from raft.journal.inline_rule import (
    FAST_SYNC_S,
    FOLLOWER_FAST_SYNC_S,
    GROUP_MAX_BYTES,
    RECENT_WRITES,
    STALL_S,
    InlineRule,
)

FAST, SLOW = FAST_SYNC_S, FAST_SYNC_S * 1.01


def rule_after(durations, size=200, fast_s=FAST_SYNC_S):
    rule = InlineRule(fast_s)
    for duration in durations:
        rule.took(size, duration)
    return rule


def test_unknown_disk_is_for_the_thread():
    """Before enough is known the loop is not risked."""
    assert not InlineRule().allows(1)
    assert not rule_after([FAST] * (RECENT_WRITES - 1)).allows(1)
    assert rule_after([FAST] * RECENT_WRITES).allows(1)


def test_large_groups_are_for_the_thread():
    """Whatever the disk; and their durations say nothing about small groups."""
    rule = rule_after([FAST] * RECENT_WRITES)
    assert rule.allows(GROUP_MAX_BYTES)
    assert not rule.allows(GROUP_MAX_BYTES + 1)
    for _ in range(RECENT_WRITES):
        rule.took(GROUP_MAX_BYTES + 1, SLOW)
    assert rule.allows(1)


def test_one_write_in_ten_may_be_slow():
    """The 90th percentile decides, over the last writes only."""
    few = RECENT_WRITES // 10
    assert rule_after([SLOW] * few + [FAST] * (RECENT_WRITES - few)).allows(1)
    assert not rule_after([SLOW] * (few + 1) + [FAST] * (RECENT_WRITES - few - 1)).allows(1)
    assert rule_after([SLOW] * 100 + [FAST] * RECENT_WRITES).allows(1)


def test_fast_is_what_the_owner_says():
    """A follower waits for slower disks than a node that serves clients."""
    durations = [FOLLOWER_FAST_SYNC_S] * RECENT_WRITES
    assert rule_after(durations, fast_s=FOLLOWER_FAST_SYNC_S).allows(1)
    assert not rule_after(durations).allows(1)


def test_one_stall_is_enough():
    """Whoever waits for the disk is not heard by the other nodes meanwhile."""
    rule = rule_after([FAST] * RECENT_WRITES)
    rule.took(1, STALL_S * 1.01)
    assert not rule.allows(1)
    for _ in range(RECENT_WRITES - 1):
        rule.took(1, FAST)
    assert not rule.allows(1)
    rule.took(1, FAST)
    assert rule.allows(1)
