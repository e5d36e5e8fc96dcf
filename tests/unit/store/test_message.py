"""Reading and marking encoded messages, against protobuf."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.stan_pb2 import MsgProto
from store.errors import CorruptionError
from store.message import redelivered, seq, timestamp_ns

proto = st.builds(
    MsgProto,
    sequence=st.integers(0, 2**64 - 1),
    subject=st.text(max_size=20),
    reply=st.text(max_size=5),
    data=st.binary(max_size=300),
    timestamp=st.integers(-(2**63), 2**63 - 1),
)


@given(proto)
def test_sequence_and_timestamp(message):
    """They are what protobuf reads, also when they or other fields are absent."""
    data = message.SerializeToString()
    assert seq(data) == message.sequence
    assert timestamp_ns(data) == message.timestamp


@given(proto, st.integers(1, 2**32 - 1))
def test_redelivered_is_appended(message, count):
    """The marked message is what protobuf encodes with both fields set (B271, B272)."""
    marked = redelivered(message.SerializeToString(), count)
    message.redelivered = True
    message.redeliveryCount = count
    assert marked == message.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x01\x12\x05ab",  # text longer than the message
        b"\x08\x01\x30\x01",  # a field that is not stored
        b"\x08\x80",  # number without end
        b"\x08\x01\x28" + b"\x80" * 11,  # number too long
    ],
)
def test_something_else_is_found(data):
    """Bytes that are no stored message are a CorruptionError."""
    with pytest.raises(CorruptionError, match="is damaged"):
        timestamp_ns(data)
