"""Kills a process that appends to a journal at its system calls, and lets calls fail: what was acked is found again."""

import errno
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.raft.journal.journals import command, open_small

CALLS = "pwritev,pwritev2,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,fallocate"
CHILD = "tests.unit.raft.journal.append_child"
COUNT = 60

WRITES = "pwritev,pwritev2"
RENAMES = "rename,renameat,renameat2"
SYNCS = "fsync"
KILL_POINTS = [
    *((SYNCS, when) for when in range(1, 6)),  # creation
    *((SYNCS, when) for when in (6, 9, 12)),  # of the directory, at rolls and at reuse
    *((RENAMES, when) for when in (1, 2, 3, 7, 11)),  # the identity, rolls, reuse
    *((WRITES, when) for when in (1, 2, 8, 9, 33, 59)),  # frames, also the last and the first of a segment
]
DEADLINE_S = 60


def traced(directory: Path, *options: str, count: int = COUNT) -> subprocess.CompletedProcess[str]:
    """Run the appending process under strace; its calls are in the file beside `directory`."""
    output = directory.with_suffix(".calls")
    arguments = ["strace", "-f", "-qq", "-o", str(output), "-e", f"trace={CALLS}", *options]
    arguments += [sys.executable, "-B", "-m", CHILD, str(directory), str(count), "0"]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def calls(directory: Path) -> list[str]:
    """The lines of the trace, without those that end interrupted calls."""
    lines = directory.with_suffix(".calls").read_text(errors="replace").splitlines()
    return [line for line in lines if "(" in line and "resumed" not in line]


def said(process: subprocess.CompletedProcess[str], word: str) -> list[list[int]]:
    """The numbers behind `word` in whole lines of the output."""
    lines = process.stdout.split("\n")[:-1]
    return [[int(number) for number in line.split()[1:]] for line in lines if line.startswith(f"{word} ")]


def check_recovers(directory: Path, acked: list[list[int]]) -> int:
    """Every acked entry, term and trim is found; the last index."""
    journal = open_small(directory)
    entries, term, voted_for = journal.log[:], journal.log.getCurrentTerm(), journal.log.getVotedForNodeId()
    journal.files.close()
    last = entries[-1][1] if entries else 0
    assert entries == [
        (command(index, index // 4), index, index // 4) for index in range(last - len(entries) + 1, last + 1)
    ]
    if acked:
        index, acked_term, first = acked[-1]
        assert last in (index, index + 1)
        assert acked_term <= term <= acked_term + 1
        assert voted_for == "n1"
        assert entries[0][1] in (first, first + 1)
    return last


@pytest.fixture(scope="module")
def strace(tmp_path_factory) -> None:
    """Skips where strace cannot be used."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    directory = tmp_path_factory.mktemp("undisturbed") / "j"
    process = traced(directory)
    if "strace:" in process.stderr or not directory.with_suffix(".calls").exists():
        pytest.skip(f"strace cannot be used here: {process.stderr.strip()[:200]}")
    assert process.stdout.endswith("closed\n"), process.stderr


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(("kind", "when"), KILL_POINTS)
def test_killed_at_any_call(tmp_path, kind, when):
    """Killed at a system call, during creation, writing, rolls and reuse: acked entries are there, and it goes on."""
    directory = tmp_path / "j"
    process = traced(directory, "-e", f"inject={kind}:signal=SIGKILL:when={when}")
    assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), process.stderr
    last = check_recovers(directory, said(process, "acked"))
    again = subprocess.run(
        [sys.executable, "-m", CHILD, str(directory), "9", "0"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert [index for index, _, _ in said(again, "acked")] == list(range(last + 1, last + 10))


@pytest.mark.usefixtures("strace")
def test_last_frame_is_written_again_at_the_start(tmp_path):
    """A process that died may have left it in the page cache only: it is made durable before anything builds on it."""
    directory = tmp_path / "j"
    traced(directory, count=3)
    process = traced(directory, count=1)
    assert said(process, "acked") == [[4, 1, 1]]
    writes = [line for line in calls(directory) if re.search(r" pwritev2?\(", line)]
    places = [re.search(r"iov_len=(\d+)}\], 1, (\d+)", line) for line in writes[:1]]
    assert [place.groups() for place in places if place] == [("512", "1024")]
    assert 'iov_base="RJF' in writes[0]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_failed_write_is_final(tmp_path, error):
    """A refused write is told once; no group is acked or written after it, and what was acked is found again."""
    directory = tmp_path / "j"
    process = traced(directory, "-e", f"inject={WRITES}:error={errno.errorcode[error]}:when=9")
    assert process.returncode == 0, process.stderr
    assert f"failed SyncFailedError {error}\nclosed\n" in process.stdout
    acked = said(process, "acked")
    assert len(acked) < COUNT
    assert check_recovers(directory, acked) == acked[-1][0]
    lines = calls(directory)
    failed = next(at for at, line in enumerate(lines) if "INJECTED" in line)
    assert not [line for line in lines[failed + 1 :] if re.search(r" (pwrite|rename|unlink|ftruncate|fallocate)", line)]
