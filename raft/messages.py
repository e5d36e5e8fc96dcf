"""The messages that members exchange, as values. Their bytes are `raft.wire`'s business, their rules those of who handles them.

`round` numbers what a leader sends to one member within a term; the answer echoes it, so that the leader knows which of
its messages an answer belongs to and when that was sent.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from raft.journal.log import LogEntry

SNAPSHOT_ID_BYTES: Final = 16
"""Length of a snapshot's random id."""


@dataclass(frozen=True, slots=True)
class Append:
    """A leader's entries behind (`previous_index`, `previous_term`), or none: a heartbeat (Raft paper, section 5.3)."""

    term: int
    commit_index: int
    previous_index: int
    previous_term: int
    round: int
    entries: list[LogEntry]


@dataclass(frozen=True, slots=True)
class AppendResponse:
    """Answer to an append or an offer: everything below `next_index` is durable and matches; or a rejection, or just a sign of life."""

    term: int
    next_index: int
    round: int
    is_success: bool
    is_rejection: bool


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """A candidate asks for a vote. `is_forced`: its leader asked it to take over, so no living leader counts."""

    term: int
    last_index: int
    last_term: int
    is_forced: bool


@dataclass(frozen=True, slots=True)
class VoteResponse:
    """A vote granted in `term`; there is no message for a refusal."""

    term: int


@dataclass(frozen=True, slots=True)
class PreVoteRequest:
    """Would you vote for me? `term` is the current one: nothing changes by asking (Raft dissertation, section 9.6)."""

    term: int
    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class PreVoteResponse:
    """I would, in the term after `term`."""

    term: int


@dataclass(frozen=True, slots=True)
class TermNotice:
    """Your term is over: this is the current one."""

    term: int


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader asks a follower that has everything to take over (Raft dissertation, section 3.10)."""

    term: int


@dataclass(frozen=True, slots=True)
class SnapshotOffer:
    """What follows your log is no longer in mine, which begins behind (`base_index`, `base_term`): fetch a snapshot."""

    term: int
    round: int
    base_index: int
    base_term: int


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """Asks for `length` bytes from `offset` of a snapshot; with an empty id for any, which the answer then names."""

    snapshot_id: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """A piece of the snapshot up to entry (`index`, `term`), which has `size` bytes in all."""

    snapshot_id: bytes
    index: int
    term: int
    size: int
    offset: int
    checksum: int
    """CRC-32C of `data`."""
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class SnapshotGone:
    """There is no snapshot of that id here (any more): begin anew."""

    snapshot_id: bytes
    reason: str


SnapshotMessage: TypeAlias = SnapshotRequest | SnapshotChunk | SnapshotGone
"""What fetching a snapshot takes."""

Message: TypeAlias = (
    Append
    | AppendResponse
    | VoteRequest
    | VoteResponse
    | PreVoteRequest
    | PreVoteResponse
    | TermNotice
    | TimeoutNow
    | SnapshotOffer
    | SnapshotMessage
)
