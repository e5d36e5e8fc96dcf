"""Reads what the store must know out of an encoded MsgProto, and marks it as redelivered without encoding it anew. Pure.

Canonical order of the fields: 1 sequence (varint), 2 subject, 3 reply, 4 data, 5 timestamp (varint). Fields with default
values are absent. 6 `redelivered` and 7 `redeliveryCount` come behind them, so appending keeps the order.
"""

from typing import Final

from store.errors import CorruptionError

SEQUENCE_TAG: Final = 0x08
BYTES_TAGS: Final = (0x12, 0x1A, 0x22)
TIMESTAMP_TAG: Final = 0x28
REDELIVERED_HEAD: Final = b"\x30\x01\x38"
"""Field 6 = true and the tag of field 7. Source: STAN protocol, MsgProto."""

VARINT_MAX_BITS: Final = 64


def seq(message: bytes) -> int:
    """The message's sequence; 0 when absent."""
    if not message or message[0] != SEQUENCE_TAG:
        return 0
    return _varint(message, 1)[0]


def timestamp_ns(message: bytes) -> int:
    """The message's timestamp, Unix nanoseconds; 0 when absent. Raises CorruptionError when `message` is no MsgProto."""
    position = 0
    end = len(message)
    if end and message[0] == SEQUENCE_TAG:
        position = _varint(message, 1)[1]
    for tag in BYTES_TAGS:
        if position < end and message[position] == tag:
            length, position = _varint(message, position + 1)
            position += length
    if position == end:
        return 0
    if position > end or message[position] != TIMESTAMP_TAG:
        raise CorruptionError(f"message of {end} bytes", "field 5 or its end", f"something else at byte {position}")
    value, _ = _varint(message, position + 1)
    return value - (1 << 64) if value >> 63 else value


def redelivered(message: bytes, count: int) -> bytes:
    """`message` with redelivered = true and redeliveryCount = `count` (B271, B272)."""
    assert 0 < count < 1 << 32
    if count < 0x80:
        return message + REDELIVERED_HEAD + count.to_bytes()
    suffix = bytearray(REDELIVERED_HEAD)
    while count > 0x7F:
        suffix.append(count & 0x7F | 0x80)
        count >>= 7
    suffix.append(count)
    return message + suffix


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Value of the varint at `position`, and the position behind it."""
    value = shift = 0
    end = len(data)
    while position < end and shift < VARINT_MAX_BITS:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << VARINT_MAX_BITS) - 1, position
        shift += 7
    raise CorruptionError(f"message of {end} bytes", "a number", f"none that ends before byte {position}")
