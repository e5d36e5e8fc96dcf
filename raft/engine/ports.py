"""What the engine and its driver say to each other: roles, timing and the calls it makes. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

from raft.journal.log import LogEntry
from raft.membership import Member
from raft.messages import Message

StockMessage: TypeAlias = dict[str, object]
"""A PySyncObj message: `type` is request_vote, response_vote, append_entries, next_node_idx or timeout_now."""

Clock: TypeAlias = Callable[[], float]
"""Monotonic seconds."""


class Role(IntEnum):
    """A Raft role (Raft paper, section 5.1). The values are PySyncObj's."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2


class RandomSource(Protocol):
    """Chooses election timeouts; `random.Random` is one."""

    def random(self) -> float:
        """A number in [0, 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Timeouts, seconds. A follower starts an election after a random time between the two election bounds.

    A leader serves until `lease_s` after it sent what a majority has answered. Nobody of that majority helps to elect
    another within `election_min_s` of hearing from it, so the lease is shorter: it has ended before another leader serves.
    `quorum_silence_s` is how long a leader keeps its role without hearing from a majority, to serve again if one answers.
    """

    election_min_s: float = 0.6
    election_max_s: float = 1.4
    heartbeat_s: float = 0.15
    lease_s: float = 0.5
    quorum_silence_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < 3 * self.heartbeat_s < self.election_min_s < self.election_max_s:
            raise ValueError(f"{self}: allowed: 0 < 3 * heartbeat_s < election_min_s < election_max_s")
        if not self.heartbeat_s < self.lease_s < self.election_min_s:
            raise ValueError(f"{self}: allowed: heartbeat_s < lease_s < election_min_s")
        if not self.lease_s <= self.quorum_silence_s:
            raise ValueError(f"{self}: allowed: lease_s <= quorum_silence_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePorts:
    """The engine's ways out. Every call is made on the event loop's thread, from inside a call into the engine."""

    send: Callable[[Member, Message], None]
    """Takes a message for a member. It must not leave before the journal has synced what it asserts."""

    send_appends: Callable[[], None]
    """A heartbeat is due, or a leadership begins: tell every peer what it lacks."""

    may_apply: Callable[[], bool]
    """Whether the state machine can take the next entry; False while it waits for a snapshot."""

    apply: Callable[[list[LogEntry]], None]
    """Applies committed entries: in order, without gap, once. May propose. What it raises ends the tick."""

    role_changed: Callable[[Role, Role], None]
    """Old and new role, before the engine does anything else."""
