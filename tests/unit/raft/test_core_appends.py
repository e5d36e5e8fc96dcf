"""Covers raft/core.py: appends, answers to them, and what is committed."""

import pytest

from raft.engine import REGULAR, Role
from raft.errors import InvariantError
from raft.membership import Member
from raft.messages import Append, AppendResponse, SnapshotRequest, TermNotice
from tests.unit.raft.cores import Cores, Store, append, entries, founded, member, rejection, sign_of_life, success


@pytest.fixture
def three():
    """Three members, `a` leads in term 1, everything settled."""
    cores = Cores("abc")
    cores.elect("a")
    cores.move(0.5)
    return cores


class TestCommit:
    """What is acknowledged is on a majority of disks."""

    def test_entries_reach_all_in_order(self, three):
        """What a leader proposes is applied once, in order, on every member."""
        three["a"].propose("x", "y")
        three["a"].propose("z")
        three.settle()
        three.move(0.5)
        for name in "abc":
            assert [data for _, data in three[name].store.applied] == [b"x", b"y", b"z"]

    def test_one_follower_is_enough_and_needed(self, three):
        """Two of three: the leader with either of the others, never alone."""
        three.cut("a")
        three["a"].propose("x")
        three.settle()
        assert three["a"].store.applied == []
        three.heal()
        three.cut("c")
        three.settle()
        assert three["a"].store.applied == [(4, b"x")]

    def test_followers_disk_counts_when_it_has_synced(self, three):
        """Section 1: acknowledged is what is durable. With both followers' disks held nothing is committed."""
        for name in "bc":
            three[name].is_disk_slow = True
        three["a"].propose("x")
        three.settle()
        assert three["a"].store.applied == []
        three["b"].sync()
        three.settle()
        assert three["a"].store.applied == [(4, b"x")]

    def test_leaders_disk_counts_when_it_has_synced(self, three):
        """Section 1: the leader is one of the majority only with what its own disk has."""
        three["a"].is_disk_slow = True
        three["c"].is_disk_slow = True
        three["a"].propose("x")
        three.settle()
        three["a"].core.tick()
        assert three["a"].store.applied == []
        three["a"].sync()
        assert three["a"].store.applied == [(4, b"x")]

    def test_followers_disks_are_enough(self, three):
        """Section 4.4: the leader's disk works in parallel; two others that have it are a majority."""
        three["a"].is_disk_slow = True
        three["a"].propose("x")
        three.settle()
        assert three["a"].store.applied == [(4, b"x")]
        assert three["a"].log.durable_index == 3


class TestAnswers:
    """Which answers count."""

    def test_answer_of_an_earlier_leadership_is_not_counted(self):
        """Section 2.1.1: an acknowledgement that outlived two elections speaks of entries its sender may have lost."""
        cores = Cores("abc")
        a = cores.elect("a")
        cores.cut("a")
        a.propose("lost")
        cores.elect("b")
        cores.heal()
        cores.move(0.5)
        cores.cut("b")
        cores.elect("a")
        term = a.consensus.term
        assert term == 3
        cores.heal()
        cores.move(0.5)
        cores.cut("a")
        a.propose("x", "y", "z")
        before = a.consensus.commit_index
        for old in range(1, term):
            a.receive("b", success(old, a.consensus.last_index + 1, 1))
            a.receive("c", success(old, a.consensus.last_index + 1, 1))
        assert a.consensus.commit_index == before
        assert {one.match_index for one in a.core.sender.progress()} <= set(range(before + 1))

    def test_answer_of_a_later_term_is_not_counted(self, three):
        """Nobody can answer a leader in a term it is not in; such an answer is dropped, too."""
        a = three["a"]
        three.cut("a")
        a.propose("x")
        a.receive("b", success(2, 5, 1))
        assert a.consensus.commit_index == 3

    def test_same_answer_twice_counts_once(self, three):
        """One member is one of a majority, however often it is heard; here two of five, and three are needed."""
        cores = Cores("abcde")
        a = cores.elect("a")
        cores.move(0.5)
        cores.cut("a")
        a.propose("x")
        number = a.core.sender.find(member("b")).round
        for _ in range(3):
            a.receive("b", success(1, 5, number))
        assert a.consensus.commit_index == 3

    @pytest.mark.parametrize("stranger", [member("x"), Member("b", "f" * 32), Member("b", "")])
    def test_answer_of_a_stranger_is_not_counted(self, three, stranger):
        """Neither a non-member's nor that of another journal of a member's node."""
        a = three["a"]
        three.cut("a")
        a.propose("x")
        a.receive(stranger, success(1, 5, 1))
        assert a.consensus.commit_index == 3

    def test_sign_of_life_is_no_acknowledgement(self, three):
        """It says that an append has come, not that it is durable."""
        a = three["a"]
        three.cut("a")
        a.propose("x")
        number = a.core.sender.find(member("b")).round
        a.receive("b", sign_of_life(1, 5, number))
        assert a.consensus.commit_index == 3
        a.receive("b", success(1, 5, number))
        assert a.consensus.commit_index == 4

    def test_only_a_leader_takes_answers(self, three):
        """What comes after leadership ended changes nothing."""
        three["b"].receive("c", success(1, 5, 1))
        assert (three["b"].consensus.role, three["b"].consensus.commit_index) == (Role.FOLLOWER, 3)


