"""Covers raft/journal/frame.py: frames as bytes, and which bytes are taken for a frame."""

import pytest

from raft.journal.frame import (
    FRAME_ALIGNMENT,
    FRAME_MAGIC,
    HEADER_BYTES,
    decode_content,
    decode_header,
    encode_frame,
    find_newer_header,
    frame_size,
    journal_seed,
)

SEED = journal_seed("a" * 32)
OTHER_SEED = journal_seed("b" * 32)


def frame(parts: list[bytes], sequence: int = 5, previous: int = 77, seed: int = SEED) -> bytes:
    return b"".join(encode_frame(parts, sequence=sequence, previous=previous, seed=seed).buffers)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"one"],
        [b"head", b"x" * 200_000],
        [b"y" * 200_000, b"tail"],
        [b"a", b"b" * 9000, b"c", b"d", b"e" * 9000],
        [b"p" * (FRAME_ALIGNMENT - HEADER_BYTES)],
        [b"p" * (FRAME_ALIGNMENT - HEADER_BYTES + 1)],
    ],
    ids=["empty", "one", "large last", "large first", "mixed", "exactly full", "one byte over"],
)
def test_frame_is_read_back(parts):
    """A frame holds its parts in order, at any aligned place, and fills whole sectors."""
    records = b"".join(parts)
    encoded = encode_frame(parts, sequence=5, previous=77, seed=SEED)
    data = bytes(FRAME_ALIGNMENT) + b"".join(encoded.buffers)
    header = decode_header(data, FRAME_ALIGNMENT, SEED)
    assert header is not None
    assert (header.sequence, header.record_bytes, header.previous) == (5, len(records), 77)
    assert header.checksum == encoded.checksum
    assert header.frame_bytes == encoded.size == frame_size(len(records)) == len(data) - FRAME_ALIGNMENT
    assert encoded.size % FRAME_ALIGNMENT == 0
    content = decode_content(data, FRAME_ALIGNMENT, header)
    assert content is not None
    assert content[: len(records)] == records
    assert not content[len(records) :].strip(b"\0")


def test_large_part_is_not_copied():
    """A command of many bytes goes to the disk from where it is; small ones are joined into few buffers."""
    large = b"x" * 100_000
    buffers = encode_frame([b"h", large, *[b"small"] * 5000], sequence=1, previous=0, seed=SEED).buffers
    assert any(buffer is large for buffer in buffers)
    assert len(buffers) == 5


def test_every_flipped_bit_is_noticed():
    """No bit of header, records or padding may change."""
    data = frame([b"some records"])
    for position in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        header = decode_header(bytes(damaged), 0, SEED)
        assert header is None or decode_content(bytes(damaged), 0, header) is None


def test_cut_frame_is_not_whole():
    """A frame that ends early is noticed at every byte."""
    data = frame([b"some records"])
    for size in range(len(data)):
        header = decode_header(data[:size], 0, SEED)
        assert (header is None) == (size < HEADER_BYTES)
        assert header is None or decode_content(data[:size], 0, header) is None


def test_frame_of_another_journal_is_no_frame():
    """The seed is the journal's own: files that were mixed up do not look whole."""
    assert decode_header(frame([b"x"], seed=OTHER_SEED), 0, SEED) is None


def test_newer_header_is_found_behind_rubbish():
    """Only a header at an aligned place, of this journal and of a higher sequence, is newer."""
    sector = FRAME_ALIGNMENT
    older, same, newer = frame([], sequence=4), frame([], sequence=5), frame([], sequence=6)
    foreign = frame([], sequence=9, seed=OTHER_SEED)
    misaligned = bytes(8) + frame([], sequence=9)[: sector - 8]
    rubbish = FRAME_MAGIC * (sector // len(FRAME_MAGIC))
    data = rubbish + older + same + foreign + misaligned + newer + same
    found = find_newer_header(data, 0, 5, SEED)
    assert found is not None
    assert (found[0], found[1].sequence) == (5 * sector, 6)
    assert find_newer_header(data, 5 * sector + 1, 5, SEED) is None
    assert find_newer_header(data, 0, 6, SEED) is None


def test_header_alone_proves_that_a_newer_frame_was_begun():
    """A newer frame counts although its own content is damaged: it was begun after the one before was synced."""
    data = frame([b"x" * 1000], sequence=6)[:FRAME_ALIGNMENT]
    found = find_newer_header(data, 0, 5, SEED)
    assert found is not None
    assert found[1].sequence == 6
