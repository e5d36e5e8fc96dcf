"""Reads time: the only module of the server that does.

Everything that decides takes `now_ns` as a parameter; everything that runs takes a `Clock`, so that tests can move it.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Port of time. Both readings are nanoseconds."""

    def now_ns(self) -> int:
        """Wall clock since the Unix epoch. May jump either way: it stamps messages, it never measures."""
        ...

    def monotonic_ns(self) -> int:
        """Clock without jumps from an arbitrary origin. It measures intervals and deadlines."""
        ...


class SystemClock:
    """The clocks of the operating system."""

    __slots__ = ()

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since the Unix epoch."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Monotonic clock, nanoseconds."""
        return time.monotonic_ns()


def now_ns() -> int:
    """Wall clock, nanoseconds since the Unix epoch, for code that has no `Clock`."""
    return time.time_ns()


def monotonic_ns() -> int:
    """Monotonic clock, nanoseconds, for code that has no `Clock`."""
    return time.monotonic_ns()
