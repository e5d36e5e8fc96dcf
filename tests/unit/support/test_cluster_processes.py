"""Processes are started, paused, ended and looked at; calls of a running one are made to fail or take long."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import capabilities
from tests.support.cluster.call_faults import CallFaults
from tests.support.cluster.capabilities import Capability
from tests.support.cluster.processes import LoggedProcess, ProcessWaitError

CALLS_MISSING = capabilities.missing().get(Capability.CALL_FAULTS)
needs_strace = pytest.mark.skipif(CALLS_MISSING is not None, reason=f"strace: {CALLS_MISSING}")

WAIT = "import signal\nprint('ready', flush=True)\nsignal.pause()"
STUBBORN = """
import os, signal
signal.signal(15, lambda *_: os.write(1, b"asked\\n"))  # print() is not to be interrupted by print()
print("ready", flush=True)
while True: signal.pause()
"""
SYNC_ON_SIGNAL = """
import os, signal, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
def sync(*_):
    begun = time.monotonic()
    try:
        os.fsync(file)
        print("synced", "slowly" if time.monotonic() - begun >= 0.3 else "quickly", flush=True)
    except OSError as error:
        print("failed", error.strerror, flush=True)
signal.signal(signal.SIGUSR1, sync)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def process() -> Iterator[LoggedProcess]:
    """Not started."""
    made = LoggedProcess("child", threading.Condition())
    yield made
    made.kill()


def start(process: LoggedProcess, script: str, *arguments: str) -> None:
    """Returns when it says so."""
    process.spawn([sys.executable, "-c", script, *arguments], directory=Path.cwd())
    process.wait_for_line("ready", timeout_s=10)


def test_end_by_itself_is_told_from_one_of_ours(process: LoggedProcess) -> None:
    """A process that ends without being told to is unexpected; status and lines stay over a restart."""
    start(process, "print('ready')\nraise SystemExit(7)")
    assert process.wait_ended(10)
    assert (process.runs[0].status, process.runs[0].is_expected_end) == (7, False)
    start(process, WAIT)
    process.kill()
    assert (process.runs[1].status, process.runs[1].is_expected_end) == (-signal.SIGKILL, True)
    assert process.texts() == ["ready", "ready"]
    assert [line.text for line in process.current_lines()] == ["ready"]


def test_waiting_ends_with_the_process(process: LoggedProcess) -> None:
    """Nobody waits for a line of a process that is gone."""
    start(process, "print('ready')")
    with pytest.raises(ProcessWaitError, match="before it ended"):
        process.wait_for_line("never", timeout_s=60)


def test_waiting_has_a_deadline(process: LoggedProcess) -> None:
    """A line that does not come is an error with the log in it."""
    start(process, WAIT)
    with pytest.raises(ProcessWaitError, match=r"within 0.05 s[\s\S]*ready"):
        process.wait_for_line("never", timeout_s=0.05)


def test_paused_process_is_stopped_until_resumed(process: LoggedProcess) -> None:
    """F3: its state is T, and the pause is noted with both ends."""
    start(process, WAIT)
    process.pause()
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T"
    process.resume()
    ((paused_ns, resumed_ns),) = process.pauses
    assert resumed_ns is not None
    assert paused_ns < resumed_ns
    assert process.stop() == -signal.SIGTERM


def test_process_that_does_not_end_is_killed(process: LoggedProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that hangs is an error, and nothing is left."""
    monkeypatch.setattr("tests.support.cluster.processes.END_TIMEOUT_S", 0.2)
    start(process, STUBBORN)
    with pytest.raises(ProcessWaitError, match="after SIGTERM"):
        process.stop()
    assert not process.is_running


def test_resources_are_read(process: LoggedProcess) -> None:
    """R20: memory and descriptors of the running process, nothing of one that is gone."""
    start(process, WAIT)
    assert process.memory_bytes() > 1024 * 1024
    assert process.open_files() >= 3
    process.kill()
    assert (process.memory_bytes(), process.open_files()) == (0, 0)


@needs_strace
def test_calls_fail_and_take_long_until_detached(process: LoggedProcess, tmp_path: Path) -> None:
    """F10: a sync fails with EIO, takes longer, and works as before afterwards."""
    faults = CallFaults()
    start(process, SYNC_ON_SIGNAL, str(tmp_path / "file"))

    def sync() -> str:
        seen = len(process.current_lines())
        os.kill(process.pid, signal.SIGUSR1)
        return process.wait_for_line("ed ", timeout_s=10, start=seen).text

    try:
        faults.fail(process.pid, ("fsync",), "EIO")
        assert sync() == "failed Input/output error"
        faults.delay(process.pid, ("fsync",), 300)
        assert sync() == "synced slowly"
        faults.detach()
        assert sync() == "synced quickly"
    finally:
        faults.detach()
