"""Covers raft/admission.py: joining, adding, replacing and removing, at the leader of whole nodes."""

from itertools import pairwise

import pytest

from raft.admission import APPEARANCE_S, INVALID_ID, LEARNER_SILENCE_S, LOST, NEARLY_ENTRIES, NOT_LEADER, ONLY_NODE
from raft.engine import Role
from raft.journal.log import Log
from raft.membership import Member
from raft.trailing import TrailingBounds
from tests.unit.raft.cores import member
from tests.unit.raft.nodes import Nodes, other_journal


@pytest.fixture
def three(loop):
    """Three nodes, one of which leads."""
    nodes = Nodes(loop, "abc")
    nodes.leader()
    nodes.move(1)
    return nodes


class Told:
    """What a request was answered: nothing yet, None for done, or the reason against."""

    def __init__(self):
        self.answers = []

    def __call__(self, answer):
        self.answers.append(answer)


def newcomer(nodes, name, *, me=None, log=()):
    """A new node that says hello to everybody."""
    machine = nodes.start(name, log, me=me)
    machine.node.listen_to([one for one in nodes.machines if one != name])
    nodes.move(0.6)
    return machine


class TestJoining:
    """O403: any node whose request reaches the leader."""

    def test_node_that_asks_becomes_a_member(self, three):
        """It gets the log, then it counts; everybody agrees."""
        leader, told = three.leader(), Told()
        leader.propose("x")
        new = newcomer(three, "d")
        leader.node.admit(new.me, told)
        assert told.answers == [None]
        three.move(2)
        assert {machine.names for machine in three.machines.values()} == {"abcd"}
        assert new.data == ["x"]
        assert not new.node.is_new

    def test_log_comes_first(self, three):
        """Raft dissertation, section 4.2.1: while a newcomer lacks much the configuration stays, and commits do not wait."""
        leader, told = three.leader(), Told()
        for number in range(NEARLY_ENTRIES + 20):
            leader.propose(str(number))
            three.move(0.01)
        new = newcomer(three, "d")
        new.disk.is_held = True
        leader.node.admit(new.me, told)
        three.move(2)
        assert leader.names == "abc"
        leader.propose("meanwhile")
        three.move(0.5)
        assert leader.data[-1] == "meanwhile"
        new.disk.release()
        three.move(2)
        assert leader.names == "abcd"
        assert new.data == leader.data

    def test_newcomer_that_needs_a_snapshot_gets_it_before_it_counts(self, loop):
        """A log that begins late is no obstacle."""
        nodes = Nodes(loop, "abc", trailing=TrailingBounds(0, 0))
        leader = nodes.leader()
        for number in range(NEARLY_ENTRIES + 20):
            leader.propose(str(number))
            nodes.move(0.01)
        nodes.move(0.5)
        for machine in nodes.machines.values():
            machine.node.trim(machine.node.last_applied)
        new = newcomer(nodes, "d")
        leader.node.admit(new.me, Told())
        nodes.move(5)
        assert len(new.snapshots.installed) == 1
        assert (leader.names, new.names, new.data == leader.data) == ("abcd", "abcd", True)

    def test_asking_again_changes_nothing(self, three):
        """Requests are repeated, and a member may ask, too."""
        leader = three.leader()
        new = newcomer(three, "d")
        for _ in range(3):
            leader.node.admit(new.me, Told())
            three.move(0.5)
        told = Told()
        leader.node.admit(three.followers(leader)[0].me, told)
        three.move(1)
        assert (leader.names, told.answers) == ("abcd", [None])

    def test_only_a_serving_leader_admits(self, three):
        """Others say that they do not lead."""
        leader, told = three.leader(), Told()
        three.followers(leader)[0].node.admit(member("d"), told)
        assert told.answers == [NOT_LEADER]

    def test_newcomer_that_falls_silent_is_given_up(self, three):
        """A name that nobody has any more is not waited for, and not sent to."""
        leader = three.leader()
        for number in range(NEARLY_ENTRIES + 20):
            leader.propose(str(number))
            three.move(0.01)
        new = newcomer(three, "d")
        new.disk.is_held = True
        leader.node.admit(new.me, Told())
        three.move(0.5)
        three.stop("d")
        three.move(LEARNER_SILENCE_S + 10)
        assert leader.names == "abc"
        assert not leader.node.statistics().peers[2:]

    def test_two_newcomers_come_one_after_the_other(self, three):
        """One change at a time; both are members in the end."""
        leader = three.leader()
        for name in "de":
            leader.node.admit(newcomer(three, name).me, Told())
        three.move(4)
        assert {machine.names for machine in three.machines.values()} == {"abcde"}


