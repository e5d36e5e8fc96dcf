"""Writes one batch in one transaction: dead blocks go, records and new blocks come, merged with small neighbours."""

from typing import TYPE_CHECKING

from store import block
from store.constants import BLOCK_SMALL_BYTES
from store.errors import CorruptionError
from store.lmdb import layout
from store.lmdb.batch import REMOVED, Batch, Stored, runs
from store.lmdb.environment import Environment

if TYPE_CHECKING:
    import lmdb

SEQ_MAX = (1 << 64) - 1


def write(environment: Environment, batch: Batch) -> None:
    """Write `batch` and commit, synced unless the environment is not; raises lmdb.Error."""
    databases = environment.databases
    with environment.handle.begin(write=True, buffers=True) as transaction:
        messages = transaction.cursor(databases[layout.MESSAGES])
        for channel_id in batch.deleted_channels:
            _delete_below(messages, channel_id, SEQ_MAX)
        for channel_id, first_seq in batch.first_seqs:
            _delete_below(messages, channel_id, first_seq)
        for name, items in batch.records.items():
            for key, record in items:
                if record == REMOVED:
                    transaction.delete(key, db=databases[name])
                else:
                    transaction.put(key, record, db=databases[name])
        values: list[tuple[bytes, bytes | memoryview]] = []
        for channel_id, blocks in batch.blocks.items():
            previous = _small_predecessor(messages, channel_id, blocks[0][0])
            for first_seq, run in runs(previous + blocks):
                value = run[0] if len(run) == 1 else block.merge(run)
                values.append((layout.MESSAGE_KEY.pack(channel_id, first_seq), value))
        messages.putmulti(values)


def _delete_below(cursor: "lmdb.Cursor[memoryview]", channel_id: int, first_seq: int) -> None:
    """Delete the channel's blocks that end before `first_seq`."""
    found = cursor.set_range(layout.MESSAGE_KEY.pack(channel_id, 0))
    while found:
        found_channel_id, block_first_seq = layout.MESSAGE_KEY.unpack(cursor.key())
        if found_channel_id != channel_id or block_first_seq + block.count(cursor.value()) > first_seq:
            return
        cursor.delete()
        found = bool(cursor.key())


def _small_predecessor(cursor: "lmdb.Cursor[memoryview]", channel_id: int, first_seq: int) -> list[Stored]:
    """The channel's last stored block, if it is small, intact and ends before `first_seq`."""
    if not (cursor.prev() if cursor.set_range(layout.MESSAGE_KEY.pack(channel_id, first_seq)) else cursor.last()):
        return []
    found_channel_id, previous_first_seq = layout.MESSAGE_KEY.unpack(cursor.key())
    if found_channel_id != channel_id or len(cursor.value()) >= BLOCK_SMALL_BYTES:
        return []
    data = bytes(cursor.value())
    try:
        block.verify(data)
    except CorruptionError:
        return []  # stays as it is, so that its reader is told
    return [(previous_first_seq, data)] if previous_first_seq + block.count(data) == first_seq else []
