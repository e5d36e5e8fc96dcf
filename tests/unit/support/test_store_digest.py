"""The digest tells stores apart by any part of their content, and not by how it is stored."""

import pytest

from store.operations import CleanStop, CloseSubscription, Expire, InitCluster, Limits, Progress, SetLimits
from tests.support.store_digest import digest
from tests.unit.store.builders import SETUP, append, connect, log_entry, message, messages, opened, subscribe


def digest_after(*extra, content=None, flushed=False):
    with opened(None, tail_max_bytes=0 if flushed else 1 << 20) as (store, _):
        operation, block = append(1, 1, content or messages(1, 5))
        store.apply([log_entry(1, [*SETUP, operation, subscribe(1, durable="d")], [block])])
        store.apply([log_entry(2, extra)])
        if flushed:
            store.flush()
        return digest(store)


def test_storage_does_not_matter():
    """From memory and from disk it is the same."""
    assert digest_after() == digest_after(flushed=True)


@pytest.mark.parametrize(
    "operation",
    [
        connect("other"),
        subscribe(2),
        subscribe(2, durable="e"),
        CloseSubscription(1),
        Progress(1, 3, 0, ()),
        Progress(1, 3, 0, ((2, 2),)),
        Expire(1, 2),
        SetLimits(1, Limits(100, 0, 0)),
        CleanStop(),
    ],
)
def test_every_difference_counts(operation):
    """Any operation that changes something."""
    assert digest_after(operation) != digest_after()


def test_refused_operation_does_not_count():
    """It changed nothing."""
    assert digest_after(connect("me")) == digest_after(InitCluster("other", "x")) == digest_after()


def test_content_of_messages_counts():
    """The same number and size of other messages."""
    other = [*messages(1, 4), message(5, timestamp_ns=1_700_000_000_000_000_005, data=b"other!!")]
    assert len(other[-1]) == len(messages(5, 1)[0])
    assert digest_after(content=other) != digest_after()
