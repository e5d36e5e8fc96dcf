"""Covers raft/snapshot/files.py: copies in files, and that the fakes of the other tests behave like them."""

import os
import resource
import stat
from pathlib import Path

import pytest

from raft.snapshot.files import COPY_FILE, WRITE_OUT_BYTES, FileSink, FileSnapshot, SnapshotFiles
from store.lmdb.environment import DATA_FILE
from tests.unit.raft.snapshot.fakes import MemorySink, MemorySnapshot

CONTENT = bytes(range(256)) * 40
ID = (7).to_bytes(16)


def at_once(work, done):
    """Stands for a thread: runs `work` here."""
    try:
        result = work()
    except OSError as error:
        result = error
    done(result)


def write_copy(directory):
    """A state machine's `copy`."""
    (directory / COPY_FILE).write_bytes(CONTENT)
    return 10, 2


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def files(tmp_path):
    return SnapshotFiles(tmp_path / "snapshots")


@pytest.fixture
def limited():
    """Limits the size of the files this process writes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def created(files, copy=write_copy):
    results = []
    files.create(copy, at_once, results.append)
    (result,) = results
    return result


@pytest.fixture(params=["file", "memory"])
def snapshot(request, files):
    snapshot = created(files) if request.param == "file" else MemorySnapshot(CONTENT, index=10, term=2)
    yield snapshot
    snapshot.close()


def test_snapshot_is_read_where_asked(snapshot):
    """Any piece of it, in any order."""
    assert (snapshot.index, snapshot.term, snapshot.size, len(snapshot.snapshot_id)) == (10, 2, len(CONTENT), 16)
    for offset, length in ((0, 1), (5000, 3000), (0, len(CONTENT)), (len(CONTENT) - 1, 1)):
        assert snapshot.read(offset, length) == CONTENT[offset : offset + length]


@pytest.fixture(params=["file", "memory"])
def sink(request, files):
    return files.open_sink() if request.param == "file" else MemorySink()


def test_sink_takes_pieces_in_any_order(sink):
    """Views, too; what was written is what is there at the end."""
    for offset in (4000, 0, 8000, 4000):
        sink.write(offset, memoryview(CONTENT)[offset : offset + 4000])
    sink.write(len(CONTENT), b"")
    directory = sink.finish()
    found = sink.content if isinstance(sink, MemorySink) else (directory / COPY_FILE).read_bytes()
    assert found[:8000] == CONTENT[:8000]
    assert found[8000:] == CONTENT[8000:]


def test_name_is_the_stores():
    """A copy is the store's data file."""
    assert COPY_FILE == DATA_FILE


def test_what_an_earlier_process_left_is_removed(tmp_path):
    """Both ways; nothing else in that directory is touched."""
    for path in ("s/outgoing/1", "s/incoming/2/3"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / COPY_FILE).write_bytes(CONTENT)
    (tmp_path / "s" / "other").write_bytes(b"")
    SnapshotFiles(tmp_path / "s")
    assert sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "s").rglob("*")) == [
        "s/incoming",
        "s/other",
        "s/outgoing",
    ]
    assert [mode(tmp_path / "s" / name) for name in ("incoming", "outgoing")] == [0o700] * 2


def test_each_snapshot_has_a_directory_and_id_of_its_own(tmp_path, files):
    """So that an old one can be read while the next is made; closing removes it."""
    before = descriptors()
    one, other = created(files), created(files)
    assert one.snapshot_id != other.snapshot_id
    one.close()
    assert other.read(0, 5) == CONTENT[:5]
    assert [path.name for path in (tmp_path / "snapshots/outgoing").iterdir()] == [other.snapshot_id.hex()]
    assert not os.get_inheritable(other._descriptor)
    other.close()
    assert list((tmp_path / "snapshots/outgoing").iterdir()) == []
    assert descriptors() == before


def test_work_is_done_where_it_is_sent(files):
    """Nothing is copied, opened or told before the thread has come to it."""
    work, results = [], []
    files.create(write_copy, lambda make, done: work.append((make, done)), results.append)
    assert (len(work), results) == (1, [])
    make, done = work.pop()
    done(make())
    assert isinstance(results[0], FileSnapshot)
    results[0].close()


