"""Keeps recent blocks in memory, bounded in bytes over all channels, oldest first out.

Rule: a block leaves only when LMDB has it, so a reader finds every message in one of the two. Dead blocks leave at once.
"""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from store.constants import SPLIT_MAX_BYTES, TAIL_MAX_BYTES

BLOCK_OVERHEAD_BYTES: Final = 512
"""Memory of a block beside its bytes: objects and index entries (measured: about 450 bytes)."""

COMPACT_MIN: Final = 64
"""Removed places at the front of a channel's list before it is rewritten."""


@dataclass(slots=True, eq=False)
class Block:
    """A block that an Append created. `messages`, when set, are those of `data`; whoever has them may set them."""

    channel_id: int
    first_seq: int
    count: int
    size: int
    data: bytes | memoryview
    messages: list[bytes] | None
    index: int
    """Index of the log entry that holds it."""
    number: int = 0
    """Place in the tail."""

    @property
    def last_seq(self) -> int:
        """Sequence of its last message."""
        return self.first_seq + self.count - 1


class ChannelTail:
    """The blocks of one channel that are in memory: consecutive, ending with the channel's newest."""

    __slots__ = ("_blocks", "_first_seqs", "_start")

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._first_seqs: list[int] = []
        self._start = 0

    def find(self, seq: int) -> Block | None:
        """The block that holds `seq`, if it is here."""
        if self._start == len(self._blocks):
            return None
        newest = self._blocks[-1]
        if seq >= newest.first_seq:
            return newest if seq <= newest.last_seq else None
        position = bisect_right(self._first_seqs, seq, self._start) - 1
        return self._blocks[position] if position >= self._start else None

    def append(self, block: Block) -> None:
        """Add the channel's newest block."""
        self._blocks.append(block)
        self._first_seqs.append(block.first_seq)

    def oldest(self) -> Block | None:
        """The first block, if there is one."""
        return self._blocks[self._start] if self._start < len(self._blocks) else None

    def remove_oldest(self) -> None:
        """Remove the first block."""
        self._start += 1
        if self._start >= COMPACT_MIN and self._start * 2 > len(self._blocks):
            del self._blocks[: self._start]
            del self._first_seqs[: self._start]
            self._start = 0
        else:
            self._blocks[self._start - 1] = _REMOVED

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks[self._start :])

    def __len__(self) -> int:
        return len(self._blocks) - self._start


_REMOVED: Final = Block(0, 0, 0, 0, b"", None, 0)
"""Stands where a block was, so that its memory is free."""


class Tail:
    """The blocks of all channels in the order they were applied. `used_bytes` counts their memory."""

    __slots__ = ("_blocks", "_next_number", "_split", "_split_bytes", "max_bytes", "used_bytes")

    def __init__(self, max_bytes: int = TAIL_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._blocks: OrderedDict[int, tuple[Block, ChannelTail]] = OrderedDict()
        self._next_number = 1
        self._split: deque[Block] = deque()
        self._split_bytes = 0

    def add(self, tail: ChannelTail, block: Block) -> None:
        """`block` is the newest of its channel, whose tail is `tail`."""
        block.number = self._next_number
        self._next_number += 1
        self._blocks[block.number] = (block, tail)
        tail.append(block)
        self.used_bytes += block.size + BLOCK_OVERHEAD_BYTES
        self._split.append(block)
        self._split_bytes += block.size + BLOCK_OVERHEAD_BYTES
        while self._split_bytes > SPLIT_MAX_BYTES:
            older = self._split.popleft()
            older.messages = None
            self._split_bytes -= older.size + BLOCK_OVERHEAD_BYTES

    def drop_dead(self, tail: ChannelTail, first_seq: int) -> None:
        """The channel of `tail` now begins at `first_seq`."""
        while (block := tail.oldest()) is not None and block.last_seq < first_seq:
            tail.remove_oldest()
            del self._blocks[block.number]
            self.used_bytes -= block.size + BLOCK_OVERHEAD_BYTES

    def drop_all(self, tail: ChannelTail) -> None:
        """The channel of `tail` is deleted."""
        while (block := tail.oldest()) is not None:
            tail.remove_oldest()
            del self._blocks[block.number]
            self.used_bytes -= block.size + BLOCK_OVERHEAD_BYTES

    def evict(self, durable_index: int) -> None:
        """Make room below the bound with blocks of entries up to `durable_index`."""
        while self.used_bytes > self.max_bytes:
            block, tail = next(iter(self._blocks.values()))
            if block.index > durable_index:
                return
            del self._blocks[block.number]
            tail.remove_oldest()
            self.used_bytes -= block.size + BLOCK_OVERHEAD_BYTES
