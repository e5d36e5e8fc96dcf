"""Drives one Raft member from the event loop: proposals in, applied results out, role changes told. Decides nothing.

Nothing polls. The engine ticks when the journal has synced what a leader waits for, when committed entries are left to
apply, or when a timeout of the engine is due; a leader without peers therefore never wakes up by itself.

Rules:
- One journal write is under way at a time. A proposal starts one if none is, else it joins the next.
- `on_leading` comes when this leader's own no-op is applied: only then has it applied all that was committed before.
- `on_lost` comes before anything else happens after leadership ended; then every waiting proposal ends as `Unknown`.
- After the first failure nothing is applied, proposed or written any more, and `on_fatal` has been told why.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import SystemRandom

from raft.applier import Applier
from raft.engine import Consensus, EnginePorts, Message, RandomSource, Role, Timing
from raft.errors import InvariantError, NotLeaderError
from raft.journal.log import Log, LogEntry, WriteGroup
from raft.journal.writer import JournalWriter
from raft.proposals import Done, Proposals
from raft.recovery_check import align_journal
from raft.state_machine import StateMachine
from raft.trailing import TRAILING_BYTES_MAX, TrailingEntries
from raft.wakeup import Scheduler, Wakeup

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """A node at one moment, for monitoring."""

    role: Role
    term: int
    leader_id: str | None
    is_serving: bool
    last_index: int
    durable_index: int
    commit_index: int
    last_applied: int
    waiting_proposals: int
    journal_bytes_in_memory: int
    ticks: int
    writes: int


class RaftNode:
    """One member. Build it, `start` it, `propose` while `is_serving`, `close` it.

    All calls and callbacks are on the event loop's thread. `loop` defaults to the running loop, `random` to the
    system's. The journal's writer must report completion on that thread, never from inside `submit`.

    Building fits journal and store together in memory. It raises RecoveryError when the journal cannot continue the
    store, SelfCheckError when PySyncObj is not the proven one, ValueError for peers.
    """

    def __init__(  # noqa: PLR0913  # the composition root names what it passes
        self,
        *,
        node_id: str,
        peers: Sequence[str],
        log: Log,
        writer: JournalWriter,
        state_machine: StateMachine,
        on_leading: Callable[[int], None],
        on_lost: Callable[[], None],
        on_fatal: Callable[[BaseException], None],
        loop: Scheduler | None = None,
        random: RandomSource | None = None,
        timing: Timing | None = None,
    ) -> None:
        if peers:
            raise ValueError(f"peers={list(peers)}: allowed: none, a cluster of one")
        self._peers = tuple(peers)
        self._log = log
        self._writer = writer
        self._on_leading = on_leading
        self._on_lost = on_lost
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._proposals = Proposals()
        self._trailing = TrailingEntries(TRAILING_BYTES_MAX if self._peers else 0)
        self._is_serving = False  # between on_leading and on_lost
        self._is_stopped = False  # closing: no new proposals
        self._is_writing = False
        self._is_closed = False  # closed or failed: nothing runs any more
        self._tick_is_due = False
        self._idle = asyncio.Event()  # nothing is being written or left to apply
        self._idle.set()
        self._wakeup = Wakeup(self._loop, self._tick)
        self._ticks = 0
        self._writes = 0
        align_journal(log, *state_machine.last_applied())
        self._applier = Applier(state_machine)
        self._consensus = Consensus(
            node_id=node_id,
            peers=self._peers,
            log=log,
            ports=EnginePorts(
                send=self._send,
                send_appends=self._send_appends,
                apply=self._apply,
                role_changed=self._role_changed,
            ),
            applied_index=self._applier.index,
            clock=self._loop.time,
            random=SystemRandom() if random is None else random,
            timing=Timing() if timing is None else timing,
        )

    @property
    def role(self) -> Role:
        """The role this node believes to have; a leader may not serve yet."""
        return self._consensus.role

    @property
    def term(self) -> int:
        """Current term."""
        return self._consensus.term

    @property
    def last_applied(self) -> int:
        """Index of the last entry the state machine has taken."""
        return self._applier.index

    @property
    def is_serving(self) -> bool:
        """Whether this node leads and has applied its own no-op, hence everything committed before it."""
        return self._is_serving

    def statistics(self) -> NodeStatistics:
        """The node as it is now."""
        return NodeStatistics(
            role=self._consensus.role,
            term=self._consensus.term,
            leader_id=self._consensus.leader_id,
            is_serving=self._is_serving,
            last_index=self._consensus.last_index,
            durable_index=self._log.durable_index,
            commit_index=self._consensus.commit_index,
            last_applied=self._applier.index,
            waiting_proposals=len(self._proposals),
            journal_bytes_in_memory=self._log.bytes_in_memory,
            ticks=self._ticks,
            writes=self._writes,
        )

    def start(self) -> None:
        """Begin. A cluster of one elects itself at once and leads when its journal has synced that."""
        if not self._peers:
            self._consensus.elect_now()
        self._tick()

    def propose(self, parts: Sequence[bytes | memoryview], done: Done) -> int:
        """Log one entry made of `parts` and return its index; `done` is called once, after this has returned.

        Legal inside `done` and `on_leading`. Raises NotLeaderError, with nothing logged and `done` never called, unless
        the node is serving.
        """
        if not self._is_serving or self._is_stopped:
            raise NotLeaderError(None if self._is_stopped else self._consensus.leader_id)
        logged = self._consensus.propose(parts)
        assert logged is not None
        index, term = logged
        self._proposals.add(index, term, done)
        self._write()
        return index

    def trim(self, durable_index: int) -> None:
        """Let the journal forget entries up to `durable_index`, which the store holds durably, but for a tail."""
        index = self._trailing.trim_index(durable_index)
        if index:
            self._log.trim(index)

    async def close(self) -> None:
        """Stop proposals and timers, finish the writes under way and what they commit, end as not leading.

        Proposals that could not be committed by then end as `Unknown`. Log and writer stay the caller's to close.
        """
        self._is_stopped = True
        self._wakeup.set(None)
        await self._idle.wait()
        self._is_closed = True
        self._stop_leading()

    def fail(self, error: BaseException) -> None:
        """Stop for ever, and tell `on_fatal` once. Also what the journal writer's `on_failure` must call."""
        if self._is_closed:
            return
        self._is_stopped = self._is_closed = True
        self._wakeup.set(None)
        self._idle.set()
        try:
            self._stop_leading()
        finally:
            self._on_fatal(error)

    # Engine ports.

    def _send(self, peer_id: str, message: Message) -> None:
        raise InvariantError(f"message {message['type']} to {peer_id}, but a cluster of one has no peers")

    def _send_appends(self) -> None:
        """A cluster of one has nobody to send to."""

    def _apply(self, entries: list[LogEntry]) -> None:
        results = self._applier.apply(entries)
        self._trailing.applied(self._applier.index, sum(len(command) for command, _, _ in entries))
        self._proposals.settle(entries, results)
        if self._consensus.is_leader and not self._is_serving and not self._is_stopped:
            noop_index = self._consensus.noop_index
            if noop_index is not None and self._applier.index >= noop_index:
                self._is_serving = True
                self._on_leading(self._consensus.term)

    def _role_changed(self, old: Role, new: Role) -> None:
        logger.info("role changed from=%s to=%s term=%d", old.name, new.name, self._consensus.term)
        if old is Role.LEADER:
            self._stop_leading()

    def _stop_leading(self) -> None:
        if self._is_serving:
            self._is_serving = False
            self._on_lost()
        self._proposals.abandon()

    # The turn of a tick and the writes.

    def _tick(self) -> None:
        self._tick_is_due = False
        if self._is_closed:
            return
        self._ticks += 1
        try:
            self._consensus.tick()
        except Exception as error:  # noqa: BLE001  # the top of the member's work: it ends here, with the reason told
            self.fail(error)
            return
        self._write()
        if self._consensus.has_committed_unapplied:
            self._tick_soon()
        elif not self._is_writing:
            self._idle.set()
        if not self._is_stopped:
            self._wakeup.set(self._consensus.next_deadline())

    def _tick_soon(self) -> None:
        if not self._tick_is_due:
            self._tick_is_due = True
            self._loop.call_soon(self._tick)

    def _write(self) -> None:
        """Start writing what the journal has collected, unless a write is under way."""
        if self._is_writing or self._is_closed:
            return
        group = self._log.take()
        if group is not None:
            self._is_writing = True
            self._writes += 1
            self._idle.clear()
            self._writer.submit(group, self._written)

    def _written(self, group: WriteGroup) -> None:
        """The writer has synced `group`."""
        self._is_writing = False
        self._log.done(group)
        self._write()  # the disk works on the next group while this one is applied
        if self._consensus.is_leader:
            self._tick()
        elif not self._is_writing:
            self._idle.set()
