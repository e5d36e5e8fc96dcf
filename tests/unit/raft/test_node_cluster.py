"""Covers raft/node.py: several nodes over production links, on a loop and disks that the test moves."""

import asyncio

import pytest

from raft import node as node_module
from raft.engine import NO_OP, Role, Timing
from raft.errors import NotLeaderError, RecoveryError
from raft.journal.log import BASE_COMMAND, Log
from raft.lease_keeper import DELIVERED_S
from raft.link.frame import FrameKind, decode_frame
from raft.link.links import SILENCE_S
from raft.membership import Configuration
from raft.messages import AppendResponse
from raft.proposals import Applied, Unknown
from raft.statistics import PeerStatistics
from raft.trailing import TrailingBounds
from raft.wire import decode
from tests.unit.raft.cores import GENESIS, Store, configuration, entries, founded, member
from tests.unit.raft.nodes import Nodes

TIMING = Timing()
LEASE_AND_TIMER_S = TIMING.lease_s + 0.01


@pytest.fixture
def three(loop):
    """Three nodes, one of which leads."""
    nodes = Nodes(loop, "abc")
    nodes.leader()
    nodes.move(1)
    return nodes


def all_data(nodes):
    """What the nodes have applied, if all have applied the same."""
    found = [machine.data for machine in nodes.machines.values()]
    assert found == found[:1] * len(found)
    return found[0]


class TestReplication:
    """What is proposed at the leader."""

    def test_is_applied_everywhere_once_and_in_order(self, three):
        """The outcome is told at the leader; the followers get the same."""
        leader = three.leader()
        leader.propose("x", "y")
        three.move(0.5)
        leader.propose("z")
        three.move(0.5)
        assert all_data(three) == ["x", "y", "z"]
        assert leader.told[1:] == [(text, Applied(text.encode())) for text in "xyz"]

    def test_proposals_of_one_turn_leave_before_the_disk_is_asked(self, three):
        """Section 4.4: the leader's disk and those of the followers work at the same time."""
        leader = three.leader()
        leader.disk.is_held = True
        leader.propose("x")
        three.move(0.01)
        assert leader.data == ["x"]
        assert leader.node.statistics().durable_index == leader.node.last_applied - 1
        leader.disk.release()
        three.move(0.01)
        assert leader.node.statistics().durable_index == leader.node.last_applied

    def test_needs_one_follower_of_two(self, three):
        """With both gone nothing is committed, and nothing is told."""
        leader = three.leader()
        three.cut(leader.me.node_id)
        leader.propose("x")
        three.move(0.2)
        assert (leader.data, leader.told[1:]) == ([], [])
        three.heal()
        three.move(1)
        assert all_data(three) == ["x"]

    def test_only_the_leader_takes_proposals(self, three):
        """The others say who leads."""
        leader = three.leader()
        for follower in three.followers(leader):
            with pytest.raises(NotLeaderError) as raised:
                follower.propose("x")
            assert raised.value.leader_id == leader.me.node_id
            assert follower.node.leader == leader.me

    def test_no_timer_rings_without_need(self, three):
        """An idle cluster lives on hellos and heartbeats: the number of ticks is bounded by them."""
        leader = three.leader()
        before = {name: machine.node.statistics().ticks for name, machine in three.machines.items()}
        three.move(10)
        for name, machine in three.machines.items():
            assert machine.node.statistics().ticks - before[name] < 10 * 5 / TIMING.heartbeat_s
        assert three.leader() is leader

    def test_statistics_show_the_others(self, three):
        """What the leader knows of each member; a follower knows of none."""
        leader = three.leader()
        leader.propose("x")
        three.move(0.5)
        statistics = leader.node.statistics()
        assert statistics.members == ("a", "b", "c")
        assert statistics.peers == tuple(
            PeerStatistics(machine.me.node_id, True, 4, 5, 0) for machine in three.followers(leader)
        )
        follower = three.followers(leader)[0]
        assert follower.node.statistics().peers == ()
        assert follower.node.statistics().leader_id == leader.me.node_id