class TestReplacing:
    """A node that comes with another journal."""

    def test_lost_journal_is_replaced(self, three):
        """The old member is removed, then the new one added: an empty disk never counts as the one that acknowledged."""
        leader = three.leader()
        leader.propose("x")
        three.move(0.5)
        victim = three.followers(leader)[0]
        name = victim.me.node_id
        three.stop(name)
        three.move(5)
        seen = []
        new = newcomer(three, name, me=other_journal(name))
        told = Told()
        leader.node.admit(new.me, told)
        for _ in range(100):
            three.move(0.05)
            seen.append(leader.node.configuration.members)
        changes = [one for number, one in enumerate(seen) if number == 0 or one != seen[number - 1]]
        assert told.answers == [None]
        assert changes[-1] == tuple(sorted([*(m for m in changes[0] if m.node_id != name), new.me]))
        for first, second in pairwise(changes):
            assert len(set(first) ^ set(second)) == 1
        assert new.data == ["x"]

    def test_not_while_the_old_one_is_up(self, three):
        """The leader still hears the member: the request is some mistake."""
        leader, told = three.leader(), Told()
        victim = three.followers(leader)[0]
        leader.node.admit(other_journal(victim.me.node_id), told)
        three.move(2)
        assert told.answers == [f'another running node has the id "{victim.me.node_id}"']
        assert victim.me in leader.node.configuration.members

    def test_second_process_does_not_drive_a_running_member_out(self, three):
        """Started by mistake with an empty directory and a member's id, it says hello first: the links hear it instead."""
        leader, told = three.leader(), Told()
        victim = three.followers(leader)[0]
        name = victim.me.node_id
        twin = newcomer(three, name, me=other_journal(name))
        leader.node.admit(twin.me, told)
        three.move(5)
        assert victim.me in leader.node.configuration.members
        assert told.answers == [f'another running node has the id "{name}"']

    def test_answers_of_the_old_journal_do_not_count_for_the_new_one(self, three):
        """They are two members: what the old one had acknowledged is not on the new disk."""
        leader = three.leader()
        victim = three.followers(leader)[0]
        three.stop(victim.me.node_id)
        new = newcomer(three, victim.me.node_id, me=other_journal(victim.me.node_id))
        other = next(machine for machine in three.followers(leader) if machine is not new)
        three.cut(other.me.node_id)
        new.disk.is_held = True
        before = leader.node.statistics().commit_index
        leader.propose("x")
        three.move(0.3)
        assert leader.node.statistics().commit_index == before


