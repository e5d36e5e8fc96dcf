"""Covers raft/engine/parts.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from raft.engine.parts import PeerNode, RefusingSerializer
from raft.errors import InvariantError
from raft.membership import Member
from tests.unit.raft.cores import member


def test_peers_of_the_same_journal_are_the_same():
    """A peer is its member: two objects find each other in sets and maps."""
    first, same, other = PeerNode(member("a")), PeerNode(member("a")), PeerNode(member("b"))
    assert first == same != other
    assert len({first, same, other}) == 2
    assert first != member("a").key


def test_another_journal_of_a_node_is_another_peer():
    """A node that lost its journal must not get the place of the old one: its votes and acks are not that one's."""
    assert PeerNode(member("a")) != PeerNode(Member("a", "f" * 32))


def test_hash_is_the_same_in_every_process():
    """The order of sets of peers decides the order of messages: it must not change with the process's hash seed."""
    program = (
        "from raft.engine.parts import PeerNode; from raft.membership import Member;"
        " print(hash(PeerNode(Member('some node', 'f' * 32))))"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[4],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


@pytest.mark.parametrize("name", ["serialize", "deserialize", "getTransmissionData", "setTransmissionData"])
def test_stock_snapshots_are_refused_by_name(name):
    """Nothing of the stock snapshot path can be called."""
    with pytest.raises(InvariantError, match=f"stock snapshots \\({name}\\)"):
        getattr(RefusingSerializer(), name)
