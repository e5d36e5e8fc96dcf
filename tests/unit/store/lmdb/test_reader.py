"""Reading blocks from LMDB, and what it says about damage."""

import pytest

from store import block
from store.errors import CorruptionError
from store.lmdb import layout
from store.lmdb.environment import Identity, open_environment
from store.lmdb.reader import Reader
from tests.unit.store.builders import messages


@pytest.fixture
def environment(tmp_path):
    """Channel 2 with blocks of sequences 5 to 9 and 10 to 12, channel 4 with 1 to 3."""
    environment = open_environment(tmp_path, Identity("c", "n", "i"), is_synced=False)
    with environment.handle.begin(write=True) as transaction:
        for channel_id, first_seq, count in ((2, 5, 5), (2, 10, 3), (4, 1, 3)):
            transaction.put(
                layout.MESSAGE_KEY.pack(channel_id, first_seq),
                block.encode(messages(first_seq, count)),
                db=environment.databases[layout.MESSAGES],
            )
    yield environment
    environment.close()


def damage(environment, key, change):
    database = environment.databases[layout.MESSAGES]
    with environment.handle.begin(write=True) as transaction:
        transaction.put(key, change(transaction.get(key, db=database)), db=database)


@pytest.mark.parametrize(
    ("channel_id", "seq", "first_seq"),
    [(2, 5, 5), (2, 7, 5), (2, 9, 5), (2, 10, 10), (2, 12, 10), (4, 1, 1), (4, 3, 1)],
)
def test_block_that_holds_the_sequence(environment, channel_id, seq, first_seq):
    """The block that begins at or before the sequence."""
    found_first, data = Reader(environment).block_at(channel_id, seq)
    assert found_first == first_seq
    assert block.split(data)[seq - first_seq] == messages(seq, 1)[0]


@pytest.mark.parametrize(("channel_id", "seq"), [(1, 1), (2, 4), (2, 13), (3, 1), (4, 4), (5, 1)])
def test_missing_block_is_damage(environment, channel_id, seq):
    """A live message without a block names channel and sequence."""
    with pytest.raises(CorruptionError, match=f"^channel {channel_id}, sequence {seq} is damaged: expected a block"):
        Reader(environment).block_at(channel_id, seq)


def test_empty_store_has_no_block(tmp_path):
    """The same in a store without any message."""
    environment = open_environment(tmp_path, Identity("c", "n", "i"), is_synced=False)
    with pytest.raises(CorruptionError, match="found none"):
        Reader(environment).block_at(1, 1)
    environment.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:-1],
        lambda data: data[:3],
        lambda _: bytes(99),
    ],
    ids=["flipped bit", "cut", "very short", "zeros"],
)
def test_damaged_block_names_channel_and_sequence(environment, change):
    """O534: it is never delivered; other blocks are read on."""
    damage(environment, layout.MESSAGE_KEY.pack(2, 5), change)
    reader = Reader(environment)
    with pytest.raises(CorruptionError, match=r"^channel 2, sequence 7 is damaged: expected"):
        reader.block_at(2, 7)
    assert reader.block_at(2, 10)[0] == 10


def test_no_read_transaction_stays_open(environment):
    """An open one would keep old pages from being reused."""
    reader = Reader(environment)
    reader.block_at(2, 5)
    with pytest.raises(CorruptionError):
        reader.block_at(9, 9)
    environment.handle.reader_check()
    assert all(line.split()[-1] == "-" for line in environment.handle.readers().splitlines()[1:])
