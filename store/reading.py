"""Finds messages by sequence and time, in memory or on disk. Pure but for reading blocks.

What was read from disk is kept split for the next reader, one block per channel, bounded in bytes: a slow subscriber
comes back for the rest of its block.
"""

from collections import OrderedDict
from itertools import accumulate
from typing import Final

from store import block
from store.constants import READ_CACHE_MAX_BYTES
from store.errors import CorruptionError, InvariantError
from store.machine.ports import BlockReader
from store.machine.state import Channel
from store.message import timestamp_ns

SPLIT_OVERHEAD_BYTES: Final = 64
"""Memory of a message beside its bytes, in a list."""

Split = tuple[int, list[bytes], int]
"""First sequence, messages, memory in bytes."""


class Reading:
    """Reads messages of channels."""

    def __init__(self, reader: BlockReader, cache_max_bytes: int = READ_CACHE_MAX_BYTES) -> None:
        self._reader = reader
        self._cache: OrderedDict[int, Split] = OrderedDict()
        self._cache_bytes = 0
        self._cache_max_bytes = cache_max_bytes

    def messages(self, channel: Channel, seq: int, max_count: int, max_bytes: int) -> tuple[int, list[bytes]]:
        """Consecutive messages from the first one at or behind `seq` that exists, and its sequence.

        At most `max_count`, and `max_bytes` together unless the first one alone is larger; fewer before an unreadable one.
        Behind the end: no messages. Raises CorruptionError when the first one cannot be read.
        """
        assert max_count > 0
        first = max(seq, channel.first_seq)
        last = min(channel.last_seq, first + max_count - 1)
        found: list[bytes] = []
        position = first
        while position <= last:
            try:
                taken = self._from_block(channel, position, last)
            except CorruptionError:
                if found:
                    break
                raise
            size = sum(map(len, taken))
            if size > max_bytes:
                fitting = sum(1 for end in accumulate(map(len, taken)) if end <= max_bytes)
                found += taken[: fitting or not found]
                break
            found += taken
            max_bytes -= size
            position += len(taken)
        return first, found

    def _from_block(self, channel: Channel, seq: int, last: int) -> list[bytes]:
        """Messages `seq` to `last` as far as they are in one block."""
        first_seq, messages = self._split_at(channel, seq)
        taken = messages[seq - first_seq : last + 1 - first_seq]
        if not taken:
            raise CorruptionError(f"channel {channel.name}, sequence {seq}", "a block that holds it", "none")
        return taken

    def timestamp_ns(self, channel: Channel, seq: int) -> int:
        """Timestamp of a message that exists."""
        if not channel.first_seq <= seq <= channel.last_seq:
            raise InvariantError(
                f"timestamp of {channel.name}:{seq} was asked for, it has {channel.first_seq} to {channel.last_seq}"
            )
        first_seq, messages = self._split_at(channel, seq)
        try:
            return timestamp_ns(messages[seq - first_seq])
        except CorruptionError as error:
            raise CorruptionError(f"channel {channel.name}, sequence {seq}", error.expected, error.found) from error

    def first_at_or_after(self, channel: Channel, time_ns: int) -> int:
        """Sequence of the first message with a timestamp >= `time_ns`; behind the last one when there is none (B221).

        Timestamps never fall within a channel (B203). The search widens from the oldest message on, so that expiry, which
        looks for something near it, reads a block or two however long the channel is.
        """
        low, end = channel.first_seq, channel.last_seq + 1
        if channel.last_timestamp_ns < time_ns:
            return end
        step = 1
        while low + step < end and self.timestamp_ns(channel, low + step - 1) < time_ns:
            low += step
            step *= 2
        high = min(low + step, end)
        while low < high:
            middle = (low + high) // 2
            if self.timestamp_ns(channel, middle) >= time_ns:
                high = middle
            else:
                low = middle + 1
        return low

    def _split_at(self, channel: Channel, seq: int) -> tuple[int, list[bytes]]:
        """First sequence and messages of the block that holds `seq`."""
        recent = channel.tail.find(seq)
        if recent is not None and recent.messages is not None:
            return recent.first_seq, recent.messages
        cached = self._cache.get(channel.channel_id)
        if cached is not None and cached[0] <= seq < cached[0] + len(cached[1]):
            self._cache.move_to_end(channel.channel_id)
            return cached[0], cached[1]
        if recent is not None:
            first_seq, data = recent.first_seq, recent.data
        else:
            first_seq, data = self._reader.block_at(channel.channel_id, seq)
        messages = block.split(data)
        self._keep(channel.channel_id, (first_seq, messages, len(data) + SPLIT_OVERHEAD_BYTES * len(messages)))
        return first_seq, messages

    def _keep(self, channel_id: int, split: Split) -> None:
        replaced = self._cache.pop(channel_id, None)
        if replaced is not None:
            self._cache_bytes -= replaced[2]
        self._cache[channel_id] = split
        self._cache_bytes += split[2]
        while self._cache_bytes > self._cache_max_bytes:
            _, (_, _, size) = self._cache.popitem(last=False)
            self._cache_bytes -= size
