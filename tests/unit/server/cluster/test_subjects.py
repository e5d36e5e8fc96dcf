"""Covers server/cluster/subjects.py."""

from server.cluster.subjects import RaftSubjects
from server.config.cluster import RESERVED_NODE_IDS


def test_names() -> None:
    """O403, O408, O430, O441: below the cluster's own prefix."""
    subjects = RaftSubjects("cid")
    assert subjects.node("a") == "_STAN.raft.cid.a"
    assert subjects.join == "_STAN.raft.cid.join"
    assert subjects.bootstrap == "_STAN.raft.cid.bootstrap"
    assert subjects.add == "_STAN.raft.cid.node.add"
    assert subjects.remove == "_STAN.raft.cid.node.remove"


def test_no_node_may_be_named_like_a_request() -> None:
    """The subjects that mean something else are those of the reserved ids."""
    subjects = RaftSubjects("cid")
    named = {subjects.node(node_id) for node_id in RESERVED_NODE_IDS}
    assert named == {subjects.join, subjects.bootstrap, subjects.add, subjects.remove}
