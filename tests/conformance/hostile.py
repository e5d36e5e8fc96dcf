"""Makes payloads that no honest client sends: cut, flipped, random and ill-typed protobuf. Pure and seeded."""

import random
from collections.abc import Iterator

RANDOM_COUNT = 40
FLIP_COUNT = 60
LONG_BYTES = 300_000

ILL_FORMED = (
    b"dummy",
    b"\xff" * 10,  # a varint without end
    b"\x08" + b"\xff" * 10 + b"\x01",  # eleven bytes of varint
    b"\x0a\xff\xff\xff\xff\x07",  # a length of 2 GiB
    b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 2**64 - 1
    b"\x0a\x02\xff\xfe",  # a string that is not UTF-8
    b"\x0a\x03\xed\xa0\x80",  # a surrogate
    b"\x12\x01\xc0",  # half a character in field 2
    b"\x00\x00",  # field number 0
    b"\x0b" * 2000,  # groups without end, deeper than any decoder follows
    b"\x0b" * 50 + b"\x0c" * 50,  # groups in groups, closed
    b"\x0c",  # the end of a group that did not begin
    b"\x0e\x01",  # wire type 6
    b"\x0f",  # wire type 7
    b"\x09\x01",  # half a fixed64
)
"""Not decodable, or decodable as nothing but unknown fields."""

ILL_TYPED = (
    b"\x08\x01",  # field 1 as varint
    b"\x09\x01\x02\x03\x04\x05\x06\x07\x08",  # field 1 as fixed64
    b"\x0d\x01\x02\x03\x04",  # field 1 as fixed32
    b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # field 2 as the smallest int64
    b"\x2a\x05hello",  # field 5 as bytes
    b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # field 5 as -1
    b"\xf8\xff\xff\xff\x0f\x01",  # the largest field number
)
"""Known fields with the wrong wire type, and unknown fields (B29)."""


def payloads(valid: bytes, seed: int) -> Iterator[bytes]:
    """Spoilt variants of one valid message; the same seed gives the same ones."""
    chance = random.Random(seed)
    for size in range(len(valid)):
        yield valid[:size]
    yield from ILL_FORMED
    yield from ILL_TYPED
    for piece in ILL_FORMED + ILL_TYPED:
        yield valid + piece
    for _ in range(RANDOM_COUNT):
        yield chance.randbytes(chance.randrange(1, 80))
    for _ in range(FLIP_COUNT):
        spoilt = bytearray(valid)
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        yield bytes(spoilt)
    yield b"\x00" * LONG_BYTES
    yield chance.randbytes(LONG_BYTES)
    yield b"\x0a\xe0\xa7\x12" + b"a" * LONG_BYTES  # field 1 with 300,000 letters
