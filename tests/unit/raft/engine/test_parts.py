"""Covers raft/engine/parts.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from raft.engine.parts import PeerNode, RefusingSerializer
from raft.errors import InvariantError


def test_peers_with_the_same_id_are_the_same():
    """A peer is its id: two objects find each other in sets and maps."""
    assert PeerNode("a") == PeerNode("a") != PeerNode("b")
    assert len({PeerNode("a"), PeerNode("a"), PeerNode("b")}) == 2
    assert PeerNode("a") != "a"


def test_hash_is_the_same_in_every_process():
    """The order of sets of peers decides the order of messages: it must not change with the process's hash seed."""
    program = "from raft.engine.parts import PeerNode; print(hash(PeerNode('some node')))"
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
