"""PySyncObj with its unsafe parts replaced: election, commit rule and append handler remain.

Rules:
- Committed entries are applied as one ordered list; nothing is unpickled, no-ops are passed on like any entry.
- A leader counts itself towards a commit only up to what its own journal has synced. The rule covers the commit part of
  a tick only, because the same stock method also numbers new entries.
- Nothing is committed beyond what a majority of the current configuration has, whether this node is part of it or not.
- No election begins unless it was permitted: members are asked first (`raft.election`).
- Queue, forwarding, log compaction and the stock sender never run.
Accessors are methods, not properties: `SyncObj.__init__` reads every attribute while half of them are unset.
"""

import math
from typing import Final, cast

from pysyncobj import syncobj
from pysyncobj.config import SyncObjConf

from raft.errors import InvariantError
from raft.journal.log import Log, LogEntry
from raft.membership import Member

from .parts import NullPoller, PeerNode, PortTransport, RefusingSerializer
from .ports import EnginePorts, Role, Timing

APPLY_ENTRIES_MAX: Final = 1024
"""Most entries applied in one tick: a long replay must not hold the event loop."""

APPLY_BYTES_MAX: Final = 4 * 1024 * 1024
"""No further entries are taken into one apply once it holds this many bytes."""

_APPLY_SLICE: Final = 64
"""Entries read from the log at a time while an apply is filled."""

_ROLES: Final = (Role.FOLLOWER, Role.CANDIDATE, Role.LEADER)


