"""What the state machine needs of the durable form: the blocks that are no longer in memory."""

from typing import Protocol


class BlockReader(Protocol):
    """Reads blocks that are durable."""

    def block_at(self, channel_id: int, seq: int) -> tuple[int, bytes]:
        """First sequence and verified bytes of the block that holds `seq`.

        Raises:
            CorruptionError: it is damaged or missing.

        """
        ...
