"""Decides which of the oldest messages a channel loses by count, bytes and age (B326 to B328, O503, O508).

Pure but for reading the lengths of old messages.
Rule: count and counted bytes stay within the limits, but the newest message always stays; only expiry takes it too.
Invariant: `total_bytes` is the size of exactly the messages that are left.
"""

from bisect import bisect_left
from itertools import accumulate

from store import block
from store.machine import refusals
from store.machine.ports import BlockReader
from store.machine.state import Channel, HeadLengths, Refusal, Result, State
from store.operations import Expire, SetLimits


def enforce(state: State, channel: Channel, reader: BlockReader) -> None:
    """Remove what exceeds the limits. Costs a comparison while nothing does."""
    limits = channel.limits
    excess_count = channel.count - limits.max_msgs if limits.max_msgs else 0
    excess_bytes = channel.counted_bytes - limits.max_bytes if limits.max_bytes else 0
    if (excess_count > 0 or excess_bytes > 0) and channel.count > 1:
        _remove(channel, excess_count, excess_bytes, channel.last_seq - 1, reader)
        _first_moved(state, channel)


def replace(state: State, operation: SetLimits, reader: BlockReader) -> Result:
    """Other limits, enforced at once; what they remove does not come back."""
    channel = state.channels_by_id.get(operation.channel_id)
    if channel is None:
        return refusals.UNKNOWN_CHANNEL
    channel.limits = operation.limits
    state.changes.channels.add(channel.channel_id)
    enforce(state, channel, reader)
    return None


def expire(state: State, operation: Expire, reader: BlockReader) -> Result:
    """Messages below `first_seq` are gone, the newest one too if it is below. Nothing to do when they are gone already."""
    channel = state.channels_by_id.get(operation.channel_id)
    if channel is None:
        return refusals.UNKNOWN_CHANNEL
    if operation.first_seq > channel.last_seq + 1:
        return Refusal(f"messages below {operation.first_seq} expire, the channel ends with {channel.last_seq}")
    if operation.first_seq <= channel.first_seq:
        return None
    if operation.first_seq > channel.last_seq:
        channel.first_seq = operation.first_seq
        channel.total_bytes = 0
    else:
        _remove(channel, operation.first_seq - channel.first_seq, 0, operation.first_seq - 1, reader)
    _first_moved(state, channel)
    return None


def _remove(channel: Channel, excess_count: int, excess_bytes: int, last: int, reader: BlockReader) -> None:
    """Remove the oldest messages, at most up to `last`, until both excesses are gone; a block at a time."""
    overhead = channel.limits.message_overhead
    while (excess_count > 0 or excess_bytes > 0) and channel.first_seq <= last:
        head = _head(channel, reader)
        begin = channel.first_seq - head.first_seq
        available = min(head.last_seq, last) - channel.first_seq + 1
        number = min(max(excess_count, _enough(head.ends, begin, excess_bytes, overhead, available)), available)
        freed = head.ends[begin + number] - head.ends[begin]
        channel.first_seq += number
        channel.total_bytes -= freed
        excess_count -= number
        excess_bytes -= freed + overhead * number


def _enough(ends: list[int], begin: int, excess_bytes: int, overhead: int, available: int) -> int:
    """How many messages from `begin` on free `excess_bytes`; all available ones when they do not."""
    if excess_bytes <= 0:
        return 0
    base = ends[begin]
    numbers = range(1, available + 1)
    return 1 + bisect_left(numbers, excess_bytes, key=lambda number: ends[begin + number] - base + overhead * number)


def _head(channel: Channel, reader: BlockReader) -> HeadLengths:
    """Lengths of the block where the channel begins, from memory or, once for each block, from disk."""
    seq = channel.first_seq
    head = channel.head
    if head is None or not head.first_seq <= seq <= head.last_seq:
        in_tail = channel.tail.find(seq)
        first_seq, data = (
            (in_tail.first_seq, in_tail.data) if in_tail is not None else reader.block_at(channel.channel_id, seq)
        )
        ends = list(accumulate(block.lengths(data), initial=0))
        head = channel.head = HeadLengths(first_seq, first_seq + len(ends) - 2, ends)
    return head


def _first_moved(state: State, channel: Channel) -> None:
    state.tail.drop_dead(channel.tail, channel.first_seq)
    state.changes.channels.add(channel.channel_id)
    state.changes.trimmed.add(channel.channel_id)