def fail(directory):
    (directory / COPY_FILE).write_bytes(b"half")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("copy", [fail, lambda directory: (1, 1)])
def test_failed_copy_leaves_nothing(tmp_path, files, copy):
    """The error is told: that of the state machine, or that there is no file."""
    before = descriptors()
    assert isinstance(created(files, copy), OSError)
    assert list((tmp_path / "snapshots/outgoing").iterdir()) == []
    assert descriptors() == before


def test_shortened_file_is_an_error(files):
    """Somebody truncated it: reading says so instead of sending less."""
    snapshot = created(files)
    os.truncate(snapshot._directory / COPY_FILE, 100)
    assert snapshot.read(90, 10) == CONTENT[90:100]
    with pytest.raises(OSError, match=f"{COPY_FILE} ends at byte 100, expected {len(CONTENT)}"):
        snapshot.read(90, 11)
    snapshot.close()


def test_received_copy_is_private_and_handed_over(tmp_path, files):
    """0600 below 0700; the directory is the caller's afterwards, and no descriptor is left."""
    before = descriptors()
    one, other = files.open_sink(), files.open_sink()
    assert not os.get_inheritable(one._descriptor)
    one.write(0, CONTENT)
    directory = one.finish()
    assert directory.parent == tmp_path / "snapshots" / "incoming"
    assert (mode(directory), mode(directory / COPY_FILE)) == (0o700, 0o600)
    assert (directory / COPY_FILE).read_bytes() == CONTENT
    other.write(0, b"x")
    other.discard()
    assert list(directory.parent.iterdir()) == [directory]
    assert descriptors() == before


def test_received_copy_is_durable_when_it_is_handed_over(files, monkeypatch):
    """The file first, then its name and that of its directory."""
    synced, real = [], os.fsync

    def recording(descriptor):
        real(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", recording)
    sink = files.open_sink()
    sink.write(0, CONTENT)
    directory = sink.finish()
    assert synced == [path.stat().st_ino for path in (directory / COPY_FILE, directory, directory.parent)]


def test_large_copy_is_written_out_meanwhile(files, monkeypatch):
    """More than is sent on at a time, in any order: whatever the kernel drops from memory is on the disk."""
    sent, real = [], os.posix_fadvise

    def recording(descriptor, offset, length, advice):
        real(descriptor, offset, length, advice)
        sent.append((offset, length))

    monkeypatch.setattr(os, "posix_fadvise", recording)
    sink, piece = files.open_sink(), CONTENT * 25
    count = 2 * WRITE_OUT_BYTES // len(piece) + 2
    for number in reversed(range(count)):
        sink.write(number * len(piece), piece)
    assert (sink.finish() / COPY_FILE).read_bytes() == piece * count
    assert [length for _, length in sent] == [-(-WRITE_OUT_BYTES // len(piece)) * len(piece)] * 2
    assert sent[0][0] == sent[1][0] + sent[1][1]


def test_full_disk_is_an_error(files, limited):
    """Writing raises; discarding leaves nothing, and the next one is possible."""
    sink = files.open_sink()
    limited(6000)
    sink.write(0, CONTENT[:5000])
    with pytest.raises(OSError, match="File too large"):
        sink.write(5000, CONTENT[:5000])
    sink.discard()
    assert list(sink._directory.parent.iterdir()) == []
    limited(resource.RLIM_INFINITY)
    files.open_sink().discard()


def test_sink_that_cannot_be_opened_leaves_nothing(tmp_path):
    """Its directory exists, or its file does."""
    (tmp_path / "1").mkdir()
    with pytest.raises(FileExistsError):
        FileSink(tmp_path / "1")
    assert list(tmp_path.iterdir()) == [tmp_path / "1"]
    with pytest.raises(FileNotFoundError):
        FileSink(tmp_path / "2" / "3")


def test_what_cannot_be_removed_is_only_a_warning(files, caplog):
    """It costs room until the next start."""
    sink = files.open_sink()
    (sink._directory / COPY_FILE).unlink()
    sink._directory.rmdir()
    sink.discard()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
