"""When a channel needs a look."""

import pickle

from server.expiry.due import DueChannels


def test_only_what_is_due_is_taken_and_rescheduling_replaces():
    """Costs grow with what is due."""
    due = DueChannels()
    due.schedule(1, 100)
    due.schedule(2, 50)
    due.schedule(1, 200)
    assert not due.is_empty
    assert due.take_due(150) == [2]
    assert 1 in due
    assert 2 not in due
    assert due.take_due(200) == [1]
    assert due.is_empty


def test_forgotten_is_never_due():
    """A channel that is gone is not looked at, another time for it counts again."""
    due = DueChannels()
    due.schedule(1, 100)
    due.schedule(2, 100)
    due.forget(1)
    due.forget(3)
    assert 1 not in due
    assert due.take_due(100) == [2]
    assert due.is_empty
    due.schedule(1, 300)
    assert due.take_due(300) == [1]


def test_forgotten_channels_do_not_pile_up():
    """Channels that come and go long before their time cost nothing, and those that stay keep their order."""
    due = DueChannels()
    for kept in range(100):
        due.schedule(kept, 10**6 - kept)
    sizes = []
    for gone in range(1000, 21_000):
        due.schedule(gone, 2 * 10**6)
        due.forget(gone)
        sizes.append(len(pickle.dumps(due)) if gone % 1000 == 0 else 0)
    assert max(sizes) < 10_000
    assert due.take_due(10**6) == list(reversed(range(100)))
