"""Fixtures shared by the tests of raft/: an event loop whose time the test moves."""

import pytest

from raft.journal.log import Log


class FakeTimer:
    def __init__(self, when, callback):
        self.when, self.callback, self.is_cancelled = when, callback, False

    def cancel(self):
        self.is_cancelled = True


class FakeLoop:
    """Runs scheduled calls in order of time, when told to; counts the timers that were made and rang."""

    def __init__(self):
        self.now, self.timers, self.made, self.rung = 100.0, [], 0, 0

    def time(self):
        return self.now

    def call_soon(self, callback):
        return self._add(self.now, callback)

    def call_at(self, when, callback):
        self.made += 1
        return self._add(when, callback)

    def run(self):
        """Run what is due now and what that makes due."""
        self.move_to(self.now)

    def move_to(self, now):
        while True:
            due = [timer for timer in self.timers if not timer.is_cancelled and timer.when <= now]
            if not due:
                break
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            self.rung += 1
            timer.callback()
        self.now = now

    def _add(self, when, callback):
        timer = FakeTimer(when, callback)
        self.timers.append(timer)
        return timer


@pytest.fixture
def loop():
    """A loop at time 100 s."""
    return FakeLoop()


@pytest.fixture
def new_log():
    """Makes a journal as recovered: with these entries, all of them durable."""

    def make(entries=()):
        return Log(entries, term=entries[-1][2] if entries else 0)

    return make
