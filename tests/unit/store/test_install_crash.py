"""The process dies, or the disk fails, while a copy is prepared and installed: the old store is there or the new one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.store_digest import digest
from tests.unit.store.builders import opened
from tests.unit.store.crash_child import FATAL_STATUS, log
from tests.unit.store.install_child import BEGINNING, FOLLOWER

REPOSITORY = Path(__file__).resolve().parents[3]
SEED = 4
COUNT = 40
COPIED = 30
TIMEOUT_S = 60

CALLS = "rename,renameat,renameat2,fsync,fdatasync,pwrite64,writev,write,unlink,unlinkat,rmdir,openat"
RENAMES = "rename,renameat,renameat2"
REMOVALS = "unlink,unlinkat,rmdir"

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture(scope="module")
def leader_copy(tmp_path_factory):
    """A copy of the log's state after COPIED entries."""
    directory = tmp_path_factory.mktemp("leader")
    copy = directory / "copy"
    copy.mkdir()
    with opened(directory / "data") as (leader, _):
        leader.apply(log(SEED, COUNT)[:COPIED])
        leader.flush()
        assert leader.copy(copy)[0] == COPIED
    return copy


@pytest.fixture
def run(leader_copy, tmp_path):
    """Runs the child below `tmp_path` under strace with options; its status, its lines, and its calls."""

    def run(*options):
        copy = tmp_path / "data" / "incoming"
        shutil.copytree(leader_copy, copy)
        output = tmp_path / "calls"
        trace = ["strace", "-f", "-qq", "-y", "-o", str(output), "-e", f"trace={CALLS}", *options]
        child = [sys.executable, "-B", "-m", "tests.unit.store.install_child", str(tmp_path / "data"), str(copy)]
        done = subprocess.run(
            [*trace, *child, str(SEED), str(COUNT)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if "ptrace" in done.stderr:
            pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
        return done.returncode, done.stdout.splitlines(), output.read_text().splitlines()

    return run


def check_recovery(directory, lines):
    """The store has what was reported, is equal to a replay of as much, and takes the rest of the log."""
    reported = max([0, *(int(line.split()[1]) for line in lines if line.startswith("durable"))])
    entries = log(SEED, COUNT)
    with opened(directory, **FOLLOWER) as (store, _), opened(None) as (model, _):
        index, term = store.last_applied()
        assert index >= reported
        assert index <= BEGINNING + 1 or index >= COPIED
        model.apply(entries[:index])
        assert (index, term) == model.last_applied()
        assert digest(store) == digest(model)
        store.apply(entries[index:])
        model.apply(entries[index:])
        assert digest(store) == digest(model)
    return index


def test_without_a_fault(run, tmp_path):
    """The order of the calls: the copy is durable before it is renamed, the name before anything is told."""
    status, lines, calls = run()
    assert (status, lines[-1]) == (0, "closed")
    assert [line for line in lines if not line.startswith("durable")][:2] == [
        f"prepared {COPIED}",
        f"installed {COPIED}",
    ]
    assert f"durable {COPIED}" in lines
    assert check_recovery(tmp_path / "data", lines) == COUNT + 1
    renamed = next(at for at, line in enumerate(calls) if re.search(r"rename\(.*incoming/data\.mdb", line))
    writes = [at for at, line in enumerate(calls[:renamed]) if re.search(r"(pwrite64|writev)\(.*incoming/data", line)]
    syncs = [at for at, line in enumerate(calls[:renamed]) if re.search(r"fdatasync\(.*incoming/data", line)]
    assert len(syncs) == 1
    # The data was synced, then the page that points to it was written through a descriptor that syncs.
    assert len([at for at in writes if at > syncs[0]]) == 1
    assert any(re.search(r"openat\(.*incoming/data\.mdb.*O_(D)?SYNC", line) for line in calls[:renamed])
    behind = [line for line in calls[renamed + 1 :] if "openat(" not in line]
    assert re.search(r"rename\(.*incoming/lock\.mdb.*store/lock\.mdb", behind[0])
    assert re.search(r"fsync\(\d+<.*/data/store>\)", behind[1])
    assert not (tmp_path / "data" / "incoming").exists()


@pytest.mark.parametrize(
    ("calls", "number", "kept"),
    [
        (RENAMES, 1, BEGINNING),  # of the data file
        (RENAMES, 2, COPIED),  # of the lock file
        ("fsync", 2, COPIED),  # of the directory
        (REMOVALS, 1, COPIED),  # of what the copy was in
        ("fdatasync", 2, BEGINNING),  # of the copy, by its new identity
        ("writev", 2, BEGINNING),
        ("pwrite64", 3, BEGINNING),
    ],
)
def test_killed_while_installing(run, tmp_path, calls, number, kept):
    """SIGKILL instead of the n-th call of the main thread."""
    status, lines, _ = run("-e", f"inject={calls}:signal=SIGKILL:when={number}")
    assert status != 0
    assert lines[-1] in (f"prepared {COPIED}", f"durable {BEGINNING}")
    index = check_recovery(tmp_path / "data", lines)
    assert index == kept or index == kept + 1 == BEGINNING + 1


@pytest.mark.parametrize(
    ("calls", "number"),
    [
        *(("fdatasync", 1), ("fsync", 1), ("writev", 1), ("pwrite64", 1), ("pwrite64", 2)),  # creation
        *(("write", number) for number in range(1, 5)),  # of what it says: durable, prepared, …; at least five lines
    ],
)
def test_killed_before_and_behind(run, tmp_path, calls, number):
    """SIGKILL at the n-th call of a kind of the main thread."""
    status, lines, _ = run("-e", f"inject={calls}:signal=SIGKILL:when={number}")
    assert status != 0
    assert "closed" not in lines
    check_recovery(tmp_path / "data", lines)


@pytest.mark.parametrize(
    ("calls", "error", "number", "kept"),
    [
        (RENAMES, "EIO", 1, BEGINNING + 1),
        (RENAMES, "EXDEV", 1, BEGINNING + 1),
        (RENAMES, "EIO", 2, COPIED),
        ("fsync", "EIO", 2, COPIED),
    ],
)
def test_failed_installation_ends_the_process(run, tmp_path, calls, error, number, kept):
    """The reason names the file; whichever store is there then is whole."""
    status, lines, _ = run("-e", f"inject={calls}:error={error}:when={number}")
    assert status == FATAL_STATUS
    assert lines[-1].startswith("fatal writing to ")
    assert "store/data.mdb failed" in lines[-1]
    index = check_recovery(tmp_path / "data", lines)
    assert index == kept or index == kept - 1 == BEGINNING


@pytest.mark.parametrize(("calls", "path"), [("fdatasync", "incoming/data.mdb"), ("pwrite64", "incoming/data.mdb")])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_copy_that_cannot_be_written_is_refused(run, tmp_path, calls, path, error):
    """The store is as it was, and the copy is gone."""
    status, lines, _ = run("-P", str(tmp_path / "data" / path), "-e", f"inject={calls}:error={error}")
    assert status == FATAL_STATUS
    assert re.search(rf"fatal .*{path}: .*(Input/output error|No space left)", lines[-1])
    assert check_recovery(tmp_path / "data", lines) in (BEGINNING, BEGINNING + 1)
    assert not (tmp_path / "data" / "incoming").exists()
