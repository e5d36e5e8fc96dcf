"""Drives one Raft member from the event loop: proposals and messages in, results and messages out, role changes told.

Decides nothing. Nothing polls: the core ticks when the journal has synced what a leader waits for, when others have
answered, when committed entries are left to apply, or when a timeout is due; a leader alone never wakes up by itself.

Rules:
- One journal write is under way at a time. A proposal goes to the others first, then starts a write if none is under way.
- `leading` comes when this leader's own no-op is applied: only then has it applied all that was committed before.
- `lost` comes before anything else happens after leadership ended; then every waiting proposal ends as `Unknown`.
- Between `held` and `released` a leader cannot be sure to be the only one, and must keep silent (B401).
- After the first failure nothing is applied, proposed or written any more, and `fatal` has been told why.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random, SystemRandom

from raft.admission import Admission
from raft.admission import Done as Admitted
from raft.applier import Applier
from raft.core import Core, CorePorts
from raft.engine import CONFIGURATION, RandomSource, Role, Timing
from raft.errors import NotLeaderError
from raft.handover import HandOver
from raft.journal.log import Log, LogEntry, WriteGroup
from raft.journal.writer import JournalWriter
from raft.lease_keeper import LeaseKeeper
from raft.link.frame import NodeInfo
from raft.membership import Configuration, Member, decode_configuration
from raft.messages import AppendResponse, Message, SnapshotMessage, TimeoutNow
from raft.neighbours import NeighbourPorts, Neighbours, Network
from raft.outbox import Outbox
from raft.proposals import Done, Proposals
from raft.recovery_check import align_journal
from raft.snapshot.exchange import SnapshotExchange, SnapshotPorts
from raft.state_machine import Prepared, StateMachine
from raft.statistics import NodeStatistics, peer_statistics
from raft.trailing import SNAPSHOT_HOLD_BYTES, TrailingBounds, TrailingEntries
from raft.wakeup import Scheduler, Wakeup

logger = logging.getLogger(__name__)
engine_logger = logging.getLogger("raft.engine")
"""For what only concerns Raft itself (O429)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvents:
    """What the node tells its owner, on the loop's thread."""

    leading: Callable[[int], None]
    lost: Callable[[], None]
    fatal: Callable[[BaseException], None]
    held: Callable[[], None] = lambda: None
    released: Callable[[], None] = lambda: None
    removed: Callable[[], None] = lambda: None
    """This leader has removed itself from the cluster: end in order (O433)."""
    link_changed: Callable[[], None] = lambda: None
    """Another node came, went or said something new about itself."""


