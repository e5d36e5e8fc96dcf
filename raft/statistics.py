"""A node at one moment, for monitoring. Values only."""

from collections.abc import Callable
from dataclasses import dataclass

from raft.engine import Role
from raft.membership import Member
from raft.sender import Sender


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """What a leader knows of another member. Indexes of the log; bytes of appends under way."""

    node_id: str
    is_up: bool
    match_index: int
    next_index: int
    in_flight_bytes: int


def peer_statistics(sender: Sender | None, is_up: Callable[[Member], bool]) -> tuple[PeerStatistics, ...]:
    """Of every member that a leader sends to; nothing on any other role."""
    return tuple(
        PeerStatistics(one.member.node_id, is_up(one.member), one.match_index, one.next_index, one.in_flight_bytes)
        for one in (() if sender is None else sender.progress())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """One node. `is_held`: it leads, and keeps silent because no majority confirms it."""

    role: Role
    term: int
    leader_id: str | None
    is_serving: bool
    is_held: bool
    members: tuple[str, ...]
    last_index: int
    durable_index: int
    commit_index: int
    last_applied: int
    waiting_proposals: int
    journal_bytes_in_memory: int
    ticks: int
    writes: int
    peers: tuple[PeerStatistics, ...]
