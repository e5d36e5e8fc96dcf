"""Covers raft/link/drops.py: counts by reason, and how often the log tells."""

import logging

import pytest

from raft.link.drops import QUIET_S, DropReason, Drops


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_everything_is_counted_by_reason(clock):
    """Counts do not depend on what is logged, and name only what occurred."""
    drops = Drops(clock)
    assert drops.counts() == {}
    for reason in (DropReason.REPEATED, DropReason.MALFORMED, DropReason.REPEATED):
        drops.note(reason, "text")
    assert drops.counts() == {"malformed": 1, "repeated": 2}


def test_the_first_is_logged_at_once_and_then_one_per_interval(clock, caplog):
    """A flood is one line per interval and reason, with the number of those that were not logged."""
    drops = Drops(clock)
    for at in range(5):
        drops.note(DropReason.MALFORMED, f"bad {at}")
    assert caplog.messages == ["bad 0 reason=malformed suppressed=0"]
    clock.now += QUIET_S - 0.001
    drops.note(DropReason.MALFORMED, "bad 5")
    assert len(caplog.messages) == 1
    clock.now += 0.001
    drops.note(DropReason.MALFORMED, "bad 6")
    drops.note(DropReason.MALFORMED, "bad 7")
    clock.now += QUIET_S
    drops.note(DropReason.MALFORMED, "bad 8")
    assert caplog.messages[1:] == ["bad 6 reason=malformed suppressed=5", "bad 8 reason=malformed suppressed=1"]


def test_reasons_do_not_silence_one_another(clock, caplog):
    """The first of each reason is logged, whatever came before."""
    drops = Drops(clock)
    drops.note(DropReason.MALFORMED, "one")
    drops.note(DropReason.MISADDRESSED, "two")
    assert caplog.messages == ["one reason=malformed suppressed=0", "two reason=misaddressed suppressed=0"]


@pytest.mark.parametrize(
    ("reason", "level"),
    [
        (DropReason.OWN_NODE_ID, logging.ERROR),
        (DropReason.CARRIER_LIMIT, logging.ERROR),
        (DropReason.UNAUTHENTICATED, logging.WARNING),
        (DropReason.OVERSIZED, logging.WARNING),
        (DropReason.OLD_SESSION, logging.DEBUG),
        (DropReason.UNREACHABLE, logging.DEBUG),
    ],
)
def test_levels_say_who_must_act(clock, caplog, reason, level):
    """What an operator must mend is an error, what is wrong a warning, what every reconnect brings is for debugging."""
    with caplog.at_level(logging.DEBUG, logger="raft.link.drops"):
        Drops(clock).note(reason, "text")
    assert [record.levelno for record in caplog.records] == [level]
