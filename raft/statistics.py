"""A node at one moment, for monitoring. Values only."""

from dataclasses import dataclass

from raft.engine import Role


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """What a leader knows of another member. Indexes of the log; bytes of appends under way."""

    node_id: str
    is_up: bool
    match_index: int
    next_index: int
    in_flight_bytes: int


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
