"""Deadlines of one subscription: rhythm, slack, order."""

from server.delivery.schedule import MERGE_NS, SLACK_NS, TIDY_MIN, Due, MemberSchedule, Schedule

S = 1_000_000_000


def popped(schedule, now_ns):
    found = []
    while (entry := schedule.pop_due(now_ns)) is not None:
        found.append(entry)
    return found


def test_message_is_due_one_ack_wait_after_sending():
    """B234, B261: not before the ack wait less the slack."""
    schedule = Schedule(1 * S)
    schedule.sent(1, 5, 100 * S)
    assert popped(schedule, 101 * S - SLACK_NS - 1) == []
    assert popped(schedule, 101 * S - SLACK_NS) == [Due(101 * S, 1, 5)]


def test_rhythm_is_kept():
    """B260: sent at 0.30 and 0.80 with ack wait 1 s, again at 1.30, 1.80, 2.30, 2.80 although the rounds are late."""
    schedule = Schedule(S)
    schedule.sent(1, 1, 300_000_000)
    schedule.sent(2, 2, 800_000_000)
    seen = []
    for now_ns in (1_304_000_000, 1_809_000_000, 2_301_000_000, 2_800_000_000):
        for entry in popped(schedule, now_ns):
            seen.append((entry.due_ns // 10_000_000, entry.first))
            schedule.sent_again(entry, entry.first, entry.last, now_ns)
    assert seen == [(130, 1), (180, 2), (230, 1), (280, 2)]


def test_deadline_long_past_gives_no_burst():
    """B264: once per ack wait, however old the deadline is."""
    schedule = Schedule(S)
    schedule.add(5 * S, 1, 1)
    (entry,) = popped(schedule, 100 * S)
    schedule.sent_again(entry, 1, 1, 100 * S)
    assert popped(schedule, 100 * S) == []
    assert popped(schedule, 101 * S) == [Due(101 * S, 1, 1)]


def test_round_is_ordered_by_deadline_then_sequence():
    """B262."""
    schedule = Schedule(S)
    for due_ns, seq in ((30, 4), (10, 9), (10, 3), (20, 1)):
        schedule.add(due_ns, seq, seq)
    assert [entry.first for entry in popped(schedule, S)] == [3, 9, 1, 4]


def test_sends_close_together_share_an_entry():
    """The number of entries is bounded by time, not by messages; the later deadline counts."""
    schedule = Schedule(S)
    schedule.sent(1, 2, 0)
    schedule.sent(3, 4, MERGE_NS - 1)
    schedule.sent(5, 6, 2 * MERGE_NS)
    schedule.sent(9, 9, 2 * MERGE_NS)
    assert popped(schedule, 9 * S) == [
        Due(S + MERGE_NS - 1, 1, 4),
        Due(S + 2 * MERGE_NS, 5, 6),
        Due(S + 2 * MERGE_NS, 9, 9),
    ]


def test_steady_traffic_does_not_move_a_deadline():
    """B251, B260: sends every millisecond share entries, but none is later than the merge allows."""
    schedule = Schedule(S)
    for seq in range(1, 2001):
        schedule.sent(seq, seq, seq * 1_000_000)
    entries = popped(schedule, 100 * S)
    assert entries[0].due_ns < S + 1_000_000 + MERGE_NS
    assert all(entry.due_ns - S - entry.first * 1_000_000 < MERGE_NS for entry in entries)
    assert len(entries) == 400


def test_failed_heartbeats_postpone_what_is_due():
    """B268: due redeliveries are skipped and due again one ack wait from now; later ones stay."""
    schedule = Schedule(S)
    schedule.sent(1, 1, 0)
    schedule.sent(2, 2, 500_000_000)
    schedule.postpone(1 * S)
    assert schedule.next_due_ns == 1_500_000_000
    assert popped(schedule, 1_990_000_000) == [Due(1_500_000_000, 2, 2), Due(2 * S, 1, 1)]


def test_acked_front_is_forgotten():
    """Entries below the floor would fire for nothing."""
    schedule = Schedule(S)
    schedule.sent(1, 5, 0)
    schedule.sent(6, 9, S)
    schedule.forget_below(6)
    assert len(schedule) == 1
    assert schedule.next_due_ns == 2 * S


def test_entries_without_pending_messages_go():
    """One message that is never acked does not keep the entries of all behind it."""
    schedule = Schedule(3600 * S)
    most = 0
    for number in range(5 * TIDY_MIN):
        schedule.tidy(lambda first, last: first <= 7 <= last or first >= number)  # noqa: B023  called at once
        schedule.sent(number, number, 2 * number * MERGE_NS)
        most = max(most, len(schedule))
    assert most == TIDY_MIN
    assert popped(schedule, 3600 * S + 14 * MERGE_NS) == [Due(3600 * S + 14 * MERGE_NS, 7, 7)]


# ---- members of queue groups


def test_message_that_came_from_another_member_has_its_own_deadline():
    """B310, B312: the range it lies in does not cover it; deadlines of both kinds come in order."""
    schedule = MemberSchedule(S)
    schedule.sent(1, 9, 100 * S)
    schedule.single(4, 102 * S)
    schedule.single(6, 100 * S)
    assert (schedule.next_due_ns, len(schedule)) == (100 * S, 3)
    assert popped(schedule, 100 * S) == [Due(100 * S, 6, 6)]
    (entry,) = popped(schedule, 101 * S)
    assert entry == Due(101 * S, 1, 9)
    assert [seq for seq in range(1, 10) if not schedule.covers(entry, seq)] == [4]
    assert popped(schedule, 103 * S) == [Due(102 * S, 4, 4)]
    assert schedule.next_due_ns is None


def test_single_keeps_its_rhythm():
    """B260: sent again it is due one ack wait after its own deadline, and still not covered by ranges."""
    schedule = MemberSchedule(S)
    schedule.sent(1, 9, 100 * S)
    schedule.single(4, 100 * S + 5)
    (entry,) = popped(schedule, 100 * S + 5)
    schedule.sent_again(entry, 4, 4, 100 * S + 9)
    entries = popped(schedule, 102 * S)
    assert entries == [Due(101 * S, 1, 9), Due(101 * S + 5, 4, 4)]
    schedule.sent_partly(entries[1], 4)
    schedule.sent_again(entries[0], 1, 9, 102 * S)
    assert not schedule.covers(Due(103 * S, 1, 9), 4)
    assert popped(schedule, 103 * S) == [Due(101 * S + 5, 4, 4), Due(103 * S, 1, 9)]


def test_part_of_a_range_is_due_as_before():
    """B241: what a turn did not get done goes first in the next one."""
    schedule = MemberSchedule(S)
    schedule.sent(1, 9, 100 * S)
    (entry,) = popped(schedule, 101 * S)
    schedule.sent_again(entry, 1, 4, 101 * S)
    schedule.sent_partly(entry, 5)
    assert popped(schedule, 102 * S) == [Due(101 * S, 5, 9), Due(102 * S, 1, 4)]


def test_ranges_of_a_member_reach_over_what_others_got():
    """Turns of a group at nearly the same time share an entry, whoever got the messages between."""
    schedule = MemberSchedule(S)
    schedule.sent(1, 3, 100 * S)
    schedule.sent(7, 9, 100 * S + MERGE_NS // 2)
    assert popped(schedule, 102 * S) == [Due(101 * S + MERGE_NS // 2, 1, 9)]


def test_range_that_was_sent_again_covers_nothing_more():
    """B422: a new message behind it must not stretch it over messages that have deadlines of their own."""
    schedule = MemberSchedule(S)
    schedule.sent(1, 1, 100 * S)
    schedule.sent(5, 5, 100 * S + 2 * MERGE_NS)
    schedule.sent_again(schedule.pop_due(101 * S), 1, 1, 101 * S)
    schedule.add(102 * S, 2, 3)
    schedule.sent(9, 9, 101 * S)
    assert popped(schedule, 103 * S) == [
        Due(101 * S + 2 * MERGE_NS, 5, 5), Due(102 * S, 1, 1), Due(102 * S, 2, 3), Due(102 * S, 9, 9)
    ]  # fmt: skip


def test_equal_deadlines_of_both_kinds_go_by_sequence():
    """B262: whatever came from another member and what did not."""
    schedule = MemberSchedule(S)
    schedule.single(1, 101 * S)
    schedule.single(9, 101 * S)
    schedule.sent(4, 5, 100 * S)
    assert [entry.first for entry in popped(schedule, 101 * S)] == [1, 4, 9]
