"""Covers raft/core.py: who counts, from when on, and what brings an earlier configuration back."""

import pytest

from raft.engine import NO_OP, Role
from raft.journal.log import BASE_COMMAND, Log
from raft.membership import Configuration, Member
from raft.messages import Append, VoteRequest, VoteResponse
from tests.unit.raft.cores import (
    GENESIS,
    Cores,
    Store,
    append,
    config_entry,
    configuration,
    entries,
    founded,
    member,
    success,
)


@pytest.fixture
def four():
    """Three members of which `a` leads, and a node that is none."""
    cores = Cores("abcd", of="abc", logs={"d": [(NO_OP, 1, 0)]})
    cores.elect("a")
    cores.move(0.5)
    return cores


def change(cores, names, name="a"):
    """The leader proposes that the members are `names`."""
    logged = cores[name].core.propose_configuration(configuration(names))
    cores[name].core.flush()
    cores[name].work()
    return logged


class TestEffect:
    """Raft dissertation, section 4.1."""

    def test_takes_effect_in_the_log_not_when_committed(self, four):
        """The leader counts by it at once, a follower from the append on; nothing is committed yet."""
        four.cut("a", "c", "d")
        change(four, "abcd")
        assert four["a"].names == "abcd"
        assert not four["a"].core.is_configuration_committed
        four.cut("b", "a")
        four["b"].receive("a", append(1, four["a"].log[-1:], after=(3, 1), number=99))
        assert four["b"].names == "abcd"
        assert four["b"].consensus.commit_index == 3

    def test_change_is_committed_by_the_new_majority(self, four):
        """Three of four: with two the entry that makes them four is not committed."""
        four.cut("a", "c", "d")
        change(four, "abcd")
        four.settle()
        assert four["a"].consensus.commit_index == 3
        four.heal()
        four.cut("d")
        four.settle()
        assert four["a"].consensus.commit_index == 4
        assert four["a"].core.is_configuration_committed

    def test_place_without_a_journal_counts_but_has_no_voice(self, four):
        """O430: a node that was never seen makes the majority larger; three of four must have an entry."""
        wanted = configuration("abc").with_member(Member("d", ""))
        four.cut("c")
        four["a"].core.propose_configuration(wanted)
        four["a"].core.flush()
        four["a"].work()
        four.settle()
        assert four["a"].consensus.commit_index == 3
        four["a"].receive("d", success(1, 5, 1))
        four["a"].receive(Member("d", ""), success(1, 5, 1))
        assert four["a"].consensus.commit_index == 3

    def test_one_change_at_a_time(self, four):
        """The next may be proposed when the last one is committed, so that majorities overlap."""
        four.cut("a")
        change(four, "abcd")
        with pytest.raises(AssertionError):
            change(four, "abc")
        four.heal()
        four.settle()
        assert change(four, "abc") == (5, 1)

    def test_only_a_leader_proposes_one(self, four):
        """Elsewhere nothing is logged."""
        assert four["b"].core.propose_configuration(configuration("ab")) is None
        assert four["b"].names == "abc"

    def test_member_that_was_added_gets_everything_and_counts(self, four):
        """It learns who the members are from the log itself."""
        change(four, "abcd")
        four.settle()
        four.move(0.5)
        assert (four["d"].names, four["d"].store.at) == ("abcd", (4, 1))
        four.cut("b")
        four["a"].propose("x")
        four.settle()
        four.move(0.3)
        assert four["d"].store.applied == [(5, b"x")]

    def test_member_that_was_removed_counts_no_more(self, four):
        """Neither its answers nor its votes; nothing more is sent to it."""
        change(four, "ab")
        four.settle()
        four.cut("a")
        four["a"].propose("x")
        four["a"].receive("c", success(1, 6, four["a"].core.sender.find(member("b")).round))
        assert four["a"].consensus.commit_index == 4
        assert four["a"].core.sender.find(member("c")) is None

    def test_leader_that_removed_itself_commits_with_the_others(self, four):
        """Raft dissertation, section 4.2.2: it leads until that is committed, and does not count itself."""
        change(four, "bc")
        assert not four["a"].core.is_voter
        four.cut("c")
        four.settle()
        assert four["a"].consensus.commit_index == 3
        four.heal()
        four.settle()
        assert four["a"].consensus.commit_index == 4
        assert four["a"].is_leader
        four.cut("a")
        four.move(10)
        assert [name for name in four.leaders if name != "a"]
        assert four["a"].consensus.role is Role.FOLLOWER


