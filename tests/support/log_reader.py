"""Collects a child's output line by line and lets a test wait for a line, with a deadline."""

import threading
import time
from typing import IO


class LogWaitError(Exception):
    """The awaited text did not appear: `text` is what was awaited, `log` all that was printed."""

    def __init__(self, text: str, reason: str, log: str) -> None:
        super().__init__(f"no line with {text!r} in the log: {reason}\n--- log ---\n{log}")
        self.text, self.reason, self.log = text, reason, log


class LogReader:
    """Reads `stream` to its end in a thread; the stream belongs to the reader and is closed by it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="log-reader", daemon=True)
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        """A copy of the lines so far, without line ends."""
        with self._changed:
            return list(self._lines)

    @property
    def text(self) -> str:
        """All output so far."""
        return "\n".join(self.lines)

    def wait_for(self, text: str, *, timeout_s: float, start: int = 0) -> str:
        """The first line from index `start` on that contains `text`; raises LogWaitError at the deadline or the end."""
        deadline = time.monotonic() + timeout_s
        position = start
        with self._changed:
            while True:
                for line in self._lines[position:]:
                    if text in line:
                        return line
                position = max(start, len(self._lines))
                if self._ended:
                    raise LogWaitError(text, "the process closed its output", "\n".join(self._lines))
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise LogWaitError(text, f"nothing within {timeout_s} s", "\n".join(self._lines))
                self._changed.wait(remaining_s)

    def join(self, timeout_s: float) -> None:
        """Waits for the end of the output."""
        self._thread.join(timeout_s)

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
