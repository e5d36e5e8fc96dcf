"""Gives each node a disk that can lose power and run full: an ext4 in an image file; else a plain directory.

A power cut is the ioctl FS_IOC_SHUTDOWN without a flush of the journal: what was not synced is gone, what was synced
stays. After it every call on the file system fails until it is unmounted and mounted again.
"""

import fcntl
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Final, Protocol

from tests.support.cluster.commands import NAME_PREFIX, CommandError, is_alive, maker_of, run

FS_IOC_SHUTDOWN: Final = 0x8004587D
"""Source: ext4.h, EXT4_IOC_SHUTDOWN."""

WITHOUT_LOG_FLUSH: Final = 2
"""Argument of the ioctl: what waits in the file system's journal is dropped as well."""

IMAGE_BYTES: Final = 1024 * 1024 * 1024
"""Size of a disk. The image is sparse. The server refuses publishes below 256 MiB of free space, so not less."""

BALLAST: Final = "ballast"
"""File that fills a disk."""

SHARED_MEMORY: Final = Path("/dev/shm")


def run_directory() -> Path:
    """A new directory for a run, in memory where there is such a place; its name carries our pid."""
    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix=f"{NAME_PREFIX}-{os.getpid()}-", dir=parent))


class Disk(Protocol):
    """What a node needs of its disk."""

    @property
    def path(self) -> Path:
        """The directory to use."""

    def cut_power(self) -> None:
        """Everything not synced is lost; nothing works until `restore_power`."""

    def restore_power(self) -> None:
        """The disk can be used again; no process may use it meanwhile."""

    def fill(self, free_bytes: int = 0) -> None:
        """Leaves at most this much space."""

    def free(self) -> None:
        """Takes `fill` back."""

    def close(self) -> None:
        """Nothing is left of it."""


class PlainDisk:
    """A directory: no power cut, never full."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        directory.mkdir(parents=True)

    def cut_power(self) -> None:
        """Not available: callers ask for Capability.IMAGE_DISKS before."""
        raise NotImplementedError(f"{self.path}: a plain directory cannot lose power")

    restore_power = cut_power

    def fill(self, free_bytes: int = 0) -> None:
        """Not available: it would fill the machine's own disk."""
        raise NotImplementedError(f"{self.path}: a plain directory is not filled to {free_bytes} bytes")

    def free(self) -> None:
        """It was never filled."""

    def close(self) -> None:
        """Removes it."""
        shutil.rmtree(self.path, ignore_errors=True)


class ImageDisk:
    """An ext4 of its own, in a sparse file, mounted by a loop device."""

    def __init__(self, directory: Path, size_bytes: int = IMAGE_BYTES) -> None:
        self._image = directory / "image"
        self.path = directory / "mounted"
        self.path.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(size_bytes)
        # No blocks for root alone: the server's view of free space is the one of `fill`.
        run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(self._image))
        self._mount()

    def cut_power(self) -> None:
        """See Disk; may be called while processes write."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def restore_power(self) -> None:
        """See Disk."""
        run("umount", str(self.path))
        self._mount()

    def fill(self, free_bytes: int = 0) -> None:
        """See Disk."""
        status = os.statvfs(self.path)
        size = status.f_bavail * status.f_frsize - free_bytes
        if size <= 0:
            return
        descriptor = os.open(self.path / BALLAST, os.O_WRONLY | os.O_CREAT)
        try:
            blocks = size // status.f_frsize
            while blocks > 0:  # the tables of the file take some of the space that was free
                try:
                    os.posix_fallocate(descriptor, 0, blocks * status.f_frsize)
                    break
                except OSError:
                    blocks -= max(1, blocks // 1000)
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """See Disk."""
        (self.path / BALLAST).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmounts it and removes the image."""
        unmount(self.path)
        shutil.rmtree(self._image.parent, ignore_errors=True)

    def _mount(self) -> None:
        run("mount", "-o", "loop", str(self._image), str(self.path))


def unmount(mount_point: Path) -> None:
    """Unmounts what is mounted there, if anything is; at the latest when the last process lets go of it."""
    if str(mount_point) not in _mount_points():
        return
    try:
        run("umount", "--lazy", str(mount_point))
    except CommandError:
        if str(mount_point) in _mount_points():  # else another run has removed the same leftover meanwhile
            raise


def remove_leftovers() -> list[str]:
    """Removes the run directories whose maker is gone, unmounting what is mounted below; their paths."""
    gone: list[str] = []
    for parent in {SHARED_MEMORY, Path(tempfile.gettempdir())}:
        for directory in parent.glob(f"{NAME_PREFIX}-*"):
            maker = maker_of(directory.name)
            if maker is None or is_alive(maker):
                continue
            for mount_point in _mount_points():
                if mount_point.startswith(f"{directory}/"):
                    unmount(Path(mount_point))
            shutil.rmtree(directory, ignore_errors=True)
            gone.append(str(directory))
    return gone


def _mount_points() -> list[str]:
    return [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
