"""Covers raft/journal/files.py: segments begun, filled ahead, reused and refused."""

import os

import pytest

from raft.errors import CorruptionError, IdentityError, JournalInUseError
from raft.journal.files import open_journal
from tests.unit.raft.journal.journals import (
    INCARNATION,
    SEGMENT_BYTES,
    append,
    command,
    open_small,
    segments,
    state,
    write,
)


def names(directory, pattern="*"):
    return sorted(file.name for file in directory.glob(pattern))


def reopened(directory, **options):
    """The state found by another opening."""
    journal = open_small(directory, **options)
    found = state(journal)
    journal.files.close()
    return found


def test_new_journal(tmp_path):
    """A new directory holds an empty first segment and whose journal it is; opening it again finds the same."""
    journal = open_small(tmp_path / "deep" / "j")
    assert (journal.is_new, journal.identity.incarnation, journal.torn_bytes) == (True, INCARNATION, 0)
    assert state(journal) == ([], 0, None)
    journal.files.close()
    assert names(tmp_path / "deep" / "j") == ["0000000000000001.segment", "identity.json", "lock"]
    again = open_journal(tmp_path / "deep" / "j", cluster_id="c1", node_id="n1", new_incarnation="f" * 32)
    assert (again.is_new, again.identity.incarnation) == (False, INCARNATION)
    again.files.close()


def test_everything_is_found_again(tmp_path):
    """Entries, term and vote survive, over many openings and segments."""
    for first in range(1, 40, 10):
        journal = open_small(tmp_path)
        journal.log.setCurrentTerm(first, f"n{first}")
        append(journal, first, first + 9, term=first)
        before = state(journal)
        journal.files.close()
        assert reopened(tmp_path) == before
    assert len(before[0]) == 40
    assert len(segments(tmp_path)) == 5


def test_second_user_is_refused(tmp_path):
    """One process at a time; the lock goes with the close."""
    journal = open_small(tmp_path)
    with pytest.raises(JournalInUseError):
        open_small(tmp_path)
    journal.files.close()
    open_small(tmp_path).files.close()


def test_refused_opening_leaves_the_lock(tmp_path):
    """Whatever refuses a journal, the next attempt can be made at once."""
    open_small(tmp_path).files.close()
    for _ in range(2):
        with pytest.raises(IdentityError):
            open_small(tmp_path, node_id="n2")


def test_group_too_large_for_the_rest_begins_a_segment(tmp_path):
    """Frames are never split over files."""
    journal = open_small(tmp_path)
    append(journal, 1, 7)
    journal.log.add(command(8, size=600), 8, 1)
    write(journal)
    assert journal.files.position == (tmp_path / "0000000000000002.segment", 1024)
    journal.files.close()
    assert segments(tmp_path)[0].stat().st_size == 7 * 512


def test_group_larger_than_a_segment(tmp_path):
    """It gets a file of its own size, which is not reused."""
    journal = open_small(tmp_path)
    append(journal, 1, 2)
    append(journal, 3, 3, size=3 * SEGMENT_BYTES)
    append(journal, 4, 5)
    assert [file.stat().st_size for file in segments(tmp_path)] == [1024, 3 * SEGMENT_BYTES + 512, 1024]
    before = state(journal)
    journal.files.close()
    assert reopened(tmp_path) == before
    journal = open_small(tmp_path)
    append(journal, 6, 7)
    journal.log.trim(6)
    append(journal, 8, 8)
    assert names(tmp_path, "*.s[ep]*") == ["0000000000000003.segment", "1.spare"]
    assert (tmp_path / "1.spare").stat().st_size == 1024
    journal.files.close()


def test_group_of_more_buffers_than_one_call_takes(tmp_path):
    """Many large commands in one group are one frame, written in several calls."""
    journal = open_small(tmp_path, segment_bytes=1 << 26)
    for index in range(1, 1501):
        journal.log.add(command(index, size=8200), index, 1)
    write(journal)
    before = state(journal)
    journal.files.close()
    assert reopened(tmp_path) == before


def test_trimmed_segments_are_reused(tmp_path):
    """Files whose entries are all trimmed become the next segments; at most two wait, more are deleted."""
    journal = open_small(tmp_path)
    append(journal, 1, 40)
    inodes = {file.stat().st_ino for file in segments(tmp_path)}
    assert len(inodes) == 5
    journal.log.trim(37)
    append(journal, 41, 41)
    kept = ["0000000000000005.segment", "0000000000000006.segment", "1.spare", "2.spare"]
    assert names(tmp_path, "*.s[ep]*") == kept
    assert {file.stat().st_ino for file in tmp_path.glob("*.spare")} <= inodes
    for index in range(42, 100):
        journal.log.trim(index - 3)
        append(journal, index, index)
        assert len(names(tmp_path, "*.spare")) <= 2
        assert len(segments(tmp_path)) <= 2
    before = state(journal)
    journal.files.close()
    assert reopened(tmp_path) == before