class TestResending:
    """The log of a follower is cut off only where a leader contradicts it."""

    @pytest.fixture
    def follower(self, three):
        """A follower with entries 4 to 8 acknowledged and committed."""
        three["a"].propose("v", "w", "x", "y", "z")
        three.settle()
        three.move(0.5)
        three["b"].take()
        return three["b"]

    @pytest.mark.parametrize(
        "late",
        [
            append(1, after=(2, 0), number=90),
            append(1, entries(4, 5, 1), after=(3, 1), number=90),
            append(1, entries(4, 8, 1), after=(3, 1), number=90),
            append(1, after=(8, 1), number=90),
        ],
    )
    def test_overlapping_resend_cuts_nothing(self, follower, late):
        """Section 1, 2.1.2, 2.1.3: a late or repeated append, or an empty heartbeat, is no reason to forget entries."""
        late = Append(1, late.commit_index, late.previous_index, late.previous_term, late.round, late.entries)
        before = follower.log[:]
        lsn = follower.log.lsn
        if late.entries:
            late.entries[:] = before[3 : 3 + len(late.entries)]
        follower.receive("a", late)
        assert (follower.log[:], follower.log.lsn) == (before, lsn)
        end = late.previous_index + len(late.entries)
        assert follower.take() == [("a", success(1, end + 1, 90))]

    def test_overlapping_resend_lowers_no_commit_index(self, follower):
        """Section 2.2.7: what is known to be committed stays so."""
        assert follower.consensus.commit_index == 8
        follower.receive("a", append(1, after=(2, 0), commit=8, number=90))
        assert follower.consensus.commit_index == 8

    @pytest.mark.parametrize("is_resent_before", [False, True])
    def test_contradiction_of_a_committed_entry_stops_the_node(self, follower, is_resent_before):
        """Nothing committed can be contradicted: the node must not go on, whatever was received before."""
        if is_resent_before:
            follower.receive("a", append(1, after=(2, 0), number=90))
        with pytest.raises(InvariantError, match=r"leader c@.* of term 5 contradicts committed entry 5"):
            follower.receive("c", append(5, [(REGULAR + b"other", 5, 5)], after=(4, 1)))

    def test_success_speaks_of_what_was_compared_only(self, follower):
        """The follower's log may be longer than an append proves: its answer ends with the append."""
        follower.receive("a", append(1, follower.log[3:5], after=(3, 1), number=91))
        assert follower.take() == [("a", success(1, 6, 91))]