class Kernel(syncobj.SyncObj):  # type: ignore[misc]  # pysyncobj has no types
    """One node's consensus state. Reached only through `Consensus`."""

    _SyncObj__otherNodes: set[PeerNode]

    def __init__(
        self,
        *,
        me: PeerNode,
        others: list[PeerNode],
        transport: PortTransport,
        log: Log,
        ports: EnginePorts,
        timing: Timing,
    ) -> None:
        self._ports = ports
        self._log = log
        self._counts_durable_only = False
        self._ticking = False
        self._is_election_permitted = False
        self._is_member = False
        conf = SyncObjConf(
            autoTick=False,
            journalFile=log,
            fullDumpFile=None,
            dynamicMembershipChange=False,
            commandsQueueSize=1,
            raftMinTimeout=timing.election_min_s,
            raftMaxTimeout=timing.election_max_s,
            appendEntriesPeriod=timing.heartbeat_s,
            leaderFallbackTimeout=timing.quorum_silence_s,
            connectionTimeout=math.inf,
            onStateChanged=self._on_state_changed,
        )
        super().__init__(me, others, conf, transport=transport)
        self._poller = NullPoller()
        self._SyncObj__serializer = RefusingSerializer()

    def start_after(self, applied_index: int) -> None:
        """Take everything up to `applied_index` as applied, so that it is not applied again.

        Entry 1 is the same in every log and needs no majority, hence committed from the start.
        """
        self._SyncObj__raftLastApplied = applied_index
        self._SyncObj__raftCommitIndex = max(1, applied_index)

    def installed(self, index: int) -> None:
        """The state machine was replaced by a snapshot up to `index`."""
        self._SyncObj__raftLastApplied = index
        self._SyncObj__raftCommitIndex = max(index, self.commit_index())

    def raise_commit(self, index: int) -> None:
        """Entries up to `index`, which the log has, are known to be committed."""
        assert index <= self.last_index()
        self._SyncObj__raftCommitIndex = max(index, self.commit_index())

    def set_members(self, others: list[PeerNode], *, is_member: bool) -> None:
        """The current configuration has `others`, and this node or not. A leader begins to count new ones at once."""
        self._is_member = is_member
        now = syncobj.monotonicTime()
        for node in others:
            if node not in self._SyncObj__otherNodes:
                self._SyncObj__raftMatchIndex[node] = 0
                self._SyncObj__lastResponseTime[node] = now
        self._SyncObj__otherNodes = set(others)

    def set_votes(self, count: int) -> None:
        """So many members of the current configuration have voted for this node: it may have changed since they did."""
        self._SyncObj__votesCount = count

    def set_match(self, node: PeerNode, index: int) -> None:
        """A member of the configuration has everything up to `index` durably."""
        self._SyncObj__raftMatchIndex[node] = index

    def match_index(self, node: PeerNode) -> int:
        """What is known of a member since this leadership began."""
        return int(self._SyncObj__raftMatchIndex.get(node, 0))

    def heard(self, node: PeerNode) -> None:
        """A member of the configuration has answered in this term."""
        self._SyncObj__lastResponseTime[node] = syncobj.monotonicTime()

    def elect(self) -> None:
        """Begin an election in a tick now: a majority would vote for this node, it was asked to take over, or it is alone."""
        self._SyncObj__raftElectionDeadline = -math.inf
        self._is_election_permitted = True
        try:
            self.run_tick()
        finally:
            self._is_election_permitted = False

    def postpone_election(self) -> None:
        """Let the election timeout run anew."""
        timeout = self._SyncObj__generateRaftTimeout()
        self._SyncObj__raftElectionDeadline = syncobj.monotonicTime() + timeout

    def election_deadline_s(self) -> float:
        """When the election timeout passes."""
        return float(self._SyncObj__raftElectionDeadline)

    def is_taking_over(self) -> bool:
        """Whether the leader has asked this node to be elected."""
        return bool(self._SyncObj__transferInProgress)

    def run_tick(self) -> None:
        """Elect, commit, apply, send: whatever is due."""
        self._ticking = True
        self._counts_durable_only = self.is_leader()
        try:
            self.doTick(0.0)
        finally:
            self._ticking = self._counts_durable_only = False

    def propose(self, command: bytes) -> tuple[int, int] | None:
        """Append `command` to the leader's log; its index and term, or None on any other role."""
        if not self.is_leader():
            return None
        index, term = self.last_index() + 1, self.term()
        self._log.add(command, index, term)
        return index, term

    def is_leader(self) -> bool:
        """Whether this node believes to lead."""
        return bool(self._SyncObj__raftState == Role.LEADER)

    def role(self) -> Role:
        """The role this node believes to have."""
        return _ROLES[self._SyncObj__raftState]

    def term(self) -> int:
        """Current term."""
        return int(self._SyncObj__raftCurrentTerm)

    def leader(self) -> Member | None:
        """The leader of the current term, if known."""
        leader = self._SyncObj__raftLeader
        return None if leader is None else cast("PeerNode", leader).member

    def last_index(self) -> int:
        """Index of the log's last entry, durable or not."""
        return self._log[-1][1]

    def commit_index(self) -> int:
        """Highest index known to be committed."""
        return int(self._SyncObj__raftCommitIndex)

    def applied_index(self) -> int:
        """Highest index given to `apply` and returned from it."""
        return int(self._SyncObj__raftLastApplied)

    def noop_index(self) -> int | None:
        """Index of the no-op that this node wrote when it last became leader."""
        index = self._SyncObj__noopIDx
        return None if index is None else int(index)

    def can_commit(self) -> bool:
        """Whether a leader's next tick may commit more."""
        committed = self.commit_index()
        return self.is_leader() and committed < self.last_index() and committed < self._committable_index()

    def next_heartbeat_s(self) -> float:
        """When a leader must send again."""
        return float(self._SyncObj__newAppendEntriesTime)

    def _on_state_changed(self, old: int, new: int) -> None:
        self._ports.role_changed(_ROLES[old], _ROLES[new])

    # Overrides of stock methods, by their mangled names.

    def _SyncObj__getCurrentLogIndex(self) -> int:  # noqa: N802
        return self._committable_index() if self._counts_durable_only else self.last_index()

    def _committable_index(self) -> int:
        """What a majority of the configuration has, this node as far as its journal has synced (Raft paper, section 5.3)."""
        has = sorted(self._SyncObj__raftMatchIndex[node] for node in self._SyncObj__otherNodes)
        if self._is_member:
            has.append(min(self.last_index(), self._log.durable_index))
            has.sort()
        return has[(len(has) - 1) // 2] if has else 0

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        return self._is_election_permitted

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        super()._SyncObj__onBecomeLeader()
        # Alone in the cluster, it was elected inside the tick that would go on to commit the unsynced no-op.
        self._counts_durable_only = self._ticking

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802
        self._counts_durable_only = False  # the commit part of the tick is over; applying may propose
        applied, committed = self.applied_index(), self.commit_index()
        if committed > applied and self._ports.may_apply():
            entries = self._entries_to_apply(applied + 1, committed)
            self._ports.apply(entries)
            self._SyncObj__raftLastApplied = entries[-1][1]
        return False

    def _entries_to_apply(self, first: int, last: int) -> list[LogEntry]:
        """Entries from `first` up to `last` at most, bounded in number and bytes, never none."""
        last = min(last, first + APPLY_ENTRIES_MAX - 1)
        entries: list[LogEntry] = []
        size = 0
        while first <= last and size < APPLY_BYTES_MAX:
            part = self._SyncObj__getEntries(first, min(_APPLY_SLICE, last - first + 1))
            if not part or part[0][1] != first:
                raise InvariantError(f"committed entry {first} is not in the log, which begins at {self._log[0][1]}")
            entries += part
            size += sum(len(entry[0]) for entry in part)
            first += len(part)
        return entries

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        self._SyncObj__newAppendEntriesTime = syncobj.monotonicTime() + self.conf.appendEntriesPeriod
        self._ports.send_appends()

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        """The journal is trimmed by the driver, behind what the state machine has made durable."""

    def _checkCommandsToApply(self) -> None:  # noqa: N802
        """Proposals enter the log at once; there is no queue to drain."""

    def _applyCommand(self, *_args: object) -> None:  # noqa: N802
        raise InvariantError("a command reached the stock queue; allowed: proposals to the leader's own log")
