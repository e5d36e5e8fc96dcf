"""The leader's side of a snapshot: makes one when it is asked for, and hands out its chunks. Pure.

One snapshot at a time, for all who ask: it is made when the first one does, and the others wait for it or join. Every
request is answered by a chunk or by `SnapshotGone`, except that of the requests of one member that wait for a snapshot
only the newest is answered.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import google_crc32c

from raft.membership import Member
from raft.messages import SNAPSHOT_ID_BYTES, Message, SnapshotChunk, SnapshotGone, SnapshotRequest

logger = logging.getLogger(__name__)

CHUNK_MAX_BYTES: Final = 512 * 1024
"""Longest chunk a member may ask for, bytes."""

REUSE_S: Final = 10.0
"""Age up to which a member that begins gets the snapshot that is there, seconds."""

IDLE_S: Final = 30.0
"""How long a snapshot is kept behind its last request, seconds. A member that has all of it has as long to load it: only
then does it ask for the entries behind it."""


class OpenSnapshot(Protocol):
    """A snapshot that can be read. Whoever has it must close it."""

    @property
    def snapshot_id(self) -> bytes:
        """Its random name, SNAPSHOT_ID_BYTES long."""

    @property
    def index(self) -> int:
        """Index of the last entry it contains."""

    @property
    def term(self) -> int:
        """Term of that entry."""

    @property
    def size(self) -> int:
        """Bytes in all, more than none."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, which lie within it; raises OSError."""

    def close(self) -> None:
        """Remove its files."""


@dataclass(slots=True)
class _Current:
    """The snapshot that is handed out."""

    snapshot: OpenSnapshot
    made_at: float
    asked_at: float
    fetching: dict[Member, float] = field(default_factory=dict)
    """When members that have not asked for its end yet asked last."""


class SnapshotServer:
    """Answers requests. Keeps at most one snapshot, and makes at most one."""

    def __init__(
        self,
        *,
        create: Callable[[Callable[[OpenSnapshot | BaseException], None]], None],
        send: Callable[[Member, Message], None],
        clock: Callable[[], float],
    ) -> None:
        self._create = create
        self._send = send
        self._clock = clock
        self._current: _Current | None = None
        self._is_creating = False
        self._waiting: dict[Member, SnapshotRequest] = {}
        self._first_index = 1
        self._is_closed = False

    def handle(self, member: Member, request: SnapshotRequest) -> None:
        """Answer `request`, now or when the snapshot it waits for is made."""
        if self._is_closed:
            return
        if len(request.snapshot_id) not in (0, SNAPSHOT_ID_BYTES) or not 0 < request.length <= CHUNK_MAX_BYTES:
            self._refuse_nonsense(member, request)
            return
        current = self._current
        if request.snapshot_id:
            if current is None or current.snapshot.snapshot_id != request.snapshot_id:
                self._gone(member, request, "there is no such snapshot here")
            else:
                self._answer(member, request, current)
        elif current is not None and not self._is_creating and self._is_reusable(current, member):
            self._answer(member, request, current)
        else:
            self._waiting[member] = request
            if not self._is_creating:
                self._is_creating = True
                self._create(self._created)

    def lowest_index(self) -> int | None:
        """The log must keep what is behind this index, for those who fetch the snapshot up to it; None: nobody does.

        While one is being made, its index is not known: then it is the one that `renew_below` was told last.
        """
        indexes = [] if self._current is None else [self._current.snapshot.index]
        if self._is_creating:
            indexes.append(self._first_index)
        return min(indexes, default=None)

    def renew_below(self, index: int) -> None:
        """The log now begins behind `index`: a snapshot that ends before it leads nowhere."""
        self._first_index = max(index, 1)  # of an empty state there is nothing to fetch
        if self._current is not None and self._current.snapshot.index < index:
            logger.info("a snapshot is too old index=%d log_begins_behind=%d", self._current.snapshot.index, index)
            self._drop()

    def tick(self) -> None:
        """Close a snapshot that nobody asked for during IDLE_S."""
        deadline = self.next_deadline()
        if deadline is not None and deadline <= self._clock():
            self._drop()

    def next_deadline(self) -> float | None:
        """Clock time at which `tick` has something to do."""
        return None if self._current is None else self._current.asked_at + IDLE_S

    def close(self) -> None:
        """Close the snapshot, and the one that is being made as soon as it is; answer nothing any more."""
        self._is_closed = True
        self._waiting.clear()
        self._drop()

    def _is_reusable(self, current: _Current, member: Member) -> bool:
        """Whether `member` may begin with it. One that is fetched by itself alone did not serve it."""
        now = self._clock()
        is_fetched = any(one != member and at > now - IDLE_S for one, at in current.fetching.items())
        return is_fetched or now - current.made_at < REUSE_S

    def _created(self, result: OpenSnapshot | BaseException) -> None:
        """The end of `create`."""
        self._is_creating = False
        if self._is_closed:
            if not isinstance(result, BaseException):
                result.close()
            return
        waiting, self._waiting = self._waiting, {}
        if isinstance(result, BaseException):
            logger.error("a snapshot could not be made: %s", result, exc_info=result)
            self._all_gone(waiting, f"it could not be made: {result}")
        elif result.index < self._first_index:
            logger.warning("a new snapshot is too old already index=%d first=%d", result.index, self._first_index)
            result.close()
            self._all_gone(waiting, "it was too old when it was made")
        else:
            assert len(result.snapshot_id) == SNAPSHOT_ID_BYTES
            assert result.size > 0
            self._drop()
            now = self._clock()
            self._current = current = _Current(result, now, now)
            logger.info("a snapshot was made index=%d term=%d size=%d", result.index, result.term, result.size)
            for member, request in waiting.items():
                if self._current is not current:  # it could not be read
                    self._gone(member, request, "it could not be read")
                else:
                    self._answer(member, request, current)

    def _answer(self, member: Member, request: SnapshotRequest, current: _Current) -> None:
        snapshot, offset = current.snapshot, request.offset
        if not 0 <= offset < snapshot.size:
            self._refuse_nonsense(member, request)
            return
        length = min(request.length, snapshot.size - offset)
        current.asked_at = self._clock()
        if offset + length < snapshot.size:
            current.fetching[member] = current.asked_at
        else:
            current.fetching.pop(member, None)
        try:
            data = snapshot.read(offset, length)
        except OSError as error:
            logger.error("a snapshot cannot be read: %s", error)  # noqa: TRY400  # the system's error says all
            self._drop()
            self._gone(member, request, f"it could not be read: {error}")
            return
        assert len(data) == length
        checksum = google_crc32c.value(data)
        self._send(
            member,
            SnapshotChunk(
                snapshot.snapshot_id, snapshot.index, snapshot.term, snapshot.size, offset, int(checksum), data
            ),
        )

    def _refuse_nonsense(self, member: Member, request: SnapshotRequest) -> None:
        logger.debug("a snapshot request makes no sense member=%s request=%s", member.key, request)
        self._gone(member, request, f"no such piece: offset {request.offset}, length {request.length}")

    def _all_gone(self, waiting: dict[Member, SnapshotRequest], reason: str) -> None:
        for member, request in waiting.items():
            self._gone(member, request, reason)

    def _gone(self, member: Member, request: SnapshotRequest, reason: str) -> None:
        self._send(member, SnapshotGone(request.snapshot_id, reason))

    def _drop(self) -> None:
        if self._current is not None:
            current, self._current = self._current, None
            current.snapshot.close()
