"""Covers raft/node.py: leaders that are left alone, and links that are slow."""

from raft.proposals import Applied
from tests.unit.raft.nodes import Nodes


def test_leader_that_is_left_alone_while_held_serves_again(loop):
    """B401, O433: the dead one of two is removed while its leader is held; the leader is alone then, and certain."""
    nodes = Nodes(loop, "ab")
    leader = nodes.leader()
    other = nodes.followers(leader)[0]
    name = other.me.node_id
    leader.propose("before")
    nodes.move(0.3)
    nodes.stop(name)
    nodes.move(1.0)
    assert leader.told[-1] == "held"
    assert leader.node.is_serving
    leader.node.remove_node(name, lambda error: leader.told.append(("removed", error)))
    nodes.move(5.0)
    assert ("removed", None) in leader.told
    assert leader.node.is_serving
    assert leader.node.is_confirmed


def slow(nodes, bytes_per_s):
    """Every link carries so many bytes per second, in order."""
    free = {}
    for machine in nodes.machines.values():
        wire = machine.wire

        def send(node_id, parts, wire=wire):
            data = b"".join(parts)
            key = (wire.name, node_id)
            begin = max(nodes.loop.now, free.get(key, 0.0))
            free[key] = begin + len(data) / bytes_per_s
            nodes.loop.call_at(free[key], lambda: nodes.carry(wire.name, node_id, data))

        wire.send = send


def test_large_entries_over_slow_links_cost_no_leader(loop):
    """R19, F6: an entry of 4 MiB takes 0.8 s on a link of 5 MB/s; who receives it all the time hears its leader."""
    nodes = Nodes(loop, "abc")
    leader = nodes.leader()
    nodes.move(1.0)
    term = leader.node.term
    slow(nodes, 2_000_000)
    outcomes = []
    for number in range(1, 21):
        if not leader.node.is_serving:
            break
        leader.node.propose([bytes(4 * 1024 * 1024)], outcomes.append)
        nodes.until(lambda number=number: len(outcomes) == number)
    assert [type(outcome) for outcome in outcomes] == [Applied] * 20
    assert {machine.node.term for machine in nodes.machines.values()} == {term}
