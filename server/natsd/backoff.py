"""Decides how long to wait before the child is started again, and when to give up. Pure."""

from dataclasses import dataclass
from typing import Final

DELAY_MIN_NS: Final = 100_000_000
"""Pause before the first restart, ns: the child's port may linger a moment."""

DELAY_MAX_NS: Final = 5_000_000_000
"""Longest pause between restarts, ns."""

STABLE_NS: Final = 30_000_000_000
"""A child that ran this long, ns, had started well: its end is a new story."""

QUICK_FAILURES_MAX: Final = 8
"""Failures in a row, none after a stable run, after which restarting is given up: about 12 s of pauses."""


@dataclass(slots=True)
class Backoff:
    """Counts failures in a row. Invariant: 0 <= failures <= QUICK_FAILURES_MAX."""

    failures: int = 0

    def next_delay_ns(self, ran_ns: int) -> int | None:
        """Pause before the next start after a child that ran for `ran_ns`; None = give up."""
        if ran_ns >= STABLE_NS:
            self.failures = 0
        if self.failures == QUICK_FAILURES_MAX:
            return None
        delay_ns = min(DELAY_MIN_NS << self.failures, DELAY_MAX_NS)
        self.failures += 1
        return delay_ns
