"""Covers raft/core.py: who stands for election, who helps whom, and until when a leader may serve."""

import pytest

from raft.engine import Role, Timing
from raft.journal.log import Log
from raft.membership import Member
from raft.messages import (
    PreVoteRequest,
    PreVoteResponse,
    TermNotice,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.unit.raft.cores import Cores, Store, append, entries, founded, member, sign_of_life

TIMING = Timing()


def vote_request(term, *, last=(9, 9), is_forced=False):
    """A request of a candidate whose log is long enough for everybody."""
    return VoteRequest(term, *last, is_forced=is_forced)


@pytest.fixture
def three():
    """Three members, `a` leads in term 1, everything settled."""
    cores = Cores("abc")
    cores.elect("a")
    cores.move(0.5)
    return cores


def timed_out(cores, name):
    """A member has waited long enough and asks, while the others do not."""
    peer = cores[name]
    cores.now = max(cores.now, peer.consensus.election_deadline_s) + 0.01
    peer.core.tick()
    peer.work()
    return peer


def kinds(sent):
    return [(to, type(message).__name__) for to, message in sent]


class TestPreVote:
    """Raft dissertation, section 9.6; section 2.2.4."""

    def test_nobody_raises_its_term_without_a_majority(self, three):
        """A member that is cut off asks for ever and disturbs nobody when it is back."""
        three.cut("c")
        three.move(20)
        assert (three["c"].consensus.role, three["c"].consensus.term) == (Role.FOLLOWER, 1)
        three.heal()
        three.move(1)
        assert three.leaders == ["a"]
        assert {three[name].consensus.term for name in "abc"} == {1}

    def test_question_goes_to_those_that_are_up(self, three):
        """Nothing is sent that would be lost; the question changes no term and no vote."""
        three.cut("a")
        b = timed_out(three, "b")
        assert b.take() == [("c", PreVoteRequest(1, 3, 1))]
        assert (b.consensus.term, b.log.getVotedForNodeId()) == (1, member("a").key)

    def test_majority_of_answers_begins_the_election(self, three):
        """With one of two the own voice is a majority."""
        b = timed_out(three, "b")
        b.take()
        b.receive("c", PreVoteResponse(1))
        assert (b.consensus.role, b.consensus.term) == (Role.CANDIDATE, 2)
        assert kinds(b.take()) == [("a", "VoteRequest"), ("c", "VoteRequest")]

    @pytest.mark.parametrize(("voter", "term"), [("b", 0), ("c", 1), ("x", 0), (Member("c", "f" * 32), 0)])
    def test_answers_that_do_not_count(self, voter, term):
        """The same member twice, another term, a stranger, another journal: five members need three voices."""
        cores = Cores("abcde")
        a = timed_out(cores, "a")
        a.take()
        a.receive("b", PreVoteResponse(0))
        a.receive(voter, PreVoteResponse(term))
        assert (a.consensus.role, a.consensus.term) == (Role.FOLLOWER, 0)
        a.receive("c", PreVoteResponse(0))
        assert (a.consensus.role, a.consensus.term) == (Role.CANDIDATE, 1)

    def test_answer_that_comes_after_a_leader_was_heard_is_late(self, three):
        """Whoever hears the leader again does not stand against it on the strength of older answers."""
        b = timed_out(three, "b")
        b.take()
        b.receive("a", append(1, after=(3, 1), number=90))
        b.receive("c", PreVoteResponse(1))
        assert (b.consensus.role, b.consensus.term) == (Role.FOLLOWER, 1)

    @pytest.mark.parametrize(
        ("request_", "is_granted"),
        [
            (PreVoteRequest(1, 3, 1), True),
            (PreVoteRequest(1, 2, 1), False),
            (PreVoteRequest(1, 9, 0), False),
            (PreVoteRequest(7, 3, 1), True),
        ],
    )
    def test_answer_needs_a_log_that_is_long_enough(self, three, request_, is_granted):
        """Raft paper, section 5.4.1, asked before: who could not win does not stand. A refusal is silence."""
        c = three["c"]
        three.now += TIMING.election_min_s + 0.01
        c.receive("b", request_)
        assert c.take() == ([("b", PreVoteResponse(request_.term))] if is_granted else [])
        assert c.consensus.term == 1

    def test_question_of_an_earlier_term_is_answered_with_the_current_one(self, three):
        """Section 2.2.3: whoever asks must know the term to ask for."""
        three["c"].receive("b", PreVoteRequest(0, 9, 9))
        assert three["c"].take() == [("b", TermNotice(1))]

    def test_leader_helps_nobody(self, three):
        """It is alive."""
        three.now += 10
        three["a"].receive("b", PreVoteRequest(1, 9, 9))
        assert three["a"].take() == []


class TestStickiness:
    """Raft dissertation, section 4.2.3: nobody deposes a leader that is heard."""

    @pytest.mark.parametrize("message", [PreVoteRequest(1, 9, 9), vote_request(5)])
    def test_follower_of_a_living_leader_helps_nobody(self, three, message):
        """Within the shortest election timeout of hearing it: no vote, no pre-vote, and the term stays."""
        c = three["c"]
        c.receive("a", append(1, after=(3, 1), number=90))
        c.take()
        three.now += TIMING.election_min_s - 0.01
        c.receive("b", message)
        assert (c.take(), c.consensus.term) == ([], 1)
        three.now += 0.02
        c.receive("b", message)
        assert kinds(c.take()) in ([("b", "PreVoteResponse")], [("b", "VoteResponse")])

    @pytest.mark.parametrize("heard", [PreVoteRequest(1, 9, 9), TermNotice(1), sign_of_life(1, 4, 1)])
    def test_only_a_leader_is_heard(self, three, heard):
        """Messages of others say nothing about a leader."""
        c = three["c"]
        three.now += TIMING.election_min_s + 0.01
        c.receive("b", heard)
        c.take()
        c.receive("b", PreVoteRequest(1, 9, 9))
        assert kinds(c.take()) == [("b", "PreVoteResponse")]

    @pytest.mark.parametrize("message", [PreVoteRequest(1, 9, 9), vote_request(5), vote_request(1)])
    def test_nobody_is_helped_soon_after_a_start(self, message):
        """B401: before it ended the process may have told a leader that it was heard, whose lease still runs."""
        cores = Cores("abc")
        c = cores.start("c", Log(founded("abc"), term=1))
        cores.now += TIMING.election_min_s - 0.01
        c.receive("b", message)
        assert c.take() == []
        cores.now += 0.02
        c.receive("b", message)
        assert len(c.take()) == 1

    def test_vote_in_a_term_learned_meanwhile_waits_as_well(self, three):
        """B401: a notice of the later term comes first, then its candidate: the leader heard just before may still serve."""
        c = three["c"]
        c.receive("a", append(1, after=(3, 1), number=90))
        c.take()
        c.receive("b", TermNotice(2))
        c.receive("b", vote_request(2))
        assert c.take() == []

    def test_forced_request_is_served_at_once(self, three):
        """The leader itself asked for the election: nobody waits for it to be gone."""
        c = three["c"]
        c.receive("a", append(1, after=(3, 1), number=90))
        c.take()
        c.receive("b", vote_request(2, is_forced=True))
        assert c.take() == [("b", VoteResponse(2))]

    def test_leader_gives_way_to_a_later_term(self, three):
        """A majority has helped already, or the link is one-sided: the leader does not stay in the way."""
        three["a"].receive("b", vote_request(2))
        assert (three["a"].consensus.role, three["a"].consensus.term) == (Role.FOLLOWER, 2)


class TestVotes:
    """Section 2.1.4."""

    def candidate(self, names="abcde"):
        cores = Cores(names)
        a = timed_out(cores, "a")
        for name in names[1:]:
            a.receive(name, PreVoteResponse(0))
        a.take()
        assert (a.consensus.role, a.consensus.term) == (Role.CANDIDATE, 1)
        return a

    def test_same_vote_delivered_twice_is_one(self):
        """Two of five do not lead, however often the second one is heard."""
        a = self.candidate()
        for _ in range(5):
            a.receive("b", VoteResponse(1))
        assert a.consensus.role is Role.CANDIDATE
        a.receive("c", VoteResponse(1))
        assert a.is_leader

    @pytest.mark.parametrize("voter", [member("x"), Member("c", "f" * 32), Member("c", ""), member("a")])
    def test_vote_of_a_stranger_does_not_count(self, voter):
        """Nor that of another journal under a member's id, nor the own one coming back."""
        a = self.candidate()
        a.receive("b", VoteResponse(1))
        a.receive(voter, VoteResponse(1))
        assert a.consensus.role is Role.CANDIDATE

    @pytest.mark.parametrize("term", [0, 2])
    def test_vote_of_another_term_does_not_count(self, term):
        """It was given to another candidacy."""
        a = self.candidate("abc")
        a.receive("b", VoteResponse(term))
        assert a.consensus.role is Role.CANDIDATE

    @pytest.mark.parametrize(("names", "needed"), [("ab", 1), ("abc", 1), ("abcd", 2), ("abcde", 2)])
    def test_majority_of_the_members_elects(self, names, needed):
        """2 to 5 members: the candidate and as many others as make a majority."""
        a = self.candidate(names)
        for name in names[1:needed]:
            a.receive(name, VoteResponse(1))
            assert not a.is_leader
        a.receive(names[needed], VoteResponse(1))
        assert a.is_leader

    def test_second_candidacy_needs_votes_of_its_own(self):
        """Votes of an earlier term are gone with it."""
        cores = Cores("abcde")
        a = timed_out(cores, "a")
        for name in "bc":
            a.receive(name, PreVoteResponse(0))
        a.receive("b", VoteResponse(1))
        timed_out(cores, "a")
        for name in "bc":
            a.receive(name, PreVoteResponse(1))
        assert a.consensus.term == 2
        a.receive("c", VoteResponse(2))
        assert a.consensus.role is Role.CANDIDATE
        a.receive("b", VoteResponse(2))
        assert a.is_leader

    def test_vote_leaves_behind_the_disk(self, three):
        """Section 1, 4.4: a vote that a power failure could take back would elect two; so would the candidate's own."""
        c = three["c"]
        c.is_disk_slow = True
        three.now += 10
        c.receive("b", vote_request(2))
        assert c.take() == []
        c.sync()
        assert c.take() == [("b", VoteResponse(2))]
        b = timed_out(three, "b")
        b.is_disk_slow = True
        b.take()
        b.receive("c", PreVoteResponse(1))
        assert (b.consensus.role, b.take()) == (Role.CANDIDATE, [])
        b.sync()
        assert kinds(b.take()) == [("a", "VoteRequest"), ("c", "VoteRequest")]

    def test_candidate_of_an_earlier_term_is_told(self, three):
        """Section 2.2.3."""
        three["c"].receive("b", vote_request(0))
        assert three["c"].take() == [("b", TermNotice(1))]

    def test_lagging_log_gets_no_vote(self):
        """Raft paper, section 5.4.1: a member that lacks what is committed cannot win."""
        full = [*founded("abc"), *entries(3, 9, 1)]
        cores = Cores("abc", logs={"a": full, "b": full, "c": full[:6]})
        cores.move(30)
        assert cores.leaders
        assert cores.leaders != ["c"]


class TestStanding:
    """Who may be a candidate at all."""

    def test_node_without_a_configuration_waits(self):
        """A new node asks nobody and elects nobody, however long."""
        cores = Cores("ab", of="")
        cores.move(30)
        assert [(peer.consensus.role, peer.consensus.term) for peer in cores.peers.values()] == [(Role.FOLLOWER, 0)] * 2

    def test_node_that_is_no_member_waits(self):
        """A journal of before a loss, or of a removed node."""
        cores = Cores("abcd", of="abc")
        cores.cut("a")
        cores.cut("b")
        cores.cut("c")
        cores.move(30)
        assert (cores["d"].consensus.role, cores["d"].consensus.term, cores["d"].take()) == (Role.FOLLOWER, 0, [])

    def test_node_that_lacks_the_state_before_its_log_waits(self):
        """It could not apply what it would commit; it still votes for others, by its log."""
        cores = Cores("abc")
        c = cores["c"]
        c.may_apply = False
        timed_out(cores, "c")
        assert c.take() == []
        c.receive("b", vote_request(1))
        assert c.take() == [("b", VoteResponse(1))]

    def test_node_that_may_not_stand_does_not_take_over(self):
        """A request to take over is for those that can lead."""
        cores = Cores("abc")
        cores.elect("a")
        cores.move(0.5)
        cores["c"].may_apply = False
        cores["c"].receive("a", TimeoutNow(1))
        assert (cores["c"].consensus.role, cores["c"].consensus.term) == (Role.FOLLOWER, 1)

    def test_new_node_votes_for_a_founder(self):
        """Members of a new cluster learn that they are with the first append; until then they vote by their logs."""
        cores = Cores("abc", logs={"a": founded("abc"), "b": [], "c": []})
        cores.move(10)
        assert cores.leaders == ["a"]
        assert {peer.names for peer in cores.peers.values()} == {"abc"}

    def test_lone_member_leads_without_waiting(self):
        """There is nobody to ask."""
        cores = Cores("a")
        cores["a"].core.start()
        assert cores["a"].is_leader

    def test_lone_member_that_lost_leadership_leads_again(self):
        """A later term, seen somewhere, costs a cluster of one an election timeout and no more."""
        cores = Cores("a")
        cores["a"].core.start()
        cores["a"].work()
        cores["a"].receive("a", vote_request(7))
        assert not cores["a"].is_leader
        cores.move(2)
        assert (cores.leaders, cores["a"].consensus.term) == (["a"], 8)


class TestTakingOver:
    """Raft dissertation, section 3.10."""

    def test_follower_that_is_asked_stands_at_once_and_wins(self, three):
        """No timeout passes, and no follower waits for its leader to be gone."""
        three["b"].receive("a", TimeoutNow(1))
        three.settle()
        assert three.leaders == ["b"]
        assert three["b"].consensus.term == 2

    @pytest.mark.parametrize(("source", "term"), [("a", 0), ("a", 2), ("c", 1), ("x", 1)])
    def test_only_the_leader_of_the_term_can_ask(self, three, source, term):
        """Late or foreign requests start nothing."""
        three["b"].receive(source, TimeoutNow(term))
        assert (three["b"].consensus.role, three["b"].take()) == (Role.FOLLOWER, [])

    def test_only_the_first_election_is_forced(self, three):
        """If it fails the next one asks first, like any other."""
        b = three["b"]
        three.cut("b")
        b.receive("a", TimeoutNow(1))
        assert [message.is_forced for _, message in b.take()] == [True, True]
        timed_out(three, "b")
        assert (b.consensus.term, kinds(b.take())) == (2, [])


class TestLease:
    """B401: until when a leader is certain that nobody else leads."""

    def confirm(self, cores, name, at):
        """A member answers what the leader sent at that time."""
        progress = cores["a"].core.sender.find(member(name))
        number = next(number for number, sent in progress.sent_s if sent == at)
        cores["a"].receive(name, sign_of_life(1, 1, number))

    @pytest.mark.parametrize(("names", "needed"), [("ab", 1), ("abc", 1), ("abcd", 2), ("abcde", 2)])
    def test_majority_confirms(self, names, needed):
        """2 to 5 members: the lease ends a fixed time after sending what the last one needed has answered."""
        cores = Cores(names)
        a = cores.elect("a")
        cores.lose = lambda source, to, message: True
        before = a.core.lease_until_s
        cores.now += 5
        for name in names[1:]:
            cores["a"].core.sender.find(member(name)).heard_s = cores.now
            a.consensus.heard(member(name))
        sent_at = cores.now
        a.core.tick()
        cores.queue.clear()
        cores.now += 0.1
        for name in names[1:needed]:
            self.confirm(cores, name, sent_at)
            assert a.core.lease_until_s == before
        self.confirm(cores, names[needed], sent_at)
        assert a.core.lease_until_s == sent_at + TIMING.lease_s

    def test_lone_leader_has_it_for_ever(self):
        """There is nobody who could be elected."""
        cores = Cores("a")
        cores["a"].core.start()
        assert cores["a"].core.lease_until_s == float("inf")

    def test_only_a_leader_has_one(self, three):
        """It ends with leadership, and a new one begins with nothing."""
        assert three["b"].core.lease_until_s == float("-inf")
        assert three["a"].core.lease_until_s > three.now
        three["a"].receive("b", TermNotice(2))
        assert three["a"].core.lease_until_s == float("-inf")
        three.queue.clear()
        three.lose = lambda source, to, message: (
            not isinstance(message, (PreVoteRequest, PreVoteResponse, VoteRequest, VoteResponse))
        )
        assert three.elect("a").core.lease_until_s == float("-inf")

    def test_nobody_else_leads_while_it_lasts(self):
        """Whatever is cut: at no moment two members hold a lease. Every order of cuts of five members, on a clock."""
        cores = Cores("abcde")
        cores.move(3)
        for cut in ("a", "b", "ab", "cd", "e", "ce", "d"):
            for name in cut:
                cores.cut(name, *(set("abcde") - set(cut)))
            for _ in range(60):
                cores.move(0.05)
                holders = [name for name, peer in cores.peers.items() if cores.now < peer.core.lease_until_s]
                assert len(holders) <= 1
            cores.heal()
            cores.move(1)
        assert len(cores.leaders) == 1

    def test_silent_leader_gives_up_its_role(self, three):
        """Section 1: not after 30 s, but after `quorum_silence_s` without a majority."""
        three.cut("a")
        three.move(TIMING.quorum_silence_s - 0.3)
        assert three["a"].is_leader
        three.move(0.6)
        assert three["a"].consensus.role is Role.FOLLOWER
        three.move(3)
        assert len(three.leaders) == 1


def test_restarted_member_is_the_same_voter(three):
    """A process that comes back with its journal keeps its vote, term and log, and its place."""
    old = three["b"]
    three.start("b", Log(old.log[:], term=1, voted_for=old.log.getVotedForNodeId()), Store(3, 1, "abc"))
    three["a"].core.connected(member("b"))
    three["a"].propose("x")
    three.move(0.5)
    assert three["b"].store.applied == [(4, b"x")]
