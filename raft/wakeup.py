"""Wakes a driver up when a deadline has passed, with one timer that is set anew only when it must ring earlier."""

from collections.abc import Callable
from typing import Final, Protocol

SLACK_S: Final = 0.001
"""Added to a deadline: the engine compares strictly, and a tick at the deadline itself would do nothing."""


class Cancellable(Protocol):
    """What a scheduled call returns."""

    def cancel(self) -> None:
        """Do not make the call."""


class Scheduler(Protocol):
    """The part of an asyncio event loop that a node needs; a simulation brings its own."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_soon(self, callback: Callable[[], object], /) -> Cancellable:
        """Call `callback` in the next turn."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Cancellable:
        """Call `callback` at time `when`."""


class Wakeup:
    """One deadline, which moves later far more often than it passes: moving it later costs nothing."""

    def __init__(self, loop: Scheduler, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._deadline: float | None = None
        self._timer: Cancellable | None = None
        self._rings_at = 0.0

    def set(self, deadline: float | None) -> None:
        """Call back once the loop's time is behind `deadline`; None: not at all."""
        self._deadline = deadline
        if deadline is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        if self._timer is not None:
            if self._rings_at <= deadline + SLACK_S:
                return
            self._timer.cancel()
        self._rings_at = deadline + SLACK_S
        self._timer = self._loop.call_at(self._rings_at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        assert self._deadline is not None
        if self._deadline < self._loop.time():
            self._callback()
        else:
            self.set(self._deadline)
