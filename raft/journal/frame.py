"""One frame per group of records that is synced together: its bytes, and how a reader tells whose it is. Pure.

    magic, with the format version | u64 sequence | u64 bytes of records | u32 checksum of the previous frame's header
    | u32 checksum of records and padding | u32 checksum of these fields | records | zeros up to a multiple of 512

Rules, from which recovery follows:
- Frame n + 1 is written only after frame n is synced. So a header with a higher sequence than n, anywhere, proves that
  frame n was whole; if it no longer is, the disk has damaged it.
- Sequences only grow over the life of a journal. So what is left in a reused file has a lower sequence than what
  belongs there now, and proves nothing.
- Header checksums start from a random value of this journal: bytes that a client chose, or another journal's file,
  never look like a frame here.
- Frames begin at multiples of 512 bytes: a disk that tears the sector it is writing leaves synced frames alone.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import google_crc32c

FRAME_MAGIC: Final = b"RJF\x01"
FRAME_ALIGNMENT: Final = 512
"""Frames begin at multiples of this, bytes: the smallest unit that disks write."""

_FIELDS: Final = struct.Struct("<4sQQII")
_CHECKSUM: Final = struct.Struct("<I")
HEADER_BYTES: Final = _FIELDS.size + _CHECKSUM.size

NO_PREVIOUS: Final = 0
"""Checksum of the previous frame, in the first frame of a journal."""

_JOIN_MAX_BYTES: Final = 8 * 1024
"""Parts up to this size are copied together, bytes: a copy is cheaper than one more buffer. Larger ones are not copied."""

_ZEROS: Final = bytes(FRAME_ALIGNMENT)


class Header(NamedTuple):
    """The header of a frame. `record_bytes` is without padding; `checksum` identifies the frame to the next one."""

    sequence: int
    record_bytes: int
    previous: int
    content_checksum: int
    checksum: int

    @property
    def frame_bytes(self) -> int:
        """Size of the whole frame."""
        return frame_size(self.record_bytes)


class EncodedFrame(NamedTuple):
    """A frame ready to be written: its bytes in order, their number, and what the next frame refers to."""

    buffers: list[bytes]
    size: int
    checksum: int


def journal_seed(incarnation: str) -> int:
    """Where the header checksums of the journal with this incarnation start."""
    return int(google_crc32c.value(incarnation.encode()))


def frame_size(record_bytes: int) -> int:
    """Bytes of a frame with `record_bytes` of records."""
    return -(-(HEADER_BYTES + record_bytes) // FRAME_ALIGNMENT) * FRAME_ALIGNMENT


def encode_frame(parts: Sequence[bytes], *, sequence: int, previous: int, seed: int) -> EncodedFrame:
    """The frame that holds `parts`, concatenated. Large parts are referred to, not copied."""
    chunks = _join_small(parts)
    record_bytes = sum(map(len, chunks))
    size = frame_size(record_bytes)
    chunks.append(_ZEROS[: size - HEADER_BYTES - record_bytes])
    content_checksum = 0
    for chunk in chunks:
        content_checksum = google_crc32c.extend(content_checksum, chunk)
    fields = _FIELDS.pack(FRAME_MAGIC, sequence, record_bytes, previous, content_checksum)
    checksum = int(google_crc32c.extend(seed, fields))
    return EncodedFrame([fields + _CHECKSUM.pack(checksum), *chunks], size, checksum)


def decode_header(data: bytes, at: int, seed: int) -> Header | None:
    """The header at `at`, or None when there is no whole one of this journal."""
    if len(data) - at < HEADER_BYTES:
        return None
    magic, sequence, record_bytes, previous, content_checksum = _FIELDS.unpack_from(data, at)
    (checksum,) = _CHECKSUM.unpack_from(data, at + _FIELDS.size)
    if magic != FRAME_MAGIC or google_crc32c.extend(seed, data[at : at + _FIELDS.size]) != checksum:
        return None
    return Header(sequence, record_bytes, previous, content_checksum, checksum)


def decode_content(data: bytes, at: int, header: Header) -> bytes | None:
    """Records and padding of the frame at `at`, or None when they are not what was written."""
    content = data[at + HEADER_BYTES : at + header.frame_bytes]
    if len(content) != header.frame_bytes - HEADER_BYTES or google_crc32c.value(content) != header.content_checksum:
        return None
    return content


def find_newer_header(data: bytes, at: int, sequence: int, seed: int) -> tuple[int, Header] | None:
    """The first header at or behind `at` with a higher sequence than `sequence`, and where it is."""
    while (at := data.find(FRAME_MAGIC, at)) >= 0:
        if at % FRAME_ALIGNMENT == 0:
            header = decode_header(data, at, seed)
            if header is not None and header.sequence > sequence:
                return at, header
        at += 1
    return None


def _join_small(parts: Sequence[bytes]) -> list[bytes]:
    chunks: list[bytes] = []
    small: list[bytes] = []
    for part in parts:
        if len(part) <= _JOIN_MAX_BYTES:
            small.append(part)
            continue
        if small:
            chunks.append(b"".join(small))
            small = []
        chunks.append(part)
    if small:
        chunks.append(b"".join(small))
    return chunks
