"""Covers raft/trailing.py."""

from hypothesis import given
from hypothesis import strategies as st

from raft.trailing import TrailingEntries


def test_nothing_goes_before_it_is_durable():
    """Applied but not durable entries stay, whatever their size."""
    trailing = TrailingEntries(0)
    trailing.applied(10, 1000)
    assert trailing.trim_index(9) == 0
    assert trailing.trim_index(10) == 10


def test_tail_within_the_bound_stays():
    """Batches go, oldest first, until the rest fits the bound."""
    trailing = TrailingEntries(250)
    for last_index in (10, 20, 30, 40):
        trailing.applied(last_index, 100)
    assert trailing.trim_index(40) == 20
    trailing.applied(50, 100)
    assert trailing.trim_index(50) == 30


@given(
    st.integers(0, 500),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 200), st.integers(0, 12)), max_size=40),
)
def test_never_beyond_durable_never_backwards_and_bounded(bytes_max, steps):
    """Property: a trim index is durable and grows; what stays is above the bound only while it is not durable."""
    trailing, last, durable, before, sizes = TrailingEntries(bytes_max), 0, 0, 0, {}
    for count, size, lag in steps:
        last += count
        sizes[last] = size
        trailing.applied(last, size)
        durable = max(durable, last - lag)
        index = trailing.trim_index(durable)
        assert before <= index <= durable
        before = index
        kept = {batch: size for batch, size in sizes.items() if batch > index}
        assert sum(kept.values()) <= bytes_max or min(kept) > durable
        gone = max((batch for batch in sizes if batch <= index), default=None)
        assert gone is None or sum(kept.values()) + sizes[gone] > bytes_max
