"""Covers raft/link/frame.py: frames as bytes, who can have made them, and messages cut into slices."""

import dataclasses
import hashlib
import hmac
import struct

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft import wire_pb2 as pb
from raft.constants import NODE_ID_MAX_BYTES
from raft.errors import WireError
from raft.link.frame import (
    FRAGMENTS_MAX,
    JOIN_BELOW_BYTES,
    MAC_BYTES,
    RELEASE_MAX_BYTES,
    SLICE_MIN_BYTES,
    Frame,
    FrameKind,
    Header,
    NodeInfo,
    authenticate,
    cut,
    decode_frame,
    decode_info,
    encode_frame,
    encode_info,
    key_of,
    slice_max,
)
from raft.membership import Member
from raft.wire import INTEGER_MAX, MESSAGE_MAX_BYTES

N1 = Member("n1", "1" * 32)
KEY = key_of(b"secret", "orders")
DATA = Header(
    kind=FrameKind.DATA,
    source=N1,
    source_session=17,
    destination="n2",
    destination_session=23,
    sequence=5,
    fragment_number=1,
    fragment_count=3,
)
HELLO = dataclasses.replace(DATA, kind=FrameKind.HELLO, fragment_number=0, fragment_count=1)

node_ids = st.text(min_size=1, max_size=20)
members = st.builds(Member, node_ids, st.text("0123456789abcdef", min_size=32, max_size=32))
sessions = st.integers(1, INTEGER_MAX)


@st.composite
def headers(draw):
    kind = draw(st.sampled_from(FrameKind))
    count = draw(st.integers(1, FRAGMENTS_MAX)) if kind is FrameKind.DATA else 1
    return Header(
        kind=kind,
        source=draw(members),
        source_session=draw(sessions),
        destination=draw(node_ids),
        destination_session=draw(st.integers(0, INTEGER_MAX)),
        sequence=draw(sessions),
        fragment_number=draw(st.integers(0, count - 1)),
        fragment_count=count,
    )


