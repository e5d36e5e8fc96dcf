"""Covers raft/sender.py."""

import pytest

from raft.engine import REGULAR
from raft.journal.log import BASE_COMMAND, Log
from raft.membership import Member
from raft.messages import Append, SnapshotOffer
from raft.sender import (
    APPEND_BYTES,
    APPEND_ENTRIES_MAX,
    FORGET_S,
    ROUNDS_KEPT,
    WINDOW_BYTES,
    WINDOW_MESSAGES,
    Sender,
)
from tests.unit.raft.cores import entries, founded, member, rejection, sign_of_life, success

TERM = 3
B = member("b")


class Bench:
    """A sender of term 3 with its log, and one member to send to, whose answers the test makes up."""

    def __init__(self, log=None, members="b"):
        self.log = Log(log or [*founded("ab"), *entries(3, 10, 2)], term=TERM)
        self.now, self.commit, self.up, self.sent = 100.0, 2, set(members), []
        self.sender = Sender(
            log=self.log,
            term=TERM,
            send=lambda to, message: self.sent.append((to.node_id, message)),
            is_up=lambda to: to.node_id in self.up,
            commit_index=lambda: self.commit,
            clock=lambda: self.now,
        )
        self.sender.set_members(map(member, members))

    def add(self, count, size=10):
        for _ in range(count):
            self.log.add(REGULAR + bytes(size), self.log[-1][1] + 1, TERM)

    def take(self, to="b"):
        """What was sent: for an append (round, previous index, indexes), for an offer itself."""
        found, self.sent = [message for name, message in self.sent if name == to], []
        return [
            (one.round, one.previous_index, [index for _, index, _ in one.entries]) if isinstance(one, Append) else one
            for one in found
        ]

    def heartbeat(self):
        self.sender.send(is_heartbeat=True)
        return self.take()

    def flush(self):
        self.sender.send(is_heartbeat=False)
        return self.take()

    def answer(self, message, name="b"):
        """Hand an answer over and send what follows, as the core does."""
        progress = self.sender.answered(member(name), message)
        if progress is not None:
            self.sender.send_to(member(name))
        return self.take(name)

    @property
    def progress(self):
        return self.sender.find(B)

    def settled(self):
        """The member has everything; the window is open."""
        self.heartbeat()
        last = self.log[-1][1]
        assert self.answer(success(TERM, last + 1, self.progress.round)) == []
        assert not self.progress.is_probing
        return self


def test_leadership_begins_with_one_probe_of_the_last_entry():
    """Nothing is known of a member: one message asks, and nothing else goes until it is answered."""
    bench = Bench()
    assert bench.heartbeat() == [(1, 9, [10])]
    bench.add(3)
    assert bench.flush() == []
    assert bench.heartbeat() == [(2, 10, [])]


def test_append_says_what_the_leader_knows():
    """Term, commit index, and term and index of the entry before (Raft paper, section 5.3)."""
    bench = Bench([*founded("ab"), *entries(3, 5, 2), *entries(6, 6, 3)])
    bench.commit = 4
    bench.sender.send(is_heartbeat=True)
    assert bench.sent == [("b", Append(TERM, 4, 5, 2, 1, entries(6, 6, 3)))]


def test_success_opens_the_window():
    """Behind an answered probe appends follow one another without waiting."""
    bench = Bench().settled()
    for number in range(3):
        bench.add(1)
        assert bench.flush() == [(2 + number, 10 + number, [11 + number])]
    assert bench.progress.match_index == 10


def test_what_is_under_way_is_not_sent_again():
    """Section 2.1.3: a success never lowers the next index, though the stock one does."""
    bench = Bench().settled()
    for _ in range(3):
        bench.add(1)
        bench.flush()
    assert bench.answer(success(TERM, 12, 2)) == []
    assert (bench.progress.match_index, bench.progress.next_index) == (11, 14)
    assert bench.flush() == []


def test_late_success_lowers_nothing():
    """Answers may overtake one another: what is known to be durable never falls."""
    bench = Bench().settled()
    for _ in range(3):
        bench.add(1)
        bench.flush()
    bench.answer(success(TERM, 14, 4))
    bench.answer(success(TERM, 12, 2))
    assert (bench.progress.match_index, bench.progress.next_index) == (13, 14)


