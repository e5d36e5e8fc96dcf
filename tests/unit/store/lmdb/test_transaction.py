"""What a transaction leaves in the environment: merged blocks, no dead ones, nothing of deleted channels."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import block
from store.constants import BLOCK_MAX_BYTES, BLOCK_SMALL_BYTES
from store.lmdb import layout
from store.lmdb.batch import collect
from store.lmdb.environment import Identity, open_environment
from store.lmdb.load import load
from store.lmdb.reader import Reader
from store.lmdb.transaction import write
from store.operations import CreateChannel, DeleteChannel, Expire, Limits
from tests.unit.store.builders import SETUP, UNLIMITED, Machine, messages

IDENTITY = Identity("c", "n", "i")


class Written(Machine):
    """A machine whose changes go to an environment."""

    def __init__(self, directory):
        super().__init__(*SETUP, CreateChannel(2, "bar", UNLIMITED))
        self.environment = open_environment(directory, IDENTITY, is_synced=False)
        self.write()

    def write(self):
        write(self.environment, collect(self.state, self.index, 1))

    def blocks(self, channel_id=1):
        """First sequence, count and size of the stored blocks."""
        with self.environment.handle.begin() as transaction:
            items = list(transaction.cursor(self.environment.databases[layout.MESSAGES]))
        found = [(layout.MESSAGE_KEY.unpack(key), value) for key, value in items]
        for _, value in found:
            block.verify(value)
        return [(key[1], block.count(value), len(value)) for key, value in found if key[0] == channel_id]


@pytest.fixture
def written(tmp_path):
    machine = Written(tmp_path)
    yield machine
    machine.environment.close()


def test_small_blocks_of_a_batch_become_one(written):
    """Blocks of other channels between them do not matter."""
    for seq in range(1, 6):
        written.publish(1, messages(seq, 1))
        written.publish(2, messages(seq, 1))
    written.write()
    assert [found[:2] for found in written.blocks()] == [(1, 5)]
    assert [found[:2] for found in written.blocks(2)] == [(1, 5)]


def test_small_last_block_is_extended(written):
    """One message per transaction does not leave a block for each; the last one grows to its bound."""
    number = 60
    for seq in range(1, number + 1):
        written.publish(1, messages(seq, 1, size=300))
        written.write()
    found = written.blocks()
    assert sum(count for _, count, _ in found) == number
    assert len(found) == number * len(messages(1, 1, size=300)[0]) // BLOCK_SMALL_BYTES + 1
    assert all(BLOCK_SMALL_BYTES <= size < 2 * BLOCK_SMALL_BYTES for _, _, size in found[:-1])


def test_merged_blocks_keep_their_bound(written):
    """Neighbours are merged up to the largest block only."""
    for seq in range(1, 12):
        written.publish(1, messages(seq, 1, size=20_000))
    written.write()
    assert [count for _, count, _ in written.blocks()] == [3, 3, 3, 2]
    assert all(size <= BLOCK_MAX_BYTES for _, _, size in written.blocks())


def test_damaged_last_block_is_not_extended(written):
    """What is damaged stays as it is: merging would give it a right checksum."""
    written.publish(1, messages(1, 1))
    written.write()
    key = layout.MESSAGE_KEY.pack(1, 1)
    database = written.environment.databases[layout.MESSAGES]
    with written.environment.handle.begin(write=True) as transaction:
        damaged = bytearray(transaction.get(key, db=database))
        damaged[-1] ^= 1
        transaction.put(key, bytes(damaged), db=database)
    written.publish(1, messages(2, 1))
    written.write()
    with written.environment.handle.begin() as transaction:
        assert transaction.get(key, db=database) == bytes(damaged)
        assert block.count(transaction.get(layout.MESSAGE_KEY.pack(1, 2), db=database)) == 1


def test_only_the_neighbour_is_extended(written):
    """A block that is missing in between is not papered over: messages would get other sequences."""
    for seq in (1, 2):
        written.publish(1, messages(seq, 1, size=9000))
        written.write()
    with written.environment.handle.begin(write=True) as transaction:
        database = written.environment.databases[layout.MESSAGES]
        transaction.put(layout.MESSAGE_KEY.pack(1, 1), block.encode(messages(1, 1)), db=database)
        transaction.delete(layout.MESSAGE_KEY.pack(1, 2), db=database)
    written.publish(1, messages(3, 1))
    written.write()
    assert [found[:2] for found in written.blocks()] == [(1, 1), (3, 1)]


def test_dead_blocks_are_deleted(written):
    """A block goes when all of it is dead; one that is partly alive stays. Other channels keep theirs."""
    for first in (1, 21, 41):
        written.publish(1, messages(first, 20, size=3000))
        written.publish(2, messages(first, 20, size=3000))
    written.write()
    assert [first for first, _, _ in written.blocks()] == [1, 21, 41]
    written.apply(Expire(1, 21))
    written.apply(Expire(2, 30))
    written.write()
    assert [first for first, _, _ in written.blocks()] == [21, 41]
    assert [first for first, _, _ in written.blocks(2)] == [21, 41]
    written.apply(Expire(1, 61))
    written.write()
    assert written.blocks() == []


def test_deleted_channel_leaves_nothing(written):
    """Messages and record go; a channel of that name with another id is another one."""
    written.publish(1, messages(1, 20, size=5000))
    written.publish(2, messages(1, 2))
    written.write()
    written.apply(DeleteChannel(1), CreateChannel(3, "foo", UNLIMITED))
    written.publish(3, messages(1, 1))
    written.write()
    assert written.blocks() == []
    assert [found[:2] for found in written.blocks(2)] == [(1, 2)]
    assert [found[:2] for found in written.blocks(3)] == [(1, 1)]
    state, index, _ = load(written.environment)
    assert sorted(state.channels_by_id) == [2, 3]
    assert index == written.index


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 4000), st.booleans()), max_size=20), st.integers(0, 40))
def test_every_live_message_is_found(tmp_path_factory, steps, max_msgs):
    """Whatever is merged and deleted, the reader finds each live message in its place, and no block is wholly dead."""
    written = Written(tmp_path_factory.mktemp("store"))
    written.apply(CreateChannel(3, "baz", Limits(max_msgs, 0, 0)))
    channel = written.state.channels["baz"]
    sent = {}
    for number, size, is_written in steps:
        content = messages(channel.last_seq + 1, number, size=size)
        sent.update(enumerate(content, channel.last_seq + 1))
        written.publish(3, content)
        written.publish(1, messages(written.state.channels["foo"].last_seq + 1, 1))
        if is_written:
            written.write()
    written.write()
    reader = Reader(written.environment)
    for seq in range(channel.first_seq, channel.last_seq + 1):
        first_seq, data = reader.block_at(3, seq)
        assert block.split(data)[seq - first_seq] == sent[seq]
    assert all(first + count > channel.first_seq for first, count, _ in written.blocks(3))
    written.environment.close()
