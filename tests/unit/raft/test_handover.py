"""Covers raft/handover.py, and `transfer` of raft/node.py: leadership handed over in order."""

import asyncio

import pytest

from raft.engine import Timing
from raft.errors import NotLeaderError
from raft.handover import HandOver
from raft.proposals import Applied
from tests.unit.raft.cores import Cores, member, success
from tests.unit.raft.nodes import Nodes

LONG_S = 10.0


@pytest.fixture
def three(loop):
    """Three nodes, one of which leads."""
    nodes = Nodes(loop, "abc")
    nodes.leader()
    nodes.move(1)
    return nodes


async def transferred(nodes, leader, *, seconds=1.0, timeout_s=LONG_S):
    """Begin a transfer, let time pass, and return the task."""
    task = asyncio.create_task(leader.node.transfer(timeout_s))
    await asyncio.sleep(0)
    nodes.move(seconds)
    await asyncio.sleep(0)
    return task


class TestChoice:
    """Raft dissertation, section 3.10: who is asked, and when."""

    def hand_over(self, names="abc"):
        cores = Cores(names)
        a = cores.elect("a")
        cores.move(0.5)
        a.propose("x")
        cores.queue.clear()
        attempt = HandOver(a.core, is_up=lambda one: cores.is_up(member("a"), one))
        return cores, a, attempt

    def answer(self, a, *names):
        """These have everything, which then is committed."""
        for name in names:
            a.receive(name, success(1, a.consensus.last_index + 1, a.core.sender.find(member(name)).round))
        a.sync()
        a.core.tick()

    def test_member_that_has_everything_is_asked(self):
        """Not before it has, nor before all of it is committed; nobody once somebody was asked."""
        _, a, attempt = self.hand_over("abcde")
        assert attempt.heir() is None
        self.answer(a, "c")
        assert a.consensus.commit_index < a.consensus.last_index
        assert attempt.heir() is None
        self.answer(a, "d")
        assert attempt.heir() in (member("c"), member("d"))
        attempt.is_asked = True
        assert attempt.heir() is None

    def test_member_that_is_not_up_is_not_asked(self):
        """The request would be lost."""
        cores, a, attempt = self.hand_over()
        self.answer(a, "b")
        cores.cut("b")
        assert attempt.heir() is None

    def test_learner_is_not_asked(self):
        """It may not stand."""
        cores, a, attempt = self.hand_over()
        cores.start("d", cores["b"].log)
        a.core.set_learners([member("d")])
        a.core.tick()
        self.answer(a, "b", "d")
        cores.cut("b")
        assert attempt.heir() is None

    def test_leader_that_lost_its_role_asks_nobody(self):
        """There is nothing to hand over any more."""
        _, a, attempt = self.hand_over()
        self.answer(a, "b")
        a.consensus.term_seen(member("c"), 7)
        assert attempt.heir() is None


def test_another_leads_at_once(three):
    """No election timeout passes, and nothing acknowledged is lost."""
    leader = three.leader()
    leader.propose("x")

    async def scenario():
        task = await transferred(three, leader, seconds=0.1)
        assert await asyncio.wait_for(task, 5)

    asyncio.run(scenario())
    assert not leader.node.is_serving
    assert [told for told in leader.told[1:] if told != "held"] == [("x", Applied(b"x")), "lost"]
    new = three.leader()
    assert new is not leader
    assert (new.node.term, new.data) == (2, ["x"])


def test_entries_under_way_are_committed_first(three):
    """What was proposed before is in the log of whoever takes over; a slow follower is waited for or passed over."""
    leader = three.leader()
    for follower in three.followers(leader):
        follower.disk.is_held = True
    leader.propose("x", "y")

    async def scenario():
        task = await transferred(three, leader, seconds=0.2)
        assert leader.node.is_serving
        three.followers(leader)[1].disk.release()
        three.move(0.2)
        await asyncio.sleep(0)
        assert await asyncio.wait_for(task, 5)

    asyncio.run(scenario())
    assert [told for told in leader.told[1:] if isinstance(told, tuple)] == [("x", Applied(b"x")), ("y", Applied(b"y"))]


def test_no_proposals_meanwhile_nor_afterwards(three):
    """An orderly stop: the log must not grow away from the one who takes over."""
    leader = three.leader()
    three.cut(leader.me.node_id)

    async def scenario():
        task = await transferred(three, leader, seconds=0.1, timeout_s=0.05)
        with pytest.raises(NotLeaderError):
            leader.propose("x")
        await asyncio.wait_for(task, 5)
        with pytest.raises(NotLeaderError):
            leader.propose("y")

    asyncio.run(scenario())