class TestConvergence:
    """Whatever a follower has, it gets the leader's log, soon."""

    def test_rejection_back_off_takes_one_round_trip(self):
        """Section 2.2.2: a hundred divergent entries cost two rejections at most, not a hundred."""
        shared = [*founded("abc"), *entries(3, 10, 1)]
        new = [*shared, *entries(11, 20, 3)]
        cores = Cores(
            "abc",
            logs={"a": new, "b": new, "c": [*shared, *entries(11, 120, 2, "lost")]},
            stores={name: Store(10, 1, "abc") for name in "abc"},
        )
        rejections = []
        cores.lose = lambda source, to, message: (
            isinstance(message, AppendResponse) and message.is_rejection and rejections.append(message)
        )
        a = cores["a"]
        cores.cut("c")
        cores.elect("a")
        cores.heal()
        cores.settle()
        cores.move(0.5)
        assert cores["c"].log[:] == a.log[:]
        assert len(rejections) == 1

    def test_divergent_tail_and_backlog_converge(self):
        """Section 2.2.1: the stock sender never gets a follower with a divergent tail through a backlog of many batches."""
        shared = [*founded("abc"), *entries(3, 5, 1)]
        new = [(REGULAR + bytes(100_000) + b"%d" % index, index, 2) for index in range(6, 60)]
        lost = entries(6, 30, 1, "lost")
        cores = Cores("abc", logs={"a": [*shared, *new], "b": [*shared, *new], "c": [*shared, *lost]})
        a = cores.elect("a")
        a.propose("end")
        assert cores.settle() < 400
        cores.move(0.5)
        for name in "bc":
            assert cores[name].log[:] == a.log[:]
            assert cores[name].store.at == a.store.at

    def test_lost_messages_are_made_good(self, three):
        """Every third message is lost: everybody still gets everything."""
        count = [0]

        def lose(source, to, message):
            count[0] += 1
            return count[0] % 3 == 0

        three.lose = lose
        for number in range(50):
            if three.leaders:
                leader = three[three.leaders[0]]
                leader.consensus.propose([b"%d" % number])
                leader.core.flush()
                leader.work()
            three.move(0.1)
        three.lose = lambda source, to, message: False
        for name in three.leaders:
            for other in set("abc") - {name}:
                three[name].core.connected(member(other))
        three.move(5)
        assert three["a"].store.applied == three["b"].store.applied == three["c"].store.applied
        assert len(three["a"].store.applied) >= 20

    def test_lagging_follower_gets_the_backlog(self, three):
        """After a cut the missing entries follow at once, without waiting for a heartbeat."""
        three.cut("c")
        three["a"].propose(*map(str, range(200)))
        three.settle()
        three.heal()
        three.settle()
        assert three["c"].log[:] == three["a"].log[:]


class TestTerms:
    """Which leader is heard."""

    @pytest.mark.parametrize("stale", [append(1, after=(2, 0)), append(0, after=(1, 0))])
    def test_append_of_an_earlier_term_is_answered_with_the_current_one(self, three, stale):
        """Section 2.2.3: a deposed leader must learn of it, and its entries are not taken."""
        b = three["b"]
        three.cut("a")
        three.elect("c")
        before = b.log[:]
        b.take()
        b.receive("a", stale)
        assert b.take() == [("a", TermNotice(2))]
        assert b.log[:] == before
        assert b.consensus.leader == member("c")

    def test_deposed_leader_steps_down_when_told(self, three):
        """Section 2.2.3: the notice ends its leadership at once, and gives nobody its vote."""
        a = three["a"]
        a.receive("b", TermNotice(5))
        assert (a.consensus.role, a.consensus.term, a.log.getVotedForNodeId()) == (Role.FOLLOWER, 5, None)
        assert a.core.sender is None

    def test_notice_of_a_stranger_deposes_nobody(self, three):
        """A node that is not part of the cluster has no say in its terms."""
        for stranger in (member("x"), Member("b", "f" * 32)):
            three["a"].receive(stranger, TermNotice(5))
        assert (three["a"].consensus.role, three["a"].consensus.term) == (Role.LEADER, 1)

    def test_notice_of_the_same_or_an_earlier_term_says_nothing(self, three):
        """Late notices change nothing."""
        for term in (0, 1):
            three["a"].receive("b", TermNotice(term))
        assert three["a"].is_leader

    def test_second_leader_of_one_term_is_not_followed(self, three):
        """It cannot be; a leader that hears of one keeps its log."""
        before = three["a"].log[:]
        three["a"].receive("b", append(1, [(REGULAR + b"y", 4, 1)], after=(3, 1)))
        assert three["a"].log[:] == before
        assert three["a"].is_leader

    def test_messages_that_are_not_rafts_are_a_bug(self, three):
        """Snapshot chunks go another way."""
        with pytest.raises(InvariantError, match="SnapshotRequest reached the core"):
            three["a"].core.receive(member("b"), SnapshotRequest(b"", 0, 1))

    def test_rejections_of_an_earlier_term_move_nothing(self, three):
        """Section 2.1.1 for rejections: they speak of another leadership's messages."""
        a = three["a"]
        before = a.core.sender.find(member("b")).next_index
        a.receive("b", rejection(0, 1, 1))
        assert a.core.sender.find(member("b")).next_index == before
