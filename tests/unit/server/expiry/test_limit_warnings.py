"""When the operator is told about limits."""

from server.expiry.limit_warnings import LimitWarnings
from store.machine.state import Channel
from store.operations import Limits


def channel(first_seq, last_seq):
    return Channel(1, "foo", Limits(10, 2048, 0), first_seq=first_seq, last_seq=last_seq, total_bytes=1024)


def test_dropping_is_told_once():
    """O215: with the figures of the moment, once per channel and run."""
    warnings = LimitWarnings()
    assert warnings.appended(channel(1, 10)) is None
    assert warnings.appended(channel(2, 11)) == (
        'Reached limits for store "foo" (msgs=10/10 bytes=1.00 KB/2.00 KB), dropping old messages to make room for new ones'
    )
    assert warnings.appended(channel(9, 18)) is None


def test_expiry_and_recovery_are_not_limits():
    """A channel that begins late for another reason is no reason to warn."""
    warnings = LimitWarnings()
    warnings.begins(channel(50, 59))
    assert warnings.appended(channel(50, 60)) is None
    warnings.begins(channel(55, 60))
    assert warnings.appended(channel(55, 61)) is None
    assert warnings.appended(channel(56, 62)) is not None


def test_deleted_channel_is_forgotten():
    """O215: what is known of a channel goes with it."""
    warnings = LimitWarnings()
    warnings.begins(channel(5, 10))
    assert warnings.appended(channel(6, 11)) is not None
    warnings.forget(1)
    warnings.forget(1)
    assert warnings.appended(channel(1, 3)) is None
    assert warnings.appended(channel(2, 4)) is not None
