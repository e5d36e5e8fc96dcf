"""Runs one process of a node: start, signals, pauses, and its output line by line with the moment of arrival.

Lines and facts stay over restarts: they are the history that the checks read afterwards.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

END_TIMEOUT_S: Final = 20.0
"""Bound of an end after a signal, seconds."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of output and when it was read, monotonic nanoseconds."""

    at_ns: int
    text: str


@dataclass(slots=True)
class Run:
    """One process from start to end. `first_line` is the index of its first line; `ended_ns` None while it lives."""

    pid: int
    first_line: int
    started_ns: int
    ended_ns: int | None = None
    status: int | None = None
    is_expected_end: bool = False
    """Whether we ended it, or told that a fault may."""


class ProcessWaitError(Exception):
    """Something awaited did not happen: the text says what, `log` has the last lines."""

    def __init__(self, name: str, awaited: str, log: Sequence[str]) -> None:
        super().__init__(f"{name}: {awaited}\n--- end of the log ---\n" + "\n".join(log[-30:]))
        self.name, self.awaited = name, awaited


@dataclass(slots=True)
class LoggedProcess:
    """A process that can be started again and again. `changed` is shared, and notified at each line and each end."""

    name: str
    changed: threading.Condition
    lines: list[Line] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    pauses: list[tuple[int, int | None]] = field(default_factory=list)
    """When it was stopped and continued, monotonic nanoseconds; None while it is stopped."""
    _process: subprocess.Popen[str] | None = None
    _reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """Process id of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it lives; False too after it ended by itself."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_paused(self) -> bool:
        """Whether it is stopped by SIGSTOP."""
        return bool(self.pauses) and self.pauses[-1][1] is None

    def current_lines(self) -> list[Line]:
        """Of the last start."""
        with self.changed:
            return self.lines[self.runs[-1].first_line :] if self.runs else []

    def texts(self) -> list[str]:
        """All lines, over all starts."""
        with self.changed:
            return [line.text for line in self.lines]

    def spawn(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, directory: Path) -> None:
        """Starts it, without waiting for anything. It must not be running."""
        self.collect()
        assert self._process is None, self.name
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with self.changed:
            self.runs.append(Run(self._process.pid, len(self.lines), time.monotonic_ns()))
        self._reader = threading.Thread(target=self._read, args=(self._process,), name=f"log-{self.name}", daemon=True)
        self._reader.start()

    def wait_for_line(self, text: str, *, timeout_s: float, start: int = 0) -> Line:
        """The first line of the current run that contains `text`; raises ProcessWaitError at the deadline or the end.

        `start` leaves out that many lines of the run.
        """
        found: list[Line] = []

        def is_there() -> bool:
            found[:] = [line for line in self.current_lines()[start:] if text in line.text][:1]
            return bool(found) or not self.is_running

        with self.changed:
            self.changed.wait_for(is_there, timeout_s)
        if not found:
            reason = f"within {timeout_s} s" if self.is_running else "before it ended"
            raise ProcessWaitError(self.name, f"no line with {text!r} {reason}", self.texts())
        return found[0]

    def expect_end(self) -> None:
        """From now on the current process may end by itself: the fault that begins is a reason."""
        if self.runs:
            self.runs[-1].is_expected_end = True

    def kill(self) -> None:
        """Kill -9; returns when it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int | None:
        """SIGTERM; its exit status, None when it was not running. One that hangs is killed, and ProcessWaitError raised."""
        if not self.is_running:
            self.collect()
            return None
        try:
            return self._end(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProcessWaitError(self.name, f"still there {END_TIMEOUT_S} s after SIGTERM", self.texts()) from None

    def wait_ended(self, timeout_s: float) -> bool:
        """Whether it ends within that time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self.collect()
        return True

    def pause(self) -> None:
        """SIGSTOP."""
        if self.is_running and not self.is_paused:
            self.pauses.append((time.monotonic_ns(), None))
            os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, if it is paused."""
        if self.is_paused:
            if self.is_running:
                os.kill(self.pid, signal.SIGCONT)
            self.pauses[-1] = (self.pauses[-1][0], time.monotonic_ns())

    def collect(self) -> None:
        """Notes the end of a process that has ended, if it has not been noted yet."""
        if self._process is None or self._process.poll() is None:
            return
        assert self._reader is not None
        self._reader.join(END_TIMEOUT_S)
        with self.changed:
            run = self.runs[-1]
            run.status = self._process.returncode
            run.ended_ns = run.ended_ns or time.monotonic_ns()
            self.changed.notify_all()
        self._process = None
        self.resume()

    def memory_bytes(self) -> int:
        """Resident memory of the running process; 0 when it is not running."""
        return self._from_proc(lambda path: _resident_bytes((path / "status").read_text()))

    def open_files(self) -> int:
        """Open descriptors of the running process; 0 when it is not running."""
        return self._from_proc(lambda path: sum(1 for _ in (path / "fd").iterdir()))

    def _from_proc(self, look: Callable[[Path], int]) -> int:
        if not self.is_running:
            return 0
        try:
            return look(Path(f"/proc/{self.pid}"))
        except (FileNotFoundError, ProcessLookupError):
            return 0  # it ended between the two lines

    def _end(self, number: signal.Signals) -> int | None:
        if self._process is None:
            return None
        self.expect_end()
        self._process.send_signal(number)
        if number is not signal.SIGKILL:
            self.resume()
        status = self._process.wait(END_TIMEOUT_S)
        self.collect()
        return status

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for text in stream:
                with self.changed:
                    self.lines.append(Line(time.monotonic_ns(), text.rstrip("\n")))
                    self.changed.notify_all()
        process.wait()  # the end of the output comes a moment before the end of the process
        with self.changed:
            self.runs[-1].ended_ns = self.runs[-1].ended_ns or time.monotonic_ns()
            self.changed.notify_all()


def _resident_bytes(status: str) -> int:
    """VmRSS of /proc/pid/status; 0 for a process that is ending."""
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
