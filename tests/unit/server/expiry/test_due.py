"""When a channel needs a look."""

from server.expiry.due import DueChannels


def test_only_what_is_due_is_taken_and_rescheduling_replaces():
    """Costs grow with what is due."""
    due = DueChannels()
    due.schedule(1, 100)
    due.schedule(2, 50)
    due.schedule(1, 200)
    assert due.next_due_ns == 50
    assert due.take_due(150) == [2]
    assert 1 in due
    assert 2 not in due
    assert due.take_due(200) == [1]
    assert due.next_due_ns is None
