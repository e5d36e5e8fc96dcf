"""What the engine and its driver say to each other: roles, timing and the calls it makes. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

from raft.journal.log import LogEntry

Message: TypeAlias = dict[str, object]
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

    `quorum_silence_s` is how long a leader keeps its role without hearing from a majority: at most the shortest
    election timeout, so that it has stepped down before another leader serves.
    """

    election_min_s: float = 0.4
    election_max_s: float = 1.4
    heartbeat_s: float = 0.1
    quorum_silence_s: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < 3 * self.heartbeat_s < self.election_min_s < self.election_max_s:
            raise ValueError(f"{self}: allowed: 0 < 3 * heartbeat_s < election_min_s < election_max_s")
        if not self.heartbeat_s < self.quorum_silence_s <= self.election_min_s:
            raise ValueError(f"{self}: allowed: heartbeat_s < quorum_silence_s <= election_min_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePorts:
    """The engine's ways out. Every call is made on the event loop's thread, from inside a call into the engine."""

    send: Callable[[str, Message], None]
    """Takes a message for a peer id. It must not leave before the journal has synced what it asserts."""

    send_appends: Callable[[], None]
    """A heartbeat is due, or a leadership begins: tell every peer what it lacks."""

    apply: Callable[[list[LogEntry]], None]
    """Applies committed entries: in order, without gap, once. May propose. What it raises ends the tick."""

    role_changed: Callable[[Role, Role], None]
    """Old and new role, before the engine does anything else."""
