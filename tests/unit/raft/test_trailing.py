"""Covers raft/trailing.py."""

from hypothesis import given
from hypothesis import strategies as st

from raft.trailing import TRAILING_BYTES_MAX, TRAILING_ENTRIES_MAX, TrailingBounds, TrailingEntries

NOTHING = TrailingBounds(0, 0)


def test_nothing_goes_before_it_is_durable():
    """Applied but not durable entries stay, whatever their size."""
    trailing = TrailingEntries()
    trailing.applied(10, 10, 1000)
    assert trailing.trim_index(9, NOTHING) == 0
    assert trailing.trim_index(10, NOTHING) == 10


def test_tail_within_the_bound_of_bytes_stays():
    """Batches go, oldest first, until the rest fits the bound of bytes."""
    trailing, bounds = TrailingEntries(), TrailingBounds(entries_max=1000, bytes_max=250)
    for last_index in (10, 20, 30, 40):
        trailing.applied(last_index, 10, 100)
    assert trailing.trim_index(40, bounds) == 20
    trailing.applied(50, 10, 100)
    assert trailing.trim_index(50, bounds) == 30


def test_tail_within_the_bound_of_entries_stays():
    """However small the entries are, only so many are kept."""
    trailing, bounds = TrailingEntries(), TrailingBounds(entries_max=25, bytes_max=10**9)
    for last_index in (10, 20, 30, 40):
        trailing.applied(last_index, 10, 1)
    assert trailing.trim_index(40, bounds) == 20


def test_bounds_by_default_are_the_documented_ones():
    """O47: 10240 entries, and 64 MiB of them at most; a tail exactly at a bound stays."""
    assert TrailingBounds() == TrailingBounds(10240, 64 * 1024 * 1024)
    for entries, size in ((TRAILING_ENTRIES_MAX, 1), (1, TRAILING_BYTES_MAX)):
        trailing = TrailingEntries()
        trailing.applied(entries, entries, size)
        assert trailing.trim_index(entries, TrailingBounds()) == 0
        trailing.applied(entries + 1, 1, 1)
        assert trailing.trim_index(entries + 1, TrailingBounds()) == entries


@given(
    st.integers(0, 60),
    st.integers(0, 500),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 200), st.integers(0, 12)), max_size=40),
)
def test_never_beyond_durable_never_backwards_and_bounded(entries_max, bytes_max, steps):
    """Property: a trim index is durable and grows; what stays is above a bound only while it is not durable."""
    trailing, last, durable, before, sizes = TrailingEntries(), 0, 0, 0, {}
    bounds = TrailingBounds(entries_max, bytes_max)

    def fits(batches):
        return (
            sum(count for count, _ in batches.values()) <= entries_max
            and sum(size for _, size in batches.values()) <= bytes_max
        )

    for count, size, lag in steps:
        last += count
        sizes[last] = count, size
        trailing.applied(last, count, size)
        durable = max(durable, last - lag)
        index = trailing.trim_index(durable, bounds)
        assert before <= index <= durable
        before = index
        kept = {batch: size for batch, size in sizes.items() if batch > index}
        assert fits(kept) or min(kept) > durable
        gone = max((batch for batch in sizes if batch <= index), default=None)
        assert gone is None or not fits(kept | {gone: sizes[gone]})
