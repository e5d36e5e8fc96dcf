"""The slow layer: the store's real state machine under the simulated cluster, with real operations.

Beside the hash chain every node keeps the store's state; at equal indexes its digest must be equal (R6). What is durable is a
prefix of the entries, from which a restart builds the state anew; a snapshot carries them.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from raft.errors import NotLeaderError
from raft.proposals import Applied, Outcome
from raft.state_machine import CommittedEntry, Prepared
from store import entry
from store.machine import cluster
from store.machine.apply import apply_entry
from store.machine.state import State as StoreState
from store.operations import CreateChannel, InitCluster, Operation
from tests.support.store_digest import digest_state
from tests.unit.store.builders import NoReader, connect
from tests.unit.store.random_log import LIMITS, RandomLog

from .host import Process, World
from .machine import ChainMachine, PreparedState, State, decode_state, encode_state
from .profile import Profile
from .proposals import Proposals
from .simulation import Simulation
from .sizes import OUTSTANDING_MAX
from .violation import ViolationError
from .workload import Workload

COMPARED_EVERY: Final = 7
"""Digests are compared at indexes that this divides: they cost more than applying."""

_ENTRY: Final = struct.Struct("<QQ?I")


@dataclass(slots=True)
class PreparedEntries(PreparedState):
    """A copy with the entries that lead to its state."""

    entries: list[CommittedEntry]


class StoreMachine(ChainMachine):
    """The chain, and the store's state."""

    digests: dict[int, str]
    """Of the whole cluster, by index."""

    def begin(self, digests: dict[int, str]) -> None:
        """Build the state from what is durable."""
        self.digests = digests
        self.store = StoreState()
        self._image.entries = self._image.entries[: self.state.index]
        self._entries: list[CommittedEntry] = []
        self._apply_all(self._image.entries)

    def apply(self, entries: Sequence[CommittedEntry]) -> Sequence[object]:
        """Apply to both."""
        super().apply(entries)
        return self._apply_all(entries)

    def _apply_all(self, entries: Sequence[CommittedEntry]) -> list[object]:
        results: list[object] = []
        for one in entries:
            if one.is_configuration:
                cluster.configure(self.store, bytes(one.data))
            results.append(
                apply_entry(self.store, entry.decode(one.data), one.index, NoReader())
                if one.data and not one.is_configuration
                else None
            )
            self._entries.append(one)
            if one.index % COMPARED_EVERY == 0:
                self._compare(one.index)
        self._image.entries = self._entries  # only what the durable state covers counts
        return results

    def _compare(self, index: int) -> None:
        content = hashlib.sha256(digest_state(self.store).encode())
        for channel_id in sorted(self.store.channels_by_id):
            for block in self.store.channels_by_id[channel_id].tail:
                content.update(block.data)
        digest = content.hexdigest()
        if self.digests.setdefault(index, digest) != digest:
            raise ViolationError("R6", f"stores differ at index {index}")

    def encode(self, state: State) -> bytes:
        """The entries up to a state."""
        parts = [encode_state(state, 0)]
        for one in self._entries[: state.index]:
            parts += [_ENTRY.pack(one.index, one.term, one.is_configuration, len(one.data)), bytes(one.data)]
        return len(parts[0]).to_bytes(4, "little") + b"".join(parts)

    def decode(self, content: bytes) -> PreparedState:
        """What `encode` made."""
        end = 4 + int.from_bytes(content[:4], "little")
        state = decode_state(content[4:end])
        entries: list[CommittedEntry] = []
        while end < len(content):
            index, term, is_configuration, size = _ENTRY.unpack_from(content, end)
            end += _ENTRY.size
            entries.append(CommittedEntry(index, term, memoryview(content)[end : end + size], is_configuration))
            end += size
        return PreparedEntries(state, entries)

    def _install(self, prepared: Prepared) -> None:
        assert isinstance(prepared, PreparedEntries)
        super()._install(prepared)
        self.store = StoreState()
        self._entries = []
        self._apply_all(prepared.entries)


class StoreWriters(Workload):
    """Writers that make the leader's kind of decisions: from its state, pipelined, so that some are refused by all."""

    def __init__(self, world: World, profile: Profile, proposals: Proposals) -> None:
        super().__init__(world, profile, proposals)
        self._log = RandomLog(Random(0))
        self._log.random = self._random

    def propose(self, process: Process, size: int) -> None:
        """One entry of a few operations."""
        machine = process.machine
        assert isinstance(machine, StoreMachine)
        self._log.machine.state = machine.store
        blocks: list[bytes] = []
        operations: list[Operation] = [
            InitCluster("c", "t"),
            CreateChannel(machine.store.next_channel_id, "foo", LIMITS[0]),
            connect("a"),
        ]
        if machine.store.clients and self._random.random() < 0.95:
            operations = [
                self._log.append(blocks) if self._random.random() < 0.5 else self._log.other()
                for _ in range(self._random.randint(1, 4))
            ]
        parts = entry.encode(operations, blocks, len(self._proposals.all))
        self.log_entry(process, parts)

    def log_entry(self, process: Process, parts: Sequence[bytes]) -> None:
        """Propose it."""
        proposal = self._proposals.new(self._world.time.now, parts)

        def done(outcome: Outcome) -> None:
            self._waiting[process] -= 1
            if isinstance(outcome, Applied):
                self._proposals.applied(proposal, self._world.time.now)

        try:
            proposal.index = process.node.propose(parts, done)
        except NotLeaderError:
            return
        self._waiting[process] = self._waiting.get(process, 0) + 1
        assert self._waiting[process] <= OUTSTANDING_MAX


class StoreSimulation(Simulation):
    """A seed of this layer."""

    def __init__(self, seed: int, profile: Profile, *, is_traced: bool = False) -> None:
        self.digests: dict[int, str] = {}
        super().__init__(seed, profile, is_traced=is_traced)

    def make_proposals(self) -> Proposals:
        """The number of a proposal is its entry's time."""
        return Proposals(lambda data: entry.decode(data).time_ns)

    def make_workload(self) -> Workload:
        """Writers of operations."""
        return StoreWriters(self, self.profile, self.proposals)

    def make_machine(self, process: Process) -> ChainMachine:
        """The store's state machine."""
        machine = self.machine_of(StoreMachine, process)
        machine.begin(self.digests)
        return machine
