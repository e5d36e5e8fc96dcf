"""Covers server/cluster/giving_way.py: who lets another one lead, and when (B238)."""

import asyncio

import pytest

from server.cluster.giving_way import PAUSE_S, GivingWay
from tests.unit.raft.conftest import FakeLoop
from tests.unit.raft.nodes import Nodes


class Scene:
    """A node that leads, and what it does about messages that cannot be read; its nodes' time moves when a test says so."""

    def __init__(self, nodes, leader):
        self.nodes, self.leader = nodes, leader
        self.ended, self.failures = [], []
        self.can_end = asyncio.Event()
        self.can_end.set()
        self.giving_way = GivingWay(
            leader.node, self, end_leadership=self.end_leadership, on_fatal=self.failures.append
        )

    def time(self):
        return self.nodes.loop.now

    def create_task(self, coroutine):
        return asyncio.get_running_loop().create_task(coroutine)

    async def end_leadership(self):
        self.ended.append(self.leader.node.term)
        await self.can_end.wait()

    async def begin(self, *, seconds=1.0):
        self.giving_way.begin()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.nodes.move(seconds)
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def three():
    """Three nodes, one of which leads."""
    nodes = Nodes(FakeLoop(), "abc")
    nodes.leader()
    nodes.move(1)
    return nodes


@pytest.mark.asyncio
async def test_another_one_leads(three):
    """What is under way is finished first; the node goes on as a follower."""
    old = three.leader()
    scene = Scene(three, old)
    await scene.begin()
    assert scene.ended == [1]
    assert three.leader() is not old
    assert old.told[-1] == "lost"
    await scene.giving_way.stop()
    assert scene.failures == []


@pytest.mark.asyncio
async def test_once_in_a_while(three):
    """If all copies are damaged leadership does not go round: the pause doubles."""
    old = three.leader()
    scene = Scene(three, old)
    await scene.begin()
    while three.leader() is not old:
        await three.leader().node.transfer(0.0, stays=True)
        three.move(3)
    await scene.begin()
    assert len(scene.ended) == 1
    three.move(PAUSE_S)
    await scene.begin()
    assert len(scene.ended) == 2
    assert three.leader() is not old
    await scene.giving_way.stop()


@pytest.mark.asyncio
async def test_nobody_who_could_lead(three):
    """Others that cannot be reached, or have not caught up yet, do not count: the leadership goes on."""
    leader = three.leader()
    three.cut(leader.me.node_id)
    three.move(3)
    lone = Nodes(FakeLoop(), "ab", of="a")
    lone.leader()
    lone["b"].node.listen_to(["a"])
    lone.move(1)
    lone["a"].node._core.set_learners([lone["b"].me])
    assert [peer.is_up for peer in lone["a"].node.statistics().peers] == [True]
    for scene in (Scene(three, leader), Scene(lone, lone["a"])):
        await scene.begin(seconds=0.1)
        assert scene.ended == []


@pytest.mark.asyncio
async def test_leadership_that_is_over_meanwhile(three):
    """The next one of the same node is not given away for it."""
    old = three.leader()
    scene = Scene(three, old)
    scene.can_end.clear()
    await scene.begin(seconds=0.0)
    old.node._core.resign()
    three.move(5)
    leader = three.leader()
    term = leader.node.term
    scene.can_end.set()
    await scene.begin(seconds=3.0)
    assert three.leader() is leader
    assert leader.node.term == term


@pytest.mark.asyncio
async def test_end_of_the_node_ends_it(three):
    """Nothing is handed over by what has been stopped, nor begun afterwards."""
    leader = three.leader()
    scene = Scene(three, leader)
    scene.can_end.clear()
    await scene.begin(seconds=0.0)
    await scene.giving_way.stop()
    scene.can_end.set()
    await scene.begin()
    assert scene.ended == [1]
    assert three.leader() is leader


@pytest.mark.asyncio
async def test_failure_ends_the_node(three):
    """Its reason is told."""
    scene = Scene(three, three.leader())

    async def fail():
        raise OSError("no space left on device")

    scene.giving_way._end_leadership = fail
    await scene.begin()
    assert [str(error) for error in scene.failures] == ["no space left on device"]
