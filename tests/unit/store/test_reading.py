"""Finding messages by sequence and time, in memory and on disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import block
from store.errors import CorruptionError, InvariantError
from store.machine.state import Channel
from store.machine.tail import Block, Tail
from store.operations import Limits
from store.reading import SPLIT_OVERHEAD_BYTES, Reading
from tests.unit.store.builders import START_NS, message

SIZE = len(message(1))


class Disk:
    """Blocks on disk; counts reads."""

    def __init__(self):
        self.blocks = {}
        self.reads = 0

    def block_at(self, _channel_id, seq):
        self.reads += 1
        first_seq = max(first for first in self.blocks if first <= seq)
        return first_seq, self.blocks[first_seq]


def make(counts, *, first_seq=1, in_memory=0, times=None, primed=False):
    """A channel with blocks of `counts` messages, the last `in_memory` of them in the tail."""
    channel, disk, tail = Channel(1, "foo", Limits(0, 0, 0)), Disk(), Tail()
    for position, count in enumerate(counts):
        seqs = range(channel.last_seq + 1, channel.last_seq + count + 1)
        content = [message(seq, timestamp_ns=times[seq - 1] if times else START_NS + seq) for seq in seqs]
        data = block.encode(content)
        if position >= len(counts) - in_memory:
            tail.add(channel.tail, Block(1, seqs[0], count, len(data), data, content if primed else None, position))
        else:
            disk.blocks[seqs[0]] = data
        channel.last_seq += count
    channel.first_seq = first_seq
    channel.last_timestamp_ns = times[-1] if times else START_NS + channel.last_seq
    return channel, disk, Reading(disk)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=6),
    st.integers(0, 6),
    st.integers(0, 40),
    st.integers(1, 40),
    st.integers(0, 10 * SIZE),
    st.booleans(),
    st.data(),
)
def test_messages_from_a_sequence(counts, in_memory, seq, max_count, max_bytes, primed, draw):
    """Consecutive messages from max(seq, first), bounded by count and bytes, but one at least; over all boundaries."""
    total = sum(counts)
    first_seq = draw.draw(st.integers(1, total + 1))
    channel, _, reading = make(counts, first_seq=first_seq, in_memory=min(in_memory, len(counts)), primed=primed)
    for _ in range(2):  # the second time some are kept split
        first, found = reading.messages(channel, seq, max_count, max_bytes)
        assert first == max(seq, first_seq)
        expected = [message(number, timestamp_ns=START_NS + number) for number in range(first, total + 1)][:max_count]
        while len(expected) > 1 and sum(map(len, expected)) > max_bytes:
            expected.pop()
        assert found == expected


def test_block_on_disk_is_read_once_for_its_readers():
    """A slow subscriber comes back for the rest of its block."""
    channel, disk, reading = make([10, 10], in_memory=1)
    for seq in range(1, 11):
        reading.messages(channel, seq, 1, 1000)
    assert disk.reads == 1


def test_kept_blocks_are_bounded():
    """Blocks of many channels do not add up."""
    channel, disk, _ = make([10, 10])
    reading = Reading(disk, cache_max_bytes=2 * (len(disk.blocks[1]) + 10 * SPLIT_OVERHEAD_BYTES))
    other = Channel(2, "bar", channel.limits, 1, 20)
    third = Channel(3, "baz", channel.limits, 1, 20)
    for one in (channel, other, channel, third):  # the one longest unused goes
        reading.messages(one, 1, 1, 1000)
    assert disk.reads == 3
    reading.messages(channel, 1, 1, 1000)
    assert disk.reads == 3
    reading.messages(other, 1, 1, 1000)
    assert disk.reads == 4


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=30).map(sorted), st.integers(-1, 32), st.integers(0, 9), st.data()
)
def test_first_message_at_or_after_a_time(times, time_ns, in_memory, draw):
    """B220, B221: equality counts; the first of equal ones; removed ones do not count; last + 1 when all are older."""
    counts = [min(4, len(times) - begin) for begin in range(0, len(times), 4)]
    first_seq = draw.draw(st.integers(1, len(times) + 1))
    channel, _, reading = make(counts, first_seq=first_seq, in_memory=min(in_memory, len(counts)), times=times)
    channel.last_timestamp_ns += draw.draw(st.integers(0, 2))  # may be later than the newest message
    expected = [seq for seq, time in enumerate(times, 1) if time >= time_ns and seq >= first_seq]
    assert reading.first_at_or_after(channel, time_ns) == (expected[0] if expected else len(times) + 1)


def test_channel_that_never_had_a_message():
    """B220: the next message."""
    channel, _, reading = make([1])
    channel.first_seq, channel.last_seq, channel.last_timestamp_ns = 1, 0, 0
    assert reading.first_at_or_after(channel, 0) == 1
    assert reading.messages(channel, 1, 10, 1000) == (1, [])


def test_timestamp_of_a_message():
    """Of one that exists; another one is a bug."""
    channel, _, reading = make([3, 3], first_seq=2, in_memory=1)
    assert [reading.timestamp_ns(channel, seq) - START_NS for seq in range(2, 7)] == [2, 3, 4, 5, 6]
    for seq in (1, 7):
        with pytest.raises(InvariantError, match=f"timestamp of foo:{seq} was asked for, it has 2 to 6"):
            reading.timestamp_ns(channel, seq)


def test_message_without_timestamp_names_channel_and_sequence():
    """What is stored is not a message."""
    channel, disk, reading = make([2])
    disk.blocks[1] = block.encode([b"\xff\xff", b"\x08\x02"])
    with pytest.raises(CorruptionError, match=r"^channel foo, sequence 1 is damaged"):
        reading.timestamp_ns(channel, 1)


def test_what_is_before_an_unreadable_block_is_read():
    """B238: nothing that is good is held back by what is not."""
    channel, disk, reading = make([2, 2, 2])
    disk.blocks[3] = b"damaged"
    first, messages = reading.messages(channel, 1, 10, 10_000)
    assert (first, len(messages)) == (1, 2)
    with pytest.raises(CorruptionError):
        reading.messages(channel, 3, 10, 10_000)
    assert reading.messages(channel, 5, 10, 10_000)[0] == 5