def test_nobody_to_hand_over_to(loop, three):
    """A node alone returns at once; one whose members cannot be reached, after the given time, still as leader."""
    lone = Nodes(loop, "a", of="a").leader()
    leader = three.leader()
    three.cut(leader.me.node_id)
    three.move(0.1)

    async def scenario():
        assert not await asyncio.wait_for(lone.node.transfer(1000.0), 5)
        assert not await asyncio.wait_for(leader.node.transfer(0.02), 5)

    asyncio.run(scenario())


def test_follower_has_nothing_to_hand_over(three):
    """It leads not, so another may: there is nothing to wait for."""

    async def scenario():
        assert await asyncio.wait_for(three.followers(three.leader())[0].node.transfer(1000.0), 5)

    asyncio.run(scenario())


def test_leader_is_not_confirmed_once_it_has_asked(three):
    """B401; Raft dissertation, section 6.4.1: the others need not wait for its lease, so it must not count on it.

    Here everything that would tell the old leader of the new one is lost.
    """
    leader = three.leader()

    async def scenario():
        task = asyncio.create_task(leader.node.transfer(LONG_S))
        await asyncio.sleep(0)
        for machine in three.followers(leader):
            three.cuts.add((machine.me.node_id, leader.me.node_id))
        for _ in range(50):
            three.move(0.01)
            sure = [
                machine for machine in three.machines.values() if machine.node.is_serving and machine.node.is_confirmed
            ]
            assert len(sure) <= 1
        assert three.followers(leader)[0].node.term == 2
        three.move(Timing().quorum_silence_s + 1)
        await asyncio.sleep(0)
        assert await asyncio.wait_for(task, 5)

    asyncio.run(scenario())


def test_request_that_is_lost_leaves_the_leader_in_place(three):
    """Nobody took over: the owner is told so, and the cluster has one leader."""
    leader = three.leader()
    for machine in three.followers(leader):
        three.cuts.add((leader.me.node_id, machine.me.node_id))

    async def scenario():
        assert not await asyncio.wait_for(leader.node.transfer(0.02), 5)

    asyncio.run(scenario())
    assert leader.node.role.name == "LEADER"
    three.heal()
    three.move(5)
    assert sum(machine.node.role.name == "LEADER" for machine in three.machines.values()) == 1


class TestStaying:
    """A leader that lets another one lead and goes on as a follower."""

    def hand_over(self, nodes, leader, *, timeout_s=LONG_S, seconds=1.0):
        async def scenario():
            task = asyncio.create_task(leader.node.transfer(timeout_s, stays=True))
            await asyncio.sleep(0)
            nodes.move(seconds)
            assert await asyncio.wait_for(task, 5)

        asyncio.run(scenario())
        nodes.move(0.01)

    def test_another_leads_and_it_can_lead_again(self, three):
        """It counts as before, and takes proposals when it is elected again."""
        old = three.leader()
        self.hand_over(three, old)
        new = three.leader()
        assert new is not old
        assert new.node.term == 2
        new.propose("x")
        three.move(0.5)
        assert old.data == ["x"]
        three.cut(next(one for one in three.followers(new) if one is not old).me.node_id)
        self.hand_over(three, new)
        assert three.leader() is old
        old.propose("y")
        three.move(0.5)
        assert new.data == ["x", "y"]

    def test_it_leads_no_more_though_nobody_took_over(self, three):
        """It was asked to let others lead: they elect one when they hear no leader any more."""
        leader = three.leader()
        term = leader.node.term
        for machine in three.followers(leader):
            three.cuts.add((leader.me.node_id, machine.me.node_id))
        self.hand_over(three, leader, timeout_s=0.02, seconds=0.0)
        assert leader.node.role.name == "FOLLOWER"
        assert leader.told[-1] == "lost"
        three.heal()
        three.move(5)
        assert three.leader().node.term > term

    def test_node_that_is_closed_meanwhile_takes_no_proposals(self, three):
        """Its end is the end."""
        leader = three.leader()

        async def scenario():
            task = asyncio.create_task(leader.node.transfer(LONG_S, stays=True))
            await asyncio.sleep(0)
            leader.node.fail(OSError("no space left on device"))
            await asyncio.wait_for(task, 5)

        asyncio.run(scenario())
        with pytest.raises(NotLeaderError):
            leader.node.propose([b"x"], lambda outcome: None)

    def test_others_are_elected_before_it_stands_again(self, three):
        """Its term is the highest, so it would win most elections against them."""
        leader = three.leader()
        for _ in range(10):
            leader.node._core.resign()
            three.move(2.5)
            assert three.leader() is not leader
            leader = three.leader()

    def test_lone_node_begins_anew(self, loop):
        """There is nobody else, so it is elected again, with all that belongs to a new leadership."""
        nodes = Nodes(loop, "a", of="a")
        leader = nodes.leader()
        self.hand_over(nodes, leader, timeout_s=0.02, seconds=0.0)
        nodes.move(2)
        assert leader.told == [("leading", 1), "lost", ("leading", leader.node.term)]
        leader.propose("x")
        nodes.move(0.1)
        assert leader.data == ["x"]
