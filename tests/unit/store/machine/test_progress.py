"""Progress of subscriptions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.machine.refusals import INVALID_SUBSCRIPTION
from store.machine.state import Refusal
from store.operations import Progress
from store.ranges import Ranges
from tests.unit.store.builders import SETUP, Machine, messages, subscribe

LAST = 30


def new():
    machine = Machine(*SETUP)
    machine.publish(1, messages(1, LAST))
    machine.apply(subscribe(1))
    return machine, machine.state.subscriptions[1]


def test_moves_last_sent_and_floor():
    """Pending is (floor, last_sent] minus the acked ranges."""
    machine, subscription = new()
    assert machine.one(Progress(1, 9, 3, ((5, 6), (8, 8)))) is None
    assert (subscription.last_sent, subscription.floor, subscription.acked) == (9, 3, Ranges([(5, 6), (8, 8)]))
    assert list(subscription.acked.gaps(subscription.floor + 1, subscription.last_sent)) == [(4, 4), (7, 7), (9, 9)]


def test_what_continues_the_floor_is_absorbed():
    """Acks that close the gap move the floor, however they are told."""
    machine, subscription = new()
    machine.apply(Progress(1, 9, 3, ((5, 6),)))
    machine.apply(Progress(1, 9, 0, ((4, 4),)))
    assert (subscription.floor, len(subscription.acked)) == (6, 0)
    machine.apply(Progress(1, 9, 2, ((5, 9),)))
    assert (subscription.floor, len(subscription.acked)) == (9, 0)


def test_nothing_goes_back():
    """An older report changes nothing (B286)."""
    machine, subscription = new()
    machine.apply(Progress(1, 9, 3, ((5, 6),)))
    assert machine.one(Progress(1, 2, 1, ())) is None
    assert (subscription.last_sent, subscription.floor, subscription.acked) == (9, 3, Ranges([(5, 6)]))


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [
        (Progress(2, 9, 3, ()), INVALID_SUBSCRIPTION),
        (Progress(1, 9, 10, ()), Refusal("progress acks up to 10, sent is 9")),
        (Progress(1, 9, 3, ((5, 10),)), Refusal("progress acks up to 10, sent is 9")),
        (Progress(1, 31, 3, ()), Refusal("progress says 31 was sent, which is beyond the channel's end")),
        (Progress(1, 9, 3, ((6, 5),)), Refusal("progress acks ranges that are not ascending: ((6, 5),)")),
        (Progress(1, 9, 3, ((5, 6), (6, 7))), Refusal("progress acks ranges that are not ascending: ((5, 6), (6, 7))")),
        (Progress(1, 9, 3, ((0, 2),)), Refusal("progress acks ranges that are not ascending: ((0, 2),)")),
    ],
)
def test_impossible_reports_are_refused_as_a_whole(operation, refusal):
    """Acks beyond what was sent, or sending beyond the end, would lose messages: nothing of it counts."""
    machine, subscription = new()
    machine.apply(Progress(1, 8, 2, ((4, 4),)))
    assert machine.one(operation) == refusal
    assert (subscription.last_sent, subscription.floor, subscription.acked) == (8, 2, Ranges([(4, 4)]))


def test_sent_counts_from_either_report():
    """Acks up to what was reported as sent before are fine."""
    machine, subscription = new()
    machine.apply(Progress(1, 8, 2, ()))
    assert machine.one(Progress(1, 0, 7, ((8, 8),))) is None
    assert (subscription.last_sent, subscription.floor) == (8, 8)


@given(st.lists(st.tuples(st.integers(0, LAST), st.sets(st.integers(1, LAST))), max_size=6))
def test_is_the_union_of_all_reports(reports):
    """Any sequence of reports leaves exactly the union of what they ack (B245)."""
    machine, subscription = new()
    expected = set()
    for floor, acked in reports:
        ranges = Ranges((seq, seq) for seq in acked if seq > floor)
        assert machine.one(Progress(1, LAST, floor, tuple(ranges.ranges()))) is None
        expected |= acked | set(range(1, floor + 1))
        found = {seq for seq in range(1, LAST + 1) if seq <= subscription.floor or seq in subscription.acked}
        assert found == expected
        assert subscription.floor + 1 not in expected
