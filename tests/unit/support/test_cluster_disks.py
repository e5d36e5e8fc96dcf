"""A power cut drops what was not synced and keeps what was; a full disk is full until freed; nothing stays behind."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import capabilities, disks
from tests.support.cluster.capabilities import Capability
from tests.support.cluster.disks import ImageDisk, PlainDisk

MISSING = capabilities.missing().get(Capability.IMAGE_DISKS)
needs_images = pytest.mark.skipif(MISSING is not None, reason=f"disk images: {MISSING}")

SIZE_BYTES = 64 * 1024 * 1024


@pytest.fixture
def disk() -> Iterator[ImageDisk]:
    """A small disk of its own."""
    directory = disks.run_directory()
    made = ImageDisk(directory / "disk", SIZE_BYTES)
    yield made
    made.close()
    directory.rmdir()


@needs_images
def test_power_cut_keeps_synced_writes_and_drops_the_others(disk: ImageDisk) -> None:
    """F9: of two writes to one file the synced one is there afterwards, the other is not; nor is a file never synced."""
    file = disk.path / "journal"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"synced")
    os.fsync(descriptor)
    directory = os.open(disk.path, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    os.write(descriptor, b" and lost")
    (disk.path / "never-synced").write_bytes(b"lost")
    disk.cut_power()
    with pytest.raises(OSError, match="error"):
        os.fsync(descriptor)
    os.close(descriptor)
    disk.restore_power()
    assert file.read_bytes() == b"synced"
    left = disk.path / "never-synced"
    assert not left.exists() or left.read_bytes() == b""


@needs_images
def test_disk_works_after_each_of_several_cuts(disk: ImageDisk) -> None:
    """F9: a cut can be repeated, and what was synced between two cuts is kept."""
    for number in range(3):
        with (disk.path / str(number)).open("wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        descriptor = os.open(disk.path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        disk.cut_power()
        disk.restore_power()
    assert [(disk.path / str(number)).read_bytes() for number in range(3)] == [b"x"] * 3


@needs_images
def test_full_disk_takes_nothing_until_freed(disk: ImageDisk) -> None:
    """F10: no space is left, and it is there again afterwards."""
    disk.fill()
    with pytest.raises(OSError) as failure:
        (disk.path / "file").write_bytes(bytes(1024 * 1024))
    assert failure.value.errno == errno.ENOSPC
    disk.free()
    (disk.path / "file").write_bytes(bytes(1024 * 1024))


@needs_images
def test_disk_can_be_left_with_a_little_space(disk: ImageDisk) -> None:
    """F10: at most the asked space is left, and most of it."""
    disk.fill(8 * 1024 * 1024)
    status = os.statvfs(disk.path)
    assert 7 * 1024 * 1024 <= status.f_bavail * status.f_frsize <= 8 * 1024 * 1024


@needs_images
def test_disk_of_a_killed_maker_is_removed() -> None:
    """What a run that ended by kill -9 had mounted is unmounted and removed by the next one."""
    script = (
        "import os, signal\n"
        "from tests.support.cluster.disks import ImageDisk, run_directory\n"
        f"disk = ImageDisk(run_directory() / 'disk', {SIZE_BYTES})\n"
        "print(disk.path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    maker = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    left = Path(maker.stdout.strip())
    disks.remove_leftovers()
    assert not left.is_mount()
    assert not left.parents[1].exists()


def test_plain_disk_refuses_what_it_cannot_do() -> None:
    """Without root a power cut is an error, not a cut that does nothing."""
    directory = disks.run_directory()
    disk = PlainDisk(directory / "disk")
    with pytest.raises(NotImplementedError, match="power"):
        disk.cut_power()
    disk.close()
    directory.rmdir()