class TestAdding:
    """O430 to O434: the operator's wish."""

    def test_running_node_is_added_like_one_that_asks(self, three):
        """The answer comes when the change is committed."""
        leader, told = three.leader(), Told()
        new = newcomer(three, "d")
        leader.node.add_node("d", told)
        assert told.answers == []
        three.move(3)
        assert told.answers == [None]
        assert {machine.names for machine in three.machines.values()} == {"abcd"}
        assert leader.node.configuration.find("d") == new.me

    def test_node_that_comes_in_time_gets_no_place_before(self, three):
        """A node that is being started is waited for a little, so that it comes with its journal."""
        leader, told = three.leader(), Told()
        leader.node.add_node("d", told)
        three.move(APPEARANCE_S / 2)
        assert (leader.names, told.answers) == ("abc", [])
        new = newcomer(three, "d")
        three.move(3)
        assert (leader.node.configuration.find("d"), told.answers) == (new.me, [None])

    def test_absent_node_gets_a_place_without_a_voice(self, three):
        """O430: it makes the majority larger; its journal fills the place when it comes, without being asked for again."""
        leader, told = three.leader(), Told()
        leader.node.add_node("d", told)
        three.move(APPEARANCE_S + 2)
        assert told.answers == [None]
        assert leader.node.configuration.find("d") == Member("d", "")
        leader.propose("x")
        three.move(0.5)
        assert leader.data == ["x"]
        new = newcomer(three, "d")
        three.move(4)
        assert leader.node.configuration.find("d") == new.me
        assert new.data == ["x"]

    def test_place_is_filled_by_who_asks_to_join(self, three):
        """A place is nobody's journal: it does not stand in the way."""
        leader = three.leader()
        leader.node.add_node("d", Told())
        three.move(APPEARANCE_S + 2)
        new = newcomer(three, "d")
        told = Told()
        leader.node.admit(new.me, told)
        three.move(3)
        assert (told.answers, leader.node.configuration.find("d")) == ([None], new.me)

    def test_lone_node_does_not_lose_itself_to_an_absent_one(self, loop):
        """A place that leaves no majority of journals would end the cluster for ever: nobody could lead and fill it."""
        nodes = Nodes(loop, "a", of="a")
        leader, told = nodes.leader(), Told()
        leader.node.add_node("b", told)
        nodes.move(APPEARANCE_S + 10)
        new = newcomer(nodes, "b")
        nodes.move(10)
        assert leader.node.role is Role.LEADER
        assert leader.node.configuration.find("b") in (None, new.me)
        leader.propose("x")
        nodes.move(1)
        assert leader.data == ["x"]

    def test_place_needs_members_that_are_up(self, three):
        """One of three is down: four would need three, of which two are there. The change waits, and service goes on."""
        leader, told = three.leader(), Told()
        three.stop(three.followers(leader)[0].me.node_id)
        three.move(3)
        leader.node.add_node("d", told)
        three.move(APPEARANCE_S + 5)
        leader.propose("x")
        three.move(1)
        assert leader.data == ["x"]

    def test_lone_node_gets_a_second(self, loop):
        """From one to two: the newcomer has the log before both are needed."""
        nodes = Nodes(loop, "a", of="a")
        leader, told = nodes.leader(), Told()
        leader.propose("x")
        new = newcomer(nodes, "b")
        leader.node.add_node("b", told)
        nodes.move(3)
        assert (told.answers, leader.names, new.data) == ([None], "ab", ["x"])

    def test_present_node_is_added_at_once(self, three):
        """O432."""
        leader, told = three.leader(), Told()
        leader.node.add_node(three.followers(leader)[0].me.node_id, told)
        leader.node.add_node(leader.me.node_id, told)
        assert told.answers == [None, None]
        assert leader.names == "abc"

    def test_id_must_not_be_empty(self, three):
        """O431."""
        told = Told()
        three.leader().node.add_node("", told)
        assert told.answers == [INVALID_ID]

    @pytest.mark.parametrize("call", ["add_node", "remove_node"])
    def test_only_the_leader_serves(self, three, call):
        """O430: elsewhere nothing is changed."""
        leader, told = three.leader(), Told()
        getattr(three.followers(leader)[0].node, call)("d", told)
        assert told.answers == [NOT_LEADER]

    @pytest.mark.parametrize("call", ["add_node", "remove_node"])
    def test_lost_leadership_ends_the_request(self, three, call):
        """O431: whether the change is made is then unknown; the requester is told, once, after `lost`."""
        leader = three.leader()
        three.cut(leader.me.node_id)
        other = three.followers(leader)[0].me.node_id
        getattr(leader.node, call)("d" if call == "add_node" else other, leader.told.append)
        three.move(APPEARANCE_S + 5)
        assert leader.told.index(LOST) > leader.told.index("lost")
        assert leader.told.count(LOST) == 1

    def test_one_change_at_a_time(self, three):
        """O434: wishes wait for one another, and every configuration differs from the last by one member."""
        leader, told, seen = three.leader(), Told(), []
        for name in "de":
            newcomer(three, name)
            leader.node.add_node(name, told)
        leader.node.remove_node(three.followers(leader)[0].me.node_id, told)
        for _ in range(200):
            three.move(0.02)
            seen.append(leader.node.configuration.members)
        for first, second in pairwise(seen):
            assert len(set(first) ^ set(second)) <= 1
        assert told.answers == [None] * 3
        assert len(leader.names) == 4


