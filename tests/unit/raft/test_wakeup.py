"""Covers raft/wakeup.py."""

import pytest

from raft.wakeup import SLACK_S, Wakeup


@pytest.fixture
def woken():
    """The times at which the wake-up called."""
    return []


@pytest.fixture
def wakeup(loop, woken):
    """A wake-up that notes its calls."""
    return Wakeup(loop, lambda: woken.append(loop.now))


def test_wakes_once_strictly_behind_the_deadline(loop, woken, wakeup):
    """The engine compares strictly: a wake-up at the deadline itself would be wasted."""
    wakeup.set(101.0)
    loop.move_to(101.0)
    assert woken == []
    loop.move_to(200.0)
    assert woken == [101.0 + SLACK_S]


def test_later_deadline_makes_no_new_timer(loop, woken, wakeup):
    """A follower's deadline moves with every message; the one timer looks again when it rings."""
    for step in range(50):
        wakeup.set(101.0 + step * 0.01)
    assert loop.made == 1
    loop.move_to(200.0)
    assert woken == [pytest.approx(101.49 + SLACK_S)]
    assert (loop.made, loop.rung) == (2, 2)


def test_earlier_deadline_replaces_the_timer(loop, woken, wakeup):
    """A deadline that comes nearer is met."""
    wakeup.set(150.0)
    wakeup.set(101.0)
    loop.move_to(110.0)
    assert woken == [101.0 + SLACK_S]
    loop.move_to(200.0)
    assert len(woken) == 1


def test_no_deadline_leaves_no_timer(loop, woken, wakeup):
    """Without a deadline nothing rings, and a new one can be set afterwards."""
    wakeup.set(101.0)
    wakeup.set(None)
    loop.move_to(200.0)
    assert (woken, loop.rung) == ([], 0)
    wakeup.set(201.0)
    loop.move_to(300.0)
    assert len(woken) == 1