class TestLosingLeadership:
    """What the owner is told, and in which order."""

    def test_lost_comes_before_unknown_outcomes(self, three):
        """Whoever hears of an unknown outcome must know already that it leads no more."""
        leader = three.leader()
        three.cut(leader.me.node_id)
        leader.propose("x", "y")
        three.until(lambda: not leader.node.is_serving)
        assert leader.told[1:] == ["held", "lost", ("x", Unknown()), ("y", Unknown())]
        with pytest.raises(NotLeaderError):
            leader.propose("z")

    def test_unknown_outcome_may_still_be_committed(self, three):
        """Section 2.1.9: it is never forwarded; it is in the log of the next leader, or it is not."""
        leader = three.leader()
        for follower in three.followers(leader):
            three.cuts.add((follower.me.node_id, leader.me.node_id))
        leader.propose("x")
        three.move(0.01)
        three.cut(leader.me.node_id)
        leader.propose("lost")
        other = three.leader(among=[machine.me.node_id for machine in three.followers(leader)])
        other.propose("y")
        three.move(1)
        three.heal()
        three.move(3)
        assert all_data(three) == ["x", "y"]
        assert leader.told[-2:] == [("x", Unknown()), ("lost", Unknown())]

    def test_new_leader_serves_when_its_own_noop_is_applied(self, three):
        """Section 4.5: until then it has committed entries that it has not applied."""
        old = three.leader()
        old.propose(*map(str, range(20)))
        three.cut(old.me.node_id)
        three.stop(old.me.node_id)
        new = three.leader()
        assert new.told == [("leading", 2)]
        assert new.node.last_applied == new.node.statistics().last_index

    def test_close_tells_lost_once(self, three):
        """In order, whatever leads afterwards."""
        leader = three.leader()
        asyncio.run(leader.node.close())
        assert leader.told[1:] == ["lost"]
        three.running.remove(leader)
        three.move(3)
        assert leader.told[1:] == ["lost"]
        assert not leader.node.is_confirmed


