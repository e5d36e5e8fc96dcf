"""Covers raft/formation.py."""

import pytest

from raft.formation import Form, Join, Mixed, Wait, decide, peers_digest
from raft.link.frame import NodeInfo
from raft.membership import Member
from tests.unit.raft.cores import GENESIS, member

DIGEST = peers_digest("a", ["b", "c"])
NEW = NodeInfo(is_fresh=True, peers_digest=DIGEST)
OLD = NodeInfo(genesis=GENESIS, is_fresh=False, peers_digest=DIGEST)
USED = NodeInfo(is_fresh=False, peers_digest=DIGEST)
"""A node that holds entries of a cluster whose configuration it was never told."""


def seen(**infos):
    return {member(name): info for name, info in infos.items()}


@pytest.mark.parametrize(
    ("me", "infos", "decision"),
    [
        ("a", {}, Wait(("b", "c"))),
        ("a", seen(b=NEW), Wait(("c",))),
        ("a", seen(b=NEW, c=NEW), Form((member("a"), member("b"), member("c")))),
        ("b", seen(a=NEW, c=NEW), Wait(())),
        ("c", seen(a=NEW), Wait(("b",))),
        ("a", seen(b=OLD), Join("b")),
        ("a", seen(b=NEW, c=OLD), Join("c")),
        ("c", seen(a=OLD, b=NEW), Join("a")),
        ("a", seen(b=NEW, c=USED), Join("c")),
        ("a", seen(b=NEW, c=NEW, d=OLD), Join("d")),
        ("a", seen(b=NEW, c=NEW, d=NEW), Form((member("a"), member("b"), member("c")))),
        ("a", seen(b=NodeInfo(is_fresh=True, peers_digest=DIGEST + 1)), Mixed("b")),
        ("a", seen(b=NEW, c=NodeInfo(is_fresh=True)), Mixed("c")),
        ("a", seen(b=OLD, c=NodeInfo(is_fresh=True)), Join("b")),
    ],
)
def test_decision(me, infos, decision):
    """All peers and none used: the lowest id founds; an existing cluster is joined, whoever knows it; other lists found nothing."""
    peers = sorted({"a", "b", "c"} - {me})
    assert decide(member(me), peers, infos) == decision
    assert decide(member(me), [*peers, me], infos) == decision


def test_a_majority_does_not_found_a_cluster():
    """Two of three that are new: the third one may hold all data, and a second cluster would forget it."""
    assert decide(member("a"), ["b", "c"], seen(b=NEW)) == Wait(("c",))


def test_founded_are_the_journals_that_were_seen():
    """A node that comes back with another journal meanwhile is not the one that was counted."""
    other = Member("b", "f" * 32)
    assert decide(member("a"), ["b"], {other: NodeInfo(is_fresh=True, peers_digest=peers_digest("a", ["b"]))}) == Form(
        (member("a"), other)
    )


def test_node_without_peers_founds_alone():
    """A list that names nobody else waits for nobody."""
    assert decide(member("a"), [], {}) == Form((member("a"),))
    assert decide(member("a"), ["a"], {}) == Form((member("a"),))
    assert decide(member("a"), [], seen(b=OLD)) == Join("b")


def test_lists_that_mean_the_same_have_one_digest():
    """Whether a node's own id is in its list or not."""
    assert peers_digest("a", ["b", "c"]) == peers_digest("b", ["a", "b", "c"]) == peers_digest("c", ["b", "a"])
    assert peers_digest("a", ["b"]) != DIGEST