def test_entry_still_needed_keeps_its_segment(tmp_path):
    """A segment goes only when its last entry is trimmed."""
    journal = open_small(tmp_path)
    append(journal, 1, 20)
    journal.log.trim(8)
    append(journal, 21, 21)
    assert len(segments(tmp_path)) == 3
    journal.log.trim(9)
    append(journal, 22, 22)
    assert len(segments(tmp_path)) == 2
    journal.files.close()
    assert reopened(tmp_path)[0][0] == (command(9), 9, 1)


def test_reset_frees_what_was_before(tmp_path):
    """After a snapshot no older file is needed, whatever indexes it holds."""
    journal = open_small(tmp_path)
    journal.log.setCurrentTerm(3, "n2")
    append(journal, 1, 30)
    journal.log.reset(20, 3, 2)
    write(journal)
    assert len(segments(tmp_path)) == 1
    append(journal, 21, 24, term=3)
    before = state(journal)
    journal.files.close()
    assert reopened(tmp_path) == before
    assert before[1:] == (3, "n2")


def test_reset_of_a_log_written_long_before(tmp_path):
    """Opening again knows what the reset made obsolete."""
    journal = open_small(tmp_path)
    append(journal, 1, 20)
    group_file = journal.files.position[0]
    journal.log.reset(15, 2, 1)
    group = journal.log.take()
    journal.files.write(group)  # the process ends before it recycles
    journal.files.close()
    assert group_file in segments(tmp_path)
    journal = open_small(tmp_path)
    journal.files.recycle()
    assert segments(tmp_path) == [group_file]
    assert [entry[1] for entry in journal.log[:]] == [14, 15]
    journal.files.close()


