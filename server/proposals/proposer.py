"""Decides when the open batch becomes a log entry, and hands the results of applied entries back.

One entry is in flight; meanwhile the next batch fills. When an entry is applied the next one is sealed first, then its
results are handed out: the disk works while we deliver.

Order within an entry: new channels, blocks of messages, progress, then the other operations in the order they came. So
publishes and acks count before the close that came after them (B126).
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from raft.constants import ENTRY_MAX_BYTES
from raft.errors import NotLeaderError
from raft.proposals import Applied, Outcome
from server import hot, windows
from server.errors import InvariantError
from server.protocol import responses
from store import block as blocks
from store import entry
from store.machine import refusals
from store.machine.state import Block, Refusal, Result
from store.operations import (
    Append,
    CloseClient,
    ConnectClient,
    CreateChannel,
    GroupProgress,
    Operation,
    Progress,
    Subscribe,
)

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S: Final = 0.02
"""Sent and acked progress waits at most this long for an entry, seconds (B253: the batch delay; bounds R11)."""

BATCH_MAX_BYTES: Final = 4 * 1024 * 1024
"""Size of the open batch at which reading from NATS pauses, bytes: bounds latency and memory of an entry."""

OPERATION_BYTES: Final = 2048
"""What a request counts for in the open batch, bytes: its inboxes and names are bounded (server/protocol/names.py)."""

MESSAGE_MAX_BYTES: Final = 48 * 1024 * 1024
"""Largest message, whatever NATS allows, bytes: with all that is in the batch before it, it must fit into one entry."""

assert BATCH_MAX_BYTES + MESSAGE_MAX_BYTES + 8 * 1024 * 1024 < ENTRY_MAX_BYTES

STORE_PENDING_MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes applied and not yet in LMDB at which no more entries are proposed."""

Done = Callable[[Result], None]
"""Called once when the operation is applied, with its result; a lost entry gives a Refusal."""


@dataclass(slots=True)
class AppliedBatch:
    """What the rest of the server needs of an applied entry."""

    channels: list[windows.Channel]
    """Channels with new messages."""
    acks: list[bytes]
    """PubAck frames."""
    progress: list[Progress | GroupProgress]


@dataclass(slots=True)
class _Sealed:
    operations: list[Operation]
    appends: list[tuple[int, windows.Channel, list[bytes]]]
    waiters: list[tuple[int, Done]]
    batch: AppliedBatch


