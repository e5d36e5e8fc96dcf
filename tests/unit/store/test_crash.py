"""The process dies, or the disk fails, at any write: what was reported durable is there, and the rest is replayed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.store_digest import digest
from tests.unit.store.builders import opened
from tests.unit.store.crash_child import FATAL_STATUS, log

REPOSITORY = Path(__file__).resolve().parents[3]
SEED = 4
COUNT = 40
TIMEOUT_S = 60

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def run(directory, fault, syscall):
    """Run the child with a fault injected into its system calls; its status and lines."""
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={syscall}", "-e", f"inject={syscall}:{fault}"]
    child = [sys.executable, "-m", "tests.unit.store.crash_child", str(directory), str(SEED), str(COUNT)]
    done = subprocess.run(
        [*trace, *child], cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    return done.returncode, done.stdout.splitlines()


def check_recovery(directory, lines):
    """The store has what was reported, is equal to a replay of as much, and takes the rest of the log."""
    reported = max([0, *(int(line.split()[1]) for line in lines if line.startswith("durable"))])
    entries = log(SEED, COUNT)
    with opened(directory) as (store, _), opened(None) as (model, _):
        index, term = store.last_applied()
        assert index >= reported
        model.apply(entries[:index])
        assert (index, term) == model.last_applied()
        assert digest(store) == digest(model)
        store.apply(entries[index:])
        model.apply(entries[index:])
        assert digest(store) == digest(model)


@pytest.mark.parametrize(
    ("syscall", "number"),
    [("pwrite64", number) for number in (1, 3, 6, 9)]
    + [("writev", number) for number in (1, 2, 5)]
    + [("fdatasync", number) for number in (1, 3, 4, 6)],
)
def test_killed_at_a_write(tmp_path, syscall, number):
    """B360, B366: SIGKILL at the n-th call of a kind."""
    status, lines = run(tmp_path, f"signal=SIGKILL:when={number}", syscall)
    assert status != 0
    assert "closed" not in lines
    check_recovery(tmp_path, lines)


@pytest.mark.parametrize(
    ("syscall", "error", "number"),
    [("fdatasync", "EIO", 4), ("pwrite64", "EIO", 8), ("pwrite64", "ENOSPC", 7), ("writev", "ENOSPC", 4)],
)
def test_failed_write_ends_the_process(tmp_path, syscall, error, number):
    """The owner is told once, with the file and the reason; it is never tried again."""
    status, lines = run(tmp_path, f"error={error}:when={number}", syscall)
    assert status == FATAL_STATUS
    reason = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}[error]
    assert [line for line in lines if line.startswith("fatal")] == lines[-1:]
    assert "data.mdb failed" in lines[-1]
    assert reason in lines[-1]
    check_recovery(tmp_path, lines)


def test_without_a_fault(tmp_path):
    """The child alone closes in order, and everything is there."""
    status, lines = run(tmp_path, "error=EIO:when=9999", "fdatasync")
    assert (status, lines[0], lines[-1]) == (0, "opened 0", "closed")
    check_recovery(tmp_path, lines)
    assert f"durable {COUNT + 1}" in lines