class TestLease:
    """B401: between `held` and `released` a leader keeps silent."""

    def test_leader_is_confirmed_while_a_majority_answers(self, three):
        """At every moment, with one follower of two, for as long as it lasts."""
        leader = three.leader()
        three.cut(three.followers(leader)[0].me.node_id)
        for _ in range(100):
            three.move(0.05)
            assert leader.node.is_confirmed
        assert leader.told == [("leading", leader.node.term)]

    def test_cut_off_leader_is_held_before_anybody_else_can_lead(self, three):
        """The timer of the lease tells it, not the next message; within the lease of the last confirmation."""
        leader = three.leader()
        three.cut(leader.me.node_id)
        end = three.loop.now + LEASE_AND_TIMER_S
        while leader.node.is_confirmed:
            assert not any(machine.node.is_serving for machine in three.followers(leader))
            three.move(0.002)
        assert leader.told[1:] == ["held"]
        assert leader.node.statistics().is_held
        assert three.loop.now <= end

    def test_short_silence_is_followed_by_released(self, loop):
        """If the majority answers before another is elected the same leadership goes on: nothing was lost."""
        patient = Timing(election_min_s=3.0, election_max_s=5.0, lease_s=0.5, quorum_silence_s=2.0)
        nodes = Nodes(loop, "abc", timing=patient)
        leader = nodes.leader()
        nodes.move(1)
        nodes.cut(leader.me.node_id)
        leader.propose("x")
        nodes.until(lambda: not leader.node.is_confirmed)
        nodes.heal()
        nodes.move(0.5)
        assert leader.told[1:] == ["held", ("x", Applied(b"x")), "released"] or leader.told[1:] == [
            "held",
            "released",
            ("x", Applied(b"x")),
        ]
        assert leader.node.is_confirmed

    def test_never_two_at_a_time(self, loop):
        """Cuts of every kind, five nodes, sampled 20 times a second: one node at most serves and is confirmed."""
        nodes = Nodes(loop, "abcde")
        nodes.leader()
        for cut in ("a", "b", "ab", "c", "de", "ad", "ce"):
            for name in cut:
                nodes.cut(name, *(set("abcde") - set(cut)))
            for _ in range(60):
                nodes.move(0.05)
                sure = [m for m in nodes.machines.values() if m.node.is_serving and m.node.is_confirmed]
                assert len(sure) <= 1
            nodes.heal()
            nodes.move(2.5)
        assert nodes.leader()

    def test_held_is_told_once(self, three):
        """Only changes are told."""
        leader = three.leader()
        three.cut(leader.me.node_id)
        three.move(TIMING.quorum_silence_s - 0.2)
        assert leader.told[1:] == ["held"]

    def test_slow_disk_of_a_follower_does_not_end_the_lease(self, three):
        """The sign of life: a follower that has got an append and cannot sync it says at once that it heard the leader."""
        leader = three.leader()
        other, cut = three.followers(leader)
        three.cut(cut.me.node_id)
        other.disk.is_held = True
        leader.propose("x")
        three.move(1.5)
        assert leader.told == [("leading", leader.node.term)]
        assert leader.node.is_confirmed
        assert leader.data == []
        other.disk.release()
        three.move(0.5)
        assert leader.data == ["x"]

    def test_slow_disk_of_the_leader_does_not_end_it_either(self, three):
        """Its followers commit without it."""
        leader = three.leader()
        leader.disk.is_held = True
        leader.propose("x")
        three.move(1.5)
        assert leader.node.is_confirmed
        assert leader.data == ["x"]

    def test_lease_follows_a_change_of_the_members(self, loop):
        """A leader that was alone is confirmed by nobody once there is another member that does not answer."""
        nodes = Nodes(loop, "ab", of="a")
        leader = nodes.leader()
        nodes["b"].node.listen_to(["a"])
        nodes.move(1)
        leader.node.admit(member("b"), lambda refusal: None)
        nodes.until(lambda: leader.names == "ab")
        nodes.cut("b")
        nodes.move(TIMING.lease_s + 0.3)
        assert not leader.node.is_confirmed


