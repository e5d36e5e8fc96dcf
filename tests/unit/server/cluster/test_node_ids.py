"""Covers server/cluster/node_ids.py."""

import pytest

from server.cluster.node_ids import is_node_id


@pytest.mark.parametrize("text", ["a", "node-1", "node_1", "a.b", "Ж", "x" * 255])
def test_ids(text: str) -> None:
    """What an operator may give with --cluster_node_id."""
    assert is_node_id(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "a*", "*", ">", "a.>", "a..b", ".a", "a.", "a/b", "x" * 256, "join", "node.add", "\ud800", "a\n"],
)
def test_no_ids(text: str) -> None:
    """O431: what cannot be a part of a subject, or the name of a directory, or means something else."""
    assert not is_node_id(text)