class TestUndone:
    """What is not committed may be cut off."""

    def test_truncation_brings_the_one_before_back(self, four):
        """Section 2.1.12: a configuration of a deposed leader goes with the entry that held it."""
        four.cut("a")
        change(four, "abcd")
        assert four["a"].names == "abcd"
        four.elect("b")
        four["b"].propose("x")
        four.settle()
        four.heal()
        four.settle()
        four.move(0.5)
        assert {four[name].names for name in "abc"} == {"abc"}
        assert four["a"].commands == ["x"]
        assert four["a"].changes == 2

    def test_configuration_that_is_not_contradicted_stays(self, four):
        """Section 2.1.12: the stock code undoes every membership entry behind the append's position, conflict or not."""
        change(four, "abcd")
        four.settle()
        b = four["b"]
        b.receive("a", append(1, after=(2, 0), number=90))
        b.receive("a", append(1, b.log[2:4], after=(2, 0), number=91))
        assert (b.names, b.changes) == ("abcd", 1)

    def test_other_configuration_in_the_same_place(self, four):
        """One append may both cut a configuration off and bring another."""
        c = four["c"]
        c.receive("a", append(1, [config_entry(4, "abcd", 1)], after=(3, 1), number=90))
        assert c.names == "abcd"
        c.receive("b", append(2, [(NO_OP, 4, 2), config_entry(5, "bc", 2)], after=(3, 1), number=1))
        assert c.names == "bc"
        c.receive("b", append(2, [(NO_OP, 4, 2), config_entry(5, "bc", 2)], after=(3, 1), number=2))
        assert c.names == "bc"

    def test_rejected_append_brings_nothing(self, four):
        """What did not get into the log does not count."""
        c = four["c"]
        c.receive("a", append(1, [config_entry(8, "abcd", 1)], after=(7, 1), number=90))
        assert (c.names, c.log[-1][1]) == ("abc", 3)

    def test_rejected_append_of_before_the_log_brings_nothing(self):
        """A member whose log begins later than what it is sent, since its state is missing, refuses and goes on."""
        old = [*founded("abc"), *entries(3, 4, 1), config_entry(5, "abcd", 1), *entries(6, 9, 1)]
        for last in (12, 30):
            cores = Cores("abc", logs={"c": entries(10, last, 1)}, stores={"c": Store(3, 1, "abc")})
            c = cores["c"]
            c.may_apply = False
            c.receive("a", append(1, old[3:], after=(3, 1), number=1))
            assert (c.names, c.log[:]) == ("abc", entries(10, last, 1))
            assert c.take()[0][1].is_rejection


