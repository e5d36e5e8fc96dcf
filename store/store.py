"""The store: the replicated state in memory, applied entry by entry, and its durable form, written behind.

Rules: the journal is the commit point, so applying never waits for the disk, except at PENDING_MAX_BYTES. One batch is
written at a time, with the last applied entry in the same transaction; what changes meanwhile is the next one. After an
error in applying or writing nothing more is written: stopped is better than wrong.

All methods but `copy` and `prepare` are for one thread, the first one to apply. Completions come back to it through `post`.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from store.constants import PENDING_MAX_BYTES, TAIL_MAX_BYTES
from store.directory import DataDirectory, private_directory
from store.entry import decode
from store.errors import InvariantError, StoreError
from store.lmdb.batch import collect
from store.lmdb.environment import Environment, Identity, open_environment
from store.lmdb.load import load
from store.lmdb.reader import Reader
from store.lmdb.snapshot import PreparedCopy, SharedEnvironment, copy_environment, prepare_copy
from store.lmdb.writer import Writer
from store.machine import cluster
from store.machine.apply import apply_entry
from store.machine.state import Channel, Result, State
from store.reading import Reading

logger = logging.getLogger(__name__)


class CommittedEntry(Protocol):
    """One committed log entry. Without data it is a no-op, with which a leader begins."""

    @property
    def index(self) -> int:
        """Its place in the log, from 1."""
        ...

    @property
    def term(self) -> int:
        """The term of the leader that made it."""
        ...

    @property
    def data(self) -> memoryview:
        """What `store.entry.encode` made, or a configuration."""
        ...

    @property
    def is_configuration(self) -> bool:
        """`data` is a configuration, which only the log understands."""
        ...


@dataclass(frozen=True, slots=True)
class Callbacks:
    """How the store reaches its owner, from any thread by `post` only."""

    post: Callable[[Callable[[], None]], None]
    """Run a function on the owner's thread, soon; callable from any thread."""
    on_durable: Callable[[int], None]
    """Entries up to this index are durable."""
    on_fatal: Callable[[BaseException], None]
    """Writing failed: end the process with the reason."""