def test_window_in_messages():
    """No more than so many appends with entries are under way; each answer makes room for the next ones."""
    bench = Bench().settled()
    first = bench.progress.round + 1
    for _ in range(WINDOW_MESSAGES + 5):
        bench.add(1)
        bench.flush()
    assert (len(bench.progress.in_flight), bench.progress.next_index) == (WINDOW_MESSAGES, 11 + WINDOW_MESSAGES)
    last = first + WINDOW_MESSAGES - 1
    assert bench.answer(success(TERM, 12, first)) == [
        (last + 1, 10 + WINDOW_MESSAGES, list(range(11 + WINDOW_MESSAGES, 16 + WINDOW_MESSAGES)))
    ]


def test_window_in_bytes():
    """No further append once so many bytes are under way; a single one may be larger."""
    bench = Bench().settled()
    size = WINDOW_BYTES // 4
    bench.add(6, size)
    assert [indexes for _, _, indexes in bench.flush()] == [[11], [12], [13], [14]]
    assert bench.progress.in_flight_bytes >= WINDOW_BYTES
    assert [indexes for _, _, indexes in bench.answer(success(TERM, 12, 2))] == [[15]]
    bench = Bench().settled()
    bench.add(2, WINDOW_BYTES + 1)
    assert [indexes for _, _, indexes in bench.flush()] == [[11]]