class RaftNode:
    """One member. Build it, `start` it, `propose` while `is_serving`, `close` it.

    All calls and callbacks are on the event loop's thread. `loop` defaults to the running loop, `random` to the
    system's. The journal's writer must report completion on that thread, never from inside `submit`.

    Without `network` the node is alone. Building fits journal and store together in memory. It raises RecoveryError when
    the journal cannot continue the store, SelfCheckError when PySyncObj is not the proven one.
    """

    def __init__(  # noqa: PLR0913  # the composition root names what it passes
        self,
        *,
        member: Member,
        log: Log,
        writer: JournalWriter,
        state_machine: StateMachine,
        events: NodeEvents,
        network: Network | None = None,
        snapshots: SnapshotPorts | None = None,
        trailing: TrailingBounds | None = None,
        loop: Scheduler | None = None,
        random: RandomSource | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.member = member
        self._log = log
        self._writer = writer
        self._state_machine = state_machine
        self._events = events
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._timing = Timing() if timing is None else timing
        self._proposals = Proposals()
        self._trailing_bounds = TrailingBounds(0, 0) if network is None else trailing or TrailingBounds()
        self._is_serving = False  # between `leading` and `lost`
        self._is_stopped = False  # closing or handing over: no new proposals
        self._is_writing = False
        self._is_closed = False  # closed or failed: nothing runs any more
        self._turn_is_due = False
        self._tick_is_due = False
        self._signed_s = float("-inf")  # when a leader was last told that it was heard
        self._hand_over: HandOver | None = None
        self._idle = asyncio.Event()  # nothing is being written or left to apply
        self._idle.set()
        self._wakeup = Wakeup(self._loop, self._timer)
        self._ticks = self._writes = 0
        self._missing_to = align_journal(log, *state_machine.last_applied(), can_fetch=snapshots is not None)
        self._applier = Applier(state_machine)
        self._trailing = TrailingEntries(log, self._applier.index)
        self._flush_links: Callable[[], None] = (lambda: None) if network is None else network.flush
        self._neighbours: Neighbours | None = None
        if network is not None:
            ports = NeighbourPorts(
                connected=self._connected,
                disconnected=self._disconnected,
                message=self._received,
                part=self._received_part,
                changed=events.link_changed,
            )
            self._neighbours = Neighbours(member, network, ports, self._loop.time)
        self._outbox = Outbox(send=self._send_now, synced=lambda: log.synced)
        self._core = Core(
            me=member,
            log=log,
            ports=CorePorts(
                send=self._send,
                is_up=self._is_up,
                apply=self._apply,
                may_apply=lambda: not self._missing_to,
                role_changed=self._role_changed,
                snapshot_needed=self._snapshot_needed,
                configuration_changed=self._configuration_changed,
            ),
            applied=None if self._missing_to else _configuration_of(state_machine),  # else it may be of long ago
            applied_index=self._applier.index,
            clock=self._loop.time,
            random=Random(SystemRandom().getrandbits(64)) if random is None else random,  # noqa: S311  it spreads timeouts
            timing=self._timing,
        )
        if self._core.is_alone:
            align_journal(log, *state_machine.last_applied(), can_fetch=False)  # nobody to fetch from: it raises
        self._consensus = self._core.consensus
        self._lease = LeaseKeeper(self._core, self._loop, self._timing, events.held, events.released)
        self._exchange: SnapshotExchange | None = None
        if snapshots is not None:
            self._exchange = SnapshotExchange(
                snapshots, send=self._send_now, clock=self._loop.time, install=self._install
            )
        self._admission = Admission(
            core=self._core,
            is_up=self._is_up,
            is_alive=self._is_alive,
            up_members=self._up_members,
            clock=self._loop.time,
        )
        self._configure()

    # ---- what is known

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

    @property
    def is_confirmed(self) -> bool:
        """Whether this leader is certain, now, that no other was elected (B401). Cheap."""
        return self._lease.is_confirmed

    @property
    def leader(self) -> Member | None:
        """The leader of the current term, if known."""
        return self._consensus.leader

    @property
    def configuration(self) -> Configuration | None:
        """The members; None while this node was never told."""
        return self._core.configuration

    @property
    def is_new(self) -> bool:
        """Whether this journal was never part of a cluster."""
        return self.configuration is None and self._consensus.last_index <= 1

    def infos(self) -> dict[Member, NodeInfo]:
        """What the nodes that are up say of themselves."""
        return {} if self._neighbours is None else self._neighbours.infos()

    def statistics(self) -> NodeStatistics:
        """The node as it is now."""
        return NodeStatistics(
            role=self._consensus.role,
            term=self._consensus.term,
            leader_id=None if self.leader is None else self.leader.node_id,
            is_serving=self._is_serving,
            is_held=self._lease.is_held,
            members=() if self.configuration is None else self.configuration.node_ids,
            last_index=self._consensus.last_index,
            durable_index=self._log.durable_index,
            commit_index=self._consensus.commit_index,
            last_applied=self._applier.index,
            waiting_proposals=len(self._proposals),
            journal_bytes_in_memory=self._log.bytes_in_memory,
            ticks=self._ticks,
            writes=self._writes,
            peers=peer_statistics(self._core.sender, self._is_up),
        )

    # ---- the owner's calls

    def start(self) -> None:
        """Begin. A cluster of one elects itself at once and leads when its journal has synced that."""
        try:
            self._core.start()
        except Exception as error:  # noqa: BLE001  # as in `_tick`
            self.fail(error)
            return
        self._tick()

    def form(self, configuration: Configuration) -> None:
        """Begin a cluster with a journal that was never part of one: its first configuration, in the log of this node."""
        assert self.is_new
        self._core.form(configuration)
        self._configure()
        self.start()

    def propose(self, parts: Sequence[bytes | memoryview], done: Done) -> int:
        """Log one entry made of `parts` and return its index; `done` is called once, after this has returned.

        Legal inside `done` and `leading`. Raises NotLeaderError, with nothing logged and `done` never called, unless
        the node is serving.
        """
        if not self._is_serving or self._is_stopped:
            raise NotLeaderError(None if self._is_stopped or self.leader is None else self.leader.node_id)
        logged = self._consensus.propose(parts)
        assert logged is not None
        self._proposals.add(*logged, done)
        self._core.flush()
        self._write()
        return logged[0]

    def trim(self, durable_index: int) -> None:
        """Let the journal forget entries up to `durable_index`, which the store holds durably, but for a tail."""
        index = self._trailing.trim_index(durable_index, self._trailing_bounds)
        held = None if self._exchange is None else self._exchange.lowest_index()
        if held is not None and self._log.bytes_in_memory < SNAPSHOT_HOLD_BYTES:
            index = min(index, held)
        if index and not self._missing_to:
            self._log.trim(index)
            if self._exchange is not None:
                self._exchange.log_begins_behind(self._log[0][1])

    def admit(self, member: Member, done: Admitted) -> None:
        """Make `member` part of the cluster; `done` with None once it is accepted, or with the reason against (O403)."""
        self._admission.admit(member, done)
        self._admission_changed()

    def add_node(self, node_id: str, done: Admitted) -> None:
        """The operator wants that node in the cluster; `done` when that is committed (O430 to O434)."""
        self._admission.add(node_id, done)
        self._admission_changed()

    def remove_node(self, node_id: str, done: Admitted) -> None:
        """The operator wants that node out of the cluster; `done` when that is committed."""
        self._admission.remove(node_id, done)
        self._admission_changed()

    def listen_to(self, node_ids: Sequence[str], peers_digest: int = 0) -> None:
        """Say hello to these nodes too: the peers a cluster is to be formed of, or the leader that has accepted us."""
        if self._neighbours is not None:
            self._neighbours.listen_to(node_ids, peers_digest)
            self._configure()

    def receive(self, frames: Iterable[bytes | memoryview]) -> None:
        """Take what the carrier has brought for this node at once; what follows from it is done before this returns."""
        if self._neighbours is not None and not self._is_closed:
            self._turn_is_due = True  # below: one more round of the loop would cost as much as a small turn itself
            try:
                for frame in frames:
                    self._neighbours.receive(frame)
            finally:
                self._turn()

    def link_restarted(self) -> None:
        """The carrier's connection is lost or new: what was under way may be lost."""
        if self._neighbours is not None and not self._is_closed:
            self._neighbours.restart()
            self._arm()

    async def transfer(self, timeout_s: float, *, stays: bool = False) -> bool:
        """Hand leadership over to the member that has most, within `timeout_s`; whether this node leads no more.

        No proposals are taken meanwhile, nor afterwards: for an orderly stop. A node that `stays` goes on as a follower,
        also when nobody took over in time. To cancel this is to stop.
        """
        self._is_stopped = True
        if self._core.sender is not None and self.configuration is not None and not self._is_closed:
            self._hand_over = HandOver(self._core, is_up=self._is_up)
            self._ask_heir()
            await self._hand_over.wait(timeout_s)
            self._hand_over = None
        if stays and not self._is_closed:
            self._core.resign()
            self._is_stopped = False
            self._tick_soon()
        return not self._consensus.is_leader

    async def close(self) -> None:
        """Stop proposals and timers, finish the writes under way and what they commit, end as not leading.

        Proposals that could not be committed by then end as `Unknown`. Log and writer stay the caller's to close.
        """
        self._is_stopped = True
        await self._idle.wait()
        self._end()

    def fail(self, error: BaseException) -> None:
        """Stop for ever, and tell `fatal` once. Also what the journal writer's `on_failure` must call."""
        if self._is_closed:
            return
        try:
            self._end()
        finally:
            self._events.fatal(error)

    def _end(self) -> None:
        self._is_stopped = self._is_closed = True
        self._wakeup.set(None)
        self._idle.set()
        self._stop_leading()
        if self._exchange is not None:
            self._exchange.close()

    # ---- the core's ports

    def _send(self, member: Member, message: Message) -> None:
        if self._outbox.put(member, message, self._log.lsn) or not isinstance(message, AppendResponse):
            return
        # The disk is busy: tell the leader that it was heard, or its lease would depend on our disk.
        self._sign(member, message.term, message.next_index, message.round)

    def _sign(self, leader: Member, term: int, next_index: int, number: int) -> None:
        """Tell a leader that it was heard, no more, and not too often."""
        now = self._loop.time()
        if now - self._signed_s >= self._timing.heartbeat_s / 2:
            self._signed_s = now
            self._send_now(leader, AppendResponse(term, next_index, number, is_success=False, is_rejection=False))

    def _received_part(self, member: Member) -> None:
        """Behind a large message on a slow link nothing else arrives: the leader keeps its role, though not its lease."""
        if not self._is_closed and self._core.heard_part(member):
            self._sign(member, self._consensus.term, 0, 0)

    def _send_now(self, member: Member, message: Message) -> None:
        if self._neighbours is not None:
            self._neighbours.send(member, message)
            self._turn_soon()

    def _is_up(self, member: Member) -> bool:
        return self._neighbours is not None and self._neighbours.is_up(member)

    def _is_alive(self, member: Member) -> bool:
        return self._neighbours is not None and self._neighbours.is_alive(member)

    def _up_members(self) -> list[Member]:
        return [] if self._neighbours is None else self._neighbours.up_members()

    def _apply(self, entries: list[LogEntry]) -> None:
        results = self._applier.apply(entries)
        index = self._applier.index
        self._trailing.applied(index, len(entries), sum(len(command) for command, _, _ in entries))
        self._core.applied(index)
        self._proposals.settle(entries, results)
        if any(command[:1] == CONFIGURATION for command, _, _ in entries):
            self._admission_changed()
        if self._consensus.is_leader and not self._is_serving and not self._is_stopped:
            noop_index = self._consensus.noop_index
            if noop_index is not None and index >= noop_index:
                self._is_serving = True
                self._lease.begin()
                self._admission.begin()
                self._events.leading(self._consensus.term)
                self._lease.update()

    def _role_changed(self, old: Role, new: Role) -> None:
        engine_logger.info("role changed from=%s to=%s term=%d", old.name, new.name, self._consensus.term)
        if old is Role.LEADER:
            self._stop_leading()

    def _stop_leading(self) -> None:
        self._lease.end()
        if self._is_serving:
            self._is_serving = False
            self._events.lost()
        self._admission.end()
        self._proposals.abandon()
        if self._hand_over is not None:
            self._hand_over.over()

    def _snapshot_needed(self, leader: Member, base_index: int) -> None:
        if self._exchange is not None:
            self._exchange.need(leader, max(base_index, self._missing_to))

    def _configuration_changed(self) -> None:
        logger.info("configuration members=%s", ", ".join(self.configuration.node_ids if self.configuration else ()))
        self._configure()

    # ---- snapshots

    def _install(self, prepared: Prepared) -> None:
        """A snapshot was fetched and checked: it becomes the state, unless that is further already."""
        if self._is_closed or prepared.index <= self._applier.index:
            prepared.discard()
            return
        index, term = prepared.index, prepared.term
        logger.info("restoring from snapshot index=%d term=%d", index, term)
        try:
            assert self._exchange is not None
            self._exchange.ports.install(prepared)
            self._applier.restored(index, term)
            self._missing_to = 0
            self._core.installed(index, term, _configuration_of(self._state_machine))
            self._trailing = TrailingEntries(self._log, index)
        except Exception as error:  # noqa: BLE001  # as in `_tick`
            self.fail(error)
            return
        logger.info("done restoring from snapshot index=%d term=%d", index, term)
        self._tick_soon()

    # ---- the other nodes

    def _configure(self) -> None:
        if self._neighbours is not None:
            newcomers = self._admission.targets()
            self._neighbours.configure(self.configuration, is_new=self.is_new, newcomers=newcomers)

    def _connected(self, member: Member) -> None:
        self._core.connected(member)
        if self._admission.is_busy:
            self._admission_changed()
        self._turn_soon()

    def _disconnected(self, member: Member) -> None:
        self._outbox.drop(member)

    def _received(self, member: Member, message: Message) -> None:
        if self._is_closed:
            return
        try:
            if isinstance(message, SnapshotMessage):
                if self._exchange is not None:
                    self._exchange.handle(member, message)
                self._turn_soon()
                return
            self._core.receive(member, message)
        except Exception as error:  # noqa: BLE001  # as in `_tick`
            self.fail(error)
            return
        if isinstance(message, AppendResponse):
            self._answered()
        if self._exchange is not None and self._missing_to and self.leader == member:
            self._exchange.need(member, self._missing_to)
        if self._consensus.can_advance:
            self._tick_is_due = True
        self._turn_soon()

    def _answered(self) -> None:
        if not self._consensus.is_leader:
            return
        self._lease.answered()
        self._ask_heir()
        if self._admission.is_busy:
            self._admission_changed()

    # ---- leadership of a cluster

    def _ask_heir(self) -> None:
        """Have a member take over that can, if this node hands over: from then on it keeps silent."""
        heir = None if self._hand_over is None else self._hand_over.heir()
        if self._hand_over is not None and heir is not None:
            self._hand_over.is_asked = True
            self._lease.give_up()
            self._send_now(heir, TimeoutNow(self._consensus.term))
            self._flush_links()

    def _admission_changed(self) -> None:
        """Do the next step of the wanted changes of the configuration."""
        self._admission.advance()
        self._lease.update()  # of whoever is alone now nobody answers
        self._configure()
        if self._admission.has_removed_us:
            self._events.removed()
        self._tick_is_due = True
        self._turn_soon()

    # ---- the turn of a tick, timers and writes

    def _timer(self) -> None:
        now = self._loop.time()
        if self._neighbours is not None and self._neighbours.next_deadline() <= now:
            self._neighbours.tick()
        if self._exchange is not None and self._exchange.next_deadline() <= now:
            self._exchange.tick()
        if self._admission.is_busy:
            self._admission_changed()
        self._tick()

    def _tick(self) -> None:
        self._tick_is_due = False
        if self._is_closed:
            return
        self._ticks += 1
        try:
            self._core.tick()
        except Exception as error:  # noqa: BLE001  # the top of the member's work: it ends here, with the reason told
            self.fail(error)
            return
        self._write()
        if self._consensus.has_committed_unapplied:
            self._tick_soon()
        elif not self._is_writing:
            self._idle.set()
        self._arm()

    def _arm(self) -> None:
        if self._is_closed:
            return
        deadlines = [self._core.next_deadline_s]
        if self._neighbours is not None:
            deadlines.append(self._neighbours.next_deadline())
        if self._exchange is not None:
            deadlines.append(self._exchange.next_deadline())
        deadline = min(deadlines)
        self._wakeup.set(None if deadline == float("inf") else deadline)

    def _tick_soon(self) -> None:
        self._tick_is_due = True
        self._turn_soon()

    def _turn_soon(self) -> None:
        """Once everything that this turn of the loop brings is handled: tick, write, send."""
        if not self._turn_is_due and not self._is_closed:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        if self._is_closed:
            return
        if self._tick_is_due:
            self._tick()
        self._write()

    def _write(self) -> None:
        """Send what is to be sent, then start writing what the journal has collected, unless a write is under way."""
        if self._is_closed:
            return
        self._flush_links()
        group = None if self._is_writing else self._log.take()
        if group is not None:
            self._is_writing = True
            self._writes += 1
            self._idle.clear()
            # The loop of a leader must go on: what it has decided to deliver would leave late (R16).
            is_idle = self._consensus.role is Role.FOLLOWER and self._lease.is_long_over
            self._writer.submit(group, self._written, may_block=is_idle or self._neighbours is None)

    def _written(self, group: WriteGroup) -> None:
        """The writer has synced `group`."""
        self._is_writing = False
        self._log.done(group)
        self._outbox.flush()
        self._write()  # the disk works on the next group while this one is applied
        if self._consensus.can_advance:
            self._tick()
        elif not self._is_writing:
            self._idle.set()


def _configuration_of(state_machine: StateMachine) -> Configuration | None:
    data = state_machine.configuration()
    return decode_configuration(data) if data else None
