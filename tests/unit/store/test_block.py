"""Blocks: round trip, merging, and what verification finds."""

import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import block
from store.errors import CorruptionError

contents = st.lists(st.binary(max_size=300), min_size=1, max_size=40)


@given(contents)
def test_round_trip(messages):
    """What was encoded comes back, from bytes and from a view of them."""
    data = block.encode(messages)
    block.verify(data)
    view = memoryview(b"before" + data)[6:]
    block.verify(view)
    assert block.split(data) == block.split(view) == messages
    assert list(block.lengths(view)) == [len(message) for message in messages]
    assert block.count(view) == len(messages)
    assert block.message_bytes(view) == sum(map(len, messages))
    assert block.encoded_bytes(len(messages), sum(map(len, messages))) == len(data)


def test_layout():
    """Count, checksum of all that follows, lengths, messages; little-endian."""
    data = block.encode([b"ab", b"", b"xyz"])
    body = struct.pack("<III", 2, 0, 3) + b"abxyz"
    assert data == struct.pack("<II", 3, google_crc32c.value(body)) + body


@given(st.lists(contents, min_size=1, max_size=4))
def test_merged_is_encoded_together(parts):
    """Merging blocks gives the block of all their messages."""
    merged = block.merge([block.encode(part) for part in parts])
    assert merged == block.encode([message for part in parts for message in part])


@given(contents, st.data())
def test_every_flipped_bit_is_found(messages, draw):
    """A changed bit anywhere is a CorruptionError."""
    damaged = bytearray(block.encode(messages))
    position = draw.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[position // 8] ^= 1 << position % 8
    with pytest.raises(CorruptionError):
        block.verify(bytes(damaged))


@given(contents, st.data())
def test_every_cut_is_found(messages, draw):
    """A shorter or longer block is a CorruptionError."""
    data = block.encode(messages)
    with pytest.raises(CorruptionError):
        block.verify(data[: draw.draw(st.integers(0, len(data) - 1))])
    with pytest.raises(CorruptionError):
        block.verify(data + b"\0")


@pytest.mark.parametrize(
    ("body", "count"),
    [(b"", 0), (struct.pack("<I", 2) + b"abc", 1), (struct.pack("<I", 2), 2), (b"", 1 << 31)],
)
def test_right_checksum_of_a_wrong_body_is_found(body, count):
    """The checksum alone does not make a block."""
    with pytest.raises(CorruptionError, match="block is damaged"):
        block.verify(struct.pack("<II", count, google_crc32c.value(body)) + body)
