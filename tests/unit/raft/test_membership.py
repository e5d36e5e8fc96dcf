"""Covers raft/membership.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft import wire_pb2 as pb
from raft.constants import MEMBERS_MAX, NODE_ID_MAX_BYTES
from raft.errors import WireError
from raft.membership import (
    GENESIS_BYTES,
    Configuration,
    Configurations,
    Member,
    check_member,
    decode_configuration,
    digest_of_peers,
    is_incarnation,
)
from tests.unit.raft.cores import GENESIS, configuration, member

INCARNATIONS = st.one_of(st.just(""), st.text("0123456789abcdef", min_size=32, max_size=32))
NODE_IDS = st.text(min_size=1, max_size=20)


@given(NODE_IDS, INCARNATIONS)
def test_key_names_one_member(node_id, incarnation):
    """A vote in the journal says who it was for, whatever the node id holds, even an @."""
    assert Member(node_id, incarnation).key.rpartition("@") == (node_id, "@", incarnation)


def test_members_are_ordered_and_distinct():
    """The order of members is that of their ids, so equal sets are equal configurations; an id stands once."""
    assert configuration("cab") == configuration("abc")
    assert configuration("cab").node_ids == ("a", "b", "c")
    with pytest.raises(AssertionError):
        Configuration.of(GENESIS, [member("a"), Member("a", "f" * 32)])


@pytest.mark.parametrize(("names", "majority"), [("a", 1), ("ab", 2), ("abc", 2), ("abcd", 3), ("abcde", 3)])
def test_majority(names, majority):
    """More than half."""
    assert configuration(names).majority == majority


def test_place_without_voice_makes_the_majority_larger():
    """A member that was never seen counts among all, not among those who can answer."""
    assert configuration("abc").with_member(Member("d", "")).majority == 3


def test_one_more_and_one_less():
    """Changes differ by one member; the journal that fills a place takes it."""
    three = configuration("abc")
    assert three.with_member(member("d")) == configuration("abcd")
    assert three.without("b") == configuration("ac")
    assert three.without("x") == three
    place = three.with_member(Member("d", ""))
    assert place.find("d") == Member("d", "")
    assert place.with_member(member("d")) == configuration("abcd")
    assert three.find("x") is None


@given(st.dictionaries(NODE_IDS, INCARNATIONS, min_size=1, max_size=8), st.binary(min_size=16, max_size=16))
def test_configuration_round_trip(members, genesis):
    """What is encoded is found again, and equal ones have equal bytes."""
    one = Configuration.of(genesis, [Member(*item) for item in members.items()])
    assert decode_configuration(one.encode()) == one
    assert decode_configuration(memoryview(one.encode())) == one
    again = Configuration.of(genesis, reversed([Member(*item) for item in members.items()]))
    assert again.encode() == one.encode()


def encoded(members, genesis=GENESIS):
    record = pb.Configuration(genesis=genesis)
    for node_id, incarnation in members:
        record.members.add(node_id=node_id, incarnation=incarnation)
    return record.SerializeToString()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\xff\xff", "configuration of 2 bytes cannot be decoded"),
        (b"", "genesis of 0 bytes; allowed: 16"),
        (encoded([member("a")], b"short"), "genesis of 5 bytes; allowed: 16"),
        (encoded([]), f"configuration of 0 members; allowed: 1 to {MEMBERS_MAX}"),
        (
            encoded([Member(str(number), "") for number in range(MEMBERS_MAX + 1)]),
            f"configuration of {MEMBERS_MAX + 1} members",
        ),
        (encoded([Member("", "")]), f"node id of 0 bytes; allowed: 1 to {NODE_ID_MAX_BYTES}"),
        (encoded([Member("a" * (NODE_ID_MAX_BYTES + 1), "")]), f"node id of {NODE_ID_MAX_BYTES + 1} bytes"),
        (encoded([Member("a", "xyz")]), "incarnation 'xyz'; allowed: 32 hexadecimal digits or none"),
        (encoded([Member("a", "F" * 32)]), "incarnation 'FFFF"),
        (encoded([member("a"), Member("a", "")]), "configuration names a node twice"),
    ],
)
def test_configuration_that_nobody_writes_is_refused(data, named):
    """It may come from the network: the error names the field, its value and what is allowed."""
    with pytest.raises(WireError, match=named):
        decode_configuration(data)


def test_incarnation_has_one_form():
    """32 hexadecimal digits, small."""
    assert is_incarnation("0123456789abcdef" * 2)
    assert not is_incarnation("0123456789abcdef")
    assert not is_incarnation("0123456789ABCDEF" * 2)
    check_member(Member("é" * (NODE_ID_MAX_BYTES // 2), ""))
    with pytest.raises(WireError):
        check_member(Member("é" * (NODE_ID_MAX_BYTES // 2) + "a", ""))


class TestConfigurations:
    """Which configuration of the log counts."""

    def test_none_until_told(self):
        """A new node has none."""
        known = Configurations(None)
        assert (known.current, known.index) == (None, 0)

    def test_counts_from_its_place_in_the_log_on(self):
        """Raft dissertation, section 4.1: committed or not."""
        known = Configurations(configuration("abc"))
        known.added(7, configuration("abcd"))
        assert (known.current, known.index) == (configuration("abcd"), 7)

    def test_truncation_brings_the_one_before_back(self):
        """Section 2.1.12: only what was cut off is undone."""
        known = Configurations(configuration("abc"))
        known.added(7, configuration("abcd"))
        known.added(9, configuration("abd"))
        assert not known.truncated(10)
        assert known.truncated(9)
        assert (known.current, known.index) == (configuration("abcd"), 7)
        assert known.truncated(5)
        assert (known.current, known.index) == (configuration("abc"), 0)
        assert not known.truncated(1)

    def test_entries_come_in_order(self):
        """One index has one configuration."""
        known = Configurations(configuration("abc"))
        known.added(7, configuration("abcd"))
        for index in (6, 7):
            with pytest.raises(AssertionError):
                known.added(index, configuration("ab"))

    def test_applied_ones_are_history_but_for_the_last(self):
        """What is applied is never cut off; the newest applied one stays to fall back to."""
        known = Configurations(configuration("abc"))
        known.added(7, configuration("abcd"))
        known.added(9, configuration("abd"))
        known.applied(8)
        known.truncated(9)
        assert known.current == configuration("abcd")
        known.added(9, configuration("ab"))
        known.applied(20)
        assert not known.truncated(10)
        assert (known.current, known.index) == (configuration("ab"), 9)

    def test_snapshot_brings_its_own(self):
        """What the log holds behind the snapshot stays above it; what it held before is replaced."""
        known = Configurations(configuration("abc"))
        known.added(7, configuration("abcd"))
        known.added(15, configuration("abd"))
        known.restored(configuration("abce"), 10)
        assert known.current == configuration("abd")
        assert known.truncated(15)
        assert (known.current, known.index) == (configuration("abce"), 0)

    def test_snapshot_without_any_leaves_what_is_behind_it(self):
        """A state of before the first configuration has none."""
        known = Configurations(None)
        known.added(2, configuration("abc"))
        known.restored(None, 1)
        assert known.current == configuration("abc")
        known.restored(None, 2)
        assert known.current is None


def test_digest_is_of_the_set_of_peers():
    """Order and repetition do not matter, borders between names do."""
    assert digest_of_peers(["a", "b"]) == digest_of_peers(["b", "a", "b"])
    assert digest_of_peers(["ab", "c"]) != digest_of_peers(["a", "bc"])
    assert digest_of_peers(["a"]) != digest_of_peers(["a", "b"])


def test_genesis_used_here_is_one():
    """The size is fixed by the format."""
    assert len(GENESIS) == GENESIS_BYTES
