"""Covers raft/journal/writer.py: groups become durable one after the other, and the first failure is the last word."""

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

from raft.errors import SyncFailedError
from raft.journal.inline_rule import InlineRule
from raft.journal.log import Log
from raft.journal.writer import FileWriter, MemoryWriter
from tests.unit.raft.journal.journals import command, open_small, segments, state

DEADLINE_S = 60
CHILD = "tests.unit.raft.journal.append_child"


def run_child(directory: Path, count: int, *, file_max_bytes: int = 0) -> list[list[str]]:
    """What the appending process has said."""
    arguments = [sys.executable, "-m", CHILD, str(directory), str(count), str(file_max_bytes)]
    process = subprocess.run(arguments, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    return [line.split() for line in process.stdout.splitlines()]


async def written(writer, log) -> None:
    """Submit what the log has and wait until it is durable."""
    done = asyncio.get_running_loop().create_future()
    group = log.take()
    writer.submit(group, done.set_result, may_block=True)
    assert not done.done(), "completion never comes from inside submit"
    assert await asyncio.wait_for(done, DEADLINE_S) is group
    log.done(group)


@pytest.mark.asyncio
async def test_group_is_durable_when_done(tmp_path):
    """When `done` is called the group is in the file: a copy taken at that moment recovers it."""
    journal = open_small(tmp_path / "j")
    loop = asyncio.get_running_loop()
    writer = FileWriter(journal.files, post=loop.call_soon_threadsafe, post_here=loop.call_soon, on_failure=pytest.fail)
    for index in range(1, 12):
        journal.log.add(command(index), index, 1)
        await written(writer, journal.log)
        assert journal.log.durable_index == index
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (tmp_path / "j").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    copied = open_small(copy)
    assert state(copied) == state(journal)
    copied.files.close()
    writer.close()


@pytest.mark.asyncio
async def test_close_writes_what_was_submitted(tmp_path):
    """An orderly end loses nothing, and unlocks the directory."""
    journal = open_small(tmp_path)
    posted = []
    writer = FileWriter(
        journal.files,
        post=lambda call, argument: posted.append((call, argument)),
        post_here=pytest.fail,
        on_failure=pytest.fail,
    )
    groups = []
    for index in range(1, 21):
        journal.log.add(command(index), index, 1)
        groups.append(journal.log.take())
        writer.submit(groups[-1], print, may_block=True)
        journal.log.done(groups[-1])
    writer.close()
    assert posted == [(print, group) for group in groups]
    again = open_small(tmp_path)
    assert state(again) == state(journal)
    again.files.close()


@pytest.mark.asyncio
async def test_trimmed_files_are_taken_out(tmp_path):
    """A journal that is trimmed as it grows stays small."""
    journal = open_small(tmp_path)
    writer = FileWriter(
        journal.files,
        post=asyncio.get_running_loop().call_soon_threadsafe,
        post_here=asyncio.get_running_loop().call_soon,
        on_failure=pytest.fail,
    )
    for index in range(1, 41):
        journal.log.add(command(index), index, 1)
        journal.log.trim(index - 2)
        await written(writer, journal.log)
    writer.close()
    assert len(segments(tmp_path)) <= 2


@pytest.mark.asyncio
async def test_idle_writer_prepares_files(tmp_path):
    """While nothing comes, zeros are written ahead, and the next group is written all the same."""
    journal = open_small(tmp_path)
    loop = asyncio.get_running_loop()
    writer = FileWriter(journal.files, post=loop.call_soon_threadsafe, post_here=loop.call_soon, on_failure=pytest.fail)
    async with asyncio.timeout(DEADLINE_S):
        while journal.files.can_prepare:
            await asyncio.sleep(0)
    journal.log.add(command(1), 1, 1)
    await written(writer, journal.log)
    writer.close()
    assert (tmp_path / "1.spare").stat().st_size == 4096


@pytest.mark.asyncio
async def test_memory_writer_posts_done():
    """A journal in memory is done at once, but not from inside `submit`."""
    log = Log()
    log.add(b"\0", 1, 0)
    writer = MemoryWriter(asyncio.get_running_loop().call_soon)
    await written(writer, log)
    assert (log.durable_index, log.synced) == (1, 1)
    writer.close()


def test_failed_write_is_reported_once_and_ends_all_writing(tmp_path):
    """The error of the system is told; nothing is acked or written after it, and the next start finds what was acked."""
    said = run_child(tmp_path, 20, file_max_bytes=3 * 512 + 100)
    acked = [words for words in said if words[0] == "acked"]
    assert [int(words[1]) for words in acked] == [1, 2, 3]
    assert said[len(acked) :] == [["failed", "SyncFailedError", str(errno.EFBIG)], ["closed"]]
    journal = open_small(tmp_path)
    assert journal.log[-1][1] == 3
    assert journal.log.getCurrentTerm() == 0
    journal.files.close()


def test_full_disk_while_preparing_is_no_failure(tmp_path):
    """Zeros that do not fit are not needed: groups are written as long as they fit."""
    # A spare cannot be filled on a device that is always full; the active segment is another file.
    journal = open_small(tmp_path)
    journal.files.close()
    (tmp_path / "1.spare").symlink_to("/dev/full")
    journal = open_small(tmp_path)
    while journal.files.can_prepare:
        journal.files.prepare()
    journal.log.add(command(1), 1, 1)
    group = journal.log.take()
    assert group is not None
    journal.files.write(group)
    journal.files.close()
    (tmp_path / "1.spare").unlink()
    journal = open_small(tmp_path)
    assert journal.log[:] == [(command(1), 1, 1)]
    journal.files.close()


class AlwaysInline(InlineRule):
    """Whatever the disk is like."""

    def allows(self, group_bytes):
        return True


@pytest.mark.asyncio
async def test_caller_and_thread_write_one_journal(tmp_path):
    """Groups written by the caller and by the thread, in any mix and over rolls, are one journal."""
    journal = open_small(tmp_path)
    loop = asyncio.get_running_loop()
    rule = Alternating()
    writer = FileWriter(
        journal.files, post=loop.call_soon_threadsafe, post_here=loop.call_soon, on_failure=pytest.fail, rule=rule
    )
    for index in range(1, 200):
        journal.log.add(command(index), index, 1)
        await written(writer, journal.log)
        if index % 20 == 0:
            journal.log.trim(index - 5)
    writer.close()
    assert rule.asked > 50
    again = open_small(tmp_path)
    assert state(again) == state(journal)
    again.files.close()


@pytest.mark.asyncio
async def test_caller_that_may_not_block_does_not_write(tmp_path):
    """However fast the disk has been."""
    journal = open_small(tmp_path)
    done = asyncio.get_running_loop().create_future()
    writer = FileWriter(
        journal.files,
        post=asyncio.get_running_loop().call_soon_threadsafe,
        post_here=pytest.fail,
        on_failure=pytest.fail,
        rule=AlwaysInline(),
    )
    journal.log.add(command(1), 1, 1)
    writer.submit(journal.log.take(), done.set_result, may_block=False)
    await asyncio.wait_for(done, DEADLINE_S)
    writer.close()


class Alternating(InlineRule):
    """Every other group."""

    asked = 0

    def allows(self, group_bytes):
        self.asked += 1
        return self.asked % 2 == 0


@pytest.mark.asyncio
async def test_failure_of_the_caller_is_the_last_word_too(tmp_path):
    """A refused write by the caller is told once, and neither caller nor thread writes anything more."""
    journal = open_small(tmp_path)
    loop = asyncio.get_running_loop()
    failed = loop.create_future()
    rule = AlwaysInline()
    writer = FileWriter(
        journal.files, post=loop.call_soon_threadsafe, post_here=loop.call_soon, on_failure=failed.set_result, rule=rule
    )
    journal.log.add(command(1), 1, 1)
    await written(writer, journal.log)
    before = contents(tmp_path)
    os.close(journal.files._descriptor)  # the next write gets EBADF
    journal.log.add(command(2), 2, 1)
    writer.submit(journal.log.take(), pytest.fail, may_block=True)
    error = await asyncio.wait_for(failed, DEADLINE_S)
    assert isinstance(error, SyncFailedError)
    assert isinstance(error.__cause__, OSError)
    writer.submit(group_of(3), pytest.fail, may_block=True)
    journal.files._descriptor = os.open(os.devnull, os.O_RDONLY)
    writer.close()
    await asyncio.sleep(0)
    assert contents(tmp_path) == before


def contents(directory):
    """What was written to the segments, without the zeros that an idle thread writes ahead."""
    return {file.name: file.read_bytes().rstrip(b"\0") for file in segments(directory)}


class Scripted(InlineRule):
    """The thread writes the first groups, the caller all later ones."""

    def __init__(self, first):
        super().__init__()
        self.left = first

    def allows(self, group_bytes):
        self.left -= 1
        return self.left < 0


def reuse(descriptor, file):
    """What another part of the process may do once the journal has closed `descriptor`: open a file that gets its number."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    opened = os.open(file, os.O_RDWR | os.O_CREAT)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


def test_nothing_is_written_after_close(tmp_path):
    """A small group of the caller that comes after `close` goes nowhere, least of all into a file that got the descriptor."""
    journal = open_small(tmp_path / "j")
    told = []

    def post(*call):
        told.append(call)

    writer = FileWriter(journal.files, post=post, post_here=post, on_failure=print, rule=AlwaysInline())
    descriptor = journal.files._descriptor
    writer.close()
    reuse(descriptor, tmp_path / "other")
    writer.submit(group_of(1), print, may_block=True)
    os.close(descriptor)
    assert (tmp_path / "other").read_bytes() == b""
    assert told == []


def test_nothing_is_written_after_the_thread_has_ended(tmp_path):
    """Whatever ended the thread, such as a loop that takes no more calls: it is told, and the caller writes nothing more."""
    journal = open_small(tmp_path / "j")
    failures = SimpleQueue()

    def post(call, argument):
        if call == print:
            raise RuntimeError("the loop is closed")
        call(argument)

    writer = FileWriter(journal.files, post=post, post_here=post, on_failure=failures.put, rule=Scripted(first=1))
    descriptor = journal.files._descriptor
    journal.log.add(command(1), 1, 1)
    writer.submit(journal.log.take(), print, may_block=True)
    assert str(failures.get(timeout=DEADLINE_S)) == "the loop is closed"
    writer.close()
    reuse(descriptor, tmp_path / "other")
    writer.submit(group_of(2), print, may_block=True)
    os.close(descriptor)
    assert (tmp_path / "other").read_bytes() == b""
    assert failures.empty()


def group_of(index):
    log = Log([(command(index - 1), index - 1, 1)])
    log.add(command(index), index, 1)
    return log.take()
