"""Keeps copies of the state in files: those made here for other members, and the one that is being received.

A copy is one file in a directory of its own. None of them outlives the process: what is found at the start is removed.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from raft.journal.identity import sync_directory
from raft.messages import SNAPSHOT_ID_BYTES

from .server import OpenSnapshot

logger = logging.getLogger(__name__)

COPY_FILE: Final = "data.mdb"
"""Name of a copy's one file: the state machine's `copy` makes it, and its `prepare` looks for it."""

OUTGOING_DIRECTORY: Final = "outgoing"
INCOMING_DIRECTORY: Final = "incoming"

WRITE_OUT_BYTES: Final = 4 * 1024 * 1024
"""Received bytes after which they are sent on to the disk, without waiting: `finish` then has little left to wait for
(measured with 400 MB: 12 ms instead of 150 ms)."""


class FileSnapshot:
    """A copy that is read. Port: `OpenSnapshot`."""

    def __init__(self, snapshot_id: bytes, directory: Path, index: int, term: int) -> None:
        """Open the copy of entry (`index`, `term`) in `directory`, which is then its own. Raises OSError."""
        self.snapshot_id, self.index, self.term = snapshot_id, index, term
        self._directory = directory
        self._descriptor = os.open(directory / COPY_FILE, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; raises OSError."""
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                raise OSError(f"{self._directory / COPY_FILE} ends at byte {offset + len(data)}, expected {self.size}")
            data += more
        return data

    def close(self) -> None:
        """Remove its files."""
        os.close(self._descriptor)
        _remove(self._directory)


class FileSink:
    """A copy that is received. Port: `Sink`."""

    def __init__(self, directory: Path) -> None:
        """Begin it in `directory`, which is created. Raises OSError."""
        self._directory = directory
        directory.mkdir(mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._descriptor = os.open(directory / COPY_FILE, flags, 0o600)
        except OSError:
            _remove(directory)
            raise
        self._unsent: tuple[int, int] | None = None
        """Bytes from the first to behind the last that were not sent on."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put `data` at `offset`; raises OSError."""
        view, end = memoryview(data), offset + len(data)
        first, last = self._unsent or (offset, end)
        first, last = min(first, offset), max(last, end)
        while view:
            view = view[os.pwrite(self._descriptor, view, end - len(view)) :]
        if last - first < WRITE_OUT_BYTES:
            self._unsent = (first, last)
        else:
            # Begins writing what is dirty; it would drop from memory what is on the disk already, which is little.
            os.posix_fadvise(self._descriptor, first, last - first, os.POSIX_FADV_DONTNEED)
            self._unsent = None

    def finish(self) -> Path:
        """Make it durable; the directory, which is the caller's from now on. Raises OSError; `discard` it then."""
        os.fsync(self._descriptor)
        sync_directory(self._directory)
        sync_directory(self._directory.parent)
        os.close(self._descriptor)
        return self._directory

    def discard(self) -> None:
        """Remove what is there."""
        with suppress(OSError):  # a write that failed late, of what is not wanted
            os.close(self._descriptor)
        _remove(self._directory)


class SnapshotFiles:
    """The directory of all copies. On the file system of the state machine's data, so that one can be renamed into it."""

    def __init__(self, directory: Path) -> None:
        """Create it, or remove what an earlier process left in it. Raises OSError."""
        self._outgoing = directory / OUTGOING_DIRECTORY
        self._incoming = directory / INCOMING_DIRECTORY
        self._numbers = count(1)
        for path in (self._outgoing, self._incoming):
            if path.exists():
                shutil.rmtree(path)
            path.mkdir(mode=0o700, parents=True)

    def create(
        self,
        copy: Callable[[Path], tuple[int, int]],
        run_in_thread: Callable[[Callable[[], FileSnapshot], Callable[[FileSnapshot | BaseException], None]], None],
        done: Callable[[OpenSnapshot | BaseException], None],
    ) -> None:
        """Let `copy` fill a directory in a thread; `done` is called as `run_in_thread` calls back."""
        snapshot_id = secrets.token_bytes(SNAPSHOT_ID_BYTES)
        directory = self._outgoing / snapshot_id.hex()

        def make() -> FileSnapshot:
            directory.mkdir(mode=0o700)
            try:
                index, term = copy(directory)
                return FileSnapshot(snapshot_id, directory, index, term)
            except BaseException:
                _remove(directory)
                raise

        run_in_thread(make, done)

    def open_sink(self) -> FileSink:
        """A place for a copy from another member. Raises OSError."""
        return FileSink(self._incoming / str(next(self._numbers)))


def _remove(directory: Path) -> None:
    """Remove a copy. What cannot be removed is removed at the next start, and costs only room."""
    try:
        shutil.rmtree(directory)
    except OSError as error:
        logger.warning("a copy cannot be removed directory=%s error=%s", directory, error)