def test_appends_are_bounded_in_bytes_and_entries():
    """An append takes no further entry once it is large enough, and never more than so many."""
    bench = Bench().settled()
    bench.add(3, APPEND_BYTES // 2)
    assert [indexes for _, _, indexes in bench.flush()] == [[11, 12], [13]]
    bench.add(APPEND_ENTRIES_MAX + 1, 1)
    assert [len(indexes) for _, _, indexes in bench.flush()] == [APPEND_ENTRIES_MAX, 1]


def test_probe_carries_one_append_only():
    """A backlog does not leave before the first answer: section 2.2.1, the livelock, came of sending it all at once."""
    bench = Bench()
    bench.add(10, APPEND_BYTES)
    bench.heartbeat()
    assert bench.answer(rejection(TERM, 3, 1)) == [(2, 2, [3, 4, 5, 6, 7, 8, 9, 10, 11])]
    assert bench.flush() == []
    assert [indexes for _, _, indexes in bench.answer(success(TERM, 12, 2))] == [[n] for n in range(12, 21)]


def test_rejection_lowers_once_for_all_that_was_under_way():
    """Section 2.2.1: every message of the window is rejected; only the first rejection says something new."""
    bench = Bench().settled()
    for _ in range(3):
        bench.add(1)
        bench.flush()
    bench.progress.match_index = 4  # as if less were known, so that there is something to go back to
    assert bench.answer(rejection(TERM, 6, 2)) == [(5, 5, list(range(6, 14)))]
    for number in (3, 4):
        assert bench.answer(rejection(TERM, 14, number)) == []
    assert (bench.progress.next_index, bench.progress.is_probing) == (14, True)
    assert bench.answer(success(TERM, 14, 5)) == []
    assert not bench.progress.is_probing


def test_rejection_never_lowers_below_what_is_known():
    """A member that lost what it had acknowledged would be a bug; a rejection of an earlier state is just late."""
    bench = Bench().settled()
    bench.add(1)
    bench.flush()
    assert bench.answer(rejection(TERM, 2, 2)) == [(3, 10, [11])]


def test_rejection_beyond_the_log_goes_to_its_end():
    """A follower whose divergent log is longer asks for what the leader does not have; its next entry is the last one's."""
    bench = Bench()
    bench.heartbeat()
    bench.answer(rejection(TERM, 11, 1))
    assert bench.progress.next_index == 11
    bench.answer(rejection(TERM, 500, 2))
    assert bench.progress.next_index <= 11


@pytest.mark.parametrize("answer", [success(TERM, 5, 99), rejection(TERM, 5, 99), success(TERM, 400, 1)])
def test_answer_to_nothing_that_was_sent_is_ignored(answer):
    """A round that was never sent, or entries that do not exist: section 2.1.1 in reverse."""
    bench = Bench()
    bench.heartbeat()
    bench.sender.answered(B, answer)
    assert (bench.progress.match_index, bench.progress.next_index, bench.progress.is_probing) == (0, 11, True)
    assert len(bench.progress.in_flight) == 1


def test_answer_of_a_stranger_is_nobodys():
    """Neither a node that is not sent to nor another journal of one that is."""
    bench = Bench()
    bench.heartbeat()
    assert bench.sender.answered(member("x"), success(TERM, 11, 1)) is None
    assert bench.sender.answered(Member("b", "f" * 32), success(TERM, 11, 1)) is None
    assert bench.progress.match_index == 0


def test_nothing_goes_to_a_member_that_is_not_connected():
    """It would be lost; when it is there again it is probed."""
    bench = Bench()
    bench.up.clear()
    assert (bench.heartbeat(), bench.flush()) == ([], [])
    assert bench.progress.round == 0


def test_new_link_is_probed_from_what_is_known():
    """Section 4.3: what was under way may be lost, so the next message asks, and its rejection counts, older ones not."""
    bench = Bench().settled()
    bench.add(3)
    bench.flush()
    bench.sender.reconnected(B)
    assert bench.progress.in_flight_bytes == 0
    assert bench.answer(sign_of_life(TERM, 11, 1)) == [(3, 10, [11, 12, 13])]
    bench.add(1)
    assert bench.flush() == []
    assert bench.answer(rejection(TERM, 5, 2)) == []
    assert bench.progress.next_index == 14
    bench.answer(success(TERM, 14, 3))
    assert not bench.progress.is_probing


def test_lost_messages_are_found_out_by_a_heartbeat():
    """After so long without any answer the window is taken for lost; what the heartbeat finds missing is sent again."""
    bench = Bench().settled()
    bench.add(2)
    bench.flush()
    bench.now += FORGET_S + 0.01
    ((number, previous, indexes),) = bench.heartbeat()
    assert (previous, indexes, len(bench.progress.in_flight)) == (12, [], 0)
    assert bench.answer(rejection(TERM, 11, number)) == [(number + 1, 10, [11, 12])]


def test_silent_member_does_not_get_a_window_with_every_heartbeat():
    """A member that is up and silent is probed: what is sent into the blue is bounded by one append per heartbeat."""
    bench = Bench().settled()
    bench.add(1)
    bench.flush()
    bench.now += FORGET_S + 0.01
    bench.add(3 * WINDOW_MESSAGES, APPEND_BYTES)
    assert len(bench.heartbeat()) <= 1
    assert bench.flush() == []


def test_sign_of_life_confirms_without_a_match():
    """A member whose disk is slow is heard: time of the newest message it has got, and no more durable than before."""
    bench = Bench().settled()
    bench.now = 107.0
    bench.add(1)
    bench.flush()
    bench.now = 107.4
    bench.answer(sign_of_life(TERM, 12, 2))
    assert (bench.progress.confirmed_s, bench.progress.heard_s, bench.progress.match_index) == (107.0, 107.4, 10)


def test_sign_of_life_makes_no_room_for_what_is_not_durable_yet():
    """A member whose disk stalls must not be given one window after the other: they would fill its memory."""
    bench = Bench().settled()
    for _ in range(5):
        bench.add(WINDOW_MESSAGES, APPEND_BYTES)
        bench.flush()
        bench.answer(sign_of_life(TERM, 11, bench.progress.round))
    unanswered = sum(len(command) for command, index, _ in bench.log[:] if 10 < index < bench.progress.next_index)
    assert unanswered <= WINDOW_BYTES + APPEND_BYTES + 1


def test_confirmed_is_when_the_answered_message_was_sent():
    """B401: measured from sending, per message; a late answer to an earlier one confirms nothing new."""
    bench = Bench()
    for second in (101.0, 102.0, 103.0):
        bench.now = second
        bench.heartbeat()
    bench.now = 109.0
    assert bench.progress.confirmed_s < 0
    bench.answer(success(TERM, 11, 2))
    assert bench.progress.confirmed_s == 102.0
    bench.answer(success(TERM, 11, 1))
    assert bench.progress.confirmed_s == 102.0
    bench.answer(success(TERM, 11, 2))
    assert bench.progress.confirmed_s == 102.0
    bench.answer(success(TERM, 11, 3))
    assert bench.progress.confirmed_s == 103.0


def test_times_of_unanswered_messages_are_bounded():
    """Memory per member is bounded; what was forgotten confirms nothing."""
    bench = Bench()
    for second in range(ROUNDS_KEPT + 10):
        bench.now = float(second)
        bench.heartbeat()
    assert len(bench.progress.sent_s) == ROUNDS_KEPT
    bench.answer(success(TERM, 11, 5))
    assert bench.progress.confirmed_s == -1.0


class TestSnapshots:
    """What the log does not have."""

    def test_member_behind_the_log_is_offered_a_snapshot_with_every_heartbeat(self):
        """The offer is the sign of life meanwhile; it has a round of its own and goes with heartbeats only."""
        bench = Bench(entries(20, 30, 2))
        bench.heartbeat()
        assert bench.answer(rejection(TERM, 5, 1)) == []
        assert bench.flush() == []
        assert bench.heartbeat() == [SnapshotOffer(TERM, 2, 20, 2)]
        assert bench.heartbeat() == [SnapshotOffer(TERM, 3, 20, 2)]
        bench.answer(sign_of_life(TERM, 5, 3))
        assert bench.progress.confirmed_s == bench.now

    @pytest.mark.parametrize("is_trimmed", [False, True])
    def test_placeholder_is_never_sent(self, is_trimmed):
        """Section 4.4: the entry at the base has no content; who needs it needs a snapshot. Behind it appends go."""
        log = [(BASE_COMMAND, 19, 2), (BASE_COMMAND, 20, 2), *entries(21, 25, 2)][is_trimmed:]
        for wanted in (19, 20):
            bench = Bench(log)
            bench.heartbeat()
            assert bench.answer(rejection(TERM, wanted, 1)) == []
            assert bench.heartbeat() == [SnapshotOffer(TERM, 2, 20, 2)]
        bench = Bench(log)
        bench.heartbeat()
        assert bench.answer(rejection(TERM, 21, 1)) == [(2, 20, [21, 22, 23, 24, 25])]

    def test_first_entry_held_is_offered_not_sent(self):
        """The term of the entry before it is unknown, so it cannot be appended to anything."""
        bench = Bench(entries(20, 30, 2))
        bench.heartbeat()
        assert bench.answer(rejection(TERM, 21, 1)) == [(2, 20, list(range(21, 31)))]

    def test_member_that_installed_one_goes_on_behind_it(self):
        """The answer after an installation belongs to no round; appends follow from there."""
        bench = Bench(entries(20, 30, 2))
        bench.heartbeat()
        bench.answer(rejection(TERM, 5, 1))
        bench.heartbeat()
        assert bench.answer(success(TERM, 27, 0)) == [(3, 26, [27, 28, 29, 30])]
        assert bench.progress.match_index == 26

    def test_log_trimmed_beyond_a_member_turns_to_offers(self):
        """A member that lags behind a trim gets offers instead of entries that are gone."""
        bench = Bench()
        bench.heartbeat()
        bench.answer(rejection(TERM, 3, 1))
        bench.answer(rejection(TERM, 3, 2))
        bench.log.trim(8)
        assert bench.answer(rejection(TERM, 4, 3)) == []
        assert bench.heartbeat() == [SnapshotOffer(TERM, 4, 8, 2)]


class TestMembers:
    """Who is sent to."""

    def test_what_is_known_of_those_that_stay_is_kept(self):
        """A change of the configuration makes nobody a stranger."""
        bench = Bench().settled()
        bench.sender.set_members([member("c"), B])
        assert bench.progress.match_index == 10
        assert [one.member for one in bench.sender.progress()] == [member("c"), B]
        bench.sender.set_members([member("c")])
        assert bench.progress is None

    def test_place_without_a_journal_gets_nothing(self):
        """There is nobody to send to."""
        bench = Bench()
        bench.sender.set_members([B, Member("c", "")])
        assert [one.member for one in bench.sender.progress()] == [B]

    def test_answers_of_before_a_removal_confirm_nothing_sent_since(self):
        """A member that is added again in the same term: its late answer is none to what it was sent later."""
        bench = Bench()
        bench.now = 101.0
        bench.heartbeat()
        bench.sender.set_members([])
        bench.sender.set_members([B])
        bench.now = 105.0
        bench.heartbeat()
        bench.sender.answered(B, sign_of_life(TERM, 1, 1))
        assert bench.progress.confirmed_s < 105.0

    def test_members_do_not_wait_for_one_another(self):
        """A slow member holds nobody back."""
        bench = Bench(members="bc")
        bench.sender.send(is_heartbeat=True)
        bench.take()
        bench.answer(success(TERM, 11, 1), "c")
        bench.add(2)
        bench.sender.send(is_heartbeat=False)
        assert [name for name, _ in bench.sent] == ["c"]
