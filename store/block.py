"""The block: a run of messages of one channel in one value, with their lengths and a checksum. Pure.

`u32 count | u32 crc32c of all that follows | count x u32 length | messages`, little-endian.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

import google_crc32c

from store.errors import CorruptionError

HEADER: Final = struct.Struct("<II")
LENGTH_BYTES: Final = 4
LENGTH_CODE: Final = "I"
_IS_LITTLE_ENDIAN: Final = sys.byteorder == "little"
assert array(LENGTH_CODE).itemsize == LENGTH_BYTES


def encode(messages: Sequence[bytes]) -> bytes:
    """The block of `messages`, at least one."""
    assert messages
    lengths = array(LENGTH_CODE, map(len, messages))
    if not _IS_LITTLE_ENDIAN:
        lengths.byteswap()
    return _join(len(messages), lengths.tobytes(), b"".join(messages))


def split(block: bytes | memoryview) -> list[bytes]:
    """The messages of `block`, which was verified."""
    data = bytes(block)  # no copy of bytes
    ends = list(accumulate(lengths(data), initial=_messages_at(count(data))))
    return [data[begin:end] for begin, end in pairwise(ends)]


def count(block: bytes | memoryview) -> int:
    """Number of messages."""
    return int.from_bytes(block[:LENGTH_BYTES], "little")


def lengths(block: bytes | memoryview) -> Sequence[int]:
    """Length of each message, bytes."""
    table = memoryview(block)[HEADER.size : _messages_at(count(block))]
    if _IS_LITTLE_ENDIAN:
        return table.cast(LENGTH_CODE)
    swapped = array(LENGTH_CODE, table.tobytes())
    swapped.byteswap()
    return swapped


def message_bytes(block: bytes | memoryview) -> int:
    """Bytes of all messages together, without header and lengths."""
    return len(block) - _messages_at(count(block))


def encoded_bytes(message_count: int, messages_size: int) -> int:
    """Size of a block of `message_count` messages of `messages_size` bytes together."""
    return _messages_at(message_count) + messages_size


def merge(blocks: Iterable[bytes | memoryview]) -> bytes:
    """One block with the messages of all `blocks`, which were verified, in their order."""
    total = 0
    tables: list[memoryview] = []
    messages: list[memoryview] = []
    for block in blocks:
        number = count(block)
        total += number
        view = memoryview(block)
        tables.append(view[HEADER.size : _messages_at(number)])
        messages.append(view[_messages_at(number) :])
    return _join(total, b"".join(tables), b"".join(messages))


def verify(block: bytes | memoryview) -> None:
    """Check size, lengths and checksum; raises CorruptionError."""
    size = len(block)
    if size < HEADER.size:
        raise CorruptionError("block", f"at least {HEADER.size} bytes", f"{size}")
    number, checksum = HEADER.unpack_from(block)
    found = google_crc32c.value(bytes(memoryview(block)[HEADER.size :]))  # it takes nothing but bytes
    if found != checksum:
        raise CorruptionError("block", f"checksum {checksum:08x}", f"{found:08x}")
    if not number or size < _messages_at(number):
        raise CorruptionError("block", f"lengths of {number} messages, at least 1", f"{size} bytes")
    expected = _messages_at(number) + sum(lengths(block))
    if expected != size:
        raise CorruptionError("block", f"{expected} bytes", f"{size}")


def _messages_at(number: int) -> int:
    """Where the messages begin."""
    return HEADER.size + LENGTH_BYTES * number


def _join(number: int, table: bytes, messages: bytes) -> bytes:
    checksum = google_crc32c.extend(google_crc32c.value(table), messages)
    return b"".join((HEADER.pack(number, checksum), table, messages))