class TestRemoving:
    """O432 and O433."""

    def test_member_is_removed(self, three):
        """It is not told, and disturbs nobody: the rest go on without it."""
        leader, told = three.leader(), Told()
        victim = three.followers(leader)[0]
        leader.node.remove_node(victim.me.node_id, told)
        three.move(1)
        assert told.answers == [None]
        assert victim.me not in leader.node.configuration.members
        term = leader.node.term
        three.move(20)
        assert (leader.node.is_serving, leader.node.term) == (True, term)
        leader.propose("x")
        three.move(0.5)
        assert (leader.data, victim.data) == (["x"], [])

    def test_absent_member_can_be_removed(self, three):
        """Which is what removing is for."""
        leader, told = three.leader(), Told()
        victim = three.followers(leader)[0]
        three.stop(victim.me.node_id)
        three.move(5)
        leader.node.remove_node(victim.me.node_id, told)
        three.move(1)
        assert told.answers == [None]
        assert len(leader.names) == 2

    def test_unknown_node_is_no_member_already(self, three):
        """O432: +OK, nothing to do."""
        leader, told = three.leader(), Told()
        leader.node.remove_node("x", told)
        assert told.answers == [None]
        assert leader.names == "abc"

    def test_leader_removes_itself_and_is_told(self, three):
        """O433: the answer first, then `removed`; the rest elect another leader."""
        leader = three.leader()
        rest = [machine.me.node_id for machine in three.followers(leader)]
        leader.node.remove_node(leader.me.node_id, leader.told.append)
        three.move(0.5)
        assert leader.told[1:3] == [None, "removed"]
        three.cut(leader.me.node_id)
        three.move(5)
        assert three.leader(among=rest).names == "".join(rest)
        assert leader.told.count("removed") == 1

    def test_removed_leader_can_be_added_back_with_its_journal(self, three):
        """O433: restarted with its old state it is the same member again."""
        leader = three.leader()
        name = leader.me.node_id
        leader.node.remove_node(name, Told())
        three.move(0.5)
        old = three.stop(name)
        new_leader = three.leader()
        new_leader.propose("x")
        back = three.start(name, Log(old.log[:], term=old.log.getCurrentTerm()), old.store)
        back.node.listen_to([new_leader.me.node_id])
        told = Told()
        three.move(1)
        new_leader.node.add_node(name, told)
        three.move(4)
        assert told.answers == [None]
        assert (new_leader.names, back.data) == ("abc", ["x"])

    def test_only_node_cannot_be_removed(self, loop):
        """A cluster of none could never be anything again; what is wanted afterwards is not held up."""
        nodes = Nodes(loop, "a", of="a")
        leader, told = nodes.leader(), Told()
        leader.node.remove_node("a", told)
        assert told.answers == [ONLY_NODE]
        newcomer(nodes, "b")
        leader.node.add_node("b", told)
        nodes.move(3)
        assert (told.answers, leader.names) == ([ONLY_NODE, None], "ab")

    def test_removing_a_newcomer_gives_it_up(self, three):
        """A node that was to join and is removed does not become a member afterwards."""
        leader = three.leader()
        for number in range(NEARLY_ENTRIES + 20):
            leader.propose(str(number))
            three.move(0.01)
        new = newcomer(three, "d")
        new.disk.is_held = True
        leader.node.admit(new.me, Told())
        three.move(0.5)
        told = Told()
        leader.node.remove_node("d", told)
        new.disk.release()
        three.move(5)
        assert (told.answers, leader.names) == ([None], "abc")

    def test_removing_and_adding_again_gives_a_fresh_count(self, three):
        """What was acknowledged before the removal says nothing afterwards: the member is probed like a new one."""
        leader, told = three.leader(), Told()
        victim = three.followers(leader)[0]
        leader.node.remove_node(victim.me.node_id, told)
        three.move(0.5)
        for number in range(5):
            leader.propose(str(number))
            three.move(0.05)
        leader.node.add_node(victim.me.node_id, told)
        three.move(3)
        assert told.answers == [None, None]
        assert victim.data == leader.data
        assert leader.names == "abc"


def test_wishes_of_a_leadership_end_with_it(three):
    """The next leadership of the same node begins with none."""
    leader = three.leader()
    three.cut(leader.me.node_id)
    told = Told()
    leader.node.add_node("d", told)
    three.move(5)
    three.heal()
    three.move(APPEARANCE_S + 10)
    assert {machine.names for machine in three.machines.values()} == {"abc"}
    assert told.answers == [LOST]