class Store:
    """The state machine behind the log. Made by `open_store`.

    `state` is another object after `install`: nobody may keep parts of it across that.
    """

    def __init__(
        self,
        environment: Environment,
        directory: DataDirectory | None,
        callbacks: Callbacks,
        *,
        tail_max_bytes: int,
        pending_max_bytes: int,
    ) -> None:
        self._tail_max_bytes = tail_max_bytes
        self._pending_max_bytes = pending_max_bytes
        self._directory = directory
        self._callbacks = callbacks
        self._identity = environment.identity
        self._is_synced = environment.is_synced
        self._is_failure_reported = False
        self._broken: BaseException | None = None
        self._is_closed = False
        self._thread_id: int | None = None
        self._begin(environment, *load(environment))

    def _begin(self, environment: Environment, state: State, index: int, term: int) -> None:
        """Go on from `state`, which is what `environment` holds: after entry `index`, all of it durable and told."""
        self.state = state
        self.state.tail.max_bytes = self._tail_max_bytes
        self._index, self._term = index, term
        self._durable_index = self._written_index = self._reported_index = index
        self._writing_bytes = 0
        self._shared = SharedEnvironment(environment)
        self._reader = Reader(environment)
        self._reading = Reading(self._reader)
        self._writer = Writer(environment, self._wake)

    # ---- the state machine of the log

    def last_applied(self) -> tuple[int, int]:
        """Index and term of the last applied entry, durable or not; (0, 0) before the first."""
        return self._index, self._term

    def durable_index(self) -> int:
        """Index of the last applied entry that survives a power failure."""
        return self._durable_index

    def configuration(self) -> bytes:
        """Data of the last configuration entry up to `last_applied`; empty if there was none."""
        return self.state.configuration

    def apply(self, entries: Sequence[CommittedEntry]) -> list[list[Result]]:
        """Apply entries, in log order from `last_applied` + 1 on; the results of their operations, one list for each.

        Raises:
            StoreError: the node must stop; nothing that was applied since the last transaction becomes durable by us.

        """
        self._check_usable()
        try:
            results = [self._apply_one(entry) for entry in entries]
        except BaseException as error:
            self._broken = error
            raise
        self._hand_over()
        return results

    def _apply_one(self, entry: CommittedEntry) -> list[Result]:
        if entry.index != self._index + 1:
            raise InvariantError(f"entry {entry.index} is to be applied after {self._index}")
        while self.pending_bytes > self._pending_max_bytes:
            self._wait()
        results: list[Result] = []
        if entry.is_configuration:
            cluster.configure(self.state, bytes(entry.data))
        elif entry.data:
            results = apply_entry(self.state, decode(entry.data), entry.index, self._reader)
        self._index, self._term = entry.index, entry.term
        self.state.tail.evict(self._durable_index)
        return results

    # ---- reading

    @property
    def pending_bytes(self) -> int:
        """Bytes of applied blocks that are not in LMDB yet."""
        return self._writing_bytes + self.state.changes.block_bytes

    def read_messages(self, channel: Channel, seq: int, max_count: int, max_bytes: int) -> tuple[int, list[bytes]]:
        """Consecutive messages from the first one that exists at or behind `seq`, and its sequence.

        At most `max_count`, and `max_bytes` together unless the first one alone is larger. None behind the channel's end.
        Raises CorruptionError naming channel and sequence.
        """
        return self._reading.messages(channel, seq, max_count, max_bytes)

    def first_message_at_or_after(self, channel: Channel, timestamp_ns: int) -> int:
        """Sequence of the first message that is not older; last_seq + 1 when all are (B220, B221)."""
        return self._reading.first_at_or_after(channel, timestamp_ns)

    def timestamp_of(self, channel: Channel, seq: int) -> int:
        """Timestamp of a message that exists, Unix nanoseconds."""
        return self._reading.timestamp_ns(channel, seq)

    # ---- snapshots

    def copy(self, directory: Path) -> tuple[int, int]:
        """Write a consistent copy of what is durable into `directory`; index and term of the last entry it contains.

        Blocks, beside everything else; any thread. Raises StoreError; then no file is left.
        """
        with self._shared.in_use() as environment:
            return copy_environment(environment, directory)

    def prepare(self, directory: Path) -> PreparedCopy:
        """Check and load a copy that another node made into `directory`, and make it this node's own, durably.

        Shares nothing with this store. Takes `directory` over: it is gone when this raises, and after `install` or
        `discard`. For a FILE store it must lie on the data directory's file system. Blocks; any thread.

        Raises:
            CorruptionError, FormatVersionError, IdentityError, StoreError: see `prepare_copy`.

        """
        return prepare_copy(directory, self._identity, is_synced=self._is_synced)

    def install(self, prepared: object) -> None:
        """Let what `prepare` returned replace the state, durably. What was not written of the old state is dropped.

        `on_durable` is told the copy's index, and nothing of the old state any more. Waits for a transaction that is
        being written.

        Raises:
            InvariantError: the copy is older than this store, which is as it was.
            WriteError: the node must stop: it has the old state or the copy's.

        """
        self._check_usable()
        assert isinstance(prepared, PreparedCopy)
        if prepared.index < self._index:
            raise InvariantError(f"a copy up to entry {prepared.index} is to replace the state after {self._index}")
        self._writer.stop()
        try:
            environment = prepared.install(None if self._directory is None else self._directory.store_path)
        except BaseException as error:
            self._broken = error
            raise
        self._shared.close(must_wait=False)  # a copy that is being made of it ends by itself
        self._begin(environment, prepared.state, prepared.index, prepared.term)
        self._reported_index = prepared.index - 1
        self._wake()
        logger.debug("another node's state was installed index=%d term=%d", prepared.index, prepared.term)

    # ---- writing behind

    def flush(self) -> None:
        """Block until everything applied is durable; raises WriteError."""
        self._check_usable()
        while self._durable_index < self._index:
            self._wait()

    def close(self) -> None:
        """Make everything applied durable, unless broken, and let go of thread, files and lock."""
        if self._is_closed:
            return
        try:
            if self._broken is None:
                self.flush()
        finally:
            self._is_closed = True
            self._writer.stop()
            self._shared.close(must_wait=True)
            if self._directory is not None:
                self._directory.unlock()

    def _wait(self) -> None:
        """Block until the writer has said something; give it what is there when it is idle."""
        self._hand_over()
        if not self._writer.is_idle:
            self._writer.wait()
            self._take_events()
        if self._broken is not None:
            raise self._broken

    def _hand_over(self) -> None:
        """Give the writer everything that changed, if it is idle."""
        if self._index > self._written_index and self._writer.is_idle:
            batch = collect(self.state, self._index, self._term)
            self._written_index = self._index
            self._writing_bytes = batch.block_bytes
            self._writer.submit(batch)

    def _wake(self) -> None:
        """Called by the writer's thread: it has something to say. And by `install`, which has, too."""
        with suppress(
            RuntimeError
        ):  # the owner's loop is closed: only flush and close are left, which wait by themselves
            self._callbacks.post(self._turn)

    def _turn(self) -> None:
        """On the owner's thread, posted by the writer's. Only here callbacks are made: never from inside a method."""
        if self._is_closed:
            return
        self._take_events()
        if self._reported_index < self._durable_index:
            self._reported_index = self._durable_index
            self._callbacks.on_durable(self._durable_index)
        if self._writer.failure is not None and not self._is_failure_reported:
            self._is_failure_reported = True
            self._callbacks.on_fatal(self._writer.failure)
        if self._broken is None:
            self._hand_over()

    def _take_events(self) -> None:
        for batch in self._writer.take_events():
            self._writing_bytes = 0
            self._durable_index = batch.index
            self.state.tail.evict(batch.index)
        if self._writer.failure is not None and self._broken is None:
            self._broken = self._writer.failure
            logger.critical("the store cannot be written: %s", self._broken)

    def _check_usable(self) -> None:
        if self._thread_id is None:
            self._thread_id = threading.get_ident()
        assert self._thread_id == threading.get_ident()
        if self._is_closed or self._broken is not None:
            raise StoreError(f"the store is {'closed' if self._is_closed else 'broken'}") from self._broken


def open_store(  # noqa: PLR0913 - keywords, each a fact of its own
    directory: DataDirectory | None,
    *,
    cluster_id: str,
    node_id: str,
    incarnation: str,
    post: Callable[[Callable[[], None]], None],
    on_durable: Callable[[int], None],
    on_fatal: Callable[[BaseException], None],
    tail_max_bytes: int = TAIL_MAX_BYTES,
    pending_max_bytes: int = PENDING_MAX_BYTES,
) -> Store:
    """Open or create the store: below `directory` (FILE), or in a private place without a name (MEMORY).

    The store unlocks `directory` when it is closed; when this raises, the caller does.

    Raises:
        IdentityError, FormatVersionError, CorruptionError, StoreError: see `open_environment`.

    """
    identity = Identity(cluster_id, node_id, incarnation)
    if directory is None:
        with private_directory() as private:
            environment = open_environment(private, identity, is_synced=False)
    else:
        environment = open_environment(directory.store_path, identity, is_synced=True)
    try:
        return Store(
            environment,
            directory,
            Callbacks(post, on_durable, on_fatal),
            tail_max_bytes=tail_max_bytes,
            pending_max_bytes=pending_max_bytes,
        )
    except BaseException:
        environment.close()
        raise
