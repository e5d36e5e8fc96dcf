"""Covers raft/core.py: offers of a snapshot, and what one that was installed does to log and commit."""

import pytest

from raft.engine import NO_OP, Role
from raft.journal.log import BASE_COMMAND
from raft.messages import SnapshotOffer, TermNotice
from tests.unit.raft.cores import (
    Cores,
    Store,
    append,
    config_entry,
    configuration,
    entries,
    founded,
    member,
    sign_of_life,
    success,
)


def follower(log, at=None, *, names="abc"):
    """A member `c` with that log and a store that has applied up to `at`."""
    cores = Cores("abc", of=names, logs={"c": log}, stores={"c": None if at is None else Store(*at, names)})
    return cores["c"]


def offer(base, term=2, base_term=2, number=7):
    return SnapshotOffer(term, number, base, base_term)


LOG = [*founded("abc"), *entries(3, 10, 2)]


class TestOffers:
    """Section 4.3."""

    def test_what_the_log_lacks_is_fetched(self):
        """The log ends before the leader's begins: nothing else helps. The leader is told that it was heard, no more."""
        c = follower(LOG, (3, 2))
        c.receive("a", offer(20))
        assert c.needed == [(member("a"), 20)]
        assert c.take() == [("a", sign_of_life(2, 4, 7))]
        assert (c.consensus.leader, c.consensus.term) == (member("a"), 2)

    def test_nothing_is_committed_on_a_mere_offer(self):
        """Section 1: the stock code commits the follower's own tail, which nobody has compared, while a snapshot is sent."""
        c = follower([*founded("abc"), *entries(3, 10, 1)], (3, 1))
        c.receive("a", offer(9, base_term=2))
        assert c.consensus.commit_index == 3
        assert c.store.applied == []

    @pytest.mark.parametrize("base", [5, 10])
    def test_log_that_has_the_base_needs_no_snapshot(self, base):
        """Section 2.1.7: the log applies itself up to there, and the leader goes on behind it. Nothing is fetched."""
        c = follower(LOG, (3, 2))
        c.receive("a", offer(base))
        assert c.needed == []
        assert c.store.at == (base, 2)
        assert c.take() == [("a", success(2, base + 1, 7))]
        assert c.log[:] == LOG

    def test_other_term_at_the_base_is_not_the_base(self):
        """The same index with another term is a tail that nobody has committed."""
        c = follower(LOG, (3, 2))
        c.receive("a", offer(5, term=3, base_term=3))
        assert c.needed == [(member("a"), 5)]
        assert c.consensus.commit_index == 3

    def test_state_that_has_the_base_needs_no_snapshot(self):
        """Section 4.3: applied is applied, whatever the log still holds."""
        c = follower([(BASE_COMMAND, 19, 2), (BASE_COMMAND, 20, 2)], (20, 2))
        c.receive("a", offer(15))
        assert c.needed == []
        assert c.take() == [("a", success(2, 21, 7))]

    def test_answer_leaves_behind_the_disk(self):
        """It says that everything up to there is durable."""
        c = follower([*LOG], (3, 2))
        c.is_disk_slow = True
        c.receive("a", append(2, entries(11, 12, 2), after=(10, 2), number=6))
        c.receive("a", offer(12))
        assert c.take() == []
        c.sync()
        assert c.take() == [("a", success(2, 13, 6)), ("a", success(2, 13, 7))]

    def test_offer_of_an_earlier_term_is_answered_with_the_current_one(self):
        """Section 2.2.3."""
        c = follower(LOG, (3, 2))
        c.receive("a", offer(20, term=1))
        assert (c.needed, c.take()) == ([], [("a", TermNotice(2))])

    def test_offer_is_a_sign_of_life(self):
        """A member that fetches for minutes starts no election, and helps with none."""
        c = follower(LOG, (3, 2))
        before = c.consensus.election_deadline_s
        c.cluster.now += 0.5
        c.receive("a", offer(20))
        assert c.consensus.election_deadline_s > before
        assert c.core._stickiness.holds(c.cluster.now)


