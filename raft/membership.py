"""Says who the members of a cluster are, and which configuration of the log counts. Pure.

A member is one journal: its node id, and the incarnation drawn when that journal was created. A node that lost its
journal comes back with another incarnation, hence as another member: nobody counts its votes or acks as those of the old
one. A member without incarnation was added before it was ever seen: it makes majorities larger and is never part of one.

Rules (Raft dissertation, section 4.1): a configuration counts as soon as it is in the log, committed or not; configurations
differ by one member; the next one may be proposed only when the last one is committed. Cutting off the log brings the one
before back.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import google_crc32c
from google.protobuf.message import DecodeError

from raft import wire_pb2 as pb
from raft.constants import MEMBERS_MAX, NODE_ID_MAX_BYTES
from raft.errors import WireError
from raft.journal.identity import INCARNATION_DIGITS

GENESIS_BYTES: Final = 16
"""Random bytes that name a cluster's beginning: two clusters that began apart never mix, whatever they are called."""


class Member(NamedTuple):
    """One journal of one node. `incarnation`: 32 hexadecimal digits, or empty for a member not seen yet."""

    node_id: str
    incarnation: str

    @property
    def key(self) -> str:
        """What votes and the engine call it."""
        return f"{self.node_id}@{self.incarnation}"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The voters of a cluster, ordered by node id, and the cluster's beginning."""

    genesis: bytes
    members: tuple[Member, ...]

    @classmethod
    def of(cls, genesis: bytes, members: Iterable[Member]) -> "Configuration":
        """A configuration of `members` in any order; node ids must differ."""
        ordered = tuple(sorted(members))
        assert len({member.node_id for member in ordered}) == len(ordered), ordered
        return cls(genesis, ordered)

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The ids of its nodes, ascending."""
        return tuple(member.node_id for member in self.members)

    @property
    def majority(self) -> int:
        """How many members make a majority."""
        return len(self.members) // 2 + 1

    def find(self, node_id: str) -> Member | None:
        """The member of that node."""
        return next((member for member in self.members if member.node_id == node_id), None)

    def with_member(self, member: Member) -> "Configuration":
        """One more; a member of that node that was never seen is replaced."""
        others = [one for one in self.members if one.node_id != member.node_id]
        return Configuration.of(self.genesis, [*others, member])

    def without(self, node_id: str) -> "Configuration":
        """One less."""
        return Configuration.of(self.genesis, [one for one in self.members if one.node_id != node_id])

    def encode(self) -> bytes:
        """The command of a configuration entry, without type byte."""
        record = pb.Configuration(genesis=self.genesis)
        for member in self.members:
            record.members.add(node_id=member.node_id, incarnation=member.incarnation)
        return record.SerializeToString(deterministic=True)


def decode_configuration(data: bytes | memoryview) -> Configuration:
    """What `encode` wrote. Raises WireError naming what is wrong: it may come from the network."""
    try:
        record = pb.Configuration.FromString(bytes(data))
    except DecodeError as error:
        raise WireError(f"a configuration of {len(data)} bytes cannot be decoded: {error}") from error
    if len(record.genesis) != GENESIS_BYTES:
        raise WireError(f"genesis of {len(record.genesis)} bytes; allowed: {GENESIS_BYTES}")
    if not 0 < len(record.members) <= MEMBERS_MAX:
        raise WireError(f"configuration of {len(record.members)} members; allowed: 1 to {MEMBERS_MAX}")
    members = [Member(one.node_id, one.incarnation) for one in record.members]
    for member in members:
        check_member(member)
    if len({member.node_id for member in members}) != len(members):
        raise WireError(f"configuration names a node twice: {[member.node_id for member in members]}")
    return Configuration.of(record.genesis, members)


def check_member(member: Member) -> None:
    """Raise WireError unless node id and incarnation have the allowed form; an empty incarnation is allowed."""
    if not 0 < len(member.node_id.encode()) <= NODE_ID_MAX_BYTES:
        raise WireError(f"node id of {len(member.node_id.encode())} bytes; allowed: 1 to {NODE_ID_MAX_BYTES}")
    if member.incarnation and not is_incarnation(member.incarnation):
        raise WireError(f"incarnation {member.incarnation!r}; allowed: {INCARNATION_DIGITS} hexadecimal digits or none")


def is_incarnation(text: str) -> bool:
    """Whether `text` is a drawn incarnation."""
    return len(text) == INCARNATION_DIGITS and set(text) <= set("0123456789abcdef")


class Configurations:
    """The configurations that the log holds behind what is applied, and the applied one before them."""

    def __init__(self, applied: Configuration | None) -> None:
        """Begin with the configuration of the state machine, if it has one."""
        self._items: list[tuple[int, Configuration]] = [] if applied is None else [(0, applied)]

    @property
    def current(self) -> Configuration | None:
        """The one that counts; None on a node that was never told."""
        return self._items[-1][1] if self._items else None

    @property
    def index(self) -> int:
        """Index of the current one; 0 when it is the applied one this node started with, or none."""
        return self._items[-1][0] if self._items else 0

    def added(self, index: int, configuration: Configuration) -> None:
        """The log has a configuration at `index`, above all known ones."""
        assert index > self.index
        self._items.append((index, configuration))

    def truncated(self, index: int) -> bool:
        """The log was cut off from `index` on; whether that brought an earlier configuration back."""
        count = len(self._items)
        while self._items and self._items[-1][0] >= index:
            self._items.pop()
        return len(self._items) != count

    def applied(self, index: int) -> None:
        """Everything up to `index` is applied: what came before the last of these is history."""
        while len(self._items) > 1 and self._items[1][0] <= index:
            self._items.pop(0)

    def restored(self, applied: Configuration | None, index: int) -> None:
        """The state machine was replaced by a snapshot up to `index`, with this configuration."""
        kept = [item for item in self._items if item[0] > index]
        self._items = ([] if applied is None else [(0, applied)]) + kept


def digest_of_peers(node_ids: Sequence[str]) -> int:
    """A checksum of the initial peers, whatever their order, to find nodes that were started with different ones."""
    names = sorted(set(node_ids))
    return int(google_crc32c.value(b"".join(struct.pack("<I", len(name.encode())) + name.encode() for name in names)))
