"""Nothing that came over the network or from a file is ever unpickled (reliability: a forged entry of stock PySyncObj ran a command)."""

import os
import pickle

import pytest
from pysyncobj import syncobj

from raft.errors import WireError
from raft.membership import Configuration
from raft.messages import Append
from raft.trailing import TrailingBounds
from raft.wire import decode, encode
from tests.unit.raft.nodes import Nodes


class Command:
    """What an attacker would send."""

    def __reduce__(self):
        return os.system, ("true",)


@pytest.fixture
def trap(monkeypatch):
    """Every way to unpickle raises; what was tried is remembered."""
    tried = []

    def refuse(*_args, **_options):
        tried.append("unpickled")
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(syncobj.pickle, "loads", refuse)
    monkeypatch.setattr(syncobj.pickle, "load", refuse, raising=False)
    return tried


def test_a_cluster_unpickles_nothing(loop, trap):
    """Elections, entries, a snapshot, changes of the members and a restart, with the trap set."""
    payload = pickle.dumps(Command(), protocol=0)
    nodes = Nodes(loop, "abc", trailing=TrailingBounds(entries_max=3, bytes_max=10_000))
    leader = nodes.leader()
    lagging = nodes.followers(leader)[0]
    nodes.cut(lagging.me.node_id)
    for _ in range(10):
        leader.node.propose([payload], lambda _outcome: None)
        nodes.move(0.1)
    for machine in nodes.machines.values():
        machine.node.trim(machine.node.last_applied)
    nodes.heal()
    nodes.move(10)
    assert lagging.store.at == leader.store.at
    assert lagging.snapshots.installed
    changed = []
    leader.node.remove_node(lagging.me.node_id, changed.append)
    nodes.move(2)
    assert changed == [None]
    assert isinstance(leader.node.configuration, Configuration)
    assert trap == []


@pytest.mark.parametrize("kind", [2, 3, 5, 255])
def test_command_types_that_carry_pickles_are_refused(kind, trap):
    """PySyncObj's types for membership and version carry pickles: no message with such an entry is taken."""
    entry = (bytes([kind]) + pickle.dumps(Command()), 6, 3)
    message = b"".join(encode(Append(3, 4, 5, 3, 8, [entry])))
    with pytest.raises(WireError, match=f"command type {kind}"):
        decode(message)
    assert trap == []
