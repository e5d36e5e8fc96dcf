"""Appends blocks of messages to channels (B200, B203). Pure but for enforcing limits."""

from typing import Final

from store import block
from store.errors import InvariantError
from store.machine import limits, refusals
from store.machine.ports import BlockReader
from store.machine.state import Block, Refusal, Result, State
from store.operations import Append

KEPT_SHARE: Final = 4
"""A block keeps its entry in memory, uncopied, when it is at least this fraction of it; small ones are copied, so that the
bound of the tail means something."""


def append(state: State, operation: Append, data: memoryview, index: int, reader: BlockReader) -> Result:
    """Add a block to a channel, then enforce its limits.

    Raises:
        CorruptionError, InvariantError: the block is not what the operation says.

    """
    channel = state.channels_by_id.get(operation.channel_id)
    if channel is None:
        return refusals.UNKNOWN_CHANNEL
    if operation.first_seq != channel.last_seq + 1:
        return Refusal(f"block begins with {operation.first_seq}, the channel ends with {channel.last_seq}")
    created = Block(
        channel_id=operation.channel_id,
        first_seq=operation.first_seq,
        count=operation.count,
        size=operation.size,
        data=data if data.nbytes * KEPT_SHARE >= memoryview(data.obj).nbytes else bytes(data),
        messages=None,
        index=index,
    )
    block.verify(data)
    if block.count(data) != operation.count:
        raise InvariantError(
            f"entry {index}, channel {channel.name}: block of {block.count(data)} messages,"
            f" its operation says {operation.count}"
        )
    channel.last_seq = created.last_seq
    channel.total_bytes += block.message_bytes(data)
    channel.last_timestamp_ns = max(channel.last_timestamp_ns, operation.last_timestamp_ns)
    state.tail.add(channel.tail, created)
    changes = state.changes
    changes.channels.add(channel.channel_id)
    changes.blocks.append(created)
    changes.block_bytes += created.size
    limits.enforce(state, channel, reader)
    return created