@dataclass(slots=True)
class Proposer:
    """The open batch of a leader. Dropped with the leadership."""

    core: hot.Core
    loop: asyncio.AbstractEventLoop
    propose: Callable[[Sequence[bytes], Callable[[Outcome], None]], int]
    pending_bytes: Callable[[], int]
    take_progress: Callable[[], list[Progress | GroupProgress]]
    wall_ns: Callable[[], int]
    on_applied: Callable[[AppliedBatch], None]
    on_refused: Callable[[list[bytes], str], None]
    """Publishes with these PubAck frames are refused with this text, as the operations with them were told just now."""
    on_lost: Callable[[], None]
    """The log took an entry no more, or has lost one: this leadership is over. What it does includes `stop`."""
    on_fatal: Callable[[BaseException], None]
    set_reading: Callable[[bool], None]
    confirm: Callable[[], bool]
    """Whether this node may speak (B401); a no includes `hold`."""
    _creations: list[tuple[CreateChannel, Done | None]] = field(default_factory=list)
    _operations: list[tuple[Operation, Done | None, float]] = field(default_factory=list)
    """With the time of the loop until which they are of use."""
    _in_flight: bool = False
    _progress_wanted: bool = False
    _progress_timer: asyncio.TimerHandle | None = None
    _kick_scheduled: bool = False
    _is_reading: bool = True
    _is_stopped: bool = False
    _is_failed: bool = False
    """Stopped by a fault: nobody is answered any more."""
    _is_held: bool = False
    _noted_acks: int = 0
    """Pieces of PubAcks of the open batch that came while this node was certain to lead."""
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, operation: Operation, done: Done | None = None, *, wait_max_s: float = math.inf) -> None:
        """Put `operation` into the open batch, behind its messages and the operations before it.

        When the batch is sealed only after `wait_max_s`, the operation is left out and `done` gets a Refusal. So it does
        at once when stopped.
        """
        if self._is_stopped:
            if done is not None and not self._is_failed:
                done(Refusal(responses.NOT_LEADER))
            return
        self._operations.append((operation, done, self.loop.time() + wait_max_s))
        self.core.batch_bytes += _bytes_of(operation)
        self._kick_soon()

    def keep(self, operation: Operation) -> None:
        """Another operation builds upon `operation`: it is proposed however long it waited."""
        self._operations = [
            (one, done, math.inf if one is operation else useful_until) for one, done, useful_until in self._operations
        ]

    def create_channel(self, operation: CreateChannel, done: Done | None = None) -> None:
        """Put a new channel into the open batch, ahead of its messages; nothing happens when stopped."""
        if self._is_stopped:
            return
        self._creations.append((operation, done))
        self._kick_soon()

    def want_progress(self, *, at_once: bool = False) -> None:
        """Progress of subscriptions goes into the next entry, at the latest after PROGRESS_INTERVAL_S."""
        if at_once:
            self._progress_wanted = True
            self._kick_soon()
        elif self._progress_timer is None and not self._is_stopped:
            self._progress_timer = self.loop.call_later(PROGRESS_INTERVAL_S, self._progress_due)

    def kick(self) -> None:
        """Seal and propose, if there is something and nothing is in flight."""
        if self._in_flight or self._is_stopped or self._is_held:
            return
        if not (self.core.dirty or self._operations or self._creations or self._progress_wanted):
            self._idle.set()
            return
        if self.pending_bytes() > STORE_PENDING_MAX_BYTES:
            self.hold_reading()
            return
        self._idle.clear()
        sealed = self._seal()
        if not sealed.operations:
            self._idle.set()
            self.hold_reading()
            return
        parts = self._encode(sealed)
        self._in_flight = True
        try:
            self.propose(parts, lambda outcome: self._finished(sealed, outcome))
        except NotLeaderError:
            self._in_flight = False
            self.on_lost()
            self._refuse([done for _, done in sealed.waiters], sealed.batch.acks, responses.NOT_LEADER)
        self.hold_reading()

    def hold_reading(self) -> None:
        """Stop or resume reading from NATS by the size of the open batch."""
        wanted = self.core.batch_bytes < BATCH_MAX_BYTES
        if wanted != self._is_reading:
            self._is_reading = wanted
            self.set_reading(wanted)

    async def drain(self) -> None:
        """Wait until everything that is open now is applied (orderly stop); returns at once when stopped."""
        if self._is_stopped:
            return
        self._progress_wanted = True
        self._idle.clear()
        self.kick()
        await self._idle.wait()

    def note_turn(self) -> None:
        """A turn of the loop ends, begun when this node was certain to lead: what it received is answered in any case."""
        self._noted_acks = len(self.core.acks)

    def hold(self) -> None:
        """Propose nothing for now: what is open then can still be answered for certain (B400, B401)."""
        self._is_held = True

    def release(self) -> None:
        """From the next `kick` on entries are proposed again."""
        self._is_held = False

    def stop(self) -> None:
        """Leadership is over: nothing more is proposed; what is open is answered as not proposed (B400).

        Publishes received while held are not: a true leader may have received them, too, and accept them (B401).
        """
        if self._is_failed:
            return
        waiting = [done for _, done in self._creations] + [done for _, done, _ in self._operations]
        acks = self.core.acks[: self._noted_acks] if self._is_held else self.core.acks
        self._drop()
        self._refuse([done for done in waiting if done is not None], acks, responses.NOT_LEADER)

    # ---- sealing

    def _seal(self) -> _Sealed:
        """Close the open batch. Sequences are fixed already; they enter the log in this order."""
        core = self.core
        operations: list[Operation] = []
        waiters: list[tuple[int, Done]] = []
        for creation, done in self._creations:
            if done is not None:
                waiters.append((len(operations), done))
            operations.append(creation)
        self._creations = []
        appends: list[tuple[int, windows.Channel, list[bytes]]] = []
        channels, core.dirty = core.dirty, []
        for channel in channels:
            records, channel.records = channel.records, []
            for run in hot.split_blocks(records):
                appends.append((len(operations), channel, run))
                operations.append(Append(0, 0, 0, 0, 0))  # replaced by _encode, which knows the block
        progress: list[Progress | GroupProgress] = []
        if self._progress_wanted or (self._progress_timer is None and (channels or self._operations)):
            progress = self.take_progress()
            operations += progress
            self._progress_wanted = False
            if progress:
                self.want_progress()
        for operation, done in self._take_useful():
            if done is not None:
                waiters.append((len(operations), done))
            operations.append(operation)
            if isinstance(operation, (Progress, GroupProgress)):
                progress.append(operation)
        batch = AppliedBatch(channels=channels, acks=core.acks, progress=progress)
        core.acks = []
        self._noted_acks = 0
        core.batch_count = 0
        core.batch_bytes = 0
        return _Sealed(operations, appends, waiters, batch)

    def _take_useful(self) -> list[tuple[Operation, Done | None]]:
        """The open operations but those that waited too long (B81), which are answered."""
        now = self.loop.time()
        operations, self._operations = self._operations, []
        for _, done, useful_until in operations:
            if useful_until < now and done is not None:
                done(Refusal(responses.WAITED_TOO_LONG))
        return [(operation, done) for operation, done, useful_until in operations if useful_until >= now]

    def _encode(self, sealed: _Sealed) -> list[bytes]:
        """Encode blocks and entry; completes the Append operations."""
        encoded: list[bytes] = []
        seqs: dict[int, int] = {}
        for _, channel, records in sealed.appends:
            seqs[channel.channel_id] = seqs.get(channel.channel_id, channel.seq + 1) - len(records)
        timestamp_ns = self.core.last_timestamp_ns
        for index, channel, records in sealed.appends:
            first_seq = seqs[channel.channel_id]
            seqs[channel.channel_id] = first_seq + len(records)
            data = blocks.encode(records)
            encoded.append(data)
            sealed.operations[index] = Append(channel.channel_id, first_seq, len(records), len(data), timestamp_ns)
        return entry.encode(sealed.operations, encoded, self.wall_ns())

    # ---- results

    def _finished(self, sealed: _Sealed, outcome: Outcome) -> None:
        """The entry is applied, or its outcome is unknown. Called in log order, inside apply."""
        self._in_flight = False
        if not isinstance(outcome, Applied):
            self.on_lost()
            self._refuse([done for _, done in sealed.waiters], sealed.batch.acks, responses.OUTCOME_UNKNOWN)
            return
        self.confirm()
        results = cast("list[Result]", outcome.result)
        fault = _fault_of(sealed, results)
        if fault is not None:
            self._fail(InvariantError(fault))
            return
        for index, _, records in sealed.appends:
            cast("Block", results[index]).messages = records
        self.kick()
        self.confirm()  # again: proposing may have taken long
        for index, done in sealed.waiters:
            result = results[index]
            done(result)
        self.on_applied(sealed.batch)

    def _fail(self, error: InvariantError) -> None:
        """What we think of the log is not what it has: nothing more is proposed, and nothing open is answered or acked."""
        self._is_failed = True
        self._drop()
        self.on_fatal(error)

    def _drop(self) -> None:
        """From now on nothing is open and nothing is proposed; who waits for the end of that waits no more."""
        self._is_stopped = True
        if self._progress_timer is not None:
            self._progress_timer.cancel()
            self._progress_timer = None
        self._creations = []
        self._operations = []
        self.core.acks = []
        self._idle.set()

    def _refuse(self, waiting: list[Done], acks: list[bytes], text: str) -> None:
        """These operations and publishes get this text, never success (B400, B402)."""
        refusal = Refusal(text)
        for done in waiting:
            done(refusal)
        self.on_refused(acks, text)

    # ---- turns and timers

    def _progress_due(self) -> None:
        self._progress_timer = None
        self._progress_wanted = True
        self.kick()

    def _kick_soon(self) -> None:
        if not self._kick_scheduled:
            self._kick_scheduled = True
            self.loop.call_soon(self._kick_now)

    def _kick_now(self) -> None:
        self._kick_scheduled = False
        self.kick()


def _fault_of(sealed: _Sealed, results: list[Result]) -> str | None:
    """What was refused that only a bug of ours can have refused: its messages or its progress would be lost.

    Progress of what is gone meanwhile is of no use to anyone.
    """
    for index, channel, _ in sealed.appends:
        if not isinstance(results[index], Block):
            return f"a block was refused: channel={channel.name} result={results[index]}"
    for operation, result in zip(sealed.operations, results, strict=True):
        if not isinstance(result, Refusal) or result == refusals.INVALID_SUBSCRIPTION:
            continue
        if isinstance(operation, Progress):
            return f"progress was refused: subscription={operation.subscription_id} result={result.text}"
        if isinstance(operation, GroupProgress):
            return f"progress was refused: group={operation.group_id} result={result.text}"
    return None


def _bytes_of(operation: Operation) -> int:
    """About what `operation` adds to an entry: client and connection ids have no bound of their own (B60)."""
    size = OPERATION_BYTES
    if isinstance(operation, (ConnectClient, CloseClient, Subscribe)):
        size += len(operation.client_id)
    if isinstance(operation, ConnectClient):
        size += len(operation.conn_id)
    return size
