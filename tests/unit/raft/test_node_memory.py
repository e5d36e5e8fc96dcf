"""Covers raft/node.py: memory of a member that lacks its state."""

from raft.journal.log import Log
from raft.trailing import TrailingBounds
from tests.unit.raft.cores import Store
from tests.unit.raft.nodes import Nodes


def test_log_of_a_member_that_fetches_its_state_is_bounded(loop, monkeypatch):
    """R20: while a member whose store is lost waits for a snapshot, its log in memory does not grow with every entry."""
    monkeypatch.setattr("raft.core.UNAPPLIED_MAX_BYTES", 500_000)
    nodes = Nodes(loop, "abc", trailing=TrailingBounds(entries_max=3, bytes_max=10_000))
    leader = nodes.leader()
    for number in range(20):
        leader.propose(f"{number}")
    nodes.move(1.0)
    lost = nodes.followers(leader)[0]
    lost.node.trim(lost.node.last_applied)
    assert lost.log[0][1] > 3
    nodes.stop(lost.me.node_id)
    for machine in nodes.machines.values():
        machine.snapshots.can_create = False  # it takes long
    back = nodes.start(lost.me.node_id, Log(lost.log[:], term=lost.node.term), Store())
    nodes.move(3.0)
    leader = nodes.leader(among=nodes.machines)
    for _ in range(100):
        leader.node.propose([bytes(100_000)], lambda outcome: None)
        nodes.move(0.05)
        for machine in nodes.machines.values():
            if machine is not back:
                machine.node.trim(machine.node.last_applied)
    assert back.log.bytes_in_memory < 1_000_000

    for machine in nodes.machines.values():
        machine.snapshots.can_create = True
    nodes.until(lambda: back.store.at == leader.store.at, within=60)
    leader.propose("after")
    nodes.until(lambda: back.store.at == leader.store.at)
    assert leader.node.term == 1 or leader.node.is_serving
