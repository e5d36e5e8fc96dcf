"""The only clock."""

import time

from server.clock import Clock, SystemClock, monotonic_ns, now_ns


def test_system_clock_reads_the_operating_system() -> None:
    """Readings lie between two direct readings of the same clock, as nanoseconds."""
    clock: Clock = SystemClock()
    before = (time.time_ns(), time.monotonic_ns())
    readings = ((clock.now_ns(), clock.monotonic_ns()), (now_ns(), monotonic_ns()))
    after = (time.time_ns(), time.monotonic_ns())
    for wall, steady in readings:
        assert before[0] <= wall <= after[0]
        assert before[1] <= steady <= after[1]
