"""Makes the store's copies available to Raft: what blocks runs in a thread of its own, its end is told on the loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from raft.snapshot.exchange import SnapshotPorts
from raft.snapshot.files import SnapshotFiles
from raft.state_machine import SnapshotStore

DIRECTORY: Final = "snapshots"
"""Below the data directory: a copy that was received is renamed into the store."""

T = TypeVar("T")


class Snapshots:
    """Copies of one store."""

    def __init__(self, store: SnapshotStore, data_directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._files = SnapshotFiles(data_directory / DIRECTORY)
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")

    def ports(self) -> SnapshotPorts:
        """What Raft makes of them."""
        return SnapshotPorts(
            create=lambda done: self._files.create(self._store.copy, self._run, done),
            open_sink=self._files.open_sink,
            prepare=lambda directory, done: self._run(lambda: self._store.prepare(directory), done),
            install=self._store.install,
        )

    def close(self) -> None:
        """Wait for what is under way: it uses the store."""
        self._thread.shutdown()

    def _run(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        def ended(future: Future[T]) -> None:
            error = future.exception()
            result = future.result() if error is None else error
            self._loop.call_soon_threadsafe(done, result)

        self._thread.submit(work).add_done_callback(ended)
