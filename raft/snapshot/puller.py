"""A follower's side of a snapshot: fetches it from the leader, chunk by chunk, and goes on where it was when interrupted. Pure.

Rules: a few chunks are asked for at a time; one that does not come is asked for again. A chunk counts only if it was
asked for, and is of the snapshot that is being fetched in every field. What was fetched is of use with the same leader
only: another one has no snapshot of that id.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from raft.membership import Member
from raft.messages import SNAPSHOT_ID_BYTES, Message, SnapshotChunk, SnapshotGone, SnapshotRequest

from .server import CHUNK_MAX_BYTES

logger = logging.getLogger(__name__)

CHUNK_BYTES: Final = 256 * 1024
"""Length of a chunk, bytes; the last one is shorter."""

PIPELINE: Final = 4
"""Chunks asked for at a time."""

CHUNK_TIMEOUT_S: Final = 2.0
"""A chunk that did not come for so long is asked for again, seconds."""

RETRY_S: Final = 1.0
"""Pause before another snapshot is asked for, when the leader has none or one that is too old, seconds."""

STALL_S: Final = 30.0
"""A transfer without a chunk that counts for so long is given up, seconds: what began it may have been wrong."""

DISK_RETRY_S: Final = 5.0
"""After a disk error no snapshot is fetched for so long, seconds: offers come many times a second."""

assert CHUNK_BYTES <= CHUNK_MAX_BYTES


class Sink(Protocol):
    """Where a snapshot goes. Raises OSError."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put `data` at `offset`."""

    def finish(self) -> Path:
        """Everything is there: make it durable. Returns the directory that holds the copy, now the caller's."""

    def discard(self) -> None:
        """Remove what is there. Raises nothing."""


@dataclass(slots=True)
class _Transfer:
    """A snapshot of which the first chunk has come.

    Invariant: what is below `next_offset` is in the sink, except for the chunks in `asked`.
    """

    snapshot_id: bytes
    index: int
    term: int
    size: int
    sink: Sink
    began_at: float
    moved_at: float
    """When the last chunk came that counted."""
    next_offset: int = 0
    asked: dict[int, float] = field(default_factory=dict)
    """Chunks that are to come, by offset: when they are asked for again."""

    def length_at(self, offset: int) -> int:
        """Length of the chunk at `offset`."""
        return min(CHUNK_BYTES, self.size - offset)

    @property
    def byte_count(self) -> int:
        """Bytes in the sink."""
        return self.next_offset - sum(map(self.length_at, self.asked))

    def fits(self, chunk: SnapshotChunk) -> bool:
        """Whether `chunk` is of this snapshot, and whole."""
        return (chunk.snapshot_id, chunk.index, chunk.term, chunk.size, len(chunk.data)) == (
            self.snapshot_id,
            self.index,
            self.term,
            self.size,
            self.length_at(chunk.offset),
        )


