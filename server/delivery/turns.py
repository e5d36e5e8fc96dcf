"""Decides when a stream sends: now, in the next turn, when the connection has room, or when a timer fires.

A stream is what has a place in a channel's log: a plain subscription, or a queue group.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from server.delivery.port import Port

if TYPE_CHECKING:
    from server.delivery.stream import Stream

READ_RETRY_S: Final = 1.0
"""Pause after a message could not be read, seconds. Source: B238."""


@dataclass(slots=True)
class Turns:
    """The streams that wait for something."""

    port: Port
    loop: asyncio.AbstractEventLoop
    monotonic_ns: Callable[[], int]
    changed: "dict[int, Stream]" = field(default_factory=dict)
    """Streams with progress to report, by key."""
    _backlog: "dict[int, Stream]" = field(default_factory=dict)
    _backlog_scheduled: bool = False
    _blocked: "dict[int, Stream]" = field(default_factory=dict)
    """Streams that found the connection closed or full, or this node silent, the longest waiting first."""
    _retries: dict[int, asyncio.TimerHandle] = field(default_factory=dict)

    def note_change(self, stream: "Stream") -> None:
        """The stream has progress to report."""
        self.changed[stream.key] = stream

    def block(self, stream: "Stream") -> None:
        """The stream goes on when the connection is open and has room."""
        self._blocked[stream.key] = stream

    def resume_all(self) -> None:
        """The connection is (again) open: send what waits for it."""
        self.port.confirm()
        for key, stream in list(self._blocked.items()):
            if not self.port.is_open():
                break
            del self._blocked[key]  # when there is no room for all of it, it comes back behind the others
            stream.serve()
        self.end()

    def continue_later(self, stream: "Stream") -> None:
        """More than one turn may send: go on in the next."""
        self._backlog[stream.key] = stream
        if not self._backlog_scheduled:
            self._backlog_scheduled = True
            self.loop.call_soon(self._run_backlog)

    def retry_later(self, stream: "Stream") -> bool:
        """A message could not be read: no skipping, try again in a while (B238, B273). False: that is decided already."""
        if stream.key in self._retries:
            return False
        self._retries[stream.key] = self.loop.call_later(READ_RETRY_S, self._retry, stream)
        return True

    def forget(self, stream: "Stream") -> None:
        """The stream has ended."""
        for waiting in (self.changed, self._backlog, self._blocked):
            waiting.pop(stream.key, None)
        retry = self._retries.pop(stream.key, None)
        if retry is not None:
            retry.cancel()

    def is_waiting(self, stream: "Stream") -> bool:
        """True when something will make the stream go on."""
        return stream.key in self._backlog or stream.key in self._blocked or stream.key in self._retries

    def end(self) -> None:
        """Delivery sent by itself: nobody else asks whether there is progress to replicate."""
        if self.changed:
            self.port.want_progress(at_once=False)

    def _run_backlog(self) -> None:
        self._backlog_scheduled = False
        self.port.confirm()
        backlog, self._backlog = self._backlog, {}
        for stream in backlog.values():
            stream.serve()
        self.end()

    def _retry(self, stream: "Stream") -> None:
        del self._retries[stream.key]
        self.port.confirm()
        stream.serve()
        self.end()


class Alarm:
    """One timer at the earliest deadline (B263)."""

    __slots__ = ("_action", "_due_ns", "_timer", "_turns")

    def __init__(self, turns: Turns, action: Callable[[], None]) -> None:
        self._turns = turns
        self._action = action
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0

    def set(self, due_ns: int | None) -> None:
        """Act at `due_ns`, monotonic clock; an earlier time that is set stays, and the action looks again."""
        if due_ns is None:
            return
        if self._timer is not None:
            if self._due_ns <= due_ns:
                return
            self._timer.cancel()
        self._due_ns = due_ns
        delay_s = max(due_ns - self._turns.monotonic_ns(), 0) / 1e9
        self._timer = self._turns.loop.call_later(delay_s, self._fired)

    def cancel(self) -> None:
        """Act no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self) -> None:
        self._timer = None
        self._turns.port.confirm()
        self._action()
        self._turns.end()
