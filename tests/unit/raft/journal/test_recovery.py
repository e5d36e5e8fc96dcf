"""Covers raft/journal/recovery.py: what is read back, what is cut, and what is refused."""

from pathlib import Path

import pytest

from raft.errors import CorruptionError
from raft.journal.frame import FRAME_ALIGNMENT, decode_header, encode_frame, find_newer_header, frame_size
from raft.journal.record import State, encode_entry_header, encode_state, encode_trim, encode_truncate, encode_vote
from raft.journal.recovery import Recovery
from tests.unit.raft.journal.journals import SEED, append, command, open_small, recover, segments, write

SECTOR = FRAME_ALIGNMENT
FIRST = Path("0000000000000001.segment")


def contents(directory: Path) -> list[tuple[Path, bytes]]:
    return [(file, file.read_bytes()) for file in segments(directory)]


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def last_index(recovery: Recovery) -> int:
    return recovery.log.next_index - 1


@pytest.fixture
def five_frames(tmp_path):
    """One segment with the entries 1 to 5, a frame of one sector each."""
    journal = open_small(tmp_path / "j")
    append(journal, 1, 5)
    journal.files.close()
    ((file, data),) = contents(tmp_path / "j")
    assert file.name == FIRST.name
    assert len(data) == 5 * SECTOR
    return file, data


@pytest.fixture
def three_segments(tmp_path):
    """Entries 1 to 20 in three segments of eight frames at most."""
    journal = open_small(tmp_path / "j")
    append(journal, 1, 20)
    journal.files.close()
    found = contents(tmp_path / "j")
    assert [len(data) for _, data in found] == [8 * SECTOR, 8 * SECTOR, 4 * SECTOR]
    return found


@pytest.fixture
def reused(tmp_path):
    """The active segment, a file that was used before and holds frames of that use behind its end."""
    journal = open_small(tmp_path / "j")
    journal.log.setCurrentTerm(1, "n1")
    for index in range(1, 27):
        journal.log.trim(index - 4)
        append(journal, index, index)
    journal.files.close()
    found = contents(tmp_path / "j")
    file, data = found[-1]
    end = recover(found).segments[-1].end
    leftover = decode_header(data, end, SEED)
    assert leftover is not None, "the test needs an older frame behind the end"
    assert leftover.sequence < recover(found).sequence
    return found[:-1], file, data, end