class SnapshotPuller:
    """Fetches one snapshot at a time."""

    def __init__(
        self,
        *,
        open_sink: Callable[[], Sink],
        send: Callable[[Member, Message], None],
        clock: Callable[[], float],
        complete: Callable[[Path, int, int], None],
    ) -> None:
        """`complete` gets the directory, which is then its to remove, index and term: after that nothing is pulled."""
        self._open_sink = open_sink
        self._send = send
        self._clock = clock
        self._complete = complete
        self._leader: Member | None = None
        self._at_least = 0
        self._transfer: _Transfer | None = None
        self._begin_at = 0.0
        """Without a transfer: when a snapshot is asked for (again)."""
        self._disk_failed_until = 0.0

    def start(self, leader: Member, *, at_least: int) -> None:
        """Fetch a snapshot up to entry `at_least` or a later one from `leader`.

        Does nothing while that is under way, and for DISK_RETRY_S after a disk error.
        """
        if self._clock() < self._disk_failed_until:
            return
        is_new = self._leader != leader
        self._leader, self._at_least = leader, at_least
        if is_new or (self._transfer is not None and self._transfer.index < at_least):
            self._discard()
            self._ask_for_any()

    def close(self) -> None:
        """Fetch nothing any more, and remove what was fetched."""
        self._leader = None
        self._discard()

    def handle(self, member: Member, message: SnapshotChunk | SnapshotGone) -> None:
        """Take an answer; one that was not asked for is dropped."""
        if member != self._leader:
            return
        if isinstance(message, SnapshotGone):
            self._take_refusal(message)
        elif self._transfer is not None:
            self._take(self._transfer, message)
        else:
            self._take_first(member, message)

    def tick(self) -> None:
        """Ask again for what did not come in time."""
        deadline = self.next_deadline()
        if deadline is None or deadline > self._clock():
            return
        transfer = self._transfer
        if transfer is not None and self._clock() >= transfer.moved_at + STALL_S:
            logger.warning(
                "snapshot stands still, it is begun anew bytes=%d size=%d", transfer.byte_count, transfer.size
            )
            self._discard()
            transfer = None
        if transfer is None:
            self._ask_for_any()
        else:
            self._ask(transfer)

    def next_deadline(self) -> float | None:
        """Clock time at which `tick` has something to do."""
        if self._leader is None:
            return None
        return self._begin_at if self._transfer is None else min(self._transfer.asked.values())

    def _take_refusal(self, message: SnapshotGone) -> None:
        expected = b"" if self._transfer is None else self._transfer.snapshot_id
        if message.snapshot_id == expected:
            logger.info("the leader has no snapshot, it is asked again: %s", message.reason)
            self._discard()
            self._begin_at = self._clock() + RETRY_S

    def _take_first(self, leader: Member, chunk: SnapshotChunk) -> None:
        """The chunk that says which snapshot it will be."""
        if chunk.index < self._at_least:
            logger.info("the leader's snapshot is too old index=%d at_least=%d", chunk.index, self._at_least)
            self._begin_at = self._clock() + RETRY_S
            return
        if len(chunk.snapshot_id) != SNAPSHOT_ID_BYTES or chunk.offset or chunk.size <= 0:
            logger.debug("a chunk was dropped, it begins no snapshot: %s", _shown(chunk))
            return
        now = self._clock()
        try:
            sink = self._open_sink()
        except OSError as error:
            self._fail(error)
            return
        logger.info("snapshot begins leader=%s size=%d index=%d", leader.node_id, chunk.size, chunk.index)
        self._transfer = _Transfer(chunk.snapshot_id, chunk.index, chunk.term, chunk.size, sink, now, now)
        self._transfer.asked[0] = now + CHUNK_TIMEOUT_S
        self._transfer.next_offset = self._transfer.length_at(0)
        self._take(self._transfer, chunk)

    def _take(self, transfer: _Transfer, chunk: SnapshotChunk) -> None:
        if chunk.offset not in transfer.asked or not transfer.fits(chunk):
            logger.debug("a chunk was dropped, it was not asked for: %s", _shown(chunk))
        else:
            try:
                transfer.sink.write(chunk.offset, chunk.data)
            except OSError as error:
                self._fail(error)
                return
            del transfer.asked[chunk.offset]
            transfer.moved_at = self._clock()
        if transfer.asked or transfer.next_offset < transfer.size:
            self._ask(transfer)
        else:
            self._finish(transfer)

    def _finish(self, transfer: _Transfer) -> None:
        try:
            directory = transfer.sink.finish()
        except OSError as error:
            self._fail(error)
            return
        seconds = self._clock() - transfer.began_at
        logger.info("snapshot done bytes=%d seconds=%.3f index=%d", transfer.size, seconds, transfer.index)
        self._leader = self._transfer = None
        self._complete(directory, transfer.index, transfer.term)

    def _fail(self, error: OSError) -> None:
        logger.error("a snapshot cannot be written, it is fetched anew later: %s", error)
        self._disk_failed_until = self._clock() + DISK_RETRY_S
        self._leader = None
        self._discard()

    def _ask_for_any(self) -> None:
        assert self._leader is not None
        self._begin_at = self._clock() + CHUNK_TIMEOUT_S
        self._send(self._leader, SnapshotRequest(b"", 0, CHUNK_BYTES))

    def _ask(self, transfer: _Transfer) -> None:
        """Ask for what is due again, and for new chunks as far as PIPELINE allows."""
        assert self._leader is not None
        now = self._clock()
        offsets = [offset for offset, deadline in transfer.asked.items() if deadline <= now]
        while len(transfer.asked) < PIPELINE and transfer.next_offset < transfer.size:
            offset = transfer.next_offset
            offsets.append(offset)
            transfer.asked[offset] = now
            transfer.next_offset += transfer.length_at(offset)
        for offset in offsets:
            transfer.asked[offset] = now + CHUNK_TIMEOUT_S
        for offset in offsets:
            self._send(self._leader, SnapshotRequest(transfer.snapshot_id, offset, transfer.length_at(offset)))

    def _discard(self) -> None:
        if self._transfer is not None:
            transfer, self._transfer = self._transfer, None
            transfer.sink.discard()


def _shown(chunk: SnapshotChunk) -> str:
    """A chunk without its data, for the log."""
    return (
        f"id={chunk.snapshot_id.hex()} index={chunk.index} term={chunk.term} size={chunk.size} offset={chunk.offset}"
        f" length={len(chunk.data)}"
    )
