"""One frame, which is the payload of one message of the carrier, to bytes and back. Pure.

`u16 little-endian length of the header | header | body | 32 bytes of HMAC-SHA256 if the cluster has a secret`. The header is
protobuf (wire.proto) and ends with a checksum of itself and the body. The code covers everything before it; its key is made of the secret and the cluster's id, so that
frames of another cluster with the same secret are strangers' too. The body is a slice of a message, or a `NodeInfo`.
"""

import hashlib
import hmac
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

import google_crc32c
from google.protobuf.message import DecodeError

from raft import wire_pb2 as pb
from raft.errors import WireError
from raft.membership import GENESIS_BYTES, Member, check_member
from raft.wire import MESSAGE_MAX_BYTES, check_integer

FRAME_FORMAT_VERSION: Final = 1
"""Format of a frame. Any other is refused."""

MAC_BYTES: Final = 32
"""Length of the authentication code."""

SLICE_MIN_BYTES: Final = 256
"""A carrier that leaves less room for a body than this, bytes, cannot be used: a hello must fit in one frame."""

FRAGMENTS_MAX: Final = -(-MESSAGE_MAX_BYTES // SLICE_MIN_BYTES)
"""Most slices of one message."""

RELEASE_MAX_BYTES: Final = 128
"""Longest release text of a node, bytes of UTF-8."""

HEADER_FIXED_BYTES: Final = 128
"""Bound on an encoded header without the texts in it, bytes: nine integers of at most 11, a checksum, three lengths."""

JOIN_BELOW_BYTES: Final = 16 * 1024
"""Parts that are smaller than this on average are joined: that costs less than to check each one."""

NAMES_KEPT: Final = 256
"""Names in headers that were checked and need not be again."""

_GENESIS_SIZES: Final = (0, GENESIS_BYTES)
_LENGTH: Final = struct.Struct("<H")
_CHECKSUM: Final = struct.Struct("<BI")
_CHECKSUM_TAG: Final = pb.FrameHeader.CHECKSUM_FIELD_NUMBER << 3 | 5
"""Protobuf's tag of a fixed32 field. Appending a field to an encoded message is setting it."""
_KEY_LABEL: Final = b"streaming.raft frame 1\x00"


class FrameKind(IntEnum):
    """What a frame's body is: who the source is, or a slice of a message."""

    HELLO = 1
    DATA = 2


_KINDS: Final = frozenset(FrameKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Who sent a frame to whom, and its place in the stream.

    `destination_session` is the one of the destination that the source hears, 0 if it hears none. `sequence` counts the
    frames of the source's session to this destination, from 1; `fragment_number` those of one message, from 0.
    """

    kind: FrameKind
    source: Member
    source_session: int
    destination: str
    destination_session: int
    sequence: int
    fragment_number: int = 0
    fragment_count: int = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame."""

    header: Header
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """What a node says about itself.

    `genesis` is empty while it knows of no cluster, `is_fresh` as long as it was never part of one; `peers_digest` sums up
    the initial peers it was started with (`raft.membership.digest_of_peers`), 0 without.
    """

    genesis: bytes = b""
    is_fresh: bool = False
    peers_digest: int = 0
    release: str = ""


def key_of(secret: bytes, cluster_id: str) -> bytes:
    """The key of a cluster's authentication codes."""
    assert secret
    return hmac.digest(secret, _KEY_LABEL + cluster_id.encode(), hashlib.sha256)


def slice_max(max_bytes: int, source: Member, destination: str, *, is_authenticated: bool) -> int:
    """The largest body, bytes, whose frame has at most `max_bytes`; below `SLICE_MIN_BYTES` the carrier cannot be used."""
    texts = len(source.node_id.encode()) + len(source.incarnation) + len(destination.encode())
    return max_bytes - _LENGTH.size - HEADER_FIXED_BYTES - texts - (MAC_BYTES if is_authenticated else 0)


def cut(parts: Sequence[bytes | memoryview], limit: int) -> Iterator[list[bytes]]:
    """The concatenation of `parts` in slices of `limit` bytes, the last one shorter; whole `bytes` are not copied."""
    pieces: list[bytes] = []
    room = limit
    for part in parts:
        start = 0
        while len(part) - start > room:
            pieces.append(bytes(part[start : start + room]))
            yield pieces
            start += room
            pieces, room = [], limit
        pieces.append(bytes(part[start:]))
        room -= len(part) - start
    yield pieces


def encode_frame(header: Header, body: Sequence[bytes], key: bytes | None) -> list[bytes]:
    """The frame as parts to be written one after the other, with an authentication code if there is a key."""
    body_size = sum(map(len, body))
    if body_size < JOIN_BELOW_BYTES * len(body):
        body = [b"".join(body)]
    encoded = pb.FrameHeader(
        version=FRAME_FORMAT_VERSION,
        kind=header.kind,
        source_node_id=header.source.node_id,
        source_incarnation=header.source.incarnation,
        source_session=header.source_session,
        destination_node_id=header.destination,
        destination_session=header.destination_session,
        sequence=header.sequence,
        fragment_number=header.fragment_number,
        fragment_count=header.fragment_count,
        body_size=body_size,
    ).SerializeToString()
    checksum = google_crc32c.value(encoded)
    for piece in body:
        checksum = google_crc32c.extend(checksum, piece)
    parts = [_LENGTH.pack(len(encoded) + _CHECKSUM.size) + encoded + _CHECKSUM.pack(_CHECKSUM_TAG, checksum), *body]
    if key is not None:
        code = hmac.new(key, digestmod=hashlib.sha256)
        for part in parts:
            code.update(part)
        parts.append(code.digest())
    return parts


def authenticate(data: bytes | memoryview, key: bytes) -> memoryview:
    """The frame without its authentication code. Raises WireError unless somebody with the same key made it."""
    view = memoryview(data)
    content, code = view[:-MAC_BYTES], view[-MAC_BYTES:]
    if not hmac.compare_digest(hmac.new(key, content, hashlib.sha256).digest(), code):
        raise WireError(
            f"frame of {len(data)} bytes is not authenticated; allowed: frames made with this node's secret and cluster id"
        )
    return content


def decode_frame(content: bytes | memoryview) -> Frame:
    """The frame that `encode_frame` wrote, without authentication code.

    Raises WireError naming the field, its value and what is allowed.
    """
    if len(content) < _LENGTH.size:
        raise WireError(f"frame of {len(content)} bytes; allowed: at least {_LENGTH.size}")
    end = _LENGTH.size + _LENGTH.unpack_from(content)[0]
    if end > len(content):
        raise WireError(f"frame of {len(content)} bytes, whose header ends at {end}; allowed: within the frame")
    header = bytes(content[_LENGTH.size : end])
    try:
        encoded = pb.FrameHeader.FromString(header)
    except DecodeError as error:
        raise WireError(
            f"header of {end - _LENGTH.size} bytes cannot be decoded: {error}; allowed: protobuf"
        ) from error
    if encoded.version != FRAME_FORMAT_VERSION:
        raise WireError(f"format version {encoded.version} of a frame; allowed: {FRAME_FORMAT_VERSION}")
    body_size = len(content) - end
    if body_size == encoded.body_size + MAC_BYTES:
        raise WireError(
            f"frame carries {MAC_BYTES} bytes behind its body of {encoded.body_size}, an authentication code; allowed: none,"
            " as this node has no cluster secret"
        )
    if body_size != encoded.body_size:
        raise WireError(f"body of {body_size} bytes; allowed: {encoded.body_size}, as the header says")
    body = bytes(content[end:])
    checksum = int(google_crc32c.extend(google_crc32c.value(header[: -_CHECKSUM.size]), body))
    if checksum != encoded.checksum:
        raise WireError(f"checksum {encoded.checksum:#010x}; allowed: {checksum:#010x}, that of header and body")
    return Frame(_checked(encoded), body)


def _checked(encoded: pb.FrameHeader) -> Header:
    """The header, if every field has an allowed value."""
    if encoded.kind not in _KINDS:
        raise WireError(f"kind {encoded.kind} of a frame; allowed: {', '.join(f'{kind:d}' for kind in FrameKind)}")
    kind = FrameKind(encoded.kind)
    source = _checked_source(encoded.source_node_id, encoded.source_incarnation)
    _checked_destination(encoded.destination_node_id)
    count = check_integer("fragment_count", encoded.fragment_count, 1, FRAGMENTS_MAX if kind is FrameKind.DATA else 1)
    check_integer("body_size", encoded.body_size, 1 if kind is FrameKind.DATA else 0, MESSAGE_MAX_BYTES)
    return Header(
        kind=kind,
        source=source,
        source_session=check_integer("source_session", encoded.source_session, 1),
        destination=encoded.destination_node_id,
        destination_session=check_integer("destination_session", encoded.destination_session),
        sequence=check_integer("sequence", encoded.sequence, 1),
        fragment_number=check_integer("fragment_number", encoded.fragment_number, 0, count - 1),
        fragment_count=count,
    )


@lru_cache(maxsize=NAMES_KEPT)
def _checked_source(node_id: str, incarnation: str) -> Member:
    source = Member(node_id, incarnation)
    check_member(source)
    if not incarnation:
        raise WireError("source_incarnation is empty; allowed: an incarnation")
    return source


@lru_cache(maxsize=NAMES_KEPT)
def _checked_destination(node_id: str) -> None:
    check_member(Member(node_id, ""))


def encode_info(info: NodeInfo) -> bytes:
    """The body of a hello."""
    assert len(info.genesis) in _GENESIS_SIZES
    assert len(info.release.encode()) <= RELEASE_MAX_BYTES
    return pb.NodeInfo(
        genesis=info.genesis, is_fresh=info.is_fresh, peers_digest=info.peers_digest, release=info.release
    ).SerializeToString()


def decode_info(body: bytes) -> NodeInfo:
    """What `encode_info` wrote. Raises WireError naming the field, its value and what is allowed."""
    try:
        encoded = pb.NodeInfo.FromString(body)
    except DecodeError as error:
        raise WireError(f"hello of {len(body)} bytes cannot be decoded: {error}; allowed: protobuf") from error
    if len(encoded.genesis) not in _GENESIS_SIZES:
        raise WireError(f"genesis of {len(encoded.genesis)} bytes; allowed: 0 or {GENESIS_BYTES}")
    release_bytes = len(encoded.release.encode())
    if release_bytes > RELEASE_MAX_BYTES:
        raise WireError(f"release of {release_bytes} bytes; allowed: at most {RELEASE_MAX_BYTES}")
    return NodeInfo(
        genesis=encoded.genesis,
        is_fresh=encoded.is_fresh,
        peers_digest=encoded.peers_digest,
        release=encoded.release,
    )
