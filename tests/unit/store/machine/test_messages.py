"""Appending blocks."""

import pytest

from store import block
from store.errors import CorruptionError, InvariantError
from store.machine.messages import KEPT_SHARE
from store.machine.refusals import UNKNOWN_CHANNEL
from store.machine.state import Refusal
from store.operations import Append, CreateChannel
from tests.unit.store.builders import SETUP, START_NS, UNLIMITED, Machine, append, messages


def test_block_is_appended():
    """The result is the block; range, size and time of the channel follow."""
    machine = Machine(*SETUP)
    content = messages(1, 3)
    created = machine.publish(1, content)
    channel = machine.state.channels["foo"]
    assert (created.channel_id, created.first_seq, created.count, created.last_seq) == (1, 1, 3, 3)
    assert created.index == machine.index
    assert created.messages is None
    assert block.split(created.data) == content
    assert created.size == len(created.data)
    assert (channel.first_seq, channel.last_seq, channel.total_bytes) == (1, 3, sum(map(len, content)))
    assert channel.last_timestamp_ns == START_NS + 3
    assert channel.tail.find(2) is created


@pytest.mark.parametrize("first_seq", [0, 1, 3, 5])
def test_other_sequence_than_the_next_is_refused(first_seq):
    """No gap, nothing twice (B200)."""
    machine = Machine(*SETUP)
    machine.publish(1, messages(1, 3))
    operation, data = append(1, first_seq, messages(4, 1))
    (result,) = machine.apply(operation, blocks=[data])
    assert result == Refusal(f"block begins with {first_seq}, the channel ends with 3")
    assert machine.state.channels["foo"].last_seq == 3


def test_unknown_channel_is_refused_and_later_blocks_go_to_theirs():
    """A refused block does not shift the blocks of the entry (B205)."""
    machine = Machine(*SETUP, CreateChannel(2, "bar", UNLIMITED))
    pairs = [append(channel_id, 1, messages(1, channel_id + 1)) for channel_id in (1, 9, 2)]
    results = machine.apply(*(operation for operation, _ in pairs), blocks=[data for _, data in pairs])
    assert results[1] is UNKNOWN_CHANNEL
    assert [results[0].data, results[2].data] == [pairs[0][1], pairs[2][1]]


def test_timestamp_does_not_go_back():
    """B203: never lower than the previous message of that channel."""
    machine = Machine(*SETUP)
    machine.publish(1, messages(1, 3))
    data = block.encode(messages(4, 1))
    machine.apply(Append(1, 4, 1, len(data), START_NS - 5), blocks=[data])
    assert machine.state.channels["foo"].last_timestamp_ns == START_NS + 3


def test_damaged_block_stops_the_node():
    """A block whose bytes are not what its checksum says is never stored."""
    machine = Machine(*SETUP)
    operation, data = append(1, 1, messages(1, 3))
    with pytest.raises(CorruptionError):
        machine.apply(operation, blocks=[data[:-1] + b"\xff"])


def test_wrong_count_stops_the_node():
    """An operation that says another number than its block is a bug of a leader."""
    machine = Machine(*SETUP)
    data = block.encode(messages(1, 3))
    with pytest.raises(InvariantError, match="block of 3 messages, its operation says 4"):
        machine.apply(Append(1, 1, 4, len(data), START_NS), blocks=[data])


def test_small_block_does_not_keep_a_large_entry():
    """Large blocks are views of the entry, small ones are copied out of it."""
    machine = Machine(*SETUP, CreateChannel(2, "bar", UNLIMITED))
    small, large = append(1, 1, messages(1, 1)), append(2, 1, messages(1, 1, size=100 * KEPT_SHARE))
    results = machine.apply(small[0], large[0], blocks=[small[1], large[1]])
    assert [type(result.data) for result in results] == [bytes, memoryview]
    assert [result.data for result in results] == [small[1], large[1]]
