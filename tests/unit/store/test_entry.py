"""The log entry: round trip of all operations, layout, and what is refused."""

import struct
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import block, entry, entry_pb2
from store.errors import EntryError, FormatVersionError
from store.operations import (
    Append,
    BeginLeadership,
    CleanStop,
    CloseClient,
    CloseSubscription,
    ConnectClient,
    CreateChannel,
    DeleteChannel,
    Expire,
    GroupProgress,
    InitCluster,
    Limits,
    Operation,
    Progress,
    SetLimits,
    Subscribe,
    Unsubscribe,
)

u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(max_size=10)
limits = st.builds(Limits, u64, u64, u64)
blocks = st.lists(st.binary(max_size=20), min_size=1, max_size=3).map(block.encode)

kinds = {
    InitCluster: st.builds(InitCluster, text, text),
    CreateChannel: st.builds(CreateChannel, u64, text, limits),
    SetLimits: st.builds(SetLimits, u64, limits),
    DeleteChannel: st.builds(DeleteChannel, u64),
    Expire: st.builds(Expire, u64, u64),
    ConnectClient: st.builds(ConnectClient, text, st.binary(max_size=5), text, i64, i64, i64),
    CloseClient: st.builds(CloseClient, text),
    Subscribe: st.builds(Subscribe, u64, u64, text, text, text, text, text, u64, u64, u64),
    CloseSubscription: st.builds(CloseSubscription, u64),
    Unsubscribe: st.builds(Unsubscribe, u64),
    Progress: st.builds(Progress, u64, u64, u64, st.lists(st.tuples(u64, u64), max_size=4).map(tuple)),
    GroupProgress: st.builds(
        GroupProgress,
        u64,
        u64,
        u64,
        st.lists(u64, max_size=4).map(tuple),
        st.lists(st.tuples(u64, st.integers(0, 65535)), max_size=4).map(tuple),
        u64,
        st.binary(max_size=5).map(lambda data: data * 2),
    ),
    CleanStop: st.just(CleanStop()),
    BeginLeadership: st.builds(BeginLeadership, u64),
}
operations = st.one_of(*kinds.values())
appends = st.tuples(st.builds(Append, u64, u64, u64, st.just(0), i64), blocks)


@given(st.lists(operations | appends, max_size=8), i64)
def test_round_trip(items, time_ns):
    """Operations, blocks, time and version come back in their order."""
    given_operations, given_blocks = [], []
    for item in items:
        if isinstance(item, tuple):
            operation, data = item
            item = Append(
                operation.channel_id, operation.first_seq, operation.count, len(data), operation.last_timestamp_ns
            )
            given_blocks.append(data)
        given_operations.append(item)
    parts = entry.encode(given_operations, given_blocks, time_ns)
    assert all(part is data for part, data in zip(parts[1:], given_blocks, strict=True))  # uncopied
    decoded = entry.decode(memoryview(b"".join(parts)))
    assert decoded.operations == given_operations
    assert decoded.blocks == given_blocks
    assert (decoded.version, decoded.time_ns) == (1, time_ns)


def test_every_operation_is_covered():
    """The round trip above and the format name all operations."""
    tried = {*kinds, Append}
    assert tried == set(get_args(Operation))
    assert len(entry_pb2.Operation.DESCRIPTOR.fields) == len(tried)


def test_layout():
    """Length of the envelope, envelope, blocks."""
    data = block.encode([b"abc"])
    head, tail = entry.encode([Append(1, 1, 1, len(data), 5)], [data], 7)
    (length,) = struct.unpack_from("<I", head)
    envelope = entry_pb2.Envelope.FromString(head[4:])
    assert length == len(head) - 4
    assert (envelope.version, envelope.time_ns, tail) == (1, 7, data)


def test_newer_version_names_both():
    """An entry of a newer program is refused with both versions."""
    envelope = entry_pb2.Envelope(version=2).SerializeToString()
    with pytest.raises(
        FormatVersionError, match="log entry has format version 2, this program supports versions 1 to 1"
    ):
        entry.decode(memoryview(struct.pack("<I", len(envelope)) + envelope))


def wrapped(envelope: bytes) -> bytes:
    return struct.pack("<I", len(envelope)) + envelope


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "allowed: at least 4"),
        (b"\x05\0\0\0abc", "envelope ends at 9"),
        (wrapped(b"\xff\xff"), "cannot be decoded"),
        (wrapped(b""), "no format version"),
        (wrapped(b"\x08\x01\x1a\x00"), "operation 0 is of an unknown kind; allowed: init_cluster"),
        (wrapped(b"\x08\x01\x1a\x04\x92\x06\x01\x00"), "operation 0 is of an unknown kind"),
        (wrapped(b"\x08\x01\x1a\x05\x62\x03\x22\x01\x05"), "range without end"),
    ],
)
def test_other_bytes_are_refused(data, text):
    """Bytes that are no entry are an EntryError that says why."""
    with pytest.raises(EntryError, match=text):
        entry.decode(memoryview(data))


def test_every_cut_and_addition_is_refused():
    """An entry cut anywhere, or followed by anything, is refused."""
    data = block.encode([b"abc"])
    whole = b"".join(entry.encode([Append(1, 1, 1, len(data), 5), CloseClient("me")], [data], 7))
    assert entry.decode(memoryview(whole)).operations[1] == CloseClient("me")
    for end in range(len(whole)):
        with pytest.raises(EntryError):
            entry.decode(memoryview(whole)[:end])
    with pytest.raises(EntryError):
        entry.decode(memoryview(whole + b"\0"))