class TestJournalAndSnapshots:
    """What is kept, and what is fetched."""

    def lagging(self, loop, *, tail=5):
        """Three nodes that keep a tail of so many entries; one of them has missed the last 40."""
        nodes = Nodes(loop, "abc", trailing=TrailingBounds(tail, 10**9))
        leader = nodes.leader()
        lagging = nodes.followers(leader)[0]
        nodes.cut(lagging.me.node_id)
        for number in range(40):
            leader.propose(str(number))
            nodes.move(0.02)
        return nodes, leader, lagging

    def test_tail_is_kept_for_members_that_lag(self, loop):
        """Section 2.2.5: a short absence needs no snapshot; a cluster keeps more than a lone node does."""
        nodes, leader, lagging = self.lagging(loop, tail=41)
        leader.node.trim(leader.node.last_applied)
        assert leader.log[0][1] == 3
        nodes.heal()
        nodes.move(5)
        assert lagging.data == leader.data
        assert lagging.snapshots.installed == []

    def test_member_behind_the_log_gets_a_snapshot(self, loop):
        """Offered, fetched, installed; then entries. Its configuration comes with the state."""
        nodes, leader, lagging = self.lagging(loop)
        leader.node.trim(leader.node.last_applied)
        assert leader.log[0][1] > 10
        nodes.heal()
        nodes.move(5)
        assert lagging.snapshots.installed == [leader.node.last_applied]
        assert lagging.data == leader.data
        leader.propose("next")
        nodes.move(1)
        assert lagging.data[-1] == "next"
        assert lagging.store.config == configuration("abc").encode()

    def test_what_a_snapshot_being_fetched_needs_is_not_trimmed(self, loop):
        """Else the member would need another one as soon as it has it."""
        nodes, leader, _ = self.lagging(loop)
        leader.node.trim(leader.node.last_applied)
        base = leader.node.last_applied
        nodes.heal()
        nodes.until(lambda: leader.snapshots.made == 1)
        for number in range(40):
            leader.propose(f"more{number}")
            nodes.move(0.02)
        leader.node.trim(leader.node.last_applied)
        assert leader.log[0][1] <= base

    def test_what_is_kept_for_a_fetch_is_bounded(self, loop, monkeypatch):
        """A member that never finishes must not fill the leader's memory."""
        monkeypatch.setattr(node_module, "SNAPSHOT_HOLD_BYTES", 3000)
        nodes, leader, lagging = self.lagging(loop)
        leader.node.trim(leader.node.last_applied)
        base = leader.node.last_applied
        nodes.heal()
        nodes.until(lambda: leader.snapshots.made == 1)
        nodes.cut(lagging.me.node_id)
        for number in range(40):
            leader.propose(f"more{number}")
            nodes.move(0.02)
        assert leader.log.bytes_in_memory > 3000
        leader.node.trim(leader.node.last_applied)
        assert leader.log[0][1] > base

    def without_store(self, loop, *, leaders_snapshot_ends=None):
        """A node whose store was lost, and whose journal begins with entry 20; its leader, and what it held."""
        nodes = Nodes(loop, "abc", trailing=TrailingBounds(0, 0))
        leader = nodes.leader()
        for number in range(30):
            leader.propose(str(number))
            nodes.move(0.05)
        nodes.move(0.5)
        victim = nodes.followers(leader)[0]
        victim.node.trim(20)
        name, journal, vote = victim.me.node_id, victim.log[:], victim.log.getVotedForNodeId()
        assert journal[0][1] == 20
        nodes.stop(name)
        nodes.move(1)
        if leaders_snapshot_ends is not None:
            leader.snapshots.store = leader.store.restored(leaders_snapshot_ends, 1)
        back = nodes.start(name, Log(journal, term=leader.node.term, voted_for=vote), Store())
        assert back.log[:] == journal
        return nodes, leader, back, journal

    def test_missing_state_is_fetched_and_the_journal_kept(self, loop):
        """A node whose store was lost keeps its journal, serves nothing, votes, and catches up."""
        nodes, leader, back, journal = self.without_store(loop)
        nodes.move(4)
        assert back.data == leader.data
        assert back.snapshots.installed == [leader.node.last_applied]
        assert back.log[: len(journal)] == journal
        assert back.failures == []

    @pytest.mark.parametrize("end", [18, 19])
    def test_snapshot_that_the_journal_cannot_confirm_is_not_taken(self, loop, end):
        """Section 2.1.7: the log is kept only if it has the snapshot's last entry, so one that ends before it waits."""
        nodes, leader, back, journal = self.without_store(loop, leaders_snapshot_ends=end)
        nodes.move(4)
        assert back.log[: len(journal)] == journal
        leader.snapshots.store = leader.store
        nodes.move(60)
        assert back.data == leader.data
        assert back.log[: len(journal)] == journal

    def test_missing_state_without_anybody_to_ask_refuses_to_start(self, loop):
        """A node that gets no snapshots cannot be helped: starting would skip entries in silence."""
        nodes = Nodes(loop, "abc")
        with pytest.raises(RecoveryError, match="begins with entry 20"):
            nodes.start("c", entries(20, 25, 1), Store(5, 1, "abc"), has_snapshots=False)

    def test_missing_state_of_the_only_member_refuses_to_start(self, loop):
        """It may fetch snapshots, but nobody has one: waiting for ever would hide that data are missing."""
        nodes = Nodes(loop, "a", of="a")
        nodes.stop("a")
        with pytest.raises(RecoveryError, match="begins with entry 20"):
            nodes.start("a", [*entries(20, 24, 1), (founded("a")[1][0], 25, 1)], Store(5, 1, "a"))

    def test_members_of_long_ago_do_not_count(self, loop):
        """A store that lacks entries may say that this node is alone, as it was when it began: it elects nobody by that."""
        nodes = Nodes(loop, "a", of="a")
        nodes.stop("a")
        machine = nodes.start("a", entries(20, 25, 1), Store(5, 1, "a"))
        nodes.move(10)
        assert machine.node.role is Role.FOLLOWER
        assert machine.node.configuration is None

    def test_leader_that_has_no_snapshot_is_asked_again(self, loop):
        """A full disk at the leader delays, and ends nothing."""
        nodes, leader, lagging = self.lagging(loop)
        leader.snapshots.can_create = False
        leader.node.trim(leader.node.last_applied)
        nodes.heal()
        nodes.move(5)
        assert lagging.snapshots.installed == []
        leader.snapshots.can_create = True
        nodes.move(5)
        assert lagging.data == leader.data

    def test_snapshot_that_brings_nothing_new_is_let_go(self, loop):
        """The state may be further when a fetched one is ready: it is not set back."""
        nodes, leader, lagging = self.lagging(loop)
        ready, snapshots = [], lagging.snapshots
        leader.node.trim(leader.node.last_applied)
        nodes.heal()
        nodes.move(5)
        assert snapshots.installed == [leader.node.last_applied]

        class Old:
            index, term, configuration = 5, 1, b""

            def discard(self):
                ready.append("discarded")

        lagging.node._exchange._prepared(Old())
        assert (ready, snapshots.installed, lagging.data) == (["discarded"], [leader.node.last_applied], leader.data)