infos = st.builds(
    NodeInfo,
    genesis=st.sampled_from([b"", bytes(range(16))]),
    is_fresh=st.booleans(),
    peers_digest=st.integers(0, 2**32 - 1),
    release=st.text(max_size=RELEASE_MAX_BYTES // 4),
)


def as_bytes(header: Header, body: bytes, key: bytes | None = None) -> bytes:
    return b"".join(encode_frame(header, [body], key))


@given(headers(), st.binary(min_size=1, max_size=300), st.sampled_from([None, KEY]))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_every_frame_comes_back(header, body, key):
    """What is encoded decodes to the same header and body, with an authentication code and without."""
    data = as_bytes(header, body, key)
    for given_as in (data, memoryview(data)):
        content = given_as if key is None else authenticate(given_as, key)
        assert decode_frame(content) == Frame(header, body)


@given(infos)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_every_info_comes_back(info):
    """What a node says about itself arrives unchanged, and fits into the smallest body that can be carried."""
    assert decode_info(encode_info(info)) == info
    assert len(encode_info(info)) <= SLICE_MIN_BYTES


def test_the_largest_info_fits():
    """The longest release text does not make a hello too large."""
    info = NodeInfo(genesis=bytes(16), is_fresh=True, peers_digest=2**32 - 1, release="x" * RELEASE_MAX_BYTES)
    assert len(encode_info(info)) <= SLICE_MIN_BYTES


@pytest.mark.parametrize("info", [NodeInfo(genesis=b"short"), NodeInfo(release="x" * (RELEASE_MAX_BYTES + 1))])
def test_an_info_that_would_be_refused_is_a_bug(info):
    """No hello is sent that breaks a rule."""
    with pytest.raises(AssertionError):
        encode_info(info)


@pytest.mark.parametrize("size", [1, JOIN_BELOW_BYTES - 1, JOIN_BELOW_BYTES, 100_000])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("key", [None, KEY], ids=["open", "secret"])
def test_a_body_in_parts_is_one_body(size, count, key):
    """How a body is divided into parts makes no difference to the frame; large parts are not copied."""
    body = [bytes([at]) * size for at in range(count)]
    parts = encode_frame(DATA, body, key)
    assert b"".join(parts) == as_bytes(DATA, b"".join(body), key)
    if size >= JOIN_BELOW_BYTES:
        assert all(part is piece for part, piece in zip(parts[1:], body, strict=False))


@pytest.mark.parametrize("is_authenticated", [False, True])
@pytest.mark.parametrize("length", [1, NODE_ID_MAX_BYTES])
def test_a_slice_of_the_largest_size_fits(is_authenticated, length):
    """However large the numbers and names in a header, the frame is not larger than the carrier allows."""
    source = Member("ä" * (length // 2) or "a", "f" * 32)
    header = Header(
        kind=FrameKind.DATA,
        source=source,
        source_session=INTEGER_MAX,
        destination="z" * length,
        destination_session=INTEGER_MAX,
        sequence=INTEGER_MAX,
        fragment_number=FRAGMENTS_MAX - 1,
        fragment_count=FRAGMENTS_MAX,
    )
    room = slice_max(1_000_000, source, header.destination, is_authenticated=is_authenticated)
    assert 990_000 < room < 1_000_000
    assert len(as_bytes(header, bytes(room), KEY if is_authenticated else None)) <= 1_000_000


# ---- cutting

PARTS = [b"abc", memoryview(b"defg"), b"h", b"ijklmnop"]
WHOLE = b"abcdefghijklmnop"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 100])
def test_slices_are_full_but_the_last(limit):
    """A message is cut at every limit into full slices and a rest, as many as are announced."""
    slices = [b"".join(pieces) for pieces in cut(PARTS, limit)]
    assert slices == [WHOLE[at : at + limit] for at in range(0, len(WHOLE), limit)]
    assert len(slices) == -(-len(WHOLE) // limit)


def test_an_empty_part_at_the_end_makes_no_slice():
    """A chunk without data behind a head that fills a slice is not another slice."""
    assert [b"".join(pieces) for pieces in cut([b"abcd", b""], 4)] == [b"abcd"]


def test_whole_parts_are_not_copied():
    """A part that lies within a slice is passed on as it is."""
    part = b"x" * 1000
    (pieces,) = cut([b"head", part], 2000)
    assert any(piece is part for piece in pieces)


# ---- authentication


def test_a_frame_is_authenticated_as_documented():
    """The code is HMAC-SHA256 over everything before it."""
    data = as_bytes(DATA, b"body", KEY)
    assert data[:-MAC_BYTES] == as_bytes(DATA, b"body")
    assert data[-MAC_BYTES:] == hmac.digest(KEY, data[:-MAC_BYTES], hashlib.sha256)


@pytest.mark.parametrize(
    "data",
    [
        as_bytes(DATA, b"body", key_of(b"another secret", "orders")),
        as_bytes(DATA, b"body", key_of(b"secret", "payments")),
        as_bytes(DATA, b"body"),
        b"",
        b"x" * (MAC_BYTES - 1),
        b"x" * MAC_BYTES,
    ],
    ids=["other secret", "other cluster", "no code", "nothing", "shorter than a code", "only a code"],
)
def test_strangers_are_refused(data):
    """A node with a secret takes no frame that was not made with it, for its cluster."""
    with pytest.raises(WireError, match=f"frame of {len(data)} bytes is not authenticated; allowed: frames made with"):
        authenticate(data, KEY)


def test_every_byte_is_authenticated():
    """A frame with any bit flipped, or cut off, is refused."""
    data = bytearray(as_bytes(DATA, b"body", KEY))
    for at in range(len(data)):
        with pytest.raises(WireError, match="not authenticated"):
            authenticate(data[:at], KEY)
        for bit in range(8):
            data[at] ^= 1 << bit
            with pytest.raises(WireError, match="not authenticated"):
                authenticate(bytes(data), KEY)
            data[at] ^= 1 << bit


def test_a_node_without_secret_refuses_authenticated_frames():
    """A frame with a code is not taken by a node that cannot check it, and the text says why."""
    with pytest.raises(WireError, match=r"32 bytes behind its body of 4, an authentication code.* no cluster secret"):
        decode_frame(as_bytes(DATA, b"body", KEY))


# ---- malformed frames


def frame(body: bytes = b"body", **fields) -> bytes:
    """A frame with data, valid but for what `fields` change."""
    valid = {"version": 1, "kind": 2, "source_node_id": "n1", "source_incarnation": "1" * 32, "source_session": 17}
    valid |= {"destination_node_id": "n2", "destination_session": 23, "sequence": 5}
    valid |= {"fragment_number": 1, "fragment_count": 3, "body_size": len(body)}
    data = pb.FrameHeader(**(valid | fields)).SerializeToString()
    checksum = int(google_crc32c.extend(google_crc32c.value(data), body))
    data += pb.FrameHeader(checksum=checksum).SerializeToString()
    return struct.pack("<H", len(data)) + data + body


TOO_LARGE = 2**63
LONG = "x" * (NODE_ID_MAX_BYTES + 1)
MALFORMED = {
    "nothing": (b"", "frame of 0 bytes; allowed: at least 2"),
    "half a length": (b"\1", "frame of 1 bytes; allowed: at least 2"),
    "header beyond": (b"\5\0abcd", "frame of 6 bytes, whose header ends at 7; allowed: within the frame"),
    "no protobuf": (b"\3\0\xff\xff\xff", "header of 3 bytes cannot be decoded"),
    "no version": (frame(version=0), "format version 0 of a frame; allowed: 1"),
    "next version": (frame(version=2), "format version 2 of a frame; allowed: 1"),
    "no kind": (frame(kind=0), "kind 0 of a frame; allowed: 1, 2"),
    "later kind": (frame(kind=3), "kind 3 of a frame; allowed: 1, 2"),
    "no source": (frame(source_node_id=""), "node id of 0 bytes; allowed: 1 to 1024"),
    "long source": (frame(source_node_id=LONG), "node id of 1025 bytes; allowed: 1 to 1024"),
    "no incarnation": (frame(source_incarnation=""), "source_incarnation is empty; allowed: an incarnation"),
    "bad incarnation": (frame(source_incarnation="A" * 32), "incarnation 'A{32}'; allowed: 32 hexadecimal digits"),
    "no destination": (frame(destination_node_id=""), "node id of 0 bytes; allowed: 1 to 1024"),
    "long destination": (frame(destination_node_id=LONG), "node id of 1025 bytes; allowed: 1 to 1024"),
    "no session": (frame(source_session=0), f"source_session 0; allowed: 1 to {INTEGER_MAX}"),
    "session": (frame(source_session=TOO_LARGE), f"source_session {TOO_LARGE}; allowed: 1 to"),
    "other session": (frame(destination_session=TOO_LARGE), f"destination_session {TOO_LARGE}; allowed: 0 to"),
    "no sequence": (frame(sequence=0), "sequence 0; allowed: 1 to"),
    "sequence": (frame(sequence=TOO_LARGE), f"sequence {TOO_LARGE}; allowed: 1 to"),
    "no fragments": (frame(fragment_number=0, fragment_count=0), f"fragment_count 0; allowed: 1 to {FRAGMENTS_MAX}"),
    "fragments": (frame(fragment_count=FRAGMENTS_MAX + 1), f"fragment_count {FRAGMENTS_MAX + 1}; allowed: 1 to"),
    "fragment": (frame(fragment_number=3), "fragment_number 3; allowed: 0 to 2"),
    "cut hello": (frame(kind=1, fragment_number=0, fragment_count=2), "fragment_count 2; allowed: 1 to 1"),
    "empty data": (frame(b""), f"body_size 0; allowed: 1 to {MESSAGE_MAX_BYTES}"),
    "trailing": (frame() + b"x", "body of 5 bytes; allowed: 4, as the header says"),
    "missing": (frame()[:-1], "body of 3 bytes; allowed: 4, as the header says"),
    "huge body": (frame(body_size=2**64 - 1), f"body of 4 bytes; allowed: {2**64 - 1}"),
    "checksum": (frame()[:-1] + b"x", "checksum 0x[0-9a-f]{8}; allowed: 0x[0-9a-f]{8}, that of header and body"),
    "no checksum": (
        b"\4\0" + pb.FrameHeader(version=1, body_size=4).SerializeToString() + b"body",
        "checksum 0x00000000",
    ),
}


def test_the_malformed_cases_start_from_a_valid_one():
    """The builder of the cases below gives a frame that decodes."""
    assert decode_frame(frame()) == Frame(DATA, b"body")


@pytest.mark.parametrize(("data", "text"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused(data, text):
    """A frame that breaks a rule is refused with field, value and what is allowed."""
    for given_as in (data, memoryview(data)):
        with pytest.raises(WireError, match=text) as caught:
            decode_frame(given_as)
        assert "allowed: " in str(caught.value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\xff", "hello of 1 bytes cannot be decoded"),
        (pb.NodeInfo(genesis=b"x" * 15).SerializeToString(), "genesis of 15 bytes; allowed: 0 or 16"),
        (pb.NodeInfo(release="é" * 65).SerializeToString(), "release of 130 bytes; allowed: at most 128"),
        (b"\x22\1\xff", "cannot be decoded"),
    ],
    ids=["no protobuf", "genesis", "release", "release that is no text"],
)
def test_a_malformed_info_is_refused(body, text):
    """A hello that breaks a rule is refused with field, value and what is allowed."""
    with pytest.raises(WireError, match=text) as caught:
        decode_info(body)
    assert "allowed: " in str(caught.value)


@pytest.mark.parametrize("header", [DATA, HELLO], ids=["data", "hello"])
def test_no_prefix_is_a_frame(header):
    """A frame that was cut off anywhere is refused."""
    data = as_bytes(header, b"body of a frame")
    for end in range(len(data)):
        with pytest.raises(WireError):
            decode_frame(data[:end])


@pytest.mark.parametrize("header", [DATA, HELLO], ids=["data", "hello"])
def test_every_bit_counts(header):
    """Without a secret, too, a frame with a flipped bit is refused: a damaged session number could shut its node out."""
    data = bytearray(as_bytes(header, b"body of a frame"))
    for at in range(len(data)):
        for bit in range(8):
            data[at] ^= 1 << bit
            with pytest.raises(WireError):
                decode_frame(bytes(data))
            data[at] ^= 1 << bit


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_random_bytes_raise_nothing_else(data):
    """Random bytes, bare and as a header of matching length, raise WireError or are a frame or an info."""
    for decoder in (decode_frame, decode_info, lambda given_as: authenticate(given_as, KEY)):
        for candidate in (data, struct.pack("<H", len(data)) + data):
            try:
                decoder(candidate)
            except WireError:
                continue