class TestTornEnd:
    """A frame that was never synced is cut, whatever is left of it."""

    def test_whole_journal(self, five_frames):
        """Nothing torn: everything is there."""
        recovery = recover([five_frames])
        assert recovery.log.entries == [(command(index), index, 1) for index in range(1, 6)]
        assert (recovery.sequence, recovery.torn_bytes) == (5, 0)
        assert (recovery.segments[-1].last_frame, recovery.segments[-1].end) == (4 * SECTOR, 5 * SECTOR)

    @pytest.mark.parametrize("rest", ["missing", "zeros"])
    def test_last_frame_torn_at_every_byte(self, five_frames, rest):
        """The frame ends early or is followed by zeros: the four before it stay."""
        file, data = five_frames
        frame_end = len(data[4 * SECTOR :].rstrip(b"\0"))  # what follows are zeros that were written
        for size in range(frame_end):
            torn = data[: 4 * SECTOR + size]
            torn += bytes(SECTOR - size) if rest == "zeros" else b""
            recovery = recover([(file, torn)])
            assert last_index(recovery) == 4
            assert recovery.segments[-1].end == 4 * SECTOR

    def test_size_of_the_cut_is_reported(self, five_frames):
        """An operator is told how many bytes were unfinished."""
        file, data = five_frames
        assert recover([(file, data[: 4 * SECTOR + 100])]).torn_bytes == 100
        assert recover([(file, changed(data, 4 * SECTOR + 60, b"?"))]).torn_bytes == SECTOR
        assert recover([(file, data[: 4 * SECTOR])]).torn_bytes == 0

    def test_every_flipped_bit_of_the_last_frame_cuts_it(self, five_frames):
        """Nothing newer proves that the last frame was ever synced."""
        file, data = five_frames
        for bit in range(4 * SECTOR * 8, 5 * SECTOR * 8):
            damaged = changed(data, bit // 8, bytes([data[bit // 8] ^ 1 << bit % 8]))
            assert last_index(recover([(file, damaged)])) == 4

    def test_first_frame_torn(self, five_frames):
        """A journal that stopped in its first write is empty."""
        file, data = five_frames
        recovery = recover([(file, data[:40])])
        assert (recovery.log.entries, recovery.segments, recovery.sequence) == ([], [], 0)

    def test_torn_in_a_new_segment(self, three_segments):
        """The unfinished frame may be the first of its segment; the end is then in the one before."""
        (first, second, (file, data)) = three_segments
        recovery = recover([first, second, (file, changed(data[:SECTOR], 100, b"?"))])
        assert last_index(recovery) == 16
        assert (recovery.segments[-1].number, recovery.segments[-1].end) == (2, 8 * SECTOR)
        assert recovery.torn_bytes == SECTOR

    def test_rest_of_a_torn_frame_before_a_new_segment(self, tmp_path):
        """A torn frame may stay where it was when its successor did not fit behind it."""
        journal = open_small(tmp_path)
        append(journal, 1, 8)
        journal.files.close()
        (file,) = segments(tmp_path)
        file.write_bytes(changed(file.read_bytes(), 7 * SECTOR + 60, b"?"))
        journal = open_small(tmp_path)
        assert journal.torn_bytes == SECTOR
        append(journal, 8, 10, size=600)
        journal.files.close()
        assert [int(file.stem) for file in segments(tmp_path)] == [1, 2]
        assert last_index(recover(contents(tmp_path))) == 10

    def test_payload_that_looks_like_newer_frames(self, tmp_path):
        """What a client has published is never taken for a frame: it does not know the seed."""
        fake = b"".join(encode_frame([b""], sequence=900, previous=0, seed=SEED ^ 1).buffers)
        journal = open_small(tmp_path, segment_bytes=1 << 20)
        append(journal, 1, 3)
        journal.log.add(b"\0" + fake * 9, 4, 1)
        write(journal)
        journal.files.close()
        ((file, data),) = contents(tmp_path)
        aligned = data.rindex(fake[:4]) // SECTOR * SECTOR
        torn = changed(changed(data, aligned, fake), 3 * SECTOR + 50, b"?")
        assert last_index(recover([(file, torn)])) == 3


class TestDamage:
    """A newer frame behind a bad one proves that acked entries are missing: the journal is refused."""

    def test_every_flipped_bit_in_the_middle(self, five_frames):
        """Also in headers and padding; the error names file, place, and what should be there."""
        file, data = five_frames
        for bit in range(2 * SECTOR * 8, 3 * SECTOR * 8):
            damaged = changed(data, bit // 8, bytes([data[bit // 8] ^ 1 << bit % 8]))
            with pytest.raises(CorruptionError) as raised:
                recover([(file, damaged)])
            assert (raised.value.file, raised.value.offset) == (file, 2 * SECTOR)
            assert raised.value.expected == "frame 3"
            assert raised.value.found.endswith(f"and frame 4 at byte {3 * SECTOR}")

    @pytest.mark.parametrize(
        ("offset", "zeros", "damaged"),
        [
            (0, SECTOR, (0, 0)),
            (7 * SECTOR, SECTOR, (0, 7)),
            (2 * SECTOR, 6 * SECTOR, (0, 2)),
            (0, 8 * SECTOR, (0, 0)),
            (8 * SECTOR, SECTOR, (1, 0)),
            (8 * SECTOR, 8 * SECTOR, (0, 8)),
            (15 * SECTOR, SECTOR, (1, 7)),
            (12 * SECTOR, 4 * SECTOR, (1, 4)),
            (12 * SECTOR, 5 * SECTOR, (2, 0)),
            (16 * SECTOR, SECTOR, (2, 0)),
            (18 * SECTOR, SECTOR, (2, 2)),
        ],
    )
    def test_lost_sectors(self, three_segments, offset, zeros, damaged):
        """Wherever frames are lost before a newer one, in the same or a later segment, they are missed."""
        data = bytearray(b"".join(data for _, data in three_segments))
        data[offset : offset + zeros] = bytes(zeros)
        lost = [
            (file, bytes(data[at * 8 * SECTOR : (at + 1) * 8 * SECTOR])) for at, (file, _) in enumerate(three_segments)
        ]
        with pytest.raises(CorruptionError) as raised:
            recover(lost)
        segment, sector = damaged
        assert (raised.value.file, raised.value.offset) == (three_segments[segment][0], sector * SECTOR)

    def test_newer_frame_with_lost_content_is_proof_enough(self, five_frames):
        """Two damaged frames at the end are not a torn end: the second was begun after the first was synced."""
        file, data = five_frames
        damaged = changed(changed(data, 3 * SECTOR + 60, b"?"), 4 * SECTOR + 60, b"?")
        with pytest.raises(CorruptionError) as raised:
            recover([(file, damaged)])
        assert raised.value.offset == 3 * SECTOR

    def test_older_content_in_the_middle(self, three_segments):
        """A write that the disk has lost shows older bytes, themselves whole."""
        (file, data), *rest = three_segments
        with pytest.raises(CorruptionError) as raised:
            recover([(file, changed(data, 5 * SECTOR, data[2 * SECTOR : 3 * SECTOR])), *rest])
        assert raised.value.offset == 5 * SECTOR

    def test_exchanged_frame_is_noticed(self, five_frames):
        """Each frame names the one before it: the same sequence from another history does not fit."""
        file, data = five_frames
        record = encode_entry_header(b"\0other", 5, 1) + b"\0other"
        other = b"".join(encode_frame([record], sequence=5, previous=1, seed=SEED).buffers)
        with pytest.raises(CorruptionError, match="a frame behind checksum") as raised:
            recover([(file, changed(data, 4 * SECTOR, other))])
        assert raised.value.offset == 4 * SECTOR

    def test_segments_of_another_journal(self, five_frames):
        """The seed differs, so nothing there is a frame of this journal."""
        file, data = five_frames
        recovery = Recovery(SEED + 1)
        recovery.feed(1, file, data)
        assert recovery.segments == []
        with pytest.raises(CorruptionError):
            Recovery(SEED + 1).feed(7, file, data)


class TestReusedFile:
    """Frames of an earlier use have lower sequences and prove nothing."""

    def test_leftovers_are_not_read(self, reused):
        """Whole older frames behind the end are neither entries nor damage."""
        before, file, data, _ = reused
        recovery = recover([*before, (file, data)])
        assert last_index(recovery) == 26
        assert recovery.torn_bytes == 0
        assert recovery.log.entries[-1] == (command(26), 26, 1)

    def test_every_leftover_is_older(self, reused):
        """Sequences only grow, so no header on the disk is newer than the last frame written."""
        before, file, data, _ = reused
        last = recover([*before, (file, data)]).sequence
        for _, held in [*before, (file, data)]:
            assert find_newer_header(held, 0, last, SEED) is None

    def test_torn_over_leftovers(self, reused):
        """The last frame torn at every byte, with the older content showing behind the tear: it is cut."""
        before, file, data, end = reused
        last = end - SECTOR
        older = data[end : end + SECTOR]
        for size in range(SECTOR):
            recovery = recover([*before, (file, changed(data, last + size, older[size:]))])
            if data[last : last + size] + older[size:] != data[last:end]:
                assert last_index(recovery) == 25
                assert recovery.segments[-1].end == last

    def test_damage_before_leftovers(self, reused):
        """A damaged frame that is followed by a newer one, then by leftovers, is still refused."""
        before, file, data, end = reused
        with pytest.raises(CorruptionError) as raised:
            recover([*before, (file, changed(data, end - 2 * SECTOR + 60, b"?"))])
        assert (raised.value.file, raised.value.offset) == (file, end - 2 * SECTOR)


class TestMissingFront:
    """A journal whose older segments were trimmed away begins with the state they led to."""

    def test_oldest_segment_lost(self, three_segments):
        """Without a trim that covers it, a lost first segment is missed by its entries."""
        with pytest.raises(CorruptionError) as raised:
            recover(three_segments[1:])
        assert (raised.value.expected, raised.value.found) == ("entry 1", "entry 9")
        assert raised.value.file == three_segments[1][0]

    def test_trimmed_journal_needs_its_first_frame(self, reused):
        """The oldest segment kept always begins with a synced frame."""
        before, file, data, _ = reused
        assert int((before or [(file, data)])[0][0].stem) > 1
        head, head_data = before[0] if before else (file, data)
        with pytest.raises(CorruptionError, match="a whole frame") as raised:
            recover([(head, changed(head_data, 60, b"?")), *before[1:]])
        assert (raised.value.file, raised.value.offset) == (head, 0)

    def test_term_and_vote_outlive_their_segment(self, reused):
        """The vote was recorded in a file that is long gone."""
        before, file, data, _ = reused
        recovery = recover([*before, (file, data)])
        assert (recovery.log.term, recovery.log.voted_for) == (1, "n1")


def one_segment(*groups: list[bytes]) -> bytes:
    """A first segment with these groups, whole and in sequence."""
    data, previous = b"", 0
    for sequence, parts in enumerate(groups, 1):
        frame = encode_frame(parts, sequence=sequence, previous=previous, seed=SEED)
        data, previous = data + b"".join(frame.buffers), frame.checksum
    return data


def entry(index: int, term: int = 1) -> bytes:
    return encode_entry_header(b"\0", index, term) + b"\0"


HEAD = encode_state(State(0, None, 1, 1))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([[HEAD, entry(2)]], "entry 1"),
        ([[HEAD, entry(1), entry(1)]], "entry 2"),
        ([[HEAD, entry(1, term=2), entry(2, term=1)]], "an entry of term 2 or later"),
        ([[HEAD, encode_vote(3, None), encode_vote(2, "n1")]], "a vote in term 3 or later"),
        ([[HEAD, entry(1), encode_truncate(3)]], "a truncation above entry 1 and below 2"),
        ([[HEAD, entry(1), encode_truncate(1)]], "a truncation above entry 1 and below 2"),
        ([[HEAD, entry(1), encode_trim(2)]], "a trim at entry 1 or above and below 2"),
        ([[encode_state(State(0, None, 5, 4))]], "a first index up to the next one"),
        ([[entry(1)]], "a state record at the head of a segment, and only there"),
        ([[HEAD, HEAD]], "a state record at the head of a segment, and only there"),
        ([[HEAD], [HEAD]], "a state record at the head of a segment, and only there"),
    ],
)
def test_records_that_cannot_follow_are_refused(groups, expected):
    """A right checksum does not make a wrong log right."""
    with pytest.raises(CorruptionError) as raised:
        recover([(FIRST, one_segment(*groups))])
    assert raised.value.expected == expected
    assert raised.value.offset == sum(frame_size(sum(map(len, parts))) for parts in groups[:-1]) + 32


def test_state_of_a_segment_must_agree_with_those_before():
    """The state that opens a segment repeats what the records before have led to."""
    first = encode_frame([HEAD, entry(1)], sequence=1, previous=0, seed=SEED)
    wrong = encode_state(State(0, None, 1, 3))
    second = encode_frame([wrong, entry(3)], sequence=2, previous=first.checksum, seed=SEED)
    with pytest.raises(CorruptionError) as raised:
        recover([(FIRST, b"".join(first.buffers)), (Path("0000000000000002.segment"), b"".join(second.buffers))])
    assert raised.value.expected == str(State(0, None, 1, 2))
    assert raised.value.found == str(State(0, None, 1, 3))
