"""Reads blocks of messages. One short read transaction per call: an open one would keep old pages from being reused."""

from store import block
from store.errors import CorruptionError
from store.lmdb import layout
from store.lmdb.environment import Environment, damage_named


class Reader:
    """The port `BlockReader` on LMDB."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._messages = environment.databases[layout.MESSAGES]

    def block_at(self, channel_id: int, seq: int) -> tuple[int, bytes]:
        """First sequence and verified bytes of the block that holds `seq`; raises CorruptionError naming both."""
        with damage_named(self._environment.data_path):
            key, data = self._find(channel_id, seq)
        found_channel_id, first_seq = layout.MESSAGE_KEY.unpack(key) if key else (0, 0)
        where = f"channel {channel_id}, sequence {seq}"
        if found_channel_id != channel_id:
            raise CorruptionError(where, "a block", "none")
        try:
            block.verify(data)
        except CorruptionError as error:
            raise CorruptionError(where, error.expected, error.found) from error
        last_seq = first_seq + block.count(data) - 1
        if last_seq < seq:
            raise CorruptionError(where, "a block", f"one of {first_seq} to {last_seq}")
        return first_seq, data

    def _find(self, channel_id: int, seq: int) -> tuple[bytes, bytes]:
        """Key and value of the last block that begins at or before `seq`; both empty when there is none."""
        with self._environment.handle.begin(db=self._messages) as transaction:
            cursor = transaction.cursor()
            wanted = layout.MESSAGE_KEY.pack(channel_id, seq)
            if cursor.set_range(wanted):
                if cursor.key() != wanted and not cursor.prev():
                    return b"", b""
            elif not cursor.last():
                return b"", b""
            return cursor.item()