class TestFound:
    """What a start finds."""

    def test_newest_in_the_log_counts_and_the_applied_one_is_before_it(self):
        """Committed or not; an older log may hold configurations that the state has already."""
        log = [*founded("ab"), *entries(3, 4, 1), config_entry(5, "abc", 1), config_entry(6, "abcd", 1)]
        cores = Cores("a", logs={"a": log}, stores={"a": Store(5, 1, "abc")})
        a = cores["a"]
        assert a.names == "abcd"
        assert not a.core.is_configuration_committed
        a.receive("b", append(2, [(NO_OP, 6, 2)], after=(5, 1)))
        assert a.names == "abc"

    def test_state_alone_knows_it_when_the_log_was_reset(self):
        """Behind a snapshot the log has none: it is part of the state."""
        log = [(BASE_COMMAND, 19, 2), (BASE_COMMAND, 20, 2)]
        cores = Cores("a", logs={"a": log}, stores={"a": Store(20, 2, "abc")})
        assert cores["a"].names == "abc"
        assert cores["a"].core.is_configuration_committed

    def test_founding(self):
        """The first configuration is entry 2 in no term: whoever is elected builds on it."""
        cores = Cores("abc", of="")
        cores["a"].core.form(configuration("abc"))
        cores["a"].work()
        assert cores["a"].log[:] == founded("abc")
        assert cores["a"].log.getCurrentTerm() == 0
        cores.elect("a")
        cores.move(0.5)
        assert [peer.store.at for peer in cores.peers.values()] == [(3, 1)] * 3
        assert {peer.store.config for peer in cores.peers.values()} == {configuration("abc").encode()}

    def test_two_clusters_cannot_be_made_one_by_a_founding(self):
        """A log with anything in it founds nothing."""
        cores = Cores("a", of="")
        cores["a"].core.form(configuration("a"))
        with pytest.raises(AssertionError):
            cores["a"].core.form(Configuration.of(b"another genesis!", [member("a")]))
        assert cores["a"].core.configuration.genesis == GENESIS


class TestLearners:
    """Nodes that get the log and do not count."""

    def test_learner_gets_the_log_and_counts_for_nothing(self, four):
        """Raft dissertation, section 4.2.1: a commit never waits for it, and is never made by it."""
        four["a"].core.set_learners([member("d")])
        four["a"].propose("x")
        four.move(0.5)
        assert four["d"].commands == ["x"]
        four.cut("a", "b", "c")
        four["a"].propose("y")
        four.settle()
        assert four["d"].commands == ["x", "y"]
        assert four["a"].consensus.commit_index == 4

    def test_learner_that_becomes_a_member_keeps_what_is_known(self, four):
        """It counts with its next answer, and is not probed anew."""
        four["a"].core.set_learners([member("d")])
        four["a"].propose("x")
        four.move(0.5)
        progress = four["a"].core.sender.find(member("d"))
        change(four, "abcd")
        assert four["a"].core.sender.find(member("d")) is progress
        four.cut("b")
        four.settle()
        assert four["a"].consensus.commit_index == 5

    def test_learners_are_forgotten_with_leadership(self, four):
        """The next leader decides anew."""
        four["a"].core.set_learners([member("d")])
        four["a"].receive("b", VoteRequest(2, 9, 9, is_forced=True))
        four.queue.clear()
        four.elect("a")
        assert four["a"].core.sender.find(member("d")) is None

    def test_later_term_of_a_learner_ends_the_leadership(self, four):
        """A newcomer may have a later term in its journal; the leader must pass it, or could never send to it."""
        four["d"].log.setCurrentTerm(9, None)
        cores = Cores("abcd", of="abc")
        cores.start("d", Log([(NO_OP, 1, 0)], term=9))
        cores.elect("a")
        cores["a"].core.set_learners([member("d")])
        cores.move(5)
        assert cores[cores.leaders[0]].consensus.term >= 9


def test_votes_of_former_members_elect_nobody():
    """A candidate whose configuration has changed meanwhile, by a snapshot, needs a majority of the new one."""
    cores = Cores("abcdefg")
    a = cores["a"]
    cores.now = a.consensus.election_deadline_s + 0.01
    a.consensus.elect()
    a.work()
    for name in "fg":
        a.receive(name, VoteResponse(1))
    a.core.installed(5, 0, configuration("abcde"))
    a.receive("b", VoteResponse(1))
    assert a.consensus.role is not Role.LEADER


def test_append_carries_configurations_of_the_leader(four):
    """They are entries like any other, in their place."""
    change(four, "abcd")
    sent = [message for to, message in four["a"].take() if to == "b" and isinstance(message, Append)]
    assert [entry for message in sent for entry in message.entries][-1] == config_entry(4, "abcd", 1)
