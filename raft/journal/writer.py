"""Writes groups of records in a thread of its own, and says when each is on stable storage. Decides nothing.

Rules:
- Completion is told through `post` (such as `loop.call_soon_threadsafe`), never from inside `submit`.
- The first failure ends the writer: `on_failure` is posted once, and nothing is written any more. A failed sync is not
  tried again, because the kernel may have dropped the pages and would call the next attempt a success.
"""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Final, Protocol, TypeAlias, TypeVar

from raft.constants import PREPARE_IDLE_S

from .files import JournalFiles
from .inline_rule import InlineRule
from .log import WriteGroup

Done: TypeAlias = Callable[[WriteGroup], object]

_T = TypeVar("_T")


class Post(Protocol):
    """Has `callback(argument)` called soon, on the owner's thread."""

    def __call__(self, callback: Callable[[_T], object], argument: _T, /) -> object:
        """Schedule the call; may be used from another thread."""


class JournalWriter(Protocol):
    """Where groups go. The owner submits the next one after the one before is done."""

    def submit(self, group: WriteGroup, done: Done, *, may_block: bool) -> None:
        """Write and sync `group`, then post `done(group)`. `may_block`: the caller can wait for a disk."""

    def close(self) -> None:
        """Write what was submitted, then stop. Blocks until then."""


class MemoryWriter:
    """Keeps nothing: a journal in memory is as durable as it gets at once. `post` may be `loop.call_soon`."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def submit(self, group: WriteGroup, done: Done, *, may_block: bool) -> None:  # noqa: ARG002  it never does
        """Post `done(group)`."""
        self._post(done, group)

    def close(self) -> None:
        """Nothing to do."""


class FileWriter:
    """A daemon thread that owns `files` and closes them when it ends; on a fast disk the caller writes small groups itself.

    `post` may be called from any thread, `post_here` from the caller's only (such as `loop.call_soon`).
    """

    def __init__(
        self,
        files: JournalFiles,
        *,
        post: Post,
        post_here: Post,
        on_failure: Callable[[BaseException], object],
        rule: InlineRule | None = None,
    ) -> None:
        self._files = files
        self._post = post
        self._post_here = post_here
        self._on_failure = on_failure
        self._rule = InlineRule() if rule is None else rule
        self._files_lock = threading.Lock()
        self._is_over = False
        """Nothing is written any more: a write failed, or the thread has ended. Changed with the lock of the files."""
        self._jobs: SimpleQueue[tuple[WriteGroup, Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    def submit(self, group: WriteGroup, done: Done, *, may_block: bool) -> None:
        """Write and sync `group`, then post `done(group)`. After a failure or `close` neither happens."""
        if (
            may_block
            and self._rule.allows(group.record_bytes)
            and not self._files.has_to_recycle
            and self._files_lock.acquire(blocking=False)
        ):
            try:
                self._write(group, done, self._post_here)
            except BaseException as error:  # noqa: BLE001  # as in the thread: the owner must stop
                self._post_here(self._on_failure, error)
            finally:
                self._files_lock.release()
        else:
            self._jobs.put((group, done))

    def close(self) -> None:
        """Write what was submitted, then end the thread and close the files. Blocks until then."""
        self._jobs.put(_END)
        self._thread.join()

    def _run(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                with self._files_lock:
                    self._write(*job, self._post)
                    self._files.recycle()
        except BaseException as error:  # noqa: BLE001  # the thread's top: whatever ended it, the owner must stop too
            self._post(self._on_failure, error)
        finally:
            with self._files_lock:
                self._is_over = True  # before the descriptor may become another file's
                self._files.close()

    def _write(self, group: WriteGroup, done: Done, post: Post) -> None:
        """Write, sync and tell; with the lock of the files."""
        if self._is_over:
            return
        self._is_over = True  # until it is known better
        begin = perf_counter()
        self._files.write(group)
        self._rule.took(group.record_bytes, perf_counter() - begin)
        self._is_over = False
        post(done, group)

    def _next_job(self) -> tuple[WriteGroup, Done] | None:
        """Wait for the next job; prepare files ahead while there is none."""
        while self._files.can_prepare:
            try:
                return self._jobs.get(timeout=PREPARE_IDLE_S)
            except Empty:
                with self._files_lock:
                    if not self._is_over:
                        self._files.prepare()
        return self._jobs.get()


_END: Final = None
"""Job that ends the thread."""
