"""Makes system calls of a running process fail or take long, by attaching strace to it."""

import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

WRITE_CALLS: Final = ("fsync", "fdatasync", "pwrite64", "pwritev", "pwritev2")
"""How journal and store reach the disk."""

SYNC_CALLS: Final = ("fsync", "fdatasync")

ATTACH_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.01


class CallFaults:
    """The faults of one process; none until `attach`. Its threads that begin later are included."""

    def __init__(self) -> None:
        self._tracer: subprocess.Popen[bytes] | None = None

    def fail(self, pid: int, calls: Sequence[str], error: str, *, first: int = 1) -> None:
        """The `first`-th of these calls, and every later one, fails with this error (`EIO`, `ENOSPC`)."""
        self._attach(pid, calls, f"error={error}:when={first}+")

    def delay(self, pid: int, calls: Sequence[str], delay_ms: int) -> None:
        """Each of these calls takes this much longer."""
        self._attach(pid, calls, f"delay_enter={delay_ms * 1000}")

    def detach(self) -> None:
        """No fault any more; the process goes on."""
        if self._tracer is None:
            return
        self._tracer.terminate()
        self._tracer.wait(ATTACH_TIMEOUT_S)
        self._tracer = None

    def _attach(self, pid: int, calls: Sequence[str], effect: str) -> None:
        self.detach()
        names = ",".join(calls)
        expressions = ("-e", f"trace={names}", "-e", f"inject={names}:{effect}")
        self._tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", *expressions, "-p", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + ATTACH_TIMEOUT_S
        pause = threading.Event()
        while self._tracer.poll() is None and not _is_traced(pid):
            if time.monotonic() > deadline:
                self.detach()
                raise TimeoutError(f"strace did not attach to {pid} within {ATTACH_TIMEOUT_S} s")
            pause.wait(POLL_S)


def _is_traced(pid: int) -> bool:
    """Whether every thread of a process has a tracer; True for one that is gone."""
    try:
        statuses = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return not any("TracerPid:\t0\n" in status for status in statuses)
