"""Ranges of sequences against a plain set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.ranges import Ranges

pairs = st.tuples(st.integers(1, 60), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def as_set(ranges):
    return {seq for first, last in ranges for seq in range(first, last + 1)}


@given(st.lists(pairs))
def test_is_the_same_set(added):
    """Membership, count and order are those of a set of the same sequences; ranges are maximal."""
    ranges = Ranges(added)
    expected = as_set(added)
    assert as_set(ranges.ranges()) == expected
    assert [seq in ranges for seq in range(70)] == [seq in expected for seq in range(70)]
    assert ranges.count() == len(expected)
    found = list(ranges.ranges())
    assert all(found[i][1] + 1 < found[i + 1][0] for i in range(len(found) - 1))
    assert len(ranges) == len(found)


@given(st.lists(pairs), st.randoms())
def test_order_of_adding_does_not_matter(added, random):
    """Equal sets are equal, however they were built."""
    shuffled = list(added)
    random.shuffle(shuffled)
    assert Ranges(added) == Ranges(shuffled)
    assert Ranges(added).encode() == Ranges(shuffled).encode()


@given(st.lists(pairs), st.integers(0, 70))
def test_floor_takes_what_continues_it(added, floor):
    """The floor moves over everything that follows it without gap, and that is forgotten."""
    ranges = Ranges(added)
    expected = as_set(added)
    while floor + 1 in expected:
        floor += 1
    assert Ranges(added).advance_floor(floor) == floor
    assert ranges.advance_floor(floor) == floor
    assert as_set(ranges.ranges()) == {seq for seq in expected if seq > floor}


@given(st.lists(pairs), st.integers(1, 70), st.integers(0, 70))
def test_gaps_are_what_is_missing(added, first, length):
    """Gaps and ranges together are the whole."""
    last = first + length - 1
    expected = set(range(first, last + 1)) - as_set(added)
    assert as_set(Ranges(added).gaps(first, last)) == expected


@given(st.lists(st.tuples(st.integers(1, 2**60), st.integers(0, 2**40)).map(lambda p: (p[0], p[0] + p[1]))))
def test_round_trip(added):
    """Encoded and decoded it is the same set."""
    ranges = Ranges(added)
    assert Ranges.decode(ranges.encode()) == ranges


def test_encoding_is_compact():
    """A range costs two small numbers."""
    assert Ranges([(5, 9), (200, 200)]).encode() == bytes([5, 4, 0xBF, 0x01, 0])
    assert Ranges().encode() == b""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (bytes([5]), "incomplete"),
        (bytes([5, 0x80]), "incomplete"),
        (bytes([5, 0, 1, 0]), "begins at 6, allowed: at least 7"),
        (bytes([5, 0, 0, 0]), "begins at 5, allowed: at least 7"),
    ],
)
def test_other_bytes_are_refused(data, text):
    """Bytes that `encode` never writes are refused with the reason."""
    with pytest.raises(ValueError, match=text):
        Ranges.decode(data)


def test_is_not_equal_to_other_things():
    """Only ranges compare."""
    assert Ranges([(1, 2)]) != [(1, 2)]
    assert repr(Ranges([(1, 2)])) == "Ranges([(1, 2)])"