class TestDisk:
    """What waits for it."""

    def test_nothing_is_acknowledged_before_it_is_synced(self, three):
        """Section 1: with both followers' disks held nothing is committed, whatever was received."""
        leader = three.leader()
        for follower in three.followers(leader):
            follower.disk.is_held = True
        leader.propose("x")
        three.move(0.4)
        assert leader.data == []
        three.followers(leader)[0].disk.release()
        three.move(0.1)
        assert leader.data == ["x"]

    def test_what_waits_for_a_link_that_is_gone_is_not_sent_on_the_next(self, three):
        """Answers that a disk held back are meant for what was sent before: after a new link only new ones go."""
        leader = three.leader()
        follower = three.followers(leader)[0]
        follower.disk.is_held = True
        leader.propose("x")
        three.move(0.01)
        old_round = leader.node._core.sender.find(follower.me).round
        follower.node.link_restarted()
        three.move(1)
        rounds, carry = [], three.carry

        def listen(source, to, data):
            frame = decode_frame(data)
            if (source, to, frame.header.kind) == (follower.me.node_id, leader.me.node_id, FrameKind.DATA):
                message = decode(frame.body)
                if isinstance(message, AppendResponse) and message.is_success:
                    rounds.append(message.round)
            carry(source, to, data)

        three.carry = listen
        follower.disk.release()
        three.move(0.5)
        assert min(rounds) > old_round
        assert follower.data == ["x"]

    def test_only_a_node_that_serves_nobody_may_wait_for_its_disk(self, three):
        """R16: a leader's loop goes on, or what it has decided to deliver leaves behind its successor's."""
        leader = three.leader()
        leader.propose("x")
        three.move(0.5)
        followers = three.followers(leader)
        assert [leader.disk.may_block, *(one.disk.may_block for one in followers)] == [False, True, True]
        leader.node._core.resign()
        three.move(3)
        three.leader().propose("y")
        three.move(0.5)
        assert not leader.disk.may_block  # what it has decided to deliver may still be on its way
        three.move(DELIVERED_S)
        three.leader().propose("z")
        three.move(0.5)
        assert leader.disk.may_block

    def test_failed_disk_of_a_follower_ends_that_node_only(self, three):
        """It tells why, and the others go on."""
        leader = three.leader()
        victim = three.followers(leader)[0]
        victim.node.fail(OSError("no space left on device"))
        assert [str(error) for error in victim.failures] == ["no space left on device"]
        three.move(SILENCE_S + 1)
        leader.propose("x")
        three.move(0.5)
        assert leader.data == ["x"]
        assert victim.data == []
        assert len(victim.told) == 1

    def test_failed_apply_ends_the_node(self, three):
        """An entry is never skipped."""
        leader = three.leader()
        victim = three.followers(leader)[0]
        victim.store.error = OSError("map is full")
        leader.propose("x")
        three.move(1)
        assert [str(error) for error in victim.failures] == ["map is full"]
        assert victim.data == []


