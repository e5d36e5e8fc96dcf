"""Decides where the data lies: a locked directory for FILE, a private one in memory, if there is room, for MEMORY."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from store.constants import MEMORY_DIRECTORY_FREE_MIN_BYTES
from store.errors import DirectoryInUseError, ForeignDirectoryError

LOCK_FILE: Final = "store.lock"
STORE_DIRECTORY: Final = "store"
"""Directory of the LMDB environment below the data directory."""

FOREIGN_FILE: Final = "server.dat"
"""Identity file of the original server (O530)."""

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - checked for being memory before use
MOUNTS: Final = Path("/proc/self/mounts")
MEMORY_PREFIX: Final = "streaming-store-"


class DataDirectory:
    """A locked data directory; the lock ends with the process at the latest."""

    def __init__(self, directory: Path) -> None:
        """Create it if absent.

        Raises:
            DirectoryInUseError: another process has it.
            ForeignDirectoryError: it is the original server's (O531).

        """
        self.path = directory
        self.store_path = directory / STORE_DIRECTORY
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (directory / FOREIGN_FILE).exists() and not self.store_path.exists():
            raise ForeignDirectoryError(str(directory))
        self._descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise DirectoryInUseError(str(directory)) from None
        self.store_path.mkdir(mode=0o700, exist_ok=True)

    def unlock(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)


@contextmanager
def private_directory() -> Iterator[Path]:
    """A directory that is gone behind the block: files opened in it live on without a name until they are closed.

    So nothing is left however the process ends.
    """
    parent = SHARED_MEMORY if _is_roomy_memory(SHARED_MEMORY) else Path(tempfile.gettempdir())
    directory = Path(tempfile.mkdtemp(prefix=MEMORY_PREFIX, dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _is_roomy_memory(directory: Path) -> bool:
    """Whether `directory` is a memory file system that we may write to, with enough free space."""
    try:
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
        usage = shutil.disk_usage(directory)
    except OSError:
        return False
    is_memory = any(mount[1] == str(directory) and mount[2] == "tmpfs" for mount in mounts)
    return is_memory and os.access(directory, os.W_OK) and usage.free >= MEMORY_DIRECTORY_FREE_MIN_BYTES