class TestInstalled:
    """Section 2.1.7."""

    def installed(self, c, index, term, names="abc"):
        c.store.at, c.store.config = (index, term), configuration(names).encode()
        c.applier.restored(index, term)
        c.core.installed(index, term, configuration(names))
        c.work()

    def test_log_behind_the_snapshot_is_kept(self):
        """Entries that were acknowledged stay, if the log has the snapshot's last entry; only they are left to apply."""
        c = follower(LOG, (3, 2))
        c.receive("a", append(2, after=(10, 2)))
        c.take()
        self.installed(c, 7, 2)
        assert c.log[:] == LOG
        assert (c.consensus.commit_index, c.consensus.applied_index) == (7, 7)
        assert c.take() == [("a", success(2, 8, 0))]
        c.receive("a", append(2, after=(10, 2), commit=10, number=2))
        assert c.store.at == (10, 2)

    @pytest.mark.parametrize(("index", "term"), [(20, 2), (7, 3)])
    def test_log_that_lacks_it_begins_anew(self, index, term):
        """It ends before, or has another term there: what it has was never committed."""
        c = follower(LOG, (3, 2))
        c.receive("a", append(4, after=(1, 0)))
        c.take()
        self.installed(c, index, term)
        assert c.log[:] == [(BASE_COMMAND, index - 1, term), (BASE_COMMAND, index, term)]
        assert (c.consensus.commit_index, c.consensus.applied_index) == (index, index)
        assert c.take() == [("a", success(4, index + 1, 0))]

    def test_answer_leaves_when_the_new_log_is_durable(self):
        """The reset of the journal is a record like any other."""
        c = follower(LOG, (3, 2))
        c.receive("a", append(2, after=(10, 2)))
        c.take()
        c.is_disk_slow = True
        self.installed(c, 20, 2)
        assert c.take() == []
        c.sync()
        assert c.take() == [("a", success(2, 21, 0))]

    def test_missing_state_is_installed_and_the_journal_kept(self):
        """A journal that begins behind the store: the snapshot fills the gap, and what was acknowledged is still there."""
        journal = [*entries(10, 12, 2)]
        c = follower(journal, (3, 2))
        c.may_apply = False
        c.receive("a", append(2, after=(12, 2), commit=12))
        assert c.store.at == (3, 2)
        c.may_apply = True
        self.installed(c, 11, 2)
        assert c.log[:] == journal
        assert c.store.at == (12, 2)

    def test_configuration_is_part_of_it(self):
        """The members as of the snapshot; those of the log behind it are newer."""
        c = follower(LOG, (3, 2))
        self.installed(c, 20, 2, "abcd")
        assert c.names == "abcd"
        c = follower([*LOG, config_entry(11, "ac", 2)], (3, 2))
        self.installed(c, 10, 2, "abcd")
        assert c.names == "ac"

    def test_configuration_of_the_tail_goes_with_it(self):
        """A log that begins anew has none of its own."""
        c = follower([*LOG, config_entry(11, "ac", 2)], (3, 2))
        assert c.names == "ac"
        self.installed(c, 20, 2, "abcd")
        assert c.names == "abcd"

    def test_member_stands_for_election_with_what_it_installed(self):
        """Its log's end is the snapshot's: that is what it asks with."""
        c = follower([(NO_OP, 1, 0)], names="")
        self.installed(c, 20, 2, "abc")
        c.cluster.now = c.consensus.election_deadline_s + 0.01
        c.take()
        c.core.tick()
        assert [(to, message.last_index, message.last_term) for to, message in c.take()] == [("a", 20, 2), ("b", 20, 2)]


class TestWholeWay:
    """Leader and follower, with the transfer left out."""

    def test_lagging_member_goes_on_behind_the_snapshot(self):
        """Offer, installation, then entries: nothing in between is sent, nothing is applied twice."""
        cores = Cores("abc")
        a = cores.elect("a")
        cores.cut("c")
        a.propose(*map(str, range(30)))
        cores.settle()
        a.log.trim(25)
        cores.heal()
        cores.move(1)
        c = cores["c"]
        assert c.needed
        assert {leader for leader, _ in c.needed} == {member("a")}
        assert {index for _, index in c.needed} == {25}
        assert a.core.sender.find(member("c")).match_index <= 3
        c.store.at, c.store.applied = a.store.at, list(a.store.applied)
        c.store.config = a.store.config
        c.applier.restored(*a.store.at)
        c.core.installed(*a.store.at, configuration("abc"))
        c.work()
        a.propose("next")
        cores.move(0.5)
        assert c.store.applied == a.store.applied
        assert c.store.applied[-1][1] == b"next"

    def test_leader_with_a_reset_log_sends_no_placeholder(self):
        """Section 4.4: what a new leader's own snapshot stands for, it offers; entries follow behind it."""
        base = [(BASE_COMMAND, 19, 2), (BASE_COMMAND, 20, 2)]
        cores = Cores(
            "abc",
            logs={"a": base, "b": base, "c": LOG},
            stores={"a": Store(20, 2, "abc"), "b": Store(20, 2, "abc"), "c": Store(10, 2, "abc")},
        )
        cores.elect("a")
        cores.move(1)
        assert cores["b"].log[-1][:2] == (NO_OP, 21)
        assert cores["c"].log[:] == LOG
        assert set(cores["c"].needed) == {(member("a"), 20)}
        assert cores["c"].consensus.role is Role.FOLLOWER

    def test_restart_between_store_and_journal(self):
        """Section 2.1.6: a crash between 'state replaced' and 'journal trimmed' leaves a journal that is used, not cleared."""
        c = follower(LOG, (8, 2))
        assert c.log[:] == LOG
        c.receive("a", append(2, after=(10, 2), commit=10))
        assert [index for index, _ in c.store.applied] == [9, 10]

    def test_log_says_what_it_has(self):
        """By index and term, placeholders included."""
        c = follower([(BASE_COMMAND, 19, 2), (BASE_COMMAND, 20, 2), *entries(21, 22, 3)], (20, 2))
        assert c.core.log_has(20, 2)
        assert c.core.log_has(22, 3)
        assert not c.core.log_has(22, 2)
        assert not c.core.log_has(23, 3)
        assert not c.core.log_has(18, 2)
