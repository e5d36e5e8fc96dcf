"""Covers raft/sender.py and raft/core.py where a follower has lost what it had acknowledged."""

from raft.journal.log import Log
from tests.unit.raft.cores import Cores, Store, member


def test_follower_that_lost_an_unsynced_tail():
    """O418: without sync a power failure takes the end of a follower's journal; it must still catch up with the same leader."""
    cores = Cores()
    a = cores.elect("a")
    a.propose("x", "y", "z")
    cores.settle()
    assert cores["c"].log[-1][1] == a.log[-1][1]
    old = cores["c"]
    cut = old.log[:3]
    cores.start("c", Log(cut, term=old.consensus.term), Store(2, 0, "abc"))
    a.core.connected(member("c"))
    cores["c"].core.connected(member("a"))
    cores.move(5.0)
    assert cores["c"].log[-1][1] == a.log[-1][1]
