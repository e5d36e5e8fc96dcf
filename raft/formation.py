"""Decides how a node that was never part of a cluster gets into one that is started with a list of peers. Pure.

Rules:
- A cluster that exists is joined, never formed again: a peer that knows one is proof.
- A new one is formed when all peers were seen and none of them ever belonged to one. A majority would not do: a node that lost
  its disk, with one that was never started, would found a second cluster while the third node has acknowledged data.
- The node with the lowest id forms it; the configuration names the journals it has seen, so that no other counts.
- Nodes that were started with different lists form nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from raft.link.frame import NodeInfo
from raft.membership import Member, digest_of_peers


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: these peers were not seen, or it is another's turn when there are none."""

    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """Form a cluster of these."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """A cluster exists: ask its leader to be added. `witness` is the node that knows it."""

    witness: str


@dataclass(frozen=True, slots=True)
class Mixed:
    """That node was started with another list of peers."""

    node_id: str


Decision: TypeAlias = Wait | Form | Join | Mixed


def peers_digest(me: str, peers: Sequence[str]) -> int:
    """What nodes started with the same list have in common, whether a list names its own node or not."""
    return digest_of_peers([me, *peers])


def decide(me: Member, peers: Sequence[str], infos: Mapping[Member, NodeInfo]) -> Decision:
    """What a new node does, by what the nodes that it can reach say about themselves. `peers` may contain this node."""
    by_id = {member.node_id: (member, info) for member, info in infos.items()}
    for node_id, (_, info) in sorted(by_id.items()):
        if info.genesis or not info.is_fresh:
            return Join(node_id)
    others = sorted(set(peers) - {me.node_id})
    digest = peers_digest(me.node_id, others)
    for node_id in others:
        if node_id in by_id and by_id[node_id][1].peers_digest != digest:
            return Mixed(node_id)
    missing = tuple(node_id for node_id in others if node_id not in by_id)
    if missing or any(node_id < me.node_id for node_id in others):
        return Wait(missing)
    return Form((me, *(by_id[node_id][0] for node_id in others)))
