"""Where the data lies: lock, foreign data, private directories."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from store import directory
from store.directory import DataDirectory, private_directory
from store.errors import DirectoryInUseError, ForeignDirectoryError

REPOSITORY = Path(__file__).resolve().parents[3]

HOLD = """
import sys
from pathlib import Path
from store.directory import DataDirectory
held = DataDirectory(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_directory_is_made(tmp_path):
    """O22: created if absent, only for ourselves."""
    made = DataDirectory(tmp_path / "a" / "b")
    assert made.store_path == tmp_path / "a" / "b" / "store"
    assert made.store_path.stat().st_mode & 0o777 == 0o700
    made.unlock()


def test_second_owner_is_refused(tmp_path):
    """O524, O459: the lock is always taken; it ends with the owner, however that ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(DirectoryInUseError) as caught:
            DataDirectory(tmp_path)
        assert str(caught.value) == (f'store "{tmp_path}" is in use by another process')
        owner.kill()
        owner.wait()
    DataDirectory(tmp_path).unlock()


def test_lock_within_a_process(tmp_path):
    """Two stores of one process are two owners."""
    owner = DataDirectory(tmp_path)
    with pytest.raises(DirectoryInUseError):
        DataDirectory(tmp_path)
    owner.unlock()
    DataDirectory(tmp_path).unlock()


def test_data_of_the_original_is_refused(tmp_path):
    """O531: never mixed, never deleted, nothing added."""
    (tmp_path / "server.dat").write_bytes(b"original")
    with pytest.raises(ForeignDirectoryError) as caught:
        DataDirectory(tmp_path)
    assert str(caught.value) == (
        f'"{tmp_path}" holds data of the Go server, which cannot be read; use an empty directory'
    )
    assert [path.name for path in tmp_path.iterdir()] == ["server.dat"]


def test_our_store_beside_a_file_of_that_name(tmp_path):
    """What counts is whether our store is there."""
    DataDirectory(tmp_path).unlock()
    (tmp_path / "server.dat").write_bytes(b"something")
    DataDirectory(tmp_path).unlock()


def test_private_directory_is_gone_at_once():
    """Files opened in it live on without a name; so nothing is left by a killed process."""
    with private_directory() as private:
        assert private.stat().st_mode & 0o777 == 0o700
        descriptor = os.open(private / "file", os.O_RDWR | os.O_CREAT)
    assert not private.exists()
    os.write(descriptor, b"data")
    assert os.pread(descriptor, 4, 0) == b"data"
    os.close(descriptor)


@pytest.mark.parametrize(
    ("mounts", "free_min", "is_memory"),
    [
        ("tmpfs {} tmpfs rw 0 0\n", 0, True),
        ("tmpfs {} tmpfs rw 0 0\n", 1 << 60, False),
        ("/dev {} ext4 rw 0 0\n", 0, False),
    ],
    ids=["memory", "no room", "disk"],
)
def test_memory_is_used_only_when_it_is_memory_and_roomy(tmp_path, monkeypatch, mounts, free_min, is_memory):
    """Else the usual temporary directory is taken."""
    shared, other = tmp_path / "shm", tmp_path / "tmp"
    shared.mkdir()
    other.mkdir()
    (tmp_path / "mounts").write_text(mounts.format(shared))
    monkeypatch.setattr(directory, "SHARED_MEMORY", shared)
    monkeypatch.setattr(directory, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(directory, "MEMORY_DIRECTORY_FREE_MIN_BYTES", free_min)
    monkeypatch.setattr("tempfile.tempdir", str(other))
    with private_directory() as private:
        assert private.parent == (shared if is_memory else other)


def test_system_without_shared_memory(tmp_path, monkeypatch):
    """No such directory, or no list of mounts: the usual temporary directory."""
    monkeypatch.setattr(directory, "SHARED_MEMORY", tmp_path / "nowhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with private_directory() as private:
        assert private.parent == tmp_path
