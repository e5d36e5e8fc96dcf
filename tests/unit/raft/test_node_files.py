"""Covers raft/node.py: one member with a journal on disk, restarted with stores older than it."""

import asyncio
import errno
import os

import pytest

from raft.errors import SyncFailedError
from raft.journal.files import open_journal
from raft.journal.writer import FileWriter
from raft.membership import Configuration
from raft.node import NodeEvents, RaftNode
from raft.proposals import Unknown
from tests.unit.raft.cores import GENESIS, Store, member


class FileMember:
    """A member on an asyncio loop with its journal in files."""

    def __init__(self, directory, store):
        loop = asyncio.get_running_loop()
        self.store = store
        self.leading, self.fatal = asyncio.Event(), loop.create_future()
        journal = open_journal(directory, cluster_id="c", node_id="a", new_incarnation="0" * 32)
        self.writer = FileWriter(
            journal.files, post=loop.call_soon_threadsafe, post_here=loop.call_soon, on_failure=self.fail
        )
        self.node = RaftNode(
            member=member("a"),
            log=journal.log,
            writer=self.writer,
            state_machine=store,
            events=NodeEvents(
                leading=lambda term: self.leading.set(), lost=self.leading.clear, fatal=self.fatal.set_result
            ),
        )
        if self.node.is_new:
            self.node.form(Configuration.of(GENESIS, [member("a")]))

    def fail(self, error):
        self.node.fail(error)

    async def __aenter__(self):
        self.node.start()
        await asyncio.wait_for(self.leading.wait(), 10)
        return self

    async def __aexit__(self, *_):
        await asyncio.wait_for(self.node.close(), 10)
        await asyncio.to_thread(self.writer.close)


@pytest.mark.parametrize("kept", [0, 2, 3, 9, 23])
def test_restart_from_files_replays_what_the_store_lacks(tmp_path, kept):
    """What was acked is in the journal's files: with an older store, even none, it is all applied again, in order."""
    data = [b"%d" % number for number in range(20)]

    async def scenario():
        async with FileMember(tmp_path, Store()) as first:
            for value in data:
                first.node.propose([value], lambda outcome: None)
        assert [value for _, value in first.store.applied] == data
        term = first.node.term if kept > 2 else 0
        async with FileMember(tmp_path, first.store.restored(kept, term)) as second:
            assert [value for _, value in second.store.applied] == data
            assert second.node.term == first.node.term + 1
            done = asyncio.Event()
            assert second.node.propose([b"next"], lambda outcome: done.set()) == 25
            await asyncio.wait_for(done.wait(), 10)
        assert second.store.applied[-1] == (25, b"next")

    asyncio.run(scenario())


def test_failed_file_write_is_fatal(tmp_path, monkeypatch):
    """The disk's refusal reaches `fatal`, and the proposal that waited for it is of unknown outcome."""

    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def scenario():
        async with FileMember(tmp_path, Store()) as member:
            told = []
            monkeypatch.setattr(os, "pwritev", refuse)
            member.node.propose([b"x"], told.append)
            error = await asyncio.wait_for(member.fatal, 10)
            assert isinstance(error, SyncFailedError)
            assert told == [Unknown()]
            assert not member.leading.is_set()

    asyncio.run(scenario())
