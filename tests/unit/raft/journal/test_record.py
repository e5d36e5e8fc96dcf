"""Covers raft/journal/record.py: each record as bytes and back, and what no release writes."""

from pathlib import Path

import pytest

from raft.constants import ENTRY_MAX_BYTES, NODE_ID_MAX_BYTES
from raft.errors import CorruptionError
from raft.journal.record import (
    Entry,
    Reset,
    State,
    Trim,
    Truncate,
    Vote,
    decode_records,
    encode_entry_header,
    encode_reset,
    encode_state,
    encode_trim,
    encode_truncate,
    encode_vote,
)

FILE = Path("some.segment")
BIG = 2**64 - 1

CASES = [
    (encode_entry_header(b"\0abc", 7, 3) + b"\0abc", Entry(7, 3, b"\0abc")),
    (encode_entry_header(b"", 1, 0), Entry(1, 0, b"")),
    (encode_entry_header(bytes(5_000_000), BIG, BIG) + bytes(5_000_000), Entry(BIG, BIG, bytes(5_000_000))),
    (encode_truncate(9), Truncate(9)),
    (encode_vote(4, None), Vote(4, None)),
    (encode_vote(4, ""), Vote(4, "")),
    (encode_vote(4, "näme"), Vote(4, "näme")),
    (encode_vote(4, "n" * NODE_ID_MAX_BYTES), Vote(4, "n" * NODE_ID_MAX_BYTES)),
    (encode_reset(100, 8, 7), Reset(100, 8, 7)),
    (encode_trim(50), Trim(50)),
    (encode_state(State(5, "n2", 40, 60)), State(5, "n2", 40, 60)),
    (encode_state(State(0, None, 1, 1)), State(0, None, 1, 1)),
]


def decode(data: bytes) -> list[object]:
    return list(decode_records(data, len(data), file=FILE, offset=1000))


@pytest.mark.parametrize(("encoded", "record"), CASES, ids=lambda value: type(value).__name__)
def test_record_is_read_back(encoded, record):
    """Every record kind survives encoding, alone and between others."""
    assert decode(encoded) == [record]
    assert decode(encode_trim(1) + encoded + encode_vote(1, "z")) == [Trim(1), record, Vote(1, "z")]


@pytest.mark.parametrize(("encoded", "record"), [case for case in CASES if len(case[0]) < 100])
def test_cut_record_is_refused_at_every_byte(encoded, record):
    """A record that ends early is damage, with the place of its beginning."""
    for size in range(1, len(encoded)):
        with pytest.raises(CorruptionError) as raised:
            decode(encoded[:size])
        assert (raised.value.file, raised.value.offset) == (FILE, 1000)


def test_only_the_first_bytes_are_read():
    """Padding behind the records is none of them."""
    encoded = encode_trim(3)
    assert list(decode_records(encoded + bytes(50), len(encoded), file=FILE, offset=0)) == [Trim(3)]


@pytest.mark.parametrize(
    "encoded",
    [
        b"\0" * 9,
        b"\x07" * 9,
        encode_entry_header(b"", 1, 1)[:-4] + (ENTRY_MAX_BYTES + 1).to_bytes(4, "little"),
        encode_vote(1, "ab")[:-2] + b"\xff\xfe",
    ],
    ids=["zero kind", "unknown kind", "too large", "not UTF-8"],
)
def test_what_no_release_writes_is_refused(encoded):
    """Unknown kinds, sizes above the bound and ids that are no text are damage."""
    with pytest.raises(CorruptionError) as raised:
        decode(encode_trim(1) + encoded)
    assert raised.value.offset == 1000 + len(encode_trim(1))
    assert raised.value.expected
    assert raised.value.found


def test_long_id_is_refused_before_it_is_written():
    """What could not be read back is not written."""
    with pytest.raises(ValueError, match="1025 bytes: allowed: at most 1024"):
        encode_vote(1, "n" * (NODE_ID_MAX_BYTES + 1))