class TestRestart:
    """A process that is killed, with and without what it had not synced."""

    def test_killed_member_comes_back_with_its_journal(self, three):
        """It is the same member; it needs no admission and no snapshot."""
        leader = three.leader()
        victim = three.followers(leader)[0]
        name = victim.me.node_id
        three.stop(name)
        leader.propose("x")
        three.move(1)
        back = three.start(name, victim.log[:], victim.store)
        three.move(3)
        assert back.data == ["x"]
        assert back.snapshots.installed == []

    def test_whole_cluster_comes_back(self, loop):
        """Everything acknowledged is there, applied once."""
        nodes = Nodes(loop, "abc")
        leader = nodes.leader()
        leader.propose("x", "y")
        nodes.move(1)
        logs = {name: machine.log for name, machine in nodes.machines.items()}
        for name in "abc":
            nodes.stop(name)
        for name in "abc":
            again = [*logs[name][:]]
            nodes.start(name, again, Store(), term=logs[name].getCurrentTerm())
        nodes.leader().propose("z")
        nodes.move(1)
        assert all_data(nodes) == ["x", "y", "z"]

    def test_founding_of_three(self, loop):
        """New nodes find one another; one founds; the others learn from the log that they are members."""
        nodes = Nodes(loop, "abc", of="")
        for machine in nodes.machines.values():
            machine.node.listen_to(list("abc"), 5)
        nodes.move(3)
        assert {machine.node.role for machine in nodes.machines.values()} == {Role.FOLLOWER}
        assert all(machine.node.is_new for machine in nodes.machines.values())
        infos = nodes["a"].node.infos()
        assert {(info.is_fresh, info.genesis, info.peers_digest) for info in infos.values()} == {(True, b"", 5)}
        nodes["a"].node.form(Configuration.of(GENESIS, [member(name) for name in "abc"]))
        nodes.leader().propose("x")
        nodes.move(2)
        assert all_data(nodes) == ["x"]
        assert {machine.names for machine in nodes.machines.values()} == {"abc"}
        assert not any(machine.node.is_new for machine in nodes.machines.values())

    def test_foreign_cluster_is_ignored(self, loop):
        """Two clusters of one id that began apart: a node of the other one has no say, whatever its term and log."""
        nodes = Nodes(loop, "abc")
        leader = nodes.leader()
        foreign = [(NO_OP, 1, 0), (founded("x")[1][0].replace(GENESIS, b"another genesis!"), 2, 0)]
        other = nodes.start("x", [*foreign, *entries(3, 50, 9)], Store(), term=9)
        other.node.listen_to(list("abc"))
        nodes.move(5)
        assert nodes.leader(among="abc") is leader
        assert (leader.node.term, leader.names) == (1, "abc")
        assert leader.node._up_members() == [machine.me for machine in nodes.followers(leader) if machine is not other]

    def test_connection_made_anew_loses_nothing(self, three):
        """The carrier's connection is new: links begin anew, what was under way is sent again."""
        leader = three.leader()
        leader.propose("x")
        leader.node.link_restarted()
        leader.propose("y")
        three.move(5)
        assert all_data(three) == ["x", "y"]


def test_log_after_an_installation_begins_with_placeholders(loop):
    """A member that got everything by a snapshot has a journal that begins behind it."""
    nodes, leader, lagging = TestJournalAndSnapshots().lagging(loop)
    leader.node.trim(leader.node.last_applied)
    nodes.heal()
    nodes.move(5)
    assert [command for command, _, _ in lagging.log[:2]] == [BASE_COMMAND, BASE_COMMAND]
    assert lagging.log[1][1] == lagging.snapshots.installed[0]