@pytest.mark.parametrize("is_synced", [True, False])
def test_operator_decides_whether_writes_wait_for_the_disk(tmp_path, monkeypatch, is_synced):
    """O418: by default every file that entries or zeros are written to returns from a write when it is stable."""
    opened, open_ = [], os.open

    def recorded(path, flags, *args, **options):
        is_written = flags & (os.O_WRONLY | os.O_RDWR) and not flags & os.O_CREAT  # an empty file has nothing to sync
        if str(path).endswith((".segment", ".spare")) and is_written:
            opened.append(bool(flags & os.O_DSYNC))
        return open_(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", recorded)
    journal = open_journal(
        tmp_path,
        cluster_id="c1",
        node_id="n1",
        new_incarnation=INCARNATION,
        segment_bytes=SEGMENT_BYTES,
        **({} if is_synced else {"is_synced": False}),
    )
    append(journal, 1, 3)
    while journal.files.can_prepare:
        journal.files.prepare()
    append(journal, 4, 20)
    before = state(journal)
    journal.files.close()
    assert len(opened) >= 4
    assert set(opened) == {is_synced}
    assert reopened(tmp_path) == before


class TestPreparation:
    """Zeros are written ahead: first in the active file, then in one spare."""

    def test_files_are_filled_in_steps(self, tmp_path):
        """Each step adds at most the step's size, until the active file and a spare are whole."""
        size = 2_500_000
        journal = open_small(tmp_path, segment_bytes=size)
        append(journal, 1, 1)
        active = segments(tmp_path)[0]
        sizes = []
        while journal.files.can_prepare:
            journal.files.prepare()
            spare = tmp_path / "1.spare"
            sizes.append((active.stat().st_size, spare.stat().st_size if spare.exists() else 0))
        step = 1 << 20
        assert sizes == [
            (512 + step, 0),
            (512 + 2 * step, 0),
            (size, 0),
            (size, step),
            (size, 2 * step),
            (size, size),
        ]
        append(journal, 2, 3)
        assert active.stat().st_size == size
        before = state(journal)
        journal.files.close()
        assert reopened(tmp_path, segment_bytes=size) == before

    def test_prepared_spare_becomes_the_next_segment(self, tmp_path):
        """A roll takes the spare as far as it was filled, and preparation goes on."""
        journal = open_small(tmp_path)
        while journal.files.can_prepare:
            journal.files.prepare()
        spare = (tmp_path / "1.spare").stat().st_ino
        append(journal, 1, 9)
        assert segments(tmp_path)[-1].stat().st_ino == spare
        assert segments(tmp_path)[-1].stat().st_size == SEGMENT_BYTES
        assert names(tmp_path, "*.spare") == []
        assert journal.files.can_prepare
        before = state(journal)
        journal.files.close()
        assert reopened(tmp_path) == before


class TestOpening:
    """What an interrupted process has left, and what nothing of ours leaves."""

    def test_interrupted_creation_is_finished(self, tmp_path):
        """A directory with a lock and an empty first segment holds no journal yet."""
        tmp_path.joinpath("0000000000000001.segment").touch()
        tmp_path.joinpath("identity.tmp").write_bytes(b"half")
        journal = open_small(tmp_path)
        assert journal.is_new
        journal.files.close()

    @pytest.mark.parametrize("left", ["segment", "spare"])
    def test_lost_identity_is_refused(self, tmp_path, left):
        """Segments without an identity are somebody's journal."""
        journal = open_small(tmp_path)
        append(journal, 1, 1)
        journal.files.close()
        (tmp_path / "identity.json").unlink()
        if left == "spare":
            segments(tmp_path)[0].rename(tmp_path / "1.spare")
        with pytest.raises(CorruptionError, match="the identity of the segments") as raised:
            open_small(tmp_path)
        assert raised.value.file == tmp_path / "identity.json"

    def test_lost_segments_are_refused(self, tmp_path):
        """An identity without segments is a journal that was lost: it may have voted."""
        open_small(tmp_path).files.close()
        segments(tmp_path)[0].unlink()
        with pytest.raises(CorruptionError) as raised:
            open_small(tmp_path)
        assert raised.value.file == tmp_path / "0000000000000001.segment"

    def test_missing_segment_in_the_middle_is_named(self, tmp_path):
        """The error says which file is gone."""
        journal = open_small(tmp_path)
        append(journal, 1, 20)
        journal.files.close()
        segments(tmp_path)[1].unlink()
        with pytest.raises(CorruptionError) as raised:
            open_small(tmp_path)
        assert raised.value.file == tmp_path / "0000000000000002.segment"
        assert raised.value.found == "no file, but segment 3"

    def test_segment_that_was_begun_and_not_written(self, tmp_path):
        """A roll that was interrupted before its frame leaves an older file under the new number."""
        journal = open_small(tmp_path)
        append(journal, 1, 3)
        journal.files.close()
        (first,) = segments(tmp_path)
        for number in (2, 3):
            (tmp_path / f"{number:016d}.segment").write_bytes(first.read_bytes()[: 2 * 512])
        journal = open_small(tmp_path)
        assert segments(tmp_path) == [first]
        assert names(tmp_path, "*.spare") == ["1.spare", "2.spare"]
        append(journal, 4, 12)
        before = state(journal)
        journal.files.close()
        assert reopened(tmp_path) == before

    def test_writing_goes_on_over_a_torn_end(self, tmp_path):
        """The unfinished frame's place is used again; the rest of it disturbs nobody."""
        journal = open_small(tmp_path)
        append(journal, 1, 2)
        append(journal, 3, 3, size=1500)
        journal.files.close()
        (file,) = segments(tmp_path)
        data = file.read_bytes()
        file.write_bytes(data[: 2 * 512 + 600] + b"?" + data[2 * 512 + 601 :])
        journal = open_small(tmp_path)
        assert journal.torn_bytes == 4 * 512
        append(journal, 3, 4, term=2)
        before = state(journal)
        journal.files.close()
        assert reopened(tmp_path) == before
        assert [entry[1:] for entry in before[0]] == [(1, 1), (2, 1), (3, 2), (4, 2)]

    def test_surplus_spares_are_deleted(self, tmp_path):
        """Only two files wait for reuse."""
        open_small(tmp_path).files.close()
        for number in range(1, 6):
            (tmp_path / f"{number}.spare").write_bytes(bytes(100))
        open_small(tmp_path).files.close()
        assert names(tmp_path, "*.spare") == ["1.spare", "2.spare"]

    def test_small_segments_are_refused(self, tmp_path):
        """A segment must hold a few frames."""
        with pytest.raises(ValueError, match="segment_bytes=4095: allowed: at least 4096"):
            open_small(tmp_path, segment_bytes=4095)

    def test_files_are_private(self, tmp_path):
        """Messages are nobody else's business."""
        journal = open_small(tmp_path / "j")
        append(journal, 1, 9)
        journal.files.close()
        private = [tmp_path / "j", *segments(tmp_path / "j")]
        assert [file.stat().st_mode & 0o077 for file in private] == [0, 0, 0]
